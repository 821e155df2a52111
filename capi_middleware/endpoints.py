"""Endpoints: what lives under the prefix. Sans-IO: the doors read the body and wait."""

import base64
import binascii
import hmac
import secrets
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
from starlette.responses import RedirectResponse, Response

from capi_middleware.capture import beacon, pixel
from capi_middleware.capture.allowance import Allowance
from capi_middleware.capture.minting import TextSigner
from capi_middleware.capture.mirroring import made_by
from capi_middleware.capture.reading import RequestReader
from capi_middleware.capture.urls import urlsplit_safely
from capi_middleware.errors import BadBeacon
from capi_middleware.events import Count
from capi_middleware.exchange import Exchange
from capi_middleware.issuing import Issuer
from capi_middleware.parity import report
from capi_middleware.parity.model import Report
from capi_middleware.parity.reading import read_report
from capi_middleware.parity.window import Window, WindowError, parse_window
from capi_middleware.steps import Steps

#: How long a browser stays logged in to the report, in seconds.
LOGIN_SECONDS = 12 * 3600
_COOKIE = "capi_report"
_PRIVATE = {
    "cache-control": "no-store",
    "x-robots-tag": "noindex",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}

OpenExchange = Callable[[MutableMapping[str, Any]], Exchange]


class Endpoints:
    """Answers requests under the prefix. `open_exchange` opens one for a page by its scope."""

    def __init__(
        self, issuer: Issuer, open_exchange: OpenExchange, is_delivering: Callable[[], bool]
    ) -> None:
        self._issuer = issuer
        self._config = issuer.config
        self._open = open_exchange
        self._is_delivering = is_delivering
        self._allowance = Allowance(rate=20.0, burst=600.0, of_all=50.0)
        self._logins = TextSigner(issuer.config.secrets, "report")
        self._routes: dict[str, tuple[frozenset[str], Callable[..., Steps[Response]]]] = {
            "s.js": (frozenset({"GET", "HEAD"}), self._script),
            "b": (frozenset({"POST", "GET"}), self._beacon),
            "t": (frozenset({"POST"}), self._ask),
            "parity": (frozenset({"GET", "HEAD", "POST"}), self._page),
            "parity.json": (frozenset({"GET", "HEAD"}), self._json),
            "metrics": (frozenset({"GET", "HEAD"}), self._metrics),
        }

    def answer(
        self, name: str, scope: MutableMapping[str, Any], body: bytes | None
    ) -> Steps[Response]:
        """The answer to {prefix}/{name}. `body` is None when it was longer than steps.BODY_LIMIT.

        Never raises: whatever comes in, the answer is below 500 unless the store is down (503).
        """
        if name not in self._routes:
            return _bare(404)
        methods, handler = self._routes[name]
        if scope["method"] not in methods:
            return _bare(405, allow=", ".join(sorted(methods)))
        if body is None:
            self._refused("too_long")
            return _bare(413)
        try:
            return (yield from handler(scope, RequestReader(scope, None).headers, body))
        except BadBeacon as error:
            self._refused("malformed")
            return _bare(error.status)
        except WindowError as error:
            answer = msgspec.json.encode({"error": str(error)})
            return Response(answer, 400, _PRIVATE, "application/json")
        except Exception as error:
            self._issuer.shield.caught(error, f"endpoint {name}")
        return _bare(503)

    # -- public ----------------------------------------------------------------------------------

    def _script(self, scope: Any, headers: Mapping[str, str], body: bytes) -> Steps[Response]:
        yield from ()
        current = f"v={pixel.script_version()}".encode() == scope.get("query_string", b"")
        return Response(
            pixel.script(),
            media_type="text/javascript; charset=utf-8",
            headers={
                "cache-control": "public, max-age=31536000, immutable" if current else "no-cache",
                "x-content-type-options": "nosniff",
            },
        )

    def _beacon(self, scope: Any, headers: Mapping[str, str], body: bytes) -> Steps[Response]:
        self._same_site(scope, headers)
        if scope["method"] == "GET":
            body = _from_query(scope)
        sightings, key = beacon.read(body)
        if not self._allows(scope, headers, len(sightings)):
            return _bare(429)
        accepted = []
        for sighting in sightings:
            if not self._known(sighting.pixel_id):
                self._refused("unknown_pixel")
            elif not self._proven(sighting.event_id, sighting.event_name, key):
                self._refused("forged")
            else:
                accepted.append(sighting)
        if accepted:
            yield self._issuer.store.sight(accepted)
        return Response(status_code=204, headers={"cache-control": "no-store"})

    def _ask(self, scope: Any, headers: Mapping[str, str], body: bytes) -> Steps[Response]:
        self._same_site(scope, headers)
        question = beacon.read_question(body)
        page = urlsplit_safely(question.u)
        host = self._issuer.client(scope, headers).host
        if page.netloc and page.netloc.lower() != host.lower():
            raise BadBeacon("found the address of another site, expected a page of this one", 403)
        if not page.path.startswith("/"):
            raise BadBeacon("found no address of a page, expected one such as location.href")
        if not self._allows(scope, headers, 1 + len(question.m)):
            return _bare(429)
        exchange = self._open(_page_scope(scope, page.path, page.query, question.r))
        if question.m:
            if not self._issuer.opens(question.k):
                raise BadBeacon("found no key of an open page, expected the one in its tag", 403)
            assert question.k is not None
            calls = [call for call in question.m if self._may_name(call, question.k[1])]
            yield from exchange.mirror(calls)
            return Response(status_code=204, headers={"cache-control": "no-store"})
        events = yield from exchange.ask()
        carried = (
            exchange.carriage.take(for_page=True) if exchange.admission.refusal is None else []
        )
        told = {"e": [*pixel.page_events(events), *carried], **exchange.consent_fields()}
        if (key := exchange.key(events)) is not None:
            told["k"] = key
        if self._config.advanced_matching:
            told["p"] = exchange.pixels(events)
        answer = Response(
            msgspec.json.encode(told),
            media_type="application/json",
            headers={"cache-control": "no-store"},
        )
        if events:
            answer.raw_headers += exchange.visit.cookies()
        answer.raw_headers += exchange.carriage.cleared
        return answer

    def _same_site(self, scope: Any, headers: Mapping[str, str]) -> None:
        """Raises BadBeacon for what another site made a browser send."""
        if headers.get("content-encoding"):
            raise BadBeacon("found a compressed body, expected a plain one", 415)
        origin = headers.get("origin")
        if (
            origin is not None
            and urlsplit_safely(origin).netloc.lower()
            != self._issuer.client(scope, headers).host.lower()
        ):
            raise BadBeacon("found another origin, expected our own", 403)
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise BadBeacon("found a cross-site request, expected our own", 403)

    def _allows(self, scope: Any, headers: Mapping[str, str], n: int) -> bool:
        address = self._issuer.client(scope, headers).ip
        allowed = self._allowance.take(address, self._issuer.now(), n)
        if not allowed:
            self._refused("too_many")
        return allowed

    def _may_name(self, call: beacon.Call, key: str) -> bool:
        """An event_id that the page made, or one of the site's own; ours are in the store."""
        if made_by(key, call.i):
            return True
        return not self._minted(call.i, call.n) and not call.i.startswith("m")

    def _proven(self, event_id: str, event_name: str, key: tuple[str, str] | None) -> bool:
        if self._minted(event_id, event_name):
            return True
        if key is None or not self._issuer.opens(key):
            return False
        return made_by(key[1], event_id) or not event_id.startswith("m")

    def _known(self, pixel_id: str) -> bool:
        return any(one.id == pixel_id for one in self._config.pixels)

    def _minted(self, event_id: str, event_name: str) -> bool:
        return self._issuer.minter.verifies(event_id, event_name)

    def _refused(self, reason: str) -> None:
        self._issuer.count(Count("beacon", reason))

    # -- private ---------------------------------------------------------------------------------

    def _page(self, scope: Any, headers: Mapping[str, str], body: bytes) -> Steps[Response]:
        if not self._served():
            return _bare(404)
        prefix = scope.get("root_path", "").rstrip("/") + self._config.prefix
        path = f"{prefix}/parity"
        nonce = secrets.token_urlsafe(16)
        if scope["method"] == "POST":
            given = dict(parse_qsl(body.decode("latin-1"))).get("token", "")
            if not self._is_token(given):
                wrong = report.login_html(path, "This is not the report token.", nonce=nonce)
                return _html(wrong, 403, nonce)
            answer: Response = RedirectResponse(path, 303, headers=_PRIVATE)
            until = str(int(time.time()) + LOGIN_SECONDS)
            answer.set_cookie(
                _COOKIE,
                self._logins.sign(until),
                max_age=LOGIN_SECONDS,
                path=prefix,
                httponly=True,
                samesite="strict",
                secure=self._issuer.client(scope, headers).scheme == "https",
            )
            return answer
        if not self._may_read(headers):
            return _html(report.login_html(path, nonce=nonce), 401, nonce)
        made = yield self._reading(_window(scope))
        query = scope.get("query_string", b"").decode("latin-1")
        page = report.to_html(made, path=path, query=query, nonce=nonce)
        return _html(page, 200, nonce)

    def _json(self, scope: Any, headers: Mapping[str, str], body: bytes) -> Steps[Response]:
        if not self._served():
            return _bare(404)
        if not self._may_read(headers):
            return _unauthorized()
        made = yield self._reading(_window(scope))
        return Response(report.to_json(made), 200, _PRIVATE, "application/json")

    def _metrics(self, scope: Any, headers: Mapping[str, str], body: bytes) -> Steps[Response]:
        if not self._served():
            return _bare(404)
        if not self._may_read(headers):
            return _unauthorized()
        made = yield self._reading(_window(scope))
        text = report.metrics_text(made)
        return Response(text, 200, _PRIVATE, "text/plain; version=0.0.4; charset=utf-8")

    def _reading(self, window: Window) -> Callable[[], Report]:
        """Reads the store: may take long, so a door runs it off its loop."""

        return lambda: read_report(
            self._issuer.store, self._config, window, delivering=self._is_delivering()
        )

    def _served(self) -> bool:
        return self._config.report_token is not None or self._config.debug

    def _is_token(self, given: str) -> bool:
        token = self._config.report_token
        return token is not None and hmac.compare_digest(
            given.encode("utf-8", "replace"), token.encode()
        )

    def _may_read(self, headers: Mapping[str, str]) -> bool:
        if self._config.report_token is None:
            return self._config.debug
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip()):
            return True
        for cookie in headers.get("cookie", "").split(";"):
            name, _, value = cookie.strip().partition("=")
            until = self._logins.unsign(value.strip('"')) if name == _COOKIE else None
            if until is not None and until.isdecimal() and int(until) > time.time():
                return True
        return False


def _from_query(scope: Any) -> bytes:
    """A beacon as an image request: the fall-back where connect-src refuses the other ways."""
    text = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"))).get("e", "")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise BadBeacon("found no base64, expected a beacon") from None


def _page_scope(scope: Any, path: str, query: str, referrer: str) -> dict[str, Any]:
    """The scope of the page that asks, with the visitor's own headers."""
    kept = [one for one in scope["headers"] if one[0].lower() not in (b"referer", b"content-type")]
    if referrer:
        kept.append((b"referer", referrer.encode("latin-1", "ignore")))
    return {
        **scope,
        "method": "GET",
        "path": unquote(path),
        "raw_path": path.encode("latin-1", "ignore"),
        "query_string": query.encode("latin-1", "ignore"),
        "headers": kept,
    }


def _window(scope: Any) -> Window:
    query = scope.get("query_string", b"").decode("latin-1")
    return parse_window(dict(parse_qsl(query)), time.time())


def _html(text: str, status: int, nonce: str) -> Response:
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    return Response(text, status, {**_PRIVATE, "content-security-policy": policy}, "text/html")


def _bare(status: int, **headers: str) -> Response:
    """An answer without a body."""
    return Response(b"", status, {**_PRIVATE, **headers}, "text/plain")


def _unauthorized() -> Response:
    return Response(
        b'{"error":"found no valid token, expected Authorization: Bearer <report_token>"}',
        401,
        {**_PRIVATE, "www-authenticate": "Bearer"},
        "application/json",
    )
