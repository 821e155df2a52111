"""Admission: whether the events of one request may leave, by its visitor's consent and kind."""

from capi_middleware.capture.consent import DENIED, ConsentRule, Permission
from capi_middleware.capture.noise import noise
from capi_middleware.capture.reading import RequestReader
from capi_middleware.lazily import Part, lazily
from capi_middleware.request.asking import Asker
from capi_middleware.steps import Steps


class Admission(Part):
    """Decides once for a request; both copies of its events are treated alike."""

    _rule: ConsentRule
    _reader: RequestReader
    _asker: Asker
    _method: str
    _path: str
    _decided: Permission | None = None

    @lazily
    def noise(self) -> str | None:
        """Why the request is no visit, None for a visit."""
        return noise(self._method, self._path, self._reader.headers)

    @property
    def permission(self) -> Permission:
        """The visitor's consent as far as it is known: an asynchronous rule counts as denied."""
        if self._decided is not None:
            return self._decided
        rule = self._rule
        answer = self._asker.call_now(rule.ask) if rule.ask else rule.read(self._reader)
        return rule.decide(answer, self._reader.headers)

    def decide(self) -> Steps[None]:
        """Ask the site's rule, once; it may take its time."""
        if self._decided is not None:
            return
        rule = self._rule
        answer = (yield from self._asker.call(rule.ask)) if rule.ask else rule.read(self._reader)
        self._decided = rule.decide(answer, self._reader.headers)

    def deny(self) -> None:
        """Whatever the visitor said: nothing may leave."""
        self._decided = DENIED

    @property
    def refusal(self) -> str | None:
        """Why no event may leave, None when they may."""
        if self.noise is not None:
            return self.noise
        return "consent" if self.permission.consent == "denied" else None
