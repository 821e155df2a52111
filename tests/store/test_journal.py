"""Answers that ended before their commit: counted once, and lost ones named, whoever is killed."""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import httpx
import psycopg
import pytest

from capi_middleware.events import Count
from capi_middleware.store.commits import Commit, Whole, wait_for
from capi_middleware.store.journal import Journal
from capi_middleware.store.opening import open_store
from capi_middleware.store.shards import Shards
from capi_middleware.store.store import Store
from capi_middleware.store.writer import LockedError
from tests.support.configs import PIXEL_ID
from tests.support.processes import ROOT, free_port, running, until
from tests.support.stores import row, sqlite_store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")

#: Tracks three events, each of an answer that ends before its commit, and waits to be killed.
VICTIM = """
import sys
from capi_middleware.store.opening import open_store
from tests.support.stores import row
where = sys.argv[1]
store = open_store(where if "://" in where else f"sqlite:///{where}", queue_limit=100)
for name in sys.argv[2:]:
    commit = store.append([row(name)], wait=True)
    assert store.ended_before(commit)
print("ready", flush=True)
input()
"""
#: Loses two events, and is killed.
LOSER = """
import os, signal, sys
from capi_middleware.store.opening import open_store
from tests.support.stores import row
store = open_store(sys.argv[1], queue_limit=100)
for name in ("a", "b"):
    assert store.append([row(name, payload=None)], wait=True).exception(30)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "capi.db"


@pytest.fixture
def stranger(path: Path) -> Iterator[sqlite3.Connection]:
    """Has the lock of a database that has our tables."""
    store = sqlite_store(path)
    appended(store, "first").result(30)
    store.close()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    yield db
    db.close()


def appended(store: Store, name: str) -> Commit:
    commit = store.append([row(name)], wait=True)
    assert commit is not None
    return commit


def killed(path: Path | str, *names: str) -> None:
    """A process that dies with these events in its memory."""
    process = subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(path), *names], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate()


def counted(store: Store) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for one in store.tallies(0, 2**40).counts:
        counts[one.kind, one.reason] = counts.get((one.kind, one.reason), 0) + one.n
    return counts


def has_counted(store: Store, expected: dict[tuple[str, str], int]) -> bool:
    return counted(store) == expected


EARLY = ("error", "the commit: TimeoutError")
KILLED = ("dropped", "killed")


def test_what_a_killed_process_had_only_in_memory_is_counted_once(
    path: Path, stranger: sqlite3.Connection
) -> None:
    killed(path, "a", "b", "c")
    stranger.execute("ROLLBACK")
    for _ in range(2):
        store = sqlite_store(path)
        assert counted(store) == {EARLY: 3, KILLED: 3}
        assert store.depth() == {"pending": 1, "dropped": 3}
        store.close()
    assert not list(path.parent.glob("*-early-*"))


def test_what_was_committed_before_the_kill_is_not_lost(
    path: Path, stranger: sqlite3.Connection
) -> None:
    killed(path, "a", "b")
    stranger.execute("ROLLBACK")
    other = sqlite_store(path)
    appended(other, "a").result(30)  # the same event, by another process
    until("the count", lambda: counted(other) == {EARLY: 2, KILLED: 1})
    assert other.depth() == {"pending": 2, "dropped": 1}
    other.close()


def test_whoever_is_killed_while_it_counts_counts_nothing_twice(
    path: Path, stranger: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(path, "a")
    stranger.execute("ROLLBACK")
    monkeypatch.setattr(Journal, "delete", Journal.leave)  # as if killed before it could
    store = sqlite_store(path)
    assert counted(store) == {EARLY: 1, KILLED: 1}
    store.close()
    monkeypatch.undo()
    with closing(sqlite3.connect(path)) as db, db:
        (journal,) = path.parent.glob("*-early-*")
        db.execute("INSERT OR IGNORE INTO kept VALUES (?, x'')", [journal.name])
    store = sqlite_store(path)
    assert counted(store) == {EARLY: 1, KILLED: 1}
    store.close()
    assert not list(path.parent.glob("*-early-*"))


def test_a_hold_up_that_passes_is_counted_and_nothing_is_lost(
    path: Path, stranger: sqlite3.Connection
) -> None:
    store = sqlite_store(path)
    commits = [appended(store, name) for name in ("a", "b")]
    for commit in commits:
        with pytest.raises(TimeoutError):
            wait_for(commit)
        assert store.ended_before(commit)
    stranger.execute("ROLLBACK")
    for commit in commits:
        commit.result(30)
    until("the count", lambda: counted(store) == {EARLY: 2})
    assert store.depth() == {"pending": 3}
    store.close()
    assert not list(path.parent.glob("*-early-*"))


def test_the_journal_of_a_process_that_lives_is_left_alone(
    path: Path, stranger: sqlite3.Connection
) -> None:
    store, other = sqlite_store(path), sqlite_store(path)
    commit = appended(store, "a")
    assert store.ended_before(commit)
    assert counted(other) == {}
    stranger.execute("ROLLBACK")
    commit.result(30)
    until("the count", lambda: counted(other) == {EARLY: 1})
    assert KILLED not in counted(other)
    other.close()
    store.close()


def test_a_commit_that_has_ended_is_no_case_for_the_journal(path: Path) -> None:
    store = sqlite_store(path)
    commit = appended(store, "a")
    commit.result(30)
    assert not store.ended_before(commit)
    store.close()


def test_an_answer_that_two_databases_keep_waiting_is_counted_once(
    path: Path, stranger: sqlite3.Connection
) -> None:
    other_path = path.with_name("other.db")
    parts = [sqlite_store(path), sqlite_store(other_path)]
    appended(parts[1], "first").result(30)
    with closing(sqlite3.connect(other_path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        store = Shards(parts)
        commit = store.append([row(f"e{n}") for n in range(20)], wait=True)
        assert isinstance(commit, Whole)
        with pytest.raises(TimeoutError):
            wait_for(commit)
        assert store.ended_before(commit)
        db.execute("ROLLBACK")
        stranger.execute("ROLLBACK")
    commit.result(30)
    store.close()
    assert counted(store) == {EARLY: 1}
    store.close()


def test_a_journal_that_could_not_be_counted_yet_is_not_taken_for_that_of_a_killed_process(
    path: Path, stranger: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = sqlite_store(path), sqlite_store(path)
    commit = appended(store, "a")
    assert store.ended_before(commit)

    def busy(journal: Journal) -> None:
        raise LockedError("busy")

    monkeypatch.setattr(store, "_count_journal", busy)
    stranger.execute("ROLLBACK")
    commit.result(30)
    store.close()
    assert counted(other) == {}
    monkeypatch.undo()
    appended(store, "b").result(30)
    until("the count", partial(has_counted, other, {EARLY: 1}))
    store.close()
    other.close()
    assert not list(path.parent.glob("*-early-*"))


def test_a_loss_that_no_database_could_count_is_counted_once_after_a_kill(path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", LOSER, f"sqlite:///{path}"], cwd=ROOT, check=False
    )  # fmt: skip
    assert process.returncode == -signal.SIGKILL
    for _ in range(2):
        store = sqlite_store(path)
        assert counted(store)["dropped", "store_error"] == 2
        assert KILLED not in counted(store)
        store.close()
    assert not list(path.parent.glob("*-early-*"))


def test_a_loss_is_counted_once_by_a_process_that_lives(path: Path) -> None:
    store = sqlite_store(path)
    bad = store.append([row("bad", payload=None)], wait=True)
    assert bad is not None
    assert bad.exception(30) is not None
    appended(store, "good").result(30)
    store.close()
    assert counted(store)["dropped", "store_error"] == 1
    store.close()
    assert not list(path.parent.glob("*-early-*"))


def test_a_journal_is_counted_once_by_two_threads_that_come_together(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = sqlite_store(path)
    assert store._lost(0, [Count("dropped", "store_error")])
    together = threading.Barrier(2)
    count = store._count_journal

    def slow(journal: Journal) -> None:
        with suppress(threading.BrokenBarrierError):
            together.wait(0.5)  # broken where one of them waits for the other
        count(journal)

    monkeypatch.setattr(store, "_count_journal", slow)
    with ThreadPoolExecutor() as threads:
        for one in [threads.submit(store._account) for _ in range(2)]:
            one.result(30)
    assert counted(store) == {("dropped", "store_error"): 1}
    store.close()


def test_a_name_that_could_not_be_forgotten_yet_is_no_journal_that_waits(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = sqlite_store(path)
    assert store._lost(0, [Count("dropped", "store_error")])
    delete = Journal.delete

    def locked(*_: object) -> None:
        raise LockedError("busy")

    def then_locked(journal: Journal) -> None:
        delete(journal)
        monkeypatch.setattr(store._engine, "transaction", locked)

    monkeypatch.setattr(Journal, "delete", then_locked)
    store._account()
    monkeypatch.undo()
    taken = os.open(path, os.O_RDONLY)  # by the number of the journal's file
    store._account()
    os.fstat(taken)
    os.close(taken)
    assert counted(store) == {("dropped", "store_error"): 1}
    store.close()


def test_what_a_killed_process_did_not_get_into_postgresql_is_counted_once(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # that of the victim
    store = open_store(postgres_url, queue_limit=100)
    appended(store, "first").result(30)
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE capi_events IN ACCESS EXCLUSIVE MODE")
        killed(postgres_url, "a", "b")
    for _ in range(2):
        again = open_store(postgres_url, queue_limit=100)
        until("the count", partial(has_counted, again, {EARLY: 2, KILLED: 2}))
        assert again.depth() == {"pending": 1, "dropped": 2}
        again.close()
    store.close()
    assert not list(tmp_path.iterdir())


def test_log_counter_and_loss_of_a_killed_server_agree(
    path: Path, stranger: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    arguments = [
        "gunicorn", "tests.torture.shop:wsgi_app", "-w", "2", "--bind", f"127.0.0.1:{port}",
    ]  # fmt: skip
    environment = {"STORE": f"sqlite:///{path}", "PYTHONPATH": str(ROOT)}
    with running(arguments, port, environment=environment) as server:
        for number in range(6):
            answer = httpx.get(f"{server.url}/thanks/{number}", headers={"User-Agent": "Mozilla"})
            assert '"n":"Purchase"' in answer.text
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait(15)
    stranger.execute("ROLLBACK")
    store = sqlite_store(path)
    # A killed process may take a moment to be gone.
    until("the count", lambda: counted(store) == {EARLY: 6, KILLED: 6})
    assert store.depth() == {"pending": 1, "dropped": 6}
    lost = {(one.event_name, one.pixel_id) for one in store.recent(9) if one.server == "dropped"}
    assert lost == {("Purchase", PIXEL_ID)}
    told = [vars(one)["capi"] for one in caplog.records if hasattr(one, "capi")]
    early = [one for one in told if one["action"] == "ended_early"]
    assert [sum(one[name] for one in early) for name in ("answers", "lost")] == [6, 6]
    store.close()
