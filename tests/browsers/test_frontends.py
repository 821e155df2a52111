"""Real front ends elsewhere: React built by Vite; and Next.js, in `make test-frontends` alone."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import httpx
import pytest
from playwright.sync_api import Playwright

from capi_middleware import CAPI
from capi_middleware.testing import FakeMeta
from capi_middleware.testing.received import Received
from demo.frontends.api import PRICES, REPORT_TOKEN, app, config
from demo.frontends.running import FRONT_ENDS, SITES, built
from tests.browser.elsewhere import CLASSIC, TWO_SITES, open_front
from tests.browsers.drivers import NAMES, Browser, ByPlaywright, open_browser
from tests.browsers.scene import LONG
from tests.support.configs import SECRET
from tests.support.processes import free_port, running
from tests.support.servers import serve

CHOSEN = FRONT_ENDS if os.environ.get("CAPI_FRONTENDS") else ["react"]
EVENTS = {"PageView": 3, "ViewContent": 1, "AddToCart": 1, "Contact": 1, "Purchase": 1}
SKU = "kettle"


class Street:
    """The API, which is a new one for each visit, and the pages of a front end."""

    def __init__(self, meta: FakeMeta) -> None:
        self.meta, self.api, self.pages = meta, 0, 0
        self.capi: CAPI
        self._app: Any

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self._app(scope, receive, send)

    def opens(self, **more: Any) -> None:
        self.meta.received = Received()
        pages = [f"http://{host}:{self.pages}" for host in SITES]
        settings = config(self.meta.url, pages, secret_key=SECRET, store="memory:", **more)
        self.capi = CAPI(settings)
        self._app = app(self.capi)

    def report(self) -> dict[str, Any]:
        """What parity.json says, by event_name."""
        self.capi.flush(10)
        answer = httpx.get(
            f"http://127.0.0.1:{self.api}/_capi/parity.json",
            headers={"authorization": f"Bearer {REPORT_TOKEN}"},
        )
        return {one["event_name"]: one for one in answer.json()["events"]}

    def matched(self) -> dict[str, int]:
        return {name: one["matched"] for name, one in self.report().items()}


@pytest.fixture(scope="module")
def meta() -> Iterator[FakeMeta]:
    meta = FakeMeta()
    with meta.serve():
        yield meta


@pytest.fixture(scope="module", params=CHOSEN)
def street(request: pytest.FixtureRequest, meta: FakeMeta) -> Iterator[Street]:
    street = Street(meta)
    street.pages = free_port()
    with ExitStack() as stack:
        street.api = int(stack.enter_context(serve(street)).rpartition(":")[2])
        api = f"http://api.shop.localhost:{street.api}"
        stack.enter_context(FRONT_ENDS[request.param](api, street.pages))
        yield street


@pytest.fixture(scope="module", params=NAMES)
def visitor(request: pytest.FixtureRequest, driver: Playwright) -> Iterator[Browser]:
    with open_browser(request.param, driver) as browser:
        yield browser


def until(visitor: Browser, what: str, holds: Callable[[], object]) -> None:
    end = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < end, f"waited in vain for {what}"
        visitor.pause(0.05)


def shows(visitor: Browser, selector: str) -> None:
    seen = f"!!document.querySelector('{selector}')"
    until(visitor, selector, lambda: visitor.evaluate(seen))


def buy(visitor: Browser, street: Street, url: str) -> None:
    """From the first page to the last, at a person's pace."""
    wanted: dict[str, int] = {}

    def has(*names: str) -> None:
        for name in names:
            wanted[name] = wanted.get(name, 0) + 1
        until(visitor, str(wanted), lambda: street.matched() == wanted)

    visitor.fresh()
    visitor.goto(f"{url}/?fbclid=Click-1")
    has("PageView")
    visitor.click(f"#{SKU}")
    has("PageView", "ViewContent")
    visitor.click("#cart")
    has("AddToCart")
    visitor.click("#contact")
    has("Contact")
    visitor.click("#order")
    has("Purchase", "PageView")
    assert wanted == EVENTS


@pytest.mark.parametrize("host", SITES)
def test_whoever_buys_in_a_front_end_elsewhere_has_both_copies_of_everything(
    visitor: Browser, street: Street, host: str
) -> None:
    street.opens(mirror=["Contact"])
    url = f"http://{host}:{street.pages}"
    with closing(street.capi):
        buy(visitor, street, url)
        for name, one in street.report().items():
            assert one["server"] == one["browser"] == one["matched"] == EVENTS[name]
    received = street.meta.received
    assert all((one["server"], one["browser"]) == (1, 1) for one in received.pairs())
    pages = {(one.ev, one.eid): one.dl for one in received.browser}
    product = f"{url}/products/{SKU}"
    for event in [one.event for one in received.server]:
        name, page = event["event_name"], pages[event["event_name"], event["event_id"]]
        # To another site these two let a call of the page's own say no more than its origin.
        is_told = name not in ("AddToCart", "Purchase") or host != "127.0.0.1"
        is_told = is_told or isinstance(visitor, ByPlaywright)
        assert event["event_source_url"] == (page if is_told else f"{url}/")
        assert event["user_data"].get("fbc", "").endswith(".Click-1") == is_told
        if name != "PageView":
            assert page == product
        if name in ("AddToCart", "Purchase"):
            assert event["custom_data"]["value"] == PRICES[SKU]
            assert event["custom_data"]["currency"] == "EUR"
        if name == "Purchase":
            assert event["user_data"]["em"]
    # Meta's library tries which domain takes a cookie.
    assert [line for line in visitor.lines() if "_fbtest" not in line] == []


#: What the site answers to the script does not come: it tells on leaving.
LEFT = """<script>const real = fetch;
window.fetch = (to, ...more) => /_capi.b$/.test(to) ? Promise.reject(window.isTold = Error())
    : real(to, ...more);</script>"""


@pytest.mark.parametrize("by", ["sendBeacon", "an image"])
def test_a_page_elsewhere_that_hides_its_origin_says_what_became_of_its_copies(
    visitor: Browser, by: str
) -> None:
    with open_front(TWO_SITES) as front:
        front.cache = {"cache-control": "no-store", "referrer-policy": "no-referrer"}
        if by == "an image":
            policy = f"connect-src {front.api}/_capi/t {front.meta_url}"
            front.cache["content-security-policy"] = policy
        front.tag = (LEFT if by == "sendBeacon" else "") + CLASSIC
        visitor.fresh()
        visitor.goto(f"{front.url}/products/7")
        if by == "sendBeacon":
            until(visitor, "its word", lambda: visitor.evaluate("!!window.isTold"))
            visitor.evaluate("dispatchEvent(new Event('pagehide'))")
        for name in ("PageView", "ViewContent"):
            until(visitor, name, lambda name=name: front.browser(name) == ["sent"])  # type: ignore[misc]
            assert front.pairs(name) == [(1, 1)]


def two_ports() -> int:
    """A free one with a free one after it."""
    while True:
        port = free_port()
        with suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
            return port


@pytest.mark.parametrize("name", CHOSEN)
def test_the_demo_of_front_ends_ends_all_that_it_started(name: str) -> None:
    built(name, "http://api.shop.localhost")  # npm may take its time
    port = two_ports()
    with running(["demo.frontends", "--port", str(port), "--only", name], port + 1) as pages:
        assert httpx.post(f"http://127.0.0.1:{port}/cart", json={"sku": SKU}).json() == {
            "price": PRICES[SKU]
        }
        assert f"http://api.shop.localhost:{port}/_capi/s.js" in httpx.get(pages.url).text
        pages.process.terminate()
        assert pages.process.wait(60) == 0
    for one in (port, port + 1):
        with socket.create_server(("127.0.0.1", one)):
            pass  # nobody has it any more
