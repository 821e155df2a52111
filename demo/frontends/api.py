"""The API of a shop whose pages are another server's: it knows prices, and it takes orders."""

import itertools
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from capi_middleware import CAPI, CAPIMiddleware, Config, EventRoute, Pixel, UserData, track

PRICES = {"kettle": 39.0, "cup": 14.5}
REPORT_TOKEN = "the-demo-report-token"


def config(meta: str, origins: Sequence[str], **more: Any) -> Config:
    """The settings; `meta` is a fake Meta's address, `origins` are those of the pages."""
    return Config(
        pixels=[Pixel("1234567890", access_token="demo-access-token")],
        routes=[
            EventRoute(
                "GET /products/{sku}", "ViewContent", custom_data={"content_ids": ["{path.sku}"]}
            ),
            EventRoute("POST /cart", "AddToCart", custom_data={"content_ids": ["{json.sku}"]}),
        ],
        origins=origins,
        report_token=REPORT_TOKEN,
        graph_url=meta,
        pixel_script_url=f"{meta}/en_US/fbevents.js",
        **more,
    )


def app(capi: CAPI) -> ASGIApp:
    """What `origins` may ask for with cookies."""
    orders = itertools.count(1)

    async def cart(request: Request) -> Response:
        sku = (await request.json())["sku"]
        track("AddToCart", value=PRICES[sku], currency="EUR")
        return JSONResponse({"price": PRICES[sku]})

    async def order(request: Request) -> Response:
        given, number = await request.json(), next(orders)
        track(
            "Purchase",
            dedupe_key=number,
            value=PRICES[given["sku"]],
            currency="EUR",
            content_ids=[given["sku"]],
            user_data=UserData(em=given["email"]),
        )
        return JSONResponse({"order": number})

    shop = CORSMiddleware(
        Starlette(
            routes=[
                Route("/cart", cart, methods=["POST"]),
                Route("/orders", order, methods=["POST"]),
            ]
        ),
        allow_origins=list(capi.config.origins),
        allow_credentials=True,
        allow_methods=["POST"],
        allow_headers=["content-type"],
    )
    return _Proxied(CAPIMiddleware(shop, capi))


class _Proxied:
    """What a proxy before the API says: of a visitor of 127.0.0.1 Meta would take nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # 198.18.0.0/15 is for tests between networks: nobody's, and public like a visitor's.
            scope = {**scope, "client": ("198.18.0.1", 0)}
        await self._app(scope, receive, send)
