"""Who a visitor is, in a real Chromium: both copies carry the same fbp, fbc and hashes."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from capi_middleware import CAPI, CAPIMiddleware, Config, EventRoute, Pixel, UserData, track
from capi_middleware.testing import FakeMeta
from tests.support.configs import PIXEL_ID, SECRET, TOKEN
from tests.support.processes import until
from tests.support.servers import serve

EMAIL = "Jane@Example.com"
DIGEST = sha256(EMAIL.lower().encode()).hexdigest()
PAGE = "<!doctype html><html><head><title>Shop</title></head><body>Hi</body></html>"


def page_of(request: Request) -> Response:
    if request.url.path == "/landing":
        return RedirectResponse("/home")
    if request.url.path == "/thanks":
        track("Purchase", value=9, currency="EUR", user_data=UserData(em=EMAIL))
    cache = "public, max-age=60" if request.url.path == "/cached" else "no-store"
    return HTMLResponse(PAGE, headers={"cache-control": cache})


@pytest.fixture
def fake() -> FakeMeta:
    return FakeMeta()


@pytest.fixture
def site(fake: FakeMeta, request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[str]:
    """A site with the settings of the test's parameter."""
    app = Starlette(routes=[Route("/{path:path}", page_of)])
    with serve(fake.app) as meta:
        given: dict[str, Any] = {
            "routes": [EventRoute("GET /cached", "ViewContent")],
            "store": f"sqlite:///{tmp_path / 'capi.db'}",
            "graph_url": meta,
            "pixel_script_url": f"{meta}/en_US/fbevents.js",
            **getattr(request, "param", {}),
        }
        config = Config(secret_key=SECRET, pixels=[Pixel(PIXEL_ID, TOKEN)], **given)
        with serve(CAPIMiddleware(app, CAPI(config))) as url:
            yield url


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


def server(fake: FakeMeta, name: str) -> list[dict[str, Any]]:
    return [one.event for one in fake.received.server if one.event["event_name"] == name]


def hits(fake: FakeMeta, name: str) -> list[Any]:
    return [one for one in fake.received.browser if one.ev == name]


def cookies(page: Page) -> dict[str, str]:
    return {one.get("name", ""): one.get("value", "") for one in page.context.cookies()}


def test_a_click_on_an_ad_survives_a_redirect_and_reaches_both_copies_of_the_purchase(
    page: Page, site: str, fake: FakeMeta
) -> None:
    page.goto(f"{site}/landing?fbclid=IwAR0-Click_Id", wait_until="networkidle")
    page.goto(f"{site}/thanks", wait_until="networkidle")
    until("the Purchase", lambda: server(fake, "Purchase") and hits(fake, "Purchase"))
    user_data = server(fake, "Purchase")[0]["user_data"]
    assert user_data["fbc"].endswith(".IwAR0-Click_Id")
    assert cookies(page) == {"_fbp": user_data["fbp"], "_fbc": user_data["fbc"]}


@pytest.mark.parametrize("site", [{"advanced_matching": True}], indirect=True)
def test_advanced_matching_gives_the_pixel_the_same_digest_as_the_server(
    page: Page, site: str, fake: FakeMeta
) -> None:
    page.goto(f"{site}/thanks", wait_until="networkidle")
    until("the Purchase", lambda: server(fake, "Purchase") and hits(fake, "Purchase"))
    assert server(fake, "Purchase")[0]["user_data"]["em"] == [DIGEST]
    assert hits(fake, "Purchase")[0].params["ud[em]"] == DIGEST


def test_a_cached_page_gets_its_cookies_with_the_answer_to_its_question(
    page: Page, site: str, fake: FakeMeta
) -> None:
    page.goto(f"{site}/cached?fbclid=Click", wait_until="networkidle")
    until("the event", lambda: server(fake, "ViewContent") and hits(fake, "ViewContent"))
    user_data = server(fake, "ViewContent")[0]["user_data"]
    assert cookies(page) == {"_fbp": user_data["fbp"], "_fbc": user_data["fbc"]}
    assert user_data["fbc"].endswith(".Click")


@pytest.mark.parametrize("site", [{"consent": "cookiebot"}], indirect=True)
@pytest.mark.parametrize("path", ["/home", "/cached"])
def test_nothing_leaves_before_the_banner_is_answered_and_everything_after(
    page: Page, site: str, fake: FakeMeta, path: str
) -> None:
    page.goto(site + path, wait_until="networkidle")
    assert cookies(page) == {}
    assert page.evaluate("typeof fbq") == "undefined"
    value = quote("{stamp:'x',necessary:true,marketing:true,method:'explicit'}")
    page.context.add_cookies([{"name": "CookieConsent", "value": value, "url": site}])
    page.goto(f"{site}{path}?again", wait_until="networkidle")
    until("both copies", lambda: server(fake, "PageView") and hits(fake, "PageView"))
    assert len(server(fake, "PageView")) == len(hits(fake, "PageView")) == 1


@pytest.mark.parametrize(
    "site", [{"consent": lambda request: ("limited", "US", "CA")}], indirect=True
)
def test_limited_data_use_is_told_by_both_copies(page: Page, site: str, fake: FakeMeta) -> None:
    page.goto(f"{site}/home", wait_until="networkidle")
    until("both copies", lambda: server(fake, "PageView") and hits(fake, "PageView"))
    assert server(fake, "PageView")[0]["data_processing_options_state"] == 1000
    told = hits(fake, "PageView")[0].params
    assert (told["dpo"], told["dpoco"], told["dpost"]) == ("LDU", "1", "1000")
