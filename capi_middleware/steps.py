"""Steps: sans-IO coroutines, so that one code path serves both doors."""

from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
#: The longest body of a request to our endpoints, in bytes: the limit of sendBeacon.
BODY_LIMIT = 64 * 1024
#: How long a response waits for the disk before it ends all the same, in seconds.
COMMIT_PATIENCE = 2.0
#: How long it waits while somebody else keeps the database locked: nothing a visitor can feel.
BUSY_PATIENCE = 0.05


class Commit(Future[None]):
    """Ends when something is on disk. `is_held_up` says whether a lock of others is in the way.

    What was appended is kept in memory then, and committed when the lock is gone.
    """

    def __init__(self, is_held_up: Callable[[], bool]) -> None:
        super().__init__()
        self.is_held_up = is_held_up


def is_held_up(future: "Future[Any]") -> bool:
    """Whether waiting for `future` may take longer than a page should."""
    return isinstance(future, Commit) and future.is_held_up()


#: Yields awaitables of the host, futures of the store, or plain callables that may take long; a
#: door waits for each in its own way and sends the result back, or throws the error in.
Steps = Generator[Any, Any, T]

#: Header lines as ASGI has them.
Headers = list[tuple[bytes, bytes]]
