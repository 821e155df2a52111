"""Consent: ready rules on the cookies that banners write, declared rules, and answers."""

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware import ConfigError
from capi_middleware.capture.banners import READY_RULES
from capi_middleware.capture.consent import ConsentRule, Permission
from capi_middleware.capture.reading import Fields
from tests.support.configs import make_config

ONETRUST = (
    "isGpcEnabled=0&datestamp=Tue+Mar+12+2024+10%3A12%3A33+GMT%2B0100+(Central+European+Standard+"
    "Time)&version=202401.2.0&browserGpcFlag=0&isIABGlobal=false&hosts=&consentId=7b5c6a0e-3f0e-"
    "4b4e-8f9f-5e0f2f4a9c11&interactionCount=1&landingPath=NotLandingPage&groups=C0001%3A1%2C"
    "C0002%3A1%2CC0003%3A0%2CC0004%3A{}&geolocation=DE%3BBE&AwaitingReconsent=false"
)
COOKIEBOT = (
    "{{stamp:%27kW6k5Yd1mP3z2g==%27%2Cnecessary:true%2Cpreferences:false%2Cstatistics:true%2C"
    "marketing:{}%2Cmethod:%27explicit%27%2Cver:1%2Cutc:1710234567890%2Cregion:%27de%27}}"
)
COOKIEYES = (
    "consentid:dXhKZ1VyY1Zs,consent:yes,action:yes,necessary:yes,functional:no,analytics:yes,"
    "performance:no,advertisement:{}"
)
#: IAB's own examples: purposes 1, 3, 9, 10 and purposes 2, 10.
TCF_1_3_9_10 = "CLcVDxRMWfGmWAVAHCENAXCkAKDAADnAABRgA5mdfCKZuYJez-NQm0TBMYA4oCAAGQYIAAAAAAEAIAEgAA"
TCF_2_10 = "COtybn4PA_zT4KjACBENAPCIAEBAAECAAIAAAAAAAAAA"
TCF_ALL = "CPXxRfAPXxRfAAfKABENB-CgAP_AAH_AAAYgAAAAAAAA"
TCF_NONE = "CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA"
GOOGLE = (
    '{"ad_storage":"%s","ad_user_data":"%s","ad_personalization":"denied",'
    '"analytics_storage":"granted"}'
)


def decide(rule: Any, cookie: str = "", headers: dict[str, str] | None = None) -> Permission:
    given = {"cookie": cookie, **(headers or {})}
    reader = Fields({}, given, None)
    consent = ConsentRule(rule, gpc=True)
    return consent.decide(consent.read(reader), given)


@pytest.mark.parametrize(
    ("rule", "cookie", "consent"),
    [
        ("onetrust", "OptanonConsent=" + ONETRUST.format(1), "granted"),
        ("onetrust", "OptanonConsent=" + ONETRUST.format(0), "denied"),
        ("cookiebot", "CookieConsent=" + COOKIEBOT.format("true"), "granted"),
        ("cookiebot", "CookieConsent=" + COOKIEBOT.format("false"), "denied"),
        ("cookiebot", "CookieConsent=-1", "granted"),
        ("cookiebot", "CookieConsent=0", "denied"),
        ("cookieyes", "cookieyes-consent=" + COOKIEYES.format("yes"), "granted"),
        ("cookieyes", "cookieyes-consent=" + COOKIEYES.format("no"), "denied"),
        ("cookieyes", "cookieyes-consent=" + quote(COOKIEYES.format("yes")), "granted"),
        ("tcf", "euconsent-v2=" + TCF_ALL, "granted"),
        ("tcf", f"euconsent-v2={TCF_ALL}.YAAAAAAAAAAA", "granted"),
        ("tcf", "euconsent-v2=" + TCF_NONE, "denied"),
        ("tcf", "euconsent-v2=" + TCF_1_3_9_10, "denied"),
        ({"rule": "tcf", "requires": [1, 3, 9]}, "euconsent-v2=" + TCF_1_3_9_10, "granted"),
        ({"rule": "tcf", "requires": [2, 10]}, "euconsent-v2=" + TCF_2_10, "granted"),
        ("tcf", "euconsent-v2=BOEFEAyOEFEAyAHABDENAI4AAAB9vABAASA", "denied"),
        ("google", "consentMode=" + quote(GOOGLE % ("granted", "granted")), "granted"),
        ("google", "consentMode=" + quote(GOOGLE % ("granted", "denied")), "denied"),
        ("google", "consentMode=G111", "granted"),
        ("google", "consentMode=G101", "denied"),
        ({"rule": "google", "cookie": "cm"}, "cm=" + quote(GOOGLE % ("granted", "granted")),
         "granted"),
        ({"rule": "onetrust", "requires": ["C0002"]},
         "OptanonConsent=" + ONETRUST.format(0), "granted"),
    ],
)  # fmt: skip
def test_a_banner_cookie_says_what_its_visitor_chose(rule: Any, cookie: str, consent: str) -> None:
    assert decide(rule, cookie).consent == consent


@pytest.mark.parametrize("rule", READY_RULES)
def test_without_its_cookie_a_ready_rule_denies(rule: str) -> None:
    assert decide(rule).consent == "denied"


@given(st.sampled_from(list(READY_RULES)), st.text(max_size=300))
def test_no_cookie_value_raises(rule: str, value: str) -> None:
    ready = READY_RULES[rule]
    assert ready.allows(value, ready.requires) in (True, False)


RULE = {"value": "{cookie.c}", "granted": ["all"], "limited": ["us"], "state": "{header.region}"}


@pytest.mark.parametrize(
    ("cookie", "region", "permission"),
    [
        ("c=all", "CA", Permission("granted")),
        ("c=us", "CA", Permission("limited", 1, 1000)),
        ("c=us", "tx", Permission("limited", 1, 1005)),
        ("c=us", "ZZ", Permission("limited", 0, 0)),
        ("c=no", "CA", Permission("denied")),
        ("", "CA", Permission("denied")),
    ],
)
def test_a_declared_rule_may_limit_by_state(
    cookie: str, region: str, permission: Permission
) -> None:
    assert decide(RULE, cookie, {"region": region}) == permission


@pytest.mark.parametrize(
    ("answer", "permission"),
    [
        (True, Permission("granted")),
        ("granted", Permission("granted")),
        (False, Permission("denied")),
        (None, Permission("denied")),
        ("nonsense", Permission("denied")),
        ("limited", Permission("limited", 0, 0)),
        (("limited", "US", "CO"), Permission("limited", 1, 1001)),
        (("limited", 1, 1000), Permission("limited", 1, 1000)),
        (("limited", 1, 0), Permission("limited", 0, 0)),
        (("limited", 0, 0), Permission("limited", 0, 0)),
        (("limited", 49, 1000), Permission("limited", 0, 0)),
        (("denied", 1, 1000), Permission("denied")),
    ],
)
def test_an_answer_is_understood_or_denies(answer: Any, permission: Permission) -> None:
    assert ConsentRule(lambda request: answer, gpc=True).decide(answer, {}) == permission


def test_global_privacy_control_denies_whatever_the_banner_says() -> None:
    assert decide(None, headers={"sec-gpc": "1"}).consent == "denied"
    assert decide("cookiebot", "CookieConsent=-1", {"sec-gpc": "1"}).consent == "denied"


@pytest.mark.parametrize(
    "consent",
    ["consentmanager", {"rule": "x"}, {"rule": "tcf", "requires": "1"}, {"granted": ["x"]},
     {"value": "{cookie.c}", "grant": ["x"]}, 7],
)  # fmt: skip
def test_a_consent_that_cannot_work_is_refused_at_start_up(consent: Any) -> None:
    with pytest.raises(ConfigError, match="consent"):
        make_config(consent=consent)
