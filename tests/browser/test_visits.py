"""What the pixel script fires over visits: once each, in whatever order a person moves."""

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Problems, Servers, Until
from tests.browser.shop import open_shop
from tests.browser.site import ID, PIXEL, own_snippet, purchase


def eids(servers: Servers) -> list[str | None]:
    return [hit.eid for hit in servers.meta.received.browser]


@pytest.mark.parametrize("milliseconds", [0, 50, 500])
def test_leaving_before_the_library_is_there_is_left_early(
    page: Page, servers: Servers, until: Until, milliseconds: int
) -> None:
    servers.meta.fail_next(200, delay=600, endpoint="fbevents")
    leave = f"setTimeout(() => {{ location.href = '/other'; }}, {milliseconds})"
    servers.site.body = (
        "<script>const wait = setInterval(() => { if (window.fbq) { clearInterval(wait);"
        f"{leave}; }} }}, 1)</script>"
    )
    page.goto(servers.site.url, wait_until="commit")
    page.wait_for_url("**/other")
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "left_early")]


def test_leaving_before_the_answer_is_left_early_and_never_sent(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.meta.fail_next(200, delay=600, endpoint="tr")
    page.goto(servers.site.url, wait_until="commit")
    until(lambda: eids(servers))
    page.goto(servers.site.url + "/other")
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "left_early")]


def test_what_the_page_fires_as_it_is_left_outlives_it(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.site.data["k"] = ["Purchase", ID]
    servers.site.body = (
        "<script>onpagehide = () => { for (let n = 0; n < 20; n++)"
        " fbq('track', 'Lead', {}, {eventID: 'left' + n}); }</script>"
    )
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    page.goto(f"{servers.site.url}/other")
    until(lambda: len(servers.meta.received.browser) == 21)
    assert len({hit.eid for hit in servers.meta.received.browser}) == 21


def test_an_event_that_had_no_time_to_leave_is_fired_by_the_next_visit(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.meta.fail_next(200, delay=600, endpoint="fbevents")
    page.goto(servers.site.url, wait_until="commit")
    until(lambda: page.evaluate("!!window.fbq"))
    page.goto(servers.site.url + "/other")
    page.goto(servers.site.url)
    until(lambda: len(servers.site.beacons) == 2)
    assert servers.site.outcomes == [(PIXEL, "left_early"), (PIXEL, "sent")]
    assert eids(servers) == [ID]


@pytest.mark.parametrize("event_id", [ID, "random-1"])
def test_a_reload_fires_nothing_twice_and_says_nothing(
    page: Page, servers: Servers, until: Until, event_id: str
) -> None:
    servers.site.data["e"] = [purchase(event_id)]
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    page.reload()
    page.goto(servers.site.url + "/other")
    assert servers.site.outcomes == [(PIXEL, "sent")]
    assert eids(servers) == [event_id]


def test_going_back_to_a_page_from_the_cache_fires_nothing_twice(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.site.headers = {"cache-control": "private, max-age=600"}
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    page.goto(servers.site.url + "/other")
    page.go_back()
    page.go_forward()
    assert servers.site.outcomes == [(PIXEL, "sent")]
    assert eids(servers).count(ID) == 1


def test_the_id_of_a_dedupe_key_is_remembered_in_other_tabs(
    page: Page, servers: Servers, until: Until
) -> None:
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    other = page.context.new_page()
    other.goto(servers.site.url)
    other.goto(servers.site.url + "/other")
    assert eids(servers) == [ID]


def test_the_id_of_a_dedupe_key_is_known_for_ever_and_others_for_a_week(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.site.data["e"] += [purchase("t2") | {"o": 1}]
    page.goto(servers.site.url)
    until(lambda: len(servers.site.beacons) == 2)
    page.evaluate(
        "localStorage._capi = JSON.stringify(JSON.parse(localStorage._capi)"
        ".map(([id, at]) => [id, at - 40 * 864e5]))"
    )
    page.reload()
    until(lambda: len(servers.site.beacons) == 3)
    assert eids(servers) == [ID, "t2", "t2"]


def test_storage_that_is_refused_stops_nothing(page: Page, servers: Servers, until: Until) -> None:
    page.add_init_script(
        "for (const name of ['localStorage', 'sessionStorage'])"
        " Object.defineProperty(window, name, {get() { throw new DOMException('no'); }})"
    )
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "sent")]


def test_the_page_s_own_pixel_is_used_and_initialised_once(
    page: Page, servers: Servers, until: Until, problems: Problems
) -> None:
    calls = f"fbq('init', '{PIXEL}'); fbq('track', 'PageView')"
    servers.site.head = own_snippet(calls, servers.meta_url)
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "sent")]
    assert sorted(hit.ev for hit in servers.meta.received.browser) == ["PageView", "Purchase"]
    assert servers.meta.received.configs == [PIXEL]
    assert problems.console == []


def test_a_single_page_app_gets_no_automatic_page_view(
    page: Page, servers: Servers, until: Until
) -> None:
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    page.evaluate("history.pushState({}, '', '/next')")
    page.goto(servers.site.url + "/other")
    assert [hit.ev for hit in servers.meta.received.browser] == ["Purchase"]


def test_a_custom_event_is_fired_under_its_name(page: Page, servers: Servers, until: Until) -> None:
    servers.site.data["e"] = [
        {"n": "Größe gewählt", "i": "c1", "d": {"a": [1]}, "p": [PIXEL], "c": 1}
    ]
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.beacons == [["c1", "Größe gewählt", PIXEL, "sent"]]
    assert [(hit.ev, hit.cd) for hit in servers.meta.received.browser] == [
        ("Größe gewählt", {"a": "[1]"})
    ]


def test_limited_data_use_reaches_the_request(page: Page, servers: Servers, until: Until) -> None:
    servers.site.data |= {"x": "limited", "l": [1, 1000]}
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    params = servers.meta.received.browser[0].params
    assert (params["dpo"], params["dpoco"], params["dpost"]) == ("LDU", "1", "1000")


def test_a_cacheable_page_asks_for_its_events(page: Page, servers: Servers, until: Until) -> None:
    servers.site.data |= {"a": True, "e": []}
    servers.site.answer_to_t = {"e": [{"n": "PageView", "i": "t1", "d": {}, "p": [PIXEL]}]}
    page.goto(servers.site.url + "/shoes?size=9")
    until(lambda: servers.site.beacons)
    assert servers.site.asked == [{"u": servers.site.url + "/shoes?size=9", "r": ""}]
    assert servers.site.beacons == [["t1", "PageView", PIXEL, "sent"]]


def test_a_tag_that_is_there_twice_runs_once(page: Page, servers: Servers, until: Until) -> None:
    servers.site.body = '<script src="/_capi/s.js?v=2"></script>'
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert eids(servers) == [ID]
    assert page.evaluate("Object.keys(window).filter((key) => key.includes('capi'))") == ["capi"]


def test_a_blocked_beacon_makes_no_noise(
    page: Page, servers: Servers, until: Until, problems: Problems
) -> None:
    servers.meta.tr_answer = "gif"
    page.route("**/_capi/b", lambda route: route.abort())
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.goto(servers.site.url)
    until(lambda: failed)
    page.goto(servers.site.url + "/other")
    assert set(failed) == {servers.site.url + "/_capi/b"}
    assert [line for line in problems.console if "ERR_FAILED" not in line] == []


@pytest.mark.parametrize("block", ["", "{", "null"])
def test_a_broken_data_block_does_nothing(page: Page, servers: Servers, block: str) -> None:
    servers.site.head = f'<script type="application/json" data-c>{block}</script>'
    page.route(
        servers.site.url + "/broken",
        lambda route: route.fulfill(
            content_type="text/html",
            body=servers.site.head + '<script src="/_capi/s.js"></script>',
        ),
    )
    page.goto(servers.site.url + "/broken")
    assert servers.site.beacons == []


def test_a_prerendered_page_waits_until_it_is_shown(
    page: Page, servers: Servers, until: Until
) -> None:
    page.add_init_script(
        "Object.defineProperty(document, 'prerendering', {value: true, configurable: true})"
    )
    page.goto(servers.site.url)
    assert page.evaluate("window.fbq === undefined")
    page.evaluate("document.dispatchEvent(new Event('prerenderingchange'))")
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "sent")]


HOSTS = {
    "no sendBeacon": "delete Navigator.prototype.sendBeacon",
    "a sendBeacon that throws": "Navigator.prototype.sendBeacon = () => { throw Error('no') }",
    "Prototype.js": "Array.prototype.toJSON = function () { return '[' + this.join(', ') + ']' };"
    "String.prototype.toJSON = function () { return `'${this}'` }",
    "a placeholder": "window.fbq = () => {}",
}


@pytest.mark.parametrize("host", HOSTS)
def test_a_page_that_changes_what_browsers_have_is_heard(
    page: Page, servers: Servers, until: Until, host: str
) -> None:
    page.add_init_script(HOSTS[host])
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.beacons == [[ID, "Purchase", PIXEL, "sent"]]


def test_frozen_images_stop_no_event(page: Page, servers: Servers, until: Until) -> None:
    page.add_init_script("Object.freeze(HTMLImageElement.prototype)")
    page.goto(servers.site.url)
    until(lambda: servers.meta.received.browser)
    assert [hit.eid for hit in servers.meta.received.browser] == [ID]


@pytest.mark.parametrize("status", [503, 429])
def test_a_question_that_is_refused_for_the_moment_is_asked_again(
    page: Page, servers: Servers, until: Until, status: int
) -> None:
    servers.site.data |= {"a": True, "e": []}
    servers.site.answer_to_t = {"e": [purchase()]}
    servers.site.statuses_of_t = [status]
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "sent")]


@pytest.mark.parametrize("status", [503, 429])
def test_a_beacon_that_is_refused_for_the_moment_is_sent_again(
    page: Page, servers: Servers, until: Until, status: int
) -> None:
    servers.site.statuses_of_b = [status]
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "sent")]
    assert len(servers.site.requests) == 2


#: How many calls of the page's function there were when its storage was first asked for.
ASKED = """for (const name of ['localStorage', 'sessionStorage']) {
    const real = Object.getOwnPropertyDescriptor(window, name);
    Object.defineProperty(window, name, {get() {
        window.first = window.first ?? window.fbq?.queue.length ?? 0;
        return real.get.call(window);
    }});
}"""


@pytest.mark.parametrize("cached", [False, True])
def test_the_events_of_a_fresh_document_are_out_before_storage_is_asked(
    page: Page, until: Until, cached: bool
) -> None:
    page.add_init_script(ASKED)
    with open_shop() as shop:
        shop.meta.fail_next(200, delay=0.5, endpoint="fbevents", times=9)
        shop.cache = {"cache-control": "private, max-age=600" if cached else "no-store"}
        shop.body = "<p>kettle</p>" * 100
        if cached:
            page.goto(f"{shop.url}/products/7")
            until(lambda: shop.browser("ViewContent") == ["sent"])
        page.goto(f"{shop.url}/products/7")
        until(lambda: page.evaluate("window.first !== undefined"))
        # autoConfig, init and both events
        assert page.evaluate("window.first") == (0 if cached else 4)
