"""Health: what waits, what rests, and what somebody should do about it."""

import pytest

from capi_middleware.meta.codes import meaning_of
from capi_middleware.report.flags import Facts, flags_of
from capi_middleware.report.model import Flag, Health
from capi_middleware.report.read import health_of
from capi_middleware.store.records import Backlog, Pause

NOON = 1_780_876_800.0


def health(
    *,
    waiting: float | None = None,
    because: str | None = None,
    token: str = "",
    delivering: bool = True,
) -> Health:
    return health_of(
        {"pending": 3},
        [Backlog("123", 3, waiting)] if waiting is not None else [],
        [Pause("123", NOON, because, token)] if because is not None else [],
        marks={"123": "fingerprint", "456": ""},
        delivering=delivering,
    )


def flags(**given: object) -> list[Flag]:
    return flags_of(Facts(health=health(**given)))  # type: ignore[arg-type]


def test_every_configured_pixel_is_told_and_those_that_were_removed_while_something_waits() -> None:
    found = health_of({}, [Backlog("gone", 1, 5.0)], [], marks={"123": ""}, delivering=True)
    assert [(one.pixel_id, one.waiting) for one in found.pixels] == [("123", 0), ("gone", 1)]


def test_a_healthy_delivery_raises_no_flag() -> None:
    assert flags(waiting=3599.0) == []


def test_events_that_wait_for_more_than_an_hour_are_stale() -> None:
    (flag,) = flags(waiting=7200.0)
    assert (flag.code, flag.severity, flag.pixel_id) == ("delivery_stale", "critical", "123")
    assert "3 events wait, the oldest for 2.0 hours" in flag.explanation


def test_a_refused_token_is_critical_and_says_so() -> None:
    (flag,) = flags(waiting=10.0, because="code 190/463", token="fingerprint")
    assert (flag.code, flag.severity, flag.value) == ("pixel_paused", "critical", 3)
    assert "access token" in flag.fix


@pytest.mark.parametrize("reason", ["code 4", "code 17/2446079", "http 429", "usage", "code 341"])
def test_a_throttle_is_a_warning_that_ends_by_itself(reason: str) -> None:
    (flag,) = flags(because=reason)
    assert (flag.code, flag.severity) == ("pixel_paused", "warning")
    assert "resumes by itself" in flag.fix


@pytest.mark.parametrize("reason", ["http 403", "code 77777", "code 2635", "code 100/permission"])
def test_what_somebody_has_to_mend_is_critical_whoever_refused(reason: str) -> None:
    (flag,) = flags(because=reason)
    assert (flag.code, flag.severity) == ("pixel_paused", "critical")
    meaning, fix = meaning_of(reason)
    assert meaning in flag.explanation
    assert flag.fix == fix


def test_a_thread_that_ended_is_critical() -> None:
    (flag,) = flags(delivering=False)
    assert (flag.code, flag.severity) == ("delivery_not_running", "critical")


def test_the_refusal_of_an_old_token_is_over_when_nothing_waits_for_it_any_more() -> None:
    refused = {"because": "code 190", "token": "an old one"}
    assert flags(**refused) == []
    assert flags(waiting=1.0, **refused) == []


def test_the_refusal_of_another_token_is_told_as_long_as_events_wait() -> None:
    (flag,) = flags(waiting=120.0, because="code 190", token="an old one")
    assert flag.code == "pixel_paused"


def test_the_refusal_of_the_token_in_use_is_told_at_once() -> None:
    (flag,) = flags(because="code 190", token="fingerprint")
    assert flag.code == "pixel_paused"
