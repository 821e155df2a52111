"""A group commit of SqliteStore: many rows with few statements."""

import sqlite3
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter

from msgspec.structs import astuple

from capi_middleware.store import sqlite_statements as sql
from capi_middleware.store.sqlite_many import execute_many
from capi_middleware.store.submissions import Submission


def store_group(db: sqlite3.Connection, submissions: Sequence[Submission], now: float) -> int:
    """Store what a group holds, in its order; how many sightings said nothing new."""
    replayed = 0
    for kind, some in groupby(submissions, key=attrgetter("kind")):
        items = [astuple(item) for submission in some for item in submission.items]
        statements = sql.APPEND if kind == "append" else sql.SIGHT
        changed = sum(one.rowcount for one in execute_many(db, statements, items, now))
        if kind == "sight":
            replayed += len(items) - changed
    return replayed
