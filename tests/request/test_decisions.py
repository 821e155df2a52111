"""The report says how many pages were shown with which consent, by rule and of nobody."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from tests.request.test_events import PAGE, Site
from tests.support.blocks import question

TCF_NONE = "CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA"
TCF_ALL = "CPXxRfAPXxRfAAfKABENB-CgAP_AAH_AAAYgAAAAAAAA"
REPORT = {"authorization": "Bearer the-report-token"}


async def view(request: Request) -> Response:
    if request.url.path == "/api":
        return JSONResponse({})
    cache = {"cache-control": "public, max-age=60"} if request.url.path == "/cached" else {}
    return HTMLResponse(PAGE, headers=cache)


def decisions(site: Site) -> Any:
    return site.client.get("/_capi/parity.json", headers=REPORT).json()["consent"]


def limited(request: Any) -> str:
    return "limited"


@pytest.mark.parametrize(
    ("rule", "cookie", "told"),
    [
        ("tcf", f"euconsent-v2={TCF_ALL}", {"tcf": {"granted": 2}}),
        ("tcf", "", {"tcf": {"held": 2}}),
        ("tcf", f"euconsent-v2={TCF_NONE}", {"tcf": {"denied": 2}}),
        ({"value": "{cookie.c}", "granted": ["1"]}, "c=1", {"own": {"granted": 2}}),
        (limited, "", {"callable": {"limited": 2}}),
        (None, "", {}),
    ],
)
def test_each_page_is_counted_with_what_its_rule_says(
    rule: str | dict[str, Any] | Callable[..., Any] | None, cookie: str, told: Any
) -> None:
    site = Site(view, consent=rule)
    for path in ("/", "/a", "/api"):
        site.client.get(path, headers={"cookie": cookie})
    site.client.get("/", headers={"user-agent": "Googlebot/2.1 (+http://www.google.com/bot.html)"})
    assert decisions(site) == told


@pytest.mark.parametrize("rule", ["tcf", None])
def test_global_privacy_control_is_a_rule_of_its_own(rule: str | None) -> None:
    site = Site(view, consent=rule)
    site.client.get("/", headers={"sec-gpc": "1", "cookie": f"euconsent-v2={TCF_ALL}"})
    assert decisions(site) == {"gpc": {"denied": 1}}


def test_who_is_internal_has_decided_nothing() -> None:
    site = Site(view, consent="cookiebot", internal={"value": "{cookie.staff}"})
    site.client.get("/", headers={"cookie": "staff=1; CookieConsent=-1"})
    assert decisions(site) == {}


def test_a_cached_page_is_counted_when_it_asks() -> None:
    site = Site(view, consent="cookiebot")
    text = site.client.get("/cached").text
    assert decisions(site) == {}
    for choice in ("-1", "0"):
        said = {"cookie": f"CookieConsent={choice}"}
        site.client.post("/_capi/t", json=question(text, "http://testserver/cached"), headers=said)
    assert decisions(site) == {"cookiebot": {"granted": 1, "denied": 1}}


def test_the_page_and_the_metrics_say_the_same() -> None:
    site = Site(view, consent="cookiebot")
    site.client.get("/", headers={"cookie": "CookieConsent=-1"})
    page = site.client.get("/_capi/parity", headers=REPORT).text
    assert '<th scope="row">cookiebot</th>\n<td>1</td>' in page
    metrics = site.client.get("/_capi/metrics", headers=REPORT).text
    assert 'capi_consent_decisions_total{decision="cookiebot granted"} 1' in metrics
