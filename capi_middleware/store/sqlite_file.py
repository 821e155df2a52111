"""One SQLite file: how it is made, opened and checked, and what its errors mean."""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from capi_middleware.errors import StoreError
from capi_middleware.shield import about
from capi_middleware.store.sqlite_rollups import fold
from capi_middleware.store.submissions import LockedError

logger: logging.Logger = logging.getLogger("capi_middleware.store")

SCHEMA_VERSION = 4
#: UPSERT.
OLDEST_SQLITE = (3, 24, 0)
#: How long SQLite waits for another process's lock, in seconds.
BUSY_SECONDS = 5.0
#: How long opening goes on while other processes open the same new file, in seconds.
OPENING_SECONDS = 15.0
#: Pages of 4 KiB in the WAL that start a checkpoint after a commit that nobody waits for, and after
#: any; and what stays of the file afterwards.
WAL_PAGES, LATEST_WAL_PAGES, WAL_BYTES = 2500, 4000, 16 * 1024 * 1024

_T = TypeVar("_T")
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


def connect(path: Path, *, readonly: bool) -> sqlite3.Connection:
    """A connection in autocommit mode to the database at `path`, which is made when missing.

    Raises StoreError when it cannot be opened or is not ours, LockedError when it is locked.
    """
    _create_file(path)
    inode = inode_of(path)
    try:
        # The busy timeout is set with the opening: everything after it may meet a lock.
        db = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(db, path)
            if readonly:
                db.execute("PRAGMA query_only = ON")
        except BaseException:
            db.close()
            raise
    except sqlite3.Error as error:
        if is_damaged(error):
            quarantine(path, inode)
        raise failure(error, path) from error
    return db


def inode_of(path: Path) -> int | None:
    """Which file `path` is now. By name: closing a descriptor of ours would drop SQLite's locks."""
    try:
        return path.stat().st_ino
    except OSError:
        return None


def forget_locks() -> None:
    """In a forked child: a thread that does not exist here may hold the lock."""
    global _creating
    _creating = threading.Lock()


def is_of_the_data(error: sqlite3.Error) -> bool:
    """Whether `error` comes from the values of a statement, not from the database."""
    return isinstance(error, _OF_THE_DATA) and _code(error) != sqlite3.SQLITE_MISUSE


def failure(error: Exception, path: Path) -> StoreError:
    """What callers get to see for a driver's or the system's `error`."""
    if _code(error) in _LOCKED:
        return LockedError(f"{path}: the database is locked by another process")
    if is_damaged(error):
        return LockedError(f"{path}: the file is damaged")  # the next try makes a new one
    if _code(error) == sqlite3.SQLITE_FULL:
        return LockedError(f"{path}: the disk is full")
    return StoreError(f"{path}: {error}")


def is_damaged(error: Exception) -> bool:
    """Whether `error` means that the file is no readable database (any more)."""
    return _code(error) in _DAMAGED


def check_space(path: Path) -> None:
    """Raises LockedError when the disk has no more than its reserve."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return  # opening it will say what is wrong
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    if free < min(RESERVE_BYTES, total * RESERVE_SHARE):
        raise LockedError(f"{path}: the disk is full ({free // 1024:,} KiB free)")


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
        raise StoreError(f"found SQLite {sqlite3.sqlite_version}, expected 3.24 or newer")
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
            raise failure(error, path) from error
        # Nobody else in this process can have it open yet: it is ours and new.
        os.close(descriptor)
        path.chmod(0o600)  # the umask may have taken even the owner's bits


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    version = _patiently(lambda: _version(db, path))
    # Switching to WAL ignores the busy timeout when two processes do it at once.
    mode = _patiently(lambda: db.execute("PRAGMA journal_mode = WAL").fetchone()[0])
    if mode != "wal":
        raise StoreError(f"{path}: this file system cannot hold a database in WAL mode")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    if version < SCHEMA_VERSION:
        _patiently(lambda: _migrate(db, path))


def _version(db: sqlite3.Connection, path: Path) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: found schema {version}, expected {SCHEMA_VERSION} or older: a newer "
            "capi_middleware wrote this file, upgrade the package or use another file"
        )
    if version == 0 and db.execute("SELECT 1 FROM sqlite_master").fetchone():
        # Another process may have created our tables between the two reads.
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            raise StoreError(
                f"{path}: found tables of another application, expected a file of its own"
            )
    return version


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or bring those of an older version up to date, in one transaction."""
    db.execute("BEGIN IMMEDIATE")
    try:
        version = _version(db, path)
        steps = ["sqlite.sql"]
        if version:
            steps = [f"sqlite_{to}.sql" for to in range(version + 1, SCHEMA_VERSION + 1)]
        for step in steps:
            script = Path(__file__).with_name("schema").joinpath(step).read_text("utf-8")
            for statement in script.split(";\n"):
                db.execute(statement)
        fold(db)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _code(error: Exception) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def _patiently(action: Callable[[], _T]) -> _T:
    """Try again while other processes hold the lock."""
    deadline = time.monotonic() + OPENING_SECONDS
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if _code(error) not in _LOCKED or time.monotonic() > deadline:
                raise
        time.sleep(0.01)
