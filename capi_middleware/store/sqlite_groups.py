"""A group commit of SqliteStore: many rows with few statements."""

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import chain, groupby
from operator import attrgetter
from typing import Any

from msgspec.structs import astuple

from capi_middleware.store import sqlite_statements as sql
from capi_middleware.store.submissions import Submission


def store_group(db: sqlite3.Connection, submissions: Sequence[Submission], now: float) -> int:
    """Store what a group holds, in its order; how many sightings said nothing new."""
    replayed = 0
    for kind, some in groupby(submissions, key=attrgetter("kind")):
        items = [item for submission in some for item in submission.items]
        if kind == "append":
            _store(db, sql.APPEND, items, now)
        elif kind == "sight":
            replayed += len(items) - _store(db, sql.SIGHT, items, now)
    return replayed


def _store(
    db: sqlite3.Connection, statements: Mapping[int, str], items: Sequence[Any], now: float
) -> int:
    """Store rows or sightings with few statements; how many changed something."""
    changed = done = 0
    for n in sql.MANY:
        while len(items) - done >= n:
            values = chain((now,), *map(astuple, items[done : done + n]))
            changed += db.execute(statements[n], tuple(values)).rowcount
            done += n
    return changed
