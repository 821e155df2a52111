"""Where an event happened that a script's own request caused: at the page that called."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from capi_middleware import CAPIMiddleware, EventRoute, Visitor, current_visitor
from tests.request.test_events import AGENT, PAGE, Site

PAGE_URL = "http://testserver/products/7?utm_source=fb"
FETCH = {"sec-fetch-dest": "empty", "sec-fetch-mode": "cors", "sec-fetch-site": "same-origin"}
ROUTES = [EventRoute("* /api/cart", "AddToCart"), EventRoute("GET /products/{sku}", "ViewContent")]


async def view(request: Request) -> Response:
    if request.url.path == "/api/cart":
        if request.query_params.get("to"):
            return RedirectResponse("/basket", 303)
        return JSONResponse({"ok": True})
    return HTMLResponse(PAGE)


def added(headers: dict[str, str], method: str = "POST", **settings: Any) -> dict[str, Any]:
    """The AddToCart that a request with these headers causes, as Meta gets it."""
    site = Site(view, routes=ROUTES, **settings)
    site.client.request(method, "/api/cart", headers=headers)
    [event] = site.sent()
    return event


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_what_a_fetch_causes_happened_at_the_page_that_called(method: str) -> None:
    event = added({**FETCH, "referer": PAGE_URL}, method)
    assert event["event_source_url"] == PAGE_URL
    assert "referrer_url" not in event


def test_a_page_of_another_subdomain_is_where_it_happened() -> None:
    event = added({**FETCH, "host": "api.shop.example", "referer": "https://www.shop.example/p/1"})
    assert event["event_source_url"] == "https://www.shop.example/p/1"


def test_a_page_of_a_named_host_is_where_it_happened() -> None:
    event = added(
        {**FETCH, "host": "api.shop.example", "referer": "https://shop.test/p/1"},
        hosts=["api.shop.example", "shop.test"],
    )
    assert event["event_source_url"] == "https://shop.test/p/1"


@pytest.mark.parametrize(
    "told",
    [
        "https://evil.example/p/1",
        "https://testserver.evil.example/",
        "https://user:secret@testserver/p",
        "about:blank",
        "http://[::1",
        "/p/1",
        "",
    ],
)
def test_what_is_no_page_of_this_site_is_not_believed(told: str) -> None:
    event = added({**FETCH, "referer": told})
    assert event["event_source_url"] == "http://testserver/api/cart"


def test_a_shared_suffix_is_no_site() -> None:
    event = added({**FETCH, "host": "a.github.io", "referer": "https://b.github.io/p"})
    assert event["event_source_url"] == "http://a.github.io/api/cart"


def test_htmx_tells_the_page_where_its_policy_hides_it() -> None:
    event = added({**FETCH, "hx-request": "true", "hx-current-url": PAGE_URL})
    assert event["event_source_url"] == PAGE_URL


def test_our_script_tells_the_page_where_its_policy_hides_it() -> None:
    event = added({**FETCH, "origin": "http://testserver", "x-capi-page": f"{PAGE_URL}&token=4f9c"})
    assert event["event_source_url"] == PAGE_URL


def test_a_page_of_another_site_is_not_believed_whoever_tells_it() -> None:
    event = added({**FETCH, "x-capi-page": "https://evil.example/p/1"})
    assert event["event_source_url"] == "http://testserver/api/cart"


@pytest.mark.parametrize(
    ("policy", "hides"),
    [
        ("no-referrer", True),
        ("Strict-Origin", True),
        ("same-origin, origin", True),
        ("no-referrer, strict-origin-when-cross-origin", False),
        ("no-referrer, a-word-of-tomorrow", True),
        ("same-origin", False),
        ("", False),
    ],
)
def test_a_tag_says_whether_the_policy_of_its_page_hides_the_address(
    policy: str, hides: bool
) -> None:
    async def page(request: Request) -> Response:
        return HTMLResponse(PAGE, headers={"referrer-policy": policy})

    answer = Site(page).client.get("/").text
    assert ('"r":true' in answer) == hides


def test_the_secrets_of_the_page_stay_at_home() -> None:
    event = added({**FETCH, "referer": "http://testserver/reset?token=4f9c&sku=cup#a@b.example"})
    assert event["event_source_url"] == "http://testserver/reset?sku=cup"


def test_a_click_id_of_the_page_that_called_is_kept() -> None:
    event = added({**FETCH, "referer": "http://testserver/p?fbclid=Click"})
    assert event["user_data"]["fbc"].endswith(".Click")


def test_a_form_happened_at_its_own_address() -> None:
    event = added({"sec-fetch-dest": "document", "sec-fetch-mode": "navigate", "referer": PAGE_URL})
    assert event["event_source_url"] == "http://testserver/api/cart"
    assert event["referrer_url"] == PAGE_URL


def test_a_page_that_a_script_asks_for_happened_at_its_own_address() -> None:
    site = Site(view, routes=ROUTES)
    site.client.get("/products/8", headers={**FETCH, "accept": "text/html", "referer": PAGE_URL})
    assert {event["event_source_url"] for event in site.sent()} == {"http://testserver/products/8"}
    assert {event["referrer_url"] for event in site.sent()} <= {PAGE_URL}


def test_a_redirect_of_a_call_happened_at_the_page_that_called() -> None:
    site = Site(view, routes=ROUTES)
    site.client.post(
        "/api/cart?to=1", headers={**FETCH, "referer": PAGE_URL}, follow_redirects=False
    )
    (event,) = site.sent()
    assert event["event_source_url"] == PAGE_URL


def test_the_report_lists_a_call_under_the_page_that_called() -> None:
    site = Site(view, routes=ROUTES)
    site.client.post("/api/cart", headers={**FETCH, "referer": PAGE_URL})
    assert {one.value for one in site.capi.store.slices("page", 0, 1e12)} == {"/products/{id}"}


def test_what_comes_through_a_websocket_happened_at_the_page_that_opened_it() -> None:
    kept: list[str] = []

    async def page(request: Request) -> Response:
        kept.append(current_visitor().dumps())
        return HTMLResponse(PAGE)

    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        site.capi.track("Lead", visitor=Visitor.loads(await socket.receive_text()))
        await socket.close()

    site = Site(page)
    app = Starlette(routes=[Route("/products/{sku}", page), WebSocketRoute("/talk", talk)])
    client = TestClient(CAPIMiddleware(app, site.capi), headers=AGENT)
    client.get(PAGE_URL)
    with client.websocket_connect("/talk") as socket:
        socket.send_text(kept[0])
        assert socket.receive()["type"] == "websocket.close"
    lead, view = site.sent()  # conversions go first
    assert lead["event_name"] == "Lead"
    assert lead["event_source_url"] == view["event_source_url"] == PAGE_URL
