"""What every store promises, in one suite for all of them."""

from typing import Literal

import pytest
from msgspec.structs import astuple

from capi_middleware.errors import StoreError, StoreFull
from capi_middleware.events import VAGUE_BROWSER_CAUSES, Count, Row, Sighting
from capi_middleware.store.records import (
    DEDUPE_WINDOW,
    FRESH,
    LONGEST_LEASE,
    LONGEST_WAIT,
    MOST_FOUND,
    OLDEST_EVENT,
    Backlog,
    DeadLetter,
    Difference,
    Forgotten,
    Freshness,
    Lease,
    LeasedEvent,
    Pause,
    Rest,
    Settlement,
    Slice,
    Tallies,
    Tally,
)
from capi_middleware.store.rollups import Facet
from capi_middleware.store.store import Store
from tests.support.stores import NOON, PIXEL, Clock, MakeStore, row, states, store_rows


def sight(store: Store, outcome: str, event_id: str = "e1") -> None:
    store.sight([Sighting(event_id, "Purchase", PIXEL, outcome)]).result(30)


def lease(store: Store, limit: int = 10, seconds: float = 60.0) -> Lease:
    return store.lease(PIXEL, limit=limit, seconds=seconds)


def ids(leased: Lease) -> list[str]:
    return [event.event_id for event in leased.events]


def settle(
    store: Store,
    leased: Lease,
    state: Literal["delivered", "dead", "pending"],
    reason: str = "",
    delay: float = 0.0,
    attempted: bool = True,
) -> int:
    return store.settle(
        leased.lease_id,
        [Settlement(event.key, state, reason, delay, attempted) for event in leased.events],
    )


def the_only(store: Store) -> Tally:
    (tally,) = store.tallies(0, 2 * NOON).rows
    assert tally.n == 1
    return tally


# append


def test_an_appended_event_is_leased_as_it_was_given(store: Store) -> None:
    store_rows(store, row("e1", payload=b'{"a":1}', event_time=NOON - 1.25))

    (event,) = lease(store).events

    assert event == LeasedEvent(event.key, "e1", "Purchase", NOON - 1.25, b'{"a":1}', 0, fresh=True)


def test_append_without_wait_returns_nothing_and_is_committed_by_flush(store: Store) -> None:
    assert store.append([row()], wait=False) is None

    assert store.flush(30)
    assert store.depth() == {"pending": 1}


def test_append_of_no_rows_ends_at_once(store: Store) -> None:
    store_rows(store)

    assert store.depth() == {}


def test_an_event_that_exists_is_kept_as_it_was(store: Store) -> None:
    store_rows(store, row(payload=b"first", match_keys=1, browser="csp"))
    store_rows(store, row(payload=b"second", match_keys=2, browser="not_run", event_time=NOON + 5))

    assert the_only(store) == Tally(PIXEL, "Purchase", "pending", "csp", 1, 1)
    (event,) = lease(store).events
    assert (event.payload, event.event_time) == (b"first", NOON)


@pytest.mark.parametrize("name", ["event_id", "event_name", "pixel_id"])
def test_events_that_differ_in_one_part_of_their_identity_are_two(store: Store, name: str) -> None:
    identity = {"event_id": "e1", "event_name": "Purchase", "pixel_id": PIXEL}
    store_rows(store, row(**identity), row(**{**identity, name: "other"}))

    assert store.depth() == {"pending": 2}


def test_browser_not_rendered_takes_the_cause_of_the_new_row(store: Store) -> None:
    store_rows(store, row(browser="not_rendered"))
    store_rows(store, row(browser="not_run"))

    assert the_only(store).browser == "not_run"


def test_a_delivered_event_is_not_sent_again_when_it_is_appended_again(store: Store) -> None:
    store_rows(store, row())
    settle(store, lease(store), "delivered")
    store_rows(store, row())

    assert lease(store).events == []


def test_a_row_of_an_early_sighting_takes_over_the_server_copy(store: Store, clock: Clock) -> None:
    clock.now = NOON - 3
    sight(store, "sent")
    clock.now = NOON
    store_rows(store, row(payload=b"late", match_keys=7, event_time=NOON - 10, browser="not_run"))

    assert the_only(store) == Tally(PIXEL, "Purchase", "pending", "sent", 7, 1)
    (event,) = lease(store).events
    assert (event.payload, event.event_time) == (b"late", NOON - 10)


def test_rows_without_server_copy_are_never_leased(store: Store) -> None:
    store_rows(store, row(server="consent", payload=None))

    assert lease(store).events == []
    assert store.next_due(PIXEL) is None
    assert store.depth() == {"consent": 1}


def test_a_pending_row_without_payload_fails_alone_and_is_counted(store: Store) -> None:
    bad = store.append([row("bad", payload=None)], wait=True)
    good = store.append([row("good")], wait=True)

    assert bad is not None
    assert good is not None
    assert isinstance(bad.exception(30), StoreError)
    good.result(30)
    store.flush(30)
    assert ids(lease(store)) == ["good"]
    # The counter of what was lost goes out with the next commit.
    store_rows(store, row("next"))
    error, lost = sorted(store.tallies(NOON, NOON + 1).counts, key=lambda one: -len(one.reason))
    assert lost == Count("dropped", "store_error", "Purchase", PIXEL, 1)
    assert error.kind == "error"  # whose fault it was is known by its name alone
    assert error.reason.startswith("the store: ")


@pytest.mark.one_database
def test_a_full_queue_refuses_rows_and_counts_them(make_store: MakeStore) -> None:
    store = make_store(2)

    with pytest.raises(StoreFull):
        store.append([row("e1"), row("e2"), row("e3")], wait=False)

    store.flush(30)
    assert store.depth() == {}
    assert store.tallies(NOON, NOON + 1).counts == [
        Count("dropped", "queue_full", "Purchase", PIXEL, 3)
    ]


@pytest.mark.one_database
def test_page_views_leave_the_last_part_of_the_queue_to_conversions(
    make_store: MakeStore,
) -> None:
    store = make_store(10)
    views = [row(f"v{n}", event_name="PageView") for n in range(9)]
    with pytest.raises(StoreFull):
        store.append(views, wait=False)
    store_rows(store, *(row(f"p{n}") for n in range(9)))

    assert store.depth() == {"pending": 9}
    (count,) = [one for one in store.tallies(0, 2 * NOON).counts if one.kind == "dropped"]
    assert (count.reason, count.event_name, count.n) == ("queue_full", "PageView", 9)


def test_on_commit_is_called_after_rows_that_wait_for_delivery(store: Store) -> None:
    seen: list[dict[str, int]] = []
    store.on_commit = lambda names: seen.append(store.depth())

    store_rows(store, row(server="bot", payload=None))
    store_rows(store, row("e2"))

    store.close()
    assert seen == [{"bot": 1, "pending": 1}]


# sight


@pytest.mark.parametrize("cause", ["not_rendered", "left_early", "csp", "bot", "consent"])
def test_sent_replaces_every_cause(store: Store, cause: str) -> None:
    store_rows(store, row(browser=cause))
    sight(store, "sent")

    assert the_only(store).browser == "sent"


def test_sent_is_never_replaced(store: Store) -> None:
    store_rows(store, row())
    sight(store, "sent")
    sight(store, "csp")

    assert the_only(store).browser == "sent"


@pytest.mark.parametrize("vague", VAGUE_BROWSER_CAUSES)
def test_an_outcome_replaces_a_vague_cause(store: Store, vague: str) -> None:
    store_rows(store, row(browser=vague))
    sight(store, "script_blocked")

    assert the_only(store).browser == "script_blocked"


def test_an_outcome_does_not_replace_another_clear_one(store: Store) -> None:
    store_rows(store, row(browser="not_run"))
    sight(store, "script_blocked")
    sight(store, "csp")

    assert the_only(store).browser == "script_blocked"


def test_a_sighting_leaves_the_server_copy_alone(store: Store) -> None:
    store_rows(store, row(match_keys=5))
    sight(store, "sent")

    assert the_only(store) == Tally(PIXEL, "Purchase", "pending", "sent", 5, 1)


def test_a_sighting_of_an_unknown_event_becomes_a_row_of_now(store: Store) -> None:
    sight(store, "sent")
    sight(store, "sent")

    assert list(store.tallies(NOON, NOON + 1).rows) == [
        Tally(PIXEL, "Purchase", "unknown", "sent", 0, 1)
    ]
    assert lease(store).events == []


# lease


@pytest.mark.one_database
def test_events_are_leased_in_the_order_they_became_due(store: Store, clock: Clock) -> None:
    store_rows(store, row("e1"), row("e2"))
    clock.now += 1
    store_rows(store, row("e3"))
    clock.now += FRESH

    assert ids(lease(store, limit=2)) == ["e1", "e2"]
    assert ids(lease(store, limit=2)) == ["e3"]


@pytest.mark.one_database
def test_an_event_that_waited_for_its_delay_comes_after_those_due_before(
    store: Store, clock: Clock
) -> None:
    store_rows(store, row("e1"))
    settle(store, lease(store), "pending", delay=30.0)
    clock.now += 10
    store_rows(store, row("e2"))
    clock.now += 30

    assert ids(lease(store)) == ["e2", "e1"]


@pytest.mark.one_database
def test_fresh_conversions_go_first_then_the_oldest_and_page_views_last(
    store: Store, clock: Clock
) -> None:
    store_rows(store, row("v1", event_name="PageView"), row("o1"))
    clock.now += 1
    store_rows(store, row("v2", event_name="PageView"), row("o2"))
    clock.now += FRESH
    store_rows(store, row("v3", event_name="PageView"), row("f1"))
    clock.now += 1
    store_rows(store, row("f2"))

    assert ids(lease(store, limit=5)) == ["f1", "f2", "o1", "o2", "v1"]
    assert ids(lease(store)) == ["v2", "v3"]


@pytest.mark.one_database
def test_of_more_fresh_conversions_than_a_lease_takes_the_newest_go_first(
    store: Store, clock: Clock
) -> None:
    store_rows(store, row("e1"))
    clock.now += 1
    store_rows(store, row("e2"))

    assert ids(lease(store, limit=1)) == ["e2"]


def refuse(store: Store, leased: Lease, suspect: int) -> None:
    store.settle(
        leased.lease_id,
        [Settlement(one.key, "refused", "code 100", suspect=suspect) for one in leased.events],
    )


@pytest.mark.one_database
def test_what_meta_refused_together_is_leased_together_after_fresh_conversions(
    store: Store, clock: Clock
) -> None:
    store_rows(store, row("p1"), row("p2"))
    refuse(store, lease(store), 9)
    clock.now += 1
    store_rows(store, row("v", event_name="PageView"), row("o1"), row("o2"))
    held = lease(store)
    others = Lease(held.lease_id, [one for one in held.events if not one.suspect])
    refuse(store, others, 7)
    store.release(held.lease_id, [one.key for one in held.events if one.suspect])
    clock.now += FRESH
    store_rows(store, row("f"), row("w", event_name="PageView"))

    leased = lease(store, limit=1)
    assert [(one.event_id, one.suspect) for one in leased.events] == [
        ("f", 0), ("v", 7), ("o1", 7), ("o2", 7)
    ]  # fmt: skip
    assert ids(lease(store, limit=1)) == ["p1", "p2", "w"]


@pytest.mark.one_database
def test_what_is_suspected_no_longer_has_its_old_place_and_no_attempt_is_counted(
    store: Store, clock: Clock
) -> None:
    store_rows(store, row("e1"))
    clock.now += 1
    store_rows(store, row("e2"))
    clock.now += FRESH
    refuse(store, lease(store, limit=1), 7)
    assert store.next_due(PIXEL) == 0.0
    refuse(store, lease(store, limit=0), 0)

    assert [(one.event_id, one.suspect, one.attempts) for one in lease(store).events] == [
        ("e1", 0, 0), ("e2", 0, 0)
    ]  # fmt: skip


def test_a_dead_letter_that_is_requeued_is_suspected_no_longer(store: Store) -> None:
    store_rows(store, row())
    refuse(store, lease(store), 7)
    settle(store, lease(store), "dead", "code 100")
    store.requeue()

    assert [one.suspect for one in lease(store).events] == [0]


def test_what_is_given_back_is_due_as_before(store: Store, clock: Clock) -> None:
    store_rows(store, row("e1"))
    clock.now += FRESH
    store_rows(store, row("e2"))
    clock.now += FRESH
    leased = lease(store, limit=1)
    store.release(leased.lease_id, [one.key for one in leased.events])

    assert [(one.event_id, one.attempts) for one in lease(store).events] == [("e1", 0), ("e2", 0)]


def test_a_lease_takes_events_of_its_pixel_only(store: Store) -> None:
    store_rows(store, row("e1", pixel_id="1"), row("e2", pixel_id="2"))

    assert ids(store.lease("2", limit=10, seconds=60)) == ["e2"]


def test_a_leased_event_is_not_leased_again_while_the_lease_lives(
    store: Store, clock: Clock
) -> None:
    store_rows(store, row())
    lease(store, seconds=60)
    clock.now += 59.9

    assert lease(store).events == []


def test_an_event_whose_lease_ran_out_is_due_again(store: Store, clock: Clock) -> None:
    store_rows(store, row())
    first = lease(store, seconds=60)
    clock.now += 60

    assert ids(lease(store)) == ["e1"]
    assert settle(store, first, "delivered") == 0


def test_a_lease_of_before_the_clock_went_back_has_run_out(store: Store, clock: Clock) -> None:
    store_rows(store, row())
    lease(store, seconds=60)
    clock.now -= LONGEST_LEASE
    assert store.next_due(PIXEL) == 0.0
    assert ids(lease(store)) == ["e1"]  # its due time was ahead, too


def test_an_event_of_before_the_clock_went_far_back_is_due(store: Store, clock: Clock) -> None:
    store_rows(store, row())
    clock.now -= LONGEST_WAIT + 1
    assert ids(lease(store)) == ["e1"]


def test_a_rest_of_before_the_clock_went_far_back_has_ended(store: Store, clock: Clock) -> None:
    store.pause(PIXEL, seconds=60, reason="code 4")
    clock.now -= LONGEST_WAIT
    assert list(store.pauses()) == []


def test_events_too_old_for_meta_expire_instead(store: Store, clock: Clock) -> None:
    clock.now += OLDEST_EVENT
    store_rows(store, row("old", event_time=NOON - 0.5), row("young", event_time=NOON))

    assert ids(lease(store)) == ["young"]
    assert store.depth() == {"expired": 1, "leased": 1}


def test_expired_events_do_not_hide_young_ones_behind_the_limit(store: Store) -> None:
    old = [row(f"old{n}", event_time=NOON - OLDEST_EVENT - 1) for n in range(5)]
    store_rows(store, *old, row("young"))

    assert ids(lease(store, limit=2)) == ["young"]
    assert store.depth() == {"expired": 5, "leased": 1}


# settle


@pytest.mark.parametrize("state", ["delivered", "dead"])
def test_a_settled_event_is_never_leased_again(
    store: Store, clock: Clock, state: Literal["delivered", "dead"]
) -> None:
    store_rows(store, row())

    assert settle(store, lease(store), state) == 1

    clock.now += 86400
    assert lease(store).events == []
    assert store.depth() == {state: 1}


def test_a_pending_event_is_due_after_its_delay_and_knows_its_attempts(
    store: Store, clock: Clock
) -> None:
    store_rows(store, row())
    settle(store, lease(store), "pending", "http 500", delay=30.0)

    assert store.next_due(PIXEL) == 30.0
    assert lease(store).events == []
    clock.now += 30
    assert [event.attempts for event in lease(store).events] == [1]


def test_an_attempt_that_does_not_count_does_not_count(store: Store) -> None:
    store_rows(store, row())
    settle(store, lease(store), "pending", attempted=False)

    assert [event.attempts for event in lease(store).events] == [0]


def test_only_the_holder_of_a_lease_settles(store: Store) -> None:
    store_rows(store, row())
    leased = lease(store)

    assert settle(store, Lease("another", leased.events), "delivered") == 0
    assert store.depth() == {"leased": 1}


def test_an_event_is_settled_once(store: Store) -> None:
    store_rows(store, row())
    leased = lease(store)
    settle(store, leased, "dead")

    assert settle(store, leased, "delivered") == 0
    assert store.depth() == {"dead": 1}


def test_an_unknown_key_is_ignored(store: Store) -> None:
    store_rows(store, row())
    leased = lease(store)
    (event,) = leased.events

    settlements = [Settlement(event.key + 99, "delivered"), Settlement(event.key, "delivered")]
    assert store.settle(leased.lease_id, settlements) == 1


# next_due


def test_nothing_is_due_in_an_empty_store(store: Store) -> None:
    assert store.next_due(PIXEL) is None


def test_a_new_event_is_due_now(store: Store) -> None:
    store_rows(store, row())

    assert store.next_due(PIXEL) == 0.0
    assert store.next_due("another") is None


def test_a_leased_event_is_due_when_its_lease_ends(store: Store, clock: Clock) -> None:
    store_rows(store, row())
    lease(store, seconds=60)
    clock.now += 20

    assert store.next_due(PIXEL) == 40.0


# look


def due(store: Store) -> list[str]:
    return sorted(store.look([PIXEL, "another", "none"], every=2.0).due)


def test_a_look_finds_the_pixels_that_have_something_due(store: Store, clock: Clock) -> None:
    assert due(store) == []
    store_rows(store, row("e1"), row("e2", pixel_id="another"), row("e3", pixel_id="foreign"))
    assert due(store) == sorted([PIXEL, "another"])

    leased = lease(store, seconds=60)
    assert due(store) == ["another"]
    store.settle(leased.lease_id, [Settlement(leased.events[0].key, "pending", delay=30.0)])
    assert due(store) == ["another"]
    clock.now += 30
    assert due(store) == sorted([PIXEL, "another"])


def test_a_look_finds_what_a_killed_process_held(store: Store, clock: Clock) -> None:
    store_rows(store, row())
    lease(store, seconds=60)
    clock.now += 60

    assert due(store) == [PIXEL]


def test_a_look_finds_what_waits_too_long_because_the_clock_went_back(
    store: Store, clock: Clock
) -> None:
    store_rows(store, row())
    clock.now -= 86_400

    assert due(store) == [PIXEL]


def test_a_conversion_waits_while_it_is_due_and_nobody_has_it(store: Store, clock: Clock) -> None:
    store_rows(store, row("view", event_name="PageView"))
    assert not store.conversion_waits(PIXEL)

    store_rows(store, row("order", event_name="Purchase"))
    assert store.conversion_waits(PIXEL)
    assert not store.conversion_waits("another")

    held = lease(store, seconds=60)
    assert not store.conversion_waits(PIXEL)

    [key] = [event.key for event in held.events if event.event_name == "Purchase"]
    store.settle(held.lease_id, [Settlement(key, "pending", "http 502", delay=30.0)])
    assert not store.conversion_waits(PIXEL)
    clock.now += 30
    assert store.conversion_waits(PIXEL)


# tallies, depth, prune


def test_tallies_group_rows_of_the_window(store: Store) -> None:
    def make(event_id: str, at: float, **fields: int | str) -> Row:
        return row(event_id, event_time=at, **fields)

    store_rows(
        store,
        make("before", NOON - 1),
        make("e1", NOON),
        make("e2", NOON + 3599.9),
        make("e3", NOON + 1, match_keys=3),
        make("e4", NOON + 1, browser="csp"),
        make("e5", NOON + 1, event_name="Lead"),
        make("end", NOON + 3600),
    )

    tallies = store.tallies(NOON, NOON + 3600)

    assert sorted(tallies.rows, key=repr) == [
        Tally(PIXEL, "Lead", "pending", "not_rendered", 0, 1),
        Tally(PIXEL, "Purchase", "pending", "csp", 0, 1),
        Tally(PIXEL, "Purchase", "pending", "not_rendered", 0, 2),
        Tally(PIXEL, "Purchase", "pending", "not_rendered", 3, 1),
    ]
    assert tallies.freshness == []


def test_a_window_is_the_whole_hours_that_it_touches(store: Store) -> None:
    hours = (-1, 0, 1, 2)
    store_rows(store, *(row(f"e{n}", event_time=NOON + n * 3600, match_keys=n + 1) for n in hours))

    def found(start: float, end: float) -> list[int]:
        return sorted(one.match_keys for one in store.tallies(start, end).rows)

    assert found(NOON + 3599, NOON + 3600) == [1]
    assert found(NOON + 3599, NOON + 3601) == [1, 2]
    assert found(NOON, NOON) == []
    assert found(float("-inf"), float("inf")) == [0, 1, 2, 3]


def test_freshness_is_the_time_to_delivery_in_tenths(store: Store, clock: Clock) -> None:
    store_rows(
        store,
        row("e1", event_time=NOON - 2.03),
        row("e2", event_time=NOON - 1.98),
        row("e3", event_time=NOON - 9),
        row("ahead", event_time=NOON + 4),
    )
    settle(store, lease(store), "delivered")

    freshness = store.tallies(NOON - 60, NOON + 60).freshness

    assert sorted(freshness, key=lambda f: f.seconds) == [
        Freshness(PIXEL, "Purchase", 0.0, 1),
        Freshness(PIXEL, "Purchase", 2.0, 2),
        Freshness(PIXEL, "Purchase", 9.0, 1),
    ]


def test_counts_add_up_within_the_hours_of_the_window(store: Store, clock: Clock) -> None:
    hour = NOON - NOON % 3600
    for at, n in ((hour - 1, 100), (hour, 1), (hour + 3599, 2), (hour + 3600, 200)):
        clock.now = at
        store.count([Count("suppressed", "consent", "Lead", PIXEL, n), Count("skipped", "404")])
    store.flush(30)

    tallies = store.tallies(hour + 1800, hour + 1801)

    assert sorted(tallies.counts, key=lambda c: c.kind) == [
        Count("skipped", "404", "", "", 2),
        Count("suppressed", "consent", "Lead", PIXEL, 3),
    ]


def test_counts_of_every_hour_that_overlaps_the_window_are_in_it(
    store: Store, clock: Clock
) -> None:
    hour = NOON - NOON % 3600
    for clock.now in (hour - 1, hour, hour + 3600):
        store.count([Count("skipped", "404")])
    store.flush(30)

    assert store.tallies(hour - 1, hour).counts == [Count("skipped", "404", n=1)]
    assert store.tallies(hour - 1, hour + 1).counts == [Count("skipped", "404", n=2)]
    assert store.tallies(hour + 3599, hour + 3601).counts == [Count("skipped", "404", n=2)]


def _is_of_jo(payload: bytes) -> bool:
    return b"jo" in payload


def test_what_waits_and_dead_letters_of_a_person_are_forgotten_and_nothing_else(
    store: Store,
) -> None:
    names = [f"{who}{n}" for who in ("jo", "al") for n in range(300)]
    store_rows(store, *(row(name, payload=name.encode()) for name in names))
    leased = lease(store, limit=1000)
    keys = {one.event_id: one.key for one in leased.events}
    dead = [Settlement(keys[name], "dead") for name in ("jo0", "al0")]
    store.settle(leased.lease_id, [*dead, Settlement(keys["jo1"], "delivered")])
    store.release(leased.lease_id, [*keys.values()])
    assert store.forget(_is_of_jo) == Forgotten(298, 1, 0)
    assert store.forget(_is_of_jo) == Forgotten(0, 0, 0)
    assert {name[:2] for name in ids(lease(store, limit=1000))} == {"al"}
    assert [one.event_id for one in store.dead_letters(limit=9)] == ["al0"]
    assert store.depth() == {"leased": 299, "dead": 1, "delivered": 1, "stopped": 299}
    [count] = store.tallies(0, NOON * 2).counts
    assert count == Count("suppressed", "forgotten", "Purchase", PIXEL, 299)
    assert store.find(["jo5"])[0].reason == "forgotten"


def test_what_a_courier_sends_is_left_to_it_and_forgotten_when_it_waits_again(
    store: Store,
) -> None:
    store_rows(store, row("jo", payload=b"jo"))
    leased = lease(store)
    assert store.forget(_is_of_jo) == Forgotten(0, 0, 1)
    settle(store, leased, "pending")
    assert store.forget(_is_of_jo) == Forgotten(1, 0, 0)


def test_prune_deletes_old_settled_rows_only(store: Store, clock: Clock) -> None:
    store_rows(store, row("old"), row("waits"), row("young", event_time=NOON + 10))
    leased = lease(store)
    old = next(event for event in leased.events if event.event_id == "old")
    store.settle(leased.lease_id, [Settlement(old.key, "delivered")])
    store_rows(store, row("bot", server="bot", payload=None, event_time=NOON + 10))

    assert store.prune(NOON + 10) == 1
    assert store.depth() == {"leased": 2, "bot": 1}
    assert store.prune(NOON + 3600) == 1
    assert store.depth() == {"leased": 2}


def test_what_was_pruned_is_counted_for_400_days(store: Store, clock: Clock) -> None:
    store_rows(store, row(server="bot", payload=None, route="GET /a"))
    store.count([Count("skipped", "404")])
    store.flush(30)
    before = store.tallies(0, 2 * NOON)
    assert store.prune(NOON + 1) == 1

    clock.now += 400 * 86400
    store.prune(clock.now)
    assert store.tallies(0, 2 * NOON) == before
    assert [one.n for one in store.slices("route", 0, 2 * NOON)] == [1]
    clock.now += 86400
    store.prune(clock.now)
    assert store.tallies(3600, 2 * NOON) == Tallies([], [], [], [], [])
    assert list(store.slices("route", 0, 2 * NOON)) == []
    # The totals of all time stay: counters of the metrics must never go back.
    for _ in range(2):
        store.prune(clock.now)
        assert store.tallies(0, 2 * NOON) == before


def test_prune_deletes_more_than_one_step(store: Store) -> None:
    for part in range(3):
        store_rows(store, *[row(f"{part}-{n}", server="bot", payload=None) for n in range(800)])

    assert store.prune(NOON + 1) == 2400
    assert store.depth() == {}


# flush, close


def test_flush_and_close_of_an_unused_store_are_done_at_once(store: Store) -> None:
    assert store.flush(0.0)
    store.close()
    store.close()


def test_what_was_appended_before_close_is_there_after_it(store: Store) -> None:
    store.append([row()], wait=False)
    store.close()

    assert states(store) == [(PIXEL, "Purchase", "pending", "not_rendered", 0, 1)]


def test_a_closed_store_can_be_used_again(store: Store) -> None:
    store_rows(store, row("e1"))
    store.close()
    store_rows(store, row("e2"))

    assert store.depth() == {"pending": 2}


# what Meta may have counted


def uncertain(store: Store, leased: Lease) -> None:
    store.settle(
        leased.lease_id, [Settlement(one.key, "pending", uncertain=True) for one in leased.events]
    )


def test_an_event_that_meta_may_have_taken_expires_when_it_would_count_twice(
    store: Store, clock: Clock
) -> None:
    store_rows(store, row("tried"), row("never"))
    first = lease(store, limit=1)
    uncertain(store, first)
    clock.now += DEDUPE_WINDOW + 1

    assert len(ids(lease(store))) == 1
    assert store.depth() == {"expired": 1, "leased": 1}


def test_an_event_that_was_told_of_late_may_be_tried_for_as_long_as_others(
    store: Store, clock: Clock
) -> None:
    store_rows(store, row(event_time=NOON - 5 * 86_400))
    uncertain(store, lease(store))
    clock.now += 600
    assert ids(lease(store, seconds=1)) == ["e1"]
    clock.now += DEDUPE_WINDOW - 600 + 1
    assert ids(lease(store)) == []


def test_an_event_whose_browser_copy_was_counted_expires_with_it(
    store: Store, clock: Clock
) -> None:
    store_rows(store, row("e1", browser="not_run"), row("e2", browser="not_run"))
    sight(store, "sent", "e1")
    clock.now += DEDUPE_WINDOW - 1
    assert ids(lease(store, seconds=1)) == ["e1", "e2"]
    clock.now += 2

    assert ids(lease(store)) == ["e2"]


def test_uncertain_stays_whatever_comes_after(store: Store, clock: Clock) -> None:
    store_rows(store, row())
    uncertain(store, lease(store))
    settle(store, lease(store), "pending")
    clock.now += DEDUPE_WINDOW + 1

    assert ids(lease(store)) == []


# pauses


def test_a_pause_holds_until_its_end_and_each_token_has_its_own(store: Store, clock: Clock) -> None:
    store.pause(PIXEL, seconds=60, reason="code 190", token="abc")
    store.pause(PIXEL, seconds=90, reason="code 4")
    for_all, for_one = (
        Pause(PIXEL, NOON + 90, "code 4"),
        Pause(PIXEL, NOON + 60, "code 190", "abc"),
    )
    assert list(store.pauses()) == [for_all, for_one]
    clock.now = NOON + 60
    assert list(store.pauses()) == [for_all]
    clock.now = NOON + 90
    assert list(store.pauses()) == []


def test_who_was_told_to_wait_for_longer_still_does(store: Store, clock: Clock) -> None:
    store.pause(PIXEL, seconds=3600, reason="http 503")
    clock.now += 10
    store.pause(PIXEL, seconds=1, reason="timeout")
    assert list(store.pauses()) == [Pause(PIXEL, NOON + 3600, "http 503")]
    store.pause(PIXEL, seconds=3600, reason="code 4")
    assert list(store.pauses()) == [Pause(PIXEL, NOON + 3610, "code 4")]


def test_several_that_fail_at_once_are_one_failure_in_a_row(store: Store, clock: Clock) -> None:
    for _ in range(16):
        store.pause(PIXEL, seconds=1, reason="timeout")
    assert store.rest(PIXEL) == Rest(1.0, 1)
    clock.now += 1
    store.pause(PIXEL, seconds=2, reason="timeout")
    assert store.rest(PIXEL) == Rest(2.0, 2)


def test_a_rest_is_over_when_the_clock_goes_back_before_it_began(
    store: Store, clock: Clock
) -> None:
    store.pause(PIXEL, seconds=60, reason="code 4")
    clock.now -= 0.5  # a clock is set by so much all day long
    assert store.rest(PIXEL) == Rest(60.5, 1)
    clock.now -= 100
    assert (list(store.pauses()), store.rest(PIXEL)) == ([], Rest(0.0, 1))
    store.pause(PIXEL, seconds=5, reason="code 4")
    assert store.rest(PIXEL) == Rest(5.0, 2)


def test_the_rest_of_one_token_is_not_that_of_another(store: Store) -> None:
    store.pause(PIXEL, seconds=60, reason="code 190", token="old")
    assert store.rest(PIXEL, "old") == Rest(60.0, 1)
    assert store.rest(PIXEL, "new") is None
    store.resume(PIXEL, "new")
    assert store.rest(PIXEL, "old") == Rest(60.0, 1)
    store.resume(PIXEL, "old")
    assert store.rest(PIXEL, "old") is None


def test_one_of_all_tries_when_a_rest_is_over(store: Store, clock: Clock) -> None:
    store.pause(PIXEL, seconds=60, reason="timeout")
    assert not store.try_now(PIXEL, "a", seconds=20)
    clock.now += 60
    assert store.rest(PIXEL, "b") == Rest(0.0, 1)
    assert store.try_now(PIXEL, "a", seconds=20)
    assert store.rest(PIXEL, "b") == Rest(20.0, 1)
    assert not store.try_now(PIXEL, "b", seconds=20)
    clock.now += 20  # the one who tried was killed
    assert store.try_now(PIXEL, "b", seconds=20)
    store.resume(PIXEL, "b")
    assert store.rest(PIXEL, "a") is None


def test_a_pause_can_be_ended(store: Store) -> None:
    store.pause(PIXEL, seconds=60, reason="code 4")
    store.resume(PIXEL)
    store.resume(PIXEL)

    assert list(store.pauses()) == []


# backlog and dead letters


def test_the_backlog_tells_how_much_waits_for_how_long(store: Store, clock: Clock) -> None:
    store_rows(store, row("e1", event_time=NOON - 5), row("e2"), row("e3", pixel_id="2"))
    settle(store, store.lease("2", limit=9, seconds=9), "delivered")
    clock.now += 10

    assert list(store.backlog()) == [Backlog(PIXEL, 2, 15.0)]


def dead(store: Store, *event_ids: str) -> None:
    store_rows(store, *(row(event_id, payload=b'{"a":1}') for event_id in event_ids))
    settle(store, lease(store), "dead", "code 100")


@pytest.mark.one_database
def test_a_dead_letter_can_be_looked_at(store: Store) -> None:
    dead(store, "e1", "e2", "e3")

    first, second = store.dead_letters(limit=2)
    (third,) = store.dead_letters(limit=2, after=second.key)

    assert first == DeadLetter(first.key, "e1", "Purchase", PIXEL, NOON, "code 100", 1, b'{"a":1}')
    assert [second.event_id, third.event_id] == ["e2", "e3"]


def test_a_requeued_dead_letter_goes_out_again_the_same(store: Store) -> None:
    dead(store, "e1", "e2")
    woken: list[int] = []
    store.on_commit = lambda names: woken.append(1)
    (letter, _) = store.dead_letters(limit=2)

    assert store.requeue([letter.key]) == 1
    assert store.requeue([letter.key]) == 0
    assert lease(store).events == [
        LeasedEvent(letter.key, "e1", "Purchase", NOON, b'{"a":1}', 0, fresh=True)
    ]
    assert woken == [1]
    assert store.requeue() == 1


def test_a_dropped_dead_letter_is_counted_and_has_no_payload(store: Store) -> None:
    dead(store, "e1", "e2", "e3")
    (letter, *_) = store.dead_letters(limit=9)

    assert store.drop([letter.key]) == 1
    assert store.drop([letter.key]) == 0
    assert store.drop() == 2
    assert store.depth() == {"dropped": 3}
    counts = store.tallies(NOON - 1, NOON + 1).counts
    assert list(counts) == [Count("dropped", "dead_letter", "Purchase", PIXEL, 3)]


# slices and differences


def test_freshness_has_two_significant_digits_from_ten_seconds_on(
    store: Store, clock: Clock
) -> None:
    for n, age in enumerate((9.94, 10.4, 10.6, 123.0, 127.0, 4567.0)):
        store_rows(store, row(f"e{n}", event_time=NOON - age))
    settle(store, lease(store), "delivered")

    freshness = store.tallies(0, 2 * NOON).freshness

    assert sorted(one.seconds for one in freshness) == [9.9, 10.0, 11.0, 120.0, 130.0, 4600.0]


def test_slices_split_the_rows_by_hour_route_page_and_segment(store: Store) -> None:
    of_a = {"route": "GET /a", "page": "/a/{id}", "segment": "Chrome\tphone\tDE\ta.example"}
    store_rows(
        store,
        row("e1", **of_a),
        row("e2", **of_a, event_time=NOON + 3600),
        row("e3", route="GET /b", page="/b", segment="Safari", browser="csp"),
        row("e4"),
    )

    def found(facet: Facet, end: float = NOON + 7200) -> list[Slice]:
        return sorted(store.slices(facet, NOON, end), key=repr)

    def made(value: str, n: int, browser: str = "not_rendered") -> Slice:
        return Slice(value, PIXEL, "Purchase", "pending", browser, n)

    assert found("route") == [made("GET /a", 2), made("GET /b", 1, "csp")]
    assert found("route", NOON + 1) == [made("GET /a", 1), made("GET /b", 1, "csp")]
    assert found("page") == [made("/a/{id}", 2), made("/b", 1, "csp")]
    assert found("agent") == [made("Chrome", 2), made("Safari", 1, "csp")]
    assert found("device") == [made("phone", 2)]
    assert found("country") == [made("DE", 2)]
    assert found("host") == [made("a.example", 2)]
    noon = int(NOON)
    assert found("hour") == [
        made(str(noon), 1, "csp"),
        made(str(noon), 2),
        made(str(noon + 3600), 1),
    ]


def test_what_a_slice_is_made_of_follows_the_rows(store: Store) -> None:
    store_rows(store, row("e1", route="GET /a", browser="not_run"))
    settle(store, lease(store), "delivered")
    sight(store, "sent")

    assert list(store.slices("route", NOON, NOON + 1)) == [
        Slice("GET /a", PIXEL, "Purchase", "delivered", "sent", 1)
    ]


def test_a_row_of_an_early_sighting_takes_over_where_it_comes_from(store: Store) -> None:
    sight(store, "sent")
    store_rows(store, row(route="GET /a", page="/a", segment="Edge", digest="1"))

    for facet, value in (("route", "GET /a"), ("page", "/a"), ("agent", "Edge")):
        (one,) = store.slices(facet, 0, 2 * NOON)  # type: ignore[arg-type] # three of them
        assert (one.value, one.server, one.browser) == (value, "pending", "sent")


@pytest.mark.parametrize(
    ("server_digest", "browser_digest", "n"),
    [("a", "b", 1), ("a", "a", 0), ("", "b", 0), ("a", "", 0)],
)
def test_two_copies_with_other_values_are_a_difference(
    store: Store, server_digest: str, browser_digest: str, n: int
) -> None:
    store_rows(store, row(digest=server_digest))
    store.sight([Sighting("e1", "Purchase", PIXEL, "sent", browser_digest)]).result(30)
    assert list(store.tallies(NOON, NOON + 1).differences) == []
    settle(store, lease(store), "delivered")

    found = list(store.tallies(NOON, NOON + 1).differences)
    assert found == [Difference(PIXEL, "Purchase", 1)] * n


# find and recent


@pytest.mark.one_database
def test_events_are_found_by_their_ids_at_every_pixel(store: Store) -> None:
    store_rows(store, row("e1"), row("e2"), row("e1", pixel_id="2"), row("e3"))
    settle(store, lease(store, limit=1), "dead", "code 100")

    found = store.find(["e3", "e1", "none", "e1"])

    assert [astuple(one)[1:9] for one in found] == [
        ("e1", "Purchase", PIXEL, NOON, "dead", "not_rendered", "code 100", 1),
        ("e1", "Purchase", "2", NOON, "pending", "not_rendered", "", 0),
        ("e3", "Purchase", PIXEL, NOON, "pending", "not_rendered", "", 0),
    ]
    assert found[0].key < found[1].key < found[2].key
    assert list(store.find([])) == []


def test_more_ids_than_a_call_takes_are_refused(store: Store) -> None:
    assert list(store.find(["e"] * MOST_FOUND)) == []
    with pytest.raises(ValueError, match="found 1,001 event_ids, expected at most 1,000"):
        store.find(["e"] * (MOST_FOUND + 1))


@pytest.mark.one_database
def test_recent_rows_are_the_newest_or_those_after_a_key(store: Store) -> None:
    store_rows(store, *(row(f"e{n}") for n in range(5)))

    newest = store.recent(2)
    assert [one.event_id for one in newest] == ["e3", "e4"]
    everything = store.recent(9)
    after = store.recent(2, after=everything[0].key)
    assert [one.event_id for one in after] == ["e1", "e2"]
    assert list(store.recent(2, after=newest[-1].key)) == []


@pytest.mark.one_database
def test_the_newest_of_a_name_are_found_among_many_others(store: Store) -> None:
    names = ["Lead", "Purchase", "Lead", "PageView", "Lead", "PageView", "Purchase"]
    store_rows(store, *(row(f"e{n}", event_name=name) for n, name in enumerate(names)))
    store_rows(store, row("e7", pixel_id="5@shop"), row("e8", pixel_id="5@workshop"))

    assert [one.event_id for one in store.newest(2, "Lead")] == ["e2", "e4"]
    assert [one.event_id for one in store.newest(9, "PageView")] == ["e3", "e5"]
    assert [one.event_id for one in store.newest(9, owner="@shop")] == ["e7"]
    assert [one.event_id for one in store.newest(2)] == ["e7", "e8"]
    assert list(store.newest(9, "Contact")) == []
    assert list(store.newest(9, "Lead", "@shop")) == []


def test_what_is_known_of_an_event_has_its_times_and_metas_id_of_the_request(
    store: Store, clock: Clock
) -> None:
    store_rows(store, row(match_keys=5, route="GET /thanks", page="/thanks"))
    clock.now += 2
    sight(store, "sent")
    clock.now += 3
    leased = lease(store)
    [event] = leased.events
    store.settle(
        leased.lease_id, [Settlement(event.key, "pending", "http 502", delay=60.0, trace="A1")]
    )
    [waiting] = store.find(["e1"])
    assert (waiting.trace, waiting.delivered_at) == ("A1", None)
    assert waiting.due_at == clock.now + 60
    clock.now += 60
    leased = lease(store)
    store.settle(leased.lease_id, [Settlement(event.key, "delivered", trace="A2")])

    [found] = store.find(["e1"])
    assert (found.server, found.attempts, found.trace) == ("delivered", 2, "A2")
    assert (found.browser_at, found.delivered_at) == (NOON + 2, NOON + 65)
    assert (found.match_keys, found.route, found.page) == (5, "GET /thanks", "/thanks")


# keep


def test_what_is_kept_is_there_by_its_name(store: Store) -> None:
    assert store.kept("insights") is None
    assert store.keep("insights", b"1", instead_of=None)
    assert store.keep("alerts", b"", instead_of=None)

    assert (store.kept("insights"), store.kept("alerts")) == (b"1", b"")


def test_only_who_knows_what_is_kept_replaces_it(store: Store) -> None:
    assert not store.keep("alerts", b"2", instead_of=b"1")
    assert store.keep("alerts", b"1", instead_of=None)
    assert not store.keep("alerts", b"2", instead_of=None)
    assert not store.keep("alerts", b"2", instead_of=b"0")
    assert store.kept("alerts") == b"1"

    assert store.keep("alerts", b"2", instead_of=b"1")
    assert store.kept("alerts") == b"2"


def test_a_look_for_whichever_pixels_there_are_finds_each_that_has_something_due(
    store: Store,
) -> None:
    assert store.look(None, every=2.0).due == set()
    store_rows(store, *(row(f"e{n}", pixel_id=f"{n % 3}@t{n % 3}") for n in range(9)))
    assert store.look(None, every=2.0).due == {"0@t0", "1@t1", "2@t2"}
    store.lease("1@t1", limit=10, seconds=60.0)
    assert store.look(None, every=2.0).due == {"0@t0", "2@t2"}
