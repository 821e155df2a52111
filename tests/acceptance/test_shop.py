"""Somebody shops in a real Chromium: one Purchase from both sides, matched in the report."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from capi_middleware.testing import FakeMeta
from tests.acceptance.conftest import Shop, report
from tests.support.processes import Server, until


def buy(page: Page, shop: Server) -> None:
    """Look at every page long enough for its pixel."""
    page.goto(f"{shop.url}/", wait_until="networkidle")
    page.click("a[href='/products/cup']")
    page.wait_for_load_state("networkidle")
    page.click("#add")
    page.wait_for_url("**/cart")
    page.wait_for_load_state("networkidle")
    page.click("#checkout")
    page.wait_for_url("**/checkout")
    page.wait_for_load_state("networkidle")
    page.click("#buy")
    page.wait_for_url("**/thanks")
    page.wait_for_load_state("networkidle")


def copies(fake: FakeMeta, side: str, event_name: str) -> list[str]:
    """The event_ids that arrived from one side for one event_name."""
    received: list[Any] = getattr(fake.received, side)
    return [one.key[2] for one in received if one.key[1] == event_name]


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_purchase_arrives_from_both_sides_with_one_event_id_and_is_matched(
    kind: str, meta: str, fake: FakeMeta, tmp_path: Path, browser: Browser
) -> None:
    with Shop(kind, meta, tmp_path / "capi.db").run() as shop:
        context = browser.new_context()
        page = context.new_page()
        errors: list[Any] = []
        page.on("pageerror", lambda error: errors.append(error))
        buy(page, shop)
        until(
            "both copies",
            lambda: copies(fake, "server", "Purchase") and copies(fake, "browser", "Purchase"),
        )
        until("a match", lambda: report(shop).get("Purchase", {}).get("matched") == 1)
        until("all copies", lambda: report(shop)["PageView"]["matched"] == 5, 30)
        found = report(shop)
        context.close()
    assert errors == []
    from_server, from_browser = (
        copies(fake, "server", "Purchase"),
        copies(fake, "browser", "Purchase"),
    )
    assert len(from_server) == len(from_browser) == 1
    assert from_server == from_browser
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", from_server[0])
    assert found["Purchase"]["coverage"] == 1.0
    counts = {
        name: tuple(event[key] for key in ("server", "browser", "matched"))
        for name, event in found.items()
    }
    # The same counts through both doors. AddToCart is born in a redirect: the next page fires it.
    assert counts == {
        "PageView": (5, 5, 5),
        "ViewContent": (1, 1, 1),
        "AddToCart": (1, 1, 1),
        "InitiateCheckout": (1, 1, 1),
        "Purchase": (1, 1, 1),
    }


def test_a_blocked_script_host_is_named_as_the_cause(
    meta: str, tmp_path: Path, browser: Browser
) -> None:
    with Shop("asgi", meta, tmp_path / "capi.db").run() as shop:
        context = browser.new_context()
        context.route(f"{meta}/**", lambda route: route.abort())
        buy(context.new_page(), shop)
        until(
            "the cause",
            lambda: report(shop)["Purchase"]["missing_browser"] == {"script_blocked": 1},
        )
        found = report(shop)["Purchase"]
        context.close()
    assert (found["server"], found["browser"], found["coverage"]) == (1, 0, None)


def test_a_refreshed_thank_you_page_sends_nothing_twice(
    meta: str, fake: FakeMeta, tmp_path: Path, browser: Browser
) -> None:
    with Shop("asgi", meta, tmp_path / "capi.db").run() as shop:
        context: BrowserContext = browser.new_context()
        page = context.new_page()
        buy(page, shop)
        until("a match", lambda: report(shop).get("Purchase", {}).get("matched") == 1)
        page.reload()
        until("the page view of the refresh", lambda: report(shop)["PageView"]["matched"] == 6)
        context.close()
    assert len(copies(fake, "browser", "Purchase")) == 1
    assert len(copies(fake, "server", "Purchase")) == 1
