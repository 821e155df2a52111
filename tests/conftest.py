"""What every test is held to, and the one Chromium that all browser tests share."""

from collections.abc import Iterator

import pytest
from hypothesis import settings
from playwright.sync_api import Browser, sync_playwright
from playwright.sync_api import Playwright as Driver

from capi_middleware.shield import Shield
from tests.support import postgres
from tests.support.browsers import FLAGS, find

# Nothing about time is asserted: the machine is shared.
settings.register_profile("default", deadline=None)
settings.load_profile("default")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests come last: Playwright's loop stays on this thread and lets no other run."""
    for item in items:
        if "driver" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


@pytest.fixture(autouse=True)
def swallowed(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[BaseException]]:
    """The errors that the shield caught; a test that expects some empties the list."""
    errors: list[BaseException] = []
    honest = Shield.caught

    def caught(self: Shield, error: BaseException, where: str, **more: bool) -> None:
        errors.append(error)
        honest(self, error, where, **more)

    monkeypatch.setattr(Shield, "caught", caught)
    yield errors
    if errors:
        raise AssertionError("the shield swallowed an error of ours") from errors[0]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A fresh database of a real PostgreSQL."""
    with postgres.database(postgres_server) as url:
        yield url


@pytest.fixture
def postgres_urls(postgres_server: str) -> Iterator[list[str]]:
    """Two fresh databases."""
    with postgres.database(postgres_server) as one, postgres.database(postgres_server) as other:
        yield [one, other]


@pytest.fixture(scope="session")
def driver() -> Iterator[Driver]:
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="session")
def browser(driver: Driver) -> Iterator[Browser]:
    browser = driver.chromium.launch(executable_path=find(), args=FLAGS)
    yield browser
    browser.close()
