"""A site whose pages carry a hand-written data block, the pixel script, and an ear for beacons."""

import json
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from capi_middleware.page.tag import script

PIXEL = "1234567890"
ID = "kAbC-123.x_y"


def purchase(event_id: str = ID, *pixels: str, **custom_data: Any) -> dict[str, Any]:
    """A Purchase as the data block carries it."""
    data = custom_data or {"value": 12.34, "currency": "EUR"}
    return {"n": "Purchase", "i": event_id, "d": data, "p": list(pixels or (PIXEL,))}


def own_snippet(calls: str, meta_url: str) -> str:
    """A pixel snippet of the page's own, with its own queue and library."""
    return (
        "<script>(() => { const f = window.fbq = window._fbq = (...call) =>"
        " f.callMethod ? f.callMethod(...call) : f.queue.push(call);"
        " Object.assign(f, {push: f, loaded: true, version: '2.0', queue: []}); })();"
        f"{calls}</script>"
        f'<script async src="{meta_url}/en_US/fbevents.js"></script>'
    )


class Site:
    """What its pages say is set by attributes; what it hears is in `beacons`."""

    def __init__(self, meta_url: str) -> None:
        self.url = ""
        #: The data block of every page.
        self.data: dict[str, Any] = {
            "u": "/_capi",
            "s": f"{meta_url}/en_US/fbevents.js",
            "p": [{"id": PIXEL}],
            "e": [purchase()],
        }
        self.csp = ""
        self.head = ""  # before the tag
        self.body = ""
        self.headers: dict[str, str] = {"cache-control": "no-store"}
        self.answer_to_t: dict[str, Any] = {"e": []}
        self.statuses_of_t: list[int] = []
        self.statuses_of_b: list[int] = []
        self.beacons: list[list[str]] = []
        self.requests: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.app = Starlette(
            routes=[
                Route("/_capi/s.js", self._script),
                Route("/_capi/b", self._beacon, methods=["GET", "POST"]),
                Route("/_capi/t", self._ask, methods=["POST"]),
                Route("/favicon.ico", lambda request: Response(status_code=204)),
                Route("/other", self._other),
                Route("/{path:path}", self._page),
            ]
        )

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        """(pixel, outcome) of each word of the browser, in order."""
        return [(pixel, outcome) for _, _, pixel, outcome in self.beacons]

    async def _script(self, request: Request) -> Response:
        return Response(script(), media_type="text/javascript")

    async def _beacon(self, request: Request) -> Response:
        body = await request.body()
        if request.method == "GET":
            body = request.query_params["e"].encode()
        kind = request.headers.get("content-type", "")
        self.requests.append(f"{request.method} {kind}".strip())
        if self.statuses_of_b:
            return Response(status_code=self.statuses_of_b.pop(), headers={"retry-after": "1"})
        self.beacons += json.loads(body)["e"]
        return Response(status_code=204)

    async def _ask(self, request: Request) -> Response:
        self.asked.append(await request.json())
        if self.statuses_of_t:
            return Response(status_code=self.statuses_of_t.pop())
        return JSONResponse(self.answer_to_t)

    async def _other(self, request: Request) -> Response:
        return HTMLResponse("<title>other</title>")

    async def _page(self, request: Request) -> Response:
        block = json.dumps(self.data).replace("<", "\\u003c")
        headers = dict(self.headers)
        if self.csp:
            headers["content-security-policy"] = self.csp
        return HTMLResponse(
            f"<!doctype html><html><head><title>shop</title>{self.head}"
            f'<script type="application/json" data-c>{block}</script>'
            '<script src="/_capi/s.js?v=1" async></script></head>'
            f"<body>{self.body}</body></html>",
            headers=headers,
        )
