"""Requests that nobody mapped: they pass as they are until something about them matters."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from capi_middleware import CAPI, Config, EventRoute, asgi, current_visitor, track, wsgi
from tests.support.configs import PIXEL_ID, make_config
from tests.support.exchanges import environ_for, nothing, scope_for

JSON = [(b"content-type", b"application/json")]
HTML = [(b"content-type", b"text/html")]
PAGE = b"<!doctype html><html><head><title>x</title></head><body>hi</body></html>"
REQUEST = {
    "method": "GET",
    "path": "/other",
    "scheme": "https",
    "headers": [["host", "shop.example"], ["user-agent", "Mozilla/5.0"]],
}
App = Callable[[Any, Any, Any], Any]


@pytest.fixture
def capi() -> Iterator[CAPI]:
    capi = CAPI(make_config(routes=[EventRoute("GET /cart", "AddToCart")], page_view=False))
    yield capi
    capi.close()


def names(capi: CAPI) -> list[str]:
    """The events in the outbox."""
    lease = capi.store.lease(PIXEL_ID, limit=100, seconds=60)
    return [json.loads(event.payload)["event_name"] for event in lease.events]


def through(capi: CAPI, app: App, **more: Any) -> list[dict[str, Any]]:
    """The messages that the server gets, the very objects."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(asgi.CAPIMiddleware(app, capi)(scope_for(REQUEST, **more), nothing, send))
    return sent


def answering(*messages: dict[str, Any]) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


def test_messages_of_no_page_are_the_apps_own_and_nothing_is_opened(
    capi: CAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capi, "open", lambda scope: pytest.fail("opened"))
    start = {"type": "http.response.start", "status": 200, "headers": JSON}
    body = {"type": "http.response.body", "body": b"{}"}
    sent = through(capi, answering(start, body))
    assert [one is other for one, other in zip(sent, (start, body), strict=True)] == [True, True]


def test_a_page_that_no_route_takes_still_gets_the_tag(capi: CAPI) -> None:
    start = {"type": "http.response.start", "status": 200, "headers": HTML}
    sent = through(capi, answering(start, {"type": "http.response.body", "body": PAGE}))
    assert b"/_capi/s.js" in sent[-1]["body"]


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_track_works_at_any_moment_of_a_request_that_no_route_takes(
    capi: CAPI, moment: str
) -> None:
    kept: dict[str, list[str]] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if moment == "before":
            track("Lead")
        await send({"type": "http.response.start", "status": 200, "headers": JSON})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        if moment == "between":
            track("Lead")
        await send({"type": "http.response.body", "body": b"}"})
        if moment == "after":
            track("Lead")
        kept["at the end"] = names(capi)

    sent = through(capi, app)
    assert kept["at the end"] == ["Lead"]
    assert b"".join(one.get("body", b"") for one in sent) == b"{}"


def test_the_visitor_of_a_request_that_no_route_takes_is_known(capi: CAPI) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current_visitor())
        await answering(
            {"type": "http.response.start", "status": 200, "headers": JSON},
            {"type": "http.response.body", "body": b"{}"},
        )(scope, receive, send)

    through(capi, app)
    assert seen[0].client_user_agent == "Mozilla/5.0"
    assert names(capi) == []


@pytest.mark.parametrize(
    "more",
    [
        {"method": "HEAD"},
        {"path": "/cart"},
        {"root_path": "/shop", "path": "/shop/cart"},
        {"query_string": b"a=b&fbclid=IwAR0"},
        {"headers": [(b"cookie", b"a=b; capi_next=x")]},
    ],
)
def test_what_may_matter_is_opened_at_once(capi: CAPI, more: dict[str, Any]) -> None:
    assert capi.take(scope_for(REQUEST)) == (None, None)
    endpoint, exchange = capi.take(scope_for(REQUEST, **more))
    assert endpoint is None
    assert exchange is not None


def test_an_endpoint_is_taken_by_its_name_and_a_path_beside_it_passes(capi: CAPI) -> None:
    assert capi.take(scope_for(REQUEST, path="/_capi/b")) == ("b", None)
    assert capi.take(scope_for(REQUEST, path="/_capi")) == (None, None)
    assert capi.take(scope_for(REQUEST, path="/_capix/b")) == (None, None)


# -- WSGI -----------------------------------------------------------------------------------------


class _Server:
    """Collects what a WSGI server would get."""

    def __init__(self) -> None:
        self.started: list[tuple[Any, ...]] = []

    def start_response(self, *given: Any) -> Callable[[bytes], object]:
        self.started.append(given)
        return lambda data: None


def test_wsgi_hands_the_apps_own_iterable_through_and_opens_nothing(
    capi: CAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capi, "open", lambda scope: pytest.fail("opened"))
    body, headers, server = [b"{}"], [("Content-Type", "application/json")], _Server()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", headers)
        return body

    result = wsgi.CAPIMiddleware(app, capi)(environ_for(REQUEST), server.start_response)
    assert result is body
    assert server.started == [("200 OK", headers)]
    assert server.started[0][1] is headers


@pytest.mark.parametrize("moment", ["before", "after"])
def test_wsgi_tracks_before_and_after_the_response_starts(capi: CAPI, moment: str) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        if moment == "before":
            track("Lead")
        start_response("200 OK", [("Content-Type", "application/json")])
        if moment == "after":
            track("Lead")
        return [b"{}"]

    result = wsgi.CAPIMiddleware(app, capi)(environ_for(REQUEST), _Server().start_response)
    assert b"".join(result) == b"{}"
    assert names(capi) == ["Lead"]


def test_a_wsgi_generator_that_starts_late_is_opened_for_its_page_and_its_events(
    capi: CAPI,
) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        track("Lead")
        start_response("200 OK", [("Content-Type", "text/html")])
        yield PAGE

    result = wsgi.CAPIMiddleware(app, capi)(environ_for(REQUEST), _Server().start_response)
    body = b"".join(result)
    assert b"/_capi/s.js" in body
    assert b'"n":"Lead"' in body
    assert names(capi) == ["Lead"]


def mounted(kind: str, config: Config) -> Callable[[str], str]:
    """Pages of an app that is mounted at /shop by a router inside of the middleware."""
    if kind == "wsgi":

        def page(environ: Any, start_response: Any) -> list[bytes]:
            start_response("200 OK", [("Content-Type", "text/html")])
            return [PAGE]

        wrapped = wsgi.CAPIMiddleware(DispatcherMiddleware(page, {"/shop": page}), config)
        client = Client(wrapped)
        return lambda path: client.get(path, headers={"User-Agent": "Mozilla/5.0"}).text

    async def view(request: Request) -> HTMLResponse:
        return HTMLResponse(PAGE)

    inner = Starlette(routes=[Route("/{path:path}", view)])
    asked = TestClient(asgi.CAPIMiddleware(Starlette(routes=[Mount("/shop", inner)]), config))
    return lambda path: asked.get(path, headers={"User-Agent": "Mozilla/5.0"}).text


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_page_of_a_mounted_app_is_the_page_that_the_browser_asked_for(kind: str) -> None:
    config = make_config(routes=[EventRoute("GET /thanks", "Lead")])
    page = mounted(kind, config)("/shop/thanks")
    assert 'src="/_capi/s.js' in page
    assert '"n":"PageView"' in page
    assert '"n":"Lead"' not in page
