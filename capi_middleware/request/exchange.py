"""Exchange: one request and its response, and the order of the stations between them."""

from collections.abc import Mapping, MutableMapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

from capi_middleware.capture.reading import BodyTee, RequestReader
from capi_middleware.config.index import Match
from capi_middleware.config.settings import Config
from capi_middleware.events import Count, Event
from capi_middleware.meta.user_data import UserData
from capi_middleware.page import (
    GzipInjector,
    Injector,
    Piece,
    Verdict,
    inspect,
    is_public,
    rewrite,
    rewrite_head,
)
from capi_middleware.request.admission import Admission
from capi_middleware.request.asking import Asker
from capi_middleware.request.carriage import Carriage
from capi_middleware.request.drafting import Draft, Drafting
from capi_middleware.request.issuing import Issuer
from capi_middleware.request.tagging import Tagger
from capi_middleware.request.visit import Visit
from capi_middleware.steps import Headers, Steps
from capi_middleware.store.commits import Commit


class Passage(Protocol):
    """A request on its way through a door."""

    @property
    def is_open(self) -> bool:
        """Whether somebody needed an Exchange so far."""

    def opened(self) -> "Exchange":
        """Its Exchange, made now where nobody needed one so far."""


current: ContextVar[Passage | None] = ContextVar("capi_passage", default=None)
_MISSED = Verdict(inject=False, reason="not_html")


class Exchange:
    """What the tracker knows about one request. Every method may be called from one door only."""

    def __init__(
        self,
        issuer: Issuer,
        scope: MutableMapping[str, Any],
        *,
        path: str,
        mount: str,
        matches: list[Match],
    ) -> None:
        self.issuer = issuer
        self.config: Config = issuer.config
        self.scope = scope
        exclude = self.config.exclude
        self.excluded: bool = bool(exclude) and path.startswith(tuple(exclude))
        if self.excluded:
            matches = []
        self.tee: BodyTee | None = None
        for match in matches:
            if match.route.reads_body:
                self.tee = BodyTee()
        self.reader: RequestReader = RequestReader(scope, self.tee)
        asker = Asker(scope, issuer.shield)
        self.drafting: Drafting = Drafting(issuer, asker, self.reader, matches)
        self.admission: Admission = Admission(
            issuer.consent, self.reader, asker, scope["method"], path
        )
        self.visit: Visit = Visit(issuer, scope, self.reader, self.admission)
        self.carriage: Carriage = Carriage(issuer, self.reader, self.visit)
        self.tagger: Tagger = Tagger(issuer, mount, self.drafting, self.admission)
        self._commits: list[Commit] = []
        self._verdict: Verdict | None = None
        self._injector: Injector | GzipInjector | None = None
        self._headers: Headers = []
        self._event_ids = False
        self._handed = False
        self._page_view = False
        self._ask = False
        self._ended = False

    @property
    def is_open(self) -> bool:
        """See Passage."""
        return True

    def opened(self) -> "Exchange":
        """See Passage."""
        return self

    def missed(self) -> None:
        """The response started before this was made: what comes is issued at once."""
        self._verdict = _MISSED
        self._ended = True

    # -- what the host's code asks for -----------------------------------------------------------

    def track(
        self,
        event_name: str,
        custom_data: Mapping[str, Any],
        user_data: UserData | None,
        dedupe_key: object,
    ) -> Event:
        """Add an event, or fill in the one that a route already made of this request."""
        draft = self.drafting.track(event_name, custom_data, user_data, dedupe_key)
        if self._ended:
            self._issue([draft], "not_rendered")
        return draft.event

    # -- what a door does, in this order ---------------------------------------------------------

    def begin(self, status: int, headers: Headers) -> Steps[bool]:
        """The response starts: whether its body must go through open_body() and feed()."""
        self._headers = headers
        method = self.scope["method"]
        verdict = inspect(
            "GET" if method == "HEAD" else method,
            status,
            headers,
            host=self.visit.client.host,
            scheme=self.visit.client.scheme,
        )
        self._verdict = verdict
        page = verdict.inject and not self.excluded
        drafting = self.drafting
        if method == "HEAD":
            if page:
                self._headers = rewrite_head(headers)
            drafting.matches = []
            self._suppress("head")
            return False
        if not verdict.inject and verdict.reason not in ("not_html", "status"):
            self.issuer.count(Count("skipped", verdict.reason))
            self.issuer.notices.say(verdict.reason)
        if drafting.matches:
            drafting.matches = [one for one in drafting.matches if one.route.counts(status)]
        landing = 300 <= status < 400 and not self.excluded
        if landing and b"fbclid=" in self.scope.get("query_string", b""):
            self._headers = yield from self.visit.keep_click(headers)
        if not (page or drafting.matches or drafting.drafts or self.carriage.waits):
            return False
        admission = self.admission
        prefetch = admission.noise == "prefetch"
        self._page_view = (
            page and self.config.page_view and status < 300 and self.carriage.shows_page
        )
        self._ask = page and (verdict.public or prefetch)
        if admission.noise is None:
            yield from admission.decide()
        refusal = admission.refusal
        if refusal is not None and not prefetch:
            self._suppress(refusal, keep_page=self._ask)
            # A page that others may see must not depend on this visitor: its question decides.
            if not self._ask:
                return False
        elif prefetch or status >= 500:
            self._suppress("prefetch" if prefetch else "error_status", keep_page=True)
        if not self._ask:
            yield from self.drafting.complete(self._page_view)
        if not page or (self.carriage.scripted and not self._ask):
            self._draft_page_view()
            self._send_on(status)
        if not page:
            return False
        self._injector = (GzipInjector if verdict.gzip else Injector)(self._make_tag)
        return True

    @property
    def headers(self) -> Headers:
        """The headers of a response whose body goes out as it is."""
        return self._headers

    def open_body(self, chunk: bytes, last: bool) -> tuple[Headers, list[Piece]]:
        """The first piece of the body decides how the headers go out."""
        assert self._injector is not None
        injector = self._injector
        self.visit.sets_cookies = not self._ask
        pieces = injector.feed(chunk, last)
        self.visit.sets_cookies = False
        if not injector.injected:
            if last or injector.is_document is False or injector.skip_reason:
                return self._headers, pieces
            return self.hurry(), pieces
        length: int | None = None
        assert self._verdict is not None
        if last:
            length = sum(map(len, pieces))
        headers = rewrite(self._headers, event_ids=self._event_ids, length=length)
        if self._ask:
            return headers, pieces
        return headers + self.visit.cookies(self._headers) + self.carriage.cleared, pieces

    def hurry(self) -> Headers:
        """The headers when they must go out before it is known whether there will be a tag."""
        return rewrite(self._headers, event_ids=not self._ask, length=None)

    def feed(self, chunk: bytes, last: bool) -> list[Piece]:
        """One more piece of the body: what to send now."""
        assert self._injector is not None
        return self._injector.feed(chunk, last)

    @property
    def passes_on(self) -> bool:
        """Whether the rest of the body goes out as it comes: feed() would not change it."""
        return isinstance(self._injector, Injector) and self._injector.settled

    def finish(self) -> list[Commit]:
        """Before the last byte: the commits to wait for. Later calls return nothing new."""
        if not self._ended:
            self._ended = True
            injector = self._injector
            if injector is not None and injector.skip_reason:
                self.issuer.count(Count("skipped", injector.skip_reason))
            if self._verdict is not None:
                self._issue(self.drafting.drafts, "not_rendered")
            elif self.drafting.drafts:
                self._suppress("error_status")
        commits, self._commits = self._commits, []
        return commits

    # -- stations --------------------------------------------------------------------------------

    def _suppress(self, reason: str, keep_page: bool = False) -> None:
        """No copy of these events goes out: one anonymous count each."""
        if not (self.drafting.drafts or self.drafting.matches or self._page_view):
            return
        names = [(draft.event.event_name, draft.event.pixel_ids) for draft in self.drafting.drafts]
        drafted = {name for name, _ in names}
        if not self._ask:
            for match in self.drafting.matches:
                if match.route.event_name not in drafted:
                    name = match.route.event_name
                    names.append((name, self.config.pixel_ids(name, match.route.pixels)))
        if self._page_view and not keep_page:
            names.append(("PageView", self.config.pixel_ids("PageView")))
        self.issuer.count(
            *(Count("suppressed", reason, name, pixel) for name, ids in names for pixel in ids)
        )
        self.drafting.drafts.clear()
        if not keep_page:
            self._page_view = False
        if not self._ask:
            self.drafting.matches = []

    def _page_events(self) -> list[Event]:
        """Issue the events that the page carries; they are in its tag from now on."""
        self._draft_page_view()
        drafts = self.drafting.drafts
        carried = [draft for draft in drafts if draft.event.send != "server"]
        self._issue(carried, "not_run")
        return [draft.event for draft in carried]

    def _draft_page_view(self) -> None:
        wanted, self._page_view = self._page_view, False
        if wanted:
            self.drafting.add_page_view()

    def _send_on(self, status: int) -> None:
        """Events without a page go on to the next one, or to the script that asked."""
        drafts = self.drafting.drafts
        if not is_public(self._headers):
            headers, handed = self.carriage.send_on([draft.event for draft in drafts], status)
            self._headers = self._headers + headers
            if headers and not 300 <= status < 400:
                self._handed = True
                self._issue([draft for draft in drafts if draft.event in handed], "not_run")
        self._issue(self.drafting.drafts, "not_rendered")

    def _make_tag(self) -> bytes:
        events: list[Event] = []
        carried: list[dict[str, Any]] = []
        if not self._ask:
            events, carried = self._page_events(), self.carriage.take()
        self._event_ids = bool(events or carried or self._handed)
        assert self._verdict is not None
        for directive in self._verdict.csp_notes:
            self.issuer.count(Count("csp", directive))
        nonce = self._verdict.nonce
        return self.tagger.ask(nonce) if self._ask else self.tagger.tag(events, carried, nonce)

    def _issue(self, drafts: Sequence[Draft], browser: str) -> None:
        if not drafts:
            return
        refusal = self.admission.refusal
        if refusal is not None:
            self._suppress(refusal)
            return
        events = [draft.event for draft in drafts]
        self.drafting.drafts = [draft for draft in self.drafting.drafts if draft not in drafts]
        commit = self.issuer.issue(events, self.visit.visitor, browser)
        if commit is not None:
            self._commits.append(commit)
