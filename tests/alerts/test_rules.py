"""Alerts: a flag opens after two evaluations, closes after three, and is told once each time."""

import hmac
import re
import time
from collections.abc import Iterable, Sequence
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware import verify_alert
from capi_middleware.alerts import rules as alerts
from capi_middleware.alerts.rules import Alert, Change, State, alert_of, decide, told_of
from capi_middleware.report.model import Flag, Severity
from capi_middleware.report.numbers import events_of
from capi_middleware.signing import sign_alert
from capi_middleware.store.records import Tallies, Tally
from tests.support.configs import SECRET
from tests.support.stores import NOON
from tests.support.tallies import tally

Severities = Sequence[Severity | None]


def flag(severity: Severity = "warning", code: str = "csp_blocks", name: str = "Lead") -> Flag:
    return Flag(
        code=code, severity=severity, event_name=name, pixel_id="1", value=1, target=0,
        explanation="Something is wrong.", fix="Repair it.",
    )  # fmt: skip


def told(evaluations: Iterable[Iterable[Flag]]) -> list[list[str]]:
    """What each evaluation tells, the state kept as the store keeps it."""
    state, found = State(), []
    for flags in evaluations:
        state, changes = decide(state, flags, NOON)
        state = msgspec.json.decode(msgspec.json.encode(state), type=State)
        found.append([f"{change.kind} {change.flag.severity}" for change in changes])
    return found


@pytest.mark.parametrize(
    ("severities", "expected"),
    [
        (["warning"], [[]]),
        (["warning", "warning", "warning"], [[], ["opened warning"], []]),
        (["warning", None, "warning", None], [[], [], [], []]),
        (["info", "info", "info"], [[], [], []]),
        (["warning", "critical"], [[], ["opened critical"]]),
        (
            ["warning", "warning", "critical", "warning", "critical"],
            [[], ["opened warning"], ["raised critical"], [], []],
        ),
        (["critical", "critical", "warning", "critical"], [[], ["opened critical"], [], []]),
        (
            ["warning", "warning", None, None, "warning", None, None, None, None],
            [[], ["opened warning"], [], [], [], [], [], ["closed warning"], []],
        ),
        (
            ["warning", "warning", "info", "info", "info"],
            [[], ["opened warning"], [], [], ["closed warning"]],
        ),
        (
            ["warning", "warning", None, None, None, "warning", "warning"],
            [[], ["opened warning"], [], [], ["closed warning"], [], ["opened warning"]],
        ),
    ],
)
def test_hysteresis(severities: Severities, expected: list[list[str]]) -> None:
    assert told([flag(one)] if one else [] for one in severities) == expected


def test_a_flag_is_known_by_code_event_and_pixel_whatever_it_says() -> None:
    def saying(value: float) -> list[Flag]:
        return [msgspec.structs.replace(flag(), value=value, explanation=f"{value} events")]

    assert told([saying(1), saying(2)]) == [[], ["opened warning"]]
    assert told([[flag(name="Lead")], [flag(name="Search")]]) == [[], []]


def test_of_two_flags_that_are_the_same_the_graver_one_counts() -> None:
    both = [flag("info"), flag("warning"), flag("critical")]
    assert told([both, both]) == [[], ["opened critical"]]


@given(st.lists(st.sampled_from(["critical", "warning", "info", None]), max_size=60))
def test_whatever_happens_a_flag_opens_and_closes_in_turns(severities: Severities) -> None:
    kinds = [
        change.split()[0]
        for changes in told([flag(one)] if one else [] for one in severities)
        for change in changes
    ]
    turns = [kind for kind in kinds if kind != "raised"]
    assert turns == ["opened", "closed"] * (len(turns) // 2) + ["opened"] * (len(turns) % 2)
    assert not re.search("raised raised", " ".join(kinds))


def test_what_is_open_is_watched_to_its_end_however_many_come() -> None:
    few, many = [flag(name="first")], [flag(name=f"n{n}") for n in range(2 * alerts.MOST)]
    state, _ = decide(State(), few, NOON)
    state, _ = decide(state, few, NOON)
    for _ in range(3):
        state, changes = decide(state, many, NOON)
        assert len(state.watched) <= alerts.MOST
    assert [one.flag.event_name for one in changes if one.kind == "closed"] == ["first"]


# -- what waits for the webhook -------------------------------------------------------------------


def alert(n: int = 0) -> Alert:
    change = Change("opened", flag(name=f"n{n}"))
    return alert_of(change, NOON, NOON - 86400, NOON, "/_capi")


def test_messages_wait_a_day_and_at_most_so_many() -> None:
    state, lost = alerts.queued(State(), [alert(n) for n in range(alerts.MOST + 5)], NOON)
    assert (len(state.waiting), lost) == (alerts.MOST, 5)
    assert state.waiting[0].alert.flag.event_name == "n5"
    state, lost = alerts.queued(state, [alert(999)], NOON + 86399)
    assert (len(state.waiting), lost) == (alerts.MOST, 1)
    state, lost = alerts.queued(state, [], NOON + 86400)
    assert ([one.alert.flag.event_name for one in state.waiting], lost) == (
        ["n999"],
        alerts.MOST - 1,
    )


def test_a_webhook_that_fails_is_tried_ever_less_often_and_at_least_hourly() -> None:
    state, waits = alerts.queued(State(), [alert()], NOON)[0], []
    now = NOON
    for _ in range(9):
        held = alerts.sending(state, now)
        assert held is not None
        state = alerts.failed(held, now)
        waits.append(state.free_at - now)
        assert alerts.sending(state, state.free_at - 1) is None
        now = state.free_at
    assert waits == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
    after = alerts.sent(state, alert().id)
    assert (list(after.waiting), after.failures) == ([], 0)


def test_only_one_has_the_messages_until_it_is_done_or_its_lease_is_over() -> None:
    state, _ = alerts.queued(State(), [alert()], NOON)
    held = alerts.sending(state, NOON)
    assert held is not None
    assert alerts.sending(held, NOON + 119) is None
    assert alerts.sending(held, NOON + 120) is not None
    assert alerts.sending(alerts.released(held), NOON) is not None
    assert alerts.sending(State(), NOON) is None


def test_only_one_evaluates_in_a_minute() -> None:
    held = alerts.evaluating(State(), NOON)
    assert held is not None
    assert alerts.evaluating(held, NOON + 59) is None
    assert alerts.evaluating(held, NOON + 60) is not None


def test_a_clock_that_went_back_stops_nothing() -> None:
    state = State(due=NOON + 86400, waiting=[alerts.Waiting(alert(), NOON)], free_at=NOON + 86400)
    assert alerts.evaluating(state, NOON) is not None
    assert alerts.sending(state, NOON) is not None


def test_an_alert_names_the_report_on_its_own_window_event_and_pixel() -> None:
    change = Change("opened", flag(name="A&B"))
    made = alert_of(change, NOON, NOON - 86400, NOON, "/_capi")
    assert made.report == (
        "/_capi/parity?from=2027-01-14T08%3A00%3A00Z&to=2027-01-15T08%3A00%3A00Z&event=A%26B&pixel=1"
    )
    assert made == alert_of(change, NOON, NOON - 86400, NOON, "/_capi")
    assert made.id != alert_of(change, NOON + 1, NOON - 86400, NOON, "/_capi").id


# -- its signature --------------------------------------------------------------------------------

BODY = b'{"kind":"opened"}'


def test_a_signature_is_checked_with_any_of_the_keys() -> None:
    signature = sign_alert(SECRET, BODY, time.time())
    assert verify_alert(BODY, signature, SECRET)
    assert verify_alert(BODY, signature, ["x" * 32, SECRET])


@pytest.mark.parametrize(
    "signature",
    [None, "", "t=,v1=", "t=x,v1=00", "t=1800000000", "v1=00", "t=\u0663,v1=00", "t=1,v1=\xe9",
     "t=" + "9" * 5000 + ",v1=00"],
)  # fmt: skip
def test_what_is_no_signature_is_refused(signature: str | None) -> None:
    assert not verify_alert(BODY, signature, SECRET)


def test_another_body_another_key_another_time_and_an_old_message_are_refused() -> None:
    signature = sign_alert(SECRET, BODY, time.time())
    assert not verify_alert(BODY + b" ", signature, SECRET)
    assert not verify_alert(BODY, signature, "y" * 32)
    moment = int(time.time())
    later = sign_alert(SECRET, BODY, moment).replace(f"t={moment}", f"t={moment + 1}")
    assert not verify_alert(BODY, later, SECRET)
    assert not verify_alert(BODY, sign_alert(SECRET, BODY, time.time() - 301), SECRET)
    assert not verify_alert(BODY, sign_alert(SECRET, BODY, time.time() + 302), SECRET)
    assert verify_alert(BODY, sign_alert(SECRET, BODY, time.time() - 3000), SECRET, tolerance=3600)


def test_whoever_knows_the_key_of_alerts_needs_no_library_and_no_secret_key() -> None:
    alert_key = hmac.new(SECRET.encode(), b"capi.alert", sha256).digest()
    moment, _, given = sign_alert(SECRET, BODY, NOON).removeprefix("t=").partition(",v1=")
    assert moment == "1800000000"
    assert given == hmac.new(alert_key, f"{moment}.".encode() + BODY, sha256).hexdigest()


def test_flags_of_single_events_keep_room_for_the_flags_of_the_site() -> None:
    many = [flag(code=f"c{n}", name=f"made up {n}") for n in range(300)]
    paused = flag("critical", "pixel_paused", name="")
    assert told([many, many, [*many, paused], [*many, paused]])[-1] == ["opened critical"]


def test_what_only_browsers_name_is_no_alert() -> None:
    def names(*rows: Tally, configured: Sequence[str] = ()) -> list[str]:
        events, _ = events_of(Tallies(rows, [], []))
        flags = [flag("critical", "server_missing", one.event_name) for one in events]
        site = flag("critical", "csp_blocks", "")
        found = told_of([*flags, site], events, frozenset(configured))
        return [one.event_name for one in found]

    made_up = [tally("unknown", "sent", 9, name=f"made up {n}") for n in range(3)]
    called = tally("unmapped", "sent", 9, name="called")
    assert names(*made_up, called) == [""]
    assert names(*made_up, called, configured=["called"]) == ["called", ""]
    assert names(tally("pending", "not_run", 1, name="own")) == ["own", ""]
    assert names(tally("dead", "sent", 1, name="own")) == ["own", ""]
