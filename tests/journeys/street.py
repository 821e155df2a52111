"""One site after another with a banner of consent, behind one server, and all that Meta sees."""

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from capi_middleware import CAPI, CAPIMiddleware, EventRoute, track
from capi_middleware.testing import FakeMeta
from capi_middleware.testing.received import Received
from tests.browsers.drivers import Browser, Failed
from tests.support.configs import PIXEL_ID, make_config
from tests.support.servers import serve

PATIENCE = 60  # seconds, beside others
ROUTES = [EventRoute("GET /p/{sku}", "ViewContent", custom_data={"content_ids": ["{path.sku}"]})]
#: The page's clock, so many milliseconds ahead of the browser's.
CLOCK = "{ const { now } = Date; window.ahead = 0; Date.now = () => now() + window.ahead; }"
PAGE = """<!doctype html><html><head><title>%s</title><script>%s</script>%s</head>
<body><button data-capi-event="Lead">Call me</button> <a id=go href=/p/2>go</a></body></html>"""
#: What makes a browser ask a host before a script does.
_HINT = re.compile(r"preconnect|dns-prefetch|prefetch|preload|modulepreload", re.IGNORECASE)


class Host:
    """Meta's hosts, which note the path of each request."""

    def __init__(self, meta: FakeMeta, asked: list[str]) -> None:
        self._meta, self._asked = meta, asked

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self._asked.append(scope["path"])
        await self._meta.app(scope, receive, send)


class Street:
    """A server and a Meta for all journeys, and the site that they are in.

    While it `holds` our script is on its way. `asked` are the paths of all requests to Meta's
    host; `hints` what answers of the site had for browsers that open connections early.
    """

    def __init__(self, meta: FakeMeta) -> None:
        self.meta, self.url = meta, ""
        self.ahead = 0.0
        self.holds = False
        self.asked: list[str] = []
        self.hints: list[str] = []
        self.capi: CAPI
        self.app: Any

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def look(message: Any) -> None:
            texts = [
                value.decode() for name, value in message.get("headers", ()) if name == b"link"
            ]
            texts += re.findall(r"<link[^>]*>", message.get("body", b"").decode("latin-1"))
            self.hints += [text for text in texts if _HINT.search(text)]
            await send(message)

        if scope["type"] == "http":
            while self.holds and scope["path"].startswith("/_capi/s"):
                await asyncio.sleep(0.02)
            await self.app(scope, receive, look)

    def opens(
        self, head: str, rule: Any, files: Mapping[str, str], cache: str = "no-store"
    ) -> None:
        """A new site; `head` is in each page after its clock, `files` by their paths."""

        async def page(request: Request) -> Response:
            if request.url.path in files:
                script = "text/javascript"
                return Response(files[request.url.path], media_type=script)
            if request.method == "POST":
                track("AddToCart")
                return JSONResponse({})
            text = PAGE % (request.url.path, CLOCK, head)
            return HTMLResponse(text, headers={"cache-control": cache})

        self.meta.received = Received()
        self.ahead, self.holds = 0.0, False
        self.capi = CAPI(make_config(
            routes=ROUTES, consent=rule, mirror=True, delivery=False,
            pixel_script_url=f"{self.meta.url}/en_US/fbevents.js",
        ))  # fmt: skip
        self.capi.issuer.clock = lambda: time.time() + self.ahead
        self.app = CAPIMiddleware(
            Starlette(routes=[Route("/{path:path}", page, methods=["GET", "POST"])]), self.capi
        )
        self.sent: list[dict[str, Any]] = []
        self.asked.clear()
        self.hints.clear()

    def server(self) -> list[dict[str, Any]]:
        """The server copies, as they wait for delivery."""
        lease = self.capi.store.lease(PIXEL_ID, limit=100, seconds=600)
        self.sent += [json.loads(one.payload) for one in lease.events]
        return self.sent

    def copies(self) -> tuple[list[str], list[str]]:
        """The names of (server copies, browser copies)."""
        server = [one["event_name"] for one in self.server()]
        return sorted(server), sorted(str(one.ev) for one in self.meta.received.browser)

    def counted(self, *what: str) -> int:
        """How often something was counted of consent."""
        counts = self.capi.store.tallies(0, 1e12).counts
        return sum(one.n for one in counts if one.kind == "consent" and one.reason.endswith(what))


@contextmanager
def open_street() -> Iterator[Street]:
    street = Street(FakeMeta())
    host = Host(street.meta, street.asked)
    with serve(host) as street.meta.url, serve(street) as street.url:
        yield street


def until(browser: Browser, what: str, holds: Callable[[], Any]) -> None:
    """Wait for something to hold, while the page goes on."""
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            pytest.fail(f"not seen in a minute: {what}")
        browser.pause(0.02)


def until_page(browser: Browser, condition: str) -> None:
    """Wait for the page to have something; a page may be on its way to the next meanwhile."""

    def holds() -> bool:
        try:
            return bool(browser.evaluate(f"!!({condition})"))
        except Failed:
            return False

    until(browser, condition, holds)
