"""Turns: a queue of threads and processes that nobody can hold up by dying or stopping."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from capi_middleware.store import rollups
from capi_middleware.store.commits import Commit, wait_for
from capi_middleware.store.records import Settlement
from capi_middleware.store.sqlite import File
from capi_middleware.store.store import FOLD_STEP, STEP_ROWS, Store
from capi_middleware.store.turns import Turn
from tests.support.processes import ROOT, until
from tests.support.stores import PIXEL, row, sqlite_store, store_rows

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no queue")

#: `queued` prints when it has a place, `turn` when it is its turn; both wait to be killed.
PRELUDE = """
import signal, sys, time
from pathlib import Path
from capi_middleware.store.sqlite import File
from capi_middleware.store.turns import Turn
path = Path(sys.argv[1])
"""


def child(path: Path, script: str) -> "subprocess.Popen[str]":
    """A process that has said something, and goes on."""
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, str(path)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "capi.db"


def appended(store: Store, name: str) -> Commit:
    commit = store.append([row(name)], wait=True)
    assert commit is not None
    return commit


def test_turns_come_in_the_order_of_coming(path: Path) -> None:
    first, second, third = Turn(path), Turn(path), Turn(path)
    for _ in range(2):
        assert [one.wait(0) for one in (first, second, third)] == [True, False, False]
    first.end()
    assert [one.wait(0) for one in (third, second)] == [False, True]
    second.end()
    assert third.wait(0)
    third.end()


def test_whoever_comes_again_comes_after_those_who_wait(path: Path) -> None:
    greedy, patient = Turn(path), Turn(path)
    assert [one.wait(0) for one in (greedy, patient)] == [True, False]
    assert greedy.is_wanted()
    greedy.leave()
    assert not greedy.wait(0)
    assert patient.wait(0)
    patient.end()
    assert greedy.wait(0)
    assert not greedy.is_wanted()
    greedy.end()


def test_who_gives_up_holds_up_nobody(path: Path) -> None:
    first, second, third = Turn(path), Turn(path), Turn(path)
    assert [one.wait(0) for one in (first, second, third)] == [True, False, False]
    second.end()
    assert not third.wait(0)
    first.end()
    assert third.wait(0)
    third.end()


def test_who_is_killed_in_its_turn_holds_up_nobody(path: Path) -> None:
    process = child(path, "turn = Turn(path); turn.wait(9); print('ready', flush=True); input()")
    mine = Turn(path)
    assert not mine.wait(0)
    process.kill()
    process.communicate()
    assert mine.wait(30)
    mine.end()


def test_a_turn_ends_although_a_child_was_forked_in_it(path: Path) -> None:
    turn = Turn(path)
    assert turn.wait(0)
    pid = os.fork()
    if pid == 0:
        signal.pause()
    try:
        turn.end()
        mine = Turn(path)
        assert mine.wait(0)
        mine.end()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_queue_that_was_deleted_is_made_anew(path: Path) -> None:
    turn, waiting = Turn(path), Turn(path)
    assert [one.wait(0) for one in (turn, waiting)] == [True, False]
    (queue,) = path.parent.iterdir()
    queue.unlink()
    turn.end()
    newcomer = Turn(path)
    assert newcomer.wait(0)
    assert not waiting.wait(0)  # it is in the new queue, behind
    newcomer.end()
    assert waiting.wait(0)
    waiting.end()


def test_a_queue_is_as_open_as_its_database(path: Path) -> None:
    path.touch()
    path.chmod(0o660)
    Turn(path).end()
    assert path.with_name("capi.db-queue").stat().st_mode & 0o777 == 0o660


def test_a_database_whose_queue_cannot_be_opened_is_written_all_the_same(path: Path) -> None:
    path.with_name("capi.db-queue").mkdir()
    store = sqlite_store(path)
    wait_for(appended(store, "e1"))
    assert store.depth() == {"pending": 1}
    store.close()


@pytest.mark.parametrize("stage", ["in the queue", "in its turn"])
def test_a_process_that_is_stopped_before_it_writes_holds_up_nobody(path: Path, stage: str) -> None:
    store = sqlite_store(path)
    wait_for(appended(store, "e1"))
    ahead = Turn(path) if stage == "in the queue" else None
    assert ahead is None or ahead.wait(0)
    process = child(path, "turn = Turn(path); turn.wait(0); print('ready', flush=True); input()")
    process.send_signal(signal.SIGSTOP)
    if ahead is not None:
        ahead.end()
    try:
        for number in range(3):
            wait_for(appended(store, f"w{number}"))
    finally:
        process.kill()
        process.communicate()
    assert store.depth() == {"pending": 4}
    store.close()


def test_a_page_waits_for_a_process_that_writes_without_a_pause(path: Path) -> None:
    store = sqlite_store(path)
    wait_for(appended(store, "e1"))
    script = """
engine = File(path)
print("ready", flush=True)
while True:
    with engine.transaction("write") as db:
        db.run("forget", name="x")
        time.sleep(0.06)  # longer than a page waits for a stranger
"""
    process = child(path, script)
    try:
        for number in range(20):
            wait_for(appended(store, f"p{number}"))  # raises if it is told not to wait
    finally:
        process.kill()
        process.communicate()
    assert store.depth() == {"pending": 21}
    store.close()


def test_a_stranger_is_told_from_our_own_even_beside_them(path: Path) -> None:
    store = sqlite_store(path)
    wait_for(appended(store, "e1"))
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    engine = File(path)

    def courier() -> None:
        with engine.transaction("write"):
            pass

    beside = threading.Thread(target=courier)
    beside.start()
    commit = appended(store, "e2")
    until("the store to be held up", commit.is_held_up)
    stranger.execute("ROLLBACK")
    stranger.close()
    beside.join(30)
    commit.result(30)
    assert not commit.is_held_up()
    engine.close()
    store.close()


def test_a_long_settlement_lets_those_who_wait_come_between(path: Path) -> None:
    store = sqlite_store(path)
    some = store.append([row(f"e{n}") for n in range(3 * STEP_ROWS)], wait=True)
    assert some is not None
    some.result(30)
    lease = store.lease(PIXEL, limit=3 * STEP_ROWS, seconds=60)
    seen: list[dict[str, int]] = []
    turn = Turn(path)  # the settlement waits behind it, and whoever comes then behind both
    assert turn.wait(0)
    settling = threading.Thread(
        target=store.settle,
        args=(lease.lease_id, [Settlement(one.key, "delivered") for one in lease.events]),
    )
    settling.start()
    until("the settlement in the queue", turn.is_wanted)
    page = Turn(path)
    assert not page.wait(0)
    turn.end()
    assert page.wait(30)
    seen.append(store.depth())
    page.end()
    settling.join(30)
    assert seen == [{"delivered": STEP_ROWS, "leased": 2 * STEP_ROWS}]
    assert store.depth() == {"delivered": 3 * STEP_ROWS}
    store.close()


@pytest.mark.parametrize("waits", [False, True], ids=["nobody waits", "somebody waits"])
def test_a_fold_takes_many_steps_together_unless_somebody_waits_for_its_end(
    path: Path, *, waits: bool
) -> None:
    engine = File(path)
    with closing(Store(engine)) as store:
        store_rows(store, *(row(f"e{n}") for n in range(3 * FOLD_STEP)))
        with engine.transaction("write") as db:
            page = Turn(path)
            if waits:
                assert not page.wait(0)
            assert rollups.fold(db) is waits  # whether there is more
            page.end()
        assert store.depth() == {"pending": 3 * FOLD_STEP}
