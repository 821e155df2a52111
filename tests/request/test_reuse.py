"""One event_id for several events is noticed and counted, without a word about a person."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from capi_middleware import CAPI, CAPIMiddleware, EventRoute, Visitor, current_visitor, track
from tests.support.configs import PIXEL_ID, SECRET, make_config

THANKS = "/orders/{order_id}/thanks"
PAGE = "<!doctype html><html><head><title>x</title></head><body>hi</body></html>"
FBP = "fb.1.1700000000000.{}"
SAME_SITE = {"sec-fetch-site": "same-origin"}


async def page(request: Request) -> Response:
    return HTMLResponse(PAGE)


class Site:
    """An app of one view behind the middleware; `browser(n)` is one of many, by its cookie."""

    def __init__(self, view: Callable[..., Any] = page, **settings: Any) -> None:
        self.capi = CAPI(make_config(page_view=False, **settings))
        paths = [Route("/{path:path}", view, methods=["GET", "POST"])]
        self.app = CAPIMiddleware(Starlette(routes=paths), self.capi)

    def browser(self, n: int) -> TestClient:
        agent = {"user-agent": "Mozilla/5.0", "accept": "text/html"}
        return TestClient(self.app, headers=agent, cookies={"_fbp": FBP.format(n)})

    def reused(self) -> dict[tuple[str, str], int]:
        counts = self.capi.store.tallies(0, 1e12).counts
        return {(one.event_name, one.reason): one.n for one in counts if one.kind == "reused"}

    def left_out(self) -> dict[str, int]:
        counts = self.capi.store.tallies(0, 1e12).counts
        return {one.reason: one.n for one in counts if one.kind == "left_out"}


def purchase(value: Any = "{query.v}", key: Any = "x") -> EventRoute:
    data = {"value": value, "currency": "EUR"}
    return EventRoute(f"GET {THANKS}", "Purchase", dedupe_key=key, custom_data=data)


def told(html: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The events of a page, and the key that shows that it is one."""
    found = re.search(r"data-c>(.*?)</script>", html)
    assert found is not None
    block = json.loads(found[1])
    return block["e"], block["k"]


def beacon(browser: TestClient, event: dict[str, Any], outcome: str = "sent") -> None:
    said = {"e": [[event["i"], event["n"], PIXEL_ID, outcome]]}
    answer = browser.post("/_capi/b", content=json.dumps(said), headers=SAME_SITE)
    assert answer.status_code == 204


def tell(
    browser: TestClient, key: list[str], *calls: tuple[str, str], at: str = "/products/1"
) -> None:
    """The page's own pixel code fired events of these (name, eventID)."""
    said = {
        "u": f"http://testserver{at}",
        "k": key,
        "m": [{"n": name, "i": event_id, "p": [PIXEL_ID]} for name, event_id in calls],
    }
    answer = browser.post("/_capi/t", content=json.dumps(said), headers=SAME_SITE)
    assert answer.status_code == 204


# -- a dedupe_key that is the same for all ---------------------------------------------------------


def test_orders_of_other_values_with_one_key_are_counted() -> None:
    site = Site(routes=[purchase()])
    for n in range(1, 31):
        site.browser(7).get(f"/orders/{n}/thanks?v={n}")
    assert site.reused() == {("Purchase", f"value GET {THANKS}"): 29}


def test_orders_of_one_value_and_one_visitor_with_one_key_are_counted() -> None:
    site = Site(routes=[purchase(value=10)])
    for n in range(1, 31):
        site.browser(7).get(f"/orders/{n}/thanks")
    assert site.reused() == {("Purchase", f"order GET {THANKS}"): 26}


def test_orders_of_one_value_by_many_visitors_with_one_key_are_counted_from_the_second() -> None:
    site = Site(routes=[purchase(value=10)])
    for n in range(1, 4):
        site.browser(n).get(f"/orders/{n}/thanks")
    assert site.reused() == {("Purchase", f"order GET {THANKS}"): 2}


def test_visitors_that_share_a_key_in_track_are_counted() -> None:
    async def view(request: Request) -> Response:
        track("Lead", dedupe_key="newsletter")
        return HTMLResponse(PAGE)

    site = Site(view)
    for n in range(30):
        site.browser(n).get("/signup")
    assert site.reused() == {("Lead", "visitor /signup"): 26}


def test_webhooks_with_one_key_and_other_orders_are_counted() -> None:
    site = Site()
    for n in range(3):
        site.capi.track("Purchase", dedupe_key="x", value=9, currency="EUR", order_id=n + 1)
    assert site.reused() == {("Purchase", "order"): 2}


def test_another_currency_is_another_value() -> None:
    site = Site()
    for currency in ("EUR", "USD"):
        site.capi.track("Purchase", dedupe_key="x", value=9, currency=currency)
    assert site.reused() == {("Purchase", "value"): 1}


def test_one_order_on_its_way_is_no_reuse() -> None:
    visitors: list[str] = []

    async def view(request: Request) -> Response:
        visitors.append(current_visitor().dumps())
        return HTMLResponse(PAGE)

    site = Site(view, routes=[purchase(value=10, key="{path.order_id}")])
    site.browser(1).get("/checkout")
    webhook = Visitor.loads(visitors[0])
    site.capi.track("Purchase", dedupe_key=7, value="10.00", currency="eur", visitor=webhook)
    for n in (1, 1, 2, 1, 3, 2):  # reloads, a phone, a partner's browser
        site.browser(n).get("/orders/7/thanks")
    site.capi.track("Purchase", dedupe_key="7", value=10, currency="EUR", order_id=7)
    assert site.reused() == {}


# -- a dedupe_key that names nothing ---------------------------------------------------------------

NOTHING = ["", "  ", "None", "null", "undefined", 0, 0.0, False, [], float("nan")]


@pytest.mark.parametrize("key", NOTHING, ids=repr)
def test_a_key_that_names_nothing_is_none_and_counted(key: Any) -> None:
    site = Site()
    ids = {site.capi.track("Lead", dedupe_key=key).event_id for _ in range(2)}
    assert len(ids) == 2
    assert site.left_out() == {"dedupe_key": 2}
    assert site.reused() == {("Lead", "empty"): 2}


def test_a_key_of_a_route_that_names_nothing_is_counted_with_the_route() -> None:
    site = Site(routes=[purchase(value=10, key="{query.order}")])
    ids = [told(site.browser(1).get("/orders/7/thanks?order=None").text)[0][0]["i"] for _ in "ab"]
    assert len(set(ids)) == 2
    assert site.reused() == {("Purchase", f"empty GET {THANKS}"): 2}


@pytest.mark.parametrize("key", ["", "None", 0], ids=repr)
def test_in_debug_a_key_that_names_nothing_is_refused(key: Any) -> None:
    with pytest.raises(ValueError, match=r"Lead: found the dedupe_key .*, expected what names one"):
        Site(debug=True).capi.track("Lead", dedupe_key=key)


@pytest.mark.parametrize("key", [1, "0", "A-1", "none-7"], ids=repr)
def test_an_order_number_is_a_key(key: Any) -> None:
    site = Site(debug=True)
    assert len({site.capi.track("Lead", dedupe_key=key).event_id for _ in range(2)}) == 1


def test_the_number_0_of_an_address_is_an_order_number() -> None:
    route = EventRoute("GET /orders/{n:int}", "Lead", dedupe_key="{path.n}")
    site = Site(routes=[route])
    first, second = (told(site.browser(1).get("/orders/0").text)[0] for _ in range(2))
    assert first[0]["i"] == second[0]["i"]
    assert site.left_out() == {}


# -- a page out of a cache -------------------------------------------------------------------------


def view_content() -> EventRoute:
    return EventRoute("GET /products/{sku}", "ViewContent")


def test_visitors_who_share_one_answer_are_replays_of_it() -> None:
    site = Site(routes=[view_content()])
    [event], _ = told(site.browser(0).get("/products/1").text)
    for n in range(6):
        beacon(site.browser(n), event)
    assert site.reused() == {("ViewContent", "replay GET /products/{sku}"): 5}


def test_a_browser_that_says_more_than_once_is_no_replay() -> None:
    site = Site(routes=[view_content()])
    browser = TestClient(site.app, headers={"user-agent": "Mozilla/5.0"})
    [event], _ = told(browser.get("/products/1").text)
    for outcome in ("left_early", "sent", "sent"):
        beacon(browser, event, outcome)
    assert site.reused() == {}


def test_a_second_device_of_one_order_is_no_replay() -> None:
    site = Site(routes=[purchase(value=10, key="{path.order_id}")])
    for n in range(3):
        [event], _ = told(site.browser(n).get("/orders/7/thanks").text)
        beacon(site.browser(n), event)
    assert site.reused() == {}


def test_a_cached_page_of_an_order_is_a_replay() -> None:
    site = Site(routes=[purchase(value=10, key="{path.order_id}")])
    [event], _ = told(site.browser(1).get("/orders/7/thanks").text)
    for n in (1, 2):
        beacon(site.browser(n), event)
    assert site.reused() == {("Purchase", f"replay GET {THANKS}"): 1}


def test_what_a_stored_copy_could_not_send_has_the_cause_replay() -> None:
    site = Site(routes=[view_content()])
    [event], _ = told(site.browser(1).get("/products/1").text)
    beacon(site.browser(2), event, "request_blocked")
    [known] = site.capi.store.find([event["i"]])
    assert known.browser == "replay"
    beacon(site.browser(1), event)
    [known] = site.capi.store.find([event["i"]])
    assert known.browser == "sent"


# -- the site's own ids ----------------------------------------------------------------------------


@pytest.mark.parametrize("mirror", [False, ["Lead"]])
@pytest.mark.parametrize("browsers", [1, 7])
def test_an_id_of_the_site_on_seven_visits_is_counted(mirror: Any, browsers: int) -> None:
    site = Site(routes=[view_content()], mirror=mirror)
    for n in range(7):
        browser = site.browser(n % browsers)
        _, key = told(browser.get("/products/1").text)
        tell(browser, key, ("Lead", "lead-x1"))
    assert site.reused() == {("Lead", "own_id /products/{id}"): 3}


def test_an_id_of_the_site_for_each_order_is_no_reuse() -> None:
    site = Site(routes=[view_content()])
    for n in range(4):
        browser = site.browser(n)
        _, key = told(browser.get("/products/1").text)
        for _ in range(2):
            tell(browser, key, ("Purchase", f"order-{n}"))
    assert site.reused() == {}


def test_one_id_under_two_names_is_counted_with_the_other_name() -> None:
    site = Site(routes=[view_content()])
    browser = site.browser(1)
    _, key = told(browser.get("/products/1").text)
    tell(browser, key, ("Lead", "a-1"))
    tell(browser, key, ("CompleteRegistration", "a-1"))
    assert site.reused() == {("CompleteRegistration", "name Lead"): 1}


def test_our_id_under_another_name_is_counted_with_ours() -> None:
    site = Site(routes=[purchase(value=10, key="{path.order_id}")])
    browser = site.browser(1)
    [event], _ = told(browser.get("/orders/7/thanks").text)
    _, key = told(browser.get("/x").text)
    tell(browser, key, ("purchase", event["i"]), at="/x")
    assert site.reused() == {("purchase", "name Purchase"): 1}


# -- what is kept of it ----------------------------------------------------------------------------


def test_a_visitor_is_kept_as_a_hash_of_each_event_alone() -> None:
    site = Site(routes=[view_content(), EventRoute("GET /products/{sku}", "Lead")])
    site.browser(1).get("/products/1")
    with site.capi.store._engine.transaction("read") as reading:
        kept = [uses for (_, _, _, uses, *_) in reading.read("used", event_ids=_ids(site))]
    assert [len(one) for one in kept] == [16, 16]
    assert len({half for one in kept for half in (one[:8], one[8:])}) == 4


def _ids(site: Site) -> list[str]:
    return [one.event_id for one in site.capi.store.recent(10)]


def test_a_new_first_key_makes_no_two_orders_of_one() -> None:
    new = "another-secret-of-more-than-32-characters"
    site, later = Site(routes=[purchase(10)]), Site(secret_key=[new, SECRET])
    for one in (site, later):
        assert one.capi.issuer.digest(10, "EUR") == site.capi.issuer.digest(10, "EUR")
        assert one.capi.issuer.use("e", ["jane"]) == site.capi.issuer.use("e", ["jane"])


# -- two names for one thing -----------------------------------------------------------------------


def beside(site: Site) -> dict[tuple[str, str], int]:
    counts = site.capi.store.tallies(0, 1e12).counts
    return {(one.event_name, one.reason): one.n for one in counts if one.kind == "beside"}


TOGETHER = {("CompleteRegistration", "Lead"): 1}


def test_two_conversions_of_one_request_are_counted_as_beside_each_other() -> None:
    async def view(request: Request) -> Response:
        track("CompleteRegistration", value=3, currency="EUR")
        return HTMLResponse(PAGE)

    site = Site(view, routes=[EventRoute("GET /welcome", "Lead")])
    site.browser(1).get("/welcome")
    assert beside(site) == TOGETHER


@pytest.mark.parametrize(("path", "together"), [("/welcome", TOGETHER), ("/other", {})])
def test_what_the_page_itself_fires_counts_as_beside_on_the_same_page(
    path: str, together: dict[tuple[str, str], int]
) -> None:
    site = Site(routes=[EventRoute("GET /welcome", "CompleteRegistration")])
    browser = site.browser(1)
    _, key = told(browser.get("/welcome").text)
    tell(browser, key, ("Lead", "a-1"), at=path)
    assert beside(site) == together


def test_other_visitors_other_times_and_views_are_not_beside() -> None:
    site = Site(routes=[EventRoute("GET /a", "Lead"), EventRoute("GET /a", "ViewContent")])
    now = [1_800_000_000.0]
    site.capi.issuer.clock = lambda: now[0]
    _, key = told(site.browser(1).get("/a").text)
    tell(site.browser(2), key, ("CompleteRegistration", "a-1"), at="/a")
    now[0] += 6
    tell(site.browser(1), key, ("CompleteRegistration", "a-2"), at="/a")
    assert beside(site) == {}
