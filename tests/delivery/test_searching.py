"""Searching: bad events are found in few requests, whoever goes on with it, and nobody waits."""

import itertools
import logging
import random
from collections.abc import Iterator, Sequence

import pytest

from capi_middleware.delivery.batches import LEAST_BYTES, MOST_BYTES
from capi_middleware.delivery.courier import POLL_SECONDS, Courier
from capi_middleware.events import Count
from capi_middleware.meta.codes import REFUSALS, Outcome
from capi_middleware.store.store import Store
from capi_middleware.testing import MemoryStore
from tests.support.stores import NOON, PIXEL, Clock, row, store_rows

#: A code that is surely about an event, and one that may be about the request.
SURE, UNSURE = Outcome("invalid", "code 100/2804010"), Outcome("unsure", "code 77777")


class Meta:
    """Answers after `seconds` of a simulated clock; refuses what has a `bad` payload in it.

    Meanwhile `rate` new events a second come until `until`. `fault` is its answer to everything.
    """

    def __init__(self, store: Store, clock: Clock, bad: set[bytes], refusal: Outcome) -> None:
        self.store, self.clock, self.bad, self.refusal = store, clock, bad, refusal
        self.seconds, self.rate, self.until, self.largest = 0.1, 0.0, 0.0, 10**9
        self.fault: Outcome | None = None
        self.sent: list[list[bytes]] = []
        self._came_at = clock.now
        self._numbers = itertools.count()

    def send(self, payloads: Sequence[bytes]) -> Outcome:
        self.sent.append(list(payloads))
        self.clock.now += self.seconds
        self.come()
        if self.fault is not None:
            return self.fault
        if sum(map(len, payloads)) > self.largest:
            return Outcome("large", "http 413")
        return self.refusal if self.bad & set(payloads) else Outcome("delivered")

    def come(self) -> None:
        """What came until now is stored."""
        new = []
        while self.rate and self._came_at < min(self.clock.now, self.until):
            self._came_at += 1 / self.rate
            number = next(self._numbers)
            new.append(row(f"new{number}", payload=b"new%d" % number))
        store_rows(self.store, *new)

    def hear(self) -> Outcome | None:
        return None

    def close(self) -> None:
        pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def waiting(store: Store, n: int = 1000) -> None:
    store_rows(store, *(row(f"e{at}", payload=b"%d" % at) for at in range(n)))


def courier_of(store: Store, clock: Clock, meta: Meta) -> Courier:
    courier = Courier(store, PIXEL, lambda: meta)
    courier._now = lambda: clock.now  # type: ignore[method-assign]
    return courier


def work(store: Store, clock: Clock, meta: Meta, *, steps: int = 1000, killed: bool = False) -> int:
    """Requests until nothing waits. `killed`: each goes out from a process of its own."""
    courier = courier_of(store, clock, meta)
    for _ in range(steps):
        if killed:
            courier = courier_of(store, clock, meta)
        clock.advance(courier._step())
        meta.come()
        depth = store.depth()
        if not depth.get("pending") and clock.now >= meta.until:
            break
    return len(meta.sent)


PLACES = [0, 1, 499, 500, 637, 998, 999]


@pytest.mark.parametrize("refusal", [SURE, UNSURE], ids=["sure", "unsure"])
@pytest.mark.parametrize("place", PLACES)
def test_one_bad_event_of_a_thousand_costs_21_requests_at_most(
    store: MemoryStore, clock: Clock, place: int, refusal: Outcome
) -> None:
    waiting(store)
    assert work(store, clock, Meta(store, clock, {b"%d" % place}, refusal)) <= 21
    assert store.depth() == {"delivered": 999, "dead": 1}


@pytest.mark.parametrize("refusal", [SURE, UNSURE], ids=["sure", "unsure"])
@pytest.mark.parametrize(
    "places",
    [range(50, 1000, 100), range(10), range(480, 490), *(
        random.Random(seed).sample(range(999), 10) for seed in range(4))],
    ids=str,
)  # fmt: skip
def test_ten_bad_events_of_a_thousand_cost_120_requests_at_most(
    store: MemoryStore, clock: Clock, places: Sequence[int], refusal: Outcome
) -> None:
    waiting(store)
    bad = {b"%d" % place for place in places}
    assert work(store, clock, Meta(store, clock, bad, refusal)) <= 120
    assert store.depth() == {"delivered": 990, "dead": 10}


@pytest.mark.parametrize("seconds", [0.1, 1.2, 2.6, 9.0])
@pytest.mark.parametrize("bad", [1, 10])
def test_a_slow_meta_and_a_stream_of_events_hold_up_no_search(
    clock: Clock, seconds: float, bad: int
) -> None:
    """20 new events a second, for as long as the search may take."""
    requests = []
    for places in (range(bad * 90, 0, -90), ()):
        store = MemoryStore(clock=clock)
        waiting(store)
        meta = Meta(store, clock, {b"%d" % place for place in places}, SURE)
        meta.seconds, meta.rate, meta.until = seconds, 20.0, clock.now + 120 * seconds
        requests.append(work(store, clock, meta))
        assert store.depth().get("dead", 0) == len(places)
        assert "pending" not in store.depth()
    # Beside those that the stream needs anyhow.
    assert requests[0] - requests[1] <= (21 if bad == 1 else 120)


@pytest.mark.parametrize("place", PLACES)
def test_a_search_goes_on_where_it_was_whoever_dies_after_each_request(
    store: MemoryStore, clock: Clock, place: int
) -> None:
    waiting(store)
    meta = Meta(store, clock, {b"%d" % place}, SURE)
    assert work(store, clock, meta, killed=True) <= 21
    assert store.depth() == {"delivered": 999, "dead": 1}


@pytest.mark.parametrize("refusal", [SURE, UNSURE], ids=["sure", "unsure"])
@pytest.mark.parametrize("killed", [False, True], ids=["", "killed"])
@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_bad_all_that_is_good_gets_through_and_only_the_bad_dies(
    store: MemoryStore, clock: Clock, seed: int, killed: bool, refusal: Outcome
) -> None:
    chance = random.Random(seed)
    bad = set(chance.sample(range(80), chance.randrange(60)))
    waiting(store, 80)
    meta = Meta(store, clock, {b"%d" % place for place in bad}, refusal)
    work(store, clock, meta, steps=300, killed=killed)
    while store.depth().get("pending"):  # what may be the request's fault waits for others
        clock.now += 1000
        store_rows(store, row(f"later{clock.now}", event_time=clock.now, payload=b"later"))
        work(store, clock, meta, steps=9, killed=killed)
    assert store.depth().get("dead", 0) == len(bad)
    dead = {one.event_id for one in store.dead_letters(limit=99)}
    assert dead == {f"e{place}" for place in bad}
    delivered = [payload for batch in meta.sent for payload in batch if not meta.bad & set(batch)]
    assert len(delivered) == store.depth()["delivered"]  # nothing twice


def test_a_fresh_conversion_goes_out_with_the_next_half_of_a_search(
    store: MemoryStore, clock: Clock
) -> None:
    waiting(store)
    meta = Meta(store, clock, {b"999"}, SURE)
    courier = courier_of(store, clock, meta)
    courier._step()
    store_rows(store, row("order", payload=b"order"))
    courier._step()
    assert b"order" in meta.sent[-1]
    assert store.find(["order"])[0].server == "delivered"


def test_a_conversion_that_was_refused_with_page_views_is_in_the_first_half_of_the_search(
    store: MemoryStore, clock: Clock
) -> None:
    views = (row(f"v{n}", event_name="PageView", payload=b"%d" % n) for n in range(999))
    store_rows(store, *views, row("fresh", payload=b"fresh"))
    meta = Meta(store, clock, {b"600"}, SURE)
    work(store, clock, meta, steps=2)

    assert [b"fresh" in one for one in meta.sent] == [True, True]
    assert b"600" not in meta.sent[1]


def test_a_fresh_conversion_goes_before_a_backlog(store: MemoryStore, clock: Clock) -> None:
    waiting(store, 3000)
    clock.now += 3600
    store_rows(store, row("order", payload=b"order"))
    meta = Meta(store, clock, set(), SURE)
    courier_of(store, clock, meta)._step()
    assert b"order" in meta.sent[0]


def backlog(store: Store, clock: Clock) -> None:
    """A thousand events that wait for longer than any that come now."""
    waiting(store)
    clock.now += 3600


@pytest.mark.parametrize("place", PLACES)
def test_no_conversion_that_comes_while_bad_events_are_searched_for_waits_for_a_fourth_request(
    store: MemoryStore, clock: Clock, place: int
) -> None:
    backlog(store, clock)
    meta = Meta(store, clock, {b"%d" % place}, SURE)
    meta.seconds, meta.rate, meta.until = 1.0, 1.0, clock.now + 30  # one comes with each request
    work(store, clock, meta)

    gone = {one: at for at, batch in enumerate(meta.sent) for one in batch}  # the last time
    assert [at for n in range(30) if (at := gone[b"new%d" % n]) > n + 3] == []
    assert store.depth() == {"delivered": 1029, "dead": 1}


def test_a_conversion_that_was_refused_beside_a_backlog_is_no_suspect_and_goes_out_alone(
    store: MemoryStore, clock: Clock
) -> None:
    backlog(store, clock)
    store_rows(store, row("order", payload=b"order"))
    meta = Meta(store, clock, {b"0"}, SURE)
    work(store, clock, meta, steps=2)
    assert [b"order" in batch for batch in meta.sent] == [True, True]
    assert meta.sent[1] == [b"order"]


def test_a_bad_conversion_beside_a_backlog_is_found_in_few_requests_and_alone_dies(
    store: MemoryStore, clock: Clock
) -> None:
    backlog(store, clock)
    store_rows(store, *(row(f"order{n}", payload=b"order%d" % n) for n in range(20)))
    assert work(store, clock, Meta(store, clock, {b"order7"}, SURE)) <= 21
    assert [one.event_id for one in store.dead_letters(limit=9)] == ["order7"]
    assert store.depth() == {"delivered": 1019, "dead": 1}


def test_events_that_are_all_bad_are_asked_for_ever_more_slowly_and_that_is_told(
    store: MemoryStore, clock: Clock
) -> None:
    waiting(store)
    start = clock.now
    requests = work(store, clock, Meta(store, clock, {b"%d" % n for n in range(1000)}, SURE),
                    steps=200)  # fmt: skip
    assert requests <= 60 + (clock.now - start) / 10
    assert "delivered" not in store.depth()
    assert [one.reason for one in store.pauses()] == [REFUSALS]
    store.flush(9)
    told = {(one.kind, one.reason) for one in store.tallies(0, 1e12).counts}
    assert ("rested", REFUSALS) in told


# -- whose fault is it? --------------------------------------------------------------------------


def test_an_unknown_code_for_everything_rests_the_pixel_after_three_requests_and_kills_nothing(
    store: MemoryStore, clock: Clock
) -> None:
    waiting(store)
    store_rows(store, row("view", event_name="PageView", payload=b"view"))
    meta = Meta(store, clock, set(), UNSURE)
    meta.fault = UNSURE
    courier = courier_of(store, clock, meta)
    courier._round()
    assert [len(batch) for batch in meta.sent] == [1000, 1, 1]
    assert [one.reason for one in store.pauses()] == ["code 77777"]
    assert store.depth() == {"pending": 1001}
    store.flush(9)
    assert Count("rested", "code 77777", pixel_id=PIXEL) in store.tallies(0, 1e12).counts


def test_after_the_rest_single_events_are_tried_and_one_that_gets_through_frees_all(
    store: MemoryStore, clock: Clock
) -> None:
    waiting(store)
    meta = Meta(store, clock, set(), UNSURE)
    meta.fault = UNSURE
    courier = courier_of(store, clock, meta)
    for _ in range(5):
        courier._round()
        clock.now += 3600
    assert [len(batch) for batch in meta.sent[3:]] == [1] * 8
    meta.fault = None
    courier._round()
    assert store.depth() == {"delivered": 1000}
    assert [len(batch) for batch in meta.sent[11:]] == [1, 999]


def test_a_fault_of_all_requests_that_begins_in_a_search_kills_nothing_that_is_good(
    clock: Clock,
) -> None:
    for after in range(1, 17):
        store = MemoryStore(clock=clock)
        waiting(store)
        meta = Meta(store, clock, {b"637"}, UNSURE)
        courier = courier_of(store, clock, meta)
        while len(meta.sent) < after and store.depth().get("pending"):
            courier._step()
        meta.fault = UNSURE
        sent = len(meta.sent)
        courier._round()
        assert {one.event_id for one in store.dead_letters(limit=9)} <= {"e637"}
        assert len(meta.sent) - sent <= 9
        meta.fault = None
        clock.now += 3600
        store_rows(store, row("next", event_time=clock.now, payload=b"next"))
        work(store, clock, meta)
        assert store.depth() == {"delivered": 1000, "dead": 1}


def test_a_lonely_event_with_an_unknown_code_waits_for_another_that_gets_through(
    store: MemoryStore, clock: Clock
) -> None:
    store_rows(store, row("bad", payload=b"bad"))
    meta = Meta(store, clock, {b"bad"}, UNSURE)
    courier = courier_of(store, clock, meta)
    for _ in range(3):
        courier._round()
        clock.now += 3600
    assert store.depth() == {"pending": 1}
    store_rows(store, row("good", event_time=clock.now, payload=b"good"))
    courier._round()
    assert store.depth() == {"delivered": 1, "dead": 1}


def test_a_passing_fault_while_single_events_are_tried_decides_nothing(
    store: MemoryStore, clock: Clock
) -> None:
    waiting(store, 10)
    meta = Meta(store, clock, set(), UNSURE)
    answers = iter([UNSURE, UNSURE, Outcome("retry", "http 503"), Outcome("delivered")])
    meta.send = lambda payloads: next(answers)  # type: ignore[method-assign]
    courier = courier_of(store, clock, meta)
    courier._step()
    assert store.depth() == {"pending": 10}


# -- how much at once ----------------------------------------------------------------------------


def bodies(meta: Meta) -> list[int]:
    return [sum(map(len, batch)) for batch in meta.sent]


def test_a_batch_is_bounded_by_bytes(store: MemoryStore, clock: Clock) -> None:
    store_rows(store, *(row(f"e{n}", payload=b"%021000d" % n) for n in range(300)))
    meta = Meta(store, clock, set(), SURE)
    work(store, clock, meta)
    assert store.depth() == {"delivered": 300}
    assert max(bodies(meta)) <= MOST_BYTES
    assert len(meta.sent) == 7


def test_a_body_that_is_too_large_is_halved_until_it_passes_and_stays_so(
    store: MemoryStore, clock: Clock
) -> None:
    store_rows(store, *(row(f"e{n}", payload=b"%01000d" % n) for n in range(900)))
    meta = Meta(store, clock, set(), SURE)
    meta.largest = 200_000
    work(store, clock, meta)
    assert store.depth() == {"delivered": 900}
    assert max(bodies(meta)[3:]) <= 200_000
    assert len(meta.sent) < 15
    waited = clock.now - NOON - len(meta.sent) * meta.seconds - POLL_SECONDS  # the last look
    assert waited < 0.1


def test_an_event_that_is_too_large_alone_waits_while_others_go_out(
    store: MemoryStore, clock: Clock
) -> None:
    store_rows(store, row("big", payload=b"b" * 30_000), *(row(f"e{n}") for n in range(5)))
    meta = Meta(store, clock, set(), SURE)
    meta.largest = 20_000
    courier_of(store, clock, meta)._round()
    assert store.depth() == {"pending": 1, "delivered": 5}
    assert list(store.pauses()) == []


def test_events_that_are_all_too_large_rest_the_pixel(store: MemoryStore, clock: Clock) -> None:
    waiting(store, 100)
    meta = Meta(store, clock, set(), SURE)
    meta.largest = 0
    courier_of(store, clock, meta)._round()
    assert len(meta.sent) < 20
    assert [one.reason for one in store.pauses()] == ["http 413"]
    assert store.depth() == {"pending": 100}


def test_bodies_shrink_after_time_outs_until_they_fit_the_line_and_grow_again(
    store: MemoryStore, clock: Clock
) -> None:
    store_rows(store, *(row(f"e{n}", payload=b"%021000d" % n) for n in range(1500)))
    meta = Meta(store, clock, set(), SURE)
    honest, line = meta.send, [150_000]

    def slow(payloads: Sequence[bytes]) -> Outcome:
        outcome = honest(payloads)
        return outcome if bodies(meta)[-1] <= line[0] else Outcome("retry", "timeout", late=True)

    meta.send = slow  # type: ignore[method-assign]
    courier = courier_of(store, clock, meta)
    while store.depth().get("delivered", 0) < 500:
        clock.advance(courier._step())
    assert min(bodies(meta)) >= LEAST_BYTES
    assert sum(size > line[0] for size in bodies(meta)) < len(bodies(meta)) / 5
    line[0], sent = 10**9, len(meta.sent)
    while store.depth().get("pending"):
        clock.advance(courier._step())
    assert max(bodies(meta)[sent:]) > 300_000
