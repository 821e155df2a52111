"""What tests of stores share: a clock to set, rows, and a look at a store as a whole."""

import os
import time
from collections.abc import Callable
from typing import Any

from capi_middleware.events import Row
from capi_middleware.store.sqlite import File
from capi_middleware.store.store import Store
from capi_middleware.testing import FrozenClock as Clock

__all__ = [
    "NOON", "PIXEL", "Clock", "postgres_store", "row", "sqlite_store", "states", "store_rows"
]  # fmt: skip

NOON = 1_800_000_000.0
PIXEL = "1234567890"

#: A store with a queue limit, of the backend that a test is about.
MakeStore = Callable[[int], Store]


def sqlite_store(
    path: str | os.PathLike[str],
    *,
    queue_limit: int = 100_000,
    clock: Callable[[], float] = time.time,
) -> Store:
    """The store in a file."""
    return Store(File(path, clock), queue_limit=queue_limit, clock=clock)


def postgres_store(url: str, *, clock: Callable[[], float] | None = None) -> Store:
    """The store in a database; its leases are by the clock of the database where none is given."""
    from capi_middleware.store.postgres import PostgresEngine

    return Store(PostgresEngine(url, clock), clock=clock or time.time)


def row(event_id: str = "e1", **fields: Any) -> Row:
    """A Purchase that waits for delivery."""
    given = {
        "event_name": "Purchase",
        "pixel_id": PIXEL,
        "event_time": NOON,
        "payload": b"{}",
        **fields,
    }
    return Row(event_id=event_id, **given)


def store_rows(store: Store, *rows: Row) -> None:
    """Append and wait for the commit."""
    future = store.append(rows, wait=True)
    assert future is not None
    future.result(30)


def states(store: Store) -> list[tuple[str, str, str, str, int, int]]:
    """All rows of a store: (pixel_id, event_name, server, browser, match_keys, n), sorted."""
    tallies = store.tallies(float("-inf"), float("inf"))
    return sorted(
        (t.pixel_id, t.event_name, t.server, t.browser, t.match_keys, t.n) for t in tallies.rows
    )
