"""A damaged file: what can be read of it goes on in a new one, and what cannot is counted."""

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from capi_middleware.errors import StoreError
from capi_middleware.events import Sighting
from capi_middleware.report.flags import Facts, flags_of
from capi_middleware.signing import Minter
from capi_middleware.store import salvage
from capi_middleware.store.records import Remembered, Settlement
from capi_middleware.store.sqlite import File, quarantine
from capi_middleware.store.store import Store
from tests.support.processes import until
from tests.support.stores import NOON, PIXEL, Clock, row, sqlite_store, states, store_rows

PAGE = 4096
EVENTS = 2000


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(salvage, "LAST_WORDS", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "capi.db"


def event_id(number: int) -> str:
    return f"{number:08d}-0123456789abcdef0123"


def payload(number: int) -> bytes:
    return b"%08d" % number + b"x" * 1500


def fill(path: Path) -> None:
    """Half of the events are delivered, 20 dead letters, the rest waits; page views of sums."""
    store = sqlite_store(path, clock=Clock())
    for start in range(0, EVENTS, 500):
        some = range(start, start + 500)
        store_rows(store, *(row(event_id(n), payload=payload(n), page=f"/{n % 9}") for n in some))
    lease = store.lease(PIXEL, limit=EVENTS // 2, seconds=60)
    *delivered, last = [one.key for one in lease.events]
    dead = [*delivered[-19:], last]
    store.settle(
        lease.lease_id,
        [Settlement(key, "delivered") for key in delivered[:-19]]
        + [Settlement(key, "dead", "code 100") for key in dead],
    )
    store.prune(0)  # nothing is old: the sums are up to date
    store.close()


def page_of(path: Path, table: str, kind: str = "leaf", at: int = 3) -> int:
    """The number of a page of a table: its root, or one of its leaves."""
    with closing(sqlite3.connect(path)) as db, db:
        if kind == "root":
            query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
            return int(db.execute(query, (table,)).fetchone()[0])
        leaves = db.execute(
            "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY path", (table,)
        )
        return int(leaves.fetchall()[at][0])


def spoil(path: Path, *pages: int) -> None:
    """Overwrite pages, as a failing disk might."""
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE)
            file.write(b"\xa5" * PAGE)


def salvaged(path: Path) -> Store:
    """A store that has found the damage, when it has taken over what it could."""
    store = sqlite_store(path, clock=Clock())

    def is_done() -> bool:
        try:
            store.lease("another", limit=1, seconds=1)
            store.recent(EVENTS + 1, after=1)
            store.dead_letters(limit=100)
            with store._engine.transaction("write") as db:
                list(db.db.execute("SELECT * FROM payloads"))  # type: ignore[attr-defined]
                list(db.db.execute("SELECT * FROM rollups"))  # type: ignore[attr-defined]
        except StoreError:
            return False
        engine = store._engine
        assert isinstance(engine, File)
        thread = engine._salvaging
        return thread is not None and not thread.is_alive()

    until("the damaged file is taken over", is_done, 60)
    return store


def waiting(store: Store) -> dict[str, bytes]:
    lease = store.lease(PIXEL, limit=2 * EVENTS, seconds=60)
    return {one.event_id: one.payload for one in lease.events}


def counted(store: Store) -> dict[tuple[str, str], int]:
    found = dict[tuple[str, str], int]()
    for one in store.tallies(float("-inf"), float("inf")).counts:
        found[one.kind, one.reason] = found.get((one.kind, one.reason), 0) + one.n
    return found


def test_events_that_wait_outlive_the_loss_of_the_page_that_leads_to_them(path: Path) -> None:
    fill(path)
    spoil(path, page_of(path, "events", "root"))
    store = salvaged(path)

    assert waiting(store) == {event_id(n): payload(n) for n in range(EVENTS // 2, EVENTS)}
    assert [one.payload for one in store.dead_letters(limit=100)] == [
        payload(n) for n in range(EVENTS // 2 - 20, EVENTS // 2)
    ]
    assert counted(store) == {("damaged", "saved"): EVENTS}
    store.close()


def test_orders_are_remembered_but_for_those_on_a_lost_page(path: Path) -> None:
    minter = Minter(["a-secret-for-tests-of-more-than-32-characters"])
    ids = [minter.mint("Purchase", 0.0, n) for n in range(3000)]
    store = sqlite_store(path, clock=Clock())
    for at in range(0, 3000, 500):
        store_rows(
            store, *[row(one, server="delivered", event_time=NOON) for one in ids[at : at + 500]]
        )
    store.close()
    with closing(sqlite3.connect(path)) as db, db:
        leaves = db.execute("SELECT ncell FROM dbstat WHERE name = 'orders' AND pagetype = 'leaf'")
        fullest = max(n for (n,) in leaves)
    spoil(path, page_of(path, "orders", at=3), page_of(path, "orders", at=9))
    quarantine(path, path.stat().st_ino)
    store = salvaged(path)

    found = [one for at in range(0, 3000, 1000) for one in store.remembered(ids[at : at + 1000])]
    assert 3000 - 2 * fullest <= len(found) < 3000
    assert store.remembered(found[:1]) == {found[0]: Remembered(NOON, same_id=True)}
    assert counted(store)["damaged", "sums"] >= 2
    store.close()


def test_sums_are_those_of_before_the_damage(path: Path) -> None:
    fill(path)
    before = sqlite_store(path)
    known = states(before), sorted(map(str, before.slices("page", 0, 2e9)))
    before.close()
    spoil(path, page_of(path, "payloads", at=0))
    store = salvaged(path)
    lost = counted(store)[("damaged", "settled")]  # of dead letters

    assert 0 < lost <= 4
    ours = [one for one in states(store) if one[0] == PIXEL]
    assert (ours, sorted(str(one) for one in store.slices("page", 0, 2e9))) == known
    store.close()


@pytest.mark.parametrize("table", ["events", "payloads"])
def test_a_lost_page_costs_the_rows_on_it_and_each_is_counted_and_flagged(
    path: Path, table: str
) -> None:
    fill(path)
    spoil(path, page_of(path, table, at=20))
    store = salvaged(path)

    found = waiting(store)
    lost = EVENTS // 2 - len(found)
    depth = store.depth()
    counts = counted(store)
    assert all(body == payload(int(one[:8])) for one, body in found.items())
    assert counts[("damaged", "saved")] == sum(depth.values())
    assert EVENTS - sum(depth.values()) == (
        counts.get(("dropped", "damaged"), 0) + counts.get(("damaged", "settled"), 0)
    )
    assert counts.get(("dropped", "damaged"), 0) == lost
    (flag,) = [
        one
        for one in flags_of(Facts(counts=store.tallies(float("-inf"), float("inf")).counts))
        if one.code == "store_damaged"
    ]
    assert flag.value == EVENTS - sum(depth.values()) > 0
    assert f"{depth['delivered'] + depth['dead'] + len(found):,} events were saved" in (
        flag.explanation
    )
    store.close()


def test_a_file_whose_header_is_gone_is_salvaged_where_its_wal_says_that_it_was_one(
    path: Path,
) -> None:
    fill(path)
    store = sqlite_store(path, clock=Clock())
    store_rows(store, row("in the wal", payload=b"wal"))
    copy = path.with_name("killed.db")
    for ending in ("", "-wal"):
        copy.with_name(f"killed.db{ending}").write_bytes(Path(f"{path}{ending}").read_bytes())
    store.close()
    spoil(copy, 1)
    killed = salvaged(copy)

    assert waiting(killed) == {event_id(n): payload(n) for n in range(EVENTS // 2, EVENTS)} | {
        "in the wal": b"wal"
    }
    assert counted(killed)[("damaged", "unknown")] == 1
    killed.close()


def test_a_file_that_was_cut_off_keeps_what_stood_before(path: Path) -> None:
    fill(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // PAGE * 3 // 4 * PAGE)
    store = salvaged(path)

    found = waiting(store)
    assert all(body == payload(int(one[:8])) for one, body in found.items())
    lost = counted(store).get(("dropped", "damaged"), 0)
    assert 0 < len(found) < EVENTS // 2 <= len(found) + lost
    store.close()


@pytest.mark.parametrize("seed", range(4))
def test_wherever_pages_are_lost_nothing_is_invented_and_what_waited_is_there_or_counted(
    path: Path, seed: int
) -> None:
    fill(path)
    chance = random.Random(seed)
    pages = path.stat().st_size // PAGE
    spoil(path, *chance.sample(range(2, pages), 5))
    probe = sqlite_store(path, clock=Clock())
    with closing(sqlite3.connect(path)) as db, db:
        try:
            sound = db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        except sqlite3.DatabaseError:
            sound = False
    probe.close()
    assert not sound, "found only free pages hit, expected others: take another seed"
    store = salvaged(path)

    found = waiting(store)
    assert all(body == payload(int(one[:8])) for one, body in found.items())
    assert {int(one[:8]) for one in found} <= set(range(EVENTS // 2, EVENTS))
    lost = counted(store).get(("dropped", "damaged"), 0)
    assert len(found) + lost >= EVENTS // 2
    store.close()


def test_salvage_goes_on_where_a_killed_process_stopped_and_takes_nothing_twice(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path)
    spoil(path, page_of(path, "events", at=20))
    step: Callable[..., object] = salvage.Salvage._step
    steps: list[int] = []

    def killed(self: object, *given: object) -> object:
        steps.append(1)
        if len(steps) == 5:
            raise sqlite3.OperationalError("as if killed")
        return step(self, *given)

    monkeypatch.setattr(salvage.Salvage, "_step", killed)
    salvaged(path).close()
    partly = sqlite3.connect(path)
    ((rows,),) = partly.execute("SELECT COUNT(*) FROM events WHERE pixel_id = ?", (PIXEL,))
    partly.close()
    store = sqlite_store(path, clock=Clock())
    until("the rest is taken over", lambda: ("damaged", "saved") in counted(store), 60)

    assert 0 < rows < EVENTS / 2
    depth = store.depth()
    assert counted(store)[("damaged", "saved")] == sum(depth.values())
    store.close()


def test_what_came_into_the_new_file_before_is_kept_and_meets_its_row(path: Path) -> None:
    fill(path)
    spoil(path, page_of(path, "events", at=20))
    store = sqlite_store(path, clock=Clock())
    store_rows(store, row("new", payload=b"new"))
    store.sight([Sighting(event_id(EVENTS - 1), "Purchase", PIXEL, "sent")]).result(10)
    store.close()
    store = salvaged(path)

    found = waiting(store)
    assert found["new"] == b"new"
    (known,) = store.find([event_id(EVENTS - 1)])
    assert (known.browser, known.server) == ("sent", "leased")
    assert found[event_id(EVENTS - 1)] == payload(EVENTS - 1)
    store.close()


@pytest.mark.parametrize("size", [1, 100, 5000, 100_000])
def test_a_file_that_is_no_database_is_refused_and_never_moved(path: Path, size: int) -> None:
    text = (b"a letter to grandmother " * 5000)[:size]
    path.write_bytes(text)
    store = sqlite_store(path)
    commit = store.append([row()], wait=True)
    assert commit is not None

    error = commit.exception(10)
    assert isinstance(error, StoreError)
    assert "no SQLite database" in str(error)
    with pytest.raises(StoreError, match="name another file"):
        store.depth()
    store.close()
    assert path.read_bytes() == text
    assert [one.name for one in path.parent.iterdir()] == ["capi.db"]


# the -wal and the -shm


@pytest.mark.parametrize("endings", [["-wal"], ["-shm"], ["-wal", "-shm"]])
def test_what_only_a_deleted_wal_held_is_written_down_at_the_next_use(
    path: Path, endings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    store = sqlite_store(path, clock=Clock())
    for number in range(20):
        store_rows(store, row(f"before{number}"))
    for ending in endings:
        Path(f"{path}{ending}").unlink()
    for number in range(20):
        store_rows(store, row(f"after{number}"))

    copy = killed(path)
    assert len(waiting(copy)) == 40
    assert "is gone; what it held is in the database now" in caplog.text
    copy.close()
    store.close()


def test_who_comes_while_a_wal_is_gone_waits_for_the_one_who_has_it(path: Path) -> None:
    store, newcomer = sqlite_store(path, clock=Clock()), sqlite_store(path, clock=Clock())
    for number in range(20):
        store_rows(store, row(f"before{number}"))
    Path(f"{path}-wal").unlink()
    commit = newcomer.append([row("late")], wait=True)
    assert commit is not None
    with pytest.raises(TimeoutError):
        commit.exception(0.3)
    store_rows(store, row("after"))

    assert commit.exception(30) is None
    copy = killed(path)
    assert len(waiting(copy)) == 22
    copy.close()
    newcomer.close()
    store.close()


def killed(path: Path) -> Store:
    """A store that sees the files as they would be after a kill of all who have them open."""
    copy = path.with_name("copy.db")
    for ending in ("", "-wal"):
        if Path(f"{path}{ending}").exists():
            Path(f"{copy}{ending}").write_bytes(Path(f"{path}{ending}").read_bytes())
    return sqlite_store(copy, clock=Clock())


def test_threads_and_processes_that_share_a_file_lose_nothing_to_deleted_wals(
    path: Path,
) -> None:
    from tests.store.test_store_sqlite import start

    script = """
import itertools, os, time
for number in itertools.count():
    began = time.monotonic()
    event_id = f"{os.getpid()}-{number}"
    commit = store.append([row(event_id)], wait=True)
    if commit.exception(30) is None:
        print(event_id, began, flush=True)
"""
    processes = [start(path, script) for _ in range(3)]
    heard: list[list[str]] = [[] for _ in processes]

    def hear(n: int, after: float) -> None:
        """The next `n` of each process, and on to one that began `after`: pipes hold older ones."""
        for process, lines in zip(processes, heard, strict=True):
            assert process.stdout is not None
            end, began = len(lines) + n, 0.0
            while len(lines) < end or began < after:
                event_id, told = process.stdout.readline().split()
                lines.append(event_id)
                began = float(told)

    for _ in range(4):
        hear(40, after=0.0)
        for ending in ("-wal", "-shm"):
            Path(f"{path}{ending}").unlink(missing_ok=True)
        # What is killed before its next transaction takes what only it has of a -wal along.
        hear(40, after=time.monotonic())
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    for process, lines in zip(processes, heard, strict=True):
        rest, _ = process.communicate(timeout=60)
        lines += [line.split()[0] for line in rest.splitlines()[:-1]]
    store = sqlite_store(path, clock=time.time)
    with closing(sqlite3.connect(path)) as db, db:
        stored = {one for (one,) in db.execute("SELECT event_id FROM events")}
    store.close()

    assert [one for lines in heard for one in lines if one not in stored] == []
