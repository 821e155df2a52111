"""PostgreSQL: the store in one database that many machines share.

Claims use SKIP LOCKED, leases and all other times the database's clock. One table without
partitions: an event must be the same row whatever day its copies come, and only a unique index
over all rows keeps that; fillfactor, autovacuum and partial indexes keep the queue part small.
Fit for pgbouncer in transaction mode: no prepared statements, no session state, settings by
transaction.
"""

import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import Any

import psycopg
from psycopg import IsolationLevel, conninfo

from capi_middleware.errors import StoreError
from capi_middleware.store.records import LeasedEvent
from capi_middleware.store.rollups import State
from capi_middleware.store.store import Access, Engine, Query, Transaction, named, schema
from capi_middleware.store.writer import LockedError, at_fork

SCHEMA_VERSION = 1
#: Rows that one statement takes at once.
PART_ROWS = 250
#: Changes that one transaction folds.
FOLD_ROWS = 10_000
#: Any numbers that other users of the database are unlikely to lock as well.
_SCHEMA_LOCK, _FOLD_LOCK = 7_236_421_905, 7_236_421_906
#: First and longest pause before the next try to connect, in seconds; each with jitter.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
#: A dead peer is noticed within 15 seconds, a host that does not answer within 5.
_OPTIONS = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
    "application_name": "capi_middleware",
}
_OF_THE_DATA = (psycopg.DataError, psycopg.IntegrityError)
#: Connections that a child inherited: closing them would end the parent's sessions.
_abandoned: list[object] = []


def _translated(query: Query) -> bytes:
    """A query as psycopg wants it. Many rows are columns as arrays: a third of a query for each."""
    text = re.sub(r"(?<!:):(\w+)", r"%(\1)s", query.text)
    if query.columns:
        names = ", ".join(name for name, _ in query.columns)
        arrays = ", ".join(f"%(new_{name})b::{kind}[]" for name, kind in query.columns)
        new = f"WITH new ({names}) AS (SELECT * FROM unnest({arrays}))"  # noqa: S608
        text = text.replace("{new}", new)
    return text.encode()


_NAMED = named("queries.sql", "queries_postgres.sql")
_COLUMNS = {name: [f"new_{one}" for one, _ in query.columns] for name, query in _NAMED.items()}
QUERIES: Mapping[str, bytes] = {name: _translated(query) for name, query in _NAMED.items()}


class _Transaction(Transaction):
    """`xact` is its number, "" for a reader."""

    def __init__(self, db: "psycopg.Connection[Any]", now: float, xact: str) -> None:
        self.now: float = now
        self.xact: str = xact
        self._db = db

    def many(self, query: str, rows: Sequence[Sequence[Any]], **given: Any) -> int:
        """The server works on a part while the next is made."""
        waves = list(_waves(rows)) if query in ("append", "sight") else [rows]
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
        return sum([self._each(f"settle_{state}", some) for state, some in by_state.items()])

    def alone(self) -> bool:
        return bool(self.read("try_lock", number=_FOLD_LOCK)[0][0])

    def take_changes(self) -> tuple[list[State], bool]:
        taken = self.read("take_changes", limit=FOLD_ROWS)
        more = sum([columns[-1] for columns in taken]) >= FOLD_ROWS
        return [State(*columns[:-1]) for columns in taken], more


def _waves(rows: Sequence[Sequence[Any]]) -> Iterator[Sequence[Sequence[Any]]]:
    """Rows in order, in parts in which no event occurs twice."""
    wave: dict[tuple[Any, ...], Sequence[Any]] = {}
    for row in rows:
        identity = (row[0], row[1], row[2])  # event_id, event_name, pixel_id
        if identity in wave:
            yield list(wave.values())
            wave = {}
        wave[identity] = row
    if wave:
        yield list(wave.values())


def _as_columns(query: str, rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    return dict(zip(_COLUMNS[query], map(list, zip(*rows, strict=True)), strict=True))


class PostgresEngine(Engine):
    """See Engine: PostgreSQL 14 or newer, two connections per process.

    Args:
        url: a libpq connection URI; its password is never shown.
        clock: for tests; the database's clock by default. Unix time in seconds.
    """

    immediate = False

    def __init__(self, url: str, clock: Callable[[], float] | None = None) -> None:
        super().__init__()
        self.writing_link: Link = Link(url, clock)
        self.link: Link = Link(url, clock)
        self.name: str = self.link.name
        #: The group whose COMMIT was not answered, and the number of its transaction.
        self._in_doubt: tuple[object, str] | None = None

    @contextmanager
    def group(self, of: object) -> Iterator[_Transaction | None]:
        """See Engine.group."""
        doubt, self._in_doubt = self._in_doubt, None
        # The writer tries the same group again: was it committed after all?
        if doubt is not None and doubt[0] is of and self._was_committed(doubt):
            yield None
            return
        with self.writing_link.transaction() as db:
            yield db
            self._in_doubt = of, db.xact
        self._in_doubt = None

    def _was_committed(self, doubt: tuple[object, str]) -> bool:
        """Raises LockedError while that is not known: the writer asks again."""
        self._in_doubt = doubt
        with self.writing_link.transaction(writing=False) as db:
            [(state,)] = db.read("xact_status", xact=doubt[1])
        if state == "in progress":
            raise LockedError(f"{self.name}: a commit is still under way")
        self._in_doubt = None
        return bool(state == "committed")

    @contextmanager
    def transaction(self, access: Access) -> Iterator[_Transaction]:
        """See Engine.transaction: idle where a report or a courier has the connection, it fails."""
        idle = access == "idle"
        if idle and not self.link.lock.acquire(blocking=False):
            raise LockedError(f"{self.name}: the connection is in use")
        try:
            with self.link.transaction(writing=access != "read") as db:
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

    def tidy(self) -> None:
        """See Engine.tidy: autovacuum does it."""

    def close(self, timeout: float) -> None:
        """See Engine.close."""
        deadline = time.monotonic() + timeout
        self.writing_link.close(timeout)
        self.link.close(max(0.0, deadline - time.monotonic()))


class Link:
    """A connection for one thread at a time, opened late, again when lost, never over a fork."""

    def __init__(self, url: str, clock: Callable[[], float] | None) -> None:
        self._url = url
        self._clock = clock
        self.name: str = _name_of(url)
        self._start_over()
        at_fork(after_in_child=self._abandon)

    def _start_over(self) -> None:
        self._pid = os.getpid()
        self.lock: threading.RLock = threading.RLock()
        self._db: psycopg.Connection[Any] | None = None
        self._failures = 0
        self._try_at = 0.0

    def _abandon(self) -> None:
        _abandoned.append(self._db)
        self._start_over()

    @contextmanager
    def transaction(self, *, writing: bool = True) -> Iterator[_Transaction]:
        """One transaction, committed at the end; all that a reading one sees is of one moment.

        Raises LockedError when the server cannot be reached or the connection was lost (the same
        may work later), StoreError when the database refuses us. Exceptions caused by the data
        come through as they are.
        """
        if self._pid != os.getpid():
            self._abandon()
        with self.lock:
            db = self._connected()
            try:
                level = None if writing else IsolationLevel.REPEATABLE_READ
                if db.isolation_level is not level:
                    db.isolation_level = level
                first = QUERIES["begin" if writing else "begin_reading"]
                now, xact, _ = db.execute(first).fetchone() or (0.0, "", "")
                yield _Transaction(db, self._clock() if self._clock else now, xact)
                db.commit()
            except BaseException as error:
                lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
                self._end(db, lost=lost or db.closed or db.broken)
                if isinstance(error, psycopg.Error) and not isinstance(error, _OF_THE_DATA):
                    raise self._failure(error) from None
                raise

    def close(self, timeout: float) -> None:
        """Close the connection unless it is still in use after `timeout` seconds."""
        if self._pid == os.getpid() and self.lock.acquire(timeout=timeout):
            try:
                if self._db is not None:
                    self._end(self._db, lost=True)
            finally:
                self.lock.release()

    def _end(self, db: "psycopg.Connection[Any]", *, lost: bool) -> None:
        try:
            if not lost:
                db.rollback()
        except psycopg.Error:
            lost = True
        if lost:
            self._db = None
            with suppress(psycopg.Error):
                db.close()

    def _connected(self) -> "psycopg.Connection[Any]":
        if self._db is not None and not self._db.closed:
            return self._db
        if time.monotonic() < self._try_at:
            raise LockedError(f"{self.name}: the server cannot be reached")
        try:
            options: dict[str, Any] = {**_OPTIONS, "prepare_threshold": None}
            db = psycopg.connect(self._url, **options)
        except psycopg.Error as error:
            self._failures += 1
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures, 10))
            self._try_at = time.monotonic() + pause * random.uniform(0.5, 1.0)  # noqa: S311
            raise self._failure(error) from None
        self._failures = 0
        try:
            self._prepare(db)
        except psycopg.Error as error:
            db.close()
            raise self._failure(error) from None
        except BaseException:
            db.close()
            raise
        self._db = db
        return db

    def _prepare(self, db: "psycopg.Connection[Any]") -> None:
        version = self._version(db)
        if version is None:
            db.execute(b"SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
            version = self._version(db)
            if version is None:
                version = SCHEMA_VERSION
                for statement in schema("postgres.sql"):
                    db.execute(statement.encode())
                db.execute(b"CREATE TABLE capi_schema (version integer NOT NULL)")
                db.execute(b"INSERT INTO capi_schema VALUES (%s)", (version,))
        db.commit()
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{self.name}: found schema {version}, expected {SCHEMA_VERSION}: another version "
                "of capi_middleware made these tables, use the same version or another database"
            )

    def _version(self, db: "psycopg.Connection[Any]") -> int | None:
        if db.execute(QUERIES["has_schema"]).fetchone() is None:
            return None
        version = db.execute(b"SELECT version FROM capi_schema").fetchone()
        return int(version[0]) if version is not None else None

    def _failure(self, error: psycopg.Error) -> StoreError:
        # By its code: a message of the driver's may hold the connection string.
        what = f"{type(error).__name__}{f' ({error.sqlstate})' if error.sqlstate else ''}"
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return LockedError(f"{self.name}: the server cannot be reached or ended: {what}")
        return StoreError(f"{self.name}: the database refused a statement: {what}")


def _name_of(url: str) -> str:
    """The database without user and password."""
    try:
        parts = conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        return "postgresql"
    return f"postgresql://{parts.get('host') or 'localhost'}/{parts.get('dbname') or ''}"
