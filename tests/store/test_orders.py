"""The memory of orders: small, the same in every database, and older than the rows."""

import time
from pathlib import Path

import pytest

from capi_middleware.signing import Minter, order_of
from capi_middleware.store.orders import orders_in
from capi_middleware.store.records import DEDUPE_WINDOW, Remembered
from capi_middleware.store.store import Store
from tests.support.configs import SECRET
from tests.support.stores import NOON, Clock, row, sqlite_store, store_rows

MINTER = Minter([SECRET])
OTHER = Minter(["another-secret-for-tests-of-more-than-32-characters"])


def order(key: object, name: str = "Purchase", minter: Minter = MINTER) -> str:
    return minter.mint(name, NOON, key)


def recalled(store: Store, event_id: str) -> Remembered | None:
    return store.recall(event_id).result(30)


def test_an_order_is_remembered_from_its_first_copy_on(store: Store) -> None:
    assert recalled(store, order(7)) is None
    store_rows(store, row(order(7)))
    store_rows(store, row(order(7), event_time=NOON + 60), row(order(7), pixel_id="2"))
    assert recalled(store, order(7)) == Remembered(NOON, same_id=True)
    assert recalled(store, order(8)) is None
    assert recalled(store, order(7, "Lead")) is None


def test_the_same_order_under_another_key_is_known_for_it(store: Store) -> None:
    store_rows(store, row(order(7)))
    assert recalled(store, order(7, minter=OTHER)) == Remembered(NOON, same_id=False)


def test_many_orders_are_remembered_at_once_and_asked_for_at_once(store: Store) -> None:
    ids = [order(n) for n in range(600)]
    for some in (ids[:300], ids):
        store_rows(store, *[row(one) for one in some])
    assert store.remembered([*ids, order("x"), "e1"]) == dict.fromkeys(
        ids, Remembered(NOON, same_id=True)
    )


def test_an_order_outlives_its_row_until_its_own_time_is_over(store: Store) -> None:
    store_rows(store, row(order(7), server="delivered"), row(order(8), event_time=NOON + 100))
    store.prune(NOON + 50)
    assert not store.find([order(7)])
    store.forget_orders(NOON)
    assert recalled(store, order(7)) is not None
    store.forget_orders(NOON + 50)
    assert recalled(store, order(7)) is None
    assert recalled(store, order(8)) is not None
    store_rows(store, row(order(7), event_time=NOON + 200))
    assert recalled(store, order(7)) == Remembered(NOON + 200, same_id=True)


def test_only_ids_of_a_dedupe_key_are_remembered() -> None:
    ids = [MINTER.mint("Lead", NOON), "kaboom", "m1", "", order(7)[:-1]]
    assert [order_of(one) for one in ids] == [None] * 5
    assert orders_in([row(one) for one in ids]) == []


def test_times_that_nobody_has_are_remembered_as_far_as_they_go() -> None:
    assert [at for _, at in orders_in([row(order(1), event_time=1e18)])] == [2**31 - 1]


@pytest.mark.parametrize(
    ("known", "over"),
    [
        (Remembered(NOON - DEDUPE_WINDOW, same_id=True), False),
        (Remembered(NOON - DEDUPE_WINDOW - 1, same_id=True), True),
        (Remembered(NOON + 60, same_id=True), False),
        (Remembered(NOON, same_id=False), True),
    ],
)
def test_an_order_is_over_when_meta_forgets_it(known: Remembered, over: bool) -> None:
    assert known.is_over(NOON) is over


def test_another_process_and_a_thread_that_starts_again_know_it(tmp_path: Path) -> None:
    one, other = (sqlite_store(tmp_path / "capi.db", clock=Clock()) for _ in range(2))
    store_rows(one, row(order(7)))
    for _ in range(2):
        assert recalled(other, order(7)) is not None
        other.close()
    one.close()


def test_who_asks_while_a_read_hangs_is_told_at_once(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path / "capi.db", clock=Clock())
    store._recalling._reading = time.monotonic() - 1.0
    assert isinstance(store.recall(order(7)).exception(0), TimeoutError)
