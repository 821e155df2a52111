"""PostgresStore behind pgbouncer in transaction mode, where no session belongs to anybody."""

import threading
from collections.abc import Iterator

import pytest

from capi_middleware.store.records import Settlement
from capi_middleware.store.store import Store
from tests.support.pgbouncer import pooled
from tests.support.stores import PIXEL, postgres_store, row


@pytest.fixture
def pool_url(postgres_url: str) -> Iterator[str]:
    with pooled(postgres_url) as url:
        yield url


def test_stores_that_share_one_connection_lose_and_double_nothing(pool_url: str) -> None:
    stores = [postgres_store(pool_url) for _ in range(4)]
    claimed: list[str] = []

    def work(number: int, store: Store) -> None:
        for n in range(25):
            future = store.append([row(f"e{number}-{n}")], wait=True)
            assert future is not None
            future.result(30)
            lease = store.lease(PIXEL, limit=3, seconds=60)
            claimed.extend(event.event_id for event in lease.events)
            store.settle(lease.lease_id, [Settlement(one.key, "dead") for one in lease.events])

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    depth = stores[0].depth()
    for store in stores:
        store.close()
    assert sorted(claimed) == sorted(f"e{i}-{n}" for i in range(4) for n in range(25))
    assert depth == {"dead": 100}


def test_a_first_start_through_the_pool_makes_the_tables_once(pool_url: str) -> None:
    stores = [postgres_store(pool_url) for _ in range(8)]
    threads = [threading.Thread(target=store.depth) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [store.depth() for store in stores] == [{}] * 8
    for store in stores:
        store.close()
