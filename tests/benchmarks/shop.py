"""A page for uvicorn: bare, or with a Purchase (GRAPH_URL says where it goes)."""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from capi_middleware import CAPIMiddleware, EventRoute, Pixel
from tests.support.configs import PIXEL_ID, TOKEN, make_config

_PAGE = "<!doctype html><html><head><title>t</title></head><body>" + "<p>text</p>" * 900


async def _page(request: Request) -> HTMLResponse:
    return HTMLResponse(_PAGE)


app = Starlette(routes=[Route("/thanks", _page), Route("/other", _page)])
if os.environ["GRAPH_URL"] != "bare":
    config = make_config(
        store=os.environ["STORE"],
        graph_url=os.environ["GRAPH_URL"],
        pixels=[Pixel(PIXEL_ID, access_token=TOKEN)],
        routes=[
            EventRoute("GET /thanks", "Purchase", custom_data={"value": "9.5", "currency": "EUR"})
        ],
        page_view=False,
        delivery=True,
    )
    app.add_middleware(CAPIMiddleware, config=config)
