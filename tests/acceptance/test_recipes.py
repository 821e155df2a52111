"""The recipes of demo/, each under a real server and in a real Chromium."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from capi_middleware.testing import FakeMeta
from tests.acceptance.conftest import report
from tests.support.configs import SECRET
from tests.support.processes import Server, free_port, running, until

RECIPES = {
    "starlette": "uvicorn demo.starlette_app:app --port {port} --log-level warning",
    "fastapi": "granian --interface asgi demo.fastapi_app:app --port {port} --no-log",
    "litestar": "gunicorn demo.litestar_app:app --bind 127.0.0.1:{port} --log-level warning "
    "--worker-class uvicorn_worker.UvicornWorker",
    "quart": "hypercorn demo.quart_app:app --bind 127.0.0.1:{port} --log-level warning",
    "django as asgi": "uvicorn demo.django_app:asgi --port {port} --log-level warning",
    "django as wsgi": "gunicorn demo.django_app:application --bind 127.0.0.1:{port} --threads 4 "
    "--log-level warning",
    "flask": "waitress --listen=127.0.0.1:{port} demo.flask_app:app",
}


@pytest.fixture(params=RECIPES)
def shop(request: pytest.FixtureRequest, meta: str, tmp_path: Path) -> Iterator[Server]:
    """A recipe as its users start it."""
    port = free_port()
    environment = {
        "CAPI_META": meta,
        "CAPI_STORE": f"sqlite:///{tmp_path / 'capi.db'}",
        "CAPI_SECRET_KEY": SECRET,
    }
    arguments = RECIPES[request.param].format(port=port).split()
    with running(arguments, port, environment=environment, path="/_capi/s.js") as server:
        yield server


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


def follow(page: Page, click: str) -> None:
    """Click and go where it leads."""
    with page.expect_navigation():
        page.click(f"text={click}")


def look_around(page: Page, shop: Server, answer: str) -> None:
    """Answer the consent form, log in and look at a kettle."""
    page.goto(f"{shop.url}/")
    for click in (answer, "Log in", "A kettle"):
        follow(page, click)


def counted(shop: Server) -> Callable[[str, str], object]:
    """What the report says of an event by its name and key."""
    events = report(shop)
    return lambda name, key: events.get(name, {}).get(key)


def test_a_customer_of_the_framework_who_agreed_is_matched(
    shop: Server, meta: str, fake: FakeMeta, page: Page
) -> None:
    look_around(page, shop, "Yes")
    until("a matched ViewContent", lambda: counted(shop)("ViewContent", "matched") == 1)
    follow(page, "Buy it")
    until("a matched Purchase", lambda: counted(shop)("Purchase", "matched") == 1)
    (purchase,) = (one.event for one in fake.received.server if one.key[1] == "Purchase")
    assert purchase["user_data"]["em"] == [sha256(b"jane@example.com").hexdigest()]
    assert purchase["custom_data"] == {"value": 39, "currency": "EUR"}
    assert counted(shop)("Purchase", "server") == 1


def test_nothing_is_sent_of_a_customer_who_refused(
    shop: Server, meta: str, fake: FakeMeta, page: Page
) -> None:
    look_around(page, shop, "No")
    follow(page, "Buy it")
    until("the count", lambda: counted(shop)("Purchase", "suppressed") == {"consent": 1})
    assert page.locator("script").count() == 0
    assert fake.received.server == []
    assert fake.received.browser == []
    assert counted(shop)("ViewContent", "suppressed") == {"consent": 1}
