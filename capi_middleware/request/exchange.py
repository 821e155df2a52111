"""The exchange is one request and its response: the order of all that is done about them."""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol
from urllib.parse import quote, unquote

from msgspec import Struct
from msgspec.structs import replace

from capi_middleware.capture import carrying
from capi_middleware.capture.beacon import Call, Question
from capi_middleware.capture.carrying import is_navigation
from capi_middleware.capture.consent import DENIED, GRANTED, UNANSWERED
from capi_middleware.capture.mirroring import names_order
from capi_middleware.capture.reading import BodyTee
from capi_middleware.capture.urls import PATH_SAFE
from capi_middleware.config.pixels import Tenant, own_id
from capi_middleware.config.routes import Match
from capi_middleware.errors import BadBeacon, CapiError
from capi_middleware.events import NO_TAG, Count, Event, PageEvent, PageKey
from capi_middleware.meta.custom_data import clean
from capi_middleware.meta.user_data import UserData
from capi_middleware.meta.visitor import Visitor
from capi_middleware.page.gate import (
    Verdict,
    exposed,
    inspect,
    inspect_head,
    is_public,
    made_private,
    rewrite,
    rewrite_head,
)
from capi_middleware.page.gzip import GzipInjector
from capi_middleware.page.head import Head, read_head
from capi_middleware.page.injector import Injector, Piece
from capi_middleware.page.tag import page_events, page_key, told_consent
from capi_middleware.private import Private
from capi_middleware.request.asking import without_prices
from capi_middleware.request.drafts import Draft, Drafts
from capi_middleware.request.ending import READING, ends, is_shown
from capi_middleware.request.issuing import Issuer
from capi_middleware.request.visit import Headers, Visit, Waits
from capi_middleware.store.commits import Commit


class Passage(Protocol):
    """A request on its way through a door."""

    @property
    def is_open(self) -> bool:
        """Whether somebody needed an Exchange so far."""

    @property
    def over(self) -> bool:
        """Whether the response is done: code that a task or thread of its app still runs."""

    def opened(self) -> "Exchange":
        """Its Exchange, made now where nobody needed one so far."""


current: ContextVar[Passage | None] = ContextVar("capi_passage", default=None)


class Aside(Private, Struct):
    """The passage of a request that passes untouched, where we cannot work or failed."""

    issuer: Issuer
    over: bool = False
    is_open: bool = False

    def opened(self) -> "Exchange":
        """See Passage: what its code tracks is dropped, and its visitor is nobody."""
        exchange = Exchange(self.issuer, _NOTHING, "/", "", [], b"/")
        exchange.pass_aside()
        return exchange


#: Where the frameworks' own pages come from: Swagger UI, ReDoc and others, whatever their paths.
_API_DOCS = ("fastapi.applications", "litestar.")
#: An ASGI http scope that says nothing.
_NOTHING: dict[str, Any] = {"method": "GET", "path": "/", "headers": [], "query_string": b""}


class Exchange(Private):
    """One request, an ASGI http `scope` with its `path` below the `mount`, and its response.

    `raw_path` is the whole path as it came: routers of the host may change the scope's.
    A door calls start(), then body() for each piece where start() says so, and end(). `headers` are
    those that go out, after start() or the first piece; `commits` wait to be given by end().
    """

    __slots__ = (
        "_aside", "_asks", "_cookies", "_drafts", "_ended", "_event_ids", "_excluded", "_handed",
        "_head", "_held", "_held_names", "_injector", "_lacks_view", "_mark", "_mount",
        "_nobodys", "_opened", "_page_view", "_path", "_promised", "_raw_path", "_started",
        "_tag_failed", "_unheeded", "_verdict", "_visit", "_waiting", "commits", "headers",
        "issuer", "scope", "tee",
    )  # fmt: skip

    def __init__(
        self,
        issuer: Issuer,
        scope: MutableMapping[str, Any],
        path: str,
        mount: str,
        matches: list[Match],
        raw_path: bytes,
    ) -> None:
        self.issuer: Issuer = issuer
        self.scope: MutableMapping[str, Any] = scope
        self._path = path
        self._raw_path = raw_path
        self._mount = mount
        self._excluded = f"{path}/".startswith(issuer.excluded)
        #: Routes of which nothing becomes, as their path is excluded.
        self._unheeded: list[Match] = []
        if self._excluded:
            self._unheeded, matches = matches, []
        reads_body, fields = bool(matches) and issuer.reads_body, issuer.form_fields
        for match in matches:
            if match.route.reads_body:
                reads_body, fields = True, fields | match.route.form_fields
        self.tee: BodyTee | None = BodyTee(scope, fields) if reads_body else None
        self._drafts = Drafts(issuer, matches)
        self._visit: Visit | None = None
        self.commits: list[Commit] = []
        self._verdict: Verdict | None = None
        self._injector: Injector | None = None
        self._head: Head | None = None
        #: Signed events of an answer that was fetched ahead.
        self._waiting = ""
        #: Signed events of an answer to a visitor who has not answered the banner.
        self._held = ""
        self._held_names: list[str] = []
        #: What shows to the question of this page that it was answered.
        self._mark = ""
        self.headers: Headers = []
        self._event_ids = self._page_view = self._lacks_view = self._asks = False
        #: What a header gives to the script that asks; its page has it, too, where it is shown.
        self._handed: list[PageEvent] = []
        self._started = self._opened = self._ended = self._tag_failed = False
        self._promised = self._nobodys = self._aside = False
        self._cookies: Headers = []

    def missed(self) -> None:
        """The response started before this was made: what comes is issued at once."""
        self._started = self._ended = True

    def pass_aside(self) -> None:
        """Nothing may come of it: it is nobody's, and what is tracked is dropped and counted."""
        self._nobodys = self._ended = self._aside = True

    def outlived(self, what: str) -> None:
        """A task or thread that lives longer than the response asks: it is nobody's visit.

        Raises CapiError in debug.
        """
        issuer = self.issuer
        if issuer.config.debug:
            raise CapiError(
                f"{what}: found a request whose response is done, expected one that is being "
                "answered; code that lives longer uses CAPI(config).track(…, visitor=…)"
            )
        issuer.count(Count("error", f"{what} after the response"))
        issuer.notices.say("outlived")
        self._nobodys = self._ended = True
        self._drafts = Drafts(issuer, [])

    def visit(self) -> Visit:
        """Who the request comes from."""
        if self._visit is None:
            self._visit = self._new_visit()
        return self._visit

    def _new_visit(self) -> Visit:
        scope = self.scope
        root = scope.get("app_root_path") or scope.get("root_path")
        if root:
            # The app's own path behind a proxy that cuts it off, which the app says only now.
            root = root.rstrip("/")
            if not f"{unquote(self._raw_path)}/".startswith(f"{root}/"):
                self._raw_path = quote(root, safe=PATH_SAFE).encode() + self._raw_path
                self._mount = self._mount or root
        return Visit(self.issuer, scope, self._path, self._raw_path, self.tee)

    # -- what the host's code asks for -----------------------------------------------------------

    def track(
        self,
        event_name: str,
        custom_data: Mapping[str, Any],
        user_data: UserData | None,
        dedupe_key: object,
        said: Mapping[str, Any] = {},
    ) -> Event:
        """Add an event, or fill in the one that a route already made of this request.

        `said` as Issuer.say() takes it.
        """
        drafts = self._drafts
        if self.issuer.tenants is not None and (self._started or self._ended):
            drafts.tenant = self.visit().whose(now=True)
        draft = drafts.track(self.visit(), event_name, custom_data, user_data, dedupe_key)
        if said:
            draft.said = {**draft.said, **said}
            self.issuer.say(draft.event, said, strict=self.issuer.config.debug)
        if drafts.orders and (self._started or self._ended):
            drafts.silence_now()
        if self._ended:
            self._issue([one for one in drafts.events if one is draft], "not_rendered")
        return draft.event

    def visitor(self) -> Visitor:
        """Who the request comes from, signed: ready for dumps()."""
        if self._nobodys:
            return self.issuer.signed(Visitor(consent="denied"))
        return self.issuer.signed(self.visit().visitor(sets_cookies=False))

    def exclude(self) -> None:
        """A framework says that its page is one of those that are excluded by default."""
        self._excluded = self._excluded or (
            not self._drafts.matches and self.issuer.config.excludes_usual
        )

    def include(self) -> None:
        """The page is not one of this app, whose usual paths mean nothing there."""
        if self._excluded and self.issuer.config.excludes_usual:
            self._excluded = False
            self._drafts.matches, self._unheeded = self._unheeded, []

    # -- what a door does, in this order ---------------------------------------------------------

    async def start(self, status: int, headers: Headers, waits: Waits) -> bool:
        """The response starts: whether its body must go through body()."""
        self.headers = headers
        self._started = True
        issuer, drafts = self.issuer, self._drafts
        method = self.scope["method"]
        visit = self._visit
        if visit is None:
            visit = self._visit = self._new_visit()
        client = visit.client
        verdict = self._verdict = inspect(
            "GET" if method == "HEAD" else method,
            status,
            headers,
            host=client.host,
            scheme=client.scheme,
        )
        shown_by = self.scope.get("endpoint") or getattr(self.scope.get("route_handler"), "fn", "")
        if getattr(shown_by, "__module__", "").startswith(_API_DOCS):
            self.exclude()
        page = verdict.inject and not self._excluded
        if self._excluded and method != "HEAD":
            self._count_excluded(visit, status)
        if visit.scripted and verdict.reason == "not_html":
            visit.is_call = True
        if method == "HEAD":
            if page:
                self.headers = rewrite_head(headers)
            drafts.matches = []
            self._suppress("head")
            return False
        if not verdict.inject and verdict.reason not in ("not_html", "status"):
            issuer.count(Count("skipped", verdict.reason))
            issuer.notices.say(verdict.reason)
        if drafts.matches:
            counted = []
            for match in drafts.matches:
                if status in match.route.counted:
                    counted.append(match)
            if counted and (status == 206 or 300 <= status < 400):
                counted = ends(
                    counted, issuer.config.routes, method, visit.url(), self._mount, status, headers
                )
            elif method not in READING and status < 300 and is_shown(verdict.reason):
                counted = self._but_forms_again(visit, counted)
            drafts.matches = counted
        landing = 300 <= status < 400 and not self._excluded
        if landing and b"fbclid=" in self.scope.get("query_string", b""):
            self.headers = await visit.keep_click(headers, waits)
        if not (page or drafts.matches or drafts.events or visit.brings):
            return False
        prefetch = visit.noise == "prefetch"
        view = page and issuer.config.page_view and status < 300
        self._page_view = view and (not visit.scripted or is_navigation(visit.headers))
        self._lacks_view = view and not self._page_view
        self._asks = page and (verdict.public or prefetch)
        if self._asks:
            self._mark_page(status)
        refusal = visit.noise
        if refusal is None and visit.permission is not GRANTED:
            await visit.decide(waits)
            refusal = visit.refusal()
            if page and not self._asks and visit.noise is None and visit.permission is not None:
                issuer.decided(visit.permission, visit.headers)
        if issuer.tenants is not None and not await self._find_tenant(visit, waits):
            return False
        if (
            refusal == "consent"
            and not (self._asks or 300 <= status < 400 or status >= 500)
            and (page or visit.scripted)
            and issuer.holds(visit.permission)
            and not is_public(headers)
        ):
            await self._hold(visit, waits, status, page=page)
        elif refusal is not None and not prefetch:
            self._suppress(refusal, keep_page=self._asks)
            # A page that others may see must not depend on this visitor: its question decides.
            if not self._asks:
                return False
        elif status >= 500:
            self._suppress("error_status", keep_page=True)
        elif prefetch:
            carries = (page or visit.scripted) and not 300 <= status < 400
            if carries and not is_public(headers):
                await self._hold_back(visit, waits)
            else:
                self._suppress("prefetch", keep_page=True)
        if not (self._asks or prefetch):
            await drafts.complete(visit, waits, page_view=self._page_view)
        if drafts.orders:
            await drafts.silence(waits)
        waits_here = bool(self._waiting or self._held)
        if not page or (visit.scripted and not (self._asks and not waits_here)):
            if not prefetch:
                self._add_page_view()
            self._send_on(visit, status)
        if not page:
            return False
        self._injector = GzipInjector() if verdict.gzip else Injector()
        return True

    async def _find_tenant(self, visit: Visit, waits: Waits) -> bool:
        """Whether this is a page of somebody's, whose pixels the events of so far get."""
        drafts = self._drafts
        await visit.find_tenant(waits)
        tenant = drafts.tenant = visit.tenant
        if tenant is None:
            drafts.matches, self._page_view, self._asks = [], False, False
            return False
        for draft in drafts.events:
            draft.event.pixel_ids = tenant.pixel_ids(draft.event.event_name)
            if "pixels" in draft.said:
                self.issuer.say(draft.event, {"pixels": draft.said["pixels"]}, strict=False)
        return True

    def _pixel_ids(self, name: str, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
        """The pixels of this request that an event goes to."""
        return (self._drafts.tenant or self.issuer.config).pixel_ids(name, wanted)

    def body(self, chunk: Piece, last: bool) -> list[Piece]:
        """One more piece of the body: what to send now. The first decides about `headers`."""
        injector, visit = self._injector, self._visit
        if injector is None or visit is None:
            return [chunk]
        first, self._opened = not self._opened, True
        try:
            pieces, at_place = injector.feed(chunk, last)
            if at_place:
                tag = b""
                if not injector.head or self._heeds(visit, injector.head):
                    with_cookies = self._promised or (first and not self._asks)
                    tag = self._tag(visit, sets_cookies=with_cookies)
                pieces = injector.insert(tag)
            if first and injector.injected:
                length = sum(map(len, pieces)) if last else None
                ids = self._event_ids or bool(self._held)
                headers = rewrite(self.headers, event_ids=ids, length=length, private=ids)
                if not self._asks:
                    headers += self._cookies
                    if visit.brings:
                        headers += visit.cleared()
                self.headers = headers
            elif first and not chunk and not last:
                self.hurry()
            elif first and not (last or injector.is_document is False or injector.untouched):
                has_ids = not self._asks or bool(self._held)
                self.headers = rewrite(self.headers, event_ids=has_ids, length=None)
        except Exception as error:
            self._injector = None
            self.issuer.shield.caught(error, "injection")
            return [chunk]
        return pieces

    def hurry(self) -> None:
        """The headers must go out before there is anything of the body.

        They promise all that it needs: cookies for the ids that Meta is told, and an end of what
        an earlier response sent here.
        """
        self._opened = True
        visit = self._visit
        with self.issuer.shield.guard("the headers"):
            own = visit is not None and not self._asks
            cookies = visit.cookies(self.headers) if visit is not None and own else []
            ids = own or bool(self._held)
            headers = rewrite(self.headers, event_ids=ids, length=None, private=ids)
            headers += cookies
            if visit is not None and own and visit.brings and visit.carried():
                headers += visit.clearing()
            self._promised = own
            self.headers = headers

    def offloaded(self) -> None:
        """The server sends a file that nobody reads here: its page goes out without a tag."""
        if self._injector is not None:
            self._injector = None
            if self._verdict is not None:
                self._verdict = replace(self._verdict, inject=False, reason="offloaded")
            self.issuer.count(Count("skipped", "offloaded"))
            self.issuer.notices.say("offloaded")

    def fail(self) -> None:
        """The app raised an error before the first piece of the body: no event happened."""
        self._injector = None
        self._page_view = False
        self._drafts.matches = []
        if self._drafts.events:
            with self.issuer.shield.guard("the end of a response"):
                self._suppress("error_status")

    @property
    def passes_on(self) -> bool:
        """Whether the rest of the body goes out as it comes: feed() would not change it."""
        injector = self._injector
        return injector is None or (injector.settled and not isinstance(injector, GzipInjector))

    def end(self) -> list[Commit]:
        """Before the last byte: the commits to wait for. Later calls return nothing new."""
        if not self._ended:
            self._ended = True
            try:
                injector = self._injector
                if injector is not None:
                    if injector.failure is not None:
                        self.issuer.shield.caught(injector.failure, "injection")
                    reason = "error" if self._tag_failed else injector.skip_reason
                    if reason:
                        self.issuer.count(Count("skipped", reason))
                if self._drafts.events:
                    if self._started:
                        self._issue_unseen()
                    else:
                        self._suppress("error_status")
            except Exception as error:
                self.issuer.shield.caught(error, "the end of a response")
        commits, self.commits = self.commits, []
        return commits

    def _mark_page(self, status: int) -> None:
        """This page asks for its events: show that it may, and count what it may not ask for."""
        issuer, matches, verdict = self.issuer, self._drafts.matches, self._verdict
        self._mark = issuer.asking.mark(
            self._path, matches, issuer.clock(),
            page_view=issuer.config.page_view and status < 300,
        )  # fmt: skip
        if verdict is not None and verdict.public and self._visit and self._visit.noise is None:
            self._refuse("shared_page", issuer.asking.needing(matches))

    def _refuse(self, reason: str, matches: Sequence[Match]) -> None:
        """Count the events of routes that need the app's own answer to this visitor."""
        pixel_ids = self._pixel_ids
        routes = [one.route for one in matches]
        self.issuer.suppressed(
            reason, [(one.event_name, pixel_ids(one.event_name, one.pixels)) for one in routes]
        )

    async def _hold_back(self, visit: Visit, waits: Waits) -> None:
        """The answer was fetched ahead: its events wait with it until it is shown."""
        drafts, issuer = self._drafts, self.issuer
        await drafts.complete(visit, waits, page_view=False)
        events = [draft.event for draft in drafts.events if draft.event.pixel_ids]
        self._waiting, _ = issuer.waiting.pack(
            page_events(events), now=issuer.clock(), scripted=visit.scripted,
            owner="", address=self._address(),
        )  # fmt: skip
        drafts.events.clear()
        drafts.matches = []
        self._page_view = False  # the one of the address that is shown

    async def _hold(self, visit: Visit, waits: Waits, status: int, *, page: bool) -> None:
        """The visitor has not answered the banner: the events wait in the page, without a person.

        Nothing is stored and no cookie is set: who asks with them later says who it is.
        """
        drafts, issuer = self._drafts, self.issuer
        await drafts.complete(visit, waits, page_view=False)
        if drafts.orders:
            await drafts.silence(waits)
        self._asks = page
        if page:
            self._mark_page(status)
        self._add_page_view()
        events = [draft.event for draft in drafts.events if draft.event.pixel_ids]
        told = [
            replace(one, send=event.send)
            for one, event in zip(page_events(events), events, strict=True)
        ]
        if page or told:
            self._held_names = [one.event_name for one in told]
            self._held, _ = issuer.held.pack(
                told, now=issuer.clock(), scripted=visit.scripted, owner="", address=self._address()
            )
        drafts.events.clear()
        drafts.matches = []
        self._page_view = False

    # -- what a page asks for that was shown already ----------------------------------------------

    def _take_up(self, question: Question) -> bool:
        """Draft the events that waited until they are shown, or held; whether there are such."""
        issuer, drafts, a_part = self.issuer, self._drafts, question.f
        carrier, text = issuer.waiting, question.w
        if question.g:
            carrier, text = issuer.held, question.g
        try:
            events, is_here, at = carrier.waited(text, now=issuer.clock(), address=self._address())
        except BadBeacon:
            issuer.count(Count("beacon", "held" if question.g else "waiting"))
            return False
        matches = (
            {} if a_part or not is_here else {one.route.event_name: one for one in drafts.matches}
        )
        drafts.matches = []
        for one in events:
            match = matches.get(one.event_name)
            route = match.route if match is not None else None
            event = issuer.new_event(one.event_name, None, route, event_id=one.event_id)
            event.custom_data, event.pixel_ids = one.custom_data, one.pixel_ids
            if issuer.tenants is not None:
                known = () if drafts.tenant is None else drafts.tenant.pixel_ids(one.event_name)
                event.pixel_ids = tuple(x for x in known if x.partition("@")[0] in one.pixel_ids)
            if question.g:
                event.event_time, event.send = float(at), one.send
            drafts.events.append(Draft(event, match, tracked=True))
            if one.event_id[0] == "k":
                drafts.recall(drafts.events[-1])
            if match is not None:
                drafts.matches.append(match)
        return True

    def _address(self) -> str:
        query = self.scope.get("query_string", b"").decode("latin-1")
        return f"{self._path}?{query}"

    async def answer(
        self, question: Question, waits: Waits, *, is_open: bool = False, begins: bool = False
    ) -> tuple[dict[str, Any], Headers]:
        """What a page without event_ids is told when its script asks, and header lines with it.

        That is a page that others may have got too, and that has a mark; an address that the
        script of an open page made (`is_open`), or that of a page which the app does not answer and
        which has just opened (`begins`, too); or one whose events wait (signed) until it is shown,
        or are held until its visitor consents; a part of a page brings no PageView.
        """
        issuer, drafts, visit = self.issuer, self._drafts, self.visit()
        told: dict[str, Any] = {"e": []}
        if issuer.tenants is not None:
            await visit.find_tenant(waits)
            drafts.tenant = visit.tenant
        mark, has, a_part = question.y, question.h, question.f or bool(question.g)
        page = issuer.asking.read(mark, self._path, issuer.clock()) if mark else None
        is_shared = not ((question.w or question.g) and self._take_up(question))
        is_proven = not is_shared or page is not None or is_open
        visit.said = question.x if is_proven else None
        page_view, unanswered = is_proven, list[Match]()
        if is_shared:
            names = page.names if page is not None and page.is_here else None
            page_view = is_proven and (names is None or "PageView" in names)
            matches = drafts.matches if is_proven and not a_part else []
            matches = [match for match in matches if match.route.event_name not in has]
            drafts.matches, unanswered = issuer.asking.share(matches, names)
        await visit.decide(waits)
        permission = visit.permission
        if visit.noise is None and permission is not None:
            # An address more of an open page is no page more.
            is_new = page is not None and not is_open
            asks = begins or (is_new and (is_shared or bool(question.g)))
            if visit.said == "denied" and is_open and not (asks or question.g):
                issuer.consented("withdrawn", visit.headers)
            elif asks:
                issuer.decided(permission, visit.headers)
                if visit.said is not None and not (question.n or question.f):
                    is_no = permission.consent == "denied"
                    issuer.consented("refused" if is_no else "released", visit.headers)
        if issuer.holds(permission):
            return {"e": [], "x": UNANSWERED}, []
        is_view = not (self._excluded or a_part or "PageView" in has)
        self._page_view = page_view and issuer.config.page_view and is_view
        refusal = visit.refusal()
        events: list[Event] = []
        if refusal is None and not is_proven:
            issuer.count(Count("beacon", "unproven"))
        elif refusal is None:
            self._refuse("script_address", unanswered)
            await drafts.complete(visit, waits, page_view=self._page_view)
            for draft in drafts.events if is_shared else ():
                without_prices(draft.event)
            if drafts.orders:
                await drafts.silence(waits)
            self._add_page_view()
            self._age(question)
            carrying = [one for one in drafts.events if one.event.send != "server"]
            events = [draft.event for draft in carrying]
            self._issue(carrying, "not_run", sets_cookies=True)
            self._issue(drafts.events, "not_rendered", sets_cookies=True)
            for commit in self.commits:
                await waits.commit(commit)
            told["e"] = page_events(events)
            # What a cache kept has a key that shows its address; elsewhere nothing else could.
            kept = question.k is not None and is_open and self.shows(question.k)
            answered = self._path if begins or kept or (page and page.is_here) else None
            whose = visit.tenant.key if visit.tenant is not None else ""
            key = page_key(told["e"], answered, issuer.page_digest, whose)
            told["k"] = key or issuer.new_key(answered, whose)
            carried = visit.carried(for_page=True)
            visit.take(carried)
            told["e"] += carried
        else:
            visit.permission = DENIED  # whatever the visitor said
            self._suppress(refusal)
        state, limits = told_consent(visit.permitted())
        if state is not None:
            told["x"] = state
        if limits is not None:
            told["l"] = limits
        if issuer.config.advanced_matching and (not is_shared or page is not None):
            told["p"] = issuer.pixels_knowing(self._known(events), visit.tenant)
        # A late yes brings no event of the page, but its click.
        brings = events or (visit.said is not None and refusal is None)
        cookies = (visit.cookies() if brings else []) + visit.cleared()
        return told, cookies + visit.consent_cookies()

    def _age(self, question: Question) -> None:
        """Make the events of this question as old as it is, within the time that pages hold them.

        Those that were held as signed are it already.
        """
        age = min(question.t, 60 * self.issuer.config.hold_minutes)
        for draft in self._drafts.events if not question.g else ():
            draft.event.event_time -= age

    def shows(self, key: PageKey) -> bool:
        """Whether the app answered the page of this key, which is ours, at this address."""
        return self.issuer.shows(key, self._path)

    async def mirror(
        self,
        question: Question,
        calls: Sequence[tuple[Call, bool]],
        key: PageKey,
        waits: Waits,
        began: "Exchange",
    ) -> None:
        """Issue what the own pixel code of the page with this key fired: server copies, if allowed.

        What may not be sent from here is written down as the browser's alone, if the app answered
        the page at this address or where it `began`: anybody may make others up, and tell of what
        never was. So it is with a call that is told with False: a visitor tells of too many.
        """
        issuer, drafts, visit = self.issuer, self._drafts, self.visit()
        drafts.matches = []
        is_here = self.shows(key)
        is_ours = is_here or began.shows(key)
        answered = self if is_here else began
        await visit.decide(waits)
        if issuer.tenants is not None:
            await visit.find_tenant(waits)
            drafts.tenant = visit.tenant
        refusal = visit.refusal()
        for call, counts in calls:
            for event in _mirrored(issuer, call, visit.tenant):
                if not (counts and is_ours) and (refusal or event.send == "browser"):
                    continue
                is_order = is_here and names_order(self._path, event.event_id)
                event.told = "over" if not counts else "order" if is_order else "call"
                drafts.events.append(Draft(event, tracked=True))
                # The library's own PageViews are nobody's to map.
                if event.send == "browser" and call.n != "PageView":
                    page = issuer.page_of(answered.scope["path"], visit.client.ip)
                    for pixel in event.pixel_ids:
                        issuer.count(Count("unmapped", page, call.n, pixel))
                        if call.b:
                            issuer.count(Count("no_event_id", "", call.n, pixel))
        if refusal is not None:
            self._suppress(refusal)
            return
        await drafts.complete(visit, waits, page_view=False)
        self._age(question)
        self._issue(drafts.events, "not_run")
        for commit in self.commits:
            await waits.commit(commit)

    # -- stations --------------------------------------------------------------------------------

    def _but_forms_again(self, visit: Visit, matches: list[Match]) -> list[Match]:
        """Those of the `matches` whose event a page is that the browser shows for a form.

        It may be the form again, with errors: only a route that names its status means it, or a
        view that said so.
        """
        if visit.scripted and not is_navigation(visit.headers):
            return matches
        issuer = self.issuer
        tracked = [draft.match for draft in self._drafts.events]
        kept = [one for one in matches if one.route.status is not None or one in tracked]
        left = [match.route for match in matches if match not in kept]
        if left:
            pixel_ids = self._pixel_ids
            names = [(one.event_name, pixel_ids(one.event_name, one.pixels)) for one in left]
            issuer.suppressed("form_page", names)
            issuer.notices.say("form_page")
        return kept

    def _count_excluded(self, visit: Visit, status: int) -> None:
        """Count what a page of `exclude` would have been."""
        issuer, verdict = self.issuer, self._verdict
        if visit.noise is None:
            self._refuse("excluded", [one for one in self._unheeded if status in one.route.counted])
            if verdict is not None and verdict.inject and issuer.config.page_view and status < 300:
                pixel_ids = self._pixel_ids("PageView")
                issuer.suppressed("excluded", [("PageView", pixel_ids)])

    def _suppress(self, reason: str, *, keep_page: bool = False) -> None:
        """No copy of these events goes out: one anonymous count each."""
        if reason == "bot":
            self.issuer.notices.say(reason)
        drafts = self._drafts
        names = [(draft.event.event_name, draft.event.pixel_ids) for draft in drafts.events]
        drafted = {name for name, _ in names}
        if not self._asks:
            for match in drafts.matches:
                name = match.route.event_name
                if name not in drafted:
                    names.append((name, self._pixel_ids(name, match.route.pixels)))
        if self._page_view and not keep_page:
            names.append(("PageView", self._pixel_ids("PageView")))
        self.issuer.suppressed(reason, names)
        drafts.events.clear()
        if not keep_page:
            self._page_view = False
        if not self._asks:
            drafts.matches = []

    def _add_page_view(self) -> None:
        if self._page_view:
            self._page_view = False
            self._drafts.add_page_view()

    def _send_on(self, visit: Visit, status: int) -> None:
        """Events without a page go on to the next one, or to the script that asked."""
        drafts = [
            draft
            for draft in self._drafts.events
            if draft.event.send != "server" and draft.event.pixel_ids
        ]
        redirects = False
        if not is_public(self.headers):
            events = page_events([draft.event for draft in drafts])
            held = {"g": self._held, "h": self._held_names} if self._held else {}
            headers, n = visit.send_on(events, status, self.headers, self._waiting, held)
            if headers:
                self.headers = made_private(self.headers) + headers
                if visit.headers.get("origin") in self.issuer.hosts.origins:
                    self.headers = exposed(self.headers, carrying.HEADER)
            redirects = bool(headers) and 300 <= status < 400
            if headers and not redirects:
                self._handed = events[:n]
                self._issue(drafts[:n], visit.unseen(status, self.headers) or "not_run")
        cause = visit.unseen(status, self.headers)
        self._issue_unseen(cause, sets_cookies=redirects)

    def _issue_unseen(self, cause: str = "", *, sets_cookies: bool = False) -> None:
        """Issue what no page shows: why this one has no tag, else `cause`, or that it is none."""
        injector, verdict = self._injector, self._verdict
        if self._tag_failed or (injector is not None and injector.skip_reason == "error"):
            cause = "tag_failed"
        else:
            skipped = injector.skip_reason if injector is not None else None
            reason = skipped or (verdict.reason if verdict is not None else "")
            cause = reason if reason == "csp" or reason in NO_TAG else cause
        if cause:
            drafts = [one for one in self._drafts.events if one.event.send != "server"]
            self._issue(drafts, cause, sets_cookies=sets_cookies)
        self._issue(self._drafts.events, "not_rendered", sets_cookies=sets_cookies)

    def _heeds(self, visit: Visit, head: bytes) -> bool:
        """Look at what the page itself says before the place: whether a tag may be put there."""
        issuer, verdict, client = self.issuer, self._verdict, visit.client
        assert verdict is not None
        found = read_head(head)
        if found.has_block:
            verdict = replace(verdict, inject=False, reason="tagged")
        elif found.policies:
            verdict = inspect_head(
                verdict, self.headers, found.policies, host=client.host, scheme=client.scheme
            )
        self._verdict = verdict
        if not verdict.inject:
            issuer.count(Count("skipped", verdict.reason))
            issuer.notices.say(verdict.reason)
            self._page_view = False
        self._head = found
        return verdict.inject

    def _tag(self, visit: Visit, *, sets_cookies: bool) -> bytes:
        """The tag for the place that was found, whose events it issues; b"" where it fails.

        Nothing is issued before the tag is made: no event may claim a page that has no tag.
        """
        issuer, verdict = self.issuer, self._verdict
        assert verdict is not None
        try:
            if verdict.csp_notes:
                issuer.count(*(Count("csp", directive) for directive in verdict.csp_notes))
            head, origin = self._head, ""
            if head is not None and head.base:
                origin = visit.origin()
            has_script = head is not None and head.has_script
            tenant, pixels = visit.tenant, issuer.pixels
            if tenant is not None:
                pixels = issuer.pixels_knowing((), tenant)
            if self._asks:
                return issuer.tags.tag(
                    pixels, mount=self._mount, ask=True, waiting=self._waiting,
                    held=self._held, mark=self._mark, nonce=verdict.nonce,
                    refused=verdict.csp_notes, hides=verdict.hides, origin=origin,
                    has_script=has_script,
                )  # fmt: skip
            if self._page_view:
                self._page_view = False
                self._drafts.add_page_view()
            drafts: list[Draft] = []
            events: list[Event] = []
            for draft in self._drafts.events:
                if draft.event.send != "server":
                    drafts.append(draft)
                    events.append(draft.event)
            told = page_events(events)
            if self._handed:
                told = [*self._handed, *told]
            carried = visit.carried() if visit.brings else []
            if issuer.config.advanced_matching:
                pixels = issuer.pixels_knowing(self._known(events), tenant)
            whose = "" if tenant is None else tenant.key
            tag = issuer.tags.tag(
                pixels, told + carried, mount=self._mount, ask=self._lacks_view,
                consent=visit.permission or visit.permitted(),
                key=page_key(told, self._path, issuer.page_digest, whose)
                or issuer.new_key(self._path, whose),
                nonce=verdict.nonce, refused=verdict.csp_notes, hides=verdict.hides,
                origin=origin, has_script=has_script,
            )  # fmt: skip
            visitor = visit.visitor(sets_cookies=sets_cookies)
            if sets_cookies and visit.has_new_cookies:
                self._cookies = visit.cookies(self.headers)
            if events:
                self._store(drafts, events, visitor, "not_run")
            if carried:
                visit.take(carried)
        except Exception as error:
            issuer.shield.caught(error, "the tag")
            self._tag_failed = True
            return b""
        self._event_ids = bool(told or carried)
        return tag

    def _known(self, events: Sequence[Event]) -> list[Mapping[str, Any]]:
        """The user_data that advanced matching may hand to the pixel of a page with `events`."""
        return [self._drafts.shared, *(event.user_data for event in events)] if events else []

    def _issue(self, drafts: list[Draft], browser: str, *, sets_cookies: bool = False) -> None:
        """Hand drafts to the store. `sets_cookies` as in Visit.visitor."""
        if not drafts:
            return
        if self._aside:
            for draft in drafts:
                event = draft.event
                self.issuer.dropped("passed", event.event_name, event.pixel_ids)
            return
        visitor: Visitor | None = None
        if not self._nobodys:
            visit = self._visit or self.visit()
            refusal = visit.refusal()
            if refusal is not None:
                self._suppress(refusal)
                return
            visitor = visit.visitor(sets_cookies=sets_cookies)
        self._store(drafts, [draft.event for draft in drafts], visitor, browser)

    def _store(
        self, drafts: list[Draft], events: list[Event], visitor: Visitor | None, browser: str
    ) -> None:
        """Hand the `events` of these `drafts` to the store."""
        commit = self.issuer.issue(events, visitor, browser)
        if commit is not None:
            self.commits.append(commit)
        kept = self._drafts.events
        self._drafts.events = (
            [draft for draft in kept if draft not in drafts] if len(drafts) < len(kept) else []
        )


def _mirrored(issuer: Issuer, call: Call, tenant: Tenant | None) -> Iterable[Event]:
    """A call's event, apart for pixels that get a server copy and those that do not."""
    mirror = issuer.mirror
    event = issuer.new_event(call.n, None, None, event_id=call.i, tenant=tenant)
    event.custom_data = clean(call.n, mirror.custom_data(call.n, call.d))[0]
    ours = event.pixel_ids if mirror.takes(call.n) and not call.b else ()
    fired = [one.id for one in issuer.config.fixed_pixels if one.id in call.p]
    if tenant is not None:
        fired = [own_id(one.id, tenant.key) for one in tenant.pixels if one.id in call.p]
    for send, pixel_ids in (
        ("both", tuple(one for one in fired if one in ours)),
        ("browser", tuple(one for one in fired if one not in ours)),
    ):
        if pixel_ids:
            yield replace(event, send=send, pixel_ids=pixel_ids, user_data={})
