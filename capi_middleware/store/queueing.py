"""Queueing: which rows give the couriers something to do, and how many may wait."""

from collections.abc import Iterable

from capi_middleware.events import Row


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
