"""Several pixels: each gets what the config gives it, whoever fires, and is counted by itself."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route

from capi_middleware import Pixel
from tests.browser.conftest import Until
from tests.browser.shop import Shop, open_shop
from tests.browser.site import own_snippet
from tests.support.configs import PIXEL_ID, TOKEN

SALES = "5555555555"
OTHERS = "9999999999"
CLICKS = (
    "<button id=search onclick=\"fbq('track', 'Search', {search_string: 'kettle'})\">a</button>"
    "<button id=lead onclick=\"fbq('track', 'Lead')\">b</button>"
)


@pytest.fixture
def shop() -> Iterator[Shop]:
    """One pixel for everything and one for sales; the page's own calls get server copies."""
    pixels = [
        Pixel(PIXEL_ID, access_token=TOKEN),
        Pixel(SALES, access_token=TOKEN, events=["AddToCart", "Lead"]),
    ]
    with open_shop(pixels=pixels, mirror=True) as shop:
        shop.body = CLICKS
        yield shop


def browser(shop: Shop) -> dict[str, list[str]]:
    """The event names that each pixel got from the browser.

    An event is one by its event_id: Chrome may ask again over a connection that was closed.
    """
    got: dict[str, set[tuple[str, str | None]]] = {}
    for hit in shop.meta.received.browser:
        got.setdefault(hit.id, set()).add((hit.ev, hit.eid))
    return {pixel_id: sorted(name for name, _ in hits) for pixel_id, hits in got.items()}


def server(shop: Shop) -> dict[str, list[str]]:
    """The event names that each pixel got from the server."""
    shop.capi.flush(10)
    got: dict[str, list[str]] = {}
    for one in shop.meta.received.server:
        got.setdefault(one.pixel_id, []).append(one.event["event_name"])
    return {pixel_id: sorted(names) for pixel_id, names in got.items()}


def test_each_event_goes_to_the_pixels_that_take_it(page: Page, shop: Shop, until: Until) -> None:
    page.goto(shop.url)
    until(lambda: shop.browser("PageView") == ["sent"])
    page.evaluate("fetch('/cart', {method: 'POST'})")
    until(lambda: shop.browser("AddToCart") == ["sent"] * 2)
    assert server(shop)[SALES] == browser(shop)[SALES] == ["AddToCart"]
    assert "AddToCart" in browser(shop)[PIXEL_ID]


def test_a_pixel_is_initialised_once_in_a_page(page: Page, shop: Shop, until: Until) -> None:
    page.goto(shop.url)
    until(lambda: shop.browser("PageView") == ["sent"])
    assert sorted(shop.meta.received.configs) == [PIXEL_ID, SALES]


@pytest.mark.parametrize("ready", [True, False], ids=["loaded", "queued"])
def test_a_call_of_the_page_goes_to_the_pixels_that_take_it(
    page: Page, shop: Shop, until: Until, ready: bool
) -> None:
    if ready:
        page.goto(shop.url)
        until(lambda: shop.browser("PageView") == ["sent"])
        page.click("#search")
        page.click("#lead")
    else:
        both = f"fbq('init', '{PIXEL_ID}'); fbq('init', '{SALES}');"
        shop.head = own_snippet(
            f"{both} fbq('track', 'Search'); fbq('track', 'Lead')", shop.meta_url
        )
        held: list[Route] = []
        page.route("**/fbevents.js", lambda route: held.append(route))
        page.goto(shop.url, wait_until="commit")
        until(lambda: page.evaluate("!!window.capi"))
        held[0].continue_()
    until(lambda: shop.browser("Lead") == ["sent"] * 2)
    until(lambda: shop.browser("Search") == ["sent"])
    assert browser(shop)[SALES] == server(shop)[SALES] == ["Lead"]
    assert browser(shop)[PIXEL_ID] == server(shop)[PIXEL_ID] == ["Lead", "PageView", "Search"]


def test_a_pixel_that_is_not_ours_gets_what_the_page_fires(
    page: Page, shop: Shop, until: Until
) -> None:
    calls = f"fbq('init', '{OTHERS}'); fbq('track', 'PageView');"
    shop.head = own_snippet(calls, shop.meta_url)
    page.goto(shop.url)
    until(lambda: shop.browser("PageView") == ["sent"])
    page.click("#search")
    until(lambda: shop.browser("Search") == ["sent"])
    until(lambda: browser(shop).get(OTHERS) == ["PageView", "Search"])
    assert browser(shop)[OTHERS] == ["PageView", "Search"]
    assert browser(shop)[PIXEL_ID] == ["PageView", "Search"]
    assert SALES not in browser(shop)


def test_a_call_that_waits_goes_to_a_foreign_pixel_once(
    page: Page, shop: Shop, until: Until
) -> None:
    inits = f"fbq('init', '{OTHERS}'); fbq('init', '{SALES}');"
    shop.head = own_snippet(f"{inits} fbq('track', 'Search'); fbq('track', 'Lead')", shop.meta_url)
    held: list[Route] = []
    page.route("**/fbevents.js", lambda route: held.append(route))
    page.goto(shop.url, wait_until="commit")
    until(lambda: page.evaluate("!!window.capi"))
    held[0].continue_()
    until(lambda: shop.browser("Lead") == ["sent"])
    until(lambda: "Search" in browser(shop).get(OTHERS, []))
    hits = [hit.ev for hit in shop.meta.received.browser if hit.id == OTHERS]
    assert sorted(hits) == ["Lead", "Search"]


def test_a_pixel_that_the_page_names_gets_its_call(page: Page, shop: Shop, until: Until) -> None:
    page.goto(shop.url)
    until(lambda: shop.browser("PageView") == ["sent"])
    page.evaluate(f"fbq('trackSingle', '{SALES}', 'Contact')")
    until(lambda: shop.browser("Contact") == ["sent"])
    # The config gives this pixel no Contact, so that the server sends none; the report says so.
    (row,) = [one for one in shop.capi.store.tallies(0, 1e12).rows if one.event_name == "Contact"]
    assert (row.pixel_id, row.server, row.browser) == (SALES, "unmapped", "sent")


def test_what_the_library_sent_before_our_script_ran_is_counted_as_the_browsers_alone(
    page: Page, shop: Shop, until: Until
) -> None:
    calls = f"fbq('init', '{PIXEL_ID}'); fbq('track', 'PageView'); fbq('track', 'Donate');"
    shop.head = own_snippet(calls, shop.meta_url)
    held: list[Route] = []
    page.route("**/s.js**", lambda route: held.append(route))
    page.goto(shop.url, wait_until="commit")
    until(lambda: len(shop.meta.received.browser) == 2)
    page.wait_for_timeout(100)
    held[0].continue_()
    until(lambda: bool(shop.browser("Donate")))
    rows = shop.capi.store.tallies(0, 1e12)
    assert [one.server for one in rows.rows if one.event_name == "Donate"] == ["unmapped"]
    assert [(one.event_name, one.reason) for one in rows.counts if one.kind == "unmapped"] == [
        ("Donate", "/")
    ]
    assert browser(shop)[PIXEL_ID] == ["Donate", "PageView"]
