"""One visitor neither takes another's order nor moves the report."""

import json
import time
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from werkzeug.test import Client

from capi_middleware import CAPI, CAPIMiddleware, EventRoute, wsgi
from capi_middleware.store.records import Settlement
from tests.support.configs import PIXEL_ID, make_config

THANKS = "/orders/1001/thanks"
#: What somebody makes up and what is true.
LIE, TRUTH = 1.0, 99.0


async def view(request: Request) -> Response:
    """An order is shown to whoever made it, a thank-you page without a number to everybody."""
    path = request.url.path
    is_others = path.startswith("/orders/") and request.cookies.get("_fbp", "")[-1:] != "7"
    return HTMLResponse("<!doctype html><title>x</title><p>hi", 403 if is_others else 200)


class Site:
    """A shop whose own pixel code fires Purchase with ids of its own; what each visitor does."""

    def __init__(self, **settings: Any) -> None:
        given: dict[str, Any] = {"mirror": ["Purchase"], **settings}
        self.capi = CAPI(make_config(**given))
        self.now = time.time()
        self.capi.issuer.clock = lambda: self.now
        routes = [Route("/{path:path}", view, methods=["GET", "POST"])]
        self.app = CAPIMiddleware(Starlette(routes=routes), self.capi)

    def visitor(self, n: int) -> TestClient:
        """One of many, by cookie and address; 7 is the customer."""
        agent = {"user-agent": "Mozilla/5.0", "accept": "text/html"}
        cookies = {"_fbp": f"fb.1.1700000000000.{n}"}
        return TestClient(
            self.app, headers=agent, cookies=cookies, client=(f"8.8.{n // 250}.{n % 250}", 1)
        )

    def waiting(self) -> list[float | None]:
        """The values of what goes to Meta, which takes them."""
        lease = self.capi.store.lease(PIXEL_ID, limit=99, seconds=60)
        done = [Settlement(one.key, "delivered") for one in lease.events]
        self.capi.store.settle(lease.lease_id, done)
        sent = [json.loads(one.payload) for one in lease.events]
        kept = [one for one in sent if one["event_name"] == "Purchase"]
        return [one["custom_data"].get("value") for one in kept]

    def counted(self, kind: str) -> dict[tuple[str, str], int]:
        counts = self.capi.store.tallies(0, 1e12).counts
        return {(one.event_name, one.reason): one.n for one in counts if one.kind == kind}

    def report(self) -> dict[str, Any]:
        token = {"authorization": "Bearer the-report-token"}
        answer = TestClient(self.app).get("/_capi/parity.json", headers=token)
        found: dict[str, Any] = answer.json()
        return found


def key_of(visitor: TestClient, path: str) -> list[str]:
    text = visitor.get(path).text
    key: list[str] = json.loads(text.split("data-c>")[1].split("</script>")[0])["k"]
    return key


def tell(
    visitor: TestClient,
    key: list[str],
    at: str,
    *calls: dict[str, Any],
    began: str = "",
    **headers: str,
) -> None:
    given = {"u": f"http://testserver{at}", "o": began, "k": key, "m": list(calls)}
    assert visitor.post("/_capi/t", json=given, headers=headers).status_code in (204, 429)


def order(value: float | None = TRUTH, name: str = "Purchase", n: int = 1001) -> dict[str, Any]:
    data = {} if value is None else {"value": value, "currency": "EUR"}
    return {"n": name, "i": f"order-{n}", "p": [PIXEL_ID], "d": data}


def lies(site: Site, call: dict[str, Any] | None = None, at: str = THANKS) -> None:
    """A stranger tells of the order, with the key of a page that he got."""
    stranger = site.visitor(1)
    tell(stranger, key_of(stranger, "/"), at, call or order(LIE))


def buys(site: Site, path: str = THANKS, n: int = 7, value: float = TRUTH) -> None:
    customer = site.visitor(n)
    tell(customer, key_of(customer, path), path, order(value))


# -- an order under an id that can be guessed ------------------------------------------------------


@pytest.mark.parametrize("at", [THANKS, "/"])
def test_a_stranger_who_is_first_does_not_replace_the_copy_of_the_customer(at: str) -> None:
    site = Site()
    lies(site, at=at)
    buys(site)
    assert site.waiting() == [TRUTH]
    assert site.counted("reused") == {("Purchase", "told /orders/{id}/thanks"): 1}


def test_where_the_stranger_s_copy_is_with_meta_the_customer_s_goes_too_and_both_are_kept() -> None:
    site = Site()
    lies(site)
    assert site.waiting() == [LIE]
    buys(site)
    assert site.waiting() == [TRUTH]
    [event] = [one for one in site.report()["events"] if one["event_name"] == "Purchase"]
    assert event["server"] == 2


def test_a_stranger_who_is_second_changes_nothing() -> None:
    site = Site()
    buys(site)
    lies(site)
    assert site.waiting() == [TRUTH]
    assert site.counted("reused") == {("Purchase", "told /orders/{id}/thanks"): 1}


@pytest.mark.parametrize("lie", [order(None), {**order(LIE), "b": True}], ids=["invalid", "bare"])
def test_what_cannot_be_sent_keeps_nobody_s_order_from_going(lie: dict[str, Any]) -> None:
    site = Site()
    lies(site, lie)
    assert site.waiting() == []
    buys(site, "/thanks")
    assert site.waiting() == [TRUTH]


def test_of_two_that_no_page_of_the_order_proves_the_first_goes_and_the_other_is_told() -> None:
    site = Site()
    buys(site, "/thanks", n=2)
    buys(site, "/thanks", n=3, value=5)
    assert site.waiting() == [TRUTH]
    assert site.counted("reused") == {("Purchase", "told /thanks"): 1}


def test_one_order_on_two_devices_and_pages_is_one_event() -> None:
    site = Site()
    for n, path in ((27, "/thanks"), (7, THANKS), (17, THANKS), (7, THANKS)):
        buys(site, path, n)
    assert site.waiting() == [TRUTH]
    assert site.counted("reused") == {}


def test_the_difference_is_flagged_with_page_and_fix() -> None:
    site = Site()
    lies(site)
    buys(site)
    [flag] = [one for one in site.report()["flags"] if one["code"] == "event_id_reused"]
    assert (flag["event_name"], flag["severity"]) == ("Purchase", "warning")
    assert "at /orders/{id}/thanks" in flag["explanation"]
    assert "track()" in flag["fix"]


def outcome(visitor: TestClient, key: list[str], said: str, event_id: str = "order-1001") -> None:
    body = {"e": [[event_id, "Purchase", PIXEL_ID, said]], "k": key}
    assert visitor.post("/_capi/b", json=body).status_code == 204


@pytest.mark.parametrize("first", [True, False])
def test_nobody_speaks_for_another_s_browser_about_an_id_that_can_be_guessed(first: bool) -> None:
    site = Site()
    stranger, customer = site.visitor(1), site.visitor(7)
    if first:
        outcome(stranger, key_of(stranger, "/"), "sent")
    buys(site)
    if not first:
        outcome(stranger, key_of(stranger, "/"), "sent")
    [known] = site.capi.store.find(["order-1001"])
    assert known.browser == "not_run"
    outcome(customer, key_of(customer, THANKS), "script_blocked")
    [known] = site.capi.store.find(["order-1001"])
    assert known.browser == "script_blocked"
    assert site.counted("reused") == {}


# -- the report ------------------------------------------------------------------------------------

LEADS = [EventRoute("GET /leads/{n}", "Lead")]


def shop(**settings: Any) -> Site:
    """A site with ten covered leads of ten visitors."""
    site = Site(routes=LEADS, mirror=False, **settings)
    for n in range(10, 20):
        visitor = site.visitor(n)
        text = visitor.get(f"/leads/{n}").text
        [event] = [
            one
            for one in json.loads(text.split("data-c>")[1].split("</script>")[0])["e"]
            if one["n"] == "Lead"
        ]
        outcome_of = {"e": [[event["i"], "Lead", PIXEL_ID, "sent"]]}
        assert visitor.post("/_capi/b", json=outcome_of).status_code == 204
    site.waiting()
    return site


def numbers(site: Site) -> dict[str, Any]:
    """What the report says of leads, but for what it says to count apart."""
    found: dict[str, Any]
    [found] = [one for one in site.report()["events"] if one["event_name"] == "Lead"]
    return {key: value for key, value in found.items() if key != "unsigned"}


def made_up(key: list[str], n: int, **more: Any) -> dict[str, Any]:
    return {"n": "Lead", "i": f"m{key[1][1:20]}-{n}", "p": [PIXEL_ID], **more}


def claims(site: Site, path: str, at: str, times: int, calls: int = 16, **headers: str) -> None:
    """One visitor tells, and says that all of it left."""
    one = site.visitor(1)
    for _ in range(times):
        key = key_of(one, path)
        some = [made_up(key, n) for n in range(calls)]
        tell(one, key, at, *some, **headers)
        said = [[call["i"], "Lead", PIXEL_ID, "sent"] for call in some]
        one.post("/_capi/b", json={"e": said, "k": key})


def test_what_is_told_of_an_address_that_the_app_never_answered_counts_apart() -> None:
    site = shop()
    before = numbers(site)
    claims(site, "/", "/made/up", times=10)
    assert numbers(site) == before
    assert site.counted("unsigned") == {("Lead", ""): 160}


def test_calls_at_an_address_that_a_script_made_are_those_of_the_page_that_opened() -> None:
    site = shop()
    one = site.visitor(1)
    key = key_of(one, "/")
    tell(one, key, "/step/2", made_up(key, 1), began="/")
    tell(one, key, "/step/3", made_up(key, 2), began="/never/answered")
    assert sum(site.counted("unmapped").values()) == 1
    assert numbers(site)["unmapped_pages"] == {"/": 1}


@pytest.mark.parametrize(
    "headers",
    [{"sec-gpc": "1"}, {"user-agent": "Googlebot/2.1 (+http://www.google.com/bot.html)"}],
)
def test_what_a_refused_visitor_tells_of_made_up_addresses_is_counted_nowhere(
    headers: dict[str, str],
) -> None:
    site = shop()
    before = numbers(site)
    key = key_of(site.visitor(1), "/")
    for _ in range(10):
        tell(site.visitor(1), key, "/made/up", *[made_up(key, n) for n in range(16)], **headers)
    assert numbers(site) == before


def test_of_one_page_and_one_visitor_only_some_calls_are_part_of_coverage() -> None:
    site = shop()
    one = site.visitor(1)
    key = key_of(one, "/")
    for part in range(4):
        tell(one, key, "/", *[made_up(key, n + 16 * part) for n in range(16)])
    assert sum(site.counted("unmapped").values()) == 20
    for _ in range(10):
        key = key_of(one, "/")
        tell(one, key, "/", *[made_up(key, n) for n in range(16)])
    assert sum(site.counted("unmapped").values()) == 100
    key = key_of(site.visitor(2), "/")
    tell(site.visitor(2), key, "/", made_up(key, 1))
    assert sum(site.counted("unmapped").values()) == 101


def test_a_key_shows_no_other_address_than_that_of_its_page() -> None:
    site = shop()
    one = site.visitor(1)
    here, there = key_of(one, "/here"), key_of(one, "/there")
    for page in (here[2], there[2], "", "é", "0" * 16):
        tell(one, [*there[:2], page], "/here", made_up(there, 1))
    assert site.counted("unmapped") == {}
    tell(one, here, "/here", made_up(here, 1))
    assert site.counted("unmapped") == {("Lead", "/here"): 1}


def wsgi_app(environ: Any, start: Any) -> list[bytes]:
    start("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [b"<!doctype html><title>x</title><p>hi"]


@pytest.mark.parametrize("door", ["asgi", "wsgi"])
def test_a_key_shows_the_address_of_its_page_below_a_mount_too(door: str) -> None:
    capi = CAPI(make_config())
    app: Any = CAPIMiddleware(Starlette(routes=[Route("/{path:path}", view)]), capi)
    client: Any = TestClient(Starlette(routes=[Mount("/shop", app)]), base_url="http://a.example")
    place, more = "/shop", dict[str, Any]()
    if door == "wsgi":
        client = Client(wsgi.CAPIMiddleware(wsgi_app, capi))
        place, more = "", {"base_url": "http://a.example/shop"}
    agent = {"User-Agent": "Mozilla/5.0"}
    text = client.get(f"{place}/p/é", headers=agent, **more).text
    key = json.loads(text.split("data-c>")[1].split("</script>")[0])["k"]
    said = {"u": "http://a.example/shop/p/%C3%A9?q=1", "k": key, "m": [made_up(key, 1)]}
    client.post(f"{place}/_capi/t", json=said, headers=agent, **more)
    counts = capi.store.tallies(0, 1e12).counts
    assert [one.reason for one in counts if one.kind == "unmapped"] == ["/shop/p/{id}"]


def test_an_address_that_a_script_made_gets_a_key_that_shows_none() -> None:
    site = shop()
    one = site.visitor(1)
    question = {"u": "http://testserver/pushed", "k": key_of(one, "/")}
    key = one.post("/_capi/t", json=question).json()["k"]
    tell(one, key, "/pushed", made_up(key, 1))
    assert site.counted("unmapped") == {}


def test_one_other_browser_makes_few_replays_of_one_event() -> None:
    site = shop()
    text = site.visitor(1).get("/leads/1").text
    told = json.loads(text.split("data-c>")[1].split("</script>")[0])["e"]
    for _ in range(50):
        said = [[one["i"], one["n"], PIXEL_ID, "sent"] for one in told]
        site.visitor(2).post("/_capi/b", json={"e": said})
    assert sum(site.counted("reused").values()) <= 30 * len(told)
    assert site.counted("beacon")["", "too_often"] == 20 * len(told)


def test_ids_of_other_visitors_under_another_name_are_no_mismatch() -> None:
    site = Site(mirror=["Purchase", "Lead"])
    stranger = site.visitor(1)
    said = [["order-1001", "Lead", PIXEL_ID, "sent"]]
    stranger.post("/_capi/b", json={"e": said, "k": key_of(stranger, "/")})
    buys(site)
    assert site.counted("reused") == {}


def test_one_visitor_does_not_push_the_pages_of_others_out_of_the_report() -> None:
    site = Site(mirror=False)
    word = "".join(chr(97 + n) for n in range(20))
    for n in range(300):
        site.capi.issuer.page_of(f"/made/up/{word[n % 20]}{word[n // 20]}", "8.8.8.8")
    assert site.capi.issuer.page_of("/contact", "8.8.4.4") == "/contact"
    for n in range(1500):
        site.capi.issuer.page_of(f"/more/{word[n % 20]}{word[n // 20 % 20]}{n // 400}", "8.8.8.8")
    assert site.capi.issuer.page_of("/prices", "8.8.4.4") == "/prices"
