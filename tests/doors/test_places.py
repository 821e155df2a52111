"""Where a framework takes a middleware: its endpoints answer there, or it refuses at start-up."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from fastapi import FastAPI
from flask import Flask
from litestar import Litestar, MediaType, Router, get
from litestar.middleware import DefineMiddleware
from quart import Quart
from starlette import routing
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import HTMLResponse
from starlette.testclient import TestClient

from capi_middleware import CAPI, CAPIMiddleware, ConfigError, wsgi
from tests.doors.test_starts import PAGE, REQUEST
from tests.support.configs import make_config
from tests.support.exchanges import TAG_START

capi = CAPI(make_config())
OURS = Middleware(CAPIMiddleware, capi)


def view(request: Any) -> Any:
    return HTMLResponse(PAGE)


class View(HTTPEndpoint):
    def get(self, request: Any) -> Any:
        return HTMLResponse(PAGE)


@get("/", media_type=MediaType.HTML)
async def handler() -> bytes:
    return PAGE


class _Inner:
    """A middleware of the host's."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, *given: Any) -> None:
        await self.app(*given)


Inner: Any = _Inner


def ours(app: Any) -> Any:
    return CAPIMiddleware(app, capi)


def fastapi_below() -> Any:
    below, app = FastAPI(), FastAPI()
    below.add_middleware(CAPIMiddleware, config=capi)
    below.add_api_route("/", lambda: HTMLResponse(PAGE))
    app.mount("/below", below)
    return app


def quart() -> Any:
    app = Quart(__name__)

    @app.get("/")
    async def page() -> bytes:
        return PAGE

    app.asgi_app = ours(app.asgi_app)  # type: ignore[method-assign]
    return app


ROUTES = [routing.Route("/", view)]
LITESTAR: Any = Litestar([handler])
#: The mount, and the app.
GOOD: dict[str, tuple[str, Callable[[], Any]]] = {
    "around Starlette": ("", lambda: ours(Starlette(routes=ROUTES))),
    "middleware of Starlette": ("", lambda: Starlette(routes=ROUTES, middleware=[OURS])),
    "middleware of a Router": ("", lambda: routing.Router(ROUTES, middleware=[OURS])),
    "middleware of a Mount": (
        "/below",
        lambda: Starlette(routes=[routing.Mount("/below", routes=ROUTES, middleware=[OURS])]),
    ),
    "around a mounted app": (
        "/below",
        lambda: Starlette(routes=[routing.Mount("/below", ours(Starlette(routes=ROUTES)))]),
    ),
    "mounted FastAPI": ("/below", fastapi_below),
    "around Litestar": ("", lambda: ours(Litestar([handler]))),
    "around what is around Litestar": (
        "",
        lambda: ours(Inner(GZipMiddleware(LITESTAR))),
    ),
    "around Litestar with middleware": ("", lambda: ours(Litestar([handler], middleware=[Inner]))),
    "Quart": ("", quart),
}
BAD: dict[str, Callable[[], Any]] = {
    "Litestar": lambda: Litestar([handler], middleware=[ours]),
    "Litestar, defined": lambda: Litestar([handler], middleware=[DefineMiddleware(ours)]),
    "Litestar, others inside": lambda: Litestar([handler], middleware=[ours, Inner]),
    "Litestar, others outside": lambda: Litestar([handler], middleware=[Inner, ours]),
    "Litestar's Router": lambda: Litestar(
        [Router("/", route_handlers=[handler], middleware=[ours])]
    ),
    "Litestar's handler": lambda: Litestar([get("/x", middleware=[ours])(handler.fn)]),
    "Starlette's Route": lambda: routing.Route("/", view, middleware=[OURS]),
    "Starlette's Route, others inside": lambda: routing.Route(
        "/", view, middleware=[OURS, Middleware(Inner)]
    ),
    "Starlette's Route of a class": lambda: routing.Route("/", View, middleware=[OURS]),
}


def asked(app: Any, path: str) -> Any:
    return TestClient(app).get(path, headers=dict(REQUEST["headers"]))


@pytest.mark.parametrize("place", GOOD)
def test_pages_have_their_tag_and_the_script_that_it_names_is_served(place: str) -> None:
    mount, make = GOOD[place]
    app = make()
    page = asked(app, f"{mount}/")
    assert TAG_START in page.content
    assert f'src="{mount}/_capi/s.js' in page.text
    script = asked(app, f"{mount}/_capi/s.js")
    assert (script.status_code, "fbq" in script.text) == (200, True)


@pytest.mark.parametrize("place", BAD)
def test_a_place_that_no_endpoint_can_be_reached_from_is_refused_at_start_up(place: str) -> None:
    with pytest.raises(ConfigError, match="expected the whole app"):
        BAD[place]()


@pytest.mark.parametrize(
    ("door", "app", "names"),
    [
        (CAPIMiddleware, Flask(__name__), "capi_middleware.flask.init_app"),
        (CAPIMiddleware, Flask(__name__).wsgi_app, "capi_middleware.wsgi.CAPIMiddleware"),
        (CAPIMiddleware, partial(WSGIHandler.__call__, None), "capi_middleware.django"),
        (wsgi.CAPIMiddleware, Starlette(), "capi_middleware.CAPIMiddleware"),
        (wsgi.CAPIMiddleware, Quart(__name__), "capi_middleware.CAPIMiddleware"),
    ],
    ids=["flask", "wsgi_app", "django", "starlette", "quart"],
)
def test_an_app_of_the_other_kind_is_refused_with_the_door_that_it_needs(
    door: Any, app: Any, names: str
) -> None:
    with pytest.raises(ConfigError, match=names):
        door(app, capi)


def test_a_route_that_cannot_be_known_before_is_told_with_its_first_page(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker = CAPI(make_config())
    app = Starlette(routes=[routing.Route("/", CAPIMiddleware(HTMLResponse(PAGE), tracker))])
    with caplog.at_level(logging.WARNING):
        assert TAG_START in asked(app, "/").content
        asked(app, "/")
    assert ["one route" in one.getMessage() for one in caplog.records] == [True]
