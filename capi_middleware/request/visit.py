"""A visit is who a request comes from and what may be done with its events, parsed once."""

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from msgspec.structs import replace

from capi_middleware.capture import carrying
from capi_middleware.capture.client import (
    AGENT_KEPT,
    Client,
    address_of,
    agent_in,
    headers_of,
    noise,
    page_origin,
    read_client,
    told_there,
    without_port,
)
from capi_middleware.capture.consent import (
    COOKIE,
    COOKIE_SECONDS,
    DENIED,
    GRANTED,
    ConsentRule,
    InternalRule,
    Permission,
    Said,
)
from capi_middleware.capture.identity import (
    Identity,
    click_of,
    cookie_domain,
    identify,
    is_same_site,
    set_cookie_header,
)
from capi_middleware.capture.reading import BodyTee, Fields
from capi_middleware.capture.urls import scrub_url, source_url, urlsplit_safely
from capi_middleware.config.expressions import Call
from capi_middleware.config.pixels import Tenant, is_key
from capi_middleware.errors import BadBeacon
from capi_middleware.events import OF_HOST, Count, PageEvent
from capi_middleware.meta.visitor import Visitor
from capi_middleware.page.gate import is_public
from capi_middleware.private import Private
from capi_middleware.store.commits import Commit

if TYPE_CHECKING:
    from concurrent.futures import Future

    from capi_middleware.request.issuing import Issuer

T = TypeVar("T")
#: Header lines as ASGI has them.
Headers = list[tuple[bytes, bytes]]

#: In the scope: the framework's own request, which callables get instead of a Starlette Request.
REQUEST = "capi_middleware.request"
#: How long a page waits for an asynchronous callable of the host's, in seconds.
HOST_SECONDS = 2.0
_LOOPBACK = re.compile(r"(?:localhost|.*\.localhost|127\.[\d.]+|\[::1\])(?::\d+)?")
_CARRIED = f"{carrying.COOKIE}="


async def in_time(answer: Awaitable[T]) -> T:
    """What `answer` gives within HOST_SECONDS, else raises TimeoutError."""
    # Only an asynchronous callable of the host's needs it.
    import asyncio

    async with asyncio.timeout(HOST_SECONDS):
        return await answer


class Waits(Protocol):
    """How a door waits for the four things that may take long."""

    async def host(self, answer: Awaitable[Any]) -> Any:
        """The result of an asynchronous callable of the host's."""

    async def commit(self, commit: Commit) -> None:
        """A commit of the store. Raises StoreError, or TimeoutError when it takes too long."""

    async def read(self, call: Callable[[], T]) -> T:
        """The result of a blocking read, off any event loop."""

    async def ask(self, call: Callable[[], T]) -> T:
        """The result of a blocking callable of the host's, off any event loop.

        There it raises TimeoutError after HOST_SECONDS.
        """

    async def answer(self, question: "Future[T]", seconds: float) -> T:
        """What another thread finds out. Raises TimeoutError after so many seconds."""


class Visit(Private):
    """One request's visitor. `scope` is an ASGI http scope, `path` is below any mount.

    `raw_path` is the path that the browser asked for.

    `noise` is why it is no visit, None for a visit. `scripted`: a page's script asks and can read
    a header of the answer. `is_call`: its events happen at the page that calls, not at the address
    that is called. `permission` is None until the site's rule was asked; `said` is what the page's
    script says that its visitor answered.
    """

    __slots__ = (
        "_brought",
        "_identity",
        "_issuer",
        "_raw_path",
        "_scope",
        "_tenant_key",
        "_took",
        "_visitor",
        "brings",
        "client",
        "fields",
        "has_new_cookies",
        "headers",
        "is_call",
        "noise",
        "permission",
        "said",
        "scripted",
        "tenant",
    )  # fmt: skip

    def __init__(
        self,
        issuer: "Issuer",
        scope: MutableMapping[str, Any],
        path: str,
        raw_path: bytes,
        tee: BodyTee | None,
    ) -> None:
        self._issuer = issuer
        self._raw_path = raw_path
        self._scope = scope
        headers, hosts = headers_of(scope), issuer.hosts
        if hosts.origins and page_origin(headers) in hosts.origins:
            headers = told_there(headers)
        self.headers: Mapping[str, str] = headers
        self.fields: Fields = Fields(scope, headers, tee)
        peer = scope.get("client")
        self.client: Client = read_client(
            peer[0] if peer else None, scope.get("scheme", "http"), headers, issuer.proxies
        )
        self.noise: str | None = noise(scope["method"], path, headers)
        if self.noise == "cross_site" and hosts.speak(headers):
            self.noise = None
        if hosts.names and not hosts.has(self.client.host):
            self.noise = "foreign_host"
        wanted = headers.get("sec-fetch-dest")
        # As in is_scripted(), without a call where the browser says it.
        self.scripted: bool = (
            carrying.is_scripted(headers)
            if wanted is None
            else wanted == "empty" and headers.get("sec-fetch-mode") != "navigate"
        )
        #: What a script reads (GET) may be the page itself: start() knows it by the answer.
        self.is_call: bool = self.scripted and scope["method"] != "GET"
        #: Whether the request seems to bring events along.
        self.brings: bool = _CARRIED in headers.get("cookie", "")
        rule = issuer.consent
        self.permission: Permission | None = None
        self.said: Said | None = None
        is_open = rule.is_open and issuer.internal is None
        if is_open and self.noise is None and not (rule.gpc and "sec-gpc" in headers):
            self.permission = GRANTED
        #: Known after identity().
        self.has_new_cookies: bool = False
        #: Whose pixels its events go to, after find_tenant() or whose().
        self.tenant: Tenant | None = None
        self._tenant_key: str | None = None
        self._identity: Identity | None = None
        self._visitor: Visitor | None = None
        self._brought: tuple[list[PageEvent], bool, str] | None = None
        self._took = False

    # -- what the host's own callables say -------------------------------------------------------

    def _request(self) -> Any:
        from starlette.requests import Request

        given = self._scope.get(REQUEST)
        if given is not None:
            return given
        self._scope["headers"]  # some doors make them when they are asked for
        return Request(self._scope)

    async def ask(self, call: Call, waits: Waits) -> Any:
        """The answer of a callable of the configuration; None when it fails."""
        answer = self._called(call)
        if isawaitable(answer):
            try:
                answer = await waits.host(answer)
            except Exception as error:
                return self._failed(error, call.setting)
        return answer

    def ask_now(self, call: Call) -> Any:
        """The answer of a callable where nobody can wait: None when it is asynchronous."""
        answer = self._called(call)
        if isawaitable(answer):
            if iscoroutine(answer):
                answer.close()
            return None
        return answer

    def _called(self, call: Call) -> Any:
        try:
            return call.rule(self._request())
        except Exception as error:
            return self._failed(error, call.setting)

    def _failed(self, error: Exception, setting: str) -> None:
        self._issuer.shield.caught(error, OF_HOST + setting)

    # -- whose pixels ----------------------------------------------------------------------------

    def belong(self, key: str) -> None:
        """A page of the tenant with this key asks, as its signature shows."""
        self._tenant_key = key

    async def find_tenant(self, waits: Waits) -> None:
        """Find out whose pixels its events go to, without holding up anybody else."""
        tenants, key = self._issuer.tenants, self.tenant_key()
        if tenants is None or not key:
            return
        self.tenant = tenants.known(key)
        if self.tenant is None and self._may_ask(key):
            try:
                self.tenant = await waits.ask(lambda: tenants.get(key))
            except Exception as error:
                self._failed(error, "tenant")

    def whose(self, *, now: bool) -> Tenant | None:
        """Its tenant. One who is not known yet has no pixels, unless it must be known `now`."""
        tenants, key = self._issuer.tenants, self.tenant_key()
        if self.tenant is None and tenants is not None and key:
            if not now:
                return Tenant(key, ())
            try:
                self.tenant = tenants.get(key) if self._may_ask(key) else None
            except Exception as error:
                self._failed(error, "tenant")
        return self.tenant

    def _may_ask(self, key: str) -> bool:
        tenants = self._issuer.tenants
        may = tenants is not None and tenants.may_ask(key, self.client.ip)
        if not may:
            self._issuer.count(Count("skipped", "too_many_tenants"))
        return may

    def tenant_key(self) -> str:
        """What the site's rule says of the request; "" for nobody's."""
        if self._tenant_key is None:
            rule = self._issuer.tenant_rule
            key = None if rule is None else self.ask_now(rule)
            self._tenant_key = str(key) if is_key(key) else ""
        return self._tenant_key

    # -- what may be done ------------------------------------------------------------------------

    async def decide(self, waits: Waits) -> None:
        """Ask the site's rule of consent, once; noise is not asked."""
        if self.permission is None and self.noise is None:
            internal = self._issuer.internal
            if internal is not None:
                call = internal.ask
                said = self._is_internal(internal) if call is None else await self.ask(call, waits)
                if said:
                    self.noise, self.permission = "internal", DENIED
                    return
            rule = self._issuer.consent
            answer = rule.read(self.fields) if rule.ask is None else await self.ask(rule.ask, waits)
            self.permission = self._decided(rule, answer)

    def permitted(self) -> Permission:
        """The visitor's consent as far as it is known: an asynchronous rule counts as denied."""
        if self.permission is not None:
            return self.permission
        internal = self._issuer.internal
        if internal is not None and self.noise is None:
            call = internal.ask
            if self._is_internal(internal) if call is None else self.ask_now(call):
                self.noise, self.permission = "internal", DENIED
                return DENIED
        rule = self._issuer.consent
        answer = rule.read(self.fields) if rule.ask is None else self.ask_now(rule.ask)
        return self._decided(rule, answer)

    def _decided(self, rule: ConsentRule, answer: Any) -> Permission:
        if not rule.is_open:
            answer = rule.said(answer, self.fields, self.said)
        return rule.decide(answer, self.headers)

    def consent_cookies(self) -> Headers:
        """Set-Cookie lines that keep what the page `said`; who refuses loses what we set."""
        if self.said is None:
            return []
        secure, domain = self.client.scheme == "https", self._domain()
        lines = [set_cookie_header(COOKIE, self.said, domain, COOKIE_SECONDS, secure=secure)]
        if self.said == "denied":
            for name in ("_fbp", "_fbc", carrying.COOKIE):
                for where in {domain, None}:
                    lines.append(set_cookie_header(name, "", where, 0, secure=secure))
        return [(b"set-cookie", line) for line in lines]

    def _domain(self) -> str | None:
        return cookie_domain(self.client.host, self._issuer.config.cookie_domain)

    def refusal(self) -> str | None:
        """Why no event may leave, None when they may."""
        if self.noise is not None:
            return self.noise
        permission = self.permission or self.permitted()
        return self.noise or ("consent" if permission.consent == "denied" else None)

    def _is_internal(self, rule: InternalRule) -> bool:
        peer, proxies = (self._scope.get("client") or (None,))[0], self._issuer.proxies
        return rule.read(self.fields, lambda: address_of(peer, self.headers, proxies))

    # -- who it is -------------------------------------------------------------------------------

    def identity(self) -> Identity:
        """fbp and fbc, read or new."""
        if self._identity is None:
            headers = self.headers
            self._identity = identify(
                cookie_header=headers.get("cookie", ""),
                query=self._scope.get("query_string", b"").decode("latin-1"),
                referer=headers.get("referer"),
                host=self.client.host,
                within=self._issuer.config.cookie_domain,
                now_ms=int(self._issuer.clock() * 1000),
                withheld=self._scope["method"] != "GET" and self._may_hold_back(),
            )
            self.has_new_cookies = bool(self._identity.new_cookies)
        return self._identity

    def _may_hold_back(self) -> bool:
        """Whether the browser may have cookies that it does not send with what another site posts.

        A payment provider's form that leads back: SameSite=Lax holds back _fbp, not on the way on.
        """
        wanted, origin = self.headers.get("sec-fetch-site"), self.headers.get("origin")
        if wanted is not None:
            return wanted == "cross-site"
        within = self._issuer.config.cookie_domain
        return origin is not None and not is_same_site(origin, self.client.host, within)

    def visitor(self, *, sets_cookies: bool) -> Visitor:
        """Who this request comes from.

        A new fbp belongs to a visitor only where its cookie goes out: `sets_cookies` says whether
        the response that is being made carries cookies().
        """
        identity = self._identity or self.identity()
        fbp = identity.fbp
        if self.has_new_cookies and not sets_cookies and "_fbp" in dict(identity.new_cookies):
            fbp = None
        consent, country, state, _ = self.permission or self.permitted()
        kept = self._visitor
        if kept is None or kept.fbp != fbp or kept.consent != consent:
            scope, client, headers = self._scope, self.client, self.headers
            drop, keep = self._issuer.drop_parameters, self._issuer.keep_parameters
            referer, agent = headers.get("referer"), headers.get("user-agent")
            calling = self._calling() if self.is_call else None
            if self.is_call:
                referer = None  # it is the page that calls: where that came from, nobody says
            if agent and not agent.isascii():
                agent = agent_in(headers)
            if identity.ip and client.ip and self._visitor is None:
                browser, server = (
                    "IPv6" if ":" in one else "IPv4" for one in (identity.ip, client.ip)
                )
                self._issuer.count(Count("ip_family", f"{browser} {server}"))
            kept = self._visitor = Visitor(
                fbp=fbp,
                fbc=identity.fbc,
                client_ip_address=identity.address(client.ip) if identity.ip else client.ip,
                client_user_agent=agent and agent[:AGENT_KEPT],
                event_source_url=calling
                or source_url(
                    client.scheme,
                    client.host,
                    self._raw_path,
                    scope.get("query_string", b""),
                    drop,
                    keep,
                ),
                referrer_url=scrub_url(referer, drop, keep) if referer else None,
                consent=consent,
                data_processing_options_country=country,
                data_processing_options_state=state,
                country=client.country,
            )
        return kept

    def _calling(self) -> str | None:
        """The page of this site whose script calls; None where no header tells.

        htmx says it whatever the page's Referrer-Policy, our script where that hides it; of another
        origin there is mostly no more than that.
        """
        issuer, headers = self._issuer, self.headers
        named = headers.get("hx-current-url") or headers.get("x-capi-page")
        told = named or headers.get("referer") or headers.get("origin")
        page = urlsplit_safely(told)
        host = without_port(page.netloc)
        ours = issuer.hosts.own(f"{page.scheme}://{host}", host) or is_same_site(
            host, self.client.host
        )
        return scrub_url(told, issuer.drop_parameters, issuer.keep_parameters) if ours else None

    def origin(self) -> str:
        """The origin of the page as its browser sees it."""
        client = self.client
        # Behind a proxy that is not trusted: browsers send these to TLS and to loopback alone.
        name = client.host.rpartition(":")[0] or client.host
        is_tls = "sec-fetch-mode" in self.headers and name not in (
            "localhost",
            "127.0.0.1",
            "[::1]",
        )
        return f"{'https' if is_tls else client.scheme}://{client.host}"

    def url(self) -> str:
        """The address of the request, with all that is in it."""
        query = self._scope.get("query_string", b"").decode("latin-1")
        return f"{self.origin()}{self._raw_path.decode('latin-1')}?{query}"

    def cookies(self, theirs: Sequence[tuple[bytes, bytes]] = ()) -> Headers:
        """Set-Cookie lines of what the browser does not have and `theirs` (headers) do not set."""
        identity = self._identity or self.identity()
        if not identity.new_cookies:
            return []
        values = [value.lstrip() for name, value in theirs if name.lower() == b"set-cookie"]
        secure = self.client.scheme == "https"
        return [
            (b"set-cookie", set_cookie_header(name, cookie, identity.domain, secure=secure))
            for name, cookie in identity.new_cookies
            if not any(value.startswith(name.encode() + b"=") for value in values)
        ]

    async def keep_click(self, headers: Headers, waits: Waits) -> Headers:
        """`headers` of a redirect, with _fbc where a click on an ad lands on it.

        The next page does not know of the click.
        """
        query = self._scope["query_string"].decode("latin-1")
        if not click_of(query) or is_public(headers):
            return headers
        await self.decide(waits)
        if self.refusal() is not None:
            return headers
        return headers + [one for one in self.cookies(headers) if one[1].startswith(b"_fbc=")]

    # -- what it brings and takes along ----------------------------------------------------------

    def brought(self) -> tuple[list[PageEvent], bool, str]:
        """The events that an earlier redirect sent here, and whether only a script led here.

        Also the domain of the cookie that they came by.
        """
        if self._brought is None:
            self._brought = ([], False, "")
            issuer = self._issuer
            for part in self.headers.get("cookie", "").split(";"):
                name, _, value = part.strip().partition("=")
                if name == carrying.COOKIE:
                    for owner in (self._owner(), self._caller()):
                        with suppress(BadBeacon):
                            self._brought = issuer.carrier.unpack(
                                value, now=issuer.clock(), owner=owner
                            )
                            return self._brought
                    issuer.count(Count("beacon", "carried"))
        return self._brought

    def _owner(self) -> str:
        """Whose events this browser may fire: the fbp that it brings, else one nobody has."""
        identity = self.identity()
        return identity.fbp if identity.fbp and not _has_new_fbp(identity) else "nobody"

    def _caller(self) -> str:
        """Who owns events instead where the browser holds its cookies back."""
        return f"{self.client.ip} {self.headers.get('user-agent')}"

    def carried(self, *, for_page: bool = False) -> list[PageEvent]:
        """The events that were sent here and that this answer hands to the browser.

        What a navigation left behind is for the page that it leads to (or for the question of
        that page: `for_page`), not for a script that happens to ask meanwhile.
        """
        events, for_script, _ = self.brought()
        if self.tenant is not None:
            ours = {one.id for one in self.tenant.pixels}
            events = [one for one in events if ours.issuperset(one.pixel_ids)]
        if not events or (self.scripted and not for_script and not for_page):
            return []
        # The next page may be a copy from a cache or in another tab: once in this browser.
        return [replace(event, once=1) for event in events]

    def take(self, events: Sequence[PageEvent]) -> None:
        """The answer has these carried() events: its head must add `cleared`."""
        if events:
            self._took = True
            self._issuer.rendered(events, self.tenant)

    def cleared(self) -> Headers:
        """A Set-Cookie line once the events were taken."""
        return self.clearing() if self._took else []

    def clearing(self) -> Headers:
        """The Set-Cookie line that ends what was brought."""
        return [(b"set-cookie", self._next_cookie("", self.brought()[2]))]

    def send_on(
        self,
        events: Sequence[PageEvent],
        status: int,
        theirs: Headers,
        waiting: str = "",
        held: Mapping[str, Any] = {},
    ) -> tuple[Headers, int]:
        """Headers for `events` that no page carries, and how many of them are on their way.

        `theirs` are those that the answer has already.

        A redirect sends them, with what it was brought itself, to the page it leads to; any other
        answer to a script hands them to that script, with those that are `waiting` or `held`.
        """
        if 300 <= status < 400:
            if not events:
                return [], 0
            brought, for_script, domain = self.brought()
            domain = self._way(theirs) or domain
            known = {event.event_id for event in events}
            value, n = self._issuer.carrier.pack(
                [*events, *(event for event in brought if event.event_id not in known)],
                now=self._issuer.clock(),
                scripted=self.scripted and (for_script or not brought),
                owner=self.identity().fbp or self._caller(),
                domain=domain,
            )
            # Only this browser may fire them, so it has to be known.
            known_by = self.cookies(theirs) if _has_new_fbp(self.identity()) else []
            return [(b"set-cookie", self._next_cookie(value, domain)), *known_by], min(
                n, len(events)
            )
        if not self.scripted:
            return [], 0
        carried = [] if held else self.carried()
        if not (events or carried or waiting or held):
            return [], 0
        value_, n = carrying.as_header([*events, *carried], waiting, held)
        self.take(carried)
        return [(carrying.HEADER, value_), *self.cleared()], min(n, len(events))

    def _way(self, headers: Headers) -> str:
        """The domain that this host shares with the one a redirect leads to; "" for this one."""
        location = next((value for name, value in headers if name.lower() == b"location"), b"")
        host = urlsplit_safely(location.decode("latin-1")).hostname
        if not host or host == urlsplit_safely(f"//{self.client.host}").hostname:
            return ""
        own, within = self._issuer.config.cookie_domain, self.client.host
        domain = cookie_domain(within, own)
        return domain if domain and domain == cookie_domain(host, own) else ""

    def unseen(self, status: int, theirs: Headers) -> str:
        """Why no page of ours may know of an event of this answer; "" where one may.

        It sends the visitor to another host, or answers the script of a page elsewhere that is not
        in Config.origins.
        """
        host = without_port(self.client.host.lower())
        if 300 <= status < 400:
            location = next((value for name, value in theirs if name.lower() == b"location"), b"")
            leads_to = urlsplit_safely(location.decode("latin-1")).netloc.lower()
            return "other_site" if leads_to and without_port(leads_to) != host else ""
        origin, wanted = self.headers.get("origin", ""), self.headers.get("sec-fetch-site")
        if not origin or origin in self._issuer.hosts.origins:
            return ""
        if carrying.is_navigation(self.headers) or wanted == "same-origin":
            return ""
        asks = without_port(urlsplit_safely(origin).netloc.lower())
        return "other_origin" if wanted is not None or asks not in ("", host) else ""

    def _next_cookie(self, value: str, domain: str) -> bytes:
        return carrying.set_cookie(value, domain, secure=self.client.scheme == "https")


def _has_new_fbp(identity: Identity) -> bool:
    return any(name == "_fbp" for name, _ in identity.new_cookies)
