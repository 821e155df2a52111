"""Gathering: a lonely event goes at once; the more came lately, the longer the next one waits."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware import CAPI, UserData
from capi_middleware.delivery.batches import BATCH
from capi_middleware.delivery.courier import POLL_SECONDS, Courier
from capi_middleware.delivery.retry import (
    LONGEST_GATHERING,
    SHORTEST_GATHERING,
    Pace,
    gathering,
    lingering,
)
from capi_middleware.errors import StoreError
from capi_middleware.store.store import Store
from capi_middleware.testing import FakeMeta, MemoryStore
from tests.delivery.test_delivery import Script
from tests.support.configs import make_config
from tests.support.processes import until
from tests.support.stores import PIXEL, row, sqlite_store, store_rows


@given(st.floats(0, 1e9))
def test_gathering_is_bounded_and_holds_no_more_than_a_batch(rate: float) -> None:
    seconds = gathering(rate)
    assert SHORTEST_GATHERING <= seconds <= LONGEST_GATHERING
    assert seconds == SHORTEST_GATHERING or seconds * rate <= BATCH * 1.001


@given(st.floats(0, 600), st.floats(0, 600))
def test_the_more_come_the_longer_is_gathered(one: float, other: float) -> None:
    assert gathering(min(one, other)) <= gathering(max(one, other))


def test_a_lonely_event_goes_at_once() -> None:
    pace = Pace()
    assert gathering(pace.rate(1000.0)) == SHORTEST_GATHERING
    pace.add(1, 1000.0)
    assert gathering(pace.rate(1060.0)) == SHORTEST_GATHERING


@pytest.mark.parametrize("rate", [5, 50, 500])
def test_the_pace_finds_the_rate_of_a_steady_stream_and_forgets_it(rate: int) -> None:
    pace, now = Pace(), 0.0
    for _ in range(60):
        now += 1.0
        pace.add(rate, now)
    assert pace.rate(now) == pytest.approx(rate, rel=0.1)
    assert gathering(pace.rate(now)) == LONGEST_GATHERING
    assert gathering(pace.rate(now + 120)) == SHORTEST_GATHERING


@pytest.mark.parametrize(("rate", "most"), [(1, 40), (5, 45), (50, 45)])
def test_a_simulated_minute_takes_few_requests_and_no_event_waits_long(
    rate: int, most: int
) -> None:
    """Events at a steady rate on a clock of our own; a request takes 0.1 s."""
    pace, now, requests, oldest = Pace(), 0.0, 0, 0.0
    moments = [n / rate for n in range(rate * 60)]
    while moments:
        now = max(now, moments[0])
        now += gathering(pace.rate(now))
        batch = [moment for moment in moments if moment <= now]
        moments = moments[len(batch) :]
        oldest = max(oldest, now - batch[0])
        pace.add(len(batch), now)
        now += 0.1
        requests += 1
    assert requests < most
    assert oldest <= LONGEST_GATHERING + 0.1 + 1e-6


@given(st.floats(0, 1e9))
def test_page_views_wait_less_than_ten_seconds_and_a_lonely_one_not_at_all(rate: float) -> None:
    seconds = lingering(rate)
    assert 0 <= seconds <= min(rate * 2, 10 - 2 * LONGEST_GATHERING)
    assert seconds * rate <= BATCH * 1.001


class Simulated(Courier):
    """A courier on a clock of its own, on which `plan` says what happens when."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, PIXEL, Script)
        self.now = 1000.0
        self.plan: list[tuple[float, Callable[[], object]]] = []

    def _now(self) -> float:
        return self.now

    def _sleep(self, event: threading.Event, seconds: float) -> bool:
        end = self.now + seconds
        while not event.is_set() and self.plan and self.plan[0][0] <= end:
            self.now, happen = self.plan.pop(0)
            happen()
        if not event.is_set():
            self.now = end
        return event.is_set()

    def at(self, seconds: float, happen: Callable[[], object]) -> None:
        """Plan something, `seconds` from now."""
        self.plan.append((self.now + seconds, happen))
        self.plan.sort(key=lambda planned: planned[0])

    def gather(self) -> float:
        """How many seconds it waits after a page view of this process."""
        start = self.now
        self.wake({"PageView"})
        self._gather(woken=True)
        return self.now - start

    def _call(self) -> None:
        """No thread: the test does the work."""


@pytest.fixture
def courier(tmp_path: Path) -> Iterator[Simulated]:
    """One that delivered 99 events just now, on a file that another process may use too."""
    with closing(sqlite_store(tmp_path / "capi.db")) as store:
        courier = Simulated(store)
        store_rows(store, *(row(f"e{n}", event_name="PageView") for n in range(99)))
        courier._round()
        yield courier


@pytest.fixture
def elsewhere(tmp_path: Path, courier: Simulated) -> Iterator[Store]:
    """The same file, as another process has it."""
    with closing(sqlite_store(tmp_path / "capi.db")) as store:
        yield store


def test_page_views_of_a_busy_site_linger(courier: Simulated) -> None:
    rate = courier._rounds.pace.rate(courier.now)
    assert courier.gather() == pytest.approx(LONGEST_GATHERING + lingering(rate))


def test_a_conversion_of_this_process_takes_along_the_page_views_that_linger(
    courier: Simulated,
) -> None:
    courier.at(4, lambda: courier.wake({"Purchase"}))
    assert 4 <= courier.gather() <= 4 + LONGEST_GATHERING


def test_a_conversion_beside_a_page_view_does_not_linger(courier: Simulated) -> None:
    courier.at(0.1, lambda: courier.wake({"PageView", "Purchase"}))
    assert courier.gather() == LONGEST_GATHERING


@pytest.mark.parametrize("seconds", [0.1, 1.4, 1.6, 3.0, 3.6, 5.5, 7.0])
@pytest.mark.parametrize("own", [None, 1.9], ids=["alone", "and one of this process later"])
def test_a_conversion_of_another_process_never_waits_longer_than_between_two_looks(
    courier: Simulated, elsewhere: Store, seconds: float, own: float | None
) -> None:
    courier.at(seconds, lambda: store_rows(elsewhere, row("order", event_name="Purchase")))
    if own is not None:
        courier.at(seconds + own, lambda: courier.wake({"Purchase"}))
    assert courier.gather() <= seconds + POLL_SECONDS


def test_page_views_of_another_process_end_no_lingering(
    courier: Simulated, elsewhere: Store
) -> None:
    rate = courier._rounds.pace.rate(courier.now)
    courier.at(2, lambda: store_rows(elsewhere, row("view", event_name="PageView")))
    assert courier.gather() == pytest.approx(LONGEST_GATHERING + lingering(rate))


@pytest.mark.parametrize("seconds", [0.7, 5.0])
def test_a_flush_ends_gathering_and_lingering_at_once(courier: Simulated, seconds: float) -> None:
    courier.at(seconds, courier.hurry)
    assert courier.gather() == pytest.approx(seconds)


def test_a_store_that_fails_meanwhile_ends_the_wait_and_not_the_thread(
    courier: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(pixel_id: str) -> bool:
        raise StoreError("away")

    monkeypatch.setattr(courier._store, "conversion_waits", fail)
    assert courier.gather() == LONGEST_GATHERING


def test_a_backlog_goes_out_in_full_batches() -> None:
    store, client = MemoryStore(), Script()
    store_rows(store, *(row(f"e{n}") for n in range(3 * BATCH)))
    courier = Courier(store, PIXEL, lambda: client)
    courier.start()
    until("all of it", lambda: store.depth() == {"delivered": 3 * BATCH})
    courier.stop(5)
    assert [len(batch) for batch in client.sent] == [BATCH] * 3


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gathers does so for longer than any test waits."""
    monkeypatch.setattr("capi_middleware.delivery.courier.gathering", lambda rate: 600.0)
    monkeypatch.setattr("capi_middleware.delivery.courier.POLL_SECONDS", 600.0)


@pytest.mark.usefixtures("patient")
def test_a_flush_and_a_close_do_not_wait_for_company(fake_meta: FakeMeta) -> None:
    capi = CAPI(make_config(delivery=True, graph_url=fake_meta.url))
    for end in (lambda: capi.flush(30), lambda: capi.close(30)):
        capi.track("Lead", user_data=UserData(em="a@b.example"))
        assert end() is not False
    assert len(fake_meta.received.server) == 2


@pytest.mark.usefixtures("patient")
def test_a_courier_that_gathers_stops() -> None:
    store, client = MemoryStore(), Script()
    courier = Courier(store, PIXEL, lambda: client)
    store.on_commit = lambda waiting: courier.wake(waiting[PIXEL])
    store_rows(store, row())
    assert courier.stop(30)
    assert not courier.running
