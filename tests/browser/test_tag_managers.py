"""Beside the site's own base code each page has one PageView, and all that is sent is seen."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route

from tests.browser.conftest import Until
from tests.browser.shop import Shop, open_shop
from tests.browser.site import own_snippet
from tests.support.configs import PIXEL_ID

INIT = f"fbq('init', '{PIXEL_ID}');"
VIEW = "fbq('track', 'PageView');"
#: Meta's base code does nothing where there is a pixel already.
BASE = f"if (!window.fbq) throw Error('too early'); {INIT}"
LATE = "addEventListener('load', () => setTimeout(() => {%s}, 300))"


#: The library comes after our script: what it sent before that can be given no id.
HELD = (
    "<script async src=",
    "<script>addEventListener('load', () => document.head.append(Object.assign("
    "document.createElement('script'), {src: document.querySelector('[data-src]').dataset.src})))"
    "</script><script type=text/plain data-src=",
)


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with open_shop() as shop:
        yield shop


#: What the head has before our tag (a snippet of its own), and what runs after the load.
PLACES = {
    "before": (INIT + VIEW, ""),
    "before, with an id of its own": (INIT + "fbq('track', 'PageView', {}, {eventID: 'x1'});", ""),
    "before, by two plugins": (INIT + VIEW + INIT + VIEW, ""),
    "late": ("", BASE + VIEW),
    "late, with an id of its own": ("", BASE + "fbq('track', 'PageView', {}, {eventID: 'x2'});"),
    "late, to one pixel": ("", BASE + f"fbq('trackSingle', '{PIXEL_ID}', 'PageView');"),
    "late, by push": ("", BASE + "fbq.push('track', 'PageView');"),
    "late, by _fbq": ("", BASE + "_fbq('track', 'PageView');"),
    "before and late": (INIT + VIEW, BASE + VIEW),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_page_has_one_page_view_whose_twin_has_its_id(
    page: Page, shop: Shop, until: Until, place: str
) -> None:
    before, late = PLACES[place]
    shop.head = own_snippet(before, shop.meta_url).replace(*HELD) if before else ""
    shop.body = f"<script>{LATE % (late + 'window.done = true')}</script>"
    known = len(shop.pairs("PageView"))
    page.goto(shop.url)
    page.wait_for_function("window.done")
    until(lambda: len(shop.pairs("PageView")) > known)
    page.wait_for_timeout(300)
    assert shop.pairs("PageView") == [(1, 1)] * (known + 1)


@pytest.mark.parametrize(
    ("answer", "given"),
    [
        ("", ""),
        ("", ", {}, {eventID: 'x1'}"),
        *((one, "") for one in ("denied", "refused", "cut", "left")),
    ],
)
def test_a_library_that_is_ready_while_a_cached_page_asks_sends_each_event_once(
    page: Page, alone: Shop, until: Until, given: str, answer: str
) -> None:
    alone.cache = {"cache-control": "public, max-age=60"}
    calls = f"{INIT}fbq('track', 'PageView'{given});fbq('track', 'ViewContent');"
    alone.head = own_snippet(calls, alone.meta_url)
    libraries: list[Route] = []
    questions: list[Route] = []
    page.route("**/fbevents.js", lambda route: libraries.append(route))
    page.route("**/_capi/t", lambda route: questions.append(route))
    page.goto(f"{alone.url}/products/7", wait_until="commit")
    until(lambda: questions and libraries)
    libraries[0].continue_()
    page.wait_for_function("fbq.callMethod && !Object.keys(fbq.instance.locks).length")
    if answer:
        if answer == "left":
            page.goto(f"{alone.url}/sw.js")
        elif answer == "cut":
            questions[0].abort()
        elif answer == "denied":
            questions[0].fulfill(json={"x": "denied", "e": []})
        else:
            questions[0].fulfill(status=400, json={})
        until(lambda: len(alone.meta.received.browser) == 2)
        found = sorted(hit.ev for hit in alone.meta.received.browser)
        assert found == ["PageView", "ViewContent"]
        return
    questions[0].continue_()
    until(lambda: alone.browser("PageView") == alone.browser("ViewContent") == ["sent"])
    assert alone.pairs("PageView") == alone.pairs("ViewContent") == [(1, 1)]


@pytest.mark.parametrize("cache", ["no-store", "public, max-age=60"])
def test_a_page_view_that_is_on_its_way_when_our_script_comes_is_not_sent_again(
    page: Page, alone: Shop, until: Until, cache: str
) -> None:
    alone.cache = {"cache-control": cache}
    alone.head = own_snippet(INIT + VIEW, alone.meta_url)
    alone.meta.fail_next(200, times=None, delay=2, endpoint="tr")
    scripts: list[Route] = []
    page.route("**/s.js**", lambda route: scripts.append(route))
    page.goto(alone.url, wait_until="commit")
    until(lambda: scripts and alone.meta.received.browser)
    scripts[0].continue_()
    until(lambda: sorted(alone.browser("PageView")) == ["sent", "unknown"])
    assert sorted(alone.browser("PageView")) == ["sent", "unknown"]
    assert sorted(alone.pairs("PageView")) == [(0, 1), (1, 0)]


@pytest.mark.parametrize("how", ["mine", "again"])
def test_what_is_sent_past_us_is_counted_as_the_browsers_alone(
    page: Page, shop: Shop, until: Until, how: str
) -> None:
    shop.body = ""
    shop.head = own_snippet(f"{INIT} window.mine = fbq;", shop.meta_url)
    known = len(shop.browser("Contact"))
    page.goto(shop.url)
    page.wait_for_function("window.fbq.callMethod && !fbq.queue.length")
    page.evaluate(
        "mine('track', 'Contact')" if how == "mine" else "fbq.callMethod('track', 'Contact')"
    )
    until(lambda: len(shop.browser("Contact")) > known and "not_run" not in shop.browser("Contact"))
    assert shop.browser("Contact") == ["sent"] * (known + 1)
    assert shop.pairs("Contact") == [(0, known + 1)]  # bare: told apart by nothing


@pytest.fixture
def alone() -> Iterator[Shop]:
    """A shop that no other page has to do with."""
    with open_shop() as shop:
        yield shop


SNIPPET = (
    "(() => { const f = window.fbq = (...call) => f.callMethod ? f.callMethod(...call)"
    " : f.queue.push(call); Object.assign(f, {push: f, loaded: true, version: '2.0', queue: []});"
    "})();"
)


def test_a_second_library_in_the_page_brings_no_second_page_view(
    page: Page, alone: Shop, until: Until
) -> None:
    page.goto(alone.url)
    until(lambda: alone.pairs("PageView") == [(1, 1)])
    page.evaluate(f"{SNIPPET}{INIT}{VIEW}fbq('track', 'Search', {{}}, {{eventID: 's1'}});")
    page.add_script_tag(url=f"{alone.meta_url}/en_US/fbevents.js")
    until(lambda: alone.pairs("Search"))
    assert (alone.pairs("PageView"), alone.pairs("Search")) == ([(1, 1)], [(0, 1)])


def test_a_wrapper_of_the_page_s_own_costs_no_page_view(
    page: Page, alone: Shop, until: Until
) -> None:
    wrap = (
        "const old = fbq; window.fbq = Object.assign((...call) => old(...call), old);"
        "fbq('track', 'PageView', {}, {eventID: 'w1'});"
    )
    alone.head = own_snippet(INIT, alone.meta_url)
    page.goto(alone.url)
    until(lambda: alone.pairs("PageView") == [(1, 1)])
    page.evaluate(f"history.pushState({{}}, '', '/wrapped'); {wrap}")
    until(lambda: len(alone.pairs("PageView")) > 1)
    assert sorted(alone.pairs("PageView")) == [(0, 1), (1, 1)]


def test_what_a_frame_sends_is_counted_as_the_browsers_alone(
    page: Page, alone: Shop, until: Until
) -> None:
    page.goto(alone.url)
    page.wait_for_function("!!window.fbq && !!fbq.callMethod")
    page.evaluate(
        "([url, id]) => { const frame = document.body.appendChild(document.createElement("
        "'iframe')); new frame.contentWindow.Image().src = `${url}/tr/?id=${id}&ev=Donate`; }",
        [alone.meta_url, PIXEL_ID],
    )
    until(lambda: alone.browser("Donate") == ["sent"])
    assert alone.browser("Donate") == ["sent"]


def test_an_address_for_which_the_page_itself_sends_a_page_view_at_once_has_one(
    page: Page, alone: Shop, until: Until
) -> None:
    page.goto(alone.url)
    until(lambda: alone.pairs("PageView") == [(1, 1)])
    page.evaluate("history.pushState({}, '', '/products/8'); fbq('track', 'PageView');")
    until(lambda: alone.pairs("ViewContent") == [(1, 1)])
    until(lambda: alone.pairs("PageView") == [(1, 1), (1, 1)])
    assert alone.pairs("ViewContent") == [(1, 1)]
    assert alone.pairs("PageView") == [(1, 1), (1, 1)]


def test_a_call_by_the_librarys_second_name_before_all_others_has_both_copies(
    page: Page, until: Until
) -> None:
    with open_shop(mirror=True) as shop:
        libraries: list[Route] = []
        page.route("**/fbevents.js", lambda route: libraries.append(route))
        page.goto(shop.url, wait_until="commit")
        until(lambda: libraries)
        page.evaluate("_fbq('track', 'Lead')")
        libraries[0].continue_()
        until(lambda: shop.browser("Lead") == ["sent"] and shop.pairs("Lead") == [(1, 1)])
        assert shop.pairs("Lead") == [(1, 1)]
