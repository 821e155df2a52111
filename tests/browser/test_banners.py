"""Each banner is heard, whenever it is answered and whenever it is there; no cookie tells us."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Playwright

from tests.browsers.drivers import Browser, open_browser
from tests.capture.test_banners import FEBRUARY, MARCH, consent, tc
from tests.journeys.banners import BANNERS, STAND_INS
from tests.journeys.street import Street, open_street, until, until_page

VIEW = ["PageView", "ViewContent"]
HEARD = [name for name in STAND_INS if name not in ("own", "limited")]
#: How a page begins with its banner: at once, or when a test says so (our script is there, then).
STARTS = {"at once": "start()", "later": "window.begins = start"}


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    with open_street() as made:
        yield made


@pytest.fixture(scope="module")
def visitor(driver: Playwright) -> Iterator[Browser]:
    with open_browser("chromium", driver) as browser:
        yield browser


def opens(visitor: Browser, street: Street, banner: str, starts: str = "at once") -> None:
    """A page of a site whose server sees no cookie of the banner."""
    made = BANNERS[banner]
    rule = {"rule": made.rule, "cookie": "nowhere"}
    street.opens(f"{made.head}<script>{STARTS[starts]}</script>", rule, {})
    visitor.fresh()


def goes(visitor: Browser, street: Street) -> None:
    visitor.goto(f"{street.url}/p/1")
    until_page(visitor, "window.capi && capi.consent")


def has(visitor: Browser, street: Street, names: list[str]) -> None:
    until(visitor, f"{names}", lambda: street.copies() == (sorted(names), sorted(names)))


@pytest.mark.parametrize("banner", HEARD)
def test_a_banner_that_is_answered_before_our_script_is_heard(
    visitor: Browser, street: Street, banner: str
) -> None:
    opens(visitor, street, banner)
    street.holds = True
    visitor.goto(f"{street.url}/p/1")
    visitor.evaluate("say(true)")
    street.holds = False
    has(visitor, street, VIEW)
    street.capi.close()


@pytest.mark.parametrize("banner", HEARD)
def test_a_banner_that_comes_after_our_script_is_heard_and_so_is_each_change(
    visitor: Browser, street: Street, banner: str
) -> None:
    opens(visitor, street, banner, "later")
    goes(visitor, street)
    visitor.evaluate("begins()")
    until_page(visitor, "ready()")
    visitor.evaluate("say(true)")
    has(visitor, street, VIEW)
    visitor.evaluate("say(false)")
    until(visitor, "the no", lambda: street.counted("withdrawn") == 1)
    # -- the next visit, with a banner that is later than we are
    forget = "document.cookie = 'capi_consent=; max-age=0; path=/'"
    visitor.evaluate(forget)
    goes(visitor, street)
    visitor.evaluate("begins()")
    until(visitor, "the no of before", lambda: street.counted("denied") == 1)
    visitor.evaluate("say(true)")
    visitor.evaluate("history.pushState({}, '', '/p/2')")
    has(visitor, street, VIEW * 2)
    visitor.evaluate(forget)
    goes(visitor, street)
    visitor.evaluate("begins()")
    has(visitor, street, VIEW * 3)
    street.capi.close()


# -- a TC string: page and server decide alike -----------------------------------------------------

STRINGS: dict[str, tuple[Any, str, str]] = {
    "a vendor": (755, tc([755]), ""),
    "another vendor": (755, tc([754]), ""),
    "a vendor that was shown": (755, tc([755], made=MARCH, shown=[755]), ""),
    "a vendor that was not shown": (755, tc([755], made=MARCH, shown=[9]), ""),
    "shown without consent": (755, tc([9], made=MARCH, shown=[755]), ""),
    "nobody asked for": (None, tc([], made=MARCH, shown=[9]), ""),
    "old enough to show nobody": (None, tc([], made=FEBRUARY), ""),
    "too new to show nobody": (None, tc([], made=MARCH), ""),
    "no purposes": (None, tc([], purposes=0), ""),
    "a provider": ("ac:89", tc([]), "2~70.89.93~dv.1"),
    "a provider of the first version": ("ac:89", tc([]), "1~89"),
    "a provider that was only shown": ("ac:89", tc([]), "2~70.93~dv.89"),
    "a part of a number": ("ac:89", tc([]), "2~890.189~dv."),
    "a version to come": ("ac:89", tc([]), "3~89~dv."),
    "no provider": ("ac:89", tc([]), ""),
}
#: The Additional Consent string comes with Google's addition to the IAB's API.
TELLS = """<script src=/@iabtechlabtcf/stub.js></script>
<script type=importmap>{"imports": {"@iabtechlabtcf/core": "/core/index.js"}}</script>
<script type=module>
    import { CmpApi } from '/cmpapi/index.js';
    new CmpApi(10, 1, true).update('%s', false);
    const its = __tcfapi;
    window.__tcfapi = (name, version, f) =>
        its(name, version, (told, is) => f(told && { ...told, addtlConsent: '%s' }, is));
    window.told = true;
</script>"""


#: Some of them in every run of the tests, all by `make test-journeys`.
STRING_NAMES = list(STRINGS)[:: 1 if os.environ.get("CAPI_JOURNEYS") else 3]


@pytest.mark.parametrize("name", STRING_NAMES)
def test_page_and_server_decide_alike_on_a_string(
    visitor: Browser, street: Street, name: str
) -> None:
    vendor, text, additional = STRINGS[name]
    rule = {"rule": "tcf", **({"vendor": vendor} if vendor else {})}
    decided = consent(rule, f"euconsent-v2={text}; addtl_consent={additional}")
    files = BANNERS["IAB's API"].files()
    street.opens(TELLS % (text, additional), {**rule, "cookie": "nowhere"}, files)
    street.holds = True
    visitor.fresh()
    visitor.goto(f"{street.url}/p/1")
    until_page(visitor, "window.told")
    street.holds = False

    def answer() -> str:
        if street.counted("denied"):
            return "denied"
        return "granted" if street.copies() == (VIEW, VIEW) else ""

    until(visitor, "an answer", answer)
    assert answer() == decided
    street.capi.close()
