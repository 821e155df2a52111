"""Commits: what a store promises for what was appended, and how loops and threads wait for it."""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    import asyncio

#: How long a response waits for the disk before it ends all the same, in seconds.
COMMIT_PATIENCE = 2.0
#: How long it waits while somebody else keeps the database locked: nothing a visitor can feel.
BUSY_PATIENCE = 0.05


class Batch:
    """What a store commits together. `done` when all of it is on disk or failed.

    `is_held_up` says whether a lock of others is in the way: what was appended is kept in memory
    then, and committed when the lock is gone. `waiting` has a callable for all who wait in one way
    (on one event loop, say); the store's thread calls each once.
    """

    __slots__ = ("done", "is_held_up", "waiting")

    def __init__(self, is_held_up: Callable[[], bool] = lambda: False) -> None:
        self.done: bool = False
        self.is_held_up: Callable[[], bool] = is_held_up
        self.waiting: dict[object, Callable[[], None]] = {}

    def end(self) -> None:
        """Tell all who wait."""
        self.done = True
        for key in list(self.waiting):
            tell = self.waiting.pop(key, None)
            if tell is not None:
                # One who cannot be told must not keep the others waiting.
                with suppress(Exception):
                    tell()


class Commit(Struct):
    """A part of a batch. It has an `error` where it could not be stored."""

    batch: Batch
    error: Exception | None = None

    def done(self) -> bool:
        """Whether waiting would end at once."""
        return self.batch.done

    def exception(self, timeout: float | None = None) -> Exception | None:
        """The error, after up to `timeout` seconds. Raises TimeoutError; it may still come."""
        batch = self.batch
        if not batch.done:
            told = threading.Event()
            batch.waiting[told] = told.set
            if not batch.done and not told.wait(timeout):
                raise TimeoutError("the commit takes too long")
        return self.error

    def result(self, timeout: float | None = None) -> None:
        """Wait like `exception`, and raise the error."""
        error = self.exception(timeout)
        if error is not None:
            raise error


def ended(error: Exception | None = None) -> Commit:
    """A commit that nobody has to wait for."""
    commit = Commit(Batch(), error)
    commit.batch.end()
    return commit


class _Arrivals:
    """All who wait on one loop for one batch: the loop is woken once for them, with one timer."""

    def __init__(self, loop: "asyncio.AbstractEventLoop", batch: Batch) -> None:
        self._loop, self._batch = loop, batch
        #: Since when, in the loop's seconds.
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._timer = loop.call_later(BUSY_PATIENCE, self._look)
        batch.waiting[loop] = self

    def __call__(self) -> None:
        """The batch ended; from any thread."""
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._arrive)

    def join(self) -> "asyncio.Future[None]":
        """Ends with the batch, or when patience does."""
        waiting = self._loop.create_future()
        self._waiting.append((self._loop.time(), waiting))
        if self._batch.done:
            self._arrive()  # it ended before we were listed
        return waiting

    def _arrive(self) -> None:
        self._timer.cancel()
        while self._waiting:
            _end(self._waiting.popleft()[1])

    def _look(self) -> None:
        patience = BUSY_PATIENCE
        if not self._batch.is_held_up():
            patience += COMMIT_PATIENCE
        while self._waiting and self._waiting[0][0] + patience <= self._loop.time():
            _end(self._waiting.popleft()[1])
        if self._waiting:
            self._timer = self._loop.call_later(BUSY_PATIENCE, self._look)
        else:
            self._batch.waiting.pop(self._loop, None)  # who comes now starts another timer


def _end(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)


async def committed(commit: Commit) -> None:
    """Wait for a commit. Raises TimeoutError when it takes too long; it may still come."""
    batch = commit.batch
    if not batch.done:
        import asyncio  # whoever calls this has it; a WSGI app never loads it

        loop = asyncio.get_running_loop()
        arrivals = batch.waiting.get(loop)
        if not isinstance(arrivals, _Arrivals):
            arrivals = _Arrivals(loop, batch)
        await arrivals.join()
        if not batch.done:
            raise TimeoutError("the commit takes too long")
    commit.result()


def wait_for(commit: Commit) -> None:
    """Wait for a commit in this thread, like `committed`."""
    try:
        return commit.result(BUSY_PATIENCE)
    except TimeoutError:
        if commit.batch.is_held_up():
            raise
    return commit.result(COMMIT_PATIENCE)
