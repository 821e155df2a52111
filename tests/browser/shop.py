"""A wrapped app on a real port, with a fake Meta behind it, and the ledger of both copies."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from capi_middleware import CAPI, CAPIMiddleware, EventRoute
from capi_middleware.testing import FakeMeta
from tests.support.configs import make_config
from tests.support.servers import serve

MONEY = {"value": "9.5", "currency": "EUR"}
ROUTES = [
    EventRoute("POST /cart", "AddToCart", custom_data=MONEY),
    EventRoute("POST /checkout", "Purchase", custom_data=MONEY, dedupe_key="{query.order}"),
    EventRoute("* /api/lead", "Lead"),
    EventRoute("GET /products/{sku}", "ViewContent"),
    EventRoute("GET /fragment", "Search"),
]


@dataclass
class Shop:
    """A wrapped app, the fake Meta behind it, and what its pages hold."""

    capi: CAPI
    meta: FakeMeta
    meta_url: str = ""
    url: str = ""
    head: str = ""
    body: str = ""
    #: The source of /sw.js.
    worker: str = ""
    #: The path of each page that was asked for, and its Sec-Purpose.
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    #: What the view of a page does, by its path.
    does: Callable[[str], object] = lambda path: None
    cache: dict[str, str] = field(default_factory=lambda: {"cache-control": "no-store"})
    #: The bodies of single pages, in place of `body`.
    bodies: dict[str, str] = field(default_factory=dict)
    #: What answers for a page, in place of page().
    answer: Callable[[Request], Awaitable[Response]] | None = None

    async def page(self, request: Request) -> Response:
        self.asked.append((request.url.path, request.headers.get("sec-purpose")))
        self.does(request.url.path)
        return HTMLResponse(
            f"<!doctype html><html><head><title>{request.url.path}</title>{self.head}</head>"
            f"<body>{self.bodies.get(request.url.path, self.body)}</body></html>",
            headers=self.cache,
        )

    def pairs(self, name: str) -> list[tuple[int, int]]:
        """(server copies, browser copies) of each event of a name that Meta got."""
        self.capi.flush(10)
        found = [one for one in self.meta.received.pairs() if one["event_name"] == name]
        return [(one["server"], one["browser"]) for one in found]

    def browser(self, name: str) -> list[str]:
        """What the ledger says of the browser copies of a name."""
        rows = self.capi.store.tallies(0, 1e12).rows
        return sorted(row.browser for row in rows if row.event_name == name for _ in range(row.n))


@contextmanager
def open_shop(**more: Any) -> Iterator[Shop]:
    """A running shop; `more` are settings of its Config."""
    meta = FakeMeta()
    with meta.serve() as meta_url:
        settings = {
            "routes": ROUTES,
            "graph_url": meta_url,
            "pixel_script_url": f"{meta_url}/en_US/fbevents.js",
            "delivery": True,
            **more,
        }
        capi = CAPI(make_config(**settings))
        shop = Shop(capi, meta, meta_url)

        async def cart(request: Request) -> Response:
            return RedirectResponse("/hop", 303)

        async def hop(request: Request) -> Response:
            return RedirectResponse("/basket", 302)

        async def checkout(request: Request) -> Response:
            return RedirectResponse("/thanks", 303)

        async def lead(request: Request) -> Response:
            return JSONResponse({"ok": True})

        async def fragment(request: Request) -> Response:
            return HTMLResponse("<p id=part>part</p>")

        async def page(request: Request) -> Response:
            return await (shop.answer or shop.page)(request)

        async def worker(request: Request) -> Response:
            return Response(shop.worker, media_type="text/javascript")

        app = Starlette(
            routes=[
                Route("/sw.js", worker),
                Route("/cart", cart, methods=["POST"]),
                Route("/hop", hop),
                Route("/checkout", checkout, methods=["POST"]),
                Route("/api/lead", lead, methods=["GET", "POST"]),
                Route("/fragment", fragment),
                Route("/favicon.ico", lambda request: Response(status_code=204)),
                Route("/{path:path}", page),
            ]
        )
        with serve(CAPIMiddleware(app, capi)) as shop.url:
            yield shop
        capi.close()
