"""Pages out of the browser's own stores: its back/forward cache, and what it rendered ahead."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
from playwright.sync_api import Page
from playwright.sync_api import Playwright as Driver

from tests.browser.shop import Shop, open_shop
from tests.support.browsers import FLAGS, find

AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0.0.0 Safari/537.36"
AHEAD = '{"prerender": [{"source": "list", "urls": ["/products/7"], "eagerness": "immediate"}]}'
GO_THERE = "<script>location.pathname === '/' && setTimeout(() => {location = '/products/7'}, %d)"


@pytest.fixture
def shop() -> Iterator[Shop]:
    with open_shop() as shop:
        shop.cache = {}
        yield shop


@pytest.fixture
def page(driver: Driver) -> Iterator[Page]:
    """A page of a browser that keeps the back/forward cache, which Playwright switches off."""
    browser = driver.chromium.launch(
        executable_path=find(), args=FLAGS, ignore_default_args=["--disable-back-forward-cache"]
    )
    yield browser.new_page(user_agent=AGENT)
    browser.close()


def wait(condition: Callable[[], object], seconds: float = 15) -> None:
    end = monotonic() + seconds
    while not condition() and monotonic() < end:
        sleep(0.05)


def test_a_page_from_the_back_forward_cache_replays_nothing(page: Page, shop: Shop) -> None:
    page.goto(f"{shop.url}/products/7")
    wait(lambda: shop.browser("ViewContent") == ["sent"])
    page.evaluate("window.kept = true")
    page.goto(f"{shop.url}/other")
    wait(lambda: shop.browser("PageView") == ["sent"] * 2)
    page.evaluate("setTimeout(() => history.back())")
    wait(lambda: shop.browser("PageView") == ["sent"] * 3)
    assert page.evaluate("window.kept")
    assert shop.pairs("ViewContent") == [(1, 1)]
    # The library's own PageView without eventID: the browser's alone, and counted as that.
    assert sorted(shop.pairs("PageView")) == [(0, 1), (1, 1), (1, 1)]


@pytest.fixture
def visit(shop: Shop, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Opens an address in a Chromium that nobody controls; a controlled one renders none ahead."""
    running: list[subprocess.Popen[bytes]] = []

    def start(url: str) -> None:
        flags = [flag for flag in FLAGS if flag != "--disable-background-networking"]
        profile = ["--remote-debugging-port=0", f"--user-data-dir={tmp_path}"]
        command = [str(find()), *flags, *profile, f"--user-agent={AGENT}", url]
        running.append(
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )

    yield start
    for process in running:
        process.terminate()
        process.wait(20)


def rendered_ahead(shop: Shop) -> list[str]:
    return [path for path, purpose in shop.asked if purpose == "prefetch;prerender"]


def test_a_page_rendered_ahead_counts_when_it_is_shown(
    shop: Shop, visit: Callable[[str], None]
) -> None:
    shop.head = f"<script type=speculationrules>{AHEAD}</script>{GO_THERE % 1500}</script>"
    visit(f"{shop.url}/")
    wait(lambda: shop.browser("ViewContent") == ["sent"])
    wait(lambda: shop.browser("PageView") == ["sent"] * 2)
    assert "/products/7" in rendered_ahead(shop)
    assert shop.pairs("ViewContent") == [(1, 1)]
    assert shop.pairs("PageView") == [(1, 1)] * 2


def test_a_page_rendered_ahead_that_nobody_sees_counts_nothing(
    shop: Shop, visit: Callable[[str], None]
) -> None:
    shop.head = f"<script type=speculationrules>{AHEAD}</script>"
    visit(f"{shop.url}/")
    wait(lambda: rendered_ahead(shop))
    wait(lambda: shop.browser("PageView") == ["sent"])
    sleep(0.5)
    assert rendered_ahead(shop) == ["/products/7"]
    assert (shop.pairs("PageView"), shop.pairs("ViewContent")) == ([(1, 1)], [])
