"""Chromium, a page that must stay free of errors, a site and a fake Meta on real ports."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from capi_middleware.testing import FakeMeta
from tests.browser.site import Site
from tests.support.servers import serve

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
