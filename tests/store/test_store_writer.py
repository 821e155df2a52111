"""Writer: what is grouped, what happens to a group that fails, forks and re-entrant calls."""

import logging
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from capi_middleware.errors import StoreError, StoreFull
from capi_middleware.events import Count
from capi_middleware.store.commits import Commit
from capi_middleware.store.writer import (
    CROWD_ROWS,
    GROUP_ROWS,
    Counters,
    LockedError,
    Submission,
    Writer,
)
from tests.support.processes import until
from tests.support.stores import Clock, row

HOUR = int(Clock()() // 3600)
SKIPPED = Count("skipped", "404")
SKIPPED_KEY = (HOUR, "skipped", "404", "", "")


class Database:
    """Stands for the transaction: keeps what was written, fails and waits as a test says."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.counters: list[Counters] = []
        self.failures: list[Exception] = []
        self.poison: set[str] = set()
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def event_ids(self) -> list[str]:
        return [event_id for group in self.groups for event_id in group]

    def write(self, submissions: Sequence[Submission], counters: Counters) -> None:
        self.entered.set()
        assert self.gate.wait(30)
        if self.failures:
            raise self.failures.pop(0)
        group = [item.event_id for s in submissions for item in s.items]
        if self.poison.intersection(group) or any(key[2] in self.poison for key in counters):
            raise ValueError("poison")
        self.groups.append(group)
        self.counters.append(counters.copy())


class Remembered:
    """An item that can tell whether it is still there."""

    event_id = "e1"


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def committed() -> list[Sequence[Submission]]:
    return []


@pytest.fixture
def running() -> Callable[[], int]:
    """How many writer threads this test runs: another test may have left one behind."""

    def count() -> int:
        return sum(one.name == "capi-store-writer" for one in threading.enumerate())

    before = count()
    return lambda: count() - before


@pytest.fixture
def writer(database: Database, committed: list[Sequence[Submission]]) -> Iterator[Writer]:
    writer = Writer(database.write, queue_limit=5000, clock=Clock(), on_commit=committed.append)
    yield writer
    database.gate.set()
    writer.close(30)


def append(writer: Writer, *event_ids: str) -> Commit:
    future = writer.submit("append", [row(event_id) for event_id in event_ids], wait=True)
    assert future is not None
    return future


def hold(writer: Writer, database: Database) -> Commit:
    """Stop the thread within a transaction, so that what follows waits in the queue."""
    database.gate.clear()
    database.entered.clear()
    future = append(writer, "held")
    assert database.entered.wait(30)
    return future


# groups


def test_no_thread_runs_before_the_first_submission(
    running: Callable[[], int], writer: Writer
) -> None:
    assert running() == 0
    append(writer, "e1").result(30)
    assert running() == 1


def test_what_waits_is_committed_together_in_order(writer: Writer, database: Database) -> None:
    hold(writer, database)
    futures = [append(writer, str(number)) for number in range(10)]
    database.gate.set()
    for future in futures:
        future.result(30)

    assert database.groups == [["held"], [str(number) for number in range(10)]]


def test_a_group_ends_with_enough_rows(writer: Writer, database: Database) -> None:
    hold(writer, database)
    append(writer, *["big"] * GROUP_ROWS)
    last = append(writer, "last")
    database.gate.set()
    last.result(30)

    assert [len(group) for group in database.groups] == [1, GROUP_ROWS, 1]


def test_a_future_ends_after_the_commit(writer: Writer, database: Database) -> None:
    future = hold(writer, database)
    assert not future.done()
    database.gate.set()
    future.result(30)

    assert database.groups == [["held"]]


def test_a_caller_who_gave_up_loses_no_rows(writer: Writer, database: Database) -> None:
    hold(writer, database)
    with pytest.raises(TimeoutError):
        append(writer, "given up").result(0.01)
    append(writer, "other")
    database.gate.set()

    assert writer.flush(30)
    assert database.groups == [["held"], ["given up", "other"]]


def test_a_list_that_the_caller_changes_later_is_stored_as_it_was(
    writer: Writer, database: Database
) -> None:
    hold(writer, database)
    rows = [row("e1")]
    writer.submit("append", rows, wait=False)
    rows.clear()
    database.gate.set()
    writer.flush(30)

    assert database.groups == [["held"], ["e1"]]


def test_on_commit_gets_what_was_committed_and_may_fail(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(group: Sequence[Submission]) -> None:
        raise ZeroDivisionError

    writer = Writer(database.write, queue_limit=10, clock=Clock(), on_commit=fail)
    append(writer, "e1").result(30)
    append(writer, "e2").result(30)
    writer.close(30)

    assert [group for group in database.groups if group] == [["e1"], ["e2"]]
    assert {key[2] for one in database.counters for key in one} == {"the store: ZeroDivisionError"}
    assert "ZeroDivisionError" in caplog.text


def test_what_was_committed_does_not_stay_in_memory(database: Database) -> None:
    writer = Writer(database.write, queue_limit=10, clock=Clock(), on_commit=lambda _: None)
    one = Remembered()
    kept = weakref.ref(one)
    commit = writer.submit("append", [one], wait=True)
    del one
    assert commit is not None
    commit.result(30)
    until("it is forgotten", lambda: kept() is None)
    writer.close(30)


# company


@pytest.fixture
def long_company(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capi_middleware.store.writer.COMPANY_SECONDS", 30.0)


def post(writer: Writer, *event_ids: str) -> None:
    writer.submit("append", [row(event_id) for event_id in event_ids], wait=False)


def test_rows_that_nobody_waits_for_are_committed_with_those_that_come_soon_after(
    writer: Writer, database: Database
) -> None:
    for event_id in ("e1", "e2", "e3"):
        post(writer, event_id)
        time.sleep(0.01)
    assert database.groups == []
    until("they are stored", lambda: bool(database.groups))

    assert database.groups == [["e1", "e2", "e3"]]


@pytest.mark.usefixtures("long_company")
@pytest.mark.parametrize(
    "hurry",
    [
        lambda writer: append(writer, "e2").result(9),
        lambda writer: writer.flush(9),
        lambda writer: writer.close(9),
    ],
    ids=["a waiting row", "flush", "close"],
)
def test_who_waits_takes_along_what_lingers(
    writer: Writer, database: Database, hurry: Callable[[Writer], object]
) -> None:
    post(writer, "e1")
    writer.count([SKIPPED])
    time.sleep(0.05)
    assert hurry(writer) is not False

    assert database.event_ids()[0] == "e1"
    assert database.counters == [{SKIPPED_KEY: 1}]
    assert len(database.groups) == 1


@pytest.mark.usefixtures("long_company")
def test_a_crowd_does_not_linger(writer: Writer, database: Database) -> None:
    post(writer, "e1")
    time.sleep(0.05)
    post(writer, *["e"] * CROWD_ROWS)
    until("they are stored", lambda: bool(database.groups))

    assert [len(group) for group in database.groups] == [CROWD_ROWS + 1]


# the limit


def test_more_rows_than_the_limit_are_refused_and_counted(
    writer: Writer, database: Database
) -> None:
    hold(writer, database)
    append(writer, *["e"] * 4999)
    with pytest.raises(StoreFull):
        append(writer, "too many")
    database.gate.set()
    writer.flush(30)

    assert sum(len(group) for group in database.groups) == 5000
    (counted,) = [counters for counters in database.counters if counters]
    assert {key[2]: n for key, n in counted.items()} == {"queue_full": 1}


def test_there_is_room_again_after_the_commit(writer: Writer) -> None:
    append(writer, *["e"] * 5000).result(30)
    writer.flush(30)

    append(writer, *["e"] * 5000).result(30)


def test_counts_are_never_refused_and_add_up_while_they_wait(database: Database) -> None:
    writer = Writer(database.write, queue_limit=1, clock=Clock(), on_commit=lambda _: None)
    hold(writer, database)
    for _ in range(1000):
        writer.count([SKIPPED])
    database.gate.set()
    assert writer.close(30)

    assert database.counters == [{}, {SKIPPED_KEY: 1000}]


# failures


def test_a_submission_that_cannot_be_stored_fails_alone(
    writer: Writer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    database.poison = {"5"}
    hold(writer, database)
    writer.count([SKIPPED])
    futures = [append(writer, str(number)) for number in range(9)]
    database.gate.set()
    failures = [future.exception(30) for future in futures]
    writer.flush(30)

    assert [number for number, failure in enumerate(failures) if failure] == [5]
    assert isinstance(failures[5], StoreError)
    assert isinstance(failures[5].__cause__, ValueError)
    assert database.event_ids() == ["held", *"01234678"]
    assert sum(counters.get(SKIPPED_KEY, 0) for counters in database.counters) == 1
    assert "ValueError" in caplog.text


def test_a_counter_that_cannot_be_stored_is_dropped_alone(
    writer: Writer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    database.poison = {"bad"}
    hold(writer, database)
    writer.count([SKIPPED, Count("error", "bad")])
    database.gate.set()
    writer.flush(30)
    append(writer, "next").result(30)

    errors = (HOUR, "error", "the store: ValueError", "", "")
    told = [counters for counters in database.counters if counters]
    assert told == [{SKIPPED_KEY: 1}, {errors: 1}]


def test_a_broken_database_fails_the_group_at_once_and_keeps_the_counts(
    writer: Writer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    hold(writer, database)
    database.failures = [StoreError("disk full"), StoreError("disk full")]
    writer.count([SKIPPED])
    lost = append(writer, "lost")
    database.gate.set()
    failure = lost.exception(30)
    append(writer, "next").result(30)

    assert str(failure) == "disk full"
    dropped = (HOUR, "dropped", "store_error", row().event_name, row().pixel_id)
    assert [counters for counters in database.counters if counters] == [
        {SKIPPED_KEY: 1, dropped: 2}
    ]


def test_flush_says_no_when_the_commit_failed(
    writer: Writer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    hold(writer, database)
    database.failures = [StoreError("disk full"), StoreError("disk full")]
    writer.submit("append", [row()], wait=False)
    opener = threading.Timer(0.05, database.gate.set)
    opener.start()

    assert not writer.flush(30)
    opener.join()


def test_a_locked_database_is_tried_again_with_the_same_group(
    writer: Writer,
    database: Database,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("capi_middleware.store.writer.LONG_LOCK", 0.0)
    database.failures = [LockedError("locked"), LockedError("locked"), LockedError("locked")]
    append(writer, "e1", "e2").result(30)

    assert database.groups == [["e1", "e2"]]
    assert caplog.text.count("locked") == 1


def test_a_write_that_hangs_holds_up_no_page_until_it_ends(
    writer: Writer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capi_middleware.store.commits.COMMIT_PATIENCE", 0.0)
    hanging = hold(writer, database)
    behind = append(writer, "e1")
    until("both to be held up", lambda: hanging.is_held_up() and behind.is_held_up())
    database.gate.set()
    behind.result(30)
    until("the end of it", lambda: not behind.is_held_up())


def test_an_unexpected_exception_restarts_the_thread(
    writer: Writer,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(writer, "_store", fail)
    failure = append(writer, "e1").exception(30)
    monkeypatch.undo()
    append(writer, "e2").result(30)

    assert isinstance(failure, StoreError)
    assert isinstance(failure.__cause__, MemoryError)
    assert database.groups == [["e2"]]
    assert "MemoryError" in caplog.text


# the end


def test_close_ends_the_thread_and_a_later_submission_starts_one(
    running: Callable[[], int], writer: Writer, database: Database
) -> None:
    append(writer, "e1")
    assert writer.close(30)
    assert running() == 0

    append(writer, "e2").result(30)

    assert database.groups == [["e1"], ["e2"]]


def test_close_gives_up_after_its_timeout(writer: Writer, database: Database) -> None:
    hold(writer, database)

    assert not writer.close(0.01)


def test_submissions_of_many_threads_survive_many_closes(
    writer: Writer, database: Database
) -> None:
    closed: list[bool] = []

    def submit(name: str) -> None:
        for number in range(200):
            append(writer, f"{name}{number}").result(30)
            if number % 10 == 0:
                closed.append(writer.close(30))

    threads = [threading.Thread(target=submit, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert closed == [True] * 80
    assert len(database.event_ids()) == 800


# re-entrancy


def test_flush_from_the_writers_own_thread_does_not_wait_for_itself(database: Database) -> None:
    flushed: list[bool] = []

    def flush(_: Sequence[Submission]) -> None:
        flushed.append(own.flush(30))

    own = Writer(database.write, queue_limit=10, clock=Clock(), on_commit=flush)
    append(own, "e1").result(30)
    own.close(30)

    assert flushed[0] is False


def test_what_interrupts_a_submission_may_submit_and_wait(
    writer: Writer, database: Database
) -> None:
    """A finalizer or a signal handler, at each line of what submit() runs."""
    append(writer, "e0").result(30)  # the thread runs
    lines: set[tuple[str, int]] = set()

    def interrupting(frame: FrameType, event: str, arg: object) -> Any:
        file = Path(frame.f_code.co_filename).name
        if file not in ("writer.py", "commits.py"):
            return None
        if event == "line" and (file, frame.f_lineno) not in lines:
            lines.add((file, frame.f_lineno))
            sys.settrace(None)
            append(writer, f"inner-{len(lines)}").result(30)
            writer.count([SKIPPED])
            sys.settrace(interrupting)
        return interrupting

    sys.settrace(interrupting)
    try:
        outer = append(writer, "outer")
    finally:
        sys.settrace(None)
    outer.result(30)

    assert len(lines) > 12
    assert set(database.event_ids()) == {
        "e0", "outer", *(f"inner-{n + 1}" for n in range(len(lines)))
    }  # fmt: skip


def test_a_logging_handler_may_submit(
    writer: Writer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            writer.submit("append", [row("from the handler")], wait=False)

    handler = Handler()
    logging.getLogger("capi_middleware.store").addHandler(handler)
    try:
        database.poison = {"bad"}
        append(writer, "bad").exception(30)
    finally:
        logging.getLogger("capi_middleware.store").removeHandler(handler)
    writer.flush(30)

    assert database.groups == [["from the handler"]]


def run(script: str, path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # On a busy machine a process may have to wait for the lock of another one and say so.
    said = [line for line in done.stderr.splitlines() if "locked by another process" not in line]
    assert (done.returncode, said) == (0, [])
    return done.stdout


SUBMIT_WITHIN_SUBMIT = """
import signal, sys
from capi_middleware.events import Row
from tests.support.stores import sqlite_store

def row(event_id):
    return Row(event_id=event_id, event_name="Lead", pixel_id="1", event_time=0.0, payload=b"{}")

store = sqlite_store(sys.argv[1], queue_limit=1_000_000)
seen = 0
"""


def test_a_signal_handler_may_submit_while_the_same_thread_submits(tmp_path: Path) -> None:
    script = (
        SUBMIT_WITHIN_SUBMIT
        + """
def handle(*_):
    global seen
    seen += 1
    store.append([row(f"signal-{seen}")], wait=False)

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
for number in range(20_000):
    store.append([row(str(number))], wait=False)
signal.setitimer(signal.ITIMER_REAL, 0)
assert store.flush(60)
assert seen > 10, seen
assert store.depth() == {"pending": 20_000 + seen}
store.close()
"""
    )
    run(script, tmp_path / "capi.db")


def test_a_finalizer_may_submit_while_the_same_thread_submits(tmp_path: Path) -> None:
    script = (
        SUBMIT_WITHIN_SUBMIT
        + """
import gc

class Garbage:
    def __init__(self):
        self.itself = self
    def __del__(self):
        global seen
        seen += 1
        store.append([row(f"garbage-{seen}")], wait=False)

gc.set_threshold(5)
for number in range(3000):
    Garbage()
    store.append([row(str(number))], wait=False)
gc.collect()
assert store.flush(60)
assert seen == 3000, seen
assert store.depth() == {"pending": 6000}
store.close()
"""
    )
    run(script, tmp_path / "capi.db")


# fork

FORK = (
    SUBMIT_WITHIN_SUBMIT
    + """
import os, threading

def wait_for(child):
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status
"""
)


def test_child_and_parent_go_on_after_a_fork_in_the_middle_of_use(tmp_path: Path) -> None:
    # Threads write and read all the time, so that forks meet open transactions.
    script = (
        FORK
        + """
running = True
written = 0

def write():
    global written
    while running:
        store.append([row(f"parent-{written}")], wait=True).result(60)
        written += 1

def read():
    while running:
        store.depth()

threads = [threading.Thread(target=write), threading.Thread(target=read)]
for thread in threads:
    thread.start()
for round in range(20):
    child = os.fork()
    if child == 0:
        try:
            store.append([row(f"child-{round}")], wait=True).result(20)
            assert store.flush(20)
            store.depth()
            store.close()
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    wait_for(child)
running = False
for thread in threads:
    thread.join()
assert store.depth() == {"pending": written + 20}, (store.depth(), written)
store.close()
"""
    )
    assert run(script, tmp_path / "capi.db") == ""


def test_what_the_parent_queued_is_committed_once_and_by_the_parent(tmp_path: Path) -> None:
    script = (
        FORK
        + """
for number in range(5000):
    store.append([row(str(number))], wait=False)
child = os.fork()
if child == 0:
    ok = store.flush(20) and not store._writer._running
    os._exit(0 if ok else 1)
wait_for(child)
assert store.flush(60)
assert store.depth() == {"pending": 5000}
store.close()
"""
    )
    run(script, tmp_path / "capi.db")


def test_a_fork_that_python_does_not_see_loses_nothing(tmp_path: Path) -> None:
    """uWSGI forks in C, and its workers run none of Python's hooks."""
    script = (
        FORK
        + """
import ctypes, time
from capi_middleware.store.writer import Writer

kept = []

def write(submissions, counters):
    kept.extend(item for submission in submissions for item in submission.items)
    entered.set()
    busy.wait()

entered, busy = threading.Event(), threading.Event()
writer = Writer(write, queue_limit=99, clock=time.time, on_commit=lambda _: None)
writer.submit("append", [1], wait=True)
entered.wait()
writer.submit("append", [2], wait=False)  # waits in a group
child = ctypes.CDLL(None).fork()
if child == 0:
    kept.clear()
    busy.set()
    writer.submit("append", [3], wait=False)
    writer.submit("append", [4], wait=True).result(20)
    os._exit(kept != [2, 3, 4])
wait_for(child)
os._exit(0)
"""
    )
    run(script, tmp_path / "capi.db")


def test_a_fork_leaves_no_open_connection_to_the_child(tmp_path: Path) -> None:
    script = (
        FORK
        + """
store.append([row("e1")], wait=True).result(60)
store.depth()
child = os.fork()
if child == 0:
    links = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    os._exit(sum("capi.db" in link for link in links))
wait_for(child)
store.close()
"""
    )
    run(script, tmp_path / "capi.db")


def test_a_fork_while_locks_are_held_leaves_a_child_that_works(tmp_path: Path) -> None:
    # Another thread holds every lock of the store, for longer than the fork waits.
    script = (
        FORK
        + """
from capi_middleware.store import sqlite
sqlite.FORK_SECONDS = 0.05
release, held = threading.Event(), threading.Event()

def hold():
    with store._writer._starting, sqlite._creating, store._engine.transaction("read"):
        held.set()
        release.wait(60)

store.depth()
holder = threading.Thread(target=hold)
holder.start()
held.wait(60)
child = os.fork()
if child == 0:
    store.append([row("child")], wait=True).result(20)
    store.close()
    os._exit(0)
wait_for(child)
release.set()
holder.join()
store.append([row("parent")], wait=True).result(60)
assert store.depth() == {"pending": 2}
store.close()
"""
    )
    run(script, tmp_path / "capi.db")


FORK_WHILE_READING = (
    FORK
    + """
from capi_middleware.store import sqlite
from capi_middleware.errors import StoreError
reading, done = threading.Event(), threading.Event()
engine = store._engine
store.append([row("before")], wait=True).result(60)

def read():
    try:
        READ
    finally:
        done.set()

reader = threading.Thread(target=read)
reader.start()
reading.wait(60)
child = os.fork()
if child == 0:
    # Where SQLite's locks were inherited, nobody can tell what becomes of the file.
    os._exit(not done.is_set())
wait_for(child)
reader.join()
store.close()
"""
)


def test_a_fork_waits_for_a_thread_that_reads_within_a_reading(tmp_path: Path) -> None:
    read = """
        with engine.transaction("read") as outer:
            outer.read("depth")
            reading.set()
            while not engine._forking:
                pass
            store.depth()
"""
    run(FORK_WHILE_READING.replace("        READ\n", read), tmp_path / "capi.db")


def test_a_fork_cuts_off_a_reading_that_takes_long(tmp_path: Path) -> None:
    read = """
        sqlite.FORK_SECONDS = 0.2
        with engine.transaction("read") as outer:
            reading.set()
            outer.db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
                             "SELECT COUNT(*) FROM n").fetchall()
    except StoreError:
        pass
"""
    run(FORK_WHILE_READING.replace("        READ\n", read), tmp_path / "capi.db")


def test_a_memory_store_is_empty_in_the_child(tmp_path: Path) -> None:
    script = (
        FORK
        + """
from capi_middleware.testing import MemoryStore
store = MemoryStore()
store.append([row("e1")], wait=False)
child = os.fork()
if child == 0:
    os._exit(len(store.depth()))
wait_for(child)
assert store.depth() == {"pending": 1}
"""
    )
    run(script, tmp_path / "unused")


def test_a_store_that_is_gone_has_no_hooks_left(tmp_path: Path) -> None:
    script = (
        FORK
        + """
import gc
store.append([row("e1")], wait=True).result(60)
store.close()
del store
gc.collect()
child = os.fork()
if child == 0:
    os._exit(0)
wait_for(child)
"""
    )
    run(script, tmp_path / "capi.db")
