"""Many pixels, many processes: who looks for work, and how many threads do it."""

import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from capi_middleware.delivery import deliverer
from capi_middleware.delivery.courier import Courier
from capi_middleware.delivery.daemon import Housekeeping, Job
from capi_middleware.delivery.deliverer import MOST_THREADS, Deliverer
from capi_middleware.meta.codes import Outcome
from capi_middleware.store.store import Store
from capi_middleware.testing import MemoryStore
from tests.support.processes import until
from tests.support.stores import row, sqlite_store, store_rows

PIXELS = [str(number) for number in range(200)]


class Meta:
    """Takes what it is sent when `answers` is set, and knows who waits at once."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.answers.set()
        self.waiting: set[int] = set()
        self.most = 0
        self.requests = 0

    def send(self, payloads: Sequence[bytes]) -> Outcome:
        self.waiting.add(threading.get_ident())
        self.most = max(self.most, len(self.waiting))
        self.requests += 1
        self.answers.wait(60)
        self.waiting.discard(threading.get_ident())
        return Outcome("delivered")

    def hear(self) -> None:
        """Nothing is wrong."""

    def close(self) -> None:
        """Nothing."""


@pytest.fixture
def meta() -> Meta:
    return Meta()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def delivering(store: Store, meta: Meta, pixels: Sequence[str] = PIXELS) -> Deliverer:
    made = Deliverer(store, [Courier(store, one, lambda: meta) for one in pixels])
    store.on_commit = made.wake
    made.start()
    return made


def couriers() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("capi-courier")]


def delivered(store: Store, n: int) -> bool:
    return store.depth() == {"delivered": n}


@pytest.fixture
def running(store: MemoryStore, meta: Meta) -> Iterator[Deliverer]:
    made = delivering(store, meta)
    yield made
    meta.answers.set()
    assert made.stop(30)
    assert not couriers()


@pytest.mark.usefixtures("running")
def test_idle_pixels_have_no_threads(store: MemoryStore) -> None:
    until("the first look", lambda: not store.look(PIXELS, every=2.0).on_duty)
    assert couriers() == []


def test_events_for_200_pixels_take_few_threads_and_all_arrive(
    store: MemoryStore, meta: Meta, running: Deliverer
) -> None:
    meta.answers.clear()
    store_rows(store, *(row(f"e{one}", pixel_id=one) for one in PIXELS))
    until("as many as there may be", lambda: len(meta.waiting) == MOST_THREADS)
    assert len(couriers()) == MOST_THREADS
    meta.answers.set()
    until("all of them", lambda: store.depth() == {"delivered": 200})
    assert meta.most == MOST_THREADS
    assert running.alive


@pytest.mark.usefixtures("running")
def test_a_commit_wakes_the_pixel_that_it_is_for_and_no_other(
    store: MemoryStore, meta: Meta
) -> None:
    meta.answers.clear()
    store_rows(store, row("e1", pixel_id="7"), row("e2", pixel_id="9"))
    until("both", lambda: len(meta.waiting) == 2)
    assert sorted(couriers()) == ["capi-courier-7", "capi-courier-9"]


@pytest.mark.usefixtures("running")
def test_a_thread_ends_when_nothing_comes_and_another_begins_with_the_next_event(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capi_middleware.delivery.courier.POLL_SECONDS", 0.05)
    for n in range(3):
        store_rows(store, row(f"e{n}", pixel_id="7"))
        until("its delivery", partial(delivered, store, n + 1))
        until("its end", lambda: not couriers())


def test_a_pixel_whose_meta_hangs_holds_up_no_other(store: MemoryStore, meta: Meta) -> None:
    hanging = Meta()
    hanging.answers.clear()
    found = [Courier(store, "bad", lambda: hanging), Courier(store, "good", lambda: meta)]
    made = Deliverer(store, found)
    store.on_commit = made.wake
    made.start()
    store_rows(store, row("e1", pixel_id="bad"), row("e2", pixel_id="good"))
    until("the good one", lambda: meta.requests == 1)
    hanging.answers.set()
    assert made.stop(30)


@pytest.mark.usefixtures("meta")
def test_pixels_that_have_much_share_few_threads_in_turn(
    store: MemoryStore, meta: Meta, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliverer, "MOST_THREADS", 1)
    monkeypatch.setattr("capi_middleware.delivery.courier.POLL_SECONDS", 600.0)
    made = delivering(store, meta, ["1", "2", "3"])
    for n in range(2):
        store_rows(store, *(row(f"e{n}", pixel_id=one) for one in ("1", "2", "3")))
    until("all of them", lambda: store.depth() == {"delivered": 6})
    assert meta.most == 1
    assert made.stop(30)


def test_what_another_process_commits_is_found_by_the_look(
    tmp_path: Path, meta: Meta, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capi_middleware.delivery.courier.POLL_SECONDS", 0.05)
    here, there = (sqlite_store(tmp_path / "capi.db") for _ in range(2))
    made = delivering(here, meta, ["7"])
    store_rows(there, row("e1", pixel_id="7"))
    until("its delivery", lambda: here.depth() == {"delivered": 1})
    assert made.stop(30)
    here.close()
    there.close()


def test_what_processes_share_is_done_by_the_one_on_duty() -> None:
    own, shared = threading.Semaphore(0), threading.Semaphore(0)
    house = Housekeeping(
        [Job("own", 0.01, own.release), Job("shared", 0, shared.release, shared=True)],
        lambda error, where: None,
    )
    house.start()
    for _ in range(3):
        assert own.acquire(timeout=10)
    assert not shared.acquire(blocking=False)
    for _ in range(2):
        house.on_duty()
        assert shared.acquire(timeout=10)
    house.stop(10)
    assert not shared.acquire(blocking=False)


def test_a_look_that_fails_is_tried_again(
    store: MemoryStore,
    meta: Meta,
    swallowed: list[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("capi_middleware.delivery.courier.POLL_SECONDS", 0.05)
    honest, fails = MemoryStore.look, [True, True]

    def look(self: MemoryStore, pixel_ids: Sequence[str], *, every: float) -> object:
        if fails and fails.pop():
            raise OSError("away")
        return honest(self, pixel_ids, every=every)

    monkeypatch.setattr(MemoryStore, "look", look)
    store_rows(store, row("e1", pixel_id="7"))
    made = delivering(store, meta, ["7"])
    until("its delivery", lambda: store.depth() == {"delivered": 1})
    assert made.stop(30)
    assert {type(one) for one in swallowed} == {OSError}
    swallowed.clear()
