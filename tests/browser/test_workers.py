"""Behind a service worker a page is what the browser shows, whoever asked for it."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Until
from tests.browser.shop import Shop, open_shop

WORKERS = {
    "the request itself": "fetch(event.request)",
    "a copy first": "caches.match(event.request).then(r => r || fetch(event.request))",
    "the address alone": "fetch(event.request.url, {credentials: 'include'})",
    "a request of its own": "fetch(new Request(event.request, {mode: 'cors'}))",
}
REGISTER = "navigator.serviceWorker.register('/sw.js').then(() => navigator.serviceWorker.ready)"


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with open_shop() as shop:
        yield shop


@pytest.mark.parametrize("worker", WORKERS)
def test_each_page_behind_a_worker_has_both_copies(
    page: Page, shop: Shop, until: Until, worker: str
) -> None:
    before = len(shop.browser("PageView")), len(shop.browser("ViewContent"))
    shop.worker = (
        "addEventListener('install', () => skipWaiting());"
        "addEventListener('activate', event => event.waitUntil(clients.claim()));"
        "addEventListener('fetch', event => event.request.mode === 'navigate'"
        f" && event.respondWith({WORKERS[worker]}));"
    )
    page.goto(shop.url)
    page.evaluate(REGISTER)
    page.goto(f"{shop.url}/products/7")
    until(lambda: shop.browser("ViewContent").count("sent") == before[1] + 1)
    until(lambda: shop.browser("PageView").count("sent") == before[0] + 2)
    assert page.evaluate("performance.getEntriesByType('navigation')[0].workerStart > 0")
    assert shop.pairs("ViewContent") == [(1, 1)] * (before[1] + 1)
    assert shop.pairs("PageView") == [(1, 1)] * (before[0] + 2)


#: The copy first, and a new one for the next time.
STALE = (
    "caches.match(event.request).then(old => { const fresh = fetch(event.request).then(r =>"
    " caches.open('c').then(c => c.put(event.request, r.clone())).then(() => r));"
    " return old || fresh; })"
)


def test_a_document_that_a_worker_kept_gets_new_ids(page: Page, until: Until) -> None:
    with open_shop() as shop:
        shop.worker = (
            "addEventListener('install', () => skipWaiting());"
            "addEventListener('activate', event => event.waitUntil(clients.claim()));"
            "addEventListener('fetch', event => event.request.mode === 'navigate'"
            f" && event.respondWith({STALE}));"
        )
        page.goto(shop.url)
        page.evaluate(REGISTER)
        page.goto(f"{shop.url}/products/7")
        until(lambda: shop.browser("ViewContent") == ["sent"])
        kept = page.evaluate("document.querySelector('[data-c]').textContent")
        second = page.context.new_page()  # its sessionStorage knows nothing
        second.goto(f"{shop.url}/products/7")
        assert second.evaluate("document.querySelector('[data-c]').textContent") == kept
        until(lambda: shop.browser("ViewContent").count("sent") == 2)
        until(lambda: shop.browser("PageView").count("sent") == 3)
        hits = [hit.eid for hit in shop.meta.received.browser]
        assert len(hits) == len(set(hits)) == 5
