"""PostgresStore's sums: what is pruned with them, and many processes at once."""

import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest

from capi_middleware.store import postgres
from capi_middleware.store import store as stores
from capi_middleware.store.records import Slice
from capi_middleware.store.store import Store
from tests.support.postgres import execute
from tests.support.stores import NOON, PIXEL, Clock, postgres_store, row, store_rows


@pytest.fixture
def open_store(postgres_url: str) -> Iterator[Callable[[], Store]]:
    opened: list[Store] = []

    def open_one() -> Store:
        opened.append(postgres_store(postgres_url, clock=Clock()))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


def run_all(works: list[Callable[[], None]]) -> list[BaseException]:
    """What failed when all ran at once."""
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return errors


def test_the_keys_of_sums_that_are_over_are_pruned_with_them(postgres_url: str) -> None:
    clock = Clock()
    store = postgres_store(postgres_url, clock=clock)
    store_rows(store, row("e1", server="unmapped", page="/old", route="GET /both"))
    store.prune(NOON + 1)
    clock.now += 401 * 86_400
    store_rows(store, row("e2", event_time=clock(), page="/new", route="GET /both"))
    store.prune(NOON + 1)
    keys = execute(postgres_url, "SELECT DISTINCT value FROM capi_rollup_keys")

    assert {value for (value,) in keys if "/" in value} == {"/new", "GET /both"}
    after = store.tallies(clock() - 1, clock() + 1)
    assert [(one.server, one.n) for one in after.rows] == [("pending", 1)]
    assert [one.n for one in store.slices("route", clock(), clock() + 1)] == [1]
    assert store.depth() == {"pending": 1}
    store.close()


def test_nobody_waits_for_who_folds(
    postgres_url: str, open_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "FOLD_EVERY", 1)
    store = open_store()
    store.depth()
    with psycopg.connect(postgres_url) as other:
        assert other.execute(
            postgres.QUERIES["try_lock"], {"number": postgres._FOLD_LOCK}
        ).fetchone() == (True,)
        for event_id in ("e1", "e2"):
            store_rows(store, row(event_id, route="GET /a"))
        store.close()
        assert execute(postgres_url, "SELECT COUNT(*) FROM capi_rollups") == [(0,)]
        found = list(store.slices("route", NOON, NOON + 1))
    assert found == [Slice("GET /a", PIXEL, "Purchase", "pending", "not_rendered", 2)]

    store_rows(store, row("e3", route="GET /a"))
    assert store.prune(0) == 0
    assert execute(postgres_url, "SELECT COUNT(*) FROM capi_changes") == [(0,)]
    assert [one.n for one in store.slices("route", NOON, NOON + 1)] == [3]


def test_a_report_is_of_one_moment_while_others_write_and_fold(
    open_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "FOLD_EVERY", 1)
    monkeypatch.setattr(postgres, "FOLD_ROWS", 3)
    reader, ended = open_store(), threading.Event()
    reader.depth()

    def write(part: int) -> Callable[[], None]:
        def work() -> None:
            store = open_store()
            for n in range(60):
                # Two rows in one transaction: a report has both or none.
                rows = [row(f"{part}-{n}-{half}", browser=half) for half in ("csp", "bot")]
                store_rows(store, *rows)

        return work

    def read() -> None:
        while not ended.is_set():
            halves = {one.browser: one.n for one in reader.tallies(NOON, NOON + 1).rows}
            assert halves.get("csp", 0) == halves.get("bot", 0)
            assert sum(reader.depth().values()) % 2 == 0

    def write_all() -> None:
        try:
            assert run_all([write(part) for part in range(3)]) == []
        finally:
            ended.set()

    assert run_all([write_all, read]) == []
    assert reader.depth() == {"pending": 360}
