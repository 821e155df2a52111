"""A group commit in PostgreSQL: rows, sightings and counters of many submissions as arrays."""

from collections.abc import Iterator, Sequence
from typing import Any

from capi_middleware.store import postgres_statements as sql
from capi_middleware.store.postgres_link import Transaction
from capi_middleware.store.records import REPLAYED
from capi_middleware.store.submissions import Counters, Submission


def insert(db: Transaction, submissions: Sequence[Submission], counters: Counters) -> None:
    """Everything in one transaction, in few statements."""
    now, replayed = db.now, 0
    for kind, items in _waves(submissions):
        if kind == "append":
            columns = columns_of(
                items, "event_id", "event_name", "pixel_id", "event_time", "payload", "server",
                "browser", "match_keys", "route", "page", "agent", "digest",
            )  # fmt: skip
            db.execute(sql.APPEND, (now, now, *columns))
        else:
            columns = columns_of(items, "event_id", "event_name", "pixel_id", "outcome", "digest")
            cursor = db.execute(sql.SIGHT, (now, now, now, now, *columns))
            replayed += len(items) - cursor.rowcount
    rows = [(*key, n) for key, n in counters.items()]
    if replayed:
        rows.append((int(now // 3600), REPLAYED.kind, REPLAYED.reason, "", "", replayed))
    # In one order everywhere: two processes that count the same must not lock each other.
    db.many(sql.COUNT, sorted(rows))


def _waves(submissions: Sequence[Submission]) -> Iterator[tuple[str, list[Any]]]:
    """Rows and sightings in order, in parts in which no event occurs twice."""
    kind, wave, seen = "", list[Any](), set[tuple[str, str, str]]()
    for submission in submissions:
        for item in submission.items:
            identity = (item.event_id, item.event_name, item.pixel_id)
            if submission.kind != kind or identity in seen:
                if wave:
                    yield kind, wave
                kind, wave, seen = submission.kind, [], set()
            wave.append(item)
            seen.add(identity)
    if wave:
        yield kind, wave


def columns_of(items: Sequence[Any], *names: str) -> list[list[Any]]:
    """The attributes `names` of all items, each as a list."""
    return [[getattr(item, name) for item in items] for name in names]
