"""A group commit of SqliteStore: many rows with few statements."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from capi_middleware.events import Row, Sighting
from capi_middleware.store import sqlite_statements as sql
from capi_middleware.store.submissions import Submission


def store_group(db: sqlite3.Connection, submissions: Sequence[Submission], now: float) -> int:
    """Store what a group holds, in its order; how many sightings said nothing new."""
    replayed = 0
    for kind, items in _runs(submissions):
        if kind == "append":
            _store(db, sql.APPEND, [_appended(row, now) for row in items])
        elif kind == "sight":
            said = [_sighted(one, now) for one in items]
            replayed += len(said) - _store(db, sql.SIGHT, said)
    return replayed


def _runs(submissions: Sequence[Submission]) -> Iterator[tuple[str, list[Any]]]:
    """What is stored in order, those of one kind together."""
    for kind, some in groupby(submissions, key=attrgetter("kind")):
        yield kind, [item for submission in some for item in submission.items]


def _store(
    db: sqlite3.Connection, statements: Mapping[int, str], rows: Sequence[Sequence[Any]]
) -> int:
    """Store `rows` with few statements; how many changed something."""
    changed = done = 0
    for n in sql.MANY:
        while len(rows) - done >= n:
            values = [value for row in rows[done : done + n] for value in row]
            changed += db.execute(statements[n], values).rowcount
            done += n
    return changed


def _appended(row: Row, now: float) -> tuple[Any, ...]:
    return (
        row.event_id, row.event_name, row.pixel_id, row.event_time, now, row.payload, row.server,
        now, row.browser, row.match_keys, row.route, row.page, row.agent, row.digest,
    )  # fmt: skip


def _sighted(one: Sighting, now: float) -> tuple[Any, ...]:
    return (
        one.event_id, one.event_name, one.pixel_id, now, now, now, one.outcome, now, one.digest
    )  # fmt: skip
