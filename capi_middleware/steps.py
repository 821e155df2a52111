"""Steps: sans-IO coroutines, so that one code path serves both doors."""

import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, TypeVar

from msgspec import Struct

T = TypeVar("T")
#: The longest body of a request to our endpoints, in bytes: the limit of sendBeacon.
BODY_LIMIT = 64 * 1024
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


#: Yields awaitables of the host, commits of the store, or plain callables that may take long; a
#: door waits for each in its own way and sends the result back, or throws the error in.
Steps = Generator[Any, Any, T]

#: Header lines as ASGI has them.
Headers = list[tuple[bytes, bytes]]
