"""What events take of the disk, and that it comes back."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from capi_middleware.events import Row
from capi_middleware.store.records import OLDEST_EVENT, Settlement
from capi_middleware.store.sqlite import _Transaction
from capi_middleware.store.store import Store, Transaction
from tests.support.stores import NOON, PIXEL, Clock, row, sqlite_store, store_rows

#: What demo/README.md says that an event takes after its delivery, beside the sums.
BYTES_AN_EVENT = 500


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "capi.db"


@pytest.fixture
def sqlite(path: Path) -> Iterator[Store]:
    store = sqlite_store(path, clock=Clock())
    yield store
    store.close()


def purchase(number: int) -> Row:
    """A Purchase as large as one with all match keys."""
    event_id = f"{number:08d}-0123456789abcdef0123"
    return row(event_id, payload=b"x" * 1500, route="GET /orders/{id}/thanks", page="/thanks")


def deliver(store: Store) -> None:
    """What is due."""
    while True:
        lease = store.lease(PIXEL, limit=1000, seconds=60)
        if not lease.events:
            return
        store.settle(lease.lease_id, [Settlement(one.key, "delivered") for one in lease.events])


def payloads(store: Store) -> list[bytes]:
    """All that are stored."""
    with store._engine.transaction("read") as db:
        ours, name = getattr(db, "db", None), "payloads"
        if ours is None:
            ours, name = db._db, "capi_payloads"  # type: ignore[attr-defined]
        return [one for (one,) in ours.execute(f"SELECT payload FROM {name} ORDER BY key")]


def test_a_delivered_event_takes_a_third_of_what_it_took_while_it_waited(
    sqlite: Store, path: Path
) -> None:
    for start in range(0, 3000, 50):
        store_rows(sqlite, *[purchase(start + n) for n in range(50)])
        deliver(sqlite)
    sqlite.close()

    assert path.stat().st_size / 3000 < BYTES_AN_EVENT


@pytest.mark.one_database
@pytest.mark.parametrize("outcome", ["delivered", "stopped", "expired", "dropped", "pruned"])
def test_only_what_may_go_out_again_has_a_payload(store: Store, clock: Clock, outcome: str) -> None:
    store_rows(store, row("e1", payload=b"gone"))
    if outcome == "expired":
        clock.now += OLDEST_EVENT + 1
    lease = store.lease(PIXEL, limit=10, seconds=60)
    if outcome in ("delivered", "stopped"):
        store.settle(lease.lease_id, [Settlement(lease.events[0].key, outcome)])  # type: ignore[arg-type]
    elif outcome != "expired":
        store.settle(lease.lease_id, [Settlement(lease.events[0].key, "dead")])
        store.drop() if outcome == "dropped" else store.prune(NOON + 1)
    store_rows(
        store, row("e1", payload=b"again"), row("e2", payload=b"waits", event_time=clock.now)
    )

    known = [b"again"] if outcome == "pruned" else []
    assert payloads(store) == [*known, b"waits"]


@pytest.mark.one_database
def test_an_event_that_waits_keeps_its_first_payload(store: Store) -> None:
    store_rows(store, row("e1", payload=b"first"), row("e1", payload=b"second"))
    store_rows(store, row("e1", payload=b"third"))

    assert payloads(store) == [b"first"]


def test_a_file_shrinks_when_its_events_are_delivered_and_pruned(sqlite: Store, path: Path) -> None:
    for start in range(0, 5000, 500):
        store_rows(sqlite, *[purchase(start + n) for n in range(500)])
    sqlite.close()
    waiting = path.stat().st_size
    deliver(sqlite)
    sqlite.prune(NOON - 1)  # the events stay, their payloads went
    sqlite.close()
    delivered = path.stat().st_size
    sqlite.prune(NOON + 1)
    sqlite.close()

    assert delivered < waiting / 3
    assert path.stat().st_size < delivered / 3


def test_pruning_holds_the_lock_for_few_rows_and_few_pages_at_a_time(
    sqlite: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_rows(sqlite, *[purchase(n) for n in range(1000)])
    deliver(sqlite)
    steps: dict[str, list[int]] = {"prune": [], "shrink": []}
    run, pragma = Transaction.run, _Transaction.pragma

    def counted(self: Transaction, query: str, **given: object) -> int:
        changed = run(self, query, **given)
        steps.get(query, []).append(changed)
        return changed

    def looked(self: _Transaction, text: str) -> int:
        if text.startswith("incremental_vacuum"):
            steps["shrink"].append(int(text[:-1].partition("(")[2]))
        return pragma(self, text)

    monkeypatch.setattr(Transaction, "run", counted)
    monkeypatch.setattr(_Transaction, "pragma", looked)
    assert sqlite.prune(NOON + 1) == 1000

    assert sum(steps["prune"]) == 1000
    assert max(steps["prune"]) <= 250
    assert len(steps["shrink"]) > 1
    assert max(steps["shrink"]) <= 100


@pytest.mark.parametrize("rows", [0, 20_000])
def test_opening_does_not_depend_on_how_much_is_stored(
    sqlite: Store, path: Path, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_rows(sqlite, row("first"))
    for start in range(0, rows, 1000):
        store_rows(sqlite, *[row(f"e{start + n}") for n in range(1000)])
    sqlite.close()
    steps: list[int] = []
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def counted(*given: object, **options: object) -> sqlite3.Connection:
        db = connect(*given, **options)
        db.set_progress_handler(lambda: steps.append(1), 1)
        return db

    monkeypatch.setattr(sqlite3, "connect", counted)
    assert sqlite.kept("nothing") is None

    assert 0 < len(steps) < 500
