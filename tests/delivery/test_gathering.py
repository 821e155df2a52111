"""Gathering: a lonely event goes at once; the more came lately, the longer the next one waits."""

import threading
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware import CAPI, UserData
from capi_middleware.delivery.courier import Courier
from capi_middleware.delivery.retry import (
    BATCH,
    LONGEST_GATHERING,
    SHORTEST_GATHERING,
    Pace,
    gathering,
    lingering,
)
from capi_middleware.meta.codes import Outcome
from capi_middleware.testing import FakeMeta, MemoryStore
from tests.delivery.test_delivery import Script
from tests.support.configs import make_config
from tests.support.processes import until
from tests.support.stores import PIXEL, row, store_rows


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


class Watch(Script):
    """A client that notes when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[float] = []

    def send(self, payloads: Sequence[bytes]) -> Outcome:
        self.moments.append(time.monotonic())
        return super().send(payloads)


def test_events_that_come_after_many_others_share_a_request() -> None:
    store, client = MemoryStore(), Watch()
    courier = Courier(store, PIXEL, lambda: client)
    store.on_commit = courier.wake
    store_rows(store, *(row(f"first{n}") for n in range(50)))
    until("the first ones", lambda: store.depth() == {"delivered": 50})
    start = time.monotonic()
    for n in range(20):
        store_rows(store, row(f"next{n}"))
        time.sleep(0.02)
    until("the next ones", lambda: store.depth() == {"delivered": 70})
    courier.stop(5)
    assert len(client.sent) == 2
    assert client.moments[-1] - start <= 2


def test_a_backlog_goes_out_in_full_batches_without_a_pause() -> None:
    store, client = MemoryStore(), Watch()
    store_rows(store, *(row(f"e{n}") for n in range(3 * BATCH)))
    courier = Courier(store, PIXEL, lambda: client)
    courier.start()
    until("all of it", lambda: store.depth() == {"delivered": 3 * BATCH})
    courier.stop(5)
    assert [len(batch) for batch in client.sent] == [BATCH] * 3


def test_a_flush_and_a_close_do_not_wait_for_company(fake_meta: FakeMeta) -> None:
    capi = CAPI(make_config(delivery=True, graph_url=fake_meta.url))
    for _ in range(40):
        capi.track("Lead", user_data=UserData(em="a@b.example"))
    assert capi.flush(10)
    for end in (lambda: capi.flush(10), capi.close):
        capi.track("Lead", user_data=UserData(em="a@b.example"))
        time.sleep(0.1)  # it gathers by now
        start = time.monotonic()
        end()
        assert time.monotonic() - start < 1
    assert len(fake_meta.received.server) == 42


def test_stopping_a_courier_that_gathers_takes_no_time() -> None:
    store, client = MemoryStore(), Script()
    courier = Courier(store, PIXEL, lambda: client)
    store.on_commit = courier.wake
    store_rows(store, *(row(f"e{n}") for n in range(99)))
    until("they are delivered", lambda: store.depth() == {"delivered": 99})
    store_rows(store, row("last"))
    time.sleep(0.1)
    start = time.monotonic()
    assert courier.stop(5)
    assert time.monotonic() - start < 1
    assert "capi-courier" not in " ".join(one.name for one in threading.enumerate())


def test_page_views_linger_until_a_conversion_takes_them_along() -> None:
    store, client = MemoryStore(), Watch()
    courier = Courier(store, PIXEL, lambda: client)
    store.on_commit = courier.wake
    store_rows(store, *(row(f"first{n}", event_name="PageView") for n in range(99)))
    until("the first ones", lambda: store.depth() == {"delivered": 99})
    store_rows(store, row("view", event_name="PageView"))
    time.sleep(LONGEST_GATHERING + 0.5)
    assert len(client.sent) == 1
    start = time.monotonic()
    store_rows(store, row("order", event_name="Purchase"))
    until("both", lambda: store.depth() == {"delivered": 101})
    assert time.monotonic() - start < LONGEST_GATHERING + 0.5
    courier.stop(5)
    assert [len(batch) for batch in client.sent] == [99, 2]


def test_a_conversion_beside_page_views_does_not_linger() -> None:
    store, client = MemoryStore(), Watch()
    courier = Courier(store, PIXEL, lambda: client)
    store.on_commit = courier.wake
    store_rows(store, *(row(f"first{n}", event_name="PageView") for n in range(99)))
    until("the first ones", lambda: store.depth() == {"delivered": 99})
    start = time.monotonic()
    store_rows(store, row("view", event_name="PageView"))
    store_rows(store, row("order", event_name="Purchase"))
    until("both", lambda: store.depth() == {"delivered": 101})
    assert time.monotonic() - start < LONGEST_GATHERING + 0.5
    courier.stop(5)


def test_a_flush_does_not_wait_for_page_views_that_linger() -> None:
    store, client = MemoryStore(), Watch()
    courier = Courier(store, PIXEL, lambda: client)
    store.on_commit = courier.wake
    store_rows(store, *(row(f"first{n}", event_name="PageView") for n in range(99)))
    until("the first ones", lambda: store.depth() == {"delivered": 99})
    store_rows(store, row("view", event_name="PageView"))
    time.sleep(LONGEST_GATHERING + 0.5)
    start = time.monotonic()
    courier.hurry()
    until("it", lambda: store.depth() == {"delivered": 100})
    assert time.monotonic() - start < 1
    courier.stop(5)
