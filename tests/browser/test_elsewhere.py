"""Pages of another origin than the API's: both copies of everything, and both name the page."""

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.browser.conftest import Problems, Until
from tests.browser.elsewhere import CLASSIC, MODULE, ONE_SITE, TWO_SITES, Front, open_front

LAYOUTS = {"one site": ONE_SITE, "two sites": TWO_SITES}


@pytest.fixture(scope="module", params=LAYOUTS)
def front(request: pytest.FixtureRequest) -> Iterator[Front]:
    with open_front(LAYOUTS[request.param]) as front:
        yield front


def sent(front: Front, **wanted: int) -> bool:
    return all(front.browser(name).count("sent") >= n for name, n in wanted.items())


@pytest.mark.parametrize("tag", [CLASSIC, MODULE], ids=["script", "module"])
def test_a_visit_has_both_copies_of_everything_and_both_name_the_page(
    front: Front, context: BrowserContext, page: Page, until: Until, problems: Problems, tag: str
) -> None:
    before = {name: len(front.browser(name)) for name in ("PageView", "ViewContent", "AddToCart")}
    events, hits = len(front.meta.received.server), len(front.meta.received.browser)
    front.tag = tag
    product = f"{front.url}/products/7?fbclid=Click-1"
    page.goto(product)
    until(lambda: sent(front, PageView=before["PageView"] + 1))
    page.click("#cart")
    until(lambda: sent(front, AddToCart=before["AddToCart"] + 1))
    page.click("#json")
    until(lambda: sent(front, AddToCart=before["AddToCart"] + 2))
    page.click("#lead")
    page.click("#next")
    until(
        lambda: sent(front, PageView=before["PageView"] + 2, ViewContent=before["ViewContent"] + 2)
    )
    front.capi.flush(10)
    received = front.meta.received
    pairs = [
        (one["server"], one["browser"]) for one in received.pairs() if one["event_name"] != "Lead"
    ]
    assert pairs == [(1, 1)] * len(pairs)
    copies = [one.event for one in received.server[events:]]
    names = ["PageView", "ViewContent", "AddToCart", "AddToCart", "PageView", "ViewContent"]
    assert sorted(one["event_name"] for one in copies) == sorted(names)
    pages = {one.eid: one.dl for one in received.browser[hits:]}
    assert {one["event_source_url"] for one in copies} == {
        product,
        f"{front.url}/products/8?utm_source=x",
    }
    assert all(pages[one["event_id"]] == one["event_source_url"] for one in copies)
    cookies = {one["name"]: one["value"] for one in context.cookies(front.url)}
    known = [one["user_data"] for one in copies if one["event_name"] != "AddToCart"]
    assert {one["fbp"] for one in known} == {cookies["_fbp"]}
    assert {one["fbc"] for one in known} == {cookies["_fbc"]}
    for one in front.report().values():
        if one["event_name"] != "Lead":
            assert one["matched"] == one["server"] == one["browser"] > 0
    assert problems.console == []


def test_what_an_xhr_of_such_a_page_brings_is_fired_and_names_its_origin(
    front: Front, page: Page, until: Until, problems: Problems
) -> None:
    before = len(front.browser("AddToCart")), len(front.browser("PageView"))
    front.tag = CLASSIC
    page.goto(f"{front.url}/")
    until(lambda: sent(front, PageView=before[1] + 1))
    page.click("#xhr")
    until(lambda: sent(front, AddToCart=before[0] + 1))
    assert front.seen("AddToCart")[-1].eid
    assert front.told("AddToCart")[-1]["event_source_url"] == f"{front.url}/"
    assert problems.console == []


BY_AXIOS = """new Promise(done => {
    const one = new XMLHttpRequest();
    one.open('POST', '%s/cart');
    one.withCredentials = true;
    one.setRequestHeader('content-type', 'application/json');
    one.setRequestHeader('X-Capi-Page', location.href);
    one.onload = done;
    one.send('{}');
})"""


def test_an_xhr_that_names_its_page_itself_has_that_in_both_copies(
    front: Front, page: Page, until: Until, problems: Problems
) -> None:
    before = len(front.seen("AddToCart")), front.browser("PageView").count("sent")
    front.tag, product = CLASSIC, f"{front.url}/products/7?utm_source=x"
    page.goto(product)
    until(lambda: sent(front, PageView=before[1] + 1))
    page.evaluate(BY_AXIOS % front.api)
    until(lambda: len(front.seen("AddToCart")) == before[0] + 1)
    event = front.told("AddToCart")[-1]
    assert front.seen("AddToCart")[-1].eid == event["event_id"]
    assert front.seen("AddToCart")[-1].dl == event["event_source_url"] == product
    assert problems.console == []


def test_a_page_of_an_origin_that_nobody_named_gets_nothing(page: Page, until: Until) -> None:
    with open_front(ONE_SITE, origins=["https://www.shop.example"]) as front:
        page.goto(f"{front.url}/products/7")
        until(
            lambda: [
                one for one in front.capi.store.tallies(0, 1e12).counts if one.reason == "origin"
            ]
        )
        assert page.evaluate("window.fbq") is None
        assert not front.meta.received.pairs()


def test_an_order_of_a_form_goes_on_to_the_page_elsewhere_that_it_leads_to(
    front: Front, page: Page, until: Until, problems: Problems
) -> None:
    before, orders = front.browser("PageView").count("sent"), front.browser("Purchase")
    front.tag = CLASSIC
    page.goto(f"{front.url}/")
    until(lambda: sent(front, PageView=before + 1))
    page.click("#order")
    page.wait_for_url("**/thanks")
    until(lambda: sent(front, PageView=before + 2))
    # No cookie of the API's goes to another site.
    state = "sent" if "shop." in front.url else "other_site"
    until(lambda: front.browser("Purchase") == [*orders, state])
    assert front.browser("Purchase") == [*orders, state]
    assert front.pairs("Purchase") == [(1, int(state == "sent"))]
    assert problems.console == []


PASSES_ON = """addEventListener('install', () => skipWaiting());
addEventListener('activate', event => event.waitUntil(clients.claim()));
addEventListener('fetch', event => event.respondWith(fetch(event.request)));"""
#: Shows each page again as it was, and our script.
KEEPS = PASSES_ON.replace(
    "fetch(event.request)",
    """(async () => {
    const kept = await caches.open('all'), ask = event.request;
    if (ask.method !== 'GET' || /_capi.b|tr.$|events/.test(ask.url)) return fetch(ask);
    const known = await kept.match(ask);
    if (known) return known;
    const answer = await fetch(ask);
    await kept.put(ask, answer.clone());
    return answer;
})()""",
)


@pytest.mark.parametrize("worker", [PASSES_ON, KEEPS], ids=["passes on", "keeps"])
def test_behind_a_service_worker_of_the_page_both_copies_are_there(
    front: Front, page: Page, until: Until, problems: Problems, worker: str
) -> None:
    front.tag, front.worker = CLASSIC, worker
    names = ("PageView", "ViewContent")
    before = {name: front.browser(name) for name in (*names, "AddToCart")}

    def visit(n: int) -> None:
        page.goto(f"{front.url}/products/9")
        until(lambda: sent(front, **{name: before[name].count("sent") + n for name in names}))

    visit(1)
    page.evaluate("navigator.serviceWorker.register('/sw.js')")
    page.wait_for_function("!!navigator.serviceWorker.controller")
    for n in (2, 3):  # by the worker, which may keep it
        visit(n)
        assert page.evaluate("performance.getEntriesByType('navigation')[0].workerStart > 0")
    page.click("#json")
    until(lambda: sent(front, AddToCart=before["AddToCart"].count("sent") + 1))
    assert front.told("AddToCart")[-1]["event_source_url"] == f"{front.url}/products/9"
    for name, n in {"PageView": 3, "ViewContent": 3, "AddToCart": 1}.items():
        assert front.browser(name) == sorted([*before[name], *["sent"] * n])
        assert front.pairs(name)[-n:] == [(1, 1)] * n
    assert problems.console == []


# -- consent: both kinds of pages ------------------------------------------------------------------

STORIES = {"yes": ["granted"], "no": ["denied"], "a yes that is taken back": ["granted", "denied"]}
COUNTED = {
    "granted": {"granted": 1, "released": 1},
    "denied": {"denied": 1},
    "then denied": {"withdrawn": 1},
}


@pytest.fixture(scope="module", params=LAYOUTS)
def asking(request: pytest.FixtureRequest) -> Iterator[Front]:
    with open_front(LAYOUTS[request.param], consent=lambda request: "unanswered") as front:
        front.tag = CLASSIC
        yield front


@pytest.mark.parametrize("first", ["elsewhere", "own"])
@pytest.mark.parametrize("story", STORIES)
def test_an_answer_on_a_page_holds_for_all_pages_of_its_site(
    asking: Front, context: BrowserContext, page: Page, until: Until, first: str, story: str
) -> None:
    places = {"elsewhere": f"{asking.url}/products/7?fbclid=Click-1", "own": f"{asking.api}/own"}
    other = "own" if first == "elsewhere" else "elsewhere"
    names = ("PageView", "ViewContent")
    before = {name: asking.browser(name).count("sent") for name in names}

    def record() -> Counter[str]:
        counts = asking.capi.store.tallies(0, 1e12).counts
        return Counter({one.reason.split()[1]: one.n for one in counts if one.kind == "consent"})

    def counts(wanted: dict[str, int], begun: Counter[str]) -> None:
        until(lambda: record() - begun == Counter(wanted))

    def opens(place: str, state: str) -> None:
        begun = record()
        page.goto(places[place])
        counts({state: 1}, begun)
        if state == "granted":
            shown(["PageView"] if place == "own" else names)

    def shown(brought: Sequence[str]) -> None:
        for name in brought:
            before[name] += 1
        until(lambda: sent(asking, **before))

    opens(first, "held")
    for n, word in enumerate(STORIES[story]):
        begun = record()
        page.evaluate(f"capi.consent('{word}')")
        counts(COUNTED["then " * bool(n) + word], begun)
        page.wait_for_function(f"document.cookie.includes('capi_consent={word}')")
        if word == "granted":
            shown(["PageView"] if first == "own" else names)
        if first == "elsewhere":
            page.click("#next")  # a step of a single page
            if word == "granted":
                shown(names)
    is_one_site = "shop." in asking.url
    opens(other, word if is_one_site else "held")
    opens(first, word)
    asking.capi.flush(10)
    received = asking.meta.received
    assert {name: asking.browser(name).count("sent") for name in names} == before
    assert all((one["server"], one["browser"]) == (1, 1) for one in received.pairs())
    kept = {one["name"] for one in context.cookies()}
    assert ("_fbp" in kept) is (word == "granted")
