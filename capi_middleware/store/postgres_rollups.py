"""The rollups of a PostgreSQL database: folding changes into them, and reading them."""

from collections.abc import Iterator, Sequence
from typing import Final

from capi_middleware.events import Count
from capi_middleware.store.postgres_link import Transaction
from capi_middleware.store.records import Facet, Slice, Tallies
from capi_middleware.store.rollups import (
    OF_TALLIES,
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

#: Changes that one transaction folds.
FOLD_ROWS = 10_000
#: Any number that other users of the database are unlikely to lock as well.
_FOLD_LOCK = 7_236_421_906

#: One process folds at a time; the others have nothing to wait for.
TRY_LOCK: Final = f"SELECT pg_try_advisory_xact_lock({_FOLD_LOCK})"

_STATE = (
    "hour, pixel_id, event_name, server, browser, match_keys, tenths, route, page, agent, differs"
)

TAKE_CHANGES: Final = f"""
WITH taken AS (
    DELETE FROM capi_changes
    WHERE key IN (SELECT key FROM capi_changes ORDER BY key LIMIT %s) RETURNING *
)
SELECT {_STATE}, SUM(n)::bigint, SUM(rows)::bigint, COUNT(*) FROM taken GROUP BY {_STATE}
"""  # noqa: S608 - our own constants

CHANGES_OF_WINDOW: Final = f"""
SELECT {_STATE}, SUM(n)::bigint, 0 FROM capi_changes
WHERE hour >= %(start)s AND hour < %(end)s GROUP BY {_STATE}
"""  # noqa: S608 - our own constants

_NEW_KEYS = """
FROM unnest(%(facet)b::text[], %(value)b::text[], %(pixel_id)b::text[], %(event_name)b::text[],
            %(server)b::text[], %(browser)b::text[])
"""

ADD_KEYS: Final = f"""
INSERT INTO capi_rollup_keys (facet, value, pixel_id, event_name, server, browser)
SELECT * {_NEW_KEYS} ON CONFLICT DO NOTHING
"""

FIND_KEYS: Final = f"""
SELECT facet, value, pixel_id, event_name, server, browser, key {_NEW_KEYS}
    AS new (facet, value, pixel_id, event_name, server, browser)
JOIN capi_rollup_keys USING (facet, value, pixel_id, event_name, server, browser)
"""

ADD: Final = """
INSERT INTO capi_rollups AS rollups (facet, span, start, key, n)
SELECT * FROM unnest(%b::text[], %b::smallint[], %b::bigint[], %b::bigint[], %b::bigint[])
ON CONFLICT (facet, span, start, key) DO UPDATE SET n = rollups.n + excluded.n
"""

#: What went on to another state leaves no empty sum behind.
FORGET_EMPTY: Final = """
DELETE FROM capi_rollups AS rollups
USING unnest(%b::text[], %b::smallint[], %b::bigint[], %b::bigint[])
    AS less (facet, span, start, key)
WHERE rollups.facet = less.facet AND rollups.span = less.span AND rollups.start = less.start
  AND rollups.key = less.key AND n = 0
"""

#: See rollups.Window: ranges of the primary key for each facet.
SUMS: Final = """
SELECT k.facet, k.value, k.pixel_id, k.event_name, k.server, k.browser, s.n FROM (
    SELECT key, SUM(n)::bigint AS n FROM (
        SELECT key, n FROM capi_rollups
        WHERE facet = ANY(%(facets)s) AND span = 1
          AND start >= %(start)s AND start < %(first_quarter)s
        UNION ALL SELECT key, n FROM capi_rollups
        WHERE facet = ANY(%(facets)s) AND span = 6
          AND start >= %(first_quarter)s AND start < %(first_day)s
        UNION ALL SELECT key, n FROM capi_rollups
        WHERE facet = ANY(%(facets)s) AND span = 24
          AND start >= %(first_day)s AND start < %(last_day)s
        UNION ALL SELECT key, n FROM capi_rollups
        WHERE facet = ANY(%(facets)s) AND span = 6
          AND start >= %(last_day)s AND start < %(last_quarter)s
        UNION ALL SELECT key, n FROM capi_rollups
        WHERE facet = ANY(%(facets)s) AND span = 1
          AND start >= %(last_quarter)s AND start < %(end)s
    ) AS parts GROUP BY key
) AS s JOIN capi_rollup_keys AS k ON k.key = s.key
"""

HOURS: Final = """
SELECT 'hour', CAST(r.start * 3600 AS TEXT), k.pixel_id, k.event_name, k.server, k.browser, r.n
FROM capi_rollups AS r JOIN capi_rollup_keys AS k ON k.key = r.key
WHERE r.facet = 'hour' AND r.span = 1 AND r.start >= %(start)s AND r.start < %(end)s
"""

COUNTS: Final = """
SELECT kind, reason, event_name, pixel_id, SUM(n)::bigint FROM capi_counts
WHERE hour >= %(start)s AND hour < %(end)s
GROUP BY kind, reason, event_name, pixel_id
"""

DEPTH: Final = """
SELECT k.server, r.n FROM capi_rollups AS r JOIN capi_rollup_keys AS k ON k.key = r.key
WHERE r.facet = 'depth' AND r.span = 0
UNION ALL SELECT server, SUM(rows)::bigint FROM capi_changes GROUP BY server
"""

LEASED: Final = "SELECT COUNT(*) FROM capi_leases"

#: Those of versions before schema 3: one pixel after the other, as the index has them.
LEASED_OLD: Final = """
WITH RECURSIVE pixels (id) AS (
    SELECT MIN(pixel_id) FROM capi_events WHERE server IN ('pending', 'leased')
    UNION ALL
    SELECT (
        SELECT MIN(pixel_id) FROM capi_events
        WHERE server IN ('pending', 'leased') AND pixel_id > pixels.id
    ) FROM pixels WHERE pixels.id IS NOT NULL
)
SELECT COUNT(*) FROM pixels JOIN capi_events ON pixel_id = pixels.id AND server = 'leased'
"""

#: As in sqlite_rollups.
KEEP_TOTALS: Final = """
INSERT INTO capi_rollups AS rollups (facet, span, start, key, n)
SELECT facet, span, 0, key, SUM(n)::bigint FROM capi_rollups
WHERE facet = 'match_keys' AND span = 24 AND start > 0 AND start < %s GROUP BY facet, span, key
ON CONFLICT (facet, span, start, key) DO UPDATE SET n = rollups.n + excluded.n
"""
KEEP_COUNTS: Final = """
INSERT INTO capi_counts AS counts (hour, kind, reason, event_name, pixel_id, n)
SELECT 0, kind, reason, event_name, pixel_id, SUM(n)::bigint FROM capi_counts
WHERE hour > 0 AND hour < %s GROUP BY kind, reason, event_name, pixel_id
ON CONFLICT (hour, kind, reason, event_name, pixel_id) DO UPDATE SET n = counts.n + excluded.n
"""
PRUNE_ROLLUPS: Final = "DELETE FROM capi_rollups WHERE span > 0 AND start > 0 AND start < %s"
PRUNE_KEYS: Final = """
DELETE FROM capi_rollup_keys AS k WHERE NOT EXISTS (
    SELECT FROM capi_rollups AS r
    WHERE r.key = k.key AND (r.span IN (0, 24) OR r.facet = 'hour' AND r.span = 1)
)
"""
PRUNE_COUNTS: Final = "DELETE FROM capi_counts WHERE hour > 0 AND hour < %s"


def fold(db: Transaction) -> bool:
    """Fold changes into the rollups unless another process is at it; whether there may be more."""
    if not db.execute(TRY_LOCK).fetchall()[0][0]:
        return False
    taken = db.execute(TAKE_CHANGES, (FOLD_ROWS,)).fetchall()
    sums = folded(State(*columns[:-1]) for columns in taken)
    if sums:
        keys = list({key for _, _, key in sums})
        columns = dict(zip(Key._fields, map(list, zip(*keys, strict=True)), strict=True))
        db.execute(ADD_KEYS, columns)
        numbers = {Key(*key): n for *key, n in db.execute(FIND_KEYS, columns).fetchall()}
        places = [(key.facet, span, start, numbers[key]) for span, start, key in sums]
        added = [(*place, n) for place, n in zip(places, sums.values(), strict=True)]
        db.execute(ADD, [list(column) for column in zip(*added, strict=True)])
        less = [one[:-1] for one in added if one[-1] < 0]
        if less:
            db.execute(FORGET_EMPTY, [list(column) for column in zip(*less, strict=True)])
    return bool(sum(columns[-1] for columns in taken) >= FOLD_ROWS)


def read_tallies(db: Transaction, start: float, end: float) -> Tallies:
    """See Store.tallies."""
    window = hours(start, end)
    counts = db.execute(COUNTS, window._asdict()).fetchall()
    return tallies_of(
        _sums(db, OF_TALLIES, window), _changes(db, window), [Count(*columns) for columns in counts]
    )


def read_slices(db: Transaction, facet: Facet, start: float, end: float) -> Sequence[Slice]:
    """See Store.slices."""
    window = hours(start, end)
    hourly = facet == "hour"
    sums = db.execute(HOURS, window._asdict()).fetchall() if hourly else _sums(db, [facet], window)
    return slices_of(facet, sums, _changes(db, window))


def read_depth(db: Transaction) -> dict[str, int]:
    """See Store.depth."""
    leased = sum(db.execute(one).fetchall()[0][0] for one in (LEASED, LEASED_OLD))
    return depth_of(db.execute(DEPTH).fetchall(), leased)


def prune_sums(db: Transaction) -> None:
    """Delete the sums and counters that are older than KEPT_DAYS."""
    # Two processes that prune at once must not add the same twice.
    if not db.execute(TRY_LOCK).fetchall()[0][0]:
        return
    oldest = oldest_hour(db.now)
    for statement in (KEEP_TOTALS, KEEP_COUNTS):
        db.execute(statement, (oldest,))
    if db.execute(PRUNE_ROLLUPS, (oldest,)).rowcount:
        db.execute(PRUNE_KEYS)
    db.execute(PRUNE_COUNTS, (oldest,))


def _sums(db: Transaction, facets: Sequence[str], window: Window) -> list[Sum]:
    return db.execute(SUMS, {"facets": list(facets), **window._asdict()}).fetchall()


def _changes(db: Transaction, window: Window) -> Iterator[State]:
    found = db.execute(CHANGES_OF_WINDOW, window._asdict()).fetchall()
    return (State(*columns) for columns in found)
