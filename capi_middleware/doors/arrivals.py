"""Arrivals: how an event loop waits for commits of the store's thread."""

import asyncio
import weakref
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from capi_middleware.steps import BUSY_PATIENCE, COMMIT_PATIENCE, is_held_up


class _Arrivals:
    """Ended futures of other threads: the loop is woken once for all that end together."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._told = False

    def add(self, waiting: "asyncio.Future[None]") -> None:
        """Let `waiting` end; from any thread."""
        self._waiting.append(waiting)
        loop = self._loop()
        if not self._told and loop is not None:
            self._told = True
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(self._arrive)

    def _arrive(self) -> None:
        self._told = False  # first: what comes from now on may need another call
        while self._waiting:
            _end(self._waiting.popleft())


_arrivals: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Arrivals]"
_arrivals = weakref.WeakKeyDictionary()


def _end(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)


async def committed(future: "Future[Any]") -> Any:
    """Wait for a commit. Raises TimeoutError when it takes too long; it may still come."""
    loop = asyncio.get_running_loop()
    arrivals = _arrivals.get(loop)
    if arrivals is None:
        arrivals = _arrivals.setdefault(loop, _Arrivals(loop))
    waiting: asyncio.Future[None] = loop.create_future()
    future.add_done_callback(lambda _: arrivals.add(waiting))
    timer = loop.call_later(BUSY_PATIENCE, _end, waiting)
    try:
        await waiting
        if not future.done() and not is_held_up(future):
            waiting = loop.create_future()
            timer = loop.call_later(COMMIT_PATIENCE, _end, waiting)
            if future.done():
                _end(waiting)
            await waiting
    finally:
        timer.cancel()
    if not future.done():
        raise TimeoutError("the commit takes too long")
    return future.result()
