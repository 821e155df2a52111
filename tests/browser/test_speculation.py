"""What a library fetches while the mouse is over a link is no view until it is shown: then one."""

from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Page

from capi_middleware import track
from tests.browser.conftest import Until
from tests.browser.shop import Shop, open_shop
from tests.support.libraries import source_of

LINK = "<a id=go href=/products/7>go</a>"
PRELOADED = "<a id=go href=/products/7 preload=mouseover>go</a>"


class Library(NamedTuple):
    """Its source, what the page has of it, and whether it fetches again for the click."""

    source: Callable[[], str]
    body: str
    cache: str = "no-store"
    fetches_again: bool = False


def npm(package: str, version: str, path: str, then: str = "") -> Callable[[], str]:
    return lambda: source_of(package, version, path) + ";" + then


def pypi(package: str, path: str) -> Callable[[], str]:
    return lambda: Path(str(distribution(package).locate_file(path))).read_text("utf-8")


def htmx_preload() -> str:
    htmx = pypi("django-htmx", "django_htmx/static/django_htmx/htmx-2.min.js")()
    return f"{htmx};{source_of('htmx-ext-preload', '2.1.2', 'preload.js')}"


def swup() -> str:
    plugin = source_of("@swup/preload-plugin", "3.2.12", "dist/index.umd.js")
    start = "addEventListener('load', () => new Swup({plugins: [new SwupPreloadPlugin()]}))"
    return f"{source_of('swup', '4.10.0', 'dist/Swup.umd.js')};{plugin};{start}"


QUICKLINK = npm(
    "quicklink", "3.0.2", "dist/quicklink.umd.js",
    "addEventListener('load', () => quicklink.listen({priority: %s}))",
)  # fmt: skip
LIBRARIES = {
    "Turbo 8": Library(
        npm("@hotwired/turbo", "8.0.23", "dist/turbo.es2017-umd.js"), LINK
    ),
    "Unpoly": Library(
        npm("unpoly", "3.14.3", "unpoly.min.js"),
        "<main><a id=go href=/products/7 up-follow up-preload up-target=main>go</a></main>",
    ),
    "swup": Library(swup, f"<main id=swup class=transition-fade>{LINK}</main>"),
    "htmx preload, boosted, kept": Library(
        htmx_preload,
        f"<main hx-boost=true hx-ext=preload>{PRELOADED}</main>",
        cache="private, max-age=60",
    ),
    "htmx preload, boosted, not kept": Library(
        htmx_preload,
        f"<main hx-boost=true hx-ext=preload>{PRELOADED}</main>",
        fetches_again=True,
    ),
    "htmx preload, a plain link, kept": Library(
        htmx_preload,
        f"<main hx-ext=preload>{PRELOADED}</main>",
        cache="private, max-age=60",
    ),
    "quicklink": Library(
        lambda: QUICKLINK().replace("%s", "false"), LINK, cache="private, max-age=60"
    ),
    "quicklink, at once": Library(
        lambda: QUICKLINK().replace("%s", "true"), LINK, cache="private, max-age=60"
    ),
}  # fmt: skip


@pytest.fixture
def shop() -> Iterator[Shop]:
    with open_shop() as shop:
        yield shop


def ahead(shop: Shop) -> list[str]:
    return [path for path, _ in shop.asked if path == "/products/7"]


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_mouse_over_a_link_is_no_view_and_the_click_is_one(
    page: Page, shop: Shop, until: Until, name: str
) -> None:
    library = LIBRARIES[name]
    shop.head = f"<script>{library.source()}</script>"
    shop.body = library.body
    # A link that came to lie under the mouse would be fetched for it once more.
    shop.bodies["/products/7"] = library.body.replace("/products/7", "#here")
    shop.cache = {"cache-control": library.cache}
    page.goto(shop.url)
    until(lambda: shop.browser("PageView") == ["sent"])
    page.hover("#go")
    until(lambda: ahead(shop))
    page.wait_for_timeout(500)
    assert ahead(shop) == ["/products/7"]
    assert shop.browser("ViewContent") == []
    assert shop.pairs("PageView") == [(1, 1)]
    page.click("#go")
    page.wait_for_url("**/products/7")
    until(lambda: shop.browser("ViewContent") == ["sent"])
    until(lambda: shop.browser("PageView") == ["sent", "sent"])
    page.wait_for_timeout(400)
    assert shop.pairs("ViewContent") == [(1, 1)]
    assert shop.pairs("PageView") == [(1, 1), (1, 1)]
    assert len(ahead(shop)) == 1 + library.fetches_again


def test_what_the_view_itself_tracked_waits_with_the_page(
    page: Page, shop: Shop, until: Until
) -> None:
    shop.does = lambda path: (
        track("AddToWishlist", value=7, currency="EUR", content_ids=["cup"])
        if path == "/products/7"
        else None
    )
    library = LIBRARIES["Turbo 8"]
    shop.head = f"<script>{library.source()}</script>"
    shop.body = library.body
    page.goto(shop.url)
    until(lambda: shop.browser("PageView") == ["sent"])
    page.hover("#go")
    until(lambda: ahead(shop))
    page.wait_for_timeout(300)
    assert shop.browser("AddToWishlist") == []
    page.click("#go")
    until(lambda: shop.browser("AddToWishlist") == ["sent"])
    assert shop.pairs("AddToWishlist") == [(1, 1)]
    (hit,) = [one for one in shop.meta.received.browser if one.ev == "AddToWishlist"]
    assert hit.cd == {"value": "7", "currency": "EUR", "content_ids": '["cup"]'}


def test_a_part_that_is_shown_without_an_address_of_its_own_brings_its_event(
    page: Page, shop: Shop, until: Until
) -> None:
    shop.head = f"<script>{LIBRARIES['Unpoly'].source()}</script>"
    shop.body = (
        "<main><a id=go href=/fragment up-follow up-preload up-target=#part up-history=false>"
        "go</a><p id=part></p></main>"
    )
    page.goto(shop.url)
    until(lambda: shop.browser("PageView") == ["sent"])
    page.hover("#go")
    page.wait_for_timeout(500)
    assert shop.browser("Search") == []
    page.click("#go")
    until(lambda: shop.browser("Search") == ["sent"])
    page.wait_for_timeout(300)
    assert shop.pairs("Search") == [(1, 1)]
    assert shop.pairs("PageView") == [(1, 1)]
