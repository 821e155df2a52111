import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware.events import BROWSER_CAUSES, UNPAIRED, Count
from capi_middleware.report.causes import CAUSES
from capi_middleware.report.numbers import WITH_ROW, wilson_upper
from capi_middleware.report.read import build
from capi_middleware.report.window import Window
from capi_middleware.store.records import Tallies
from tests.support.tallies import flags, report_on, tally


def test_coverage_that_is_surely_below_the_target_is_critical() -> None:
    flag = flags(tally("delivered", "sent", 61), tally("unmapped", "sent", 39))[
        "coverage_below_target"
    ]
    assert (flag.severity, flag.value, flag.target) == ("critical", 0.61, 0.75)
    assert (flag.event_name, flag.pixel_id) == ("Purchase", "123")


@pytest.mark.parametrize(("matched", "missing"), [(0, 1), (0, 2), (1, 1), (0, 4), (70, 30)])
def test_coverage_that_may_be_chance_raises_no_alarm(matched: int, missing: int) -> None:
    rows = [tally("delivered", "sent", matched)] if matched else []
    found = flags(*rows, tally("unmapped", "sent", missing))
    assert "coverage_below_target" not in found
    assert {flag.severity for flag in found.values()} == {"info"}


def test_coverage_on_the_target_raises_no_flag() -> None:
    found = flags(tally("delivered", "sent", 75), tally("unmapped", "sent", 25))
    assert found.keys() == {"server_missing"}


def test_another_target_is_the_one_that_counts() -> None:
    rows = [tally("delivered", "sent", 900), tally("unmapped", "sent", 100)]
    report = build(Tallies(rows, [], []), Window(0, 1), target=0.95)
    assert ("coverage_below_target", 0.95) in [(flag.code, flag.target) for flag in report.flags]
    assert "target of 95 %" in report.flags[0].explanation


@pytest.mark.parametrize(
    ("part", "whole", "upper"),
    # From Newcombe 1998, table I, and by hand for 0 of 2.
    [(81, 263, 0.3682), (15, 148, 0.1644), (0, 20, 0.2005), (1, 29, 0.1963), (0, 2, 0.8022)],
)
def test_the_interval_is_wilsons_with_continuity_correction(
    part: int, whole: int, upper: float
) -> None:
    assert wilson_upper(part, whole) == pytest.approx(upper, abs=0.0006)


@given(whole=st.integers(1, 10_000), missing=st.integers(1, 10_000))
def test_an_interval_ends_between_the_share_and_1(whole: int, missing: int) -> None:
    part = max(0, whole - missing)
    assert part / whole < wilson_upper(part, whole) < 1


def test_a_low_ratio_is_a_warning_with_both_numbers() -> None:
    flag = flags(tally("delivered", "sent", 61), tally("unmapped", "sent", 39))[
        "ratio_below_target"
    ]
    assert (flag.severity, flag.value, flag.target) == ("warning", 0.61, 0.75)
    assert "delivered 61 events where the browser sent 100 (61.0 %)" in flag.explanation


def test_explanations_give_numerator_and_denominator() -> None:
    found = flags(
        tally("delivered", "sent", 1000),
        tally("delivered", "csp", 600),
        tally("unmapped", "sent", 500),
        tally("dead", "sent", 100),
    )
    assert "1,000 of 1,600 browser events" in found["coverage_below_target"].explanation
    assert "600 of 1,600 server events" in found["browser_missing"].explanation
    assert "600 of 1,600 browser events" in found["server_missing"].explanation
    assert "100 of 1,700 server copies" in found["delivery_rejected"].explanation


@pytest.mark.parametrize("cause", [one for one in BROWSER_CAUSES if one != UNPAIRED])
def test_a_missing_browser_copy_is_explained_by_its_biggest_cause(cause: str) -> None:
    other = "csp" if cause != "csp" else "bot"
    flag = flags(
        tally("delivered", "sent", 50), tally("delivered", cause, 30), tally("delivered", other, 20)
    )["browser_missing"]
    told = CAUSES["browser"][cause]
    assert told.because in flag.explanation
    assert f"({cause}: 30 of 50)" in flag.explanation
    assert (flag.fix, flag.severity) == (told.fix, told.severity)
    assert (flag.value, flag.target) == (0.5, 0.25)


def test_a_few_missing_browser_copies_raise_no_flag() -> None:
    assert flags(tally("delivered", "sent", 75), tally("delivered", "left_early", 25)) == {}


def test_the_share_of_blocked_pixels_is_told_and_is_nothing_to_fix() -> None:
    found = flags(tally("delivered", "sent", 80), tally("delivered", "script_blocked", 20))
    assert found.keys() == {"pixel_blocked"}
    flag = found["pixel_blocked"]
    assert (flag.severity, flag.value, flag.pixel_id) == ("info", 0.2, "123")
    assert flag.fix.startswith("Nothing to fix")


def test_server_events_without_any_browser_event_are_flagged() -> None:
    assert flags(tally("delivered", "not_run", 5)).keys() == {"browser_missing"}


def test_the_fix_for_a_content_security_policy_names_what_to_allow() -> None:
    fix = flags(tally("delivered", "csp", 5))["browser_missing"].fix
    assert "https://connect.facebook.net to script-src" in fix
    assert "https://www.facebook.com to img-src" in fix


def test_an_ad_blocker_is_nothing_to_fix() -> None:
    flag = flags(tally("delivered", "script_blocked", 20))["browser_missing"]
    assert flag.severity == "info"
    assert flag.fix.startswith("Nothing to fix")


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ("dead", "rejected"),
        *((cause, cause) for cause in CAUSES["server"] if cause not in ("rejected", "pending")),
    ],
)
def test_a_missing_server_copy_is_explained_by_its_biggest_cause(state: str, cause: str) -> None:
    other = "unmapped" if cause != "unmapped" else "bot"
    flag = flags(
        tally("delivered", "sent", 50), tally(state, "sent", 30), tally(other, "sent", 20)
    )["server_missing"]
    assert CAUSES["server"][cause].because in flag.explanation
    assert f"({cause}: 30 of 50)" in flag.explanation
    assert flag.fix == CAUSES["server"][cause].fix
    severity = "info" if flag.fix.startswith("Nothing to fix") else "warning"
    assert (flag.severity, flag.value, flag.target) == (severity, 0.5, 0.25)


def test_a_server_copy_that_is_on_its_way_is_not_missing() -> None:
    found = flags(tally("delivered", "sent", 50), tally("pending", "sent", 50))
    assert "server_missing" not in found


def test_a_few_missing_server_copies_are_worth_knowing_only() -> None:
    flag = flags(tally("delivered", "sent", 99), tally("unmapped", "sent", 2))["server_missing"]
    assert flag.severity == "info"


def test_a_cause_that_is_not_known_is_explained_as_unknown() -> None:
    flag = flags(tally("delivered", "moonlight", 5))["browser_missing"]
    assert "(moonlight: 5 of 5)" in flag.explanation
    assert flag.fix == CAUSES["browser"]["unknown"].fix


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("dead", "delivery_rejected"),
        ("expired", "delivery_expired"),
        ("dropped", "delivery_dropped"),
    ],
)
def test_a_lost_server_copy_is_flagged_although_no_browser_copy_is_known(
    state: str, code: str
) -> None:
    flag = flags(tally("delivered", "sent", 5), tally(state, "not_run", 3))[code]
    assert (flag.severity, flag.value, flag.target) == ("warning", 3, 0)
    assert "3 of 8 server copies" in flag.explanation


def test_losing_every_server_copy_is_critical() -> None:
    assert flags(tally("dead", "not_run", 3))["delivery_rejected"].severity == "critical"


def test_events_that_were_dropped_before_they_left_a_row_are_flagged() -> None:
    dropped = (
        Count("dropped", "queue_full", "Purchase", "123", 2),
        Count("dropped", "store_error", "Purchase", "123", 1),
    )
    assert flags(tally("dropped", "sent", 4), counts=dropped)["delivery_dropped"].value == 7


@pytest.mark.parametrize("reason", ["invalid", "dead_letter"])
def test_an_event_that_was_dropped_with_its_row_is_counted_once(reason: str) -> None:
    dropped = (Count("dropped", reason, "Purchase", "123", 4),)
    assert flags(tally("dropped", "sent", 4), counts=dropped)["delivery_dropped"].value == 4


@pytest.mark.parametrize("reason", ["invalid", "queue_full", "store_error", "dead_letter"])
def test_the_fix_for_dropped_events_tells_of_each_reason(reason: str) -> None:
    flag = flags(tally("dropped", "sent", 4))["delivery_dropped"]
    assert f" {reason}: " in flag.fix
    assert "given up before it was stored" not in flag.explanation


@pytest.mark.parametrize(
    ("reason", "severity"),
    [("queue_full", "critical"), ("store_error", "critical"), ("killed", "critical"),
     ("passed", "critical"), ("no_tenant", "critical"), ("dead_letter", "info")],
)  # fmt: skip
def test_each_reason_to_give_an_event_up_is_a_cause_with_its_own_fix(
    reason: str, severity: str
) -> None:
    rows = [tally("dropped", "not_run", 4)] if reason in WITH_ROW else []
    flag = flags(*rows, counts=(Count("dropped", reason, "Purchase", "123", 4),))[
        "delivery_dropped"
    ]
    told = CAUSES["server"][reason]
    assert (flag.cause, flag.fix, flag.value) == (reason, told.fix, 4)
    assert flag.severity == severity


def test_what_a_damaged_file_lost_is_told_once() -> None:
    counts = (Count("dropped", "damaged", "Purchase", "123", 4),)
    assert flags(counts=counts).keys() == {"store_damaged"}


def test_a_value_that_is_missing_is_the_cause_and_no_queue() -> None:
    found = flags(
        tally("invalid", "sent", 4), counts=(Count("dropped", "invalid", "Purchase", "123", 4),)
    )
    assert {one.cause for one in found.values()} == {"invalid"}
    assert found["delivery_dropped"].value == 4
    assert "queue_limit" not in found["delivery_dropped"].fix


def test_copies_under_two_names_are_a_cause_of_their_own_on_both_sides() -> None:
    report = report_on(
        tally("delivered", "not_run", 9),
        tally("delivered", "sent", 9),
        tally("unmapped", "sent", 8, name="purchase"),
        counts=(Count("reused", "name Purchase", "purchase", "123", 8),),
    )
    upper, lower = report.events
    assert (upper.missing_browser, upper.server_only) == ({"other_name": 8, "not_run": 1}, 9)
    assert lower.missing_server == {"other_name": 8}
    assert [card.cause for card in report.cards if card.severity != "info"] == ["other_name"]


@pytest.mark.parametrize("cause", [word for word, one in CAUSES["browser"].items()
                                   if one.fix.startswith("Nothing to fix")])  # fmt: skip
def test_what_nobody_has_to_mend_is_no_warning(cause: str) -> None:
    found = report_on(tally("delivered", "sent", 50), tally("delivered", cause, 50)).flags
    assert {one.severity for one in found} <= {"info"}


def test_waiting_while_nothing_is_delivered_is_a_stall() -> None:
    flag = flags(tally("pending", "not_run", 4), tally("leased", "not_run", 1))["delivery_stalled"]
    assert (flag.severity, flag.value, flag.target) == ("warning", 5, 0)


def test_waiting_while_others_are_delivered_is_no_stall() -> None:
    assert flags(tally("pending", "not_run", 4), tally("delivered", "sent", 1)) == {}


def test_an_event_without_data_is_not_praised() -> None:
    report = report_on(counts=(Count("suppressed", "consent", "Lead", "123", 40),))
    assert report.flags == []
    assert report.events[0].coverage is None


def test_every_cause_has_its_advice() -> None:
    assert CAUSES["browser"].keys() == set(BROWSER_CAUSES)


def test_the_gravest_flags_come_first() -> None:
    report = report_on(
        tally("delivered", "sent", 99, name="AddToCart"),
        tally("unmapped", "sent", 1, name="AddToCart"),
        tally("pending", "not_run", 5, name="Lead"),
        tally("unmapped", "sent", 50, name="Purchase"),
    )
    assert [(flag.severity, flag.event_name, flag.code) for flag in report.flags] == [
        ("critical", "Purchase", "coverage_below_target"),
        ("warning", "Lead", "delivery_stalled"),
        ("warning", "Purchase", "ratio_below_target"),
        ("warning", "Purchase", "server_missing"),
        ("info", "AddToCart", "server_missing"),
    ]


@pytest.mark.parametrize(("differing", "raised"), [(60, True), (4, False)])
def test_visitors_whose_address_is_of_two_families_are_told(differing: int, raised: bool) -> None:
    counts = (Count("ip_family", "IPv6 IPv4", n=differing), Count("ip_family", "IPv6 IPv6", n=100))
    found = flags(tally("delivered", "sent"), counts=counts).get("ip_families_differ")
    assert (found is not None) is raised
    if found is not None:
        assert (found.severity, found.value) == ("info", 0.375)
        assert "In 60 of 160 page views" in found.explanation
