"""One order is one event: after Meta's window no copy of it leaves, whatever happens."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from capi_middleware import CAPI, EventRoute, track, wsgi
from capi_middleware.store.records import Settlement
from capi_middleware.store.store import Store
from tests.request.test_events import PAGE, Site
from tests.support.configs import PIXEL_ID, SECRET, make_config

HOUR = 3600.0
OTHER = "another-secret-for-tests-of-more-than-32-characters"
ROUTES = [
    EventRoute("GET /orders/{order}/thanks", "Purchase", dedupe_key="{path.order}",
               custom_data={"value": "9.5", "currency": "EUR"}),
]  # fmt: skip
THANKS = "/orders/7/thanks"


async def page(request: Request) -> Response:
    return HTMLResponse(PAGE)


def shop(view: Callable[..., Any] = page, **settings: Any) -> Site:
    return Site(view, **{"routes": ROUTES, "page_view": False, **settings})


def later(capi: CAPI, hours: float) -> None:
    """So much later."""
    before = capi.issuer.clock
    capi.issuer.clock = lambda: before() + hours * HOUR


def told(text: str) -> list[str]:
    """The events of a page."""
    block: dict[str, Any] = json.loads(text.split("data-c>")[1].split("</script>")[0])
    return [one["n"] for one in block["e"]]


def repeated(site: Site) -> int:
    return site.counts("suppressed").get(("Purchase", "repeated"), 0)


def test_a_second_device_has_its_copy_within_the_window_and_none_after_it() -> None:
    site = shop()
    pages = []
    for hours in (0.0, 46.9, 0.2, 24.0 * 33):
        later(site.capi, hours)
        pages.append(told(site.client.get(THANKS).text))
    assert pages == [["Purchase"], ["Purchase"], [], []]
    assert repeated(site) == 2
    assert len(site.sent()) == 1


def test_an_order_whose_row_was_pruned_stays_silent() -> None:
    site = shop(page_view=True)
    site.client.get(THANKS)
    later(site.capi, 24.0 * 36)
    store = site.capi.store
    lease = store.lease(PIXEL_ID, limit=100, seconds=60)
    store.settle(lease.lease_id, [Settlement(one.key, "delivered") for one in lease.events])
    assert store.prune(1e12) == 2
    assert told(site.client.get(THANKS).text) == ["PageView"]


def test_an_order_is_forgotten_when_it_is_asked_for() -> None:
    site = shop()
    site.client.get(THANKS)
    later(site.capi, 24.0 * 800)
    site.capi.store.forget_orders(time.time() - 10.0)
    assert told(site.client.get(THANKS).text) == []
    site.capi.store.forget_orders(time.time() + 10.0)
    assert told(site.client.get(THANKS).text) == ["Purchase"]


def test_orders_are_remembered_for_25_months_or_as_long_as_the_site_says() -> None:
    kept = []
    for settings in ({}, {"remember_orders_days": 90}):
        capi = CAPI(make_config(**settings))
        before: list[float] = []
        capi.store.forget_orders = before.append  # type: ignore[method-assign,assignment]
        capi._prune()
        kept.append(round((time.time() - before[0]) / 86_400))
    assert kept == [761, 90]


def test_what_waited_until_it_was_shown_is_silent_for_an_order_that_is_over() -> None:
    site = shop()
    hover = {"x-sec-purpose": "prefetch", "accept": "text/html", "sec-fetch-dest": "empty"}
    site.client.get(THANKS)
    later(site.capi, 72.0)
    text = json.loads(
        site.client.get(THANKS, headers=hover).text.split("data-c>")[1].split("</script>")[0]
    )["w"]
    given = {"u": f"http://testserver{THANKS}", "r": "http://testserver/", "w": text}
    assert site.client.post("/_capi/t", json=given).json()["e"] == []


def test_what_a_redirect_sends_on_is_silent_for_an_order_that_is_over() -> None:
    async def pay(request: Request) -> Response:
        if request.method == "GET":
            return HTMLResponse(PAGE)
        track("Purchase", dedupe_key=7, value=9.5, currency="EUR")
        return RedirectResponse("/done", 303)

    site = shop(pay, routes=[])
    seen = []
    for hours in (0.0, 72.0):
        later(site.capi, hours)
        seen.append(told(site.client.post("/pay").text))
    assert seen == [["Purchase"], []]


def test_what_is_tracked_while_the_page_streams_is_silent_too() -> None:
    async def streams(request: Request) -> Response:
        async def body() -> Any:
            track("Purchase", dedupe_key=7, value=9.5, currency="EUR")
            yield PAGE

        return StreamingResponse(body(), media_type="text/html")

    site = shop(streams, routes=[])
    seen = []
    for hours in (0.0, 72.0):
        later(site.capi, hours)
        seen.append(told(site.client.get("/").text))
    assert seen == [["Purchase"], []]
    assert repeated(site) == 1


def test_a_webhook_that_comes_again_after_the_window_is_silent_and_has_the_same_id() -> None:
    site = shop()
    first = site.capi.track("Purchase", dedupe_key="7", value=9.5, currency="EUR")
    later(site.capi, 72.0)
    again = site.capi.track("Purchase", dedupe_key=7, value=9.5, currency="EUR")
    assert told(site.client.get(THANKS).text) == []
    assert again.event_id == first.event_id
    assert len(site.sent()) == 1
    assert repeated(site) == 2


def test_only_the_order_is_left_out_of_its_page() -> None:
    async def view(request: Request) -> Response:
        track("Contact")
        return HTMLResponse(PAGE)

    site = shop(view, page_view=True)
    for _ in range(2):
        text = site.client.get(THANKS).text
        later(site.capi, 72.0)
    assert told(text) == ["PageView", "Contact"]


def test_through_wsgi_it_is_the_same() -> None:
    capi = CAPI(make_config(routes=ROUTES, page_view=False))

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        return [PAGE.encode()]

    pages = []
    for _ in range(2):
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": THANKS, "HTTP_HOST": "shop.example",
                   "HTTP_USER_AGENT": "Mozilla/5.0", "wsgi.url_scheme": "https",
                   "SERVER_NAME": "shop.example", "SERVER_PORT": "443"}  # fmt: skip
        answer = wsgi.CAPIMiddleware(app, capi)(environ, lambda *given: print)
        pages.append(told(b"".join(answer).decode()))
        later(capi, 72.0)
    assert pages == [["Purchase"], []]


def test_a_new_first_secret_changes_no_id_of_an_order() -> None:
    before, after = (CAPI(make_config(secret_key=keys)) for keys in ([SECRET], [OTHER, SECRET]))
    for name, key in (("Purchase", "7"), ("Lead", "a@example.com")):
        ids = {one.issuer.mint(name, key) for one in (before, after)}
        assert len(ids) == 1
    mine = after.issuer.mint("Purchase", None)
    assert not before.issuer.minter.verifies(mine, "Purchase")
    assert after.issuer.minter.verifies(before.issuer.mint("Purchase", None), "Purchase")


@pytest.mark.parametrize("keys", [[OTHER, SECRET], [SECRET, OTHER], [OTHER]])
def test_no_rotation_makes_two_events_of_an_order(keys: list[str], tmp_path: Path) -> None:
    """Also one that takes the old key away, whose ids are others: the order is known."""
    store = f"sqlite:///{tmp_path}/capi.db"
    before, after = (shop(secret_key=one, store=store) for one in (SECRET, keys))
    assert told(before.client.get(THANKS).text) == ["Purchase"]
    assert before.capi.store.flush(10)
    second = told(after.client.get(THANKS).text)
    assert second == (["Purchase"] if keys[-1] == SECRET else [])
    assert after.capi.store.flush(10)
    assert len(before.sent()) == 1
    for site in (before, after):
        site.capi.store.close()


class Hangs:
    """Stands in for a database that does not answer."""

    def __init__(self, store: Store) -> None:
        self.asked: list[Future[Any]] = []
        store.recall = self.recall  # type: ignore[method-assign,assignment]

    def recall(self, event_id: str) -> Future[Any]:
        self.asked.append(Future())
        return self.asked[-1]


def test_where_the_database_does_not_answer_the_order_goes_out_and_is_counted() -> None:
    site = shop()
    site.client.get(THANKS)
    hangs = Hangs(site.capi.store)
    site.capi.store._engine.recall_seconds = 0.05
    later(site.capi, 72.0)
    assert told(site.client.get(THANKS).text) == ["Purchase"]
    assert len(hangs.asked) == 1
    assert site.counts("error") == {("", "the memory of orders: TimeoutError"): 1}


def test_while_an_answer_is_waited_for_the_event_loop_goes_on() -> None:
    site = shop()
    hangs = Hangs(site.capi.store)
    asked_on: list[threading.Thread] = []

    async def answer_later() -> None:
        asked_on.append(threading.current_thread())
        while not hangs.asked:
            await asyncio.sleep(0)
        hangs.asked[0].set_result(None)

    async def view(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.ensure_future(answer_later())
        await HTMLResponse(PAGE)(scope, receive, send)
        await task

    site.client.app.app = view  # type: ignore[attr-defined]
    site.capi.store._engine.recall_seconds = 60.0
    assert told(site.client.get(THANKS).text) == ["Purchase"]
    assert asked_on


def test_an_event_without_a_dedupe_key_asks_for_nothing() -> None:
    async def view(request: Request) -> Response:
        track("Lead", value=3, currency="EUR")
        return HTMLResponse(PAGE)

    site = shop(view, page_view=True)
    hangs = Hangs(site.capi.store)
    assert told(site.client.get("/").text) == ["PageView", "Lead"]
    assert not hangs.asked
