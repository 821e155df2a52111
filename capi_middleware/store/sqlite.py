"""SQLite: the store in one file that several processes of a machine share, or in memory.

WAL mode with synchronous=FULL: a commit survives a power cut.
"""

import json
import logging
import os
import re
import sqlite3
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from glob import escape
from itertools import chain
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple
from urllib.parse import quote

from capi_middleware.errors import StoreError
from capi_middleware.private import start_apart
from capi_middleware.shield import about
from capi_middleware.store.records import DUTY_SECONDS, LeasedEvent, Look
from capi_middleware.store.rollups import State
from capi_middleware.store.salvage import Salvage
from capi_middleware.store.store import (
    FOLD_STEP,
    STEP_ROWS,
    Access,
    Engine,
    Query,
    Transaction,
    named,
    schema,
)
from capi_middleware.store.turns import Turn, delete_queue
from capi_middleware.store.writer import ForeignError, LockedError, at_fork

logger: logging.Logger = logging.getLogger("capi_middleware.store")

SCHEMA_VERSION = 1
#: Generated columns.
OLDEST_SQLITE = (3, 31, 0)
#: How long a reader waits for a lock, and a writer that no page waits for, in seconds.
BUSY_SECONDS = 5.0
#: How long opening goes on while other processes open the same new file, in seconds.
OPENING_SECONDS = 15.0
#: Pages of 4 KiB in the WAL that start a checkpoint after a commit that nobody waits for, and after
#: any; and what stays of the file afterwards.
WAL_PAGES, LATEST_WAL_PAGES, WAL_BYTES = 2500, 4000, 16 * 1024 * 1024
#: Commits after which the WAL begins anew: those that make its file longer take half as long again.
CHECKPOINT_COMMITS = 100
#: Pages that one step gives back to the file system, and the share of the file that stays free.
SHRINK_PAGES, FREE_SHARE = 100, 0.1
#: How long a writer asks for the lock in its turn before it queues again, and how long strangers
#: may have it before pages are told not to wait, in seconds.
ASKING_SECONDS, STRANGER_SECONDS = 0.025, 0.25
#: How long a turn may take to come before the lock is asked for all the same: somebody of ours is
#: stopped in the queue. And for how long nobody queues then, in seconds.
TURN_SECONDS, STUCK_SECONDS = 0.5, 5.0
#: How long a fork waits for running transactions to end, in seconds.
FORK_SECONDS = 2.0

#: How many prepared statements a connection keeps: all of ours.
_STATEMENTS = 200
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_INTERRUPT)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
#: Free bytes, or share of the disk where that is less, that are left to the acknowledgements of
#: what was delivered: on a full disk nothing could be marked as sent.
RESERVE_BYTES, RESERVE_SHARE = 64 * 1024 * 1024, 0.05
#: What a damaged file is called, before the time of its move.
_MOVED = ".corrupt-"
_HEADER_BYTES = 100
#: How a -wal begins.
_WAL_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
#: How long one process may take to move a damaged file away, in seconds.
_MOVING_SECONDS = 30.0
#: Caused by what should be stored, not by the database.
_OF_THE_DATA = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.NotSupportedError,
    sqlite3.ProgrammingError,
)
_creating = threading.Lock()
#: Connections that a child inherited. Closing them there could remove the parent's locks.
_abandoned: list[object] = []
#: How many rows a statement takes at once: any number is a sum of few of these. Each step of a
#: statement lets go of the interpreter's lock and waits for it again: up to 5 ms while pages keep
#: it busy, and with the database's lock held.
_SIZES = (64, 32, 16, 8, 4, 2, 1)
#: An empty list of keys.
_NONE = "[]"


class _Statements(NamedTuple):
    """A query as SQLite wants it, by how many rows it takes at once: 0 for one that takes none.

    `before` and `after` are the names of the values that it wants around those of the rows.
    """

    texts: Mapping[int, str]
    before: Sequence[str] = ()
    after: Sequence[str] = ()


def _translated(query: Query) -> _Statements:
    text = re.sub(r"\s*FOR UPDATE(?: SKIP LOCKED)?", "", query.text).replace("capi_", "")
    text = re.sub(r"= ANY\(:(\w+)\)", r"IN (SELECT value FROM json_each(:\1))", text)
    if not query.columns:
        return _Statements({0: text})
    # By their place, as values are bound faster without a look for their names.
    head, _, tail = text.partition("{new}")
    before, after = (re.findall(r":(\w+)", part) for part in (head, tail))
    head, tail = (re.sub(r":\w+", "?", part) for part in (head, tail))
    row = f"({', '.join('?' * len(query.columns))})"
    new = f"WITH new ({', '.join(name for name, _ in query.columns)}) AS (VALUES "
    texts = {n: f"{head}{new}{', '.join([row] * n)}){tail}" for n in _SIZES}
    return _Statements(texts, before, after)


QUERIES: Mapping[str, _Statements] = {
    name: _translated(query) for name, query in named("queries.sql", "queries_sqlite.sql").items()
}


class _Transaction(Transaction):
    """See Transaction. `db`: the connection."""

    def __init__(
        self, db: sqlite3.Connection, now: float, go_on_behind: Callable[[], None],
        turn: Turn | None = None,
    ) -> None:  # fmt: skip
        self.now: float = now
        self.db: sqlite3.Connection = db
        self._go_on_behind = go_on_behind
        self._turn = turn

    def is_wanted(self) -> bool:
        return self._turn is not None and self._turn.is_wanted()

    def give_way(self) -> None:
        if self.is_wanted():
            self._go_on_behind()

    def pragma(self, text: str) -> int:
        """What a pragma answers, 0 where it has no answer."""
        answers = self.db.execute(f"PRAGMA {text}").fetchall()
        return int(answers[0][0]) if answers and answers[0] else 0

    def settle(self, lease_id: str, outcomes: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
        held, now = 0, self.now
        for state, outcome in outcomes:
            keys = outcome["keys"]
            for at in range(0, len(keys), STEP_ROWS):
                some = keys[at : at + STEP_ROWS]
                given = {**outcome, "lease_id": lease_id, "keys": json.dumps(some)}
                if state in ("pending", "refused"):  # to the sums it was that before
                    held += self.run(f"settle_{state}", now=now, **given)
                else:
                    # The triggers would write down row by row what changes.
                    self.run("trigger")
                    held += self.run(f"settle_{state}", now=now, **given)
                    self.run("trigger")
                    self.run("note", **given)
                if state in ("delivered", "stopped"):
                    self.run("forget_payloads", keys=some)
                self.run("end_lease", lease_id=lease_id, keys=some)
                if len(some) == STEP_ROWS:
                    self.give_way()
        return held

    def take_changes(self) -> tuple[list[State], bool]:
        [(change, last_change, row, last_row)] = self.read("folded", limit=FOLD_STEP)
        taken = [
            *(State(*columns) for columns in self.read("changes", to=change)),
            *(State(*columns) for columns in self.read("fresh", to=row)),
        ]
        self.run("forget_changes", to=change)
        self.run("summed", to=row)
        return taken, change < last_change or row < last_row

    def _execute(self, query: str, given: dict[str, Any]) -> sqlite3.Cursor:
        for name, value in given.items():
            if type(value) is list:
                given[name] = json.dumps(value)
        return self.db.execute(QUERIES[query].texts[0], given)

    def _execute_many(
        self, query: str, rows: Sequence[Sequence[Any]], given: Mapping[str, Any]
    ) -> Iterator[sqlite3.Cursor]:
        (texts, before, after), done = QUERIES[query], 0
        first, last = [given[name] for name in before], [given[name] for name in after]
        for n in _SIZES:
            while len(rows) - done >= n:
                values = tuple(chain(first, *rows[done : done + n], last))
                done += n
                yield self.db.execute(texts[n], values)


class SqliteEngine(Engine):
    """See Engine. A transaction's time is by `clock`, Unix time in seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._clock = clock
        self._duty_at = 0.0
        self._start_over()
        at_fork(
            before=self._before_fork,
            after_in_parent=self._after_fork_in_parent,
            after_in_child=self._abandon,
        )

    def group(self, of: object) -> AbstractContextManager[Transaction]:
        """See Engine.group. A failed COMMIT has stored nothing: no group is asked for twice."""
        return self.transaction("group")

    def claim(
        self, pixel_id: str, lease_id: str, *, limit: int, seconds: float, surely: float | None
    ) -> tuple[list[LeasedEvent], bool]:
        """See Engine.claim."""
        with self.transaction("write") as db:
            given = {"pixel_id": pixel_id, "now": db.now}
            db.run("release", now=db.now)
            db.run("hurry", wait=self._longest_wait(pixel_id, db.now), **given)
            latest = db.now if surely is None else min(db.now, surely)
            [(due, expired)] = db.read("due", limit=limit, surely=latest, **given)
            if surely is None and expired != _NONE:
                spared = set(json.loads(expired))
                due = json.dumps([key for key in json.loads(due) if key not in spared])
                expired = _NONE
            if expired != _NONE:
                db.run("expire", keys=expired)
                db.run("forget_payloads", keys=expired)
            if due != expired:
                db.run("lease", due=due, lease_id=lease_id, until=db.now + seconds)
        if due == expired:
            return [], due != _NONE
        with self.transaction("read") as db:
            found = db.read("leased", due=due, lease_id=lease_id, now=db.now)
        return [LeasedEvent(*columns) for columns in found], expired != _NONE

    def look(self, pixel_ids: Sequence[str] | None, every: float) -> Look:
        """See Engine.look. Reading a file costs others nothing: each process looks."""
        with self.transaction("read") as db:
            if pixel_ids is None:
                pixel_ids = [pixel_id for (pixel_id,) in db.read("pixels_waiting")]
            due = {pixel_id for (pixel_id,) in db.read("look", pixel_ids=[*pixel_ids], now=db.now)}
            due |= self._put_off(pixel_ids, db.now)
        now = time.monotonic()
        on_duty = now >= self._duty_at
        if on_duty:
            self._duty_at = now + DUTY_SECONDS
        return Look(due, every, on_duty)

    @abstractmethod
    def _start_over(self) -> None:
        """Begin without a connection, and with locks that nobody holds."""

    @abstractmethod
    def _before_fork(self) -> None:
        """Wait, not for ever, until no transaction runs."""

    @abstractmethod
    def _after_fork_in_parent(self) -> None:
        """Let transactions begin again."""

    @abstractmethod
    def _abandon(self) -> None:
        """Start over in a forked child, without a touch of what it inherited."""


#: The inodes of a database, its -wal and its -shm; None for what is not there.
_Files = tuple[int | None, int | None, int | None]


class _Connection(sqlite3.Connection):
    """`files` are what it has open; None when it is not to be used again. `thread` holds it."""

    files: _Files | None = None
    thread: int = 0
    access: Access | None = None

    def __del__(self) -> None:
        # An engine needs no closing: from 3.13 on Python warns of what is dropped open.
        with suppress(sqlite3.Error):  # of one that could not be opened
            self.close()


class File(SqliteEngine):
    """The database at `path`, made with mode 0600 when missing: see SqliteEngine.

    A missing directory, another application's file or another schema show as StoreError at the
    first use. Each thread has a connection to itself for as long as its transaction.

    Nothing but SQLite opens or closes the database, its -wal and its -shm: closing any file
    descriptor of a file drops all POSIX locks that the process has on it, SQLite's as well.

    SQLite keeps its locks per process in memory, and a child that inherits a held one finds the
    database locked for ever (measured with SQLite 3.40). So a fork waits for running
    transactions and closes all connections first; they are opened again when needed.
    """

    immediate = False

    def __init__(
        self, path: str | os.PathLike[str], clock: Callable[[], float] = time.time
    ) -> None:
        # The working directory may change before the first use.
        self.path: Path = Path(path).absolute()
        self.beside: Path = self.path
        self.name: str = str(self.path)
        self._wal = Path(f"{self.name}-wal")
        #: As texts: they are looked at in each transaction.
        self._names = self.name, f"{self.name}-wal", f"{self.name}-shm"
        super().__init__(clock)

    def _start_over(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition(threading.RLock())
        #: Threads that are about to fork.
        self._forking = 0
        #: Since when somebody who does not queue has the write lock, as time.monotonic().
        self._strange_since: float | None = None
        #: Until when the queue is not worth waiting for, as time.monotonic().
        self._stuck_until = 0.0
        self._turns: set[Turn] = set()
        #: Since the WAL began anew.
        self._commits = 0
        #: The threads that hold connections, once for each.
        self._lent: list[int] = []
        self._opened: set[_Connection] = set()
        self._free: list[_Connection] = []
        #: What the open connections have open; None without any.
        self._ours: _Files | None = None
        #: The file that was found to be a database of ours.
        self._known: int | None = None
        #: Whether damaged files were looked for, and what takes over what they hold: see Salvage.
        self._has_looked = False
        self._salvaging: threading.Thread | None = None
        self._stop = threading.Event()

    def _abandon(self) -> None:
        global _creating
        _abandoned.append(self._opened)
        for turn in self._turns:
            turn.abandon()
        _creating = threading.Lock()  # a thread that does not exist here may hold it
        self._start_over()

    def _before_fork(self) -> None:
        self._changed.acquire()
        self._forking += 1
        if not self._changed.wait_for(lambda: not self._lent, FORK_SECONDS):
            for db in self._opened:
                db.interrupt()  # a long read begins again; a child cannot use its locks
            self._changed.wait_for(lambda: not self._lent, FORK_SECONDS)
        self._close_free()

    def _after_fork_in_parent(self) -> None:
        self._forking -= 1
        self._changed.notify_all()
        self._changed.release()

    @contextmanager
    def transaction(self, access: Access) -> Iterator[_Transaction]:
        """See Engine.transaction: a reading one holds up the checkpoint of everybody.

        Writers of all processes take turns.
        """
        if access == "group":
            self._check_space()
        patience = BUSY_SECONDS if access == "write" else STRANGER_SECONDS
        db, usable, turn = self._take(), True, None
        try:
            if db.access != access:
                asking = BUSY_SECONDS if access == "read" else ASKING_SECONDS
                db.execute(f"PRAGMA busy_timeout = {int(asking * 1000)}")
                # Nobody waits for an idle one: it may bring what is in the WAL into the database.
                pages = WAL_PAGES if access == "idle" else LATEST_WAL_PAGES
                db.execute(f"PRAGMA wal_autocheckpoint = {pages}")
                db.execute(f"PRAGMA query_only = {int(access == 'read')}")
                db.access = access
            if access == "read":
                db.execute("BEGIN")
                yield _Transaction(db, self._clock(), _nobody_waits)
            else:
                turn = Turn(self.path)
                self._turns.add(turn)
                self._begin(db, turn, patience)
                go_on = partial(self._go_on_behind, db, turn, patience)
                yield _Transaction(db, self._clock(), go_on, turn)
            db.execute("COMMIT")
            if access != "read":
                self._commits = 0 if access == "idle" else self._commits + 1
        except sqlite3.Error as error:
            if _is_of_the_data(error):
                raise
            usable = _code(error) in (*_LOCKED, sqlite3.SQLITE_FULL)
            raise self._trouble(error, db.files and db.files[0]) from error
        finally:
            self._give_back(db, usable=usable)
            if turn is not None:
                self._turns.discard(turn)
                turn.end()

    def _begin(self, db: _Connection, turn: Turn, patience: float) -> None:
        """Begin to write when `turn` comes: whoever has the lock then is a stranger.

        `patience` is with strangers, in seconds; with our own it is BUSY_SECONDS.
        """
        end = time.monotonic() + BUSY_SECONDS
        while True:
            is_stuck = time.monotonic() < self._stuck_until
            came = turn.wait(0.0 if is_stuck else TURN_SECONDS)
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                now = time.monotonic()
                if _code(error) not in _LOCKED or now > end:
                    raise
                self._stuck_until = 0.0
                if came:
                    self._strange_since = self._strange_since or now
                    if now - self._strange_since > patience:
                        raise
                    turn.leave()  # the others of ours must see it as well
            else:
                self._strange_since = None
                if not came and not is_stuck:
                    self._stuck_until = time.monotonic() + STUCK_SECONDS
                if db.files is not None and db.files != self._files():
                    # Others may have gone on elsewhere while this waited for the lock.
                    raise LockedError(f"{self.path}: its files were replaced meanwhile")
                return

    def _go_on_behind(self, db: _Connection, turn: Turn, patience: float) -> None:
        db.execute("COMMIT")
        turn.leave()
        self._begin(db, turn, patience)

    def _check_space(self) -> None:
        try:
            disk = os.statvfs(self.path.parent)
        except OSError:
            return  # opening it will say what is wrong
        free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        if free < min(RESERVE_BYTES, total * RESERVE_SHARE):
            raise LockedError(f"{self.path}: the disk is full ({free // 1024:,} KiB free)")

    def shrink(self) -> bool:
        """See Engine.shrink: pages from the end of the file take the places of free ones.

        Some stay free for what comes next.
        """
        with self.transaction("write") as db:
            free, pages = db.pragma("freelist_count"), db.pragma("page_count")
            more = free - SHRINK_PAGES > pages * FREE_SHARE
            if more:
                db.pragma(f"incremental_vacuum({SHRINK_PAGES})")
                more = db.pragma("freelist_count") < free  # a file that cannot shrink
        self.tidy()
        return more

    def tidy(self) -> None:
        """See Engine.tidy: bring what is in the WAL into the database, as far as nobody reads."""
        if self._commits < CHECKPOINT_COMMITS:
            return
        self._commits = 0
        db = self._take()
        try:
            with suppress(sqlite3.Error):  # the next transaction says what is wrong
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            self._give_back(db, usable=True)

    def close(self, timeout: float = 0.0) -> None:
        """Close what is free now, and the rest when it comes back. A later use opens again."""
        if self._pid != os.getpid():
            return
        self._stop.set()
        if self._salvaging is not None and self._salvaging is not threading.current_thread():
            self._salvaging.join(timeout)
        self._salvaging, self._has_looked = None, False
        with self._changed:
            with suppress(LockedError):
                self._watch()
            for db in [one for one in self._free if one.total_changes][:1]:
                # Best effort: other processes may be reading, and the last one to close the
                # file does the same anyway.
                with suppress(sqlite3.Error):
                    db.execute("PRAGMA busy_timeout = 0")
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._close_free()
        with suppress(OSError):
            delete_queue(self.path)

    def _close_free(self) -> None:
        self._ours = None
        for db in self._opened:
            db.files = None  # what is lent is closed when it comes back
        while self._free:
            self._end(self._free.pop())

    def _end(self, db: _Connection) -> None:
        self._opened.discard(db)
        db.close()

    def _take(self) -> _Connection:
        if self._pid != os.getpid():
            self._abandon()
        thread = threading.get_ident()
        with self._changed:
            if self._forking and thread not in self._lent:
                # Bounded, as another library's fork hook may call us on the forking thread. Who
                # holds a connection is waited for by the fork itself.
                self._changed.wait_for(lambda: not self._forking, 2 * FORK_SECONDS)
            self._watch()
            self._lent.append(thread)
            if self._free:
                db = self._free.pop()
                db.thread = thread
                return db
        try:
            db = self._connect()
        except BaseException:
            with self._changed:
                self._lent.remove(thread)
                self._changed.notify_all()
            raise
        db.thread = thread
        self._opened.add(db)
        return db

    def _files(self) -> _Files:
        main, wal, shm = self._names
        try:
            return os.stat(main).st_ino, os.stat(wal).st_ino, os.stat(shm).st_ino  # noqa: PTH116
        except OSError:
            return _inode_of(main), _inode_of(wal), _inode_of(shm)

    def _watch(self) -> None:
        """Let go of files that are not ours any more, with what only we have of them written down.

        Who opens a file whose -wal or -shm is gone does not see what is only there. Raises
        LockedError while others keep us from it.
        """
        ours = self._ours
        if ours is None or ours == (found := self._files()):
            return
        if ours[0] == found[0]:
            if not self._changed.wait_for(lambda: not self._lent, BUSY_SECONDS):
                raise LockedError(f"{self.path}: a transaction takes long")
            self._write_down(ours)
        self._close_free()

    def _write_down(self, ours: _Files) -> None:
        text = "its -wal or -shm was replaced by another, which is used now"
        _, wal, shm = self._files()
        if shm in (None, ours[2]) and (wal in (None, ours[1]) or not self._wal.stat().st_size):
            try:
                db = self._free[-1]
                db.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
                db.access = None
                ((busy, *_),) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except (sqlite3.Error, IndexError) as error:
                text = f"its -wal or -shm is gone, with what it held: {error}"
            else:
                if busy:
                    raise LockedError(f"{self.path}: its -wal or -shm is gone, and others read it")
                text = "its -wal or -shm is gone; what it held is in the database now"
        logger.critical("%s: %s", self.path, text, extra=about("store_wal_replaced"))

    def _give_back(self, db: _Connection, *, usable: bool) -> None:
        try:
            if usable and db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error:
            usable = False
        with self._changed:
            if usable and db.files is not None:
                self._free.append(db)
            else:
                self._end(db)
            self._lent.remove(db.thread)
            self._changed.notify_all()

    def _connect(self) -> _Connection:
        """A connection in autocommit mode. Raises StoreError when there is none to our tables."""
        _create_file(self.path)
        inode = _inode_of(self.name)
        if inode != self._known and not _has_header(self.path):
            if not _was_database(self._wal):
                raise _foreign(self.path)
            quarantine(self.path, inode)
            raise LockedError(f"{self.path}: the file is damaged")
        deadline = time.monotonic() + OPENING_SECONDS
        while True:
            try:
                db = _prepared(self.path)
            except sqlite3.Error as error:
                if _code(error) not in _LOCKED or time.monotonic() > deadline:
                    raise self._trouble(error, inode) from error
                time.sleep(0.01)  # other processes hold the lock
            else:
                _, wal, shm = self._files()
                self._ours = db.files = inode, wal, shm
                self._known = inode
                self._look_for_damaged()
                return db

    def _look_for_damaged(self) -> None:
        """Go on with what was moved aside, here or by a process that has ended."""
        with self._changed:
            if self._has_looked:
                return
            self._has_looked = True
            # The newest first: it knows what became of older ones.
            moved = damaged_beside(self.path)[::-1]
            if moved:
                self._stop = threading.Event()
                self._salvaging = threading.Thread(
                    target=self._salvage, args=(moved, self._stop), name="capi-store-salvage",
                    daemon=True,
                )  # fmt: skip
                start_apart(self._salvaging)

    def _salvage(self, moved: Sequence[Path], stop: threading.Event) -> None:
        for one in moved:
            Salvage(one, partial(self.transaction, "write")).run(stop)

    def _trouble(self, error: sqlite3.Error, inode: int | None) -> StoreError:
        """What callers get to see. A damaged file, of which that is the inode, is moved aside."""
        code = _code(error)
        if code in _DAMAGED:
            quarantine(self.path, inode)
            self._has_looked = False  # the next connection finds what was moved
            return LockedError(f"{self.path}: the file is damaged")  # the next try makes a new one
        if code in _LOCKED:
            return LockedError(f"{self.path}: the database is locked by another process")
        if code == sqlite3.SQLITE_FULL:
            return LockedError(f"{self.path}: the disk is full")
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHORT_READ:
            # Its -wal was deleted: who still has it writes it down, see _watch.
            return LockedError(f"{self.path}: another process has what its -wal held")
        return StoreError(f"{self.path}: {error}")


class Memory(SqliteEngine):
    """A database in this process's memory, on one connection: see SqliteEngine.

    A child of a fork has its own: the parent delivers what it has; here it would go out twice.
    """

    name = "memory:"
    immediate = True

    def _start_over(self) -> None:
        self._db: sqlite3.Connection | None = None
        # Reentrant: what interrupts us, a signal handler or a finalizer, joins our transaction.
        self._lock = threading.RLock()
        self._is_held = False

    def _abandon(self) -> None:
        _abandoned.append(self._db)
        self._start_over()

    def _before_fork(self) -> None:
        self._is_held = self._lock.acquire(timeout=FORK_SECONDS)

    def _after_fork_in_parent(self) -> None:
        if self._is_held:
            self._lock.release()

    @contextmanager
    def transaction(self, access: Access) -> Iterator[_Transaction]:
        """See Engine.transaction. Nobody else can hold a lock for long."""
        with self._lock:
            if self._db is None:
                self._db = _open(":memory:")
                for statement in schema("sqlite.sql"):
                    self._db.execute(statement)
            db, joins = self._db, self._db.in_transaction
            if not joins:
                db.execute("BEGIN")
            try:
                yield _Transaction(db, self._clock(), _nobody_waits)
            except BaseException:
                if not joins:
                    db.execute("ROLLBACK")
                raise
            if not joins:
                db.execute("COMMIT")

    def shrink(self) -> bool:
        """See Engine.shrink: nothing."""
        return False

    def tidy(self) -> None:
        """See Engine.tidy: nothing."""

    def close(self, timeout: float) -> None:
        """Nothing: the events stay, as there is nowhere else to read them from."""


def _nobody_waits() -> None:
    """For a transaction that holds up nobody."""


def _open(path: str | Path) -> _Connection:
    # The busy timeout is set with the opening: everything after it may meet a lock.
    return sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False,
        cached_statements=_STATEMENTS, factory=_Connection,
    )  # fmt: skip


def _is_of_the_data(error: sqlite3.Error) -> bool:
    """Whether `error` comes from the values of a statement, not from the database."""
    return isinstance(error, _OF_THE_DATA) and _code(error) != sqlite3.SQLITE_MISUSE


def _inode_of(path: str) -> int | None:
    """Which file that is now. By name: closing a descriptor of ours would drop SQLite's locks."""
    try:
        return os.stat(path).st_ino  # noqa: PTH116
    except OSError:
        return None


def damaged_beside(path: Path) -> list[Path]:
    """Files that quarantine() moved aside, the oldest first, without their -wal and -shm."""
    found = path.parent.glob(f"{escape(path.name)}{_MOVED}*")
    return sorted(one for one in found if not one.name.endswith(("-wal", "-shm")))


def quarantine(path: Path, inode: int | None) -> None:
    """Move a damaged database aside, with its -wal and -shm, so that a fresh one can be made.

    Nothing is deleted. `inode` is that of the damaged file: another process may have moved it.
    """
    gate = path.with_name(f"{path.name}.quarantine")
    try:
        gate.mkdir()
    except FileExistsError:
        # Another process is at it, or was killed while it was.
        with suppress(OSError):
            if time.time() - gate.stat().st_mtime > _MOVING_SECONDS:
                gate.rmdir()
        return
    try:
        if inode is not None and path.stat().st_ino == inode:
            moved = path.with_name(f"{path.name}{_MOVED}{int(time.time())}")
            for ending in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    Path(f"{path}{ending}").rename(f"{moved}{ending}")
            logger.critical(
                "%s is damaged: it was moved to %s; a new one takes over what can be read of it",
                path, moved, extra=about("store_damaged"),
            )  # fmt: skip
    except OSError as error:
        text = "%s is damaged and cannot be moved: %s"
        logger.critical(text, path, error, extra=about("store_stuck"))
    finally:
        gate.rmdir()


def _has_header(path: Path) -> bool:
    """Whether SQLite knows the file, or it is empty. Nothing but its first page is looked at.

    An ordinary connection to a file without a header takes away the -wal that stands beside it.
    """
    uri = f"file:{quote(str(path))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as db:
            db.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        return _code(error) != sqlite3.SQLITE_NOTADB
    return True


def _was_database(wal: Path) -> bool:
    """Whether there is a -wal: SQLite leaves it behind only beside a database that is in use."""
    try:
        with wal.open("rb") as file:  # nobody has a lock on it
            return file.read(4) in _WAL_MAGIC
    except OSError:
        return False


def _foreign(path: Path) -> ForeignError:
    return ForeignError(
        f"{path}: found a file that is no SQLite database, expected one of ours, or none: name "
        "another file in the store setting, or move this one away"
    )


def _create_file(path: Path) -> None:
    """Create an empty file that only its owner may read; SQLite copies the mode to -wal."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreError(f"found SQLite {sqlite3.sqlite_version}, expected 3.31 or newer")
    with _creating:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            if not path.exists():  # what a link names is somebody else's to make
                raise StoreError(
                    f"{path}: found a link to a file that is not there, expected a file or none"
                ) from None
            if 0 < path.stat().st_size < _HEADER_BYTES:  # which SQLite may take for an empty one
                raise _foreign(path) from None
            _narrow(path)
            return
        except FileNotFoundError as error:
            raise StoreError(
                f"{path}: found no directory {path.parent}, expected an existing one"
            ) from error
        except OSError as error:
            raise StoreError(f"{path}: {error}") from error
        # Nobody else in this process can have it open yet: it is ours and new.
        os.close(descriptor)
        path.chmod(0o600)  # the umask may have taken even the owner's bits


def _narrow(path: Path) -> None:
    """Leave what an older run made with wider rights to its owner alone.

    By name: closing a descriptor of ours would drop SQLite's locks.
    """
    for main in {path, path.resolve()}:  # SQLite's own files stand beside what a link names
        files = [
            main.with_name(f"{main.name}{ending}") for ending in ("", "-wal", "-shm", "-queue")
        ]
        for one in [*files, *main.parent.glob(f"{escape(main.name)}{_MOVED}*")]:
            with suppress(OSError):
                mode = one.lstat().st_mode
                if S_ISREG(mode) and mode & 0o077:
                    one.chmod(0o600)


def _prepared(path: Path) -> _Connection:
    """A connection to our tables, which are made when missing."""
    db = _open(path)
    try:
        version = _version(db, path)  # before anything of another application is changed
        if version == 0:  # has an effect before the first table is made, and none later
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        # Switching to WAL ignores the busy timeout when two processes do it at once.
        if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise StoreError(f"{path}: this file system cannot hold a database in WAL mode")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        if version == 0:
            db.execute("BEGIN IMMEDIATE")
            if _version(db, path) == 0:  # no other process was first
                for statement in schema("sqlite.sql"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


def _version(db: sqlite3.Connection, path: Path) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version == 0 and db.execute("SELECT 1 FROM sqlite_master").fetchone():
        # Another process may have created our tables between the two reads.
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            raise StoreError(
                f"{path}: found tables of another application, expected a file of its own"
            )
    if version not in (0, SCHEMA_VERSION):
        raise StoreError(
            f"{path}: found schema {version}, expected {SCHEMA_VERSION}: another version of "
            "capi_middleware wrote this file, use the same version or another file"
        )
    return version


def _code(error: Exception) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF
