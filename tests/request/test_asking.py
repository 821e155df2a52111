"""A question causes what the app's own answer shows, and never money by an address alone."""

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from capi_middleware import EventRoute, UserData
from capi_middleware.config.settings import Config
from capi_middleware.events import PageKey
from capi_middleware.request.asking import MARK_DAYS
from tests.request.test_events import PAGE, Site
from tests.support.blocks import block_of, question
from tests.support.configs import make_config

CACHED = {"cache-control": "public, max-age=60"}
PRICED: list[dict[str, Any]] = [{"id": "cup", "quantity": 1, "item_price": 9.5}]
MONEY = {"value": "{query.amount}", "currency": "EUR"}


def looked_up(request: Any) -> UserData:
    return UserData(em="customer@example.com")


NEWER, OLDER = "a-newer-key-of-more-than-32-characters", "an-older-key-of-more-than-32-characters"
ROUTES = [
    EventRoute("GET /subscriptions/{id}/welcome", "Subscribe", custom_data=MONEY),
    EventRoute("GET /orders/{id}/thanks", "Lead", dedupe_key="{path.id}"),
    EventRoute("GET /thanks", "Purchase", custom_data=MONEY),
    EventRoute("GET /quote", "Contact", user_data=looked_up),
    EventRoute(
        "GET /products/{id}",
        "ViewContent",
        custom_data={"content_ids": ["{path.id}"], "contents": lambda _: PRICED, **MONEY},
    ),
    EventRoute("GET /gone", "Search", status="404"),
]


async def view(request: Request) -> Response:
    status = {"/subscriptions": 403, "/gone": 404, "/products/none": 404}
    found = [status[one] for one in status if request.url.path.startswith(one)]
    return HTMLResponse(PAGE, found[0] if found else 200, headers=CACHED)


def site_of(**settings: Any) -> Site:
    return Site(view, **{"routes": ROUTES, **settings})


def asks(site: Site, given: dict[str, Any]) -> list[str]:
    return sorted(one["n"] for one in site.client.post("/_capi/t", json=given).json()["e"])


def shown(site: Site, path: str, **more: Any) -> list[str]:
    """What a cached page is told when it is shown."""
    text = site.client.get(path).text
    return asks(site, question(text, f"http://testserver{path}", **more))


def open_key(site: Site) -> PageKey:
    return site.capi.issuer.new_key()


PUSHED = ["/subscriptions/4711/welcome?amount=9999999", "/orders/4711/thanks", "/thanks?amount=1"]


@pytest.mark.parametrize("path", ["/", "/quote", *PUSHED])
def test_a_stranger_s_question_about_an_address_is_no_event(path: str) -> None:
    site = site_of()
    assert asks(site, {"u": f"http://testserver{path}"}) == []
    assert site.sent() == []
    assert site.counts("beacon") == {("", "unproven"): 1}


@pytest.mark.parametrize("path", PUSHED)
def test_an_address_that_a_script_made_causes_no_order(path: str) -> None:
    site = site_of()
    assert asks(site, {"u": f"http://testserver{path}", "k": open_key(site)}) == ["PageView"]
    ((_, reason),) = site.counts("suppressed")
    assert reason == "script_address"


def test_an_address_that_a_script_made_has_events_without_money_or_match_data() -> None:
    site = site_of()
    key = open_key(site)
    asks(site, {"u": "http://testserver/products/cup?amount=99999", "k": key})
    asks(site, {"u": "http://testserver/quote", "k": key})
    sent = {one["event_name"]: one for one in site.sent()}
    assert sent["ViewContent"]["custom_data"] == {
        "content_ids": ["cup"], "contents": [{"id": "cup", "quantity": 1}],
    }  # fmt: skip
    assert "em" not in sent["Contact"]["user_data"]


@pytest.mark.parametrize("path", PUSHED[1:])
def test_a_cached_page_brings_no_order_and_the_report_says_so(path: str) -> None:
    site = site_of()
    assert shown(site, path) == ["PageView"]
    ((name, reason),) = site.counts("suppressed")
    assert reason == "shared_page"
    report = site.client.get(
        "/_capi/parity.json", headers={"authorization": "Bearer the-report-token"}
    )
    (flag,) = [one for one in report.json()["flags"] if one["code"] == "page_unproven"]
    assert flag["event_name"] == name
    assert "private" in flag["fix"]


def test_a_cached_page_of_a_product_is_viewed_without_its_price() -> None:
    site = site_of()
    assert shown(site, "/products/cup?amount=5") == ["PageView", "ViewContent"]
    (view,) = [one for one in site.sent() if one["event_name"] == "ViewContent"]
    assert "value" not in view["custom_data"]


def test_a_page_that_the_app_refused_causes_nothing() -> None:
    site = site_of()
    assert shown(site, "/subscriptions/4711/welcome?amount=1") == []
    assert shown(site, "/products/none") == []
    assert shown(site, "/gone") == ["Search"]


def test_the_mark_of_a_page_is_good_for_its_own_path_alone() -> None:
    site = site_of()
    given = question(site.client.get("/products/cup").text, "http://testserver/thanks?amount=5")
    assert asks(site, given) == ["PageView"]  # as if its script had made that address
    assert site.counts("suppressed") == {("Purchase", "script_address"): 1}


@pytest.mark.parametrize("days", [0, MARK_DAYS, MARK_DAYS + 2])
def test_a_mark_lasts_as_long_as_caches_keep_pages(days: int) -> None:
    site = site_of()
    issuer = site.capi.issuer
    given = question(site.client.get("/products/cup").text, "http://testserver/products/cup")
    now = issuer.clock()
    issuer.clock = lambda: now + days * 86400
    assert bool(asks(site, given)) == (days <= MARK_DAYS)


async def uncached(request: Request) -> Response:
    return HTMLResponse(PAGE)


@pytest.mark.parametrize("days", [0, MARK_DAYS - 1, MARK_DAYS + 2])
def test_so_does_the_key_of_a_page_that_a_worker_keeps_and_it_brings_no_money(days: int) -> None:
    site = Site(uncached, routes=ROUTES)
    issuer = site.capi.issuer
    block = block_of(site.client.get("/products/cup?amount=5").text)
    now = issuer.clock()
    issuer.clock = lambda: now + days * 86400
    given = {"u": "http://testserver/products/cup?amount=5", "k": block["k"]}
    told = site.client.post("/_capi/t", json=given).json()["e"]
    kept = ["PageView", "ViewContent"] if days <= MARK_DAYS else []
    assert sorted(one["n"] for one in told) == kept
    assert not [one for one in told if "value" in one["d"]]


@pytest.mark.parametrize("part", [0, 1, 2, 3])
def test_a_changed_mark_is_none(part: int) -> None:
    site = site_of()
    given = question(site.client.get("/products/cup").text, "http://testserver/products/cup")
    parts = given["y"].split("\n")
    parts[part] = parts[part][:-1] + ("1" if parts[part][-1] != "1" else "2")
    for text in ("\n".join(parts), given["y"][:43], "é", "\n" * 9, given["y"] + "\nPurchase"):
        assert asks(site, {**given, "y": text}) == []


def test_processes_change_their_secret_without_losing_cached_pages() -> None:
    old: Config = make_config(secret_key=OLDER, routes=ROUTES)
    site = site_of(secret_key=[NEWER, OLDER])
    before = Site(view, routes=ROUTES, secret_key=old.secret_key)
    given = question(before.client.get("/products/cup").text, "http://testserver/products/cup")
    assert asks(site, given) == ["PageView", "ViewContent"]


def test_a_visitor_who_refused_is_told_so_also_where_nothing_proves_the_page() -> None:
    site = site_of(consent=lambda request: False)
    answer = site.client.post("/_capi/t", json={"u": "http://testserver/"})
    assert answer.json() == {"e": [], "x": "denied"}


def test_what_waits_takes_nothing_from_the_route_of_another_address() -> None:
    async def private(request: Request) -> Response:
        return HTMLResponse(PAGE)

    routes = [
        EventRoute("GET /cheap", "Lead", custom_data={"value": 1, "currency": "EUR"}),
        EventRoute("GET /dear", "Lead", custom_data={"value": 999, "currency": "EUR"},
                   user_data=looked_up),
    ]  # fmt: skip
    site = Site(private, routes=routes)
    text = site.client.get("/cheap", headers={"sec-purpose": "prefetch"}).text
    given = question(text, "http://testserver/dear")
    assert asks(site, given) == ["Lead", "PageView"]
    (lead,) = [one for one in site.sent() if one["event_name"] == "Lead"]
    assert lead["custom_data"]["value"] == 1
    assert "em" not in lead["user_data"]


def test_a_made_up_address_brings_no_hashed_data_of_a_person_back() -> None:
    site = site_of(user_data=looked_up, advanced_matching=True)
    given = {"u": "http://testserver/quote", "k": open_key(site)}
    assert "p" not in site.client.post("/_capi/t", json=given).json()


def test_a_page_with_event_ids_has_no_mark() -> None:
    async def private(request: Request) -> Response:
        return HTMLResponse(PAGE)

    assert "y" not in block_of(Site(private).client.get("/").text)
