"""What the pixel script says became of an event, whatever stood in its way."""

from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route

from tests.browser.conftest import Problems, Servers, Until
from tests.browser.site import ID, PIXEL, own_snippet, purchase
from tests.support.browsers import AGENT
from tests.support.servers import closed_port

LATER = 7_000  # milliseconds: past the script's patience


def eids(servers: Servers) -> list[str | None]:
    return [hit.eid for hit in servers.meta.received.browser]


@pytest.mark.parametrize("answer", ["empty", "gif"])
def test_a_delivered_event_is_sent_whatever_the_answer(
    page: Page, servers: Servers, until: Until, answer: str
) -> None:
    servers.meta.tr_answer = "gif" if answer == "gif" else "empty"
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.beacons == [[ID, "Purchase", PIXEL, "sent"]]
    assert servers.site.requests == ["POST text/plain;charset=UTF-8"]
    assert eids(servers) == [ID]
    assert servers.meta.received.browser[0].cd == {"value": "12.34", "currency": "EUR"}


@pytest.mark.parametrize("status", [204, 403, 500])
def test_any_answer_of_the_host_is_delivery(
    page: Page, servers: Servers, until: Until, status: int
) -> None:
    servers.meta.fail_next(status, "no", endpoint="tr")
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "sent")]


def test_a_picture_needs_no_probe(page: Page, servers: Servers, until: Until) -> None:
    servers.meta.tr_answer = "gif"
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.meta.received.probes == 0


def test_the_copies_of_two_pixels_tell_of_themselves_without_a_probe(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.site.data["p"].append({"id": "222"})
    servers.site.data["e"] = [purchase(ID, PIXEL, "222")]
    page.goto(servers.site.url)
    until(lambda: len(servers.site.beacons) == 2)
    assert sorted(servers.site.outcomes) == [(PIXEL, "sent"), ("222", "sent")]
    assert sorted(hit.id for hit in servers.meta.received.browser) == [PIXEL, "222"]
    assert servers.meta.received.probes == 0
    assert len(servers.site.requests) == 1


def long_purchase() -> dict[str, Any]:
    """One that is too long for a GET, as with five keys of advanced matching."""
    return purchase(ID, value=1, currency="EUR", content_name="x" * 2100)


def test_a_form_post_that_is_answered_is_sent(page: Page, servers: Servers, until: Until) -> None:
    servers.site.data["e"] = [long_purchase()]
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons and eids(servers))
    assert servers.site.outcomes == [(PIXEL, "sent")]
    assert [(hit.method, hit.eid) for hit in servers.meta.received.browser] == [("POST", ID)]


def test_a_form_post_that_is_blocked_is_request_blocked(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.site.data["e"] = [long_purchase()]
    page.route("**/tr/", lambda route: route.abort("blockedbyclient"))
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "request_blocked")]


def test_a_form_post_cannot_be_proven_where_the_policy_keeps_fetch_from_meta(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.site.data |= {"e": [long_purchase()], "c": 1}
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons and eids(servers))
    assert servers.site.outcomes == [(PIXEL, "unknown")]
    assert eids(servers) == [ID]


def test_a_library_that_is_not_there_is_script_blocked(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.meta.fail_next(404, "", endpoint="fbevents")
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "script_blocked")]


def test_a_library_whose_host_refuses_is_script_blocked(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.site.data["s"] = closed_port() + "/en_US/fbevents.js"
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "script_blocked")]


def test_an_empty_file_in_the_library_s_place_is_script_replaced(
    page: Page, servers: Servers, until: Until
) -> None:
    page.route(
        "**/fbevents.js", lambda route: route.fulfill(body="", content_type="text/javascript")
    )
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "script_replaced")]


def test_a_library_that_never_comes_is_script_blocked_in_the_end(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.meta.fail_next(200, delay=600, endpoint="fbevents")
    page.clock.install()
    page.goto(servers.site.url, wait_until="commit")
    until(lambda: page.evaluate("!!window.fbq"))
    page.clock.fast_forward(LATER)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "script_blocked")]


def test_a_config_that_is_not_there_is_config_blocked(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.meta.fail_next(404, "", endpoint="config")
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "config_blocked")]
    assert eids(servers) == []


def test_an_empty_config_is_config_blocked(page: Page, servers: Servers, until: Until) -> None:
    servers.meta.fail_next(200, "", endpoint="config")
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "config_blocked")]


def test_a_config_that_never_comes_is_config_blocked_in_the_end(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.meta.fail_next(200, delay=600, endpoint="config")
    page.clock.install()
    page.goto(servers.site.url, wait_until="commit")
    until(lambda: page.evaluate("window.fbq && !!fbq.callMethod"))
    page.clock.fast_forward(LATER)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "config_blocked")]


def test_a_config_that_comes_late_turns_it_into_sent(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.meta.fail_next(200, delay=1.5, endpoint="config")
    page.clock.install()
    page.goto(servers.site.url, wait_until="commit")
    until(lambda: page.evaluate("window.fbq && !!fbq.callMethod"))
    page.clock.fast_forward(LATER)
    until(lambda: len(servers.site.beacons) == 2)
    assert servers.site.outcomes == [(PIXEL, "config_blocked"), (PIXEL, "sent")]


def test_a_host_of_tr_that_refuses_is_request_blocked(
    page: Page, servers: Servers, until: Until
) -> None:
    dead = closed_port()
    library = page.request.get(servers.meta_url + "/en_US/fbevents.js").text()
    page.route(
        "**/fbevents.js",
        lambda route: route.fulfill(
            body=library.replace("HOST + '/tr/", f"'{dead}/tr/"), content_type="text/javascript"
        ),
    )
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "request_blocked")]


def test_a_tr_that_is_aborted_is_request_blocked(
    page: Page, servers: Servers, until: Until
) -> None:
    page.route("**/tr/?*", lambda route: route.abort("blockedbyclient"))
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "request_blocked")]
    assert eids(servers) == []


def test_a_tr_connection_that_breaks_is_never_called_sent(
    page: Page, servers: Servers, until: Until
) -> None:
    page.route("**/tr/?*", lambda route: route.abort("connectionreset"))
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "request_blocked")]


def test_a_host_that_answers_the_second_request_alone_is_never_called_sent(
    page: Page, servers: Servers, until: Until
) -> None:
    asked: list[Route] = []

    def answer(route: Route) -> None:
        asked.append(route)
        route.abort("connectionreset") if len(asked) == 1 else route.continue_()

    page.route("**/tr/?*", answer)
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "request_blocked")]
    assert eids(servers) == []


def test_a_blocker_of_an_event_s_parameters_is_never_called_sent(
    page: Page, servers: Servers, until: Until
) -> None:
    page.route("**/tr/?*ev=*", lambda route: route.abort("blockedbyclient"))
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "request_blocked")]
    assert eids(servers) == []


def test_a_blocker_of_images_alone_is_called_what_it_is(
    page: Page, servers: Servers, until: Until
) -> None:
    def answer(route: Route) -> None:
        is_image = route.request.resource_type == "image"
        route.abort("blockedbyclient") if is_image else route.continue_()

    page.route("**/tr/?*", answer)
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    told = servers.site.outcomes == [(PIXEL, "sent")]
    assert told == (eids(servers) == [ID])


def test_an_answer_that_the_page_makes_up_is_unknown(
    page: Page, servers: Servers, until: Until
) -> None:
    page.add_init_script(
        "const get = fetch; window.fetch = (url, how) => String(url).includes('/tr/?')"
        " ? Promise.resolve(new Response('')) : get(url, how)"
    )
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "unknown")]
    assert eids(servers) == []


def test_a_tr_that_never_answers_is_unknown(page: Page, servers: Servers, until: Until) -> None:
    servers.meta.fail_next(200, delay=600, endpoint="tr")
    page.clock.install()
    page.goto(servers.site.url, wait_until="commit")
    until(lambda: eids(servers))
    page.clock.fast_forward(LATER)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "unknown")]


@pytest.mark.parametrize("how", ["script", "button"])
def test_a_load_that_is_stopped_is_never_called_sent(
    page: Page, servers: Servers, until: Until, how: str
) -> None:
    servers.meta.fail_next(200, delay=600, endpoint="tr")  # the probe would be answered
    page.goto(servers.site.url, wait_until="commit")
    until(lambda: eids(servers))
    if how == "script":
        page.evaluate("window.stop()")
    else:
        page.context.new_cdp_session(page).send("Page.stopLoading")
    page.wait_for_timeout(500)  # long enough for a probe
    page.goto(servers.site.url + "/other")
    until(lambda: servers.site.beacons)
    assert "sent" not in [outcome for _, outcome in servers.site.outcomes]


@pytest.mark.parametrize("how", ["script", "button"])
def test_a_page_that_is_stopped_after_its_load_event_is_never_called_sent(
    page: Page, servers: Servers, until: Until, how: str
) -> None:
    page.goto(servers.site.url + "/other")
    servers.meta.fail_next(200, delay=600, endpoint="tr")
    servers.meta.fail_next(200, delay=1, endpoint="fbevents")
    page.goto(servers.site.url)
    until(lambda: eids(servers))
    if how == "script":
        page.evaluate("window.stop()")
    else:
        page.context.new_cdp_session(page).send("Page.stopLoading")
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [
        (PIXEL, "left_early" if how == "script" else "request_blocked")
    ]


@pytest.mark.parametrize("how", ["script", "button"])
def test_a_library_whose_load_is_cancelled_is_left_early(
    page: Page, servers: Servers, until: Until, how: str
) -> None:
    servers.meta.fail_next(200, delay=600, endpoint="fbevents")
    page.goto(servers.site.url, wait_until="commit")
    until(lambda: page.evaluate("!!window.fbq"))
    if how == "script":
        page.evaluate("window.stop()")
    else:
        page.context.new_cdp_session(page).send("Page.stopLoading")
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "left_early")]


def test_a_page_that_runs_beforeunload_alone_is_left_early_and_hands_its_event_on(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.meta.fail_next(200, delay=600, endpoint="fbevents")
    page.goto(servers.site.url, wait_until="commit")
    until(lambda: page.evaluate("!!window.fbq"))
    page.evaluate("dispatchEvent(new Event('beforeunload'))")  # all that WebKit runs
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "left_early")]
    assert ID in page.evaluate("sessionStorage._capi_left")


def test_a_bot_that_the_library_drops_is_bot(
    browser: Browser, servers: Servers, until: Until
) -> None:
    servers.meta.pixel_plugins = ("botblocking",)
    page = browser.new_page(user_agent=AGENT.replace("Chrome", "HeadlessChrome"))
    page.clock.install()
    page.goto(servers.site.url)
    page.clock.fast_forward(LATER)
    until(lambda: servers.site.beacons)
    page.close()
    assert servers.site.outcomes == [(PIXEL, "bot")]
    assert eids(servers) == []


def test_csp_that_refuses_the_library_is_csp(page: Page, servers: Servers, until: Until) -> None:
    servers.site.csp = "script-src 'self'"
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "csp")]


def test_csp_that_refuses_the_config_is_csp(page: Page, servers: Servers, until: Until) -> None:
    servers.site.csp = f"script-src 'self' {servers.meta_url}/en_US/"
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "csp")]


def test_csp_that_refuses_the_image_is_csp(page: Page, servers: Servers, until: Until) -> None:
    servers.site.csp = "img-src 'self'"
    servers.site.data["c"] = 1
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "csp")]
    assert eids(servers) == []


def test_csp_that_only_reports_changes_nothing(page: Page, servers: Servers, until: Until) -> None:
    servers.site.headers["content-security-policy-report-only"] = "img-src 'self'"
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "sent")]


def test_csp_that_refuses_the_beacon_sends_it_as_an_image(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.meta.tr_answer = "gif"
    servers.site.csp = "connect-src 'none'"
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "sent")]
    assert servers.site.requests == ["GET"]


def test_a_beacon_that_the_browser_does_not_take_is_sent_as_an_image(
    page: Page, servers: Servers, until: Until
) -> None:
    page.add_init_script("navigator.sendBeacon = () => false")
    page.route(
        "**/fbevents.js", lambda route: None
    )  # no answer: nothing is known before it is left
    servers.site.data["e"] = [purchase("k" * 60, content_name="&=+ü"), {**purchase(), "n": "Größe"}]
    page.goto(servers.site.url, wait_until="commit")
    page.wait_for_function("!!window.fbq")
    page.evaluate("dispatchEvent(new Event('pagehide'))")
    until(lambda: len(servers.site.beacons) == 2)
    assert [name for _, name, _, _ in servers.site.beacons] == ["Purchase", "Größe"]
    assert set(servers.site.requests) == {"GET"}


def test_csp_that_refuses_the_probe_is_unknown(page: Page, servers: Servers, until: Until) -> None:
    servers.site.csp = "connect-src 'self'"
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "unknown")]
    assert eids(servers) == [ID]


def refusals(problems: Problems) -> list[str]:
    return [line for line in problems.console if "Content Security Policy" in line]


@pytest.mark.parametrize(("answer", "outcome"), [("empty", "unknown"), ("gif", "sent")])
def test_a_policy_that_is_known_to_refuse_fetch_is_not_tried(
    page: Page, servers: Servers, until: Until, problems: Problems, answer: str, outcome: str
) -> None:
    servers.meta.tr_answer = "gif" if answer == "gif" else "empty"
    servers.site.csp, servers.site.data["c"] = "connect-src 'self'", 1
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, outcome)]
    assert eids(servers) == [ID]
    assert refusals(problems) == []


def test_a_policy_that_is_known_to_refuse_the_beacon_is_not_tried(
    page: Page, servers: Servers, until: Until, problems: Problems
) -> None:
    servers.meta.tr_answer = "gif"
    servers.site.csp, servers.site.data["c"] = "connect-src 'none'", 2
    servers.site.data["k"] = ["Purchase", ID]
    servers.site.body = "<script>onload = () => fbq('track', 'Lead')</script>"
    page.goto(servers.site.url)
    until(lambda: len(servers.site.beacons) == 2)
    assert servers.site.outcomes == [(PIXEL, "sent")] * 2
    assert set(servers.site.requests) == {"GET"}
    assert refusals(problems) == []


def test_two_copies_leave_as_images_where_an_unknown_policy_refuses_fetch(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.meta.tr_answer = "gif"
    servers.site.csp = "connect-src 'self'"
    servers.site.data["p"].append({"id": "222"})
    servers.site.data["e"] = [purchase(ID, PIXEL, "222")]
    page.goto(servers.site.url)
    until(lambda: len(servers.site.beacons) == 2)
    assert sorted(servers.site.outcomes) == [(PIXEL, "sent"), ("222", "sent")]
    assert sorted(hit.id for hit in servers.meta.received.browser) == [PIXEL, "222"]


def test_trusted_types_that_refuse_the_library_are_csp(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.site.csp = "require-trusted-types-for 'script'"
    page.goto(servers.site.url)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "csp")]


def test_consent_that_is_revoked_is_consent_and_nothing_is_asked(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.site.head = own_snippet("fbq('consent', 'revoke')", servers.meta_url)
    page.clock.install()
    page.goto(servers.site.url)
    page.clock.fast_forward(LATER)
    until(lambda: servers.site.beacons)
    assert servers.site.outcomes == [(PIXEL, "consent")]
    assert servers.meta.received.configs == []
    assert servers.meta.received.probes == 0


def test_consent_that_is_granted_later_turns_it_into_sent(
    page: Page, servers: Servers, until: Until
) -> None:
    servers.site.head = own_snippet("fbq('consent', 'revoke')", servers.meta_url)
    page.clock.install()
    page.goto(servers.site.url)
    page.clock.fast_forward(LATER)
    until(lambda: servers.site.beacons)
    page.evaluate("fbq('consent', 'grant')")
    until(lambda: len(servers.site.beacons) == 2)
    assert servers.site.outcomes == [(PIXEL, "consent"), (PIXEL, "sent")]
    assert eids(servers) == [ID]


def test_a_page_view_that_the_page_s_own_snippet_sent_before_us_is_unknown(
    page: Page, servers: Servers, until: Until
) -> None:
    calls = f"fbq('init', '{PIXEL}'); fbq('track', 'PageView')"
    held: list[Route] = []
    page.route("**/s.js**", lambda route: held.append(route))
    servers.site.head = own_snippet(calls, servers.meta_url)
    servers.site.data["e"] = [{"n": "PageView", "i": "v1", "d": {}, "p": [PIXEL]}]
    servers.site.data["k"] = ["PageView", "t" * 40]
    page.goto(servers.site.url, wait_until="commit")
    until(lambda: eids(servers) and held)
    held[0].continue_()
    until(lambda: servers.site.beacons)
    assert {one[0]: one[3] for one in servers.site.beacons}["v1"] == "unknown"
    assert eids(servers) == [None]
