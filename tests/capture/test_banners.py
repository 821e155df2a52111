"""The cookies of consent banners: what each says, and of several the strictest."""

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware import ConfigError
from capi_middleware.capture.banners import READY_RULES, banners_in, has_provider, has_vendor
from capi_middleware.capture.consent import ConsentRule
from capi_middleware.capture.reading import Fields
from tests.support.configs import make_config

FEBRUARY, MARCH = 17_723_231_999, 17_723_232_000  # tenths of a second, around 2026-03-01
ALL = 0b101100100000000000000000


def consent(rule: Any, cookie: str) -> str:
    given = {"cookie": cookie}
    asked = ConsentRule(rule, gpc=True)
    return asked.decide(asked.read(Fields({}, given, None)), given).consent


def packed(bits: str) -> str:
    whole = bits + "0" * (-len(bits) % 8)
    data = int(whole, 2).to_bytes(len(whole) // 8)
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def listed(vendors: list[int], *, ranges: bool = False) -> str:
    most = max(vendors, default=0)
    if not ranges:
        return f"{most:016b}0" + "".join(str(int(n in vendors)) for n in range(1, most + 1))
    entries = "".join(f"1{one:016b}{one:016b}" if one % 2 else f"0{one:016b}" for one in vendors)
    return f"{most:016b}1{len(vendors):012b}{entries}"


def tc(
    vendors: list[int],
    *,
    made: int = FEBRUARY,
    shown: list[int] | None = None,
    purposes: int = ALL,
    ranges: bool = False,
) -> str:
    """A TC string of version 2, with the segment of disclosed vendors where some are `shown`."""
    cmp = f"{10:012b}{1:012b}{1:06b}{0:012b}{1:012b}{5:06b}" + "0" * 14
    head = f"{2:06b}{made - 9:036b}{made:036b}{cmp}{purposes:024b}" + "0" * 37
    core = packed(head + listed(vendors, ranges=ranges) + "0" * 29)
    if shown is None:
        return core
    return f"{core}.{packed('011' + '0' * 54)}.{packed('001' + listed(shown, ranges=ranges))}"


@pytest.mark.parametrize(
    ("rule", "cookies", "state"),
    [
        ("tcf", {"euconsent-v2": tc([])}, "granted"),
        ("tcf", {"euconsent-v2": tc([], purposes=ALL - 2**21)}, "denied"),
        ("tcf", {"euconsent-v2": tc([], made=MARCH)}, "denied"),
        ("tcf", {"euconsent-v2": tc([], made=MARCH, shown=[1])}, "granted"),
        ({"rule": "tcf", "vendor": 755}, {"euconsent-v2": tc([755])}, "granted"),
        ({"rule": "tcf", "vendor": 755}, {"euconsent-v2": tc([754, 756])}, "denied"),
        ({"rule": "tcf", "vendor": 755}, {"euconsent-v2": tc([9], made=MARCH, shown=[755])},
         "denied"),
        ({"rule": "tcf", "vendor": 755}, {"euconsent-v2": tc([755], made=MARCH, shown=[9])},
         "denied"),
        ({"rule": "tcf", "vendor": 755}, {"euconsent-v2": tc([755], made=MARCH, shown=[755])},
         "granted"),
        ({"rule": "tcf", "vendor": "ac:89"}, {"euconsent-v2": tc([])}, "denied"),
        ({"rule": "tcf", "vendor": "ac:89"},
         {"euconsent-v2": tc([]), "addtl_consent": "1~70.89.93"}, "granted"),
        ({"rule": "tcf", "vendor": "ac:89"},
         {"euconsent-v2": tc([]), "addtl_consent": "2~70.93~dv.89"}, "denied"),
        ({"rule": "tcf", "vendor": "ac:89"},
         {"euconsent-v2": tc([], purposes=0), "addtl_consent": "1~89"}, "denied"),
        ("complianz", {"cmplz_marketing": "allow"}, "granted"),
        ("complianz", {"cmplz_marketing": "deny"}, "denied"),
        ("usercentrics", {"uc_gcm": quote(json.dumps(
            {"adsDataRedaction": True, "adStorage": "granted", "adUserData": "granted"}))},
         "granted"),
        ("usercentrics", {"uc_gcm": quote(json.dumps(
            {"adStorage": "granted", "adUserData": "denied"}))}, "denied"),
        ({"rule": "google", "cookie": "cm"}, {"cm": '{"ad_storage":"granted"}'}, "granted"),
        ("google", {}, "denied"),
        ("google", {"CookieConsent": "-1"}, "granted"),
        ("google", {"cmplz_marketing": "allow", "euconsent-v2": tc([], purposes=0)}, "denied"),
        ("google", {"cm": '{"ad_storage":"granted"}'}, "denied"),
    ],
)  # fmt: skip
def test_a_banner_says_what_its_visitor_chose(
    rule: Any, cookies: dict[str, str], state: str
) -> None:
    assert consent(rule, "; ".join(f"{name}={text}" for name, text in cookies.items())) == state


@pytest.mark.parametrize(
    ("services", "state"),
    [
        ({"facebook": True}, "granted"),
        ({"facebook-pixel": True, "matomo": False}, "granted"),
        ({"metaPixel": True}, "granted"),
        ({"metaPixel": True, "facebookCAPI": False}, "denied"),
        ({"facebook-pixel": False, "matomo": True}, "denied"),
        ({"metadata": True, "fbi": True}, "denied"),
        ({"facebook": "true"}, "denied"),
        ({"meta": False}, "denied"),
    ],
)
def test_a_service_is_metas_by_its_name(services: dict[str, Any], state: str) -> None:
    assert consent("klaro", "klaro=" + quote(json.dumps(services))) == state


@pytest.mark.parametrize(
    ("token", "state"),
    [
        ({"purposes": {"enabled": ["ads"]}, "vendors": {"enabled": ["facebook"]}}, "granted"),
        ({"vendors": {"enabled": ["c:facebook-h7Kc3e7Y", "google"]}}, "granted"),
        ({"vendors": {"enabled": ["google"], "disabled": ["facebook"]}}, "denied"),
        ({"purposes": {"disabled": ["ads"]}, "vendors": {"enabled": ["facebook"]}}, "denied"),
        ({"purposes": {"enabled": ["ads"]}, "vendors": {"enabled": ["google"]}}, "denied"),
        ({"purposes": 1, "vendors": {"enabled": 7}}, "denied"),
        ([], "denied"),
    ],
)
def test_didomis_token_names_vendors_and_purposes(token: Any, state: str) -> None:
    text = base64.b64encode(json.dumps(token).encode()).decode()
    for value in (text, quote(text), text.rstrip("=")):
        assert consent("didomi", f"didomi_token={value}") == state


@pytest.mark.parametrize(
    ("choice", "waits"),
    [
        ({"version": None}, True),
        ({"version": 2, "purposes": {"disabled": ["ads"]}}, False),
        ({"version": 2, "vendors": {"enabled": ["google"]}}, False),
    ],
)
def test_a_token_of_didomi_that_names_nothing_is_no_answer_yet(choice: Any, waits: bool) -> None:
    token = {"user_id": "1", "created": "2026-11-28T12:00:00.000Z", **choice}
    text = base64.b64encode(json.dumps(token).encode()).decode()
    given = {"cookie": f"didomi_token={text}"}
    asked = ConsentRule("didomi", gpc=True)
    assert asked.decide(asked.read(Fields({}, given, None)), given).waits is waits


def test_a_site_names_its_own_purposes_of_didomi() -> None:
    token = {"purposes": {"enabled": ["ads"], "disabled": ["audience"]}}
    text = base64.b64encode(json.dumps(token).encode()).decode()
    assert consent({"rule": "didomi", "requires": ["ads"]}, f"didomi_token={text}") == "granted"
    assert consent({"rule": "didomi", "requires": ["audience"]}, f"didomi_token={text}") == "denied"


_ONETRUST = (
    "OptanonConsent=isGpcEnabled=0&datestamp=Thu+May+08+2025+17%3A43%3A11+GMT%2B0200+("
    "%E4%B8%AD%E5%9B%BD%E6%A0%87)&version=202409.1.0&browserGpcFlag=0&isIABGlobal=false&hosts=&"
    "interactionCount=1&landingPath=NotLandingPage&groups={}&AwaitingReconsent=false&intType=2"
)
_CLOSED = "; OptanonAlertBoxClosed=2025-05-08T15:26:26.423Z"
_COOKIEBOT = (
    "CookieConsent={{stamp:%276cM/oZqcGG9XwjaY233NxjKQb+Q5stoA==%27%2Cnecessary:true%2Cpreferences:"
    "true%2Cstatistics:true%2Cmarketing:{}%2Cmethod:%27explicit%27%2Cver:2%2Cutc:1745622155764%2C"
    "region:%27nz%27}}"
)
_COOKIEYES = (
    "cookieyes-consent=consentid:YjZOOUV4T2h6UkFoTUw,consent:{},action:{},necessary:yes,functional:"
    "{},analytics:{},performance:{},advertisement:{},other:no"
)
_COMPLIANZ = (
    "cmplz_consented_services=; cmplz_policy_id=35; cmplz_marketing={0}; cmplz_statistics=allow; "
    "cmplz_preferences={0}; cmplz_functional=allow; cmplz_banner-status=dismissed"
)


def didomi(**more: Any) -> str:
    told = {"user_id": "1", "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z"}
    return "didomi_token=" + base64.b64encode(json.dumps({**told, **more}).encode()).decode()


@pytest.mark.parametrize(
    ("rule", "cookies", "state"),
    [
        ("onetrust", _ONETRUST.format("C0001%3A1%2CC0002%3A1%2CC0004%3A1") + _CLOSED, "granted"),
        ("onetrust", _ONETRUST.format("C0002%3A1%2CC0004%3A1%2CV2STACK42%3A1") + _CLOSED,
         "granted"),
        ("onetrust", _ONETRUST.format("C0001%3A1%2CC0004%3A0%2CC0002%3A0") + _CLOSED, "denied"),
        ("onetrust", _ONETRUST.format("C0001%3A1%2CC0007%3A1&hosts=H40%3A1&genVendors=V12%3A1%2C")
         + _CLOSED, "denied"),
        ("onetrust", _ONETRUST.format("C0001%3A1%2CC0004%3A0"), "unanswered"),
        ("onetrust", _ONETRUST.format("1%3A1%2C2%3A1%2C3%3A1%2C4%3A1") + _CLOSED, "denied"),
        ({"rule": "onetrust", "requires": ["4"]},
         _ONETRUST.format("1%3A1%2C2%3A1%2C3%3A1%2C4%3A1") + _CLOSED, "granted"),
        ({"rule": "onetrust", "requires": ["4"]}, _ONETRUST.format("1%3A1%2C14%3A1") + _CLOSED,
         "denied"),
        ("cookiebot", _COOKIEBOT.format("true"), "granted"),
        ("cookiebot", _COOKIEBOT.format("false"), "denied"),
        ("cookiebot", "CookieConsent={stamp:%27-1%27%2Cnecessary:true%2Cpreferences:true%2C"
         "statistics:true%2Cmarketing:true%2Cmethod:%27implied%27%2Cver:1%2Cregion:%27CN%27}",
         "granted"),
        ("cookiebot", "CookieConsent={stamp:%27x%27%2C+necessary:true%2C+statistics:true%2C+"
         "marketing:false%2C+method:%27explicit%27%2C+ver:1}", "denied"),
        ("cookiebot", "CookieConsent={stamp:%27ALwl4byO==%27%2Cnecessary:true%2Cmarketing:true%2C"
         "method:%27explicit%27%2Cver:1%2Cutc:1707240048272%2Ciab2:%27CP5jqEAP5jqEACGABBENAmEgAA"
         "AAAAAA%27%2Cgacm:%271~%27%2Cregion:%27de%27}", "granted"),
        ("cookieyes", _COOKIEYES.format("yes", "yes", *["yes"] * 4), "granted"),
        ("cookieyes", _COOKIEYES.format("yes", "no", *["yes"] * 4), "granted"),
        ("cookieyes", _COOKIEYES.format("no", "yes", *["no"] * 4), "denied"),
        ("cookieyes", _COOKIEYES.format("no", "", "yes", "no", "no", "no"), "unanswered"),
        ("cookieyes", _COOKIEYES.format("", "", *[""] * 4), "unanswered"),
        ("didomi", didomi(version=None), "unanswered"),
        ("didomi", didomi(version=2, vendors={"enabled": ["google", "c:hotjar", "facebook"]},
         purposes={"enabled": ["geolocation_data", "cookies"]}, ac="AFmACAFk.AAAA"), "granted"),
        ("didomi", didomi(version=2, vendors={"disabled": ["google", "facebook"]},
         purposes={"disabled": ["geolocation_data", "cookies"]}), "denied"),
        ("tcf", "euconsent-v2=CQX48QAQX48QAAGABBENB3FgAAAAAAAAAAYgAAAAAAAA.YAAAAAAAAAAA", "denied"),
        ({"rule": "tcf", "vendor": 755},
         "euconsent-v2=CPnHJ0HPnHJ0HFCABAENC3CsAP_AAH_AAAwIF5wAQF5gXnABAXmAAAAA.YAAAAAAAAAAA",
         "granted"),
        ({"rule": "tcf", "vendor": 754},
         "euconsent-v2=CPnHJ0HPnHJ0HFCABAENC3CsAP_AAH_AAAwIF5wAQF5gXnABAXmAAAAA.YAAAAAAAAAAA",
         "denied"),
        ({"rule": "tcf", "vendor": 755},  # of the IAB's own library, with disclosed vendors
         "euconsent-v2=CQuci4AQuci4AAKABAENABFgALIAAAAAAAAAF5wAQF5gAAAA.IF5wAQF5gAAA.YAAAAAAAAAAA",
         "granted"),
        ("complianz", _COMPLIANZ.format("allow"), "granted"),
        ("complianz", _COMPLIANZ.format("deny"), "denied"),
        ("complianz", "cmplz_policy_id=35; cmplz_functional=allow", "unanswered"),
        ("klaro", "klaro=%7B%22facebook-pixel%22%3Atrue%2C%22matomo%22%3Afalse%7D", "granted"),
        ("klaro", "klaro=%7B%22facebook-pixel%22%3Afalse%2C%22matomo%22%3Atrue%7D", "denied"),
    ],
)  # fmt: skip
def test_cookies_as_banners_of_real_sites_write_them_are_read(
    rule: Any, cookies: str, state: str
) -> None:
    given = {"cookie": f"_ga=GA1.1.85573617.1766952688; {cookies}; session=1"}
    asked = ConsentRule(rule, gpc=True)
    found = asked.decide(asked.read(Fields({}, given, None)), given)
    assert ("unanswered" if found.waits else found.consent) == state


LIMITED = {"value": "{cookie.c}", "granted": ["all"], "limited": ["us"]}


@pytest.mark.parametrize(
    ("rule", "one", "other", "state"),
    [
        ("complianz", "cmplz_marketing=deny", "cmplz_marketing=allow", "denied"),
        ("complianz", "cmplz_marketing=allow", "cmplz_marketing=allow", "granted"),
        ({"rule": "tcf", "vendor": 7}, f"euconsent-v2={tc([7])}", f"euconsent-v2={tc([8])}",
         "denied"),
        (LIMITED, "c=all", "c=no", "denied"),
        (LIMITED, "c=all", "c=us", "limited"),
        (LIMITED, "c=all", "d=1; d=2", "granted"),
        (LIMITED, "c=all; " * 8, "c=all", "denied"),
    ],
)  # fmt: skip
def test_of_several_cookies_of_one_name_the_strictest_counts(
    rule: Any, one: str, other: str, state: str
) -> None:
    assert consent(rule, f"{one}; x=1; {other}") == state
    assert consent(rule, f"{other}; {one}") == state


@given(
    st.lists(st.integers(1, 3000), max_size=40, unique=True), st.booleans(), st.integers(1, 3000)
)
def test_a_vendor_has_consent_where_it_is_listed(
    vendors: list[int], ranges: bool, asked: int
) -> None:
    found = tc(vendors, ranges=ranges)
    assert has_vendor(found, asked) == (asked in vendors)
    assert all(has_vendor(found, one) for one in vendors)


@given(st.text(max_size=300), st.binary(max_size=300))
def test_what_is_no_string_names_no_vendor(text: str, data: bytes) -> None:
    for value in (text, "C" + base64.urlsafe_b64encode(data).decode()):
        assert has_vendor(value, 1) in (True, False)
        assert has_provider(value, "1") in (True, False)


@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "tcf", "vendor": 0},
        {"rule": "tcf", "vendor": "89"},
        {"rule": "tcf", "vendor": True},
        {"rule": "onetrust", "vendor": 755},
        {"rule": "google", "requires": ["ad_storage"]},
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(rule: Any) -> None:
    with pytest.raises(ConfigError, match=r"consent\.(vendor|requires)"):
        make_config(consent=rule)


@pytest.mark.parametrize(
    ("html", "names"),
    [
        ("<script src=https://cdn.cookielaw.org/scripttemplates/otSDKStub.js>", ["onetrust"]),
        ("<script id=Cookiebot src='https://consent.cookiebot.eu/uc.js'>", ["cookiebot"]),
        ("<script src=//web.cmp.usercentrics.eu/ui/loader.js>", ["usercentrics"]),
        ("<script src=https://sdk.privacy-center.org/abc/loader.js>", ["didomi"]),
        ("<script>gtag('consent', 'default', {ad_storage: 'denied'})</script>", ["google"]),
        ("<div id=cmplz-cookiebanner-container>", ["complianz"]),
        ("<script defer src=/js/klaro.js>", ["klaro"]),
        ("<script src=https://cdn-cookieyes.com/client_data/x/script.js>", ["cookieyes"]),
        ("<script>window.__tcfapi = function () {}</script>", ["tcf"]),
        ("<p>We use cookies, as do all of them.</p>", []),
    ],
)
def test_a_page_shows_signs_of_its_banner(html: str, names: list[str]) -> None:
    assert list(banners_in(html)) == names


def test_every_banner_has_signs() -> None:
    assert [name for name, rule in READY_RULES.items() if not rule.marks] == []
