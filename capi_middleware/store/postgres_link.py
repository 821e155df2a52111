"""A connection to PostgreSQL: opened late, opened again when it is lost, never carried over a fork.

Fit for pgbouncer in transaction mode: no prepared statements, no session state, settings by
transaction.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from typing import Any

import psycopg
from psycopg import conninfo

from capi_middleware.errors import StoreError
from capi_middleware.store import postgres_statements as sql
from capi_middleware.store.forks import at_fork
from capi_middleware.store.submissions import LockedError

SCHEMA_VERSION = 3
#: Any number that other users of the database are unlikely to lock as well.
_SCHEMA_LOCK = 7_236_421_905
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


class Transaction:
    """A running transaction: `now` is Unix time in seconds, `xact` its number, "" for a reader."""

    def __init__(self, db: "psycopg.Connection[Any]", now: float, xact: str) -> None:
        self.now = now
        self.xact = xact
        self._db = db

    def execute(self, statement: str, parameters: Any = None) -> "psycopg.Cursor[Any]":
        """Execute one of our own statements."""
        return self._db.execute(statement.encode(), parameters)

    def many(self, statement: str, parameters: list[Any]) -> int:
        """Execute for each of the parameters, in one pipeline; how many rows were affected."""
        if not parameters:
            return 0
        with self._db.cursor() as cursor:
            cursor.executemany(statement.encode(), parameters)
            return cursor.rowcount


class Link:
    """One connection for one thread at a time."""

    def __init__(self, url: str, clock: Callable[[], float] | None) -> None:
        self._url = url
        self._clock = clock
        self.name: str = _name_of(url)
        self._start_over()
        at_fork(after_in_child=self._abandon)

    def _start_over(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._db: psycopg.Connection[Any] | None = None
        self._failures = 0
        self._try_at = 0.0

    def _abandon(self) -> None:
        _abandoned.append(self._db)
        self._start_over()

    @contextmanager
    def transaction(self, *, writing: bool = True, snapshot: bool = False) -> Iterator[Transaction]:
        """One transaction, committed at the end; with `snapshot`, all it reads is of one moment.

        Raises LockedError when the server cannot be reached or the connection was lost (the same
        may work later), StoreError when the database refuses us. Exceptions caused by the data
        come through as they are.
        """
        if self._pid != os.getpid():
            self._abandon()
        with self._lock:
            db = self._connected()
            try:
                if snapshot:
                    db.execute(sql.SNAPSHOT.encode())
                first = sql.BEGIN if writing else sql.BEGIN_READING
                now, xact, _ = db.execute(first.encode()).fetchone() or (0.0, "", "")
                yield Transaction(db, self._clock() if self._clock else now, xact)
                db.commit()
            except BaseException as error:
                lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
                self._end(db, lost=lost or db.closed or db.broken)
                if isinstance(error, psycopg.Error) and not isinstance(error, _OF_THE_DATA):
                    raise self._failure(error) from None
                raise

    def close(self) -> None:
        """Close the connection. A later use opens another."""
        if self._pid == os.getpid():
            with self._lock:
                if self._db is not None:
                    self._end(self._db, lost=True)

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
        if version is None or version < SCHEMA_VERSION:
            db.execute(b"SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
            version = self._version(db)
            if version is None or version < SCHEMA_VERSION:
                version = self._migrate(db, version)
        db.commit()
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.name}: found schema {version}, expected {SCHEMA_VERSION} or older: a newer "
                "capi_middleware made these tables, upgrade the package or use another database"
            )

    def _migrate(self, db: "psycopg.Connection[Any]", version: int | None) -> int:
        """Make the tables, or bring those of an older version up to date."""
        steps = ["postgres.sql"]
        if version is None:
            db.execute(b"CREATE TABLE capi_schema (version integer NOT NULL)")
            db.execute(b"INSERT INTO capi_schema VALUES (0)")
        else:
            steps = [f"postgres_{to}.sql" for to in range(version + 1, SCHEMA_VERSION + 1)]
        for step in steps:
            script = files("capi_middleware.store").joinpath("schema", step).read_text("utf-8")
            for statement in script.split(";\n"):
                if statement.strip():
                    db.execute(statement.encode())
        db.execute(b"UPDATE capi_schema SET version = %s", (SCHEMA_VERSION,))
        return SCHEMA_VERSION

    def _version(self, db: "psycopg.Connection[Any]") -> int | None:
        # Read from the catalog: to_regclass() may answer from a cache that a waiting start keeps.
        if db.execute(sql.HAS_SCHEMA.encode()).fetchone() is None:
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
