from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware.events import BROWSER_CAUSES, SENT, UNPAIRED, Count, ServerState
from capi_middleware.meta.match_keys import MATCH_KEYS
from capi_middleware.report.causes import CAUSES
from capi_middleware.store.records import Freshness, Tally
from tests.support.tallies import END, START, numbers, report_on, tally

tallies = st.builds(
    Tally,
    pixel_id=st.sampled_from(["123", "456"]),
    event_name=st.sampled_from(["Purchase", "Lead"]),
    server=st.sampled_from(get_args(ServerState)),
    browser=st.sampled_from([SENT, *BROWSER_CAUSES]),
    match_keys=st.integers(0, 2 ** len(MATCH_KEYS) - 1),
    n=st.integers(1, 10_000),
)


def test_server_and_browser_and_matched_count_events_whose_copy_arrived() -> None:
    event = numbers(
        tally("delivered", "sent", 99),
        tally("delivered", "script_blocked", 21),
        tally("unmapped", "sent", 2),
    )
    assert (event.server, event.browser, event.matched) == (120, 101, 99)
    assert (event.server_only, event.browser_only) == (21, 2)


def test_coverage_and_ratio_are_rounded_to_three_decimals() -> None:
    event = numbers(
        tally("delivered", "sent", 99),
        tally("delivered", "script_blocked", 21),
        tally("unmapped", "sent", 2),
    )
    assert (event.coverage, event.ratio) == (0.98, 1.188)


def test_coverage_and_ratio_are_null_without_a_browser_event() -> None:
    event = numbers(tally("delivered", "not_run", 5))
    assert (event.coverage, event.ratio) == (None, None)


@given(rows=st.lists(tallies, max_size=30))
def test_causes_add_up_to_the_difference(rows: list[Tally]) -> None:
    for event in report_on(*rows).events:
        assert sum(event.missing_browser.values()) == event.server_only
        assert sum(event.missing_server.values()) == event.browser_only
        assert event.server == event.matched + event.server_only
        assert event.browser == event.matched + event.browser_only


@given(rows=st.lists(tallies, max_size=30))
def test_causes_are_words_of_the_contract(rows: list[Tally]) -> None:
    for event in report_on(*rows).events:
        assert set(event.missing_browser) <= set(BROWSER_CAUSES)
        assert set(event.missing_server) <= set(CAUSES["server"])


@given(rows=st.lists(tallies, max_size=30))
def test_shares_stay_between_0_and_1(rows: list[Tally]) -> None:
    for event in report_on(*rows).events:
        assert event.matched <= min(event.server, event.browser)
        assert event.coverage is None or 0 <= event.coverage <= 1
        assert all(0 <= share <= 1 for share in event.match_keys.values())


@given(rows=st.lists(tallies, max_size=30))
def test_every_event_of_the_store_is_in_one_report_only(rows: list[Tally]) -> None:
    events = report_on(*rows).events
    arrived = [row for row in rows if row.server == "delivered" or row.browser == SENT]
    told = sum(event.server + event.unpaired + event.browser_only for event in events)
    assert told == sum(row.n for row in arrived)


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ("pending", "pending"),
        ("leased", "pending"),
        ("dead", "rejected"),
        ("expired", "expired"),
        ("dropped", "dropped"),
        ("consent", "consent"),
        ("bot", "bot"),
        ("unmapped", "unmapped"),
        ("unknown", "unknown"),
    ],
)
def test_a_server_state_has_its_cause(state: str, cause: str) -> None:
    assert numbers(tally(state, "sent", 3)).missing_server == {cause: 3}


@pytest.mark.parametrize("cause", [one for one in BROWSER_CAUSES if one != UNPAIRED])
def test_a_browser_cause_keeps_its_word(cause: str) -> None:
    assert numbers(tally("delivered", cause, 3)).missing_browser == {cause: 3}


def test_the_biggest_cause_comes_first() -> None:
    event = numbers(
        tally("delivered", "csp", 1), tally("delivered", "bot", 4), tally("delivered", "csp", 2)
    )
    assert list(event.missing_browser.items()) == [("bot", 4), ("csp", 3)]


def test_an_event_without_any_copy_is_in_neither_sum() -> None:
    event = numbers(tally("dead", "script_blocked", 4))
    assert (event.server, event.browser) == (0, 0)
    assert (event.missing_browser, event.missing_server) == ({}, {})


def test_pending_counts_all_server_copies_that_wait() -> None:
    event = numbers(
        tally("pending", "sent", 1), tally("leased", "not_run", 2), tally("delivered", "sent", 4)
    )
    assert event.pending == 3


def test_suppressed_events_are_counted_by_reason() -> None:
    event = numbers(
        tally("delivered", "sent"),
        counts=(
            Count("suppressed", "consent", "Purchase", "123", 2),
            Count("suppressed", "consent", "Purchase", "123", 1),
            Count("suppressed", "bot", "Purchase", "123", 1),
            Count("left_out", "value", "Purchase", "123", 9),
        ),
    )
    assert event.suppressed == {"consent": 3, "bot": 1}


@pytest.mark.parametrize("kind", ["suppressed", "dropped"])
def test_an_event_that_never_left_a_row_is_in_the_report(kind: str) -> None:
    count = Count("suppressed" if kind == "suppressed" else "dropped", "why", "Lead", "123", 40)
    event = numbers(counts=(count,))
    assert (event.event_name, event.pixel_id, event.server) == ("Lead", "123", 0)
    assert event.coverage is None


def test_counts_that_belong_to_no_event_are_left_alone() -> None:
    assert report_on(counts=(Count("suppressed", "bot"), Count("dropped", "x"))).events == []


def test_match_keys_are_shares_of_the_delivered_events() -> None:
    event = numbers(
        tally("delivered", "sent", 2, keys=("fbp", "em")),
        tally("delivered", "not_run", 1, keys=("fbp",)),
        tally("pending", "sent", 7, keys=("ph",)),
    )
    assert list(event.match_keys.items()) == [("em", 0.667), ("fbp", 1.0)]


def test_match_keys_stand_in_their_own_order_however_often_they_are_carried() -> None:
    event = numbers(
        tally("delivered", "sent", 1, keys=("em", "ph", "fbp")),
        tally("delivered", "sent", 9, keys=("fbp",)),
    )
    assert list(event.match_keys) == ["em", "ph", "fbp"]


def _freshness(*groups: tuple[float, int], name: str = "Purchase") -> tuple[Freshness, ...]:
    return tuple(Freshness("123", name, seconds, n) for seconds, n in groups)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([(0.4, 1)], (0.4, 0.4, 0.4)),
        ([(2.0, 1), (1.0, 1)], (1.0, 2.0, 2.0)),
        ([(0.4, 50), (1.2, 45), (9.0, 5)], (0.4, 1.2, 9.0)),
        ([(0.4, 49), (1.2, 45), (9.0, 6)], (1.2, 9.0, 9.0)),
        ([(9.0, 1), (0.1, 1_000_000)], (0.1, 0.1, 9.0)),
    ],
)
def test_freshness_is_the_nearest_rank_of_grouped_seconds(
    groups: list[tuple[float, int]], expected: tuple[float, float, float]
) -> None:
    freshness = numbers(tally("delivered", "sent"), freshness=_freshness(*groups)).freshness_seconds
    assert (freshness.p50, freshness.p95, freshness.max) == expected


@given(seconds=st.lists(st.integers(0, 50), min_size=1, max_size=60))
def test_half_and_95_percent_of_all_events_are_as_fresh_as_the_report_says(
    seconds: list[int],
) -> None:
    freshness = numbers(freshness=_freshness(*((float(s), 1) for s in seconds))).freshness_seconds
    for percent, value in ((50, freshness.p50), (95, freshness.p95), (100, freshness.max)):
        assert value is not None
        assert 100 * sum(s <= value for s in seconds) >= percent * len(seconds)
        assert 100 * sum(s < value for s in seconds) < percent * len(seconds)


def test_freshness_is_null_when_nothing_was_delivered() -> None:
    freshness = numbers(tally("pending", "sent")).freshness_seconds
    assert (freshness.p50, freshness.p95, freshness.max) == (None, None, None)


def test_freshness_of_one_event_is_kept_apart_from_another() -> None:
    events = report_on(
        freshness=_freshness((1.0, 1), name="Lead") + _freshness((5.0, 9), name="Purchase")
    ).events
    assert [event.freshness_seconds.max for event in events] == [1.0, 5.0]


def test_events_are_sorted_by_name_and_pixel() -> None:
    events = report_on(
        tally("delivered", "sent", name="Purchase", pixel="2"),
        tally("delivered", "sent", name="Purchase", pixel="1"),
        tally("delivered", "sent", name="Lead", pixel="3"),
    ).events
    assert [(event.event_name, event.pixel_id) for event in events] == [
        ("Lead", "3"),
        ("Purchase", "1"),
        ("Purchase", "2"),
    ]


@pytest.mark.parametrize(
    ("event", "pixel", "left"),
    [
        ("Lead", None, [("Lead", "1")]),
        (None, "2", [("Purchase", "2")]),
        ("Lead", "2", []),
        (None, None, [("Lead", "1"), ("Purchase", "2")]),
    ],
)
def test_a_filter_leaves_only_what_was_asked_for(
    event: str | None, pixel: str | None, left: list[tuple[str, str]]
) -> None:
    report = report_on(
        tally("dead", "sent", name="Lead", pixel="1"),
        tally("dead", "sent", name="Purchase", pixel="2"),
        event=event,
        pixel=pixel,
    )
    assert [(e.event_name, e.pixel_id) for e in report.events] == left
    assert {(flag.event_name, flag.pixel_id) for flag in report.flags} == set(left)


def test_the_window_is_given_in_utc() -> None:
    window = report_on().window
    assert (window.start, window.end) == ("2026-06-01T00:00:00Z", "2026-06-08T00:00:00Z")
    assert END - START == 7 * 86400
