"""Turns: who of our threads and processes writes to a SQLite file, in the order of their coming.

SQLite's own lock has no order: all who wait look again at intervals of their own, and whoever
writes much finds it free more often than who writes little. Where our own wait in a queue before
they ask for it, whoever still finds it locked knows that a stranger has it.
"""

import os
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: How often who waits looks whether it is its turn, in seconds.
LOOK_SECONDS = 0.001
#: Whether this system has locks that belong to an open file, which end with it whatever happens to
#: the process: elsewhere SQLite's own lock has to do.
_HAS_QUEUE = sys.platform == "linux" and hasattr(fcntl, "F_OFD_SETLK")
#: struct flock: type, whence (from the start), first byte, how many (0: all that follow), pid.
_flock = struct.Struct("hhqqi4x").pack


class Turn:
    """A way into the queue of the database at `path`; it must be ended.

    The queue is a file beside the database, with nothing in it. A place is its byte at the time of
    coming (CLOCK_MONOTONIC, which all processes share), locked. It is somebody's turn when a lock
    on all bytes before succeeds, and while that lasts nobody can come before. The kernel drops the
    locks of who is killed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        #: None until its byte is locked.
        self._place: int | None = None
        if _HAS_QUEUE:
            with suppress(OSError):  # not our file: as on other systems
                self._file = os.open(f"{path}-queue", os.O_RDWR | os.O_NOFOLLOW)
        if _HAS_QUEUE and self._file is None:
            self._file = _made(path)

    def wait(self, seconds: float) -> bool:
        """Whether it is its turn within so many seconds; it is in the queue afterwards.

        Nobody's, where there is no queue.
        """
        end = time.monotonic() + seconds
        while self._file is not None:
            try:
                if self._place is None:
                    place = time.monotonic_ns()
                    fcntl.fcntl(
                        self._file, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, 0, place, 1, 0)
                    )
                    self._place = place
                before = _flock(fcntl.F_RDLCK, 0, 0, self._place, 0)
                fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, before)
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= end:
                    return False
                time.sleep(LOOK_SECONDS)
            except OSError:  # a file system without such locks
                self.abandon()
            else:
                if os.fstat(self._file).st_nlink:
                    return True
                self.end()  # the queue was deleted meanwhile: there is another
                self._file = _made(self._path)
        return False

    def is_wanted(self) -> bool:
        """Whether somebody waits for the end of this turn."""
        if self._file is None or self._place is None:
            return False
        behind = _flock(fcntl.F_WRLCK, 0, self._place + 1, 0, 0)
        found: bytes = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, behind)
        return found[:2] != struct.pack("h", fcntl.F_UNLCK)

    def leave(self) -> None:
        """Give the place up, for one at the end of the queue when it is waited for again."""
        if self._file is not None:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, 0, 0, 0, 0))
            self._place = None

    def end(self) -> None:
        """The next one may begin."""
        if self._file is not None:
            # A child that was forked meanwhile has the file open as well.
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, 0, 0, 0, 0))
            os.close(self._file)
            self._file = self._place = None

    def abandon(self) -> None:
        """Forget the place, in a forked child: it is the parent's."""
        if self._file is not None:
            os.close(self._file)
            self._file = self._place = None


def _made(database: Path) -> int | None:
    """A new queue, for everybody who may write the database, or None; its -wal is as open."""
    try:
        made = os.open(f"{database}-queue", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None
    with suppress(OSError):
        like = database.stat()
        os.fchmod(made, like.st_mode & 0o666)
        if os.geteuid() == 0:
            os.fchown(made, like.st_uid, like.st_gid)
    return made


def delete_queue(database: Path) -> None:
    """Delete it if nobody is in it."""
    turn = Turn(database)
    if turn.wait(0.0) and not turn.is_wanted():
        Path(f"{database}-queue").unlink(missing_ok=True)
    turn.end()
