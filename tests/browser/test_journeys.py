"""Events that are born away from a page meet their twin all the same: real app, real browser."""

import json
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.browser.conftest import Until
from tests.browser.shop import Shop, open_shop


@pytest.fixture
def shop() -> Iterator[Shop]:
    with open_shop() as shop:
        yield shop


def form(action: str, text: str = "go") -> str:
    return f'<form method=post action="{action}"><button id=go>{text}</button></form>'


def test_an_event_of_a_redirect_is_fired_by_the_page_behind_two_redirects(
    page: Page, shop: Shop, until: Until
) -> None:
    shop.body = form("/cart")
    page.goto(shop.url)
    page.click("#go")
    page.wait_for_url("**/basket")
    until(lambda: shop.browser("AddToCart") == ["sent"])
    assert shop.browser("AddToCart") == ["sent"]
    assert shop.pairs("AddToCart") == [(1, 1)]
    (hit,) = [one for one in shop.meta.received.browser if one.ev == "AddToCart"]
    assert hit.cd == {"value": "9.5", "currency": "EUR"}


def test_it_is_fired_once_though_other_pages_follow(
    page: Page, context: BrowserContext, shop: Shop, until: Until
) -> None:
    shop.body = form("/cart")
    page.goto(shop.url)
    page.click("#go")
    page.wait_for_url("**/basket")
    until(lambda: shop.browser("AddToCart") == ["sent"])
    page.reload()
    other = context.new_page()
    other.goto(shop.url + "/more")
    until(lambda: shop.browser("PageView").count("sent") == 4)
    assert shop.pairs("AddToCart") == [(1, 1)]
    assert not [one for one in context.cookies() if one.get("name") == "capi_next"]


def test_the_same_order_posted_twice_is_one_purchase(page: Page, shop: Shop, until: Until) -> None:
    shop.body = form("/checkout?order=7")
    for _ in range(2):
        page.goto(shop.url)
        page.click("#go")
        page.wait_for_url("**/thanks")
        until(lambda: shop.browser("Purchase") == ["sent"])
    assert shop.pairs("Purchase") == [(1, 1)]


def test_a_cached_page_behind_a_redirect_fires_its_event(
    page: Page, shop: Shop, until: Until
) -> None:
    shop.cache = {"cache-control": "public, max-age=60"}
    shop.body = form("/cart")
    page.goto(shop.url)
    page.click("#go")
    page.wait_for_url("**/basket")
    until(lambda: shop.browser("AddToCart") == ["sent"])
    assert shop.pairs("AddToCart") == [(1, 1)]


@pytest.mark.parametrize(
    "script",
    [
        "fetch('/api/lead', {method: 'POST', body: '{}'})",
        "fetch(new Request('/api/lead'))",
        "fetch(new URL('/api/lead', location))",
        "(x => { x.open('POST', '/api/lead'); x.send('{}'); })(new XMLHttpRequest())",
        "(x => { x.open('POST', '/api/lead', false); x.send('{}'); })(new XMLHttpRequest())",
    ],
)
def test_an_event_of_a_scripts_request_is_fired_by_its_page(
    page: Page, shop: Shop, until: Until, script: str
) -> None:
    page.goto(shop.url)
    until(lambda: shop.browser("PageView") == ["sent"])
    page.evaluate(f"void {script}")
    until(lambda: shop.browser("Lead") == ["sent"])
    assert shop.pairs("Lead") == [(1, 1)]
    [server] = [one for one in shop.meta.received.server if one.event["event_name"] == "Lead"]
    [browser] = [one for one in shop.meta.received.browser if one.ev == "Lead"]
    assert server.event["event_source_url"] == browser.dl == f"{shop.url}/"


def test_an_event_of_a_request_that_was_redirected_for_a_script_is_fired_by_its_page(
    page: Page, shop: Shop, until: Until
) -> None:
    page.goto(shop.url)
    until(lambda: shop.browser("PageView") == ["sent"])
    page.evaluate("fetch('/cart', {method: 'POST'}).then(r => r.text())")
    until(lambda: shop.browser("AddToCart") == ["sent"])
    assert shop.pairs("AddToCart") == [(1, 1)]


def test_an_event_whose_page_is_left_at_once_is_fired_by_the_next_one(
    page: Page, shop: Shop, until: Until
) -> None:
    shop.meta.fail_next(200, delay=1.0, endpoint="fbevents")
    page.goto(shop.url, wait_until="commit")
    until(lambda: page.evaluate("!!window.fbq"))
    page.evaluate("fetch('/api/lead').then(() => { location.href = '/done'; })")
    page.wait_for_url("**/done")
    until(lambda: shop.browser("Lead") == ["sent"])
    assert shop.pairs("Lead") == [(1, 1)]


def test_the_app_sees_its_answers_as_without_us(page: Page, shop: Shop, until: Until) -> None:
    page.goto(shop.url)
    until(lambda: shop.browser("PageView") == ["sent"])
    told = page.evaluate(
        """async () => {
            const seen = [];
            addEventListener('unhandledrejection', event => {
                seen.push('rejected');
                event.preventDefault();
            });
            const answer = fetch('/api/lead');
            seen.push(answer instanceof Promise, (await (await answer).json()).ok);
            try { await fetch('http://127.0.0.1:1/'); } catch (error) { seen.push(error.name); }
            try { await fetch('http://['); } catch (error) { seen.push(error.name); }
            const reader = (await fetch('/')).body.getReader();
            seen.push(typeof (await reader.read()).value.length);
            fetch('http://127.0.0.1:1/').then(() => {});
            await new Promise(done => setTimeout(done, 200));
            return seen;
        }"""
    )
    assert told == [True, True, "TypeError", "TypeError", "number", "rejected"]


def test_a_new_address_is_one_page_view_and_the_event_of_its_route(
    page: Page, shop: Shop, until: Until
) -> None:
    page.goto(shop.url)
    until(lambda: shop.browser("PageView") == ["sent"])
    page.evaluate(
        "history.pushState({}, '', '/loading'); history.replaceState({}, '', '/products/7')"
    )
    until(lambda: shop.browser("ViewContent") == ["sent"])
    until(lambda: shop.browser("PageView") == ["sent", "sent"])
    page.evaluate("history.replaceState({x: 1}, '', '/products/7#part')")
    page.wait_for_timeout(300)
    assert shop.pairs("PageView") == [(1, 1), (1, 1)]
    assert shop.pairs("ViewContent") == [(1, 1)]
    page.go_back()
    until(lambda: shop.browser("PageView") == ["sent"] * 3)
    assert shop.pairs("PageView") == [(1, 1)] * 3


def navigate(order: str, headers: dict[str, str]) -> str:
    """A page put in place by a script: Turbo changes the address first, htmx afterwards."""
    get = f"fetch('/products/7', {{headers: {json.dumps(headers)}}}).then(r => r.text())"
    push = "history.pushState({}, '', '/products/7')"
    if order == "address first":
        return f"(() => {{ const got = {get}; {push}; return got; }})()"
    return f"{get}.then(() => {{ {push}; }})"


@pytest.mark.parametrize(
    ("order", "headers"),
    [
        ("address first", {"accept": "text/html, application/xhtml+xml"}),
        ("address last", {"hx-request": "true", "hx-boosted": "true"}),
    ],
)
def test_a_page_that_a_script_puts_in_place_counts_once(
    page: Page, shop: Shop, until: Until, order: str, headers: dict[str, str]
) -> None:
    page.goto(shop.url)
    until(lambda: shop.browser("PageView") == ["sent"])
    page.evaluate(navigate(order, headers))
    until(lambda: shop.browser("ViewContent") == ["sent"])
    until(lambda: shop.browser("PageView") == ["sent", "sent"])
    page.wait_for_timeout(300)
    assert shop.pairs("PageView") == [(1, 1), (1, 1)]
    assert shop.pairs("ViewContent") == [(1, 1)]


def test_a_part_of_a_page_brings_its_event_and_no_page_view(
    page: Page, shop: Shop, until: Until
) -> None:
    page.goto(shop.url)
    until(lambda: shop.browser("PageView") == ["sent"])
    page.evaluate("fetch('/fragment', {headers: {'hx-request': 'true'}})")
    until(lambda: shop.browser("Search") == ["sent"])
    assert shop.pairs("Search") == [(1, 1)]
    assert shop.pairs("PageView") == [(1, 1)]


LIBRARIES = {
    "htmx 2": ("django-htmx", "django_htmx/static/django_htmx/htmx-2.min.js"),
    "htmx 4": ("django-htmx", "django_htmx/static/django_htmx/htmx-4.min.js"),
    "Turbo 7": ("turbo-django", "turbo/static/turbo/js/turbo.min.js"),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_site_of_real_htmx_or_turbo_fires_each_event_once(
    page: Page, shop: Shop, until: Until, library: str
) -> None:
    package, path = LIBRARIES[library]
    source = Path(str(distribution(package).locate_file(path))).read_text("utf-8")
    shop.head = f"<script>{source}</script>"
    shop.body = (
        "<main hx-boost=true hx-boost:inherited=true><a id=go href=/products/7>go</a>"
        "<form method=post action=/cart><button id=add>add</button></form></main>"
    )
    page.goto(shop.url)
    until(lambda: shop.browser("PageView") == ["sent"])
    page.evaluate("window.kept = true")
    page.click("#go")
    until(lambda: shop.browser("ViewContent") == ["sent"])
    until(lambda: shop.browser("PageView") == ["sent"] * 2)
    page.click("#add")
    page.wait_for_url("**/basket")
    until(lambda: shop.browser("AddToCart") == ["sent"])
    until(lambda: shop.browser("PageView") == ["sent"] * 3)
    page.wait_for_timeout(300)
    assert page.evaluate("window.kept")
    assert shop.pairs("PageView") == [(1, 1)] * 3
    assert shop.pairs("ViewContent") == shop.pairs("AddToCart") == [(1, 1)]
