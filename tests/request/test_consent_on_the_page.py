"""Consent that is given on the page: what is held before it, and what a yes and a no do later."""

import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from capi_middleware import CAPI, EventRoute, UserData, track
from tests.request.test_events import PAGE, Site, names
from tests.support.blocks import block_of

URL = "http://testserver/p/cup?fbclid=Click1"
SERVER_ONLY = EventRoute("GET /p/{sku}", "Donate", send="server")
ROUTES = [
    EventRoute("GET /p/{sku}", "ViewContent", custom_data={"content_ids": ["{path.sku}"]}),
    EventRoute("POST /cart", "AddToCart"),
    SERVER_ONLY,
]
CALL = {"sec-fetch-dest": "empty", "sec-fetch-mode": "cors", "sec-fetch-site": "same-origin"}
YES = "CookieConsent={marketing:true}"


async def view(request: Request) -> Response:
    path = request.url.path
    if path == "/thanks":
        track("Purchase", value=7, currency="EUR", dedupe_key="7", user_data=UserData(em="a@b.co"))
    if path == "/away":
        return RedirectResponse("/p/cup", 303)
    if path == "/cart":
        track("AddToCart")
        return JSONResponse({})
    cache = {"cache-control": "public, max-age=60"} if path == "/p/cached" else {}
    return HTMLResponse(PAGE, headers=cache)


def site_of(rule: Any = "cookiebot", **settings: Any) -> Site:
    return Site(view, **{"routes": ROUTES, "consent": rule, **settings})


def ask(site: Site, text: str, url: str = URL, **more: Any) -> Any:
    """What the script of an open page asks when its visitor has answered."""
    block = block_of(text)
    given = {name: block[name] for name in ("y", "g") if name in block}
    return site.client.post("/_capi/t", json={"u": url, **given, **more})


def decisions(site: Site) -> Any:
    report = {"authorization": "Bearer the-report-token"}
    return site.client.get("/_capi/parity.json", headers=report).json()["consent"]


def ages(capi: CAPI, seconds: float) -> None:
    """Let the clock of the site go on."""
    before = capi.issuer.clock
    capi.issuer.clock = lambda: before() + seconds


# -- before an answer ------------------------------------------------------------------------------


def test_before_an_answer_a_page_holds_its_events_and_nothing_is_stored_or_set() -> None:
    site = site_of()
    answer = site.client.get(URL)
    block = block_of(answer.text)
    assert (block["x"], block["a"], block["e"]) == ("unanswered", True, [])
    assert block["g"]
    assert "set-cookie" not in answer.headers
    assert "private" in answer.headers["cache-control"]
    assert "facebook" not in answer.text.replace(block["s"], "")
    assert site.sent() == []
    assert site.counts("suppressed") == {}
    assert decisions(site) == {"cookiebot": {"held": 1}}


def test_what_a_page_holds_is_no_person_s_data() -> None:
    site = site_of(user_data={"em": "{cookie.mail}"})
    text = site.client.get("/thanks", headers={"cookie": "mail=jane@example.com"}).text
    body = block_of(text)["g"].partition(".")[0]
    import base64

    told = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)).decode()
    assert "Purchase" in told
    for data in ("jane", "a@b", "Mozilla", "em", "fbp"):
        assert data not in told.replace("event_time", "").replace("PageView", "")


@pytest.mark.parametrize(
    ("rule", "cookie", "tagged"),
    [
        ("onetrust", "", True),
        ("onetrust", "OptanonConsent=groups=C0004:0", True),
        ("onetrust", "OptanonConsent=groups=C0004:0; OptanonAlertBoxClosed=2026", False),
        ("cookieyes", "cookieyes-consent=consentid:x,action:,advertisement:no", True),
        ("cookieyes", "cookieyes-consent=consentid:x,action:yes,advertisement:no", False),
        ("tcf", "", True),
        ("tcf", "euconsent-v2=CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA", False),
        ("google", "", True),
        ("google", "CookieConsent={marketing:false}", False),
        ("klaro", "", True),
        ("complianz", "cmplz_marketing=deny", False),
        ({"value": "{cookie.c}", "granted": ["1"], "denied": ["0"]}, "", True),
        ({"value": "{cookie.c}", "granted": ["1"], "denied": ["0"]}, "c=0", False),
        ({"value": "{cookie.c}", "granted": ["1"]}, "", False),
        (lambda request: "unanswered", "", True),
        (lambda request: None, "", False),
        ("cookiebot", "capi_consent=denied", False),
    ],
)
def test_a_page_holds_its_events_where_nobody_has_answered_and_has_no_tag_after_a_no(
    rule: Any, cookie: str, tagged: bool
) -> None:
    text = site_of(rule).client.get("/p/cup", headers={"cookie": cookie}).text
    assert (text != PAGE) is tagged
    if tagged:
        assert block_of(text)["x"] == "unanswered"


def test_global_privacy_control_holds_nothing() -> None:
    assert site_of().client.get("/p/cup", headers={"sec-gpc": "1"}).text == PAGE


def test_without_hold_minutes_a_page_before_an_answer_has_no_tag() -> None:
    site = site_of(hold_minutes=0)
    assert site.client.get("/p/cup").text == PAGE
    assert decisions(site) == {"cookiebot": {"denied": 1}}


def test_an_event_of_a_redirect_before_an_answer_sets_no_cookie_and_is_counted() -> None:
    site = Site(view, consent="cookiebot", routes=[EventRoute("GET /away", "Lead", status="303")])
    answer = site.client.get("/away?fbclid=Click1", follow_redirects=False)
    assert "set-cookie" not in answer.headers
    assert site.counts("suppressed") == {("Lead", "consent"): 1}


# -- yes -------------------------------------------------------------------------------------------


def test_a_yes_releases_the_events_once_with_the_page_s_time_and_the_click() -> None:
    site = site_of()
    text = site.client.get(URL).text
    began = site.capi.issuer.clock()
    ages(site.capi, 600)
    answers = [ask(site, text, x="granted") for _ in range(2)]
    told = answers[0].json()
    assert sorted(one["n"] for one in told["e"]) == ["PageView", "ViewContent"]
    assert "x" not in told
    assert told["k"]
    events = site.sent()
    assert names(events) == ["Donate", "PageView", "ViewContent"]
    assert all(abs(one["event_time"] - began) < 5 for one in events)
    assert {one["event_source_url"] for one in events} == {URL}
    assert all(one["user_data"]["fbc"].endswith(".Click1") for one in events)
    assert {one["event_id"] for one in events} >= {one["i"] for one in told["e"]}
    cookies = answers[0].headers.get_list("set-cookie")
    assert {one.partition("=")[0] for one in cookies} == {"_fbp", "_fbc", "capi_consent"}
    assert answers[1].json()["e"] == told["e"]
    assert site.sent() == []


def test_an_order_that_was_held_keeps_its_id_and_money() -> None:
    site = site_of()
    text = site.client.get("/thanks").text
    ask(site, text, "http://testserver/thanks", x="granted")
    purchase = next(one for one in site.sent() if one["event_name"] == "Purchase")
    assert purchase["event_id"] == site.capi.issuer.mint("Purchase", "7")
    assert purchase["custom_data"] == {"value": 7, "currency": "EUR"}


def test_the_answer_of_the_page_is_kept_and_the_banner_s_own_cookie_goes_before_it() -> None:
    site = site_of()
    ask(site, site.client.get("/p/cup").text, x="granted")
    assert "x" not in block_of(site.client.get("/p/cup").text)
    refused = {"cookie": "capi_consent=granted; CookieConsent={marketing:false}"}
    assert site.client.get("/p/cup", headers=refused).text == PAGE


def test_a_yes_of_the_page_does_not_outdo_the_no_of_the_banner() -> None:
    site = site_of()
    text = site.client.get("/p/cup").text
    site.client.cookies.set("CookieConsent", "{marketing:false}")
    assert ask(site, text, x="granted").json()["e"] == []
    assert site.sent() == []


def test_a_limited_yes_limits_both_copies() -> None:
    site = site_of("google")
    told = ask(site, site.client.get("/p/cup").text, x="limited").json()
    assert (told["x"], told["l"]) == ("limited", [0, 0])
    assert site.sent()[0]["data_processing_options"] == ["LDU"]


@pytest.mark.parametrize("forged", ["", "x", "e30.x"])
def test_events_that_nobody_signed_are_none(forged: str) -> None:
    site = site_of()
    site.client.get("/p/cup")
    asked = {"u": URL, "g": forged, "x": "granted"}
    answer = site.client.post("/_capi/t", json=asked)
    assert answer.json()["e"] == []
    assert "capi_consent" not in answer.headers.get("set-cookie", "")
    assert site.sent() == []


def test_after_hold_minutes_nothing_is_released_but_the_page_may_go_on() -> None:
    site = site_of(hold_minutes=5)
    text = site.client.get("/p/cup").text
    ages(site.capi, 301)
    told = ask(site, text, x="granted", f=True).json()
    assert told["e"] == []
    assert told["k"]
    assert site.sent() == []


def test_a_cached_page_waits_for_the_answer_and_its_events_are_as_old_as_the_page_says() -> None:
    site = site_of()
    text = site.client.get("/p/cached").text
    url = "http://testserver/p/cached"
    assert ask(site, text, url).json() == {"e": [], "x": "unanswered"}
    assert site.counts("suppressed") == {}
    told = ask(site, text, url, x="granted", t=120).json()
    assert sorted(one["n"] for one in told["e"]) == ["PageView", "ViewContent"]
    now = site.capi.issuer.clock()
    assert all(110 < now - one["event_time"] < 130 for one in site.sent())
    assert decisions(site)["cookiebot"] == {"held": 1, "granted": 1, "released": 1}


def test_no_page_says_that_it_is_older_than_a_page_may_be() -> None:
    site = site_of(hold_minutes=1)
    text = site.client.get("/p/cached").text
    ask(site, text, "http://testserver/p/cached", x="granted", t=86400)
    now = site.capi.issuer.clock()
    assert all(now - one["event_time"] < 70 for one in site.sent())


def test_an_event_of_a_script_s_call_is_handed_to_it_signed() -> None:
    site = site_of()
    page = site.client.get("/p/cup").text
    answer = site.client.post("/cart", headers=CALL)
    assert "set-cookie" not in answer.headers
    held = json.loads(answer.headers["x-capi-events"])
    assert held["e"] == []
    key = ask(site, page, x="granted").json()["k"]
    site.sent()
    told = ask(site, page, k=key, g=held["g"], y="").json()
    assert names(site.sent()) == ["AddToCart"] == [one["n"] for one in told["e"]]


# -- no --------------------------------------------------------------------------------------------


def test_a_no_drops_the_events_and_counts_each() -> None:
    site = site_of()
    answer = ask(site, site.client.get("/p/cup").text, x="denied")
    assert answer.json()["x"] == "denied"
    assert site.sent() == []
    assert site.counts("suppressed") == {
        ("PageView", "consent"): 1, ("ViewContent", "consent"): 1, ("Donate", "consent"): 1,
    }  # fmt: skip
    assert decisions(site) == {"cookiebot": {"held": 1, "denied": 1}}
    assert site.client.get("/p/cup").text == PAGE


def test_a_withdrawal_removes_our_cookies_and_is_kept() -> None:
    site = site_of("google")
    told = ask(site, site.client.get(URL).text, x="granted").json()
    site.sent()
    assert "_fbp" in site.client.cookies
    withdrawn = {"u": URL, "k": told["k"], "f": True, "x": "denied"}
    answer = site.client.post("/_capi/t", json=withdrawn)
    assert answer.json()["x"] == "denied"
    assert dict(site.client.cookies) == {"capi_consent": "denied"}
    assert site.client.get(URL).text == PAGE
    assert site.sent() == []
    assert site.counts("suppressed")[("PageView", "consent")] == 1  # of the page that followed
    assert decisions(site)["google"]["withdrawn"] == 1


def test_a_no_on_the_page_counts_before_the_banner_s_cookie_knows() -> None:
    site = site_of()
    text = site.client.get("/p/cup").text
    site.client.cookies.set("CookieConsent", "{marketing:true}")
    assert ask(site, text, x="denied").json()["x"] == "denied"
    assert site.sent() == []


def test_who_shows_no_page_of_ours_withdraws_for_nobody() -> None:
    site = site_of("google")
    answer = site.client.post("/_capi/t", json={"u": URL, "f": True, "x": "denied"})
    assert "set-cookie" not in answer.headers
    assert decisions(site) == {}


# -- the report ------------------------------------------------------------------------------------


def test_the_report_shows_what_was_held_released_and_withdrawn_by_rule() -> None:
    site = site_of("google")
    told = ask(site, site.client.get("/p/cup").text, x="granted").json()
    withdrawn = {"u": URL, "k": told["k"], "f": True, "x": "denied"}
    site.client.post("/_capi/t", json=withdrawn)
    report = {"authorization": "Bearer the-report-token"}
    page = site.client.get("/_capi/parity", headers=report).text
    row = page.partition('<th scope="row">google</th>')[2].partition("</tr>")[0]
    assert [one[4:-5] for one in row.split()] == ["1", "0", "0", "1", "1", "1"]
    assert "never answered" not in page
    metrics = site.client.get("/_capi/metrics", headers=report).text
    for answer in ("held", "released", "withdrawn"):
        assert f'capi_consent_decisions_total{{decision="google {answer}"}} 1' in metrics
    site.client.cookies.clear()
    ask(site, site.client.get("/p/cup").text, x="denied")
    site.client.cookies.clear()
    site.client.get("/p/cup")  # a tab that is closed
    page = site.client.get("/_capi/parity", headers=report).text
    assert "Held by google and never answered, or too late: 1." in page
