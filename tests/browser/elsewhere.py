"""A front end on an origin of its own, the API beside it, and a fake Meta."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from capi_middleware import CAPI, CAPIMiddleware, EventRoute
from capi_middleware.testing import FakeMeta
from capi_middleware.testing.received import BrowserHit
from tests.browser.shop import MONEY, Shop
from tests.support.configs import REPORT_TOKEN, make_config
from tests.support.servers import serve

#: The hosts of page and API; browsers find all below localhost on this machine.
ONE_SITE = ("www.shop.localhost", "api.shop.localhost")
TWO_SITES = ("localhost", "127.0.0.1")
CLASSIC = '<script src="{api}/_capi/s.js" data-capi async></script>'
MODULE = '<script type=module>import "{api}/_capi/s.mjs"</script>'
BODY = """<button id=lead data-capi-event=Lead>lead</button>
<button id=cart onclick="fetch('{api}/cart', {method: 'POST', credentials: 'include'})">1</button>
<button id=json onclick="fetch('{api}/cart', {method: 'POST', credentials: 'include',
    headers: {'content-type': 'application/json'}, body: '{}'})">cart</button>
<button id=xhr onclick="const one = new XMLHttpRequest(); one.open('POST', '{api}/cart');
    one.withCredentials = true; one.send()">cart</button>
<form method=post action="{api}/order"><button id=order>buy</button></form>
<button id=next onclick="history.pushState({}, '', '/products/8?utm_source=x')">next</button>"""


@dataclass
class Front(Shop):
    """A Shop whose `url` is that of pages which the wrapped app does not answer."""

    api: str = ""
    tag: str = CLASSIC

    async def show(self, request: Request) -> Response:
        if request.url.path == "/favicon.ico":
            return Response(status_code=204)
        if request.url.path == "/sw.js":
            return Response(self.worker, media_type="text/javascript")
        html = (
            "<!doctype html><html><head><title>shop</title>{head}</head><body>{body}</body></html>"
        )
        page = html.replace("{head}", self.tag).replace("{body}", self.body or BODY)
        return HTMLResponse(page.replace("{api}", self.api), headers=self.cache)

    def report(self) -> dict[str, Any]:
        """What parity.json says, by event_name."""
        self.capi.flush(10)
        answer = httpx.get(
            f"http://127.0.0.1:{self.api.rpartition(':')[2]}/_capi/parity.json",
            headers={"authorization": f"Bearer {REPORT_TOKEN}"},
        )
        return {one["event_name"]: one for one in answer.json()["events"]}

    def told(self, name: str) -> list[dict[str, Any]]:
        """The server copies of a name that Meta got."""
        self.capi.flush(10)
        events = [one.event for one in self.meta.received.server]
        return [one for one in events if one["event_name"] == name]

    def seen(self, name: str) -> list[BrowserHit]:
        """The browser copies of a name that Meta got."""
        return [one for one in self.meta.received.browser if one.ev == name]


@contextmanager
def open_front(hosts: tuple[str, str], **more: Any) -> Iterator[Front]:
    """A running front end; `more` are settings of the API's Config."""
    meta, front = FakeMeta(), Front(None, None)  # type: ignore[arg-type]
    pages = Starlette(routes=[Route("/{path:path}", front.show)])
    with meta.serve() as meta_url, serve(pages) as url:
        front.url = url.replace("127.0.0.1", hosts[0])
        settings = {
            "routes": [
                EventRoute(f"GET {front.url}/products/{{sku}}", "ViewContent",
                           custom_data={"content_ids": ["{path.sku}"]}),
                # Of a stranger on 127.0.0.1 there would be nothing that Meta takes.
                EventRoute("POST /cart", "AddToCart", custom_data=MONEY,
                           user_data={"external_id": "7"}),
                EventRoute("POST /order", "Purchase", custom_data=MONEY,
                           user_data={"external_id": "7"}, dedupe_key="1"),
            ],
            "origins": [front.url],
            "graph_url": meta_url,
            "pixel_script_url": f"{meta_url}/en_US/fbevents.js",
            "delivery": True,
            **more,
        }  # fmt: skip
        front.meta, front.meta_url, front.capi = meta, meta_url, CAPI(make_config(**settings))

        async def cart(request: Request) -> Response:
            return JSONResponse({})

        async def own(request: Request) -> Response:
            return HTMLResponse("<!doctype html><html><head><title>own</title></head></html>")

        async def order(request: Request) -> Response:
            return RedirectResponse(f"{front.url}/thanks", 303)

        app = CORSMiddleware(
            Starlette(
                routes=[
                    Route("/cart", cart, methods=["POST"]),
                    Route("/order", order, methods=["POST"]),
                    Route("/own", own),
                ]
            ),
            allow_origins=[front.url], allow_credentials=True, allow_methods=["POST"],
            allow_headers=["content-type", "x-capi-page"],
        )  # fmt: skip
        with serve(CAPIMiddleware(app, front.capi)) as api:
            front.api = api.replace("127.0.0.1", hosts[1])
            yield front
        front.capi.close()
