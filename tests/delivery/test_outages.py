"""Outages of a day and of a week, in simulated time: nothing is lost that Meta still takes."""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain

import pytest

from capi_middleware.delivery.batches import BATCH
from capi_middleware.delivery.courier import Courier
from capi_middleware.events import Row
from capi_middleware.meta.codes import Outcome
from capi_middleware.store.records import OLDEST_EVENT
from capi_middleware.testing import MemoryStore
from tests.support.stores import PIXEL, Clock, row, store_rows

DAY = 86400.0
#: Seconds between two events, and between two tries at least.
PACE = 900.0


class Meta:
    """Cannot be reached until `back`; then it takes all, at any time."""

    def __init__(self, clock: Clock, back: float) -> None:
        self.clock, self.back, self.asked = clock, back, 0
        self.taken: list[list[int]] = []

    def send(self, payloads: Sequence[bytes]) -> Outcome:
        self.asked += 1
        if self.clock.now < self.back:
            return Outcome("retry", "refused")
        self.taken.append([int(one) for one in payloads])
        return Outcome("delivered")

    def hear(self) -> Outcome | None:
        return None

    def close(self) -> None:
        pass


def event(number: int, at: float) -> Row:
    return row(f"e{number}", event_time=at, payload=b"%d" % number)


def live(store: MemoryStore, clock: Clock, days: float) -> tuple[Meta, int]:
    """An outage with an event now and then, and what comes after it; how many events came."""
    start, came = clock.now, 0
    meta = Meta(clock, start + days * DAY)
    courier = Courier(store, PIXEL, lambda: meta)
    courier._now = lambda: clock.now  # type: ignore[method-assign]
    while clock.now < meta.back or store.depth().get("pending"):
        due = math.ceil((min(clock.now, meta.back) - start) / PACE)
        store_rows(store, *(event(one, start + one * PACE) for one in range(came, due)))
        came = max(came, due)
        seconds = courier._step()
        clock.now += max(seconds, PACE) if clock.now < meta.back else seconds
    return meta, came


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock, queue_limit=20_000)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("days", [1, 6.9])
def test_nothing_is_lost_in_an_outage_that_ends_before_meta_refuses_the_oldest(
    store: MemoryStore, clock: Clock, days: float
) -> None:
    meta, came = live(store, clock, days)

    assert sorted(chain.from_iterable(meta.taken)) == list(range(came))
    assert store.depth() == {"delivered": came}
    assert meta.asked - len(meta.taken) <= days * DAY / PACE + 1


def test_what_is_too_old_after_a_longer_outage_expires_and_is_counted_once(
    store: MemoryStore, clock: Clock
) -> None:
    start = clock.now
    meta, came = live(store, clock, 8)

    taken = sorted(chain.from_iterable(meta.taken))
    assert taken == list(range(taken[0], came))
    young = math.ceil((meta.back - OLDEST_EVENT - start) / PACE)
    assert young - 1 <= taken[0] <= young + 1
    assert store.depth() == {"delivered": len(taken), "expired": taken[0]}
    tallies = store.tallies(start, clock.now + 1)
    sums = Counter[str]()
    for one in tallies.rows:
        sums[one.server] += one.n
    assert sums == {"delivered": len(taken), "expired": taken[0]}


def test_after_an_outage_the_fresh_goes_first_and_then_the_oldest_in_full_requests(
    store: MemoryStore, clock: Clock
) -> None:
    waiting = 2 * BATCH + 500
    store_rows(store, *(event(one, clock.now) for one in range(waiting)))
    meta = Meta(clock, clock.now + DAY)
    courier = Courier(store, PIXEL, lambda: meta)
    courier._now = lambda: clock.now  # type: ignore[method-assign]
    courier._step()
    clock.now += 2 * DAY
    store_rows(store, event(waiting, clock.now))
    while store.depth().get("pending"):
        clock.advance(courier._step())

    first, *others = meta.taken
    assert first[0] == waiting
    assert [len(one) for one in meta.taken[:2]] == [BATCH, BATCH]
    assert len(meta.taken) == 3
    never_tried = [one for one in chain(first[1:], *others) if one >= BATCH]
    assert never_tried == list(range(BATCH, waiting))
