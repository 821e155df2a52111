"""What is clicked, and what is sent, says its event wherever it stands: once."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route

from tests.browser.conftest import Until
from tests.browser.shop import Shop, open_shop

OPEN = "<x-card></x-card><script>document.querySelector('x-card').attachShadow({mode: 'open'})"
CONTACT = "data-capi-event=Contact"
LEAVES = f"<a id=go href=/elsewhere {CONTACT}>go</a>"
#: What the page has, and what a visitor does.
DEEDS = {
    "in a shadow root": (
        f"{OPEN}.innerHTML = '<button id=go {CONTACT}><b>go</b></button>'</script>", "click"
    ),
    "a form in a shadow root": (
        f"{OPEN}.innerHTML = '<form action=/elsewhere {CONTACT}><input id=go></form>'</script>",
        "Enter",
    ),
    "an element that appears later": (
        "<p></p><script>setTimeout(() => { document.querySelector('p').innerHTML ="
        f" '<button id=go {CONTACT}>go</button>' }}, 200)</script>", "click",
    ),
    "the label of a field": (f"<label id=go {CONTACT}>go<input type=checkbox></label>", "click"),
    "by the keyboard": (LEAVES, "Enter"),
    "by the middle button": (LEAVES, "middle"),
    "a link that leaves": (LEAVES, "click"),
}  # fmt: skip


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with open_shop(mirror=True) as shop:
        yield shop


def do(page: Page, deed: str) -> None:
    if deed == "Enter":
        page.focus("#go")
        page.keyboard.press("Enter")
    else:
        page.click("#go", button="middle" if deed == "middle" else "left")


@pytest.mark.parametrize("name", DEEDS)
def test_a_deed_is_one_event_with_both_copies(
    page: Page, shop: Shop, until: Until, name: str
) -> None:
    shop.body, deed = DEEDS[name]
    shop.bodies["/elsewhere"] = ""
    views, before = len(shop.browser("PageView")), len(shop.pairs("Contact"))
    page.goto(shop.url)
    until(lambda: shop.browser("PageView")[views:] == ["sent"])
    do(page, deed)
    until(lambda: shop.pairs("Contact") == [(1, 1)] * (before + 1))
    page.wait_for_load_state()  # a context that closes as its page moves on may wait for good
    assert shop.pairs("Contact") == [(1, 1)] * (before + 1)


def test_the_right_button_is_no_deed(page: Page, shop: Shop, until: Until) -> None:
    shop.body = LEAVES + "<button id=end data-capi-event=Schedule>end</button>"
    before = len(shop.pairs("Contact"))
    page.goto(shop.url)
    page.wait_for_function("window.capi")
    page.click("#go", button="right")
    page.click("#end")
    until(lambda: shop.browser("Schedule") == ["sent"])
    assert len(shop.pairs("Contact")) == before


def test_a_click_while_the_page_asks_for_its_events_is_not_lost(page: Page, until: Until) -> None:
    with open_shop(mirror=True) as shop:
        shop.cache = {"cache-control": "public, max-age=60"}
        shop.body = f"<button id=go {CONTACT}>go</button>"
        held: list[Route] = []
        page.route("**/t", lambda route: route.continue_() if held else held.append(route))
        page.goto(shop.url, wait_until="commit")
        until(lambda: held)
        page.click("#go")
        held[0].continue_()
        until(lambda: shop.browser("Contact") == ["sent"])
        assert shop.pairs("Contact") == [(1, 1)]


EARLY = "<script>(window.capi = window.capi || []).push(['track', 'Contact'])</script>"


@pytest.mark.parametrize("cache", ["no-store", "public, max-age=60"])
def test_what_the_page_says_before_our_script_is_there_is_heard(
    page: Page, until: Until, cache: str
) -> None:
    with open_shop(mirror=True) as shop:
        shop.cache = {"cache-control": cache}
        shop.head = EARLY
        page.goto(shop.url + "/products/7")
        until(lambda: shop.browser("Contact") == ["sent"])
        page.evaluate("capi.push(['track', 'Lead'], ['nothing'], ['track', 'Search'])")
        until(lambda: shop.browser("Search") == shop.browser("Lead") == ["sent"])
        assert shop.pairs("Contact") == shop.pairs("Lead") == shop.pairs("Search") == [(1, 1)]


def test_something_else_of_the_page_by_that_name_stays(
    page: Page, shop: Shop, until: Until
) -> None:
    shop.head = "<script>window.capi = {track: 7}</script>"
    page.goto(shop.url + "/products/8")
    until(lambda: "sent" in shop.browser("ViewContent"))
    assert page.evaluate("JSON.stringify(capi)") == '{"track":7}'
