"""Whatever the router: each address that is shown has one PageView, and its own events once."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from playwright.sync_api import Page
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.browser.conftest import Until
from tests.browser.shop import Shop, open_shop
from tests.browser.test_speculation import pypi
from tests.support.libraries import source_of

LINK = "<a id=go href=/products/7>go</a>"
LOADED = "addEventListener('load', () => {%s});"
#: What Livewire's navigate does; its file is in no registry of ours.
LIVEWIRE = """
const push = history.pushState.bind(history);
document.addEventListener('click', async event => {
    event.preventDefault();
    const answer = await fetch(event.target.href);
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    push({}, '', answer.url);
    document.body.replaceWith(document.adoptNode(page.body));
});
"""
#: What the site's own code does for a click.
CLICK = "document.addEventListener('click', event => {event.preventDefault(); %s});"


class Router(NamedTuple):
    """Its source, and what the page has of it."""

    source: Callable[[], str]
    body: str = LINK


def npm(*files: tuple[str, str, str], then: str = "") -> Callable[[], str]:
    return lambda: ";".join([*(source_of(*file) for file in files), then])


def own(source: str) -> Callable[[], str]:
    return lambda: source


def click(does: str) -> Callable[[], str]:
    return own(CLICK % does)


def astro() -> str:
    """The modules of its client router in one, as a bundler makes them."""
    made = "const m = {SERVER_ISLAND_START: '', internalFetchHeaders: {}};"
    for name in ("swap-functions", "events", "router"):
        text = source_of("astro", "7.3.5", f"dist/transitions/{name}.js")
        text = re.sub(r"import (.*?) from .*?;", r"const \1 = m;", text)
        text = re.sub(r"export (\{[^}]*\})", r"return \1", text)
        text = re.sub(r"import\.meta\.env\.\w+", "false", text)
        made += f"Object.assign(m, (() => {{{text}}})());"
    return f"{made}{CLICK % 'm.navigate(event.target.href)'}"


TURBO = "@hotwired/turbo", "dist/turbo.es2017-umd.js"
JQUERY = ("jquery", "3.7.1", "dist/jquery.min.js")
PJAX = ("jquery-pjax", "2.0.1", "jquery.pjax.js")
ROUTERS = {
    "htmx, boosted": Router(
        pypi("django-htmx", "django_htmx/static/django_htmx/htmx-2.min.js"),
        f"<main hx-boost=true>{LINK}</main>",
    ),
    "htmx, a part with an address": Router(
        pypi("django-htmx", "django_htmx/static/django_htmx/htmx-2.min.js"),
        "<a id=go hx-get=/products/7 hx-push-url=true hx-target=body>go</a>",
    ),
    "htmx, an address of another part": Router(
        pypi("django-htmx", "django_htmx/static/django_htmx/htmx-2.min.js"),
        "<a id=go hx-get=/api/part hx-push-url=/products/7 hx-target=body>go</a>",
    ),
    "swup": Router(
        npm(("swup", "4.10.0", "dist/Swup.umd.js"), then=LOADED % "new Swup()"),
        f"<main id=swup class=transition-fade>{LINK}</main>",
    ),
    "jquery-pjax": Router(
        npm(JQUERY, PJAX, then="$(() => $(document).pjax('a', 'main', {fragment: 'main'}))"),
        f"<main>{LINK}</main>",
    ),
    "Inertia": Router(
        npm(
            ("@inertiajs/inertia", "0.11.1", "dist/index.umd.js"),
            then="Inertia.Inertia.init({initialPage: {component: 'a', props: {errors: {}},"
            " url: '/', version: ''}, resolveComponent: n => n, swapComponent: async () => 0});"
            + CLICK % "Inertia.Inertia.visit(event.target.href)",
        )
    ),
    "Unpoly": Router(
        npm(("unpoly", "3.14.3", "unpoly.min.js")),
        "<main><a id=go href=/products/7 up-follow up-target=main>go</a></main>",
    ),
    "Livewire": Router(own(LIVEWIRE)),
    "Astro": Router(astro),
    "Turbo 7": Router(npm((TURBO[0], "7.3.0", TURBO[1]))),
    "Turbo 8": Router(npm((TURBO[0], "8.0.23", TURBO[1]))),
    "Turbo 8 that fetches nothing ahead": Router(
        npm((TURBO[0], "8.0.23", TURBO[1])), f"<main data-turbo-prefetch=false>{LINK}</main>"
    ),
    "a view transition": Router(
        click(
            "fetch('/products/7').then(r => r.text()).then(text => document.startViewTransition("
            "() => { document.body.innerHTML = text; history.pushState({}, '', '/products/7'); }))"
        )
    ),
    "navigate()": Router(
        own(
            "navigation.addEventListener('navigate', event => event.intercept({"
            "handler: () => fetch(event.destination.url).then(r => r.text())}));"
            + CLICK % "navigation.navigate('/products/7')"
        )
    ),
    "intercept()": Router(
        own("navigation.addEventListener('navigate', event => event.intercept())")
    ),
    "pushState, then the data": Router(
        click("history.pushState({}, '', '/products/7'); fetch('/api/part')")
    ),
    "replaceState": Router(click("history.replaceState({}, '', '/products/7')")),
    "a pushState that was kept": Router(
        own("const kept = history.pushState.bind(history);"
            + CLICK % "kept({}, '', '/products/7')")
    ),
    "a pushState that was kept, in a browser without a Navigation API": Router(
        own("Object.defineProperty(window, 'navigation', {value: undefined});"
            "const kept = history.pushState.bind(history);"
            + CLICK % "kept({}, '', '/products/7')")
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with open_shop() as shop:
        plain = shop.page

        async def answer(request: Request) -> Response:
            if request.url.path == "/library.js":
                return Response(shop.worker, media_type="text/javascript")
            if "x-inertia" not in request.headers:
                return await plain(request)
            told = {"component": "b", "props": {"errors": {}}, "url": "/products/7", "version": ""}
            return JSONResponse(told, headers={"x-inertia": "true", "vary": "x-inertia"})

        shop.answer = answer
        yield shop


def copies(shop: Shop) -> Counter[tuple[str, int, int]]:
    """How many events of a name have so many copies of the server and of the browser."""
    names = ("PageView", "ViewContent", "Lead")
    return Counter((name, *pair) for name in names for pair in shop.pairs(name))


@pytest.mark.parametrize("name", ROUTERS)
def test_an_address_that_a_router_shows_has_its_page_view_and_its_event(
    page: Page, shop: Shop, until: Until, name: str
) -> None:
    router = ROUTERS[name]
    shop.worker = router.source()
    shop.head = "<meta name=astro-view-transitions-enabled><script src=/library.js></script>"
    shop.body = router.body
    before = copies(shop)
    page.goto(shop.url)
    until(lambda: (copies(shop) - before)["PageView", 1, 1] == 1)
    page.click("#go")
    page.wait_for_url("**/products/7")
    until(lambda: (copies(shop) - before)["PageView", 1, 1] == 2)
    until(lambda: (copies(shop) - before)["ViewContent", 1, 1] == 1)
    # What comes after all that the router caused.
    page.evaluate("fetch('/api/lead', {method: 'POST'})")
    until(lambda: (copies(shop) - before)["Lead", 1, 1] == 1)
    assert copies(shop) - before == {
        ("PageView", 1, 1): 2, ("ViewContent", 1, 1): 1, ("Lead", 1, 1): 1
    }  # fmt: skip
