"""Elsewhere: pages that this app does not answer ask its endpoints, from origins that are named.

By CORS (Fetch Standard, "CORS protocol"): a page of any other origin gets no header of it.
"""

from collections.abc import Callable, Mapping, MutableMapping
from hashlib import sha256
from typing import Any

from starlette.responses import Response

from capi_middleware.capture.client import headers_of
from capi_middleware.endpoints import PAGES
from capi_middleware.endpoints.public import Endpoints, Open
from capi_middleware.endpoints.reporting import Asked, bare
from capi_middleware.events import Count
from capi_middleware.page.tag import script_version
from capi_middleware.request.issuing import Issuer
from capi_middleware.request.visit import Waits

#: How long a browser takes such a script as it is, in seconds.
_SCRIPT_SECONDS = 600
#: A module knows no element of its own: it puts one in.
_MODULE = b"""const one = document.createElement("script");
one.src = new URL("s.js", import.meta.url).href;
one.dataset.capi = "";
document.head.append(one);
"""
#: How long a browser need not ask again whether it may ask, in seconds.
_PREFLIGHT_SECONDS = 7200


class OpenEndpoints(Endpoints):
    """Endpoints of a site with Config.origins."""

    def __init__(self, issuer: Issuer, open_page: Open, is_delivering: Callable[[], bool]) -> None:
        super().__init__(issuer, open_page, is_delivering)
        self._routes["s.mjs"] = (self._routes["s.js"][0], self._module)
        #: For a page that carries no block, and a hash of it.
        self._text: bytes = issuer.tags.script_elsewhere(issuer.pixels, issuer.consent.cookies)
        self._etag = f'"{sha256(self._text).hexdigest()[:16]}"'

    def refusal(self, name: str, scope: MutableMapping[str, Any]) -> Response | None:
        """See Endpoints: also what another origin asks, which is counted; and preflights."""
        if name not in PAGES:
            return super().refusal(name, scope)
        headers, origins = headers_of(scope), self._issuer.hosts.origins
        if scope["method"] == "OPTIONS" and "origin" in headers:
            if headers["origin"] not in origins:
                self._issuer.count(Count("beacon", "origin"))
                return _readable(bare(403), headers, origins)
            return _readable(_preflight(), headers, origins)
        response = super().refusal(name, scope)
        return response and _readable(response, headers, origins)

    async def answer(
        self, name: str, scope: MutableMapping[str, Any], body: bytes | None, waits: Waits
    ) -> Response:
        """See Endpoints."""
        response = await super().answer(name, scope, body, waits)
        if name not in PAGES:
            return response
        return _readable(response, headers_of(scope), self._issuer.hosts.origins)

    async def _script(self, asked: Asked) -> Response:
        """The script of a page that the app answers has a version in its address."""
        if asked.query.startswith("v="):
            return await super()._script(asked)
        return self._fresh(asked, self._text, self._etag)

    async def _module(self, asked: Asked) -> Response:
        return self._fresh(asked, _MODULE, f'"{script_version()}"')

    def _fresh(self, asked: Asked, text: bytes, etag: str) -> Response:
        """A script that is asked for again now and then: its address never changes."""
        headers = {
            "cache-control": f"public, max-age={_SCRIPT_SECONDS}",
            "etag": etag,
            "x-content-type-options": "nosniff",
            "cross-origin-resource-policy": "cross-origin",
        }
        if asked.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(text, 200, headers, "text/javascript; charset=utf-8")


def _preflight() -> Response:
    """Pages ask with what needs no preflight; a worker of theirs may ask in another way."""
    headers = {
        "access-control-allow-methods": "GET, POST",
        "access-control-allow-headers": "content-type",
        "access-control-max-age": str(_PREFLIGHT_SECONDS),
    }
    return Response(status_code=204, headers=headers)


def _readable(response: Response, headers: Mapping[str, str], origins: frozenset[str]) -> Response:
    """The response with what lets a page of these origins read it."""
    origin = headers.get("origin", "")
    if origin in origins:
        response.headers["access-control-allow-origin"] = origin
        response.headers["access-control-allow-credentials"] = "true"
    response.headers.add_vary_header("Origin")
    return response
