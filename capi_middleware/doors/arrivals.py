"""Arrivals: how an event loop waits for commits of the store's thread."""

import asyncio
from collections import deque
from contextlib import suppress

from capi_middleware.steps import BUSY_PATIENCE, COMMIT_PATIENCE, Batch, Commit


class _Arrivals:
    """All who wait on one loop for one batch: the loop is woken once for them, with one timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> None:
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
        loop = asyncio.get_running_loop()
        arrivals = batch.waiting.get(loop)
        if not isinstance(arrivals, _Arrivals):
            arrivals = _Arrivals(loop, batch)
        await arrivals.join()
        if not batch.done:
            raise TimeoutError("the commit takes too long")
    commit.result()
