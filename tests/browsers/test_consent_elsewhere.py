"""Consent on pages of another origin than the API's: what is answered there holds for the API."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Playwright

from tests.browser.elsewhere import CLASSIC, ONE_SITE, TWO_SITES, Front, open_front
from tests.browsers.drivers import Browser, Name, open_browser
from tests.browsers.scene import LONG

#: A banner that keeps a cookie, and one of which only the script knows.
RULES: dict[str, Any] = {"complianz": "complianz", "none": lambda request: "unanswered"}
SAY = """<script>
window.say = yes => {
    if ('%s' === 'none') return capi.consent(yes ? 'granted' : 'denied');
    const value = yes ? 'allow' : 'deny';
    document.cookie = `cmplz_marketing=${value}; path=/`;
    document.dispatchEvent(new CustomEvent('cmplz_status_change',
        { detail: { category: 'marketing', value } }));
};
window.cart = () => fetch('{api}/cart', { method: 'POST', credentials: 'include',
    headers: { 'content-type': 'application/json' }, body: '{}' }).then(answer => answer.text());
</script>"""
VIEW = ["PageView", "ViewContent"]


class Journey(NamedTuple):
    browser: Name
    hosts: tuple[str, str]
    rule: str


JOURNEYS = {
    "Chromium, one site, a banner": Journey("chromium", ONE_SITE, "complianz"),
    "Chromium, one site": Journey("chromium", ONE_SITE, "none"),
    "Chromium, two sites": Journey("chromium", TWO_SITES, "none"),
    "Firefox, two sites": Journey("firefox", TWO_SITES, "none"),
    "WebKit, two sites, a banner": Journey("webkit", TWO_SITES, "complianz"),
}


def copies(front: Front) -> tuple[list[str], list[str]]:
    """The names of what Meta got, by the server and by the browser."""
    front.capi.flush(10)
    received = front.meta.received
    server = [one.event["event_name"] for one in received.server]
    return sorted(server), sorted(str(one.ev) for one in received.browser)


def counted(front: Front) -> dict[str, int]:
    """What the report says of consent: pages by answer, held, released and withdrawn."""
    found = [one for one in front.capi.store.tallies(0, 1e12).counts if one.kind == "consent"]
    return {one.reason.partition(" ")[2]: one.n for one in found}


@pytest.mark.parametrize("name", JOURNEYS)
def test_an_answer_on_a_page_elsewhere_holds_for_it_for_the_api_and_for_the_next_page(
    name: str, driver: Playwright
) -> None:
    journey = JOURNEYS[name]
    with (
        open_browser(journey.browser, driver) as visitor,
        open_front(journey.hosts, consent=RULES[journey.rule]) as front,
    ):
        front.tag = SAY % journey.rule + CLASSIC
        walk(visitor, front)


def walk(visitor: Browser, front: Front) -> None:
    told: list[str] = []

    def until(what: Callable[[], Any], wanted: Any) -> None:
        end = time.monotonic() + LONG
        while (found := what()) != wanted:
            assert time.monotonic() < end, f"found {found}, waited in vain for {wanted}"
            visitor.pause(0.05)

    def has(*names: str) -> None:
        told.extend(names)
        until(lambda: copies(front), (sorted(told), sorted(told)))

    def is_still() -> None:
        visitor.pause(0.3)  # for what must not come
        assert "_fb" not in visitor.evaluate("document.cookie")
        assert copies(front) == (sorted(told), sorted(told))

    def kept() -> str:
        of_consent = (
            "document.cookie.split('; ').find(one => one.startsWith('capi_consent=')) || ''"
        )
        return str(visitor.evaluate(of_consent))

    def opens() -> None:
        visitor.goto(f"{front.url}/products/7?fbclid=Click-1")
        until(lambda: visitor.evaluate("!!(window.capi && capi.consent)"), True)

    visitor.fresh()
    opens()
    until(lambda: counted(front), {"held": 1})
    visitor.evaluate("cart()")
    is_still()
    visitor.evaluate("say(true)")
    has(*VIEW, "AddToCart")
    assert counted(front) == {"held": 1, "granted": 1, "released": 1}
    # -- said once, it holds for the API and for the next page
    visitor.evaluate("cart()")
    has("AddToCart")
    opens()
    has(*VIEW)
    # -- withdrawn
    before = kept()
    visitor.evaluate("say(false)")
    record = {"held": 1, "granted": 2, "released": 1, "withdrawn": 1}
    until(lambda: counted(front), record)
    # On two sites the page keeps what the API answers, and tells it with its next call.
    until(lambda: before == "" or kept() != before, True)
    visitor.evaluate("cart()")
    is_still()
    opens()
    until(lambda: counted(front), {**record, "denied": 1})
    visitor.evaluate("cart()")
    is_still()
    received = front.meta.received
    assert all((one["server"], one["browser"]) == (1, 1) for one in received.pairs())
    assert [line for line in visitor.lines() if "_fbtest" not in line] == []
