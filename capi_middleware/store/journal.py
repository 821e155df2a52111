"""The journal: answers that ended before their commit, and losses that no database could count.

Written down where a kill leaves them, in a file for each process, beside the database or in the
system's directory for temporary files. Its
owner has it locked, and the kernel unlocks it when the owner is gone: whoever finds it then knows
that what is not in the ledger is lost. It is of one use: read, counted, deleted.
"""

import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from capi_middleware.events import Count, Row
from capi_middleware.store.commits import Commit
from capi_middleware.store.writer import at_fork

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: Windows has none.
_HAS_LOCKS = hasattr(fcntl, "flock")
#: What a journal may hold, in bytes: more is counted in memory.
_MOST_BYTES = 16 * 1024 * 1024


class Entry(Struct, frozen=True, omit_defaults=True):
    """A line of a journal: an answer with its rows, without payload, or what was lost.

    An answer `elsewhere` is counted by another database, which has others of its rows. The counts
    are of `hour`, Unix time // 3600.
    """

    rows: list[Row] = []
    elsewhere: bool = False
    hour: int = 0
    counts: list[Count] = []


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode


@dataclass(frozen=True)
class Journal:
    """A journal to be counted.

    `lost` says whether its owner is gone, and took with it what was not committed.
    """

    name: str
    entries: list[Entry]
    lost: bool
    _path: Path
    _file: FileIO

    @property
    def answers(self) -> int:
        """How many answers it counts."""
        return sum(bool(one.rows) and not one.elsewhere for one in self.entries)

    def delete(self) -> None:
        """It was counted."""
        with suppress(OSError):
            self._path.unlink()
        self.leave()

    def leave(self) -> None:
        """Leave it to the next one who looks."""
        self._file.close()

    @property
    def is_open(self) -> bool:
        """Whether nobody has deleted or left it."""
        return not self._file.closed


class Journals:
    """The journals of the processes that share a database, each a file "<path>-early-…"."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start_over()

        at_fork(after_in_child=self._abandon)

    def _abandon(self) -> None:
        if self._file is not None:
            os.close(self._file)  # or it would stay locked when the parent is gone
        if self._uncounted is not None:
            self._uncounted.leave()
        self._start_over()

    def _start_over(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        #: Held while `own` is counted: by one thread at a time. A logging handler may close us.
        self.counting: AbstractContextManager[object] = threading.RLock()
        self._file: int | None = None
        self._name = ""
        #: What this process's journal is about.
        self._commits: list[Commit] = []
        #: An earlier one of this process.
        self._uncounted: Journal | None = None

    def add(self, commit: Commit, *, elsewhere: bool) -> bool:
        """Write down an answer that ends before `commit`; False where that cannot be."""
        rows = [
            replace(row, payload=None, server="dropped" if row.server == "pending" else row.server)
            for row in commit.rows
        ]
        return self._write(Entry(rows, elsewhere), [commit])

    def lose(self, hour: int, counts: list[Count]) -> bool:
        """Write down what was lost in an hour; False where that cannot be."""
        return self._write(Entry(hour=hour, counts=counts), [])

    def _write(self, entry: Entry, commits: list[Commit]) -> bool:
        if self._pid != os.getpid():
            self._abandon()
        with self._lock, suppress(OSError, UnicodeEncodeError):  # a text that no file holds
            if self._file is None:
                self._open()
            assert self._file is not None
            line = _encode(entry) + b"\n"
            room = _MOST_BYTES - os.fstat(self._file).st_size
            if len(line) <= room and os.write(self._file, line) == len(line):
                self._commits += commits
                return True
        return False

    def _open(self) -> None:
        if not _HAS_LOCKS:
            raise OSError
        name = f"{self._path.name}-early-{secrets.token_hex(8)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND
        file = os.open(self._path.with_name(name), flags, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._file, self._name = file, name

    def own(self) -> Journal | None:
        """A journal of this process that is to be counted and deleted, while `counting` is held.

        Nothing that it is about can be lost any more.
        """
        if self._pid != os.getpid():
            return None
        with self._lock:
            file = self._file
            if self._uncounted is not None and not self._uncounted.is_open:
                self._uncounted = None
            if self._uncounted is None and file and all(one.done() for one in self._commits):
                path = self._path.with_name(self._name)
                self._file, self._commits = None, []
                self._uncounted = _read(path, file, lost=False)
            return self._uncounted

    def left(self) -> Iterator[Journal]:
        """Those whose owners are gone."""
        if not _HAS_LOCKS:
            return
        for path in self._path.parent.glob(f"{self._path.name}-early-*"):
            with suppress(OSError):
                file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    status = os.fstat(file)
                    # Not what others put there, nor what somebody else has just counted.
                    found = status.st_uid == os.geteuid() and status.st_nlink > 0
                except OSError:
                    found = False
                if found:
                    os.fchmod(file, 0o600)
                    yield _read(path, file, lost=True)
                else:
                    os.close(file)


def _read(path: Path, file: int, *, lost: bool) -> Journal:
    entries: list[Entry] = []
    for line in os.pread(file, os.fstat(file).st_size, 0).splitlines():
        with suppress(msgspec.DecodeError):
            entries.append(_decode(line))
    return Journal(path.name, entries, lost, path, FileIO(file))
