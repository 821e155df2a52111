"""Banners that are answered in the page: Meta gets what was planted, and before a yes nothing."""

import json
import os
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import pytest
from playwright.sync_api import Playwright

from capi_middleware.capture.consent import ConsentRule
from capi_middleware.report.numbers import decisions
from tests.browsers.drivers import NAMES, Browser, Name, open_browser
from tests.journeys.banners import BANNERS
from tests.journeys.street import Street, open_street, until, until_page
from tests.support.libraries import source_of

VIEW = ("PageView", "ViewContent")
#: A step of a single page, at a person's pace: those within 60 ms are one.
MOVE = """(() => {
    history.pushState({}, '', '%s');
    return new Promise(done => setTimeout(done, 150, 0));
})()"""
CALL = "fetch('/cart', { method: 'POST' }).then(answer => answer.text())"
#: What makes a single page of the link on the page.
ROUTERS = {
    "turbo": ("@hotwired/turbo", "8.0.23", "dist/turbo.es2017-umd.js"),
    "htmx": ("htmx.org", "2.0.4", "dist/htmx.min.js"),
}
BOOST = """<script>
addEventListener('DOMContentLoaded', () => {
    document.body.setAttribute('hx-boost', 'true');
    window.htmx?.process(document.body);
});
</script>"""

#: What happens before the answer, and the events of it: of the page that is open when he says so.
DOES = {
    "looks": VIEW,
    "moves": VIEW * 3,
    "clicks": (*VIEW, "Lead"),
    "calls": (*VIEW, "AddToCart"),
    "cached": VIEW,
    "turbo": VIEW * 2,
    "htmx": VIEW * 2,
    "loads": VIEW,
    "back": VIEW,
}
#: Where the server answers one page, or two: the record of consent has them.
COUNTED = ("looks", "moves", "clicks", "calls", "cached", "loads")
#: "early" is before our script is there, "late" after hold_minutes, "kept" on an earlier visit.
SAYS = ("yes", "no", "yes+no", "no+yes", "late", "early", "kept")


class Journey(NamedTuple):
    """A visitor before a `banner`, what happens on the page (`does`), what he answers (`says`)."""

    browser: Name
    banner: str
    does: str
    says: str

    @property
    def name(self) -> str:
        return "-".join(self)


def journeys() -> Iterator[Journey]:
    """Each banner and answer, each act and answer, each banner and act in each browser."""
    stand_ins = [name for name, one in BANNERS.items() if not one.is_real]
    for n, (banner, browser) in enumerate(product(BANNERS, NAMES)):
        answers = SAYS if BANNERS[banner].is_real else ("yes", "yes+no", "early", "kept")
        for m, says in enumerate(answers):
            if (n + m) % 3 == 0 or (BANNERS[banner].is_real and browser == "chromium"):
                yield Journey(browser, banner, "looks", says)
    for n, (does, says) in enumerate(product(DOES, SAYS)):
        for m, browser in enumerate(NAMES):
            if (n + m) % 3 and does != "back":
                continue
            fitting = [one for one in stand_ins if says != "early" or BANNERS[one].is_early]
            yield Journey(browser, fitting[(n + m) % len(fitting)], does, says)


def is_possible(journey: Journey) -> bool:
    """What is answered before cannot be asked on a page that is left, or held."""
    if journey.says == "early":
        return BANNERS[journey.banner].is_early and journey.does not in ("loads", "back")
    return journey.says != "kept" or journey.does not in ("loads", "back")


JOURNEYS = sorted(set(filter(is_possible, journeys())))
#: Those of every run of the tests: of one browser, the others by `make test-journeys`.
CHOSEN = [one for one in JOURNEYS if one.browser == "chromium"][::5]


def planted(journey: Journey) -> tuple[list[str], list[str]]:
    """What Meta must get (by the server, by the browser) of all that happens; see walk().

    After the last answer the visitor moves on to one more address.
    """
    before = [*DOES[journey.does]]
    if journey.says == "kept":
        before += VIEW  # of the visit on which he said so
    if journey.says in ("yes", "early", "kept"):
        told = [*before, *VIEW]
    elif journey.says == "yes+no":
        told = before
    elif journey.says == "no":
        told = []
    else:
        told = [*VIEW]
    return sorted(told), sorted(told)


def recorded(journey: Journey) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """What the report must say of consent: pages by rule and answer, those never answered."""
    rule = ConsentRule(BANNERS[journey.banner].rule, gpc=True).name
    yes = "limited" if journey.banner == "limited" else "granted"
    leaves = journey.does == "loads"
    answers = {"held": 1 + leaves}
    if journey.says in ("no", "no+yes"):
        answers["denied"] = 1
    if journey.says != "no":
        answers[yes] = 1
    if journey.says in ("yes", "yes+no"):
        answers["released"] = 1
    if journey.says == "yes+no":
        answers["withdrawn"] = 1
    return {rule: answers}, {rule: leaves + (journey.says == "late")}


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    with open_street() as made:
        yield made


@pytest.fixture(scope="module")
def visitor(request: pytest.FixtureRequest, driver: Playwright) -> Iterator[Browser]:
    with open_browser(request.param, driver) as browser:
        yield browser


@pytest.mark.parametrize(
    ("visitor", "journey"),
    [
        pytest.param(one.browser, one, id=one.name)
        for one in (JOURNEYS if os.environ.get("CAPI_JOURNEYS") else CHOSEN)
    ],
    indirect=["visitor"],
)
def test_before_a_yes_meta_sees_nothing_and_after_it_everything_once(
    visitor: Browser, street: Street, journey: Journey
) -> None:
    banner, files = BANNERS[journey.banner], {}
    head = banner.head
    if journey.does in ROUTERS:
        files["/router.js"] = source_of(*ROUTERS[journey.does])
        head += "<script src=/router.js></script>" + BOOST
    cache = {"cached": "public, max-age=600", "back": "no-cache"}.get(journey.does, "no-store")
    street.opens(
        f"{head}<script>start()</script>", banner.rule, {**banner.files(), **files},
        cache,
    )  # fmt: skip
    visitor.fresh()
    try:
        walk(visitor, street, journey)
    finally:
        street.holds = False
        street.capi.close()


def opens(visitor: Browser, street: Street, path: str) -> None:
    """A page of which our script runs, and asked what it asks."""
    visitor.goto(f"{street.url}{path}?fbclid=Click1")
    until_page(visitor, "window.capi && capi.consent && ready()")


def do(visitor: Browser, street: Street, does: str) -> None:
    """What the visitor does before the answer."""
    if does == "moves":
        for n in (2, 3):
            visitor.evaluate(MOVE % f"/p/{n}")
    elif does == "clicks":
        visitor.click("button")
    elif does == "calls":
        visitor.evaluate(CALL)
    elif does in ROUTERS:
        visitor.evaluate("window.isKept = true")
        visitor.click("#go")
        until_page(visitor, "isKept && location.pathname === '/p/2' && document.title === '/p/2'")
        visitor.evaluate("new Promise(done => setTimeout(done, 150, 0))")
    elif does in ("loads", "back"):
        opens(visitor, street, "/p/9")
        if does == "back":
            visitor.back()
            until_page(visitor, "location.pathname === '/p/1' && window.capi && capi.consent")
            until_page(visitor, "ready()")


def say(visitor: Browser, yes: bool) -> None:
    visitor.evaluate(f"Promise.resolve(say({json.dumps(yes)})).then(() => 0)")


def is_still(visitor: Browser, street: Street) -> None:
    """Nobody but the site knows of the visitor, and no page has a cookie of ours."""
    ours = {"_fbp", "_fbc", "capi_next", "capi_consent"} & visitor.cookies()
    assert (street.asked, street.hints, ours, street.copies()) == ([], [], set(), ([], []))
    found = "document.querySelectorAll('link[rel*=pre],link[rel*=dns],[src*=fbevents]').length"
    assert visitor.evaluate(found) == 0
    # htmx keeps its history there.
    kept = "[...Object.keys(localStorage), ...Object.keys(sessionStorage)].join()"
    assert "_capi" not in visitor.evaluate(kept)


def walk(visitor: Browser, street: Street, journey: Journey) -> None:
    first, _, then = journey.says.partition("+")

    def has(names: Sequence[str]) -> None:
        both = (sorted(names), sorted(names))
        until(visitor, f"{both}", lambda: street.copies() == both)

    if first == "early":
        street.holds = True
        visitor.goto(f"{street.url}/p/1?fbclid=Click1")
        until_page(visitor, "ready()")
        is_still(visitor, street)
        say(visitor, True)
        is_still(visitor, street)
        street.holds = False
        has(VIEW)
    else:
        opens(visitor, street, "/p/1")
    if first == "kept":
        say(visitor, True)
        has(VIEW)
        opens(visitor, street, "/p/1")
        has(VIEW * 2)
    do(visitor, street, journey.does)
    if first not in ("early", "kept"):
        if journey.does == "cached":
            until(visitor, "the question", lambda: street.counted("held") == 1)
        visitor.pause(0.2)  # for what must not come
        is_still(visitor, street)
    if first == "late":
        street.ahead = 31 * 60
        visitor.evaluate("window.ahead = 31 * 60e3")
    for n, word in enumerate(filter(None, (first, then))):
        before = street.copies()
        if word in ("yes", "late", "no"):
            say(visitor, word != "no")
        if word == "no":
            until(visitor, "the no", lambda: street.counted("denied", "withdrawn") >= 1)
            assert street.copies() == before
            if n:
                until(visitor, "no cookie", lambda: {"_fbp", "_fbc"}.isdisjoint(visitor.cookies()))
        elif journey.says in ("yes", "yes+no"):
            has(DOES[journey.does])
        else:
            until_page(visitor, "window.fbq && fbq.callMethod")
    # -- one address more
    visitor.evaluate(MOVE % "/p/4")
    until(visitor, str(planted(journey)), lambda: street.copies() == planted(journey))
    visitor.pause(0.2)
    assert street.copies() == planted(journey)
    assert street.hints == []
    if journey.says not in ("early", "kept") and journey.does in COUNTED:
        assert decisions(street.capi.store.tallies(0, 1e12).counts) == recorded(journey)
    ids = [one["event_id"] for one in street.sent]
    assert sorted(ids) == sorted(str(one.eid) for one in street.meta.received.browser)
    assert len(set(ids)) == len(ids)
    if ids:
        assert {one["user_data"]["fbc"].rpartition(".")[2] for one in street.sent} == {"Click1"}
        assert len({one["user_data"]["fbp"] for one in street.sent}) == 1


def test_the_table_of_consent_holds_every_banner_act_answer_and_browser() -> None:
    assert len(set(JOURNEYS)) == len(JOURNEYS) >= 80
    for acts in product(DOES, SAYS):
        kinds = {one for one in JOURNEYS if (one.does, one.says) == acts}
        assert kinds or not is_possible(Journey("chromium", "tcf", *acts))
    assert {(one.browser, one.does) for one in JOURNEYS} == set(product(NAMES, DOES))
    assert {(one.browser, one.says) for one in JOURNEYS} == set(product(NAMES, SAYS))
    assert {(one.browser, one.banner) for one in JOURNEYS} == set(product(NAMES, BANNERS))
