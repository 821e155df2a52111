"""What is fetched ahead waits, signed, with its answer, and is an event when it is shown: once."""

import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from capi_middleware import EventRoute, UserData, track
from tests.request.test_events import PAGE, Site
from tests.support.blocks import block_of

ROUTES = [
    EventRoute("GET /p/{sku}", "ViewContent", custom_data={"content_ids": ["{path.sku}"]}),
    EventRoute("GET /thanks", "Purchase", custom_data={"value": "9.5", "currency": "EUR"}),
    EventRoute("GET /server", "Lead", send="server"),
    EventRoute("POST /cart", "AddToCart"),
]
TURBO = {"x-sec-purpose": "prefetch", "accept": "text/html", "sec-fetch-dest": "empty"}
UNPOLY = {"x-up-version": "3.14.3", "sec-fetch-dest": "empty"}
SWUP = {"x-requested-with": "swup", "accept": "text/html, application/xhtml+xml"}
HTMX = {"hx-request": "true", "hx-preloaded": "true", "sec-fetch-dest": "empty"}
INERTIA = {"purpose": "prefetch", "x-inertia": "true", "x-requested-with": "XMLHttpRequest"}
LINK = {"sec-purpose": "prefetch", "sec-fetch-dest": "document"}
QUICKLINK = {"sec-fetch-dest": "empty", "sec-fetch-mode": "no-cors"}


async def page(request: Request) -> Response:
    if request.method == "POST":
        return RedirectResponse("/thanks", 303)
    if "x-inertia" in request.headers:
        return JSONResponse({"component": "Page"})
    status = {"/p/none": 404, "/p/broken": 500}.get(request.url.path, 200)
    return HTMLResponse(PAGE, status)


def site_of(view: Any = page, **settings: Any) -> Site:
    return Site(view, **{"routes": ROUTES, **settings})


def waiting(answer: Any) -> str:
    """The signed events that wait with an answer."""
    header = answer.headers.get("x-capi-events")
    told: str = json.loads(header)["w"] if header else block_of(answer.text)["w"]
    return told


def shown(site: Site, text: str, path: str = "/p/cup", **more: Any) -> list[dict[str, Any]]:
    """What an open page is told when it is shown."""
    given = {"u": f"http://testserver{path}", "r": "http://testserver/", "w": text, **more}
    given.setdefault("k", site.capi.issuer.new_key())
    events: list[dict[str, Any]] = site.client.post("/_capi/t", json=given).json()["e"]
    return events


def names(events: Any) -> list[str]:
    return sorted(one.get("n") or one["event_name"] for one in events)


@pytest.mark.parametrize("headers", [TURBO, UNPOLY, SWUP, HTMX, INERTIA, LINK, QUICKLINK])
def test_what_is_fetched_ahead_is_an_event_once_it_is_shown(headers: dict[str, str]) -> None:
    site = site_of()
    answer = site.client.get("/p/cup", headers=headers)
    assert site.sent() == []
    told = shown(site, waiting(answer))
    assert names(told) == ["PageView", "ViewContent"]
    sent = site.sent()
    assert {one["event_id"] for one in sent} == {one["i"] for one in told}
    (view,) = [one for one in sent if one["event_name"] == "ViewContent"]
    assert view["custom_data"] == {"content_ids": ["cup"]}
    assert view["event_source_url"] == "http://testserver/p/cup"


def test_a_page_that_is_shown_from_the_browsers_cache_knows_the_same_events() -> None:
    site = site_of()
    answer = site.client.get("/p/cup", headers=QUICKLINK)
    assert block_of(answer.text)["w"] == waiting(answer)
    assert block_of(answer.text)["e"] == []


def test_shown_twice_it_is_one_event() -> None:
    site = site_of()
    text = waiting(site.client.get("/p/cup", headers=TURBO))
    for _ in range(3):
        shown(site, text)
    assert names(site.sent()).count("ViewContent") == 1


def test_what_the_view_tracked_is_sent_with_all_its_data_and_the_users() -> None:
    async def view(request: Request) -> Response:
        track("Purchase", value=7, currency="EUR", content_ids=["cup"], dedupe_key="o-1")
        return HTMLResponse(PAGE)

    site = site_of(view, user_data=lambda request: UserData(external_id="77"))
    text = waiting(site.client.get("/any", headers=UNPOLY))
    told = shown(site, text, "/any")
    assert names(told) == ["PageView", "Purchase"]
    (purchase,) = [one for one in site.sent() if one["event_name"] == "Purchase"]
    assert purchase["custom_data"] == {"value": 7, "currency": "EUR", "content_ids": ["cup"]}
    assert "external_id" in purchase["user_data"]
    assert purchase["event_id"].startswith("k")


def test_a_mapped_purchase_that_waits_is_sent_though_a_question_alone_brings_none() -> None:
    site = site_of()
    text = waiting(site.client.get("/thanks", headers=UNPOLY))
    assert names(shown(site, "", "/thanks")) == ["PageView"]
    assert names(shown(site, text, "/thanks")) == ["PageView", "Purchase"]


def test_an_event_of_the_server_alone_waits_too_and_stays_the_servers() -> None:
    site = site_of()
    text = waiting(site.client.get("/server", headers=UNPOLY))
    assert names(shown(site, text, "/server")) == ["PageView"]
    assert names(site.sent()) == ["Lead", "PageView"]


def test_a_part_of_a_page_brings_its_events_and_no_page_view() -> None:
    site = site_of()
    text = waiting(site.client.get("/p/cup", headers=UNPOLY))
    assert names(shown(site, text, "/", f=True)) == ["ViewContent"]
    assert shown(site, "forged", "/p/cup", f=True) == []


def test_what_led_to_the_page_is_fired_at_once_and_what_the_page_is_waits() -> None:
    site = site_of()
    answer = site.client.post("/cart", headers=UNPOLY)
    given = json.loads(answer.headers["x-capi-events"])
    assert names(given["e"]) == ["AddToCart"]
    assert names(site.sent()) == ["AddToCart"]
    assert names(shown(site, given["w"], "/thanks")) == ["PageView", "Purchase"]


@pytest.mark.parametrize("change", ["late", "forged", "another purpose"])
def test_a_text_that_is_not_good_any_more_is_counted_and_the_address_decides(change: str) -> None:
    site = site_of()
    text = waiting(site.client.get("/thanks", headers=UNPOLY))
    issuer = site.capi.issuer
    if change == "late":
        now = issuer.clock()
        issuer.clock = lambda: now + 3601
    elif change == "forged":
        text = text[:-3] + "AAA"
    else:
        text, _ = issuer.carrier.pack([], now=issuer.clock(), scripted=True, owner="")
    assert names(shown(site, text, "/thanks")) == ["PageView"]
    assert site.counts("beacon") == {("", "waiting"): 1}


def test_a_refused_consent_is_refused_when_it_is_shown() -> None:
    site = site_of(consent=lambda request: request.cookies.get("ok") == "1")
    text = waiting(site.client.get("/p/cup", headers=TURBO))
    assert shown(site, text) == []
    assert site.sent() == []
    assert ("ViewContent", "consent") in site.counts("suppressed")


@pytest.mark.parametrize("headers", [TURBO, UNPOLY])
def test_an_error_that_was_fetched_ahead_is_no_event_of_its_route(headers: dict[str, str]) -> None:
    site = site_of()
    text = waiting(site.client.get("/p/none", headers=headers))
    assert names(shown(site, text, "/p/none")) == ["PageView"]
    assert "x-capi-events" not in site.client.get("/p/broken", headers=headers).headers


def test_a_page_that_others_may_have_too_carries_nothing_of_this_one() -> None:
    async def view(request: Request) -> Response:
        return HTMLResponse(PAGE, headers={"cache-control": "public, max-age=60"})

    site = site_of(view)
    answer = site.client.get("/p/cup", headers=TURBO)
    assert "x-capi-events" not in answer.headers
    assert "w" not in block_of(answer.text)
    assert names(shown(site, "")) == ["PageView", "ViewContent"]


def test_a_file_that_is_fetched_ahead_is_counted_as_a_prefetch() -> None:
    async def view(request: Request) -> Response:
        return JSONResponse({})

    site = site_of(view)
    site.client.get("/p/cup", headers=LINK)
    assert site.counts("suppressed") == {("ViewContent", "prefetch"): 1}


@pytest.mark.parametrize(
    "headers",
    [
        {"hx-request": "true", "hx-boosted": "true", "sec-fetch-dest": "empty"},
        {"accept": "text/html, application/xhtml+xml", "sec-fetch-dest": "empty"},
        {"sec-fetch-dest": "document", "sec-fetch-mode": "navigate"},
    ],
)
def test_what_is_asked_for_by_a_click_does_not_wait(headers: dict[str, str]) -> None:
    site = site_of()
    site.client.get("/p/cup", headers=headers)
    assert names(site.sent()) == ["PageView", "ViewContent"]
