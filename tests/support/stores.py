"""What tests of stores share: a clock to set, rows, and a look at a store as a whole."""

from collections.abc import Callable
from typing import Any

from capi_middleware.events import Row
from capi_middleware.store.store import Store
from capi_middleware.testing import FrozenClock as Clock

__all__ = ["NOON", "PIXEL", "Clock", "row", "states", "store_rows"]

NOON = 1_800_000_000.0
PIXEL = "1234567890"

#: A store with a queue limit, of the backend that a test is about.
MakeStore = Callable[[int], Store]


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
