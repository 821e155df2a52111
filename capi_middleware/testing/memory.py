"""MemoryStore: the store in memory, for tests."""

import time
from collections.abc import Callable

from capi_middleware.store.sqlite import SqliteEngine
from capi_middleware.store.store import Store


class MemoryStore(Store):
    """The store in this process's memory. Every call is done when it returns, commits as well.

    Args:
        queue_limit: how many events may wait for delivery.
        clock: Unix time in seconds.
    """

    def __init__(
        self, *, queue_limit: int = 100_000, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(SqliteEngine(None, clock), queue_limit=queue_limit, clock=clock)
