"""The report over many events beside few, and what keeping its sums costs each event."""

import contextlib
import itertools
import math
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from capi_middleware.events import Row as Event
from capi_middleware.report.read import read_report
from capi_middleware.report.window import Window
from capi_middleware.store import store as stores
from capi_middleware.store.store import Store
from tests.benchmarks import purchase
from tests.benchmarks.measure import Row, Trial
from tests.support.configs import PIXEL_ID, make_config
from tests.support.stores import sqlite_store

_MANY, _FEW = 10_000_000, 10_000
_ENQUEUED, _TOGETHER = 20_000, 256
#: Rows of eight days, the window is seven that begin and end within a day.
_HOURS = 8 * 24
_START = 1_799_971_200 - 1_799_971_200 % 86_400
_WINDOW = Window(_START + 12 * 3600.0, _START + (12 + 7 * 24) * 3600.0)
_READS = 9
_numbers = itertools.count()
_BODY = purchase.stored()

#: Five events, two pixels, five browser states, six masks; delivered within two seconds.
_ROWS = """
WITH RECURSIVE numbers (i) AS (
    SELECT :first UNION ALL SELECT i + 1 FROM numbers WHERE i + 1 < :last
), rows AS (SELECT i, i / :an_hour AS hour, (i % :pattern) * 7919 % 1000003 AS j FROM numbers)
INSERT INTO events (event_id, event_name, pixel_id, event_time, created_at, server, due_at,
                    delivered_at, browser, match_keys, route, page, segment)
SELECT printf('p%019d', i),
       CASE j % 5 WHEN 0 THEN 'PageView' WHEN 1 THEN 'ViewContent' WHEN 2 THEN 'AddToCart'
                  WHEN 3 THEN 'InitiateCheckout' ELSE 'Purchase' END,
       '123456789' || (j / 5 % 2), at, at, CASE WHEN j % 50 THEN 'delivered' ELSE 'expired' END, at,
       at + (j / 11 % 20) / 10.0,
       CASE j / 10 % 5 WHEN 0 THEN 'not_run' WHEN 1 THEN 'script_blocked' WHEN 2 THEN 'left_early'
                       WHEN 3 THEN 'consent' ELSE 'sent' END,
       j / 50 % 6, 'GET /r' || (j / 3 % 8), '/page/' || (j / 7 % 20),
       CASE j / 13 % 4 WHEN 0 THEN 'Chrome' WHEN 1 THEN 'Safari' WHEN 2 THEN 'Edge'
                       ELSE 'Instagram' END
           || char(9) || CASE j / 19 % 2 WHEN 0 THEN 'phone' ELSE 'computer' END
           || char(9) || CASE j / 17 % 3 WHEN 0 THEN 'DE' WHEN 1 THEN 'AT' ELSE 'CH' END
           || char(9) || 'a.example'
FROM (SELECT i, j, :start + hour * 3600.0 + i % :an_hour * 3600.0 / :an_hour AS at FROM rows)
"""
#: All hours have the same rows: their sums are those of the first.
_HOURLY = """
WITH RECURSIVE hours (h) AS (SELECT 1 UNION ALL SELECT h + 1 FROM hours WHERE h + 1 < :hours)
INSERT INTO rollups SELECT facet, 1, start + h, key, n FROM rollups, hours WHERE span = 1
"""
_SPANS = """
INSERT INTO rollups SELECT facet, :span, start / :span * :span, key, SUM(n) FROM rollups
WHERE span = 1 AND facet <> 'hour' GROUP BY facet, start / :span, key
"""
_DEPTH = "UPDATE rollups SET n = n * ? WHERE span = 0"
_SUMMED = "UPDATE summed SET key = (SELECT MAX(key) FROM events)"


def _ledger(path: Path, amount: int) -> Store:
    """A store with `amount` settled events of eight days."""
    an_hour = amount // _HOURS
    store = sqlite_store(path, clock=lambda: _WINDOW.end)
    store.depth()
    first_hour = {
        "first": 0, "last": an_hour, "an_hour": an_hour, "start": _START, "pattern": an_hour,
    }  # fmt: skip
    if amount <= _FEW:
        # Few enough to be summed one by one, and for hours that differ.
        first_hour |= {"last": amount, "pattern": amount}
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(_ROWS, first_hour)
    store.prune(0)
    store.close()
    if amount <= _FEW:
        return store
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA synchronous = OFF")
        with db:
            rest = {**first_hour, "first": an_hour, "last": an_hour * _HOURS}
            db.execute(_ROWS, rest)
            db.execute("DELETE FROM rollups WHERE span > 1")
            db.execute(_HOURLY, {"hours": _HOURS})
            for span in (6, 24):
                db.execute(_SPANS, {"span": span})
            db.execute(_DEPTH, (_HOURS,))
            db.execute(_SUMMED)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return store


class _Ledgers:
    """Makes each ledger once, when it is first read."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._made: dict[int, Store] = {}

    def figure(self, read: Callable[[Store], float], amount: int, share: float) -> float:
        amount = max(_FEW, int(amount * share))
        if amount not in self._made:
            self._made[amount] = _ledger(self._folder / f"{amount}.db", amount)
        return read(self._made[amount])

    def close(self) -> None:
        for store in self._made.values():
            store.close()


def _seconds(read: Callable[[], object]) -> float:
    read()
    taken = []
    for _ in range(_READS):
        start = time.perf_counter()
        read()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _report(store: Store) -> float:
    config = make_config()
    return _seconds(lambda: read_report(store, config, _WINDOW))


def _tallies(store: Store) -> float:
    return _seconds(lambda: store.tallies(_WINDOW.start, _WINDOW.end))


def _enqueue(share: float, *, summed: bool) -> float:
    """Seconds for each event, in group commits."""
    amount = max(_TOGETHER, int(_ENQUEUED * share))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patches:
        store = sqlite_store(Path(folder) / "capi.db")
        store.depth()
        if not summed:
            patches.setattr(stores, "FOLD_EVERY", math.inf)
        events = [_event() for _ in range(amount)]
        start = time.perf_counter()
        for at in range(0, amount, _TOGETHER):
            future = store.append(events[at : at + _TOGETHER], wait=True)
            assert future is not None
            future.result(60)
        taken = time.perf_counter() - start
        store.close()
    return taken / amount


def _event() -> Event:
    n = next(_numbers)
    return Event(
        event_id=f"e{n}", event_name=("Purchase", "Lead")[n % 2], pixel_id=PIXEL_ID,
        event_time=time.time(), payload=_BODY, match_keys=n % 6, route=f"GET /r{n % 8}",
        page=f"/page/{n % 20}",
        segment=("Chrome\tphone\tDE\ta.example", "Safari\tcomputer\tAT\ta.example")[n % 2],
    )  # fmt: skip


def rows() -> Iterator[Row | Trial]:
    """What the table says about the report."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ends:
        ledgers = _Ledgers(folder)
        ends.callback(ledgers.close)
        for what, read in (("the report's numbers", _tallies), ("the whole report", _report)):
            yield Trial(
                f"{what}, {_MANY:,} events in the file", f"{_FEW:,}", 1.5,
                partial(ledgers.figure, read, _MANY), partial(ledgers.figure, read, _FEW),
            )  # fmt: skip
    yield Trial(
        "enqueue with the report's sums kept, for each event", "without them", 1.5,
        partial(_enqueue, summed=True), partial(_enqueue, summed=False),
    )  # fmt: skip
