"""A page for uvicorn: with a Purchase (GRAPH_URL says where it goes), or as VIEW says.

"bare": nothing of it; "sdk": the view posts the Purchase itself, with facebook-business.
"""

import os

from facebook_business.adobjects.serverside.event_request import EventRequest
from facebook_business.api import FacebookAdsApi
from facebook_business.session import FacebookSession
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from capi_middleware import CAPIMiddleware, EventRoute, Pixel
from tests.benchmarks import purchase
from tests.support.configs import PIXEL_ID, TOKEN, make_config

_PAGE = "<!doctype html><html><head><title>t</title></head><body>" + "<p>text</p>" * 900


async def _page(request: Request) -> HTMLResponse:
    return HTMLResponse(_PAGE)


def _posting(request: Request) -> HTMLResponse:
    EventRequest(pixel_id=PIXEL_ID, events=[purchase.sdk_event()]).execute()
    return HTMLResponse(_PAGE)


_view = os.environ.get("VIEW")
_thanks = Route("/thanks", _posting if _view == "sdk" else _page)
app = Starlette(routes=[_thanks, Route("/other", _page)])
if _view == "sdk":
    FacebookSession.GRAPH = os.environ["GRAPH_URL"]
    FacebookAdsApi.init(access_token=TOKEN)
elif _view != "bare":
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
