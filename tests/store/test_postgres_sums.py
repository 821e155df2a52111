"""PostgresStore's sums: an older schema brought up to date, and many processes at once."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from capi_middleware.store import postgres, postgres_rollups
from capi_middleware.store.postgres import PostgresStore
from capi_middleware.store.postgres_link import SCHEMA_VERSION
from capi_middleware.store.records import Freshness, Slice, Tally
from tests.support import postgres as server
from tests.support.postgres import execute
from tests.support.stores import NOON, PIXEL, Clock, row, store_rows

#: What version 1 writes.
OLD_INSERT = (
    "INSERT INTO capi_events (event_id, event_name, pixel_id, event_time, created_at, payload, "
    "server, due_at, browser, match_keys, delivered_at) "
    "VALUES (%s, 'Purchase', %s, %s, 0, '{}', %s, 0, %s, 3, %s)"
)


@pytest.fixture
def open_store(postgres_url: str) -> Iterator[Callable[[], PostgresStore]]:
    opened: list[PostgresStore] = []

    def open_one() -> PostgresStore:
        opened.append(PostgresStore(postgres_url, clock=Clock()))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture(params=[1, 2])
def old_url(postgres_url: str, request: pytest.FixtureRequest) -> str:
    """A database of an older schema with some events."""
    script = (Path(__file__).parents[1] / "data" / f"postgres_{request.param}.sql").read_text()
    with psycopg.connect(postgres_url) as db:
        db.execute(script.encode())
        db.execute(b"CREATE TABLE capi_schema (version integer NOT NULL)")
        db.execute(b"INSERT INTO capi_schema VALUES (%s)", (request.param,))
        db.execute(OLD_INSERT.encode(), ("e1", PIXEL, NOON, "pending", "sent", None))
        for n in range(3):
            given = (f"d{n}", PIXEL, NOON, "delivered", "csp", NOON + 12.3)
            db.execute(OLD_INSERT.encode(), given)
    return postgres_url


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


def test_an_older_database_is_brought_up_to_date_with_its_rows(
    old_url: str, open_store: Callable[[], PostgresStore]
) -> None:
    store = open_store()
    tallies = store.tallies(NOON, NOON + 1)

    assert sorted(tallies.rows, key=repr) == [
        Tally(PIXEL, "Purchase", "delivered", "csp", 3, 3),
        Tally(PIXEL, "Purchase", "pending", "sent", 3, 1),
    ]
    assert tallies.freshness == [Freshness(PIXEL, "Purchase", 12.0, 3)]
    assert store.depth() == {"delivered": 3, "pending": 1}
    assert [one.event_id for one in store.lease(PIXEL, limit=9, seconds=9).events] == ["e1"]


SCHEMA = (
    "SELECT table_name, column_name, data_type, column_default FROM information_schema.columns "
    "WHERE table_name LIKE 'capi%' ORDER BY 1, 2",
    "SELECT indexdef FROM pg_indexes WHERE tablename LIKE 'capi%' ORDER BY 1",
    "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
    "SELECT proname, prosrc FROM pg_proc WHERE proname LIKE 'capi%' ORDER BY 1",
    "SELECT relname, reloptions FROM pg_class WHERE relname LIKE 'capi%' ORDER BY 1",
    "SELECT version FROM capi_schema",
)


def test_the_migrations_make_what_a_new_database_has(
    old_url: str, postgres_server: str, open_store: Callable[[], PostgresStore]
) -> None:
    open_store().depth()
    with server.database(postgres_server) as fresh_url:
        fresh = PostgresStore(fresh_url)
        fresh.depth()
        fresh.close()
        for statement in SCHEMA:
            assert execute(old_url, statement) == execute(fresh_url, statement)


def test_many_processes_migrate_at_once_while_an_older_one_writes(
    old_url: str, open_store: Callable[[], PostgresStore]
) -> None:
    writing, ended = threading.Event(), threading.Event()

    def older() -> None:
        with psycopg.connect(old_url, autocommit=True) as db:
            for n in range(2000):
                given = (f"old{n}", PIXEL, NOON, "pending", "csp", None)
                db.execute(OLD_INSERT.encode(), given)
                writing.set()
                if ended.is_set() and n > 100:
                    break
            written.append(n + 1)

    def newer(n: int) -> Callable[[], None]:
        def use() -> None:
            writing.wait(30)
            store_rows(open_store(), row(f"new{n}", match_keys=3, browser="csp"))

        return use

    written: list[int] = []
    old = threading.Thread(target=older)
    old.start()
    errors = run_all([newer(n) for n in range(6)])
    ended.set()
    old.join(60)

    assert errors == []
    assert execute(old_url, "SELECT version FROM capi_schema") == [(SCHEMA_VERSION,)]
    tallies = open_store().tallies(NOON, NOON + 1)
    found = {(one.server, one.browser): one.n for one in tallies.rows}
    assert found["pending", "csp"] == written[0] + 6


def test_the_keys_of_sums_that_are_over_are_pruned_with_them(postgres_url: str) -> None:
    clock = Clock()
    store = PostgresStore(postgres_url, clock=clock)
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
    postgres_url: str, open_store: Callable[[], PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "FOLD_EVERY", 1)
    store = open_store()
    store.depth()
    with psycopg.connect(postgres_url) as other:
        assert other.execute(postgres_rollups.TRY_LOCK.encode()).fetchone() == (True,)
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
    open_store: Callable[[], PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "FOLD_EVERY", 1)
    monkeypatch.setattr(postgres_rollups, "FOLD_ROWS", 3)
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
