"""The rollups of a SQLite file: folding changes into them, and reading them with what is left."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Final

from capi_middleware.events import Count
from capi_middleware.store.records import Facet, Slice, Tallies
from capi_middleware.store.rollups import (
    DAY,
    HOUR,
    OF_TALLIES,
    QUARTER,
    Key,
    State,
    Sum,
    Window,
    depth_of,
    folded,
    hours,
    oldest_hour,
    slices_of,
    tallies_of,
)
from capi_middleware.store.sqlite_many import execute_many, for_many
from capi_middleware.store.sqlite_statements import HELD

#: New rows and changes that are folded together: more cost less each, and a report reads up to so
#: many.
FOLD_ROWS = 1000

#: How many there are, from the ends of the tables.
UNSUMMED: Final = """
SELECT COALESCE((SELECT MAX(key) FROM changes) - (SELECT MIN(key) FROM changes) + 1, 0)
    + COALESCE((SELECT MAX(key) FROM events), 0) - (SELECT key FROM summed)
"""

_STATE = (
    "hour, pixel_id, event_name, server, browser, match_keys, tenths, route, page, agent, differs"
)

#: What differs most comes first: SQLite sorts, and compares less then.
_BY = "page, route, match_keys, agent, event_name, server, browser, tenths, differs, hour, pixel_id"

#: Apart, as SQLite sorts what comes from one table for less.
CHANGES: Final = f"SELECT {_STATE}, SUM(n), SUM(rows) FROM changes GROUP BY {_BY}"  # noqa: S608
FRESH: Final = f"SELECT {_STATE}, COUNT(*), COUNT(*) FROM fresh GROUP BY {_BY}"  # noqa: S608

CHANGES_OF_WINDOW: Final = f"""
SELECT {_STATE}, SUM(n), 0 FROM unsummed WHERE hour >= ? AND hour < ? GROUP BY {_STATE}
"""  # noqa: S608 - our own constants

#: What a settlement with an end will change, as the trigger would write it down one by one.
SETTLING: Final = f"""
WITH settled AS (
    SELECT CAST(event_time / 3600 AS INTEGER) AS hour, pixel_id, event_name, browser, match_keys,
        CASE :state WHEN 'delivered'
            THEN CAST(MAX(0.0, :now - event_time) * 10 + 0.5 AS INTEGER) ELSE -1 END AS tenths,
        route, page, agent,
        :state = 'delivered' AND browser = 'sent' AND digest <> ''
            AND browser_digest <> '' AND digest <> browser_digest AS differs,
        COUNT(*) AS n
    FROM events
    WHERE {HELD} AND key <= (SELECT key FROM summed)
    GROUP BY page, route, match_keys, agent, event_name, browser, tenths, differs, hour, pixel_id
)
INSERT INTO changes
    (hour, pixel_id, event_name, server, browser, match_keys, tenths, route, page, agent,
    differs, n, rows)
SELECT hour, pixel_id, event_name, 'pending', browser, match_keys, -1, route, page, agent,
    0, -n, -n FROM settled
UNION ALL SELECT hour, pixel_id, event_name, :state, browser, match_keys, tenths, route, page,
    agent, differs, n, n FROM settled
"""  # noqa: S608 - our own constants
#: No trigger fires for what is not summed: once before, once after a statement.
TURN_TRIGGERS: Final = "UPDATE summed SET key = -1 - key"

FORGET_CHANGES: Final = "DELETE FROM changes"
ALL_SUMMED: Final = "UPDATE summed SET key = (SELECT COALESCE(MAX(key), 0) FROM events)"

ADD_KEYS: Final = for_many(
    """
INSERT INTO rollup_keys (facet, value, pixel_id, event_name, server, browser)
VALUES {rows} ON CONFLICT DO NOTHING
""",
    6,
)

FIND_KEYS: Final = for_many(
    """
SELECT facet, value, pixel_id, event_name, server, browser, key FROM rollup_keys
WHERE (facet, value, pixel_id, event_name, server, browser) IN (VALUES {rows})
""",
    6,
)

ADD: Final = for_many(
    """
INSERT INTO rollups (facet, span, start, key, n) VALUES {rows}
ON CONFLICT (facet, span, start, key) DO UPDATE SET n = n + excluded.n
""",
    5,
)

#: What went on to another state leaves no empty sum behind.
FORGET_EMPTY: Final = for_many(
    "DELETE FROM rollups WHERE (facet, span, start, key) IN (VALUES {rows}) AND n = 0", 4
)

#: See rollups.Window: ranges of the primary key for each facet.
SUMS: Final = """
SELECT k.facet, k.value, k.pixel_id, k.event_name, k.server, k.browser, s.n FROM (
    SELECT key, SUM(n) AS n FROM (
        SELECT key, n FROM rollups
        WHERE facet IN (:a, :b, :c) AND span = 1 AND start >= :start AND start < :first_quarter
        UNION ALL SELECT key, n FROM rollups
        WHERE facet IN (:a, :b, :c) AND span = 6
          AND start >= :first_quarter AND start < :first_day
        UNION ALL SELECT key, n FROM rollups
        WHERE facet IN (:a, :b, :c) AND span = 24 AND start >= :first_day AND start < :last_day
        UNION ALL SELECT key, n FROM rollups
        WHERE facet IN (:a, :b, :c) AND span = 6 AND start >= :last_day AND start < :last_quarter
        UNION ALL SELECT key, n FROM rollups
        WHERE facet IN (:a, :b, :c) AND span = 1 AND start >= :last_quarter AND start < :end
    ) GROUP BY key
) AS s JOIN rollup_keys AS k ON k.key = s.key
"""

HOURS: Final = """
SELECT 'hour', CAST(r.start * 3600 AS TEXT), k.pixel_id, k.event_name, k.server, k.browser, r.n
FROM rollups AS r JOIN rollup_keys AS k ON k.key = r.key
WHERE r.facet = 'hour' AND r.span = 1 AND r.start >= :start AND r.start < :end
"""

COUNTS: Final = """
SELECT kind, reason, event_name, pixel_id, SUM(n) FROM counts
WHERE hour >= :start AND hour < :end
GROUP BY kind, reason, event_name, pixel_id
"""

DEPTH: Final = """
SELECT k.server, r.n FROM rollups AS r JOIN rollup_keys AS k ON k.key = r.key
WHERE r.facet = 'depth' AND r.span = 0
UNION ALL SELECT server, SUM(rows) FROM unsummed GROUP BY server
"""

LEASED: Final = "SELECT COUNT(*) FROM leases"

#: Those of versions before schema 4: one pixel after the other, as the index has them.
LEASED_OLD: Final = """
WITH RECURSIVE pixels (id) AS (
    SELECT MIN(pixel_id) FROM events WHERE server IN ('pending', 'leased')
    UNION ALL
    SELECT (
        SELECT MIN(pixel_id) FROM events
        WHERE server IN ('pending', 'leased') AND pixel_id > pixels.id
    ) FROM pixels WHERE pixels.id IS NOT NULL
)
SELECT COUNT(*) FROM pixels JOIN events
    ON pixel_id = pixels.id AND server = 'leased' AND server IN ('pending', 'leased')
"""

#: What is older than all windows lives on in hour 0: the counters of /metrics never go back.
KEEP_TOTALS: Final = """
INSERT INTO rollups (facet, span, start, key, n)
SELECT facet, span, 0, key, SUM(n) FROM rollups
WHERE facet = 'match_keys' AND span = 24 AND start > 0 AND start < ? GROUP BY facet, span, key
ON CONFLICT (facet, span, start, key) DO UPDATE SET n = n + excluded.n
"""
KEEP_COUNTS: Final = """
INSERT INTO counts (hour, kind, reason, event_name, pixel_id, n)
SELECT 0, kind, reason, event_name, pixel_id, SUM(n) FROM counts
WHERE hour > 0 AND hour < ? GROUP BY kind, reason, event_name, pixel_id
ON CONFLICT (hour, kind, reason, event_name, pixel_id) DO UPDATE SET n = n + excluded.n
"""
PRUNE_ROLLUPS: Final = """
DELETE FROM rollups WHERE facet = ? AND span = ? AND start > 0 AND start < ?
"""
FACETS: Final = "SELECT DISTINCT facet FROM rollup_keys WHERE facet <> 'depth'"
#: Of keys that no sum has any more. Every sum but those of "hour" is in one of a day.
PRUNE_KEYS: Final = """
DELETE FROM rollup_keys WHERE facet = :facet AND key NOT IN (
    SELECT key FROM rollups
    WHERE facet = :facet AND span = CASE :facet WHEN 'hour' THEN 1 ELSE 24 END
)
"""
PRUNE_COUNTS: Final = "DELETE FROM counts WHERE hour > 0 AND hour < ?"


@contextmanager
def summing(db: sqlite3.Connection, settlement: Mapping[str, object]) -> Iterator[None]:
    """Write down what a settlement changes for all its rows together, not one by one."""
    if settlement["state"] == "pending":
        yield  # to the sums it was that before
        return
    db.execute(SETTLING, settlement)
    db.execute(TURN_TRIGGERS)
    yield
    db.execute(TURN_TRIGGERS)


def is_overdue(db: sqlite3.Connection) -> bool:
    """Whether there is enough to fold."""
    n: int = db.execute(UNSUMMED).fetchone()[0]
    return n >= FOLD_ROWS


def fold(db: sqlite3.Connection) -> None:
    """Fold what is not in the rollups yet, however little."""
    states = chain(db.execute(CHANGES), db.execute(FRESH))
    sums = folded(State(*columns) for columns in states)
    keys = list({key for _, _, key in sums})
    numbers = _numbers(db, keys)
    if len(numbers) < len(keys):
        _all(db, ADD_KEYS, [key for key in keys if key not in numbers])
        numbers = _numbers(db, keys)
    added = [(key.facet, span, start, numbers[key], n) for (span, start, key), n in sums.items()]
    _all(db, ADD, added)
    _all(db, FORGET_EMPTY, [one[:-1] for one in added if one[-1] < 0])
    db.execute(FORGET_CHANGES)
    db.execute(ALL_SUMMED)


def _numbers(db: sqlite3.Connection, keys: Sequence[Key]) -> dict[Key, int]:
    found = chain.from_iterable(execute_many(db, FIND_KEYS, keys))
    return {Key(*columns): number for *columns, number in found}


def _all(
    db: sqlite3.Connection, statements: Mapping[int, str], rows: Sequence[Sequence[object]]
) -> None:
    for _ in execute_many(db, statements, rows):
        pass


def read_tallies(db: sqlite3.Connection, start: float, end: float) -> Tallies:
    """See Store.tallies."""
    window = hours(start, end)
    counts = db.execute(COUNTS, window._asdict())
    return tallies_of(
        _sums(db, OF_TALLIES, window),
        _changes(db, window),
        [Count(*columns) for columns in counts],
    )


def read_slices(db: sqlite3.Connection, facet: Facet, start: float, end: float) -> Sequence[Slice]:
    """See Store.slices."""
    window = hours(start, end)
    sums = db.execute(HOURS, window._asdict()) if facet == "hour" else _sums(db, (facet,), window)
    return slices_of(facet, sums, _changes(db, window))


def read_depth(db: sqlite3.Connection) -> dict[str, int]:
    """See Store.depth."""
    leased = sum(db.execute(one).fetchone()[0] for one in (LEASED, LEASED_OLD))
    return depth_of(db.execute(DEPTH), leased)


def prune_sums(db: sqlite3.Connection, now: float) -> None:
    """Delete the sums and counters that are older than KEPT_DAYS."""
    fold(db)
    oldest = oldest_hour(now)
    for statement in (KEEP_TOTALS, KEEP_COUNTS):
        db.execute(statement, (oldest,))
    for (facet,) in db.execute(FACETS).fetchall():
        spans = (HOUR, QUARTER, DAY)
        if sum(db.execute(PRUNE_ROLLUPS, (facet, span, oldest)).rowcount for span in spans):
            db.execute(PRUNE_KEYS, {"facet": facet})
    db.execute(PRUNE_COUNTS, (oldest,))


def _sums(db: sqlite3.Connection, facets: tuple[str, ...], window: Window) -> Iterator[Sum]:
    a, b, c = (*facets, *facets[-1:] * 2)[:3]
    return db.execute(SUMS, {"a": a, "b": b, "c": c, **window._asdict()})


def _changes(db: sqlite3.Connection, window: Window) -> Iterator[State]:
    found = db.execute(CHANGES_OF_WINDOW, (window.start, window.end))
    return (State(*columns) for columns in found)
