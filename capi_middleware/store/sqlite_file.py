"""One SQLite file and the connections to it: made, opened, checked, never carried over a fork.

WAL mode with synchronous=FULL: a commit survives a power cut.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from capi_middleware.errors import StoreError
from capi_middleware.shield import about
from capi_middleware.store.store import schema
from capi_middleware.store.writer import LockedError, OwnLockError, at_fork

logger: logging.Logger = logging.getLogger("capi_middleware.store")

SCHEMA_VERSION = 1
#: Generated columns.
OLDEST_SQLITE = (3, 31, 0)
#: How long SQLite waits for another process's lock, in seconds.
BUSY_SECONDS = 5.0
#: How long opening goes on while other processes open the same new file, in seconds.
OPENING_SECONDS = 15.0
#: Pages of 4 KiB in the WAL that start a checkpoint after a commit that nobody waits for, and after
#: any; and what stays of the file afterwards.
WAL_PAGES, LATEST_WAL_PAGES, WAL_BYTES = 2500, 4000, 16 * 1024 * 1024
#: Commits after which the WAL begins anew: those that make its file longer take half as long again.
CHECKPOINT_COMMITS = 100
#: How long a group commit waits for the lock before pages are told not to, in seconds.
LOCK_PATIENCE = 0.025
#: How long a fork waits for running transactions to end, in seconds.
FORK_SECONDS = 2.0

#: How many prepared statements a connection keeps: all of ours.
_STATEMENTS = 200
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
#: Free bytes, or share of the disk where that is less, that are left to the acknowledgements of
#: what was delivered: on a full disk nothing could be marked as sent.
RESERVE_BYTES, RESERVE_SHARE = 64 * 1024 * 1024, 0.05
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


class _Handle:
    """One connection, the free list it lives in, and which file it has open."""

    def __init__(self, db: sqlite3.Connection, home: "list[_Handle]", path: Path) -> None:
        self.db = db
        self.home = home
        self._path = path
        self.inode = _inode_of(path)

    def is_current(self) -> bool:
        """Whether the path still is the file that was opened (it may have been replaced)."""
        return self.inode is not None and _inode_of(self._path) == self.inode


class File:
    """A database in a file: lends connections to threads, each to one at a time.

    Nothing but SQLite opens or closes the database, its -wal and its -shm: closing any file
    descriptor of a file drops all POSIX locks that the process has on it, SQLite's as well.

    SQLite keeps its locks per process in memory, and a child that inherits a held one finds the
    database locked for ever (measured with SQLite 3.40). So a fork waits for running
    transactions and closes all connections first; they are opened again when needed.
    """

    def __init__(self, path: Path) -> None:
        # The working directory may change before the first use.
        self.path: Path = path.absolute()
        self.name: str = str(self.path)
        self._start_over()
        at_fork(
            before=self._before_fork,
            after_in_parent=self._after_fork_in_parent,
            after_in_child=self._abandon,
        )

    def _start_over(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition(threading.RLock())
        self._forking = False
        #: Whether a thread of this process has the write lock: one at a time can.
        self._writing = False
        self._lent = 0
        self._opened: set[_Handle] = set()
        self._writers: list[_Handle] = []
        self._readers: list[_Handle] = []

    def _abandon(self) -> None:
        _abandoned.append(self._opened)
        _forget_locks()
        self._start_over()

    def _before_fork(self) -> None:
        self._changed.acquire()
        self._forking = True
        self._changed.wait_for(lambda: self._lent == 0, FORK_SECONDS)
        self._close_free()

    def _after_fork_in_parent(self) -> None:
        self._forking = False
        self._changed.notify_all()
        self._changed.release()

    @contextmanager
    def writing(
        self, patience: float = BUSY_SECONDS, *, checkpoint: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """One transaction that has the write lock from its start and commits at the end.

        `patience`: how long to wait for the lock, in seconds. `checkpoint`: nobody waits for it, so
        that it may bring what is in the WAL into the database.

        Raises LockedError when the lock could not be had (OwnLockError where a thread of this
        process has it), another StoreError when the database failed. Exceptions caused by the
        data come through as they are; then nothing was written.
        """
        with self._lend(readonly=False) as db:
            db.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")
            pages = WAL_PAGES if checkpoint else LATEST_WAL_PAGES
            db.execute(f"PRAGMA wal_autocheckpoint = {pages}")
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if self._writing:
                    raise OwnLockError(f"{self.path}: a courier of this process writes") from error
                raise
            self._writing = True
            try:
                yield db
                db.execute("COMMIT")
            finally:
                self._writing = False

    def check_space(self) -> None:
        """Raises LockedError when the disk has no more than its reserve."""
        try:
            disk = os.statvfs(self.path.parent)
        except OSError:
            return  # opening it will say what is wrong
        free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        if free < min(RESERVE_BYTES, total * RESERVE_SHARE):
            raise LockedError(f"{self.path}: the disk is full ({free // 1024:,} KiB free)")

    def checkpoint(self) -> None:
        """Bring what is in the WAL into the database, as far as nobody reads it."""
        with self._lend(readonly=False) as db:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view. Keep it short: it holds up the checkpoint of everybody."""
        with self._lend(readonly=True) as db:
            db.execute("BEGIN")
            yield db
            db.execute("COMMIT")

    def close(self) -> None:
        """Close what is free now, and the rest when it comes back. A later use opens again."""
        if self._pid != os.getpid():
            return
        with self._changed:
            if self._writers:
                # Best effort: other processes may be reading, and the last one to close the
                # file does the same anyway.
                with suppress(sqlite3.Error):
                    self._writers[-1].db.execute("PRAGMA busy_timeout = 0")
                    self._writers[-1].db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._close_free()

    def _close_free(self) -> None:
        for handle in [*self._writers, *self._readers]:
            self._end(handle)
        # New lists: a handle whose home is gone is closed when it comes back.
        self._writers, self._readers = [], []

    def _end(self, handle: _Handle) -> None:
        self._opened.discard(handle)
        handle.db.close()

    @contextmanager
    def _lend(self, *, readonly: bool) -> Iterator[sqlite3.Connection]:
        handle = self._take(readonly=readonly)
        usable = True
        try:
            yield handle.db
        except sqlite3.Error as error:
            if _is_of_the_data(error):
                raise
            if _is_damaged(error):
                quarantine(self.path, handle.inode)
            trouble = _failure(error, self.path)
            usable = isinstance(trouble, LockedError) and not _is_damaged(error)
            raise trouble from error
        finally:
            self._give_back(handle, usable=usable)

    def _take(self, *, readonly: bool) -> _Handle:
        if self._pid != os.getpid():
            self._abandon()
        with self._changed:
            # Bounded, as another library's fork hook may call us on the forking thread.
            self._changed.wait_for(lambda: not self._forking, FORK_SECONDS)
            home = self._readers if readonly else self._writers
            handle = home.pop() if home else None
            if handle is not None and not handle.is_current():
                self._end(handle)
                self._close_free()
                return self._take(readonly=readonly)
            self._lent += 1
        if handle is not None:
            return handle
        try:
            handle = _Handle(_connect(self.path, readonly=readonly), home, self.path)
        except BaseException:
            with self._changed:
                self._lent -= 1
                self._changed.notify_all()
            raise
        self._opened.add(handle)
        return handle

    def _give_back(self, handle: _Handle, *, usable: bool) -> None:
        try:
            if usable and handle.db.in_transaction:
                handle.db.execute("ROLLBACK")
        except sqlite3.Error:
            usable = False
        with self._changed:
            if usable and (handle.home is self._readers or handle.home is self._writers):
                handle.home.append(handle)
            else:
                self._end(handle)
            self._lent -= 1
            self._changed.notify_all()


class Memory:
    """A database in this process's memory, on one connection; a child of a fork has its own."""

    name = "memory:"

    def __init__(self) -> None:
        self._start_over()
        at_fork(
            before=self._before_fork,
            after_in_parent=self._after_fork_in_parent,
            after_in_child=self._abandon,
        )

    def _start_over(self) -> None:
        # In a forked child: the parent delivers what it has; here it would go out twice.
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
    def writing(
        self, patience: float = BUSY_SECONDS, *, checkpoint: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """One transaction that commits at its end. Nobody else can hold a lock for long."""
        with self.reading() as db:
            if db.in_transaction:
                yield db
                return
            db.execute("BEGIN")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view."""
        with self._lock:
            if self._db is None:
                self._db = _connect_to(":memory:")
                for statement in schema("sqlite.sql"):
                    self._db.execute(statement)
            yield self._db

    def check_space(self) -> None:
        """There is always room."""

    def checkpoint(self) -> None:
        """There is nothing to bring anywhere."""

    def close(self) -> None:
        """Nothing: the events stay, as there is nowhere else to read them from."""


def _connect(path: Path, *, readonly: bool) -> sqlite3.Connection:
    """A connection in autocommit mode to the database at `path`, which is made when missing.

    Raises StoreError when it cannot be opened or is not ours, LockedError when it is locked.
    """
    _create_file(path)
    inode = _inode_of(path)
    try:
        db = _connect_to(path)
        try:
            _patiently(lambda: _prepare(db, path))
            if readonly:
                db.execute("PRAGMA query_only = ON")
        except BaseException:
            db.close()
            raise
    except sqlite3.Error as error:
        if _is_damaged(error):
            quarantine(path, inode)
        raise _failure(error, path) from error
    return db


def _connect_to(path: str | Path) -> sqlite3.Connection:
    # The busy timeout is set with the opening: everything after it may meet a lock.
    return sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False,
        cached_statements=_STATEMENTS,
    )  # fmt: skip


def _inode_of(path: Path) -> int | None:
    """Which file `path` is now. By name: closing a descriptor of ours would drop SQLite's locks."""
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _forget_locks() -> None:
    """In a forked child: a thread that does not exist here may hold the lock."""
    global _creating
    _creating = threading.Lock()


def _is_of_the_data(error: sqlite3.Error) -> bool:
    """Whether `error` comes from the values of a statement, not from the database."""
    return isinstance(error, _OF_THE_DATA) and _code(error) != sqlite3.SQLITE_MISUSE


def _failure(error: Exception, path: Path) -> StoreError:
    """What callers get to see for a driver's or the system's `error`."""
    if _code(error) in _LOCKED:
        return LockedError(f"{path}: the database is locked by another process")
    if _is_damaged(error):
        return LockedError(f"{path}: the file is damaged")  # the next try makes a new one
    if _code(error) == sqlite3.SQLITE_FULL:
        return LockedError(f"{path}: the disk is full")
    return StoreError(f"{path}: {error}")


def _is_damaged(error: Exception) -> bool:
    """Whether `error` means that the file is no readable database (any more)."""
    return _code(error) in _DAMAGED


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
            moved = path.with_name(f"{path.name}.corrupt-{int(time.time())}")
            for ending in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    Path(f"{path}{ending}").rename(f"{moved}{ending}")
            logger.critical(
                "%s is damaged: it was moved to %s, and a new one is made; events in it that were "
                "not delivered are lost unless it can be repaired (sqlite3 .recover)", path, moved,
                extra=about("store_damaged"),
            )  # fmt: skip
    except OSError as error:
        text = "%s is damaged and cannot be moved: %s"
        logger.critical(text, path, error, extra=about("store_stuck"))
    finally:
        gate.rmdir()


def _create_file(path: Path) -> None:
    """Create an empty file that only its owner may read; SQLite copies the mode to -wal."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreError(f"found SQLite {sqlite3.sqlite_version}, expected 3.31 or newer")
    with _creating:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            return
        except FileNotFoundError as error:
            raise StoreError(
                f"{path}: found no directory {path.parent}, expected an existing one"
            ) from error
        except OSError as error:
            raise _failure(error, path) from error
        # Nobody else in this process can have it open yet: it is ours and new.
        os.close(descriptor)
        path.chmod(0o600)  # the umask may have taken even the owner's bits


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    version = _version(db, path)  # before anything of another application is changed
    # Switching to WAL ignores the busy timeout when two processes do it at once.
    if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise StoreError(f"{path}: this file system cannot hold a database in WAL mode")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    if version == 0:
        _make(db, path)


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


def _make(db: sqlite3.Connection, path: Path) -> None:
    """Make the tables, unless another process did."""
    db.execute("BEGIN IMMEDIATE")
    try:
        if _version(db, path) == 0:
            for statement in schema("sqlite.sql"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _code(error: Exception) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def _patiently(action: Callable[[], None]) -> None:
    """Try again while other processes hold the lock."""
    deadline = time.monotonic() + OPENING_SECONDS
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if _code(error) not in _LOCKED or time.monotonic() > deadline:
                raise
        time.sleep(0.01)
