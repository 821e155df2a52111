"""Exchange: one request and its response, and the order of the stations between them."""

from collections.abc import Generator, Mapping, MutableMapping, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, NamedTuple, TypeVar

from starlette.requests import Request

from capi_middleware.capture import consent as consents
from capi_middleware.capture.injection import (
    GzipInjector,
    Injector,
    Piece,
    Verdict,
    inspect,
    rewrite,
    rewrite_head,
)
from capi_middleware.capture.pixel import tag
from capi_middleware.capture.reading import BodyTee, RequestReader
from capi_middleware.errors import ConfigError
from capi_middleware.events import Count, Event
from capi_middleware.expressions import MISSING, fill, leaves, parse, roots_of
from capi_middleware.issuing import Issuer
from capi_middleware.routes import EventRoute
from capi_middleware.user_data import UserData
from capi_middleware.visitor import Visitor

T = TypeVar("T")
#: A sans-IO coroutine: yields awaitables of the host, futures of the store, or plain callables
#: that may take long; a door waits for each in its own way and sends the result back.
Steps = Generator[Any, Any, T]
Headers = list[tuple[bytes, bytes]]

current: ContextVar["Exchange | None"] = ContextVar("capi_exchange", default=None)

_PREFETCH = ("purpose", "sec-purpose", "x-moz", "x-purpose")


class Match(NamedTuple):
    """A route that took this request, with the parameters of its path."""

    route: EventRoute
    parameters: Mapping[str, Any]


@dataclass(slots=True)
class Draft:
    """An event in the making: from a matched route, from track(), or from both."""

    event: Event
    match: Match | None = None
    tracked: bool = False


class Exchange:
    """What the tracker knows about one request. Every method may be called from one door only."""

    def __init__(
        self,
        issuer: Issuer,
        scope: MutableMapping[str, Any],
        *,
        path: str,
        mount: str,
        matches: Sequence[tuple[EventRoute, Mapping[str, Any]]],
    ) -> None:
        self.issuer = issuer
        self.config = issuer.config
        self.scope = scope
        self.mount = mount
        self.excluded = (
            path.startswith(tuple(self.config.exclude)) if self.config.exclude else False
        )
        self.matches = [] if self.excluded else [Match(*match) for match in matches]
        self.tee = BodyTee() if any(_reads_body(match.route) for match in self.matches) else None
        self._reader: RequestReader | None = None
        self._identity: Any = None
        self._visitor: Visitor | None = None
        self._drafts: list[Draft] = []
        self._commits: list[Future[None]] = []
        self._consent: consents.Consent | None = None
        self._verdict: Verdict | None = None
        self._injector: Injector | GzipInjector | None = None
        self._headers: Headers = []
        self._event_ids = False
        self._shared: dict[str, Any] = {}
        self._page_view = False
        self._ask = False
        self._ended = False

    # -- what the host's code asks for -----------------------------------------------------------

    def track(
        self,
        event_name: str,
        custom_data: Mapping[str, Any],
        user_data: UserData | None,
        dedupe_key: object,
    ) -> Event:
        """Add an event, or fill in the one that a route already made of this request."""
        draft = next(
            (d for d in self._drafts if not d.tracked and d.event.event_name == event_name), None
        )
        if draft is None:
            taken = [one.match for one in self._drafts]
            match = next(
                (m for m in self.matches if m.route.event_name == event_name and m not in taken),
                None,
            )
            if dedupe_key is None and match is not None:
                dedupe_key = self._dedupe_key(match, {})
            event_id = self.issuer.mint(event_name, dedupe_key)
            same = next((one for one in self._drafts if one.event.event_id == event_id), None)
            if same is None:
                draft = Draft(self.issuer.new_event(event_name, event_id, match and match.route))
                draft.match = match
                self._drafts.append(draft)
            else:
                draft = same
        draft.tracked = True
        draft.event.custom_data |= self.issuer.custom_data(event_name, custom_data)
        if user_data is not None:
            draft.event.user_data |= self.issuer.hashed(user_data)
        if self._ended:
            self._issue([draft], "not_rendered")
            self._drafts.remove(draft)
        return draft.event

    @property
    def visitor(self) -> Visitor:
        """Who this request comes from, signed so that it can be kept."""
        if self._visitor is None:
            identity = self.identity
            visitor = Visitor(
                fbp=identity.fbp,
                fbc=identity.fbc,
                client_ip_address=identity.client_ip_address,
                client_user_agent=self.reader.headers.get("user-agent"),
                event_source_url=identity.event_source_url,
                referrer_url=identity.referrer_url,
                consent=self._consent or self._consent_now(),
            )
            self._visitor = self.issuer.signed(visitor)
        return self._visitor

    @property
    def reader(self) -> RequestReader:
        """What expressions read from."""
        if self._reader is None:
            self._reader = RequestReader(self.scope, self.tee)
        return self._reader

    @property
    def identity(self) -> Any:
        """fbp, fbc, address and URLs of this request."""
        if self._identity is None:
            self._identity = self.issuer.identify(self.scope, self.reader.headers)
        return self._identity

    # -- what a door does, in this order ---------------------------------------------------------

    def begin(self, status: int, headers: Headers) -> Steps[bool]:
        """The response starts: whether its body must go through open_body() and feed()."""
        self._headers = headers
        method = self.scope["method"]
        verdict = inspect(
            "GET" if method == "HEAD" else method,
            status,
            headers,
            host=self.reader.headers.get("host", ""),
            scheme=self.scope.get("scheme", "http"),
        )
        self._verdict = verdict
        page = verdict.inject and not self.excluded
        if method == "HEAD":
            if page:
                self._headers = rewrite_head(headers)
            self.matches, page = [], False
        if not verdict.inject and verdict.reason not in ("not_html", "status"):
            self.issuer.count(Count("skipped", verdict.reason))
        self.matches = [match for match in self.matches if match.route.counts(status)]
        prefetch = self._is_prefetch()
        self._page_view = page and self.config.page_view and status < 300
        self._ask = page and (verdict.public or prefetch)
        if not (page or self.matches or self._drafts):
            return False
        yield from self._decide()
        if self._consent == "denied":
            self._suppress("consent")
            return False
        if prefetch or status >= 500:
            self._suppress("prefetch" if prefetch else "error_status", keep_page=True)
        if not self._ask:
            yield from self._draft_matches()
        if not page:
            self._issue(self._drafts, "not_rendered")
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
        pieces = injector.feed(chunk, last)
        if not injector.injected:
            if last or injector.is_document is False or injector.skip_reason:
                return self._headers, pieces
            return self.hurry(), pieces
        length: int | None = None
        assert self._verdict is not None
        if last:
            length = sum(map(len, pieces))
        headers = rewrite(self._headers, event_ids=self._event_ids, length=length)
        return headers + self._cookies(), pieces

    def hurry(self) -> Headers:
        """The headers when they must go out before it is known whether there will be a tag."""
        return rewrite(self._headers, event_ids=not self._ask, length=None)

    def feed(self, chunk: bytes, last: bool) -> list[Piece]:
        """One more piece of the body: what to send now."""
        assert self._injector is not None
        return self._injector.feed(chunk, last)

    def finish(self) -> list[Future[None]]:
        """Before the last byte: the commits to wait for. Later calls return nothing new."""
        if not self._ended:
            self._ended = True
            injector = self._injector
            if injector is not None and injector.skip_reason:
                self.issuer.count(Count("skipped", injector.skip_reason))
            if self._verdict is not None:
                self._issue(self._drafts, "not_rendered")
            elif self._drafts:
                self._suppress("error_status")
        commits, self._commits = self._commits, []
        return commits

    def ask(self) -> Steps[list[Event]]:
        """The events of a page that carried no event_ids: its script asks for them now."""
        self.matches = [
            match
            for match in self.matches
            if match.route.counts(200) and match.route.event_name != "Purchase"
        ]
        yield from self._decide()
        self._page_view = self.config.page_view and not self.excluded
        if self._consent == "denied":
            self._suppress("consent")
            return []
        yield from self._draft_matches()
        events = self._page_events()
        yield from self._commits
        return events

    # -- stations --------------------------------------------------------------------------------

    def _is_prefetch(self) -> bool:
        headers = self.reader.headers
        return any(
            word in headers[name].lower()
            for name in _PREFETCH
            if name in headers
            for word in ("prefetch", "prerender", "preview")
        )

    def _decide(self) -> Steps[None]:
        rule = self.config.consent
        if self._consent is None and callable(rule):
            answer = yield from self._call(rule)
            self._consent = consents.decide(answer, gpc=self._gpc())
        elif self._consent is None:
            self._consent = self._consent_now()
        if self._visitor is not None and self._visitor.consent != self._consent:
            self._visitor = None

    def _consent_now(self) -> consents.Consent:
        """Consent as far as it is known without calling the host's rule."""
        rule = self.config.consent
        if rule is None:
            return consents.decide(True, gpc=self._gpc())
        if callable(rule):
            return "denied"
        value = fill(parse(rule["value"]), self.reader, {}, [])
        return consents.decide(
            consents.by_value(rule, None if value is MISSING else value), gpc=self._gpc()
        )

    def _gpc(self) -> bool:
        honoured = self.config.privacy == "honor-gpc"
        return honoured and self.reader.headers.get("sec-gpc", "").strip() == "1"

    def _suppress(self, reason: str, keep_page: bool = False) -> None:
        """No copy of these events goes out: one anonymous count each."""
        names = [(draft.event.event_name, draft.event.pixel_ids) for draft in self._drafts]
        drafted = {name for name, _ in names}
        if not self._ask:
            for match in self.matches:
                if match.route.event_name not in drafted:
                    name = match.route.event_name
                    names.append((name, self.config.pixel_ids(name, match.route.pixels)))
        if self._page_view and not keep_page:
            names.append(("PageView", self.config.pixel_ids("PageView")))
        self.issuer.count(
            *(Count("suppressed", reason, name, pixel) for name, ids in names for pixel in ids)
        )
        self._drafts.clear()
        if not self._ask:
            self.matches = []

    def _draft_matches(self) -> Steps[None]:
        """Turn the matched routes into events and complete those that track() began."""
        done: set[str] = set()
        if self._drafts or self.matches or self._page_view:
            self._shared = yield from self._user_data(self.config.user_data, None)
        for match in self.matches:
            name = match.route.event_name
            if name in done:
                continue
            done.add(name)
            called: dict[int, Any] = {}
            for leaf in leaves(list(match.route.templates.values())):
                if callable(leaf):
                    called[id(leaf)] = yield from self._call(leaf)
            draft = next((one for one in self._drafts if one.match is match), None)
            if draft is None:
                event_id = self.issuer.mint(name, self._dedupe_key(match, called))
                if any(one.event.event_id == event_id for one in self._drafts):
                    continue
                draft = Draft(self.issuer.new_event(name, event_id, match.route), match)
                self._drafts.append(draft)
            filled = self._filled(match, "custom_data", called) or {}
            event = draft.event
            event.custom_data = self.issuer.custom_data(name, filled) | event.custom_data
            template = match.route.templates.get("user_data")
            if template is not None:
                given = yield from self._user_data(template, match)
                event.user_data = given | event.user_data
        for draft in self._drafts:
            draft.event.user_data = self._shared | draft.event.user_data

    def _filled(self, match: Match, name: str, called: Mapping[int, Any]) -> Any:
        template = match.route.templates.get(name)
        if template is None:
            return None
        self.reader.path = match.parameters
        missing: list[str] = []
        value = fill(template, self.reader, called, missing)
        self.issuer.left_out(match.route.event_name, missing)
        return None if value is MISSING else value

    def _dedupe_key(self, match: Match, called: Mapping[int, Any]) -> Any:
        return self._filled(match, "dedupe_key", called)

    def _user_data(self, rule: Any, match: Match | None) -> Steps[dict[str, Any]]:
        """The hashed user_data that a rule gives: a callable, or a mapping of expressions."""
        if rule is None:
            return {}
        if callable(rule):
            value = yield from self._call(rule)
        else:
            template = rule if match is not None else parse(rule)
            called: dict[int, Any] = {}
            for leaf in leaves(template):
                if callable(leaf):
                    called[id(leaf)] = yield from self._call(leaf)
            if match is not None:
                self.reader.path = match.parameters
            value = fill(template, self.reader, called, [])
        try:
            if isinstance(value, Mapping):
                value = UserData(**value)
            return self.issuer.hashed(value) if isinstance(value, UserData) else {}
        except (TypeError, ConfigError) as error:
            self.issuer.shield.caught(error, "user_data")
            return {}

    def _call(self, rule: Any) -> Steps[Any]:
        """Ask a callable of the host; its failure is ours to survive."""
        try:
            value = rule(Request(self.scope))
            if isawaitable(value):
                value = yield value
        except Exception as error:
            self.issuer.shield.caught(error, "a callable of the configuration")
            return None
        return value

    def _page_events(self) -> list[Event]:
        """Issue the events that the page carries; they are in its tag from now on."""
        if self._page_view and not any(d.event.event_name == "PageView" for d in self._drafts):
            event = self.issuer.new_event("PageView", self.issuer.mint("PageView", None), None)
            event.user_data = dict(self._shared)
            if event.pixel_ids:
                self._drafts.insert(0, Draft(event))
        carried = [draft for draft in self._drafts if draft.event.send != "server"]
        self._issue(carried, "not_run")
        return [draft.event for draft in carried]

    def _make_tag(self) -> bytes:
        events: list[Event] = []
        if not self._ask:
            events = self._page_events()
        self._event_ids = bool(events)
        assert self._verdict is not None
        return tag(
            prefix=self.mount + self.config.prefix,
            script_url=self.config.pixel_script_url,
            pixel_ids=[pixel.id for pixel in self.config.pixels],
            events=events,
            ask=self._ask,
            limited=(0, 0) if self._consent == "limited" else None,
            nonce=self._verdict.nonce,
        )

    def _issue(self, drafts: Sequence[Draft], browser: str) -> None:
        events = [draft.event for draft in drafts]
        self._drafts = [draft for draft in self._drafts if draft not in drafts]
        if events:
            commit = self.issuer.issue(events, self.visitor, browser)
            if commit is not None:
                self._commits.append(commit)

    def _cookies(self) -> Headers:
        if self._ask:
            return []
        theirs = [value for name, value in self._headers if name.lower() == b"set-cookie"]
        return [
            (b"set-cookie", cookie)
            for name, cookie in self.identity.new_cookies
            if not any(value.lstrip().startswith(name.encode() + b"=") for value in theirs)
        ]


def _reads_body(route: EventRoute) -> bool:
    return bool({"form", "json"} & roots_of(list(route.templates.values())))
