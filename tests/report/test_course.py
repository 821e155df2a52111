"""Since when a fault takes copies, when it did last, and that a cured one is no alarm any more."""

from collections.abc import Iterable

import pytest

from capi_middleware.events import Count
from capi_middleware.report.html import to_html
from capi_middleware.report.model import Card, Report
from capi_middleware.report.read import build
from capi_middleware.report.window import Window
from capi_middleware.store.records import Slice, Tallies, Tally
from tests.report.test_report import Page

END = 1_780_876_800  # 2026-06-08, UTC
START = END - 7 * 86400
DAY = 24


def report(
    days: Iterable[tuple[str, str]], counts: tuple[Count, ...] = (), lately: tuple[Count, ...] = ()
) -> Report:
    """A week in which each hour of a day has ten events of that day's (server, browser) states."""
    hours = [
        Slice(str(START + (day * DAY + hour) * 3600), "123", "Purchase", server, browser, 10)
        for day, (server, browser) in enumerate(days)
        for hour in range(DAY)
    ]

    def tallies(found: list[Slice], counts: tuple[Count, ...]) -> Tallies:
        rows = [Tally("123", "Purchase", one.server, one.browser, 0, one.n) for one in found]
        return Tallies(rows, [], counts)

    return build(
        tallies(hours, counts), Window(START, END), slices={"hour": hours}, now=END - 1,
        lately=(tallies(hours[-DAY:], lately), tallies(hours[:-DAY], counts)),
    )  # fmt: skip


def card(found: Report, cause: str) -> Card:
    return next(one for one in found.cards if one.cause == cause)


SENT, CSP, REFUSED = ("delivered", "sent"), ("delivered", "csp"), ("dead", "sent")
ALL = 7


def test_a_fault_that_lasts_says_since_when() -> None:
    found = card(report([SENT] * 3 + [CSP] * 4), "csp")
    assert (found.since, found.last_seen) == ("2026-06-04T00:00:00Z", "2026-06-08T00:00:00Z")
    assert (found.resolved, found.severity) == (None, "warning")


@pytest.mark.parametrize(("state", "cause"), [(CSP, "csp"), (REFUSED, "rejected")])
def test_a_cured_fault_is_resolved_and_no_alarm(state: tuple[str, str], cause: str) -> None:
    found = report([state] * 4 + [SENT] * 3)
    one = card(found, cause)
    assert one.since == "2026-06-01T00:00:00Z"
    assert one.last_seen == one.resolved == "2026-06-05T00:00:00Z"
    assert one.severity == "info"
    assert {flag.severity for flag in found.flags if flag.cause == cause} == {"info"}
    assert found.verdict.word == "healthy"


def test_a_fault_of_which_a_few_stragglers_come_is_over_too() -> None:
    found = report([CSP] * 4 + [SENT] * 3)
    hours = [
        Slice(str(START + hour * 3600), "123", "Purchase", "delivered", "sent", 10)
        for hour in range(4 * DAY, ALL * DAY)
    ]
    assert card(found, "csp").resolved
    hours += [
        Slice(str(START + hour * 3600), "123", "Purchase", "delivered", "csp", 20)
        for hour in range(4 * DAY)
    ]
    hours.append(Slice(str(END - 3600), "123", "Purchase", "delivered", "csp", 1))
    rows = [Tally("123", "Purchase", one.server, one.browser, 0, one.n) for one in hours]
    stale = build(Tallies(rows, [], []), Window(START, END), slices={"hour": hours}, now=END - 1)
    assert card(stale, "csp").resolved == "2026-06-05T00:00:00Z"


def test_two_good_events_end_no_fault() -> None:
    hours = [Slice(str(START + n * 3600), "123", "Purchase", *CSP, 10) for n in range(DAY)]
    hours.append(Slice(str(END - 3600), "123", "Purchase", *SENT, 2))
    rows = [Tally("123", "Purchase", one.server, one.browser, 0, one.n) for one in hours]
    found = build(Tallies(rows, [], []), Window(START, END), slices={"hour": hours}, now=END - 1)
    assert card(found, "csp").resolved is None


def test_what_is_only_counted_is_over_when_the_last_day_has_none() -> None:
    counts = (Count("repeated", "", "Purchase", "123", 400),)
    assert card(report([SENT] * ALL, counts), "repeated_events").resolved == "2026-06-06T23:00:00Z"
    assert card(report([SENT] * ALL, counts, counts), "repeated_events").resolved is None
    few = (Count("repeated", "", "Purchase", "123", 2),)  # of which a day without is no wonder
    assert card(report([SENT] * ALL, few), "repeated_events").resolved is None


def test_the_page_says_that_a_fault_is_resolved() -> None:
    page = Page(to_html(report([CSP] * 4 + [SENT] * 3), path="/p", query="", nonce="n"))
    assert "Resolved since 2026-06-05 00:00" in page.text
