"""A page of another origin than the API's in all three browsers."""

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Playwright

from tests.browser.elsewhere import ONE_SITE, TWO_SITES, open_front
from tests.browsers.drivers import Browser, open_browser
from tests.browsers.scene import LONG


@pytest.fixture(scope="module", params=["firefox", "webkit"])
def visitor(request: pytest.FixtureRequest, driver: Playwright) -> Iterator[Browser]:
    with open_browser(request.param, driver) as browser:
        yield browser


@pytest.mark.parametrize("hosts", [ONE_SITE, TWO_SITES], ids=["one site", "two sites"])
def test_a_visit_to_a_page_that_the_api_does_not_answer_has_both_copies(
    visitor: Browser, hosts: tuple[str, str]
) -> None:
    with open_front(hosts) as front:

        def wait(name: str) -> None:
            until = time.monotonic() + LONG
            while time.monotonic() < until and "sent" not in front.browser(name):
                visitor.pause(0.05)

        visitor.fresh()
        visitor.goto(f"{front.url}/products/7?fbclid=Click-1")
        wait("PageView")
        visitor.click("#cart")
        wait("AddToCart")
        wait("ViewContent")
        for name in ("PageView", "ViewContent", "AddToCart"):
            assert front.pairs(name) == [(1, 1)]
            assert front.browser(name) == ["sent"]
            (event,) = front.told(name)
            # To another site these two let a call say no more than its origin, and bring no cookie.
            is_told = name != "AddToCart" or hosts == ONE_SITE
            page = "/products/7?fbclid=Click-1" if is_told else "/"
            assert event["event_source_url"] == front.url + page
            assert event["user_data"].get("fbc", "").endswith(".Click-1") == is_told
        assert not [line for line in visitor.lines() if "_capi" in line]
