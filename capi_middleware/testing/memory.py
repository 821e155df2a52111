"""A store in memory and a clock that stands still, for tests."""

import time
from collections.abc import Callable

from capi_middleware.store.sqlite import SqliteEngine
from capi_middleware.store.store import Store


class FrozenClock:
    """Unix time in seconds, for the `clock` of FakeMeta and MemoryStore.

    Call it for the time; set `now`, or move it on with `advance`.
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now: float = now

    def __call__(self) -> float:
        """The time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds


class MemoryStore(Store):
    """The store in this process's memory. Every call is done when it returns, commits as well.

    Args:
        queue_limit: the most rows of one call, as nothing waits for a disk.
        clock: Unix time in seconds.
    """

    def __init__(
        self, *, queue_limit: int = 100_000, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(SqliteEngine(None, clock), queue_limit=queue_limit, clock=clock)
