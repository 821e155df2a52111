"""The page's own pixel calls: adopted, mirrored, or written down as the browser's alone."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route

from capi_middleware import EventRoute
from tests.browser.conftest import Until
from tests.browser.shop import Shop, open_shop
from tests.browser.site import own_snippet
from tests.support.configs import PIXEL_ID

INIT = f"fbq('init', '{PIXEL_ID}');"


@pytest.fixture
def plain() -> Iterator[Shop]:
    with open_shop() as shop:
        yield shop


@pytest.fixture
def mirror() -> Iterator[Shop]:
    with open_shop(mirror=True) as shop:
        yield shop


def server_events(shop: Shop, name: str) -> list[dict[str, object]]:
    shop.capi.flush(10)
    found = [one.event for one in shop.meta.received.server]
    return [one for one in found if one["event_name"] == name]


def gaps(shop: Shop, name: str) -> list[tuple[str, str, int]]:
    """(server, browser, n) of the ledger's rows of a name."""
    shop.capi.flush(10)
    rows = shop.capi.store.tallies(0, 1e12).rows
    return [(row.server, row.browser, row.n) for row in rows if row.event_name == name]


@pytest.mark.parametrize("call", ["track", "trackCustom"])
def test_a_call_of_the_page_gets_an_event_id_and_a_server_copy(
    page: Page, mirror: Shop, until: Until, call: str
) -> None:
    mirror.body = (
        f"<button id=go onclick=\"fbq('{call}', 'AddToCart', "
        "{content_ids: ['a'], value: 5, currency: 'EUR'})\">buy</button>"
    )
    page.goto(mirror.url)
    until(lambda: mirror.browser("PageView") == ["sent"])
    page.click("#go")
    until(lambda: mirror.browser("AddToCart") == ["sent"])
    assert mirror.pairs("AddToCart") == [(1, 1)]
    (event,) = server_events(mirror, "AddToCart")
    assert event["custom_data"] == {"content_ids": ["a"]}  # no money of the browser's
    assert event["event_source_url"] == mirror.url + "/"


def test_what_the_config_names_comes_with_its_value(page: Page, until: Until) -> None:
    with open_shop(mirror=["Subscribe"]) as shop:
        page.goto(shop.url)
        until(lambda: shop.browser("PageView") == ["sent"])
        page.evaluate("fbq('track', 'Subscribe', {value: 5, currency: 'EUR'})")
        until(lambda: shop.browser("Subscribe") == ["sent"])
        (event,) = server_events(shop, "Subscribe")
        assert event["custom_data"] == {"value": 5, "currency": "EUR"}


def test_a_purchase_never_comes_from_the_browser_alone(
    page: Page, mirror: Shop, until: Until
) -> None:
    page.goto(mirror.url)
    until(lambda: mirror.browser("PageView") == ["sent"])
    page.evaluate("fbq('track', 'Purchase', {value: 9999, currency: 'EUR'})")
    until(lambda: mirror.browser("Purchase") == ["sent"])
    assert gaps(mirror, "Purchase") == [("unmapped", "sent", 1)]
    assert server_events(mirror, "Purchase") == []


def test_without_mirror_a_call_stays_as_it_is_and_is_counted_as_unmapped(
    page: Page, plain: Shop, until: Until
) -> None:
    page.goto(plain.url)
    until(lambda: plain.browser("PageView") == ["sent"])
    page.evaluate("fbq('track', 'Contact')")
    until(lambda: plain.browser("Contact") == ["sent"])
    assert gaps(plain, "Contact") == [("unmapped", "sent", 1)]
    (hit,) = [one for one in plain.meta.received.browser if one.ev == "Contact"]
    assert hit.eid is None
    assert server_events(plain, "Contact") == []


@pytest.mark.parametrize("settings", [{}, {"mirror": ["Subscribe"]}])
def test_a_call_at_an_address_that_a_script_made_is_counted_too(
    page: Page, until: Until, settings: dict[str, list[str]]
) -> None:
    with open_shop(**settings) as shop:
        page.goto(shop.url + "/products/7")
        until(lambda: shop.browser("PageView") == ["sent"])
        page.evaluate("history.pushState({}, '', '/step/2')")
        until(lambda: shop.browser("PageView") == ["sent", "sent"])
        page.evaluate("fbq('track', 'Contact')")
        until(lambda: gaps(shop, "Contact") == [("unmapped", "sent", 1)])
        assert gaps(shop, "Contact") == [("unmapped", "sent", 1)]


def test_a_call_on_a_page_out_of_the_browsers_cache_is_counted_too(
    page: Page, plain: Shop, until: Until
) -> None:
    plain.cache = {"cache-control": "private, max-age=600"}

    def visit(n: int) -> None:
        page.goto(plain.url + "/products/7")
        until(lambda: len(plain.browser("PageView")) == n)
        page.evaluate("fbq('track', 'Contact')")
        until(lambda: gaps(plain, "Contact") == [("unmapped", "sent", n)])
        page.goto("about:blank")

    visit(1)
    visit(2)
    assert plain.asked == [("/products/7", None)]
    assert gaps(plain, "Contact") == [("unmapped", "sent", 2)]


def test_calls_of_one_name_that_waited_for_the_settings_are_each_seen_to_leave(
    page: Page, plain: Shop, until: Until
) -> None:
    calls = f"{INIT}fbq('track', 'Contact');fbq('track', 'Contact');"
    plain.head = own_snippet(calls, plain.meta_url)
    plain.meta.fail_next(200, delay=0.5, endpoint="config")
    page.goto(plain.url)
    until(lambda: gaps(plain, "Contact") == [("unmapped", "sent", 2)])
    assert gaps(plain, "Contact") == [("unmapped", "sent", 2)]


def test_a_call_with_the_sites_own_event_id_keeps_it(
    page: Page, mirror: Shop, until: Until
) -> None:
    page.goto(mirror.url)
    until(lambda: mirror.browser("PageView") == ["sent"])
    page.evaluate("fbq('track', 'Lead', {}, {eventID: 'order-7'})")
    until(lambda: mirror.browser("Lead") == ["sent"])
    assert mirror.pairs("Lead") == [(1, 1)]
    assert [one["event_id"] for one in server_events(mirror, "Lead")] == ["order-7"]


def test_the_pages_own_snippet_and_ours_make_one_page_view_with_a_twin(
    page: Page, plain: Shop, until: Until
) -> None:
    plain.head = own_snippet(f"{INIT}fbq('track', 'PageView');", plain.meta_url)
    plain.meta.fail_next(200, delay=0.3, endpoint="fbevents")
    page.goto(plain.url)
    until(lambda: plain.browser("PageView") == ["sent"])
    assert plain.pairs("PageView") == [(1, 1)]


def test_a_theme_that_fires_the_event_of_the_route_too_does_not_double_it(
    page: Page, plain: Shop, until: Until
) -> None:
    calls = f"{INIT}fbq('track', 'PageView');fbq('track', 'ViewContent', {{content_name: 'x'}});"
    plain.head = own_snippet(calls, plain.meta_url)
    plain.meta.fail_next(200, delay=0.3, endpoint="fbevents")
    page.goto(plain.url + "/products/7")
    until(lambda: plain.browser("ViewContent") == ["sent"])
    assert plain.pairs("ViewContent") == [(1, 1)]
    (hit,) = [one for one in plain.meta.received.browser if one.ev == "ViewContent"]
    assert hit.cd == {"content_name": "x"}


@pytest.mark.parametrize(
    "body",
    [
        "<a id=go href='#x' data-capi-event=Contact><b>call us</b></a>",
        "<button id=go onclick=\"capi.track('Contact')\">call us</button>",
    ],
)
def test_sites_without_pixel_code_of_their_own_say_it_in_html(
    page: Page, mirror: Shop, until: Until, body: str
) -> None:
    mirror.body = body
    page.goto(mirror.url)
    until(lambda: mirror.browser("PageView") == ["sent"])
    page.click("#go")
    until(lambda: mirror.browser("Contact") == ["sent"])
    assert mirror.pairs("Contact") == [(1, 1)]


#: What a page does with a form that is submitted, by how: whether the form is sent.
SUBMITTED = {
    "a field that the browser refuses": ("", False),
    "a check that says no": ("form.onsubmit = () => false", False),
    "a check that stops the event on its way": (
        "form.onsubmit = e => { e.stopPropagation(); new FormData(form); return false; }", False,
    ),
    "a check that asks somebody else": (
        "form.onsubmit = () => { fetch('http://localhost:1/', {method: 'POST'}).catch(() => 0);"
        " return false; }", False,
    ),
    "sent by the browser": ("form.onsubmit = () => true", True),
    "sent by the script": (
        "form.onsubmit = () => { fetch('/api/lead', {method: 'POST', body: new FormData(form)});"
        " return false; }", True,
    ),
    "sent to its address after a while": (
        "const x = new XMLHttpRequest();"
        "form.onsubmit = e => { e.preventDefault();"
        " setTimeout(() => { x.open('GET', '/elsewhere?q=1'); x.send(); }, 50); }", True,
    ),
    "sent by submit() of the script": (
        "form.onsubmit = e => { form.submit(); return false; }", True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SUBMITTED)
def test_a_forms_event_is_fired_when_the_form_is_really_sent(
    page: Page, mirror: Shop, until: Until, case: str
) -> None:
    does, is_sent = SUBMITTED[case]
    field = "" if does else "<input required>"
    mirror.body = (
        f"<form action=/elsewhere data-capi-event=Contact>{field}<button id=go></form>"
        f"<script>const form = document.querySelector('form'); {does}</script>"
        "<button id=end onclick=\"capi.track('Schedule')\">"
    )
    page.goto(mirror.url)
    until(lambda: mirror.browser("PageView") == ["sent"])
    page.click("#go")
    if is_sent:
        until(lambda: mirror.pairs("Contact"))
    else:
        page.click("#end")
        until(lambda: mirror.browser("Schedule") == ["sent"])
    assert [server for server, _ in mirror.pairs("Contact")] == [1] * is_sent


def test_a_click_that_leaves_the_page_keeps_its_server_copy(
    page: Page, mirror: Shop, until: Until
) -> None:
    mirror.body = "<a id=go href='/elsewhere' data-capi-event=Lead>go</a>"
    page.goto(mirror.url)
    until(lambda: mirror.browser("PageView") == ["sent"])
    page.click("#go")
    page.wait_for_url("**/elsewhere")
    until(lambda: mirror.pairs("Lead") == [(1, 1)])
    assert mirror.pairs("Lead") == [(1, 1)]


def test_a_cached_page_mirrors_too(page: Page, mirror: Shop, until: Until) -> None:
    mirror.cache = {"cache-control": "public, max-age=60"}
    page.goto(mirror.url)
    until(lambda: mirror.browser("PageView") == ["sent"])
    page.evaluate("fbq('track', 'Contact')")
    until(lambda: mirror.browser("Contact") == ["sent"])
    assert mirror.pairs("Contact") == [(1, 1)]


def test_an_event_id_that_the_site_prints_itself_is_the_same_event(
    page: Page, mirror: Shop, until: Until
) -> None:
    page.goto(mirror.url)
    until(lambda: mirror.browser("PageView") == ["sent"])
    event_id = page.evaluate("fetch('/api/lead').then(r => r.headers.get('x-capi-events'))")
    known = event_id.split('"i":"')[1].split('"')[0]
    page.evaluate(f"fbq('track', 'Lead', {{}}, {{eventID: '{known}'}})")
    until(lambda: mirror.browser("Lead") == ["sent"])
    assert [one["event_id"] for one in server_events(mirror, "Lead")] == [known]


@pytest.mark.parametrize("setting", [True, False])
def test_the_page_view_of_a_page_from_the_browsers_cache_is_the_browsers_alone(
    page: Page, until: Until, setting: bool
) -> None:
    with open_shop(mirror=setting) as shop:
        page.goto(shop.url)
        until(lambda: shop.browser("PageView") == ["sent"])
        page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
        until(lambda: shop.browser("PageView") == ["sent", "sent"])
        assert sorted(gaps(shop, "PageView")) == [("delivered", "sent", 1), ("unmapped", "sent", 1)]
        assert [hit.eid is None for hit in shop.meta.received.browser] == [False, True]


@pytest.mark.parametrize(("value", "differing"), [(9.5, 0), (8, 1)], ids=["same", "other"])
def test_copies_of_one_event_with_other_values_are_found(
    page: Page, until: Until, value: float, differing: int
) -> None:
    money = {"value": "9.50", "currency": "EUR"}
    routes = [EventRoute("GET /products/{sku}", "ViewContent", custom_data=money)]
    with open_shop(routes=routes) as shop:
        call = f"fbq('track', 'ViewContent', {{value: {value}, currency: 'EUR'}})"
        shop.head = own_snippet(f"{INIT} {call}", shop.meta_url)
        held: list[Route] = []
        page.route("**/fbevents.js", lambda route: held.append(route))
        page.goto(f"{shop.url}/products/7", wait_until="commit")
        until(lambda: page.evaluate("!!window.capi"))
        held[0].continue_()
        until(lambda: shop.browser("ViewContent") == ["sent"])
        assert shop.pairs("ViewContent") == [(1, 1)]
        told = shop.capi.store.tallies(0, 1e12).differences
        assert sum(one.n for one in told) == differing


def test_a_number_as_event_id_is_kept_and_told(page: Page, plain: Shop, until: Until) -> None:
    page.goto(plain.url)
    until(lambda: plain.browser("PageView") == ["sent"])
    page.evaluate("fbq('track', 'Lead', {value: ''}, {eventID: 12345})")
    until(lambda: plain.browser("Lead") == ["sent"])
    assert [hit.eid for hit in plain.meta.received.browser if hit.ev == "Lead"] == ["12345"]


def test_a_page_view_of_the_site_that_the_library_drops_is_none(
    page: Page, mirror: Shop, until: Until
) -> None:
    page.goto(mirror.url)
    until(lambda: mirror.browser("PageView") == ["sent"])
    page.evaluate("fbq('track', 'PageView'); fbq('track', 'Contact')")  # a tag manager, later
    until(lambda: mirror.browser("Contact") == ["sent"])
    assert mirror.pairs("PageView") == [(1, 1)]
    assert gaps(mirror, "PageView") == [("delivered", "sent", 1)]


def test_a_single_page_app_that_sends_its_own_page_views_has_one_each(
    page: Page, plain: Shop, until: Until
) -> None:
    page.goto(plain.url)
    until(lambda: plain.browser("PageView") == ["sent"])
    for n in (1, 2):
        page.evaluate(f"history.pushState({{}}, '', '/step/{n}')")
        until(lambda n=n: plain.browser("PageView") == ["sent"] * (n + 1))  # type: ignore[misc]
        page.evaluate("fbq('track', 'PageView')")
    page.evaluate("fbq('track', 'Contact')")
    until(lambda: plain.browser("Contact") == ["sent"])
    assert plain.pairs("PageView") == [(1, 1)] * 3


def test_calls_that_wait_for_the_settings_of_the_pixel_get_an_event_id(
    page: Page, mirror: Shop, until: Until
) -> None:
    calls = f"{INIT} fbq('track', 'PageView'); fbq('track', 'Donate');"
    mirror.head = own_snippet(calls, mirror.meta_url)
    scripts: list[Route] = []
    settings: list[Route] = []
    page.route("**/s.js**", lambda route: scripts.append(route))
    page.route("**/signals/config/**", lambda route: settings.append(route))
    page.goto(mirror.url, wait_until="commit")
    until(lambda: bool(settings))  # the library runs, and waits
    scripts[0].continue_()
    until(lambda: page.evaluate("!!window.capi"))
    settings[0].continue_()
    until(lambda: mirror.browser("Donate") == ["sent"])
    until(lambda: mirror.browser("PageView") == ["sent"])
    assert mirror.pairs("Donate") == mirror.pairs("PageView") == [(1, 1)]


def reused(shop: Shop) -> dict[tuple[str, str], int]:
    shop.capi.flush(10)
    counts = shop.capi.store.tallies(0, 1e12).counts
    return {(one.event_name, one.reason): one.n for one in counts if one.kind == "reused"}


def test_each_name_that_one_id_has_is_told(page: Page, plain: Shop, until: Until) -> None:
    page.goto(plain.url + "/products/7")
    until(lambda: plain.browser("ViewContent") == ["sent"])
    page.evaluate(
        "const block = JSON.parse(document.querySelector('[data-c]').textContent);"
        "const {i: eventID} = block.e.find(one => one.n === 'ViewContent');"
        "fbq('trackCustom', 'viewcontent', {}, {eventID});"
        "fbq('track', 'Lead', {}, {eventID: 'a-1'});"
        "fbq('track', 'CompleteRegistration', {}, {eventID: 'a-1'})"
    )
    for name in ("viewcontent", "Lead", "CompleteRegistration"):
        until(lambda name=name: plain.browser(name) == ["sent"])  # type: ignore[misc]
    assert reused(plain) == {
        ("viewcontent", "name ViewContent"): 1,
        ("CompleteRegistration", "name Lead"): 1,
    }


def heard(shop: Shop) -> bool:
    """Whether the page said what became of its event."""
    return shop.browser("ViewContent") != ["not_run"]


def test_a_page_that_a_cache_shows_to_three_visitors_is_a_replay_to_two(
    browser: Browser, plain: Shop, until: Until
) -> None:
    kept: list[str] = []

    def cache(route: Route) -> None:
        if not kept:
            kept.append(route.fetch().text())
        route.fulfill(body=kept[0], content_type="text/html; charset=utf-8")

    for n in range(3):
        context = browser.new_context()
        context.add_cookies(
            [{"name": "_fbp", "value": f"fb.0.1700000000000.{n}", "url": plain.url}]
        )
        page = context.new_page()
        page.route("**/products/7", cache)
        page.goto(plain.url + "/products/7")
        # Chromium lets what was put in its place reach no other port: the library does not load.
        until(lambda n=n: sum(reused(plain).values()) == 2 * n and heard(plain))  # type: ignore[misc]
        context.close()
    where = "GET /products/{sku}", "/products/{id}"
    assert reused(plain) == {
        ("ViewContent", f"replay {where[0]}"): 2,
        ("PageView", f"replay {where[1]}"): 2,
    }
