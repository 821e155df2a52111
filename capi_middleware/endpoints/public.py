"""The endpoints answer what comes under the prefix; the doors read the body and wait."""

from collections.abc import Callable, Mapping, MutableMapping, Set
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec.structs import replace
from starlette.responses import Response

from capi_middleware.capture import beacon
from capi_middleware.capture.client import (
    AGENT_KEPT,
    HEADERS,
    Client,
    agent_in,
    headers_of,
    page_origin,
    without_port,
)
from capi_middleware.capture.identity import identify, is_same_site
from capi_middleware.capture.limits import Allowance, Pages
from capi_middleware.capture.mirroring import is_harmless, made_by
from capi_middleware.capture.urls import urlsplit_safely
from capi_middleware.config.pixels import own_id
from capi_middleware.config.settings import named_events
from capi_middleware.endpoints import BODY_LIMIT, EVENTS
from capi_middleware.endpoints.reporting import Asked, Reporting, Routes, bare, failed
from capi_middleware.errors import BadBeacon
from capi_middleware.events import STANDARD_EVENTS, Count, PageKey, Sighting
from capi_middleware.page import tag as pixel
from capi_middleware.report.window import WindowError
from capi_middleware.request.asking import MARK_DAYS
from capi_middleware.request.exchange import Exchange
from capi_middleware.request.issuing import Issuer
from capi_middleware.request.visit import Waits
from capi_middleware.signing import signed_name

#: What an event takes on the disk at most, in bytes, apart from what its page says of it.
_ROW_SIZE = 1500
_FRESH = {"cache-control": "no-store"}
Open = Callable[[MutableMapping[str, Any]], Exchange]


class Endpoints:
    """Answers requests under the prefix. `open_page` opens the exchange of a page by its scope."""

    def __init__(self, issuer: Issuer, open_page: Open, is_delivering: Callable[[], bool]) -> None:
        self._issuer = issuer
        self._open = open_page
        self._allowance = Allowance(rate=20.0, burst=600.0, of_all=50.0)
        #: Bytes of the disk: less than 50 MB a day for one address.
        self._disk = Allowance(rate=300.0, burst=20e6, of_all=50.0)
        self._pages = Pages(events=500, alike=20, sightings=500, names=5, new_names=100)
        #: What pages told of that is part of coverage: so many of one visitor at once, and an hour.
        self._covered = Allowance(rate=100 / 3600, burst=100.0, of_all=1e5)
        #: How often one address may tell of one event. Behind a CDN that nobody named it is that of
        #: many.
        self._again = Pages(events=0, alike=0, sightings=30, names=0, new_names=0)
        #: What we call pixels, by Meta's numbers.
        self._pixels: Mapping[str, str] = {one.id: one.id for one in issuer.config.fixed_pixels}
        #: Pages that one visitor opens on an origin elsewhere, which nothing but its word shows.
        self._elsewhere = {
            one: Allowance(rate=1.0, burst=120.0, of_all=1000.0) for one in issuer.hosts.origins
        }
        #: Who may be read. A page elsewhere may hide its origin (Referrer-Policy: no-referrer) from
        #: all but CORS: from sendBeacon in Firefox and WebKit, from an image everywhere.
        origins = issuer.hosts.origins
        self._heard = {"t": origins, "b": origins and origins | {"null", ""}}
        self._ruled = STANDARD_EVENTS | named_events(issuer.config)
        self._routes: Routes = {
            "s.js": (frozenset({"GET", "HEAD"}), self._script),
            "b": (frozenset({"POST", "GET"}), self._beacon),
            "t": (frozenset({"POST"}), self._ask),
            **Reporting(issuer, is_delivering).routes,
        }

    def refusal(self, name: str, scope: MutableMapping[str, Any]) -> Response | None:
        """The answer to what need not be read to be refused; None for the rest."""
        if name not in self._routes:
            return bare(404)
        methods, _ = self._routes[name]
        if scope["method"] not in methods:
            return bare(405, allow=", ".join(sorted(methods)))
        headers = headers_of(scope)
        length = headers.get("content-length", "")
        if len(length) > len(str(BODY_LIMIT)) or (length.isdecimal() and int(length) > BODY_LIMIT):
            return self._too_long()
        if name in EVENTS:
            try:
                # Whether what it says is signed shows only when it was read.
                host = self._issuer.client(scope, headers).host
                _same_site(headers, host, self._heard[name], signed=True)
            except BadBeacon as error:
                return self._bad(error)
        return None

    def too_slow(self) -> Response:
        """The answer to a body that takes longer than BODY_SECONDS."""
        self._refused("too_slow")
        return bare(408)

    def _bad(self, error: BadBeacon) -> Response:
        self._refused("origin" if error.status == 403 else "malformed")
        return bare(error.status)

    def _too_long(self) -> Response:
        self._refused("too_long")
        return bare(413)

    async def answer(
        self, name: str, scope: MutableMapping[str, Any], body: bytes | None, waits: Waits
    ) -> Response:
        """The answer to {prefix}/{name}, which refusal() let through.

        `body` is None when it was longer than BODY_LIMIT.

        Never raises: whatever comes in, the answer is below 500 unless the store is down (503).
        """
        if body is None:
            return self._too_long()
        try:
            return await self._routes[name][1](Asked(scope, headers_of(scope), body, waits))
        except BadBeacon as error:
            return self._bad(error)
        except WindowError as error:
            return failed(400, str(error))
        except Exception as error:
            self._issuer.shield.caught(error, f"endpoint {name}")
        return bare(503)

    # -- public ----------------------------------------------------------------------------------

    async def _script(self, asked: Asked) -> Response:
        listens = self._issuer.tags.listens
        current = asked.query == f"v={pixel.script_version(listens)}"
        kept = "public, max-age=31536000, immutable" if current else "no-cache"
        headers = {"cache-control": kept, "x-content-type-options": "nosniff"}
        self._issuer.count(Count("script", ""))
        return Response(pixel.script(listens), 200, headers, "text/javascript; charset=utf-8")

    async def _beacon(self, asked: Asked) -> Response:
        client = self._issuer.client(asked.scope, asked.headers)
        body = asked.body
        if asked.scope["method"] == "GET":
            # An image request: the fall-back where connect-src refuses the other ways.
            body = dict(parse_qsl(asked.query)).get("e", "").encode()
        sightings, key = beacon.read(body, self._issuer.digest)
        if not self._allows(client.ip, len(sightings)):
            return bare(429)
        known = key.event_id if key is not None and self._issuer.opens(key) else None
        accepted, pixels, told, tenant = [], self._pixels, 0, ""
        signed = known is not None
        if self._issuer.tenants is not None and known is not None:
            tenant, pixels = await self._pixels_of(key, asked.waits)
        for sighting in sightings:
            name, event_id = sighting.event_name, sighting.event_id
            if tenant and sighting.pixel_id in pixels:
                sighting = replace(sighting, pixel_id=pixels[sighting.pixel_id])
            elif sighting.pixel_id not in pixels:
                self._refused("unknown_pixel")
                continue
            if self._issuer.minter.verifies(event_id, f"{tenant}/{name}" if tenant else name):
                signed = True
                if self._again.takes_sighting(f"{event_id} {client.ip}"):
                    accepted.append(sighting)
                else:
                    self._refused("too_often")
            elif known is None or not _may_be_of(known, event_id):
                self._refused("forged")
            elif not self._pages.takes_sighting(known):
                self._refused("page_budget")
            elif self._hears(known, name):
                told += 1
                accepted.append(replace(sighting, server="unsigned"))
        if not signed:
            _same_site(asked.headers, client.host, self._heard["t"], signed=True)
        if told and not self._has_room(client.ip, told, len(body)):
            return bare(429)
        if accepted:
            accepted = self._with_uses(accepted, client, asked.headers)
            await asked.waits.commit(self._issuer.store.sight(accepted))
        return Response(status_code=204, headers=_FRESH)

    async def _pixels_of(self, key: PageKey | None, waits: Waits) -> tuple[str, Mapping[str, str]]:
        """Whose page has this key, which is ours, and what we call that tenant's pixels."""
        tenants, whose = self._issuer.tenants, _tenant_of(key)
        if tenants is None or not whose:
            return "", {}
        tenant = tenants.known(whose) or await waits.ask(lambda: tenants.get(whose))
        found = tenant.pixels if tenant is not None else ()
        return whose, {one.id: own_id(one.id, whose) for one in found}

    def _with_uses(
        self, sightings: list[Sighting], client: Client, headers: Mapping[str, str]
    ) -> list[Sighting]:
        """The same, with whose browser it is."""
        known = identify(
            cookie_header=headers.get("cookie", ""), query="", referer=None, host=client.host,
            now_ms=0,
        )  # fmt: skip
        fbp = None if known.new_cookies else known.fbp
        agent = headers.get("user-agent")
        if agent and not (agent.isascii() and len(agent) <= AGENT_KEPT):
            agent = agent_in(headers)
        who = fbp, f"{known.address(client.ip) if known.ip else client.ip} {agent}"
        return [replace(one, uses=self._issuer.use(one.event_id, who)) for one in sightings]

    async def _ask(self, asked: Asked) -> Response:
        scope, waits = asked.scope, asked.waits
        client = self._issuer.client(scope, asked.headers)
        question = beacon.read_question(asked.body)
        opened = self._issuer.opens(question.k)
        origins, origin = self._issuer.hosts.origins, asked.headers.get("origin", "")
        _same_site(asked.headers, client.host, origins, signed=opened)
        page = urlsplit_safely(question.u)
        elsewhere = origin in origins
        if elsewhere:
            if f"{page.scheme}://{page.netloc}".lower() != origin:
                raise BadBeacon("found a page of another origin than the one that asks", 403)
            scope = _seen_there(scope, page, question.j, self._issuer.address(scope))
        elif page.netloc and without_port(page.netloc) != client.host.lower():
            # Behind a proxy that sets no Host only the browser knows the address.
            origin = f"{page.scheme}://{page.netloc}"
            if "sec-fetch-site" not in asked.headers or asked.headers.get("origin") != origin:
                raise BadBeacon("found the address of another site, expected one of this", 403)
            scope = _seen_at(scope, page.scheme, page.netloc)
        if not page.path.startswith("/"):
            raise BadBeacon("found no address of a page, expected one such as location.href")
        n = max(1, len(question.m))
        if not self._allows(client.ip, 1 + len(question.m)):
            return bare(429)
        if not self._has_room(client.ip, n, len(asked.body)):
            return bare(429)
        # A cache may show a page again that is older: it gets what its address may bring.
        is_ours = opened or self._issuer.opens(question.k, MARK_DAYS * 86400)
        key = question.k if is_ours else None
        if key is not None and not self._pages.takes_events(key.event_id, n):
            self._refused("page_budget")
            return bare(429)
        if elsewhere and key is None and not self._takes_page(origin, client.ip):
            return bare(429)
        exchange = self._open(_page_scope(scope, page.path, page.query, question.r))
        if elsewhere:
            exchange.include()
        whose = _tenant_of(key) if self._issuer.tenants is not None else ""
        if whose:
            exchange.visit().belong(whose)
        if question.m:
            if key is None or not opened:
                raise BadBeacon("found no key of an open page, expected the one in its tag", 403)
            calls = [
                (call, self._counts(client.ip, key.event_id, call.n))
                for call in question.m
                if self._may_name(call, key.event_id, whose)
            ]
            began = exchange
            if question.o != question.u and (path := urlsplit_safely(question.o).path):
                began = self._open(_page_scope(scope, path, "", ""))
            await exchange.mirror(question, calls, key, waits, began)
            return Response(status_code=204, headers=_FRESH)
        # What an answer to a call brought is of a page that has asked before.
        begins = elsewhere and not (is_ours or question.g)
        is_open = is_ours or elsewhere
        told, headers = await exchange.answer(question, waits, is_open=is_open, begins=begins)
        if elsewhere:
            tenant, within = exchange.visit().tenant, self._issuer.config.cookie_domain
            if tenant is not None:  # the script knows no pixels of one visitor's shop
                told.setdefault("p", self._issuer.pixels_knowing((), tenant))
            if headers and not is_same_site(origin, client.host, within):
                told["j"] = [value.decode("ascii") for _, value in headers]
                headers = []
        answer = Response(msgspec.json.encode(told), 200, _FRESH, "application/json")
        answer.raw_headers += headers
        return answer

    def _allows(self, address: str | None, n: int) -> bool:
        allowed = self._allowance.take(address, self._issuer.clock(), n)
        if not allowed:
            self._refused("too_many")
        return allowed

    def _takes_page(self, origin: str, address: str | None) -> bool:
        """Whether a visitor may open one page more of an origin that is not ours to answer."""
        allowed = self._elsewhere[origin].take(address, self._issuer.clock())
        if not allowed:
            self._refused("origin_budget")
        return allowed

    def _has_room(self, address: str | None, rows: int, size: int) -> bool:
        """Whether an address may write `rows` more for each pixel, of a text of `size` bytes."""
        of_all = (rows * _ROW_SIZE + size) * max(1, len(self._pixels))
        allowed = self._disk.take(address, self._issuer.clock(), of_all)
        if not allowed:
            self._refused("disk_budget")
        return allowed

    def _counts(self, address: str | None, key: str, event_name: str) -> bool:
        """Whether one event more that a page tells of is part of coverage."""
        alike = self._pages.takes_alike(key, event_name)
        return alike and self._covered.take(address, self._issuer.clock())

    def _may_name(self, call: beacon.Call, key: str, tenant: str) -> bool:
        """An event_id that the page made, or one of the site's own; ours are in the store."""
        return (
            not self._issuer.minter.verifies(call.i, signed_name(call.n, tenant))
            and _may_be_of(key, call.i)
            and self._hears(key, call.n)
        )

    def _hears(self, key: str, event_name: str) -> bool:
        """Whether a page may use this name: one that a rule names, or one of five others."""
        heard = event_name in self._ruled or (
            is_harmless(event_name) and self._pages.hears(key, event_name, self._issuer.clock())
        )
        if not heard:
            self._refused("unknown_name")
        return heard

    def _refused(self, reason: str) -> None:
        self._issuer.count(Count("beacon", reason))


def _tenant_of(key: PageKey | None) -> str:
    """The key of the tenant whose page has this `key`; its signature must have been verified."""
    whose, found, _ = key.event_name.partition("/") if key is not None else ("", "", "")
    return whose if found else ""


def _may_be_of(key: str, event_id: str) -> bool:
    """Whether the page with this `key` may have used an event_id that is not ours."""
    return not event_id.startswith("m") or made_by(key, event_id)


def _same_site(headers: Mapping[str, str], host: str, origins: Set[str], *, signed: bool) -> None:
    """Raises BadBeacon for what another site made a browser send: none of the site's `origins`.

    A browser's own word, Sec-Fetch-Site, goes before what a proxy may have made of the Host. Where
    there is none, a page that hides its origin ("null": Referrer-Policy: no-referrer in Firefox and
    WebKit) needs to be `signed`: to say something that only a page of ours can know.
    """
    if headers.get("content-encoding"):
        raise BadBeacon("found a compressed body, expected a plain one", 415)
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    # An image tells no Origin.
    if origins and (origin or page_origin(headers)) in origins:
        return
    if site is not None:
        if site not in ("same-origin", "none"):
            raise BadBeacon("found a cross-site request, expected our own", 403)
    elif origin is None or (signed and origin == "null"):
        return
    elif without_port(urlsplit_safely(origin).netloc) != host.lower():
        raise BadBeacon("found another origin, expected our own", 403)


def _seen_at(scope: Mapping[str, Any], scheme: str, host: str) -> dict[str, Any]:
    """The scope as if `host` had been asked."""
    headers = [one for one in scope["headers"] if one[0].lower() != b"host"]
    headers.append((b"host", host.encode("latin-1", "ignore")))
    return {**scope, "scheme": scheme, "headers": headers}


def _seen_there(scope: Mapping[str, Any], page: Any, cookies: str, address: str) -> dict[str, Any]:
    """The scope as if the page's own host had been asked, by a visitor of this `address`.

    What proxies say of the host that was asked is not about it.
    """
    brought = [value for name, value in scope["headers"] if name.lower() == b"cookie"]
    kept = [
        one
        for one in scope["headers"]
        if not one[0].lower().startswith((b"x-forwarded-", b"forwarded", b"cookie"))
    ]
    if cookies:
        brought.insert(0, cookies.encode("latin-1", "ignore"))
    if brought:
        kept.append((b"cookie", b"; ".join(brought)))
    there = {**scope, "headers": kept, "client": (address, 0), "root_path": "", "app_root_path": ""}
    return _seen_at(there, page.scheme, page.netloc)


#: What sendBeacon says of itself: a page that is fetched like that is a prefetch.
_BEACON_S = (b"sec-fetch-mode", b"no-cors")


def _page_scope(scope: Mapping[str, Any], path: str, query: str, referrer: str) -> dict[str, Any]:
    """The scope of the page that asks, with the visitor's own headers."""
    kept = [
        one
        for one in scope["headers"]
        if one[0].lower() not in (b"referer", b"content-type") and one != _BEACON_S
    ]
    if referrer:
        kept.append((b"referer", referrer.encode("latin-1", "ignore")))
    return {
        **scope,
        "method": "GET",
        "path": unquote(path),
        "raw_path": path.encode("latin-1", "ignore"),
        "query_string": query.encode("latin-1", "ignore"),
        "headers": kept,
        HEADERS: None,
    }
