"""Queueing: what gives the couriers something to do, how many rows may wait, what is due."""

from collections.abc import Iterable

from capi_middleware.events import Row
from capi_middleware.store.records import DEDUPE_WINDOW, LONGEST_LEASE, LONGEST_WAIT, OLDEST_EVENT


def waits_for_delivery(rows: Iterable[Row]) -> bool:
    """Whether `rows` give the couriers something to do."""
    return any(row.server == "pending" for row in rows)


#: One part in this many of a queue takes conversions only: page views and sightings go first.
CONVERSIONS_ONLY = 5


def room(queue_limit: int, items: Iterable[object]) -> int:
    """How many rows may wait when `items` come to them."""
    for one in items:
        if isinstance(one, Row) and one.event_name != "PageView":
            return queue_limit
    return queue_limit - queue_limit // CONVERSIONS_ONLY


def claim_of(pixel_id: str, now: float, limit: int) -> dict[str, str | float]:
    """The parameters of a claim's statements. Times in Unix seconds; see Store.lease."""
    return {
        "pixel_id": pixel_id,
        "now": now,
        "limit": limit,
        "longest": LONGEST_LEASE,
        "wait": LONGEST_WAIT,
        "oldest": now - OLDEST_EVENT,
        "dedupe": now - DEDUPE_WINDOW,
    }
