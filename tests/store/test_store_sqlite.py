"""SqliteStore as a citizen of its machine: the file, its locks, other processes, their ends."""

import gc
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from capi_middleware.errors import StoreError
from capi_middleware.events import Sighting
from capi_middleware.store import sqlite
from capi_middleware.store.records import Settlement
from capi_middleware.store.rollups import Window
from capi_middleware.store.sqlite import QUERIES, STRANGER_SECONDS, File, Memory, quarantine
from capi_middleware.store.store import Store
from tests.support.stores import NOON, PIXEL, Clock, row, sqlite_store, store_rows

PRELUDE = """
import os, signal, sys
from capi_middleware.events import Row
from tests.support.stores import sqlite_store

def row(event_id):
    return Row(
        event_id=event_id, event_name="Purchase", pixel_id="1", event_time=0.0, payload=b"{}"
    )

store = sqlite_store(sys.argv[1])
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "capi.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = sqlite_store(path, clock=Clock())
    yield store
    store.close()


def start(path: Path, script: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, str(path), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(path: Path, script: str, *arguments: str) -> str:
    """Run `script` with a `store` and `row`; what it printed."""
    process = start(path, script, *arguments)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


def database(store: Store) -> File:
    """The connections of a store."""
    assert isinstance(store._engine, File)
    return store._engine


def failure_of(store: Store) -> str:
    future = store.append([row()], wait=True)
    assert future is not None
    error = future.exception(30)
    assert isinstance(error, StoreError)
    return str(error)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# the file


def test_nothing_is_opened_before_the_first_use(store: Store, path: Path) -> None:
    assert not path.exists()


def test_flush_and_close_without_use_leave_no_file(store: Store, path: Path) -> None:
    store.flush(1)
    store.close()

    assert not path.exists()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_the_files_belong_to_their_owner_alone(store: Store, path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store_rows(store, row())
    finally:
        os.umask(before)

    files = [path, path.with_name("capi.db-wal"), path.with_name("capi.db-shm")]
    assert [mode_of(file) for file in files] == [0o600] * 3


def test_files_of_an_older_run_are_narrowed_to_their_owner(store: Store, path: Path) -> None:
    store_rows(store, row())
    queue, moved = path.with_name("capi.db-queue"), path.with_name("capi.db.corrupt-1-wal")
    queue.touch()
    moved.touch()
    files = [path, path.with_name("capi.db-wal"), path.with_name("capi.db-shm"), queue, moved]
    for file in files:
        file.chmod(0o664)
    later = sqlite_store(path)
    assert later.depth() == {"pending": 1}

    assert [mode_of(file) for file in files] == [0o600] * 5


def test_the_database_that_a_link_names_is_narrowed(tmp_path: Path) -> None:
    shared, link = tmp_path / "shared.db", tmp_path / "capi.db"
    shared.touch()
    shared.chmod(0o666)
    link.symlink_to(shared)
    store_rows(sqlite_store(link), row())

    assert mode_of(shared) == 0o600


@pytest.mark.parametrize("ending", ["", "-wal", "-shm", "-journal", "-queue"])
def test_no_link_that_leads_nowhere_is_followed(tmp_path: Path, ending: str) -> None:
    path, planted = tmp_path / "capi.db", tmp_path / "planted"
    path.with_name(f"capi.db{ending}").symlink_to(planted)
    store = sqlite_store(path)
    with suppress(StoreError):
        store_rows(store, row())
    store.close()

    assert not planted.exists()


def test_a_queue_that_is_a_link_changes_nothing_that_it_names(path: Path) -> None:
    theirs = path.with_name("settings.py")
    theirs.touch(mode=0o644)
    path.with_name("capi.db-queue").symlink_to(theirs)
    store_rows(sqlite_store(path), row())

    assert mode_of(theirs) == 0o644


def test_a_link_that_leads_nowhere_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "capi.db"
    path.symlink_to(tmp_path / "missing")
    with pytest.raises(StoreError, match="found a link to a file that is not there"):
        sqlite_store(path).depth()


def test_close_leaves_one_file_with_everything(store: Store, path: Path) -> None:
    store_rows(store, row())
    store.close()

    assert [file.name for file in path.parent.iterdir()] == ["capi.db"]


def test_a_relative_path_is_relative_to_where_the_store_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    store = sqlite_store("capi.db")
    monkeypatch.chdir(tmp_path / "elsewhere")
    store_rows(store, row())
    store.close()

    assert (tmp_path / "capi.db").exists()


def test_a_file_that_was_deleted_is_made_anew(store: Store, path: Path) -> None:
    store_rows(store, row("e1"))
    for file in path.parent.iterdir():
        file.unlink()
    store_rows(store, row("e2"))

    assert store.depth() == {"pending": 1}
    assert path.exists()


def test_only_sqlite_opens_the_files(path: Path) -> None:
    # An audit hook sees every open() of Python and cannot be removed: hence another process.
    # O_EXCL on a file that exists opens nothing, so only the creation may succeed.
    script = """
attempts = []
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith(("capi.db", "-wal", "-shm")):
        attempts.append(bool(arguments[2] & os.O_EXCL))
sys.addaudithook(hook)
for number in range(3):
    store.append([row(str(number))], wait=True).result(30)
    lease = store.lease("1", limit=1, seconds=60)
    store.settle(lease.lease_id, [])
    store.tallies(0, 1), store.depth(), store.next_due("1"), store.prune(1), store.flush(1)
    store.close()
print(set(attempts))
"""
    assert run(path, script) == "{True}\n"


# connections


def test_wal_and_full_synchronous_are_in_force(path: Path) -> None:
    connections = File(path)
    with connections.transaction("write") as writing:
        pragmas = {
            name: writing.db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "busy_timeout", "query_only")
        }
    connections.close()

    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "busy_timeout": 25,
        "query_only": 0,
    }


def test_reading_connections_cannot_write(path: Path) -> None:
    connections = File(path)
    with pytest.raises(StoreError), connections.transaction("read") as reading:
        reading.db.execute("DELETE FROM events")
    connections.close()


def test_a_transaction_that_fails_writes_nothing(path: Path) -> None:
    connections = File(path)
    count = "INSERT INTO counts VALUES (?, 'skipped', '', '', '', 1)"
    with pytest.raises(sqlite3.IntegrityError), connections.transaction("write") as writing:
        writing.db.executemany(count, [(1,), (2,), (None,)])
    with connections.transaction("read") as reading:
        assert reading.db.execute("SELECT COUNT(*) FROM counts").fetchone() == (0,)
    connections.close()


def test_a_writing_transaction_has_the_lock_from_its_start(path: Path) -> None:
    connections = File(path)
    with connections.transaction("write"):
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()
    connections.close()


def test_opening_waits_while_another_process_makes_the_same_file(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capi_middleware.store.sqlite.BUSY_SECONDS", 0.0)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.1, other.rollback)
    release.start()

    assert store.depth() == {}
    release.join()
    other.close()


def test_one_thread_after_another_uses_the_same_connection(path: Path) -> None:
    connections = File(path)
    seen = []

    def use() -> None:
        with connections.transaction("write") as writing:
            seen.append(writing.db)

    for _ in range(2):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    connections.close()

    assert seen[0] is seen[1]


OF_PIXEL = {"pixel_ids": f'["{PIXEL}"]', "pixel_id": PIXEL, "now": NOON, "limit": 10, "wait": 600.0,
            "surely": NOON}  # fmt: skip


def plan(path: Path, query: str, given: Any = OF_PIXEL) -> str:
    db = sqlite3.connect(path)
    steps = db.execute(f"EXPLAIN QUERY PLAN {QUERIES[query].texts[0]}", given).fetchall()
    db.close()
    return "\n".join(step[3] for step in steps)


def test_the_newest_of_a_name_are_looked_for_among_so_many_of_the_last_keys(
    store: Store, path: Path
) -> None:
    store_rows(store, row())

    steps = plan(path, "newest_of", {"name": "Lead", "owner": "", "limit": 50})
    assert "SEARCH events USING INTEGER PRIMARY KEY (rowid>?)" in steps
    assert "SCAN events" not in steps


def test_the_claim_reads_the_index_in_order(store: Store, path: Path) -> None:
    store_rows(store, row())

    steps = plan(path, "due")
    by_rank = "SEARCH events USING INDEX events_waiting (pixel_id=? AND rank=? AND due_at"
    assert steps.count("SEARCH events") == steps.count(by_rank)
    assert "SCAN events" not in steps


@pytest.mark.parametrize(
    "query",
    ["lease", "expire", "leased", "note", "settle_delivered", "settle_dead", "settle_pending"],
)
def test_keys_are_looked_up_and_never_scanned(store: Store, path: Path, query: str) -> None:
    store_rows(store, row())

    given = {"due": "[1]", "keys": "[1]", "lease_id": "x", "reason": "", "delay": 0, "until": 0,
             "attempted": 1, "uncertain": 0, "n": 1, "trace": "", **OF_PIXEL}  # fmt: skip
    steps = plan(path, query, given)
    assert "SEARCH events USING INTEGER PRIMARY KEY (rowid=?)" in steps
    assert "SCAN events" not in steps


@pytest.mark.parametrize("n", [1, 7, 8, 63, 64, 65, 200])
def test_a_group_of_any_size_is_stored_whole_and_in_order(store: Store, n: int) -> None:
    store_rows(store, *(row(f"e{number}") for number in range(n)))
    lease = store.lease(PIXEL, limit=1000, seconds=60)
    assert [event.event_id for event in lease.events] == [f"e{number}" for number in range(n)]
    sent = [Sighting(f"e{number}", "Purchase", PIXEL, "sent") for number in range(n)]
    store.sight(sent).result(9)
    store.sight(sent[:1] * 3).result(9)
    (replayed,) = [one for one in store.tallies(0, 1e12).counts if one.kind == "beacon"]
    assert replayed.n == 3


@pytest.mark.parametrize("query", ["hurry", "next_due", "look"])
def test_what_waits_is_found_by_the_index(store: Store, path: Path, query: str) -> None:
    store_rows(store, row())

    steps = plan(path, query)
    assert "SCAN events" not in steps
    assert "INDEX events_waiting (pixel_id=?" in steps


def test_small_commits_write_over_the_same_part_of_the_wal(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT_COMMITS", 5)
    for number in range(200):
        store_rows(store, row(f"e{number}"))

    assert path.with_name(f"{path.name}-wal").stat().st_size < 1_000_000


def test_a_delivered_event_keeps_no_payload_and_a_dead_one_does(store: Store, path: Path) -> None:
    store_rows(store, row("e1"), row("e2"))
    lease = store.lease(PIXEL, limit=2, seconds=60)
    first, second = lease.events
    store.settle(
        lease.lease_id,
        [Settlement(first.key, "delivered"), Settlement(second.key, "dead", "code 100")],
    )
    store.close()

    db = sqlite3.connect(path)
    rows = db.execute(
        "SELECT payload, reason FROM events LEFT JOIN payloads USING (key) ORDER BY key"
    ).fetchall()
    db.close()
    assert rows == [(None, ""), (b"{}", "code 100")]


# errors


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path / "missing" / "capi.db")

    assert str(tmp_path / "missing") in failure_of(store)
    store.close()


def test_a_directory_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path)

    assert str(tmp_path) in failure_of(store)
    with pytest.raises(StoreError):
        store.lease(PIXEL, limit=1, seconds=1)
    store.close()


def damage(path: Path) -> None:
    """Overwrite everything but the header of a database, as a failing disk might."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * (size - 100))


@pytest.mark.parametrize("when", ["before the start", "while it is open"])
def test_a_damaged_file_is_moved_aside_and_nothing_new_is_lost(
    store: Store, path: Path, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    store_rows(store, *(row(f"old{n}") for n in range(50)))
    store.close()
    if when == "while it is open":
        store.depth()
    damage(path)
    store_rows(store, row("new"))

    assert store.depth() == {"pending": 1}
    moved = min(path.parent.glob("*.corrupt-*"), key=lambda one: len(one.name))
    assert b"\xa5" * 1000 in moved.read_bytes()
    assert "is damaged: it was moved to" in caplog.text
    assert not path.with_name("capi.db.quarantine").exists()


def test_only_the_file_that_was_found_damaged_is_moved(path: Path) -> None:
    path.write_bytes(b"fresh")
    quarantine(path, path.stat().st_ino + 1)
    path.with_name("capi.db.quarantine").mkdir()
    quarantine(path, path.stat().st_ino)

    assert path.read_bytes() == b"fresh"


def test_a_full_disk_keeps_what_comes_in_memory_until_there_is_space(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_rows(store, row("e1"))
    monkeypatch.setattr("capi_middleware.store.sqlite.RESERVE_BYTES", 2**62)
    monkeypatch.setattr("capi_middleware.store.sqlite.RESERVE_SHARE", 2.0)
    future = store.append([row("e2")], wait=True)
    assert future is not None
    with pytest.raises(TimeoutError):
        future.result(0.3)
    assert future.is_held_up()
    assert store.depth() == {"pending": 1}
    leased = store.lease(PIXEL, limit=9, seconds=60)
    settled = [Settlement(one.key, "delivered") for one in leased.events]
    assert store.settle(leased.lease_id, settled) == 1  # the reserve is for this
    monkeypatch.undo()
    future.result(10)

    assert store.depth() == {"delivered": 1, "pending": 1}


def test_a_database_that_cannot_grow_is_tried_again_and_loses_nothing(
    store: Store,
) -> None:
    store_rows(store, row("e1"))
    with database(store).transaction("write") as writing:
        (pages,) = writing.db.execute("PRAGMA page_count").fetchone()
    database(store)._free[-1].execute(f"PRAGMA max_page_count = {pages}")
    future = store.append([row("big", payload=b"x" * 500_000)], wait=True)
    assert future is not None
    with pytest.raises(TimeoutError):
        future.result(0.3)
    assert store.depth() == {"pending": 1}
    database(store).close()  # the limit is of the connection
    future.result(10)

    assert store.depth() == {"pending": 2}


def test_a_newer_schema_is_refused(store: Store, path: Path) -> None:
    store_rows(store, row())
    store.close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 999")
    db.close()

    assert "found schema 999, expected 1" in failure_of(store)
    with pytest.raises(StoreError, match="another version"):
        store.depth()


def test_another_applications_database_is_refused_and_left_alone(store: Store, path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE users (name)")

    assert "another application" in failure_of(store)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    db.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"event_name": "\ud800"},
        {"match_keys": 2**64},
        {"event_time": float("nan")},
        {"payload": object()},
        {"pixel_id": None},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_row_that_sqlite_cannot_hold_fails_alone(
    store: Store, path: Path, fields: dict[str, object]
) -> None:
    store_rows(store, row("first"))
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")  # so that the next three are one group
    store.append([row("before")], wait=False)
    bad = store.append([row("bad", **fields)], wait=True)
    good = store.append([row("good")], wait=True)
    assert bad is not None
    assert good is not None
    db.execute("ROLLBACK")
    db.close()

    assert isinstance(bad.exception(30), StoreError)
    good.result(30)
    store_rows(store, row("last"))
    assert store.depth() == {"pending": 4}


def test_a_store_works_again_when_its_directory_appears(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path / "later" / "capi.db", clock=Clock())
    failure_of(store)
    (tmp_path / "later").mkdir()

    store_rows(store, row())

    # The lost row was counted, and the count waited in memory.
    (count,) = store.tallies(NOON, NOON + 1).counts
    assert (count.kind, count.reason, count.n) == ("dropped", "store_error", 1)
    store.close()


def test_an_append_waits_for_a_lock_held_elsewhere(store: Store, path: Path) -> None:
    store_rows(store, row("e1"))
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    future = store.append([row("e2")], wait=True)
    assert future is not None

    with pytest.raises(TimeoutError):
        future.result(0.3)
    db.execute("ROLLBACK")
    db.close()

    future.result(30)
    assert store.depth() == {"pending": 2}


def test_a_lock_of_this_process_is_waited_for_like_a_commit(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path / "capi.db")
    with database(store).transaction("write"):  # a courier of this process settles
        future = store.append([row()], wait=True)
        assert future is not None
        time.sleep(2 * STRANGER_SECONDS)  # long enough for the lock of somebody else to show
        assert not future.done()
        assert not future.is_held_up()
    future.result(10)
    store.close()


def test_rows_survive_a_lock_that_is_held_longer_than_the_busy_timeout(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capi_middleware.store.sqlite.BUSY_SECONDS", 0.01)
    store_rows(store, row("e1"))
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    futures = [store.append([row(f"w{n}")], wait=True) for n in range(3)]
    assert not store.flush(0.3)
    db.execute("ROLLBACK")
    db.close()

    for future in futures:
        assert future is not None
        future.result(30)
    assert store.depth() == {"pending": 4}


# several processes


def test_sixteen_processes_may_open_a_missing_file_at_once(path: Path) -> None:
    script = """
sys.stdin.read(1)
store.append([row(sys.argv[2])], wait=True).result(60)
store.close()
"""
    processes = [start(path, script, str(number)) for number in range(16)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    errors = [process.communicate(timeout=120)[1] for process in processes]

    assert errors == [""] * 16
    store = sqlite_store(path)
    assert store.depth() == {"pending": 16}
    store.close()


def test_eight_processes_lose_and_double_nothing(path: Path) -> None:
    script = """
own = [store.append([row(f"{sys.argv[2]}-{n}")], wait=True) for n in range(200)]
for n in range(50):
    store.append([row(f"shared-{n}")], wait=False)
for future in own:
    future.result(60)
store.close()
"""
    processes = [start(path, script, str(number)) for number in range(8)]
    errors = [process.communicate(timeout=120)[1] for process in processes]

    assert errors == [""] * 8
    store = sqlite_store(path)
    assert store.depth() == {"pending": 8 * 200 + 50}
    store.close()


def test_two_processes_never_lease_the_same_event(path: Path) -> None:
    run(
        path,
        """
store = sqlite_store(sys.argv[1], clock=lambda: 0.0)
store.append([row(str(n)) for n in range(400)], wait=True).result(60)
""",
    )
    # With the clock of the events, which would be expired otherwise.
    script = """
store = sqlite_store(sys.argv[1], clock=lambda: 1.0)
while events := store.lease("1", limit=7, seconds=600).events:
    print(*[event.event_id for event in events])
"""
    processes = [start(path, script) for _ in range(4)]
    leased = [word for process in processes for word in process.communicate(timeout=120)[0].split()]

    assert sorted(leased, key=int) == [str(number) for number in range(400)]


def test_a_kill_right_after_a_commit_loses_nothing(path: Path) -> None:
    script = """
for number in range(20):
    store.append([row(str(number))], wait=True).result(60)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = start(path, script)
    process.communicate(timeout=120)

    assert process.returncode == -9
    store = sqlite_store(path)
    assert store.depth() == {"pending": 20}
    store.close()


def test_a_new_row_that_gets_the_key_of_a_pruned_one_is_in_the_sums(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_rows(store, row("e1", server="unmapped"), row("e2", server="unmapped"))
    monkeypatch.setattr("capi_middleware.store.store.FOLD_EVERY", 1)
    store_rows(store, row("e3", server="unmapped"))
    monkeypatch.undo()
    (last,) = store.recent(1)
    assert store.prune(NOON + 1) == 3
    store_rows(store, row("e4", server="unmapped"))
    (again,) = store.recent(1)

    assert again.key <= last.key
    (tally,) = store.tallies(NOON, NOON + 1).rows
    assert tally.n == 4
    assert store.depth() == {"unmapped": 1}


def test_the_keys_of_sums_that_are_over_are_pruned_with_them(path: Path) -> None:
    clock = Clock()
    store = sqlite_store(path, clock=clock)
    store_rows(store, row("e1", server="unmapped", page="/old", route="GET /both"))
    store.prune(NOON + 1)
    clock.now += 401 * 86_400
    store_rows(store, row("e2", event_time=clock(), page="/new", route="GET /both"))
    store.prune(NOON + 1)
    db = sqlite3.connect(path)
    values = db.execute("SELECT value FROM rollup_keys WHERE value LIKE '%/%'").fetchall()
    db.close()

    assert sorted(values) == [("/new",), ("GET /both",)]
    after = store.tallies(clock() - 1, clock() + 1)
    assert [(one.server, one.n) for one in after.rows] == [("pending", 1)]
    assert [one.n for one in store.slices("route", clock(), clock() + 1)] == [1]
    assert store.depth() == {"pending": 1}
    store.close()


# the cost of reading


def test_a_report_reads_sums_by_their_key_and_no_rows(store: Store, path: Path) -> None:
    store_rows(store, row())
    window = dict.fromkeys(Window._fields, 0)

    sums = plan(path, "sums", {"facets": "[]", **window})
    hours = plan(path, "hours", window)

    key = "SEARCH rollups USING PRIMARY KEY (facet=? AND span=? AND start>? AND start<?)"
    assert sums.count(key) == 5
    assert "SEARCH r USING PRIMARY KEY (facet=? AND span=? AND start>? AND start<?)" in hours
    for steps in (sums, hours):
        assert "SEARCH k USING INTEGER PRIMARY KEY (rowid=?)" in steps
        assert "events" not in steps
        assert "SCAN rollups" not in steps


def test_empty_sums_are_found_without_a_look_at_the_others(store: Store, path: Path) -> None:
    store_rows(store, row())
    db = sqlite3.connect(path)
    forget = f"EXPLAIN QUERY PLAN {QUERIES['forget_empty'].texts[64]}"
    steps = [step[3] for step in db.execute(forget, [None] * 64 * 4)]
    db.close()

    assert [one for one in steps if "rollups" in one] == [
        "SEARCH rollups USING INDEX rollups_empty (facet=?)"
    ]


def test_health_reads_what_waits_from_the_index_alone(store: Store, path: Path) -> None:
    store_rows(store, row())

    assert "SEARCH events USING INTEGER PRIMARY KEY (rowid>?)" in plan(path, "depth")
    (steps,) = plan(path, "backlog").splitlines()
    assert steps == "SCAN events USING COVERING INDEX events_waiting"


@pytest.mark.parametrize(
    ("query", "steps"),
    [
        ("find", "SEARCH events USING INDEX sqlite_autoindex_events_1 (event_id=?)"),
        ("recent", "SEARCH events USING INTEGER PRIMARY KEY (rowid>?)"),
    ],
)
def test_events_are_found_by_their_keys(store: Store, path: Path, query: str, steps: str) -> None:
    store_rows(store, row())

    found = plan(path, query, {"event_ids": "[]", "after": 0, "limit": 1}).splitlines()
    assert found[0] == steps
    assert "USING ROWID SEARCH ON TABLE leases FOR IN-OPERATOR" in found
    assert not any("SCAN events" in one for one in found)


@pytest.mark.parametrize("name", ["capi.db", ":memory:"])
def test_a_store_that_nobody_closed_leaves_no_open_database(name: str, tmp_path: Path) -> None:
    # From 3.13 on Python warns of each one: in the tests of a host whose server never ends.
    engine = File(tmp_path / name) if name == "capi.db" else Memory()
    with engine.transaction("read"):
        pass
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        # What at_fork() remembers is weak.
        del engine
        gc.collect()
    assert [str(one.message) for one in warned] == []
