"""Chromium, a page that must stay free of errors, a site and a fake Meta on real ports."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from playwright.sync_api import Playwright as Driver

from capi_middleware.testing import FakeMeta
from tests.browser.site import Site
from tests.support.servers import serve

ARGUMENTS = [
    "--no-sandbox",
    "--headless=new",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
]


#: Waits until something holds; the test's own assertion says what was missing.
Until = Callable[[Callable[[], object]], None]


@dataclass
class Servers:
    """A site and a fake Meta that listen on ports of their own."""

    site: Site
    meta: FakeMeta
    meta_url: str


@dataclass
class Problems:
    """What went wrong in a page: uncaught errors, and console lines that are not the network's."""

    errors: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: self.console.append(line.text))


def chromium() -> str | None:
    """Where Chromium is; None leaves it to Playwright, which fails if it has none of its own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = (shutil.which(name) for name in names)
    return os.environ.get("CAPI_CHROMIUM") or next(filter(None, found), None)


@pytest.fixture(scope="session")
def driver() -> Iterator[Driver]:
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="session")
def browser(driver: Driver) -> Iterator[Browser]:
    browser = driver.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
    yield browser
    browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    context.set_default_timeout(30_000)
    yield context
    context.close()


@pytest.fixture
def problems() -> Problems:
    return Problems()


@pytest.fixture
def page(context: BrowserContext, problems: Problems) -> Iterator[Page]:
    page = context.new_page()
    problems.watch(page)
    yield page
    assert problems.errors == []


@pytest.fixture
def servers() -> Iterator[Servers]:
    meta = FakeMeta()
    with serve(meta.app) as meta_url:
        site = Site(meta_url)
        with serve(site.app) as site.url:
            yield Servers(site, meta, meta_url)


@pytest.fixture
def until(page: Page) -> Until:
    def wait(condition: Callable[[], object]) -> None:
        for _ in range(400):
            if condition():
                return
            page.wait_for_timeout(25)

    return wait
