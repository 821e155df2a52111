"""Flags about one id for many events, and two names for one: each with the fix that mends it."""

import pytest

from capi_middleware.events import Count
from tests.support.tallies import flags, numbers, tally

THANKS = "GET /orders/{order_id}/thanks"


def reused(why: str, n: int, name: str = "Purchase") -> Count:
    return Count("reused", why, name, "123", n)


@pytest.mark.parametrize(
    ("word", "fix"),
    [
        ("value", 'EventRoute(dedupe_key="{path.order_id}")'),
        ("order", 'EventRoute(dedupe_key="{path.order_id}")'),
        ("visitor", 'EventRoute(dedupe_key="{path.order_id}")'),
        ("own_id", "{eventID: 'order-1001'}"),
        ("replay", "Cache-Control: private, no-store"),
    ],
)
def test_one_id_for_many_is_told_with_its_place_and_its_own_fix(word: str, fix: str) -> None:
    found = flags(tally("delivered", "sent"), counts=(reused(f"{word} {THANKS}", 29),))
    flag = found["event_id_reused"]
    assert (flag.severity, flag.value) == ("critical", 29)
    assert f"at {THANKS}" in flag.explanation
    assert fix in flag.fix


def test_a_key_that_names_nothing_is_told_and_loses_nothing() -> None:
    counts = (reused(f"empty {THANKS}", 29),)
    flag = flags(tally("delivered", "sent"), counts=counts)["event_id_reused"]
    assert (flag.severity, flag.value) == ("warning", 29)
    assert f'names nothing (empty, "None", 0) at {THANKS}: they were sent' in flag.explanation


def test_what_was_counted_most_is_told_with_all_that_was_counted() -> None:
    counts = (reused("order GET /a", 2), reused(f"value {THANKS}", 7), reused("value GET /b", 1))
    flag = flags(tally("delivered", "sent", 500), counts=counts)["event_id_reused"]
    assert (flag.severity, flag.value) == ("warning", 10)
    assert "another value or currency" in flag.explanation
    assert THANKS in flag.explanation


def test_a_replay_among_hundreds_is_chance() -> None:
    counts = (reused("replay GET /p", 2, "ViewContent"),)
    seen = tally("delivered", "sent", 1000, name="ViewContent")
    assert "event_id_reused" not in flags(seen, counts=counts)
    few = tally("delivered", "sent", 1, name="ViewContent")
    assert flags(few, counts=counts)["event_id_reused"].severity == "info"


def test_events_of_stored_copies_were_never_made() -> None:
    counts = (
        reused("replay GET /p", 5),
        reused("value GET /p", 3),
        Count("suppressed", "bot", "Purchase", "123", 2),
    )
    assert numbers(tally("delivered", "sent"), counts=counts).suppressed == {"replay": 5, "bot": 2}


def test_one_id_under_two_names_is_told_with_metas_rule() -> None:
    counts = (reused("name Purchase", 7, "purchase"),)
    found = flags(tally("unmapped", "sent", 7, name="purchase"), counts=counts)
    flag = found["name_mismatch"]
    assert flag.event_name == "purchase"
    assert "event_name and event_id both agree" in flag.explanation
    assert flag.fix.startswith("Call both copies Purchase: fbq('track', 'Purchase', …)")
    assert "two_names" not in found


def test_the_name_that_is_metas_is_the_one_to_keep() -> None:
    counts = (reused("name order_done", 1, "Purchase"),)
    flag = flags(tally("delivered", "sent"), counts=counts)["name_mismatch"]
    assert flag.fix.startswith("Call both copies Purchase:")


@pytest.mark.parametrize("name", ["purchase", "PURCHASE", "Purchases", "order_completed"])
def test_two_spellings_of_one_event_are_told(name: str) -> None:
    flag = flags(tally("delivered", "sent"), tally("unmapped", "sent", name=name))["two_names"]
    assert flag.event_name == name
    assert f"{name} and Purchase are spelled alike" in flag.explanation


@pytest.mark.parametrize("name", ["Lead", "PageView", "Purchased_Gift_Card"])
def test_other_names_are_other_events(name: str) -> None:
    found = flags(tally("delivered", "sent"), tally("delivered", "sent", name=name))
    assert "two_names" not in found


def beside(n: int, of: int) -> dict[str, object]:
    counts = (Count("beside", "Lead", "CompleteRegistration", "123", n),)
    rows = (
        tally("delivered", "sent", of, name="CompleteRegistration"),
        tally("delivered", "sent", 1000, name="Lead"),
    )
    return {code: flag.severity for code, flag in flags(*rows, counts=counts).items()}


def test_two_events_that_come_together_mostly_are_told() -> None:
    assert beside(9, 10)["two_names"] == "warning"
    assert beside(2, 2)["two_names"] == "info"
    assert "two_names" not in beside(9, 100)


# -- advice that makes nothing worse ---------------------------------------------------------------

UNMAPPED = "/orders/{id}/thanks"


def advice(code: str, *rows: object, name: str = "purchase", bare: int = 0) -> str:
    counts = [Count("unmapped", UNMAPPED, name, "123", 7)]
    counts += [Count("no_event_id", "", name, "123", bare)] if bare else []
    return flags(*rows, counts=tuple(counts))[code].fix  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "bare"),
    [("server_missing", 0), ("coverage_below_target", 0), ("event_id_missing", 7)],
)
def test_mirror_is_not_offered_for_what_the_server_sends_under_another_name(
    code: str, bare: int
) -> None:
    rows = tally("delivered", "sent", 7), tally("unmapped", "sent", 7, name="purchase")
    fix = advice(code, *rows, bare=bare)
    assert "Config(mirror" not in fix
    assert fix.startswith("Call both copies Purchase")


@pytest.mark.parametrize("code", ["server_missing", "coverage_below_target", "event_id_missing"])
def test_mirror_is_not_offered_for_what_a_webhook_sends(code: str) -> None:
    rows = tally("delivered", "not_rendered", 7), tally("unmapped", "sent", 7)
    fix = advice(code, *rows, name="Purchase", bare=7)
    assert "mirror" not in fix
    assert "{eventID: event.event_id}" in fix


def test_mirror_is_offered_for_what_the_server_does_not_send() -> None:
    fix = advice("server_missing", tally("unmapped", "sent", 7, name="Lead"), name="Lead")
    assert fix.startswith('Config(mirror=["Lead"])')
