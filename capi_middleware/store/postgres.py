"""PostgreSQL: the store in one database that many machines share.

Claims use SKIP LOCKED, leases and all other times the database's clock. One table without
partitions: an event must be the same row whatever day its copies come, and only a unique index
over all rows keeps that; fillfactor, autovacuum and partial indexes keep the queue part small.
Fit for pgbouncer in transaction mode: no prepared statements, no session state, settings by
transaction.
"""

import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import Any

import psycopg

from capi_middleware.store.link import Link, Outage, name_of
from capi_middleware.store.orders import Found
from capi_middleware.store.records import LeasedEvent, Look
from capi_middleware.store.rollups import State
from capi_middleware.store.store import Access, Engine, Query, Transaction, named
from capi_middleware.store.writer import AwayError, LockedError

#: Rows that one statement takes at once.
PART_ROWS = 250
#: Changes that one transaction folds.
FOLD_ROWS = 10_000
#: How long a mark of a group is kept, in seconds: longer than an outage may take.
MARK_SECONDS = 7 * 86_400.0
#: Any number that other users of the database are unlikely to lock as well.
_FOLD_LOCK = 7_236_421_906


def _translated(query: Query) -> bytes:
    """A query as psycopg wants it. Many rows are columns as arrays: a third of a query for each."""
    text = re.sub(r"(?<!:):(\w+)", r"%(\1)s", query.text)
    if query.columns:
        names = ", ".join(name for name, _ in query.columns)
        arrays = ", ".join(f"%(new_{name})b::{kind}[]" for name, kind in query.columns)
        new = f"WITH new ({names}) AS (SELECT * FROM unnest({arrays}))"  # noqa: S608
        text = text.replace("{new}", new)
    return text.encode()


#: What a row of these queries must not share with another of the same statement: an event's
#: event_id, event_name and pixel_id; the bucket of an order.
_ONCE: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    "append": itemgetter(0, 1, 2), "sight": itemgetter(0, 1, 2),
    "remember": lambda row: row[0] >> 49,
}  # fmt: skip
_NAMED = named("queries.sql", "queries_postgres.sql")
_COLUMNS = {name: [f"new_{one}" for one, _ in query.columns] for name, query in _NAMED.items()}
QUERIES: Mapping[str, bytes] = {name: _translated(query) for name, query in _NAMED.items()}


class _Transaction(Transaction):
    """`counts`: whether it adds to counters, which the same again would count twice."""

    def __init__(self, db: "psycopg.Connection[Any]", now: float) -> None:
        self.now: float = now
        self.counts: bool = False
        self._db = db

    def many(self, query: str, rows: Sequence[Sequence[Any]], **given: Any) -> int:
        """The server works on a part while the next is made."""
        self.counts = self.counts or (query == "count" and bool(rows))
        waves = list(_waves(query, rows)) if query in _ONCE else [rows]
        if query == "sight":
            waves = [sorted(wave, key=itemgetter(0, 1, 2)) for wave in waves]  # as `lock` does
        parts = [
            {**given, **_as_columns(query, wave[at : at + PART_ROWS])}
            for wave in waves
            for at in range(0, len(wave), PART_ROWS)
        ]
        return self._each(query, parts)

    def _each(self, query: str, given: Sequence[Mapping[str, Any]]) -> int:
        if not given:
            return 0
        with self._db.cursor() as cursor:
            cursor.executemany(QUERIES[query], given)
            return cursor.rowcount

    def _execute(self, query: str, given: Mapping[str, Any]) -> "psycopg.Cursor[Any]":
        return self._db.execute(QUERIES[query], given)

    def _execute_many(
        self, query: str, rows: Sequence[Sequence[Any]], given: Mapping[str, Any]
    ) -> Iterator["psycopg.Cursor[Any]"]:
        if rows:
            yield self._execute(query, {**given, **_as_columns(query, rows)})

    def settle(self, lease_id: str, outcomes: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
        by_state: dict[str, list[dict[str, Any]]] = {}
        locked: list[int] = []
        for state, given in outcomes:
            some = by_state.setdefault(state, [])
            some.append({**given, "lease_id": lease_id, "now": self.now})
            locked += given["keys"]
        # Events before leases, as a claim does: nobody waits in a circle.
        self.read("lock", keys=locked)
        # Each of a thousand may have a delay of its own.
        held = sum([self._each(f"settle_{state}", some) for state, some in by_state.items()])
        done = [
            key
            for one in ("delivered", "stopped")
            for given in by_state.get(one, ())
            for key in given["keys"]
        ]
        if done:
            self.run("forget_payloads", keys=done)
        self.run("end_lease", lease_id=lease_id, keys=locked)
        return held

    def alone(self) -> bool:
        return bool(self.read("try_lock", number=_FOLD_LOCK)[0][0])

    def take_changes(self) -> tuple[list[State], bool]:
        taken = self.read("take_changes", limit=FOLD_ROWS)
        more = sum([columns[-1] for columns in taken]) >= FOLD_ROWS
        return [State(*columns[:-1]) for columns in taken], more


def _waves(query: str, rows: Sequence[Sequence[Any]]) -> Iterator[Sequence[Sequence[Any]]]:
    """Rows in order, in parts in which nothing occurs twice that a query may have once."""
    wave: dict[Any, Sequence[Any]] = {}
    identity_of = _ONCE[query]
    for row in rows:
        identity = identity_of(row)
        if identity in wave:
            yield list(wave.values())
            wave = {}
        wave[identity] = row
    if wave:
        yield list(wave.values())


def _as_columns(query: str, rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    return dict(zip(_COLUMNS[query], map(list, zip(*rows, strict=True)), strict=True))


class PostgresEngine(Engine):
    """See Engine: PostgreSQL 14 or newer, two connections per process, a third for `recall`.

    Args:
        url: a libpq connection URI; its password is never shown.
        clock: for tests; the database's clock by default. Unix time in seconds.
        place: which one of how many databases it is, see Shards; kept in it, and never another.
    """

    immediate = False
    recall_seconds: float = 0.05

    def __init__(
        self, url: str, clock: Callable[[], float] | None = None, place: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        outage = Outage(name_of(url))
        begins = QUERIES["begin"], QUERIES["begin_reading"]
        self.writing_link: Link = Link(url, *begins, outage, place)
        self.link: Link = Link(url, *begins, outage, place)
        #: Neither a report nor a commit holds up a page.
        self.recalling_link: Link = Link(url, *begins, outage, place)
        self.name: str = self.link.name
        mark = sha256(f"{self.name} {place}".encode()).hexdigest()[:16]
        self.beside: Path = Path(tempfile.gettempdir()) / f"capi-{mark}"
        self._clock = clock
        #: Who writes here, and how many of its groups left a mark.
        self._writer, self._marks = "", 0
        #: The group whose COMMIT was not answered.
        self._in_doubt: object = None

    @contextmanager
    def group(self, of: object) -> Iterator[_Transaction | None]:
        """See Engine.group.

        Rows may be stored again without harm, counters may not. So a group with counters leaves a
        mark in its transaction, and the same group looks for it when its COMMIT was not answered:
        what a server knows that took over is in its tables, and nowhere else.
        """
        if self._in_doubt is not of:
            self._in_doubt = None
        with self._transaction(self.writing_link) as db:
            mark = {"writer": self._writer, "number": self._marks}
            if self._in_doubt is not None and db.read("marked", **mark):
                yield None
            else:
                yield db
                if db.counts:
                    self._mark(db)
                    self._in_doubt = of
        self._in_doubt = None  # not before: this transaction's own end may be lost, too

    def _mark(self, db: _Transaction) -> None:
        name = f"{os.getpid()}-{secrets.token_hex(8)}"
        if self._in_doubt is None:
            self._marks += 1
        if not self._writer.startswith(f"{os.getpid()}-"):  # the first of a process
            self._writer = name
            db.run("forget_marks", before=db.now - MARK_SECONDS)
        if not db.run("mark", writer=self._writer, number=self._marks, now=db.now):
            # Its first COMMIT was under way when we looked, and has ended since.
            raise AwayError(f"{self.name}: a commit was still under way")

    @contextmanager
    def _transaction(self, link: Link, *, writing: bool = True) -> Iterator[_Transaction]:
        with link.transaction(writing=writing) as (db, now):
            yield _Transaction(db, self._clock() if self._clock else now)

    @contextmanager
    def transaction(self, access: Access) -> Iterator[_Transaction]:
        """See Engine.transaction: idle where a report or a courier has the connection, it fails."""
        idle = access == "idle"
        if idle and not self.link.lock.acquire(blocking=False):
            raise LockedError(f"{self.name}: the connection is in use")
        try:
            with self._transaction(self.link, writing=access != "read") as db:
                yield db
        finally:
            if idle:
                self.link.lock.release()

    def claim(
        self, pixel_id: str, lease_id: str, *, limit: int, seconds: float, surely: float | None
    ) -> tuple[list[LeasedEvent], bool]:
        """See Engine.claim."""
        with self.transaction("write") as db:
            given = {"pixel_id": pixel_id, "now": db.now}
            db.run("release", wait=self._longest_wait(pixel_id, db.now), **given)
            latest = db.now if surely is None else min(db.now, surely)
            due = db.read("due", limit=limit, surely=latest, **given)
            expired = [columns[0] for columns in due if columns[-1] and surely is not None]
            if expired:
                db.run("expire", keys=expired)
                db.run("forget_payloads", keys=expired)
            given |= {"lease_id": lease_id, "until": db.now + seconds}
            keys = [columns[0] for columns in due if not columns[-1]]
            leased = {key for (key,) in db.read("lease", keys=keys, **given)} if keys else set()
        return [LeasedEvent(*one[:-1]) for one in due if one[0] in leased], bool(expired)

    def shrink(self) -> bool:
        """See Engine.shrink: autovacuum does what can be done while others write."""
        return False

    def look(self, pixel_ids: Sequence[str] | None, every: float) -> Look:
        """See Engine.look: one query, or two where any pixel may have events."""
        pixels = "*"
        if pixel_ids is None:
            pixel_ids = [pixel_id for (pixel_id,) in self.link.ask(QUERIES["pixels_waiting"], {})]
        else:
            pixels = sha256(",".join(sorted(pixel_ids)).encode()).hexdigest()
        given = {"pixels": pixels, "pixel_ids": [*pixel_ids], "every": every,
                 "look": secrets.token_hex(8),
                 "now": self._clock() if self._clock else None}  # fmt: skip
        [(due, now, seconds, on_duty)] = self.link.ask(QUERIES["look"], given)
        return Look({*due} | self._put_off(pixel_ids, now), seconds, on_duty)

    def recall(self, first: Sequence[int]) -> Found:
        """See Engine.recall: one query."""
        found = self.recalling_link.ask(QUERIES["recall"], {"first": [*first]})
        return [(key, at) for key, at in found]

    def tidy(self) -> None:
        """See Engine.tidy: autovacuum does it."""

    def close(self, timeout: float) -> None:
        """See Engine.close."""
        deadline = time.monotonic() + timeout
        self.writing_link.close(timeout)
        for link in (self.link, self.recalling_link):
            link.close(max(0.0, deadline - time.monotonic()))
