"""The connections to one SQLite file: opened late, in WAL mode, never carried over a fork."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from capi_middleware.store.forks import at_fork
from capi_middleware.store.sqlite_file import (
    BUSY_SECONDS,
    LATEST_WAL_PAGES,
    WAL_PAGES,
    connect,
    failure,
    forget_locks,
    inode_of,
    is_damaged,
    is_of_the_data,
    quarantine,
)
from capi_middleware.store.submissions import LockedError, OwnLockError

#: How long a fork waits for running transactions to end, in seconds.
FORK_SECONDS = 2.0
#: Connections that a child inherited. Closing them there could remove the parent's locks.
_abandoned: list[object] = []


class _Handle:
    """One connection, the free list it lives in, and which file it has open."""

    def __init__(self, db: sqlite3.Connection, home: "list[_Handle]", path: Path) -> None:
        self.db = db
        self.home = home
        self._path = path
        self.inode = inode_of(path)

    def is_current(self) -> bool:
        """Whether the path still is the file that was opened (it may have been replaced)."""
        return self.inode is not None and inode_of(self._path) == self.inode


class Connections:
    """Lends connections to the threads of a process, each to one thread at a time.

    Nothing but SQLite opens or closes the database, its -wal and its -shm: closing any file
    descriptor of a file drops all POSIX locks that the process has on it, SQLite's as well.

    SQLite keeps its locks per process in memory, and a child that inherits a held one finds the
    database locked for ever (measured with SQLite 3.40). So a fork waits for running
    transactions and closes all connections first; they are opened again when needed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # The working directory may change before the first use.
        self.path: Path = Path(path).absolute()
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
        forget_locks()
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
            if is_of_the_data(error):
                raise
            if is_damaged(error):
                quarantine(self.path, handle.inode)
            trouble = failure(error, self.path)
            usable = isinstance(trouble, LockedError) and not is_damaged(error)
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
            handle = _Handle(connect(self.path, readonly=readonly), home, self.path)
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
