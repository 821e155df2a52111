"""Links: connections to a PostgreSQL server that comes and goes, and one word on each outage."""

import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg import IsolationLevel, conninfo
from psycopg.errors import Diagnostic

from capi_middleware.errors import ConfigError, StoreError
from capi_middleware.shield import REPEAT_SECONDS, about
from capi_middleware.store.store import schema
from capi_middleware.store.writer import LONG_LOCK, AwayError, LockedError, at_fork

logger: logging.Logger = logging.getLogger("capi_middleware.store")

SCHEMA_VERSION = 1
#: A number that other users of the database are unlikely to lock as well.
_SCHEMA_LOCK = 7_236_421_905
#: First and longest pause before the next try to connect, in seconds; each with jitter.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
#: Longer than the limit of a statement (`begin` in queries_postgres.sql): whoever says nothing for
#: so many seconds is a proxy that forwards nothing, or hangs.
ANSWER_SECONDS = 40.0
#: How long to wait for a server that is told to stop what it does for us, in seconds.
CANCEL_SECONDS = 1.0
#: What a URL may say otherwise. A dead peer is noticed within 15 seconds, a host that does not
#: answer within 5. Whatever has several hosts, or changes roles, has one that takes writes.
_OPTIONS = {
    "connect_timeout": "5",
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "15000",
    "target_session_attrs": "read-write",
    "application_name": "capi_middleware",
}
#: What the values of a statement are the cause of: classes of SQLSTATE, and the driver's errors
#: without one. All else is the server's trouble, and rows wait until it is over.
_OF_THE_DATA = ("21", "22", "23", "44", "54", "P0")
_OF_THE_VALUES = (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError)
#: Others were in the way, or slow: the session is as good as before.
_IN_THE_WAY = ("40", "55", "57014")
#: In words, by the beginning of a SQLSTATE; the first that fits.
_BY_STATE = {
    "25006": "it is read-only: a standby, or a primary that was demoted",
    "25": "it ended a transaction that took too long",
    "28": "it refuses the user or the password",
    "3D": "it has no such database",
    "3F": "its user's search_path names no schema that is there and may be used",
    "42501": "its user lacks a right: let the owner of the tables run capi-middleware migrate, "
    "and GRANT SELECT, INSERT, UPDATE, DELETE on them",
    "42P01": "its tables are not where its user's search_path looks",
    "40": "others were in the way",
    "53100": "its disk is full",
    "53300": "it has no connection left",
    "53": "it has no memory or room left",
    "55": "others hold a lock",
    "57014": "a statement took longer than it may",
    "57P01": "it ended the session, or is being shut down",
    "57P02": "it crashed",
    "57P03": "it is starting or being shut down",
    "57P05": "it ended a session that was idle",
    "57": "it was told to stop",
    "58": "it cannot read or write its files",
    "XX": "it is damaged, or has a fault",
}
#: The same by what libpq and pgbouncer say where nobody is connected yet: they give no SQLSTATE.
_BY_TEXT = {
    "no synchronous standby": "its synchronous standby does not answer",
    "session is read-only|server is (not )?in hot standby": _BY_STATE["25006"],
    "pg_hba.conf": "its pg_hba.conf admits no such user, database, address or encryption",
    "password|authentication|role .* does not exist|no such user": _BY_STATE["28"],
    "database .* does not exist|no such database": _BY_STATE["3D"],
    "certificate|SSL|TLS": "its certificate is not the expected one, or TLS failed",
    "connection slots|too many|no more connections": _BY_STATE["53300"],
    "starting up|shutting down|recovery mode|not yet accepting": _BY_STATE["57P03"],
    "[Cc]onnection refused|No such file or directory": "nothing listens at that port",
    "host name|Name or service|address associated|resolve": "no such host is known",
    "server_login_retry": "the pool in front of it cannot reach it",
    "timeout expired|timed out|query_wait_timeout": "no answer came in time",
    "unreachable|No route": "no way leads to that network",
    "closed|terminat|reset by peer|Broken pipe|lost|EOF": "the connection was lost",
}  # fmt: skip
#: Connections that a child inherited: closing them would end the parent's sessions.
_abandoned: list[object] = []

T = TypeVar("T")


class Session(psycopg.Connection[Any]):
    """A connection on which no answer may take longer than ANSWER_SECONDS.

    A COMMIT that was told not to wait for its synchronous standby has failed: the server says that
    it is done, with a warning, and a failover would lose it. The same again waits for the standby.
    """

    is_warned: bool = False

    def commit(self) -> None:
        """See psycopg."""
        self.is_warned = False
        super().commit()
        if self.is_warned:
            raise psycopg.OperationalError("no synchronous standby")

    def wait(self, gen: Generator[Any, Any, T], *given: Any, **more: Any) -> T:
        """See psycopg: each exchange with the server passes here."""
        try:
            return super().wait(_in_time(gen), *given, **more)
        except _SilenceError:
            # What it waits for would go on without us, once for each of our tries.
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=CANCEL_SECONDS)
            raise


class _SilenceError(psycopg.OperationalError):
    """The server said nothing for too long."""


def _in_time(exchange: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
    """An exchange with the server that ends in time: it is told 0 where nothing came."""
    end, ready = time.monotonic() + ANSWER_SECONDS, None
    while True:
        try:
            wanted = exchange.send(ready)
        except StopIteration as done:
            result: T = done.value
            return result
        ready = yield wanted
        if not ready and time.monotonic() > end:
            exchange.close()
            raise _SilenceError("timeout expired")


class Outage:
    """What keeps a database from being used: told once when it lasts, and when it is over.

    A server that comes and goes is told each minute.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._what = ""
        self._since: float | None = None
        self._is_told = False
        #: When the last end was told, and how many short ones came since.
        self._told_at: float | None = None
        self._more = 0

    def begin(self, what: str) -> None:
        """It cannot be used, for this reason."""
        now = time.monotonic()
        self._what, self._since = what, self._since or now
        if not self._is_told and now - self._since >= LONG_LOCK:
            self._is_told = True
            logger.error(
                "%s cannot be used: %s; what comes waits in memory until it can", self._name, what,
                extra=about("store_away"),
            )  # fmt: skip

    def end(self) -> None:
        """It can be used."""
        since, self._since = self._since, None
        if since is None:
            return
        now, is_told, self._is_told = time.monotonic(), self._is_told, False
        if not is_told and self._told_at is not None and now - self._told_at < REPEAT_SECONDS:
            self._more += 1
            return
        more = f", and {self._more} times more for a moment" if self._more else ""
        self._told_at, self._more = now, 0
        logger.warning(
            "%s could not be used for %.1f s (%s)%s", self._name, now - since, self._what, more,
            extra=about("store_back", seconds=now - since),
        )  # fmt: skip


class Link:
    """A connection for one thread at a time, opened late, again when lost, never over a fork.

    Args:
        url: a libpq connection URI, of several hosts if need be; its password is never shown.
        begin, begin_reading: queries that begin a transaction; the first column they find is the
            time of the database, Unix time in seconds.
        outage: where all links to a database tell that they cannot use it.
        place: which one of how many databases it is.
    """

    def __init__(
        self, url: str, begin: bytes, begin_reading: bytes, outage: Outage,
        place: tuple[int, int] = (1, 1),
    ) -> None:  # fmt: skip
        self._place = place
        self._options: dict[str, Any] = {**_OPTIONS, **options_of(url)}
        self._begin, self._begin_reading = begin, begin_reading
        self._outage = outage
        self.name: str = name_of(url)
        self._start_over()
        at_fork(after_in_child=self._abandon)

    def _start_over(self) -> None:
        self._pid = os.getpid()
        self.lock: threading.RLock = threading.RLock()
        self._db: Session | None = None
        #: The transaction of the thread that holds the lock.
        self._running: tuple[Session, float] | None = None
        self._failures = 0
        self._try_at = 0.0
        self._what = ""

    def _abandon(self) -> None:
        _abandoned.append(self._db)
        self._start_over()

    @contextmanager
    def transaction(self, *, writing: bool = True) -> Iterator[tuple[Session, float]]:
        """A connection in a transaction, and the database's time; committed at the end.

        All that a reading one sees is of one moment. Raises AwayError when the server cannot be
        used (the same may work later), StoreError when this database never can. Exceptions caused
        by the data come through as they are. A reading one within another is a part of it.
        """
        level = IsolationLevel.READ_COMMITTED if writing else IsolationLevel.REPEATABLE_READ
        query = self._begin if writing else self._begin_reading

        def begin(db: Session) -> float:
            if db.isolation_level is not level:
                db.isolation_level = level
            found = db.execute(query).fetchone()
            return found[0] if found else 0.0

        with self._held():
            if self._running is not None:
                if writing:
                    raise LockedError(f"{self.name}: a report is being read")
                yield self._running
                return
            db, now = self._running = self._first(begin)
            try:
                with self._ending(db):
                    yield db, now
                    db.commit()
            finally:
                self._running = None
            self._outage.end()

    def ask(self, query: bytes, given: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """What one query finds, in a transaction of its own. Raises like `transaction`."""

        def run(db: Session) -> list[tuple[Any, ...]]:
            db.autocommit = True
            try:
                return db.execute(query, given).fetchall()
            finally:
                if not db.closed:
                    db.autocommit = False

        with self._held():
            _, found = self._first(run)
            self._outage.end()
        return found

    @contextmanager
    def _held(self) -> Iterator[None]:
        if self._pid != os.getpid():
            self._abandon()
        with self.lock:
            yield

    def _first(self, run: Callable[[Session], T]) -> tuple[Session, T]:
        """A connection and what it does first; another one if it ended while nobody used it."""
        while True:
            known = self._db is not None
            db = self._connected()
            try:
                with self._ending(db):
                    return db, run(db)
            except AwayError:
                if not known or self._db is not None:
                    raise

    @contextmanager
    def _ending(self, db: Session) -> Iterator[None]:
        """An error ends the transaction, or the session, and is what callers are to get."""
        try:
            yield
        except BaseException as error:
            is_ours = not isinstance(error, psycopg.Error) or is_of_the_data(error)
            state = getattr(error, "sqlstate", None) or ""
            keep = is_ours or state.startswith(_IN_THE_WAY)
            self._end(db, lost=not keep or db.closed or db.broken)
            if is_ours or not isinstance(error, psycopg.Error):
                raise
            raise self._away(error) from None

    def close(self, timeout: float) -> None:
        """Close the connection unless it is still in use after `timeout` seconds."""
        if self._pid == os.getpid() and self.lock.acquire(timeout=timeout):
            try:
                if self._db is not None:
                    self._end(self._db, lost=True)
            finally:
                self.lock.release()

    def _end(self, db: Session, *, lost: bool) -> None:
        try:
            if not lost:
                db.rollback()
        except psycopg.Error:
            lost = True
        if lost:
            self._db = None
            with suppress(psycopg.Error):
                db.close()

    def _connected(self) -> Session:
        if self._db is not None and not self._db.closed:
            return self._db
        if time.monotonic() < self._try_at:
            self._outage.begin(self._what)
            raise AwayError(f"{self.name} cannot be used: {self._what}")
        try:
            db = Session.connect(**self._options, client_encoding="UTF8", prepare_threshold=None)
        except psycopg.Error as error:
            self._failures += 1
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures, 10))
            self._try_at = time.monotonic() + pause * random.uniform(0.5, 1.0)  # noqa: S311
            raise self._away(error) from None
        self._failures = 0
        db.add_notice_handler(partial(_warn, db))
        try:
            _prepare(db, self.name, self._place)
        except psycopg.Error as error:
            db.close()
            raise self._away(error) from None
        except BaseException:
            db.close()
            raise
        self._db = db
        return db

    def _away(self, error: psycopg.Error) -> AwayError:
        self._what = words_of(error)
        self._outage.begin(self._what)
        if error.sqlstate:
            kind = f"{type(error).__name__} ({error.sqlstate})"
            text = f"the database refused a statement: {kind}: {self._what}"
            return AwayError(f"{self.name}: {text}")
        return AwayError(f"{self.name} cannot be used: {self._what}")


def _warn(db: Session, notice: Diagnostic) -> None:
    db.is_warned = notice.severity_nonlocalized == "WARNING"


def is_of_the_data(error: psycopg.Error) -> bool:
    """Whether `error` comes from the values of a statement, not from the server."""
    if error.sqlstate is None:
        return isinstance(error, _OF_THE_VALUES)
    return error.sqlstate.startswith(_OF_THE_DATA)


def words_of(error: psycopg.Error) -> str:
    """What is wrong, without anything of the driver's text, which may hold the URL."""
    for state, words in _BY_STATE.items():
        if error.sqlstate and error.sqlstate.startswith(state):
            return words
    # Of several hosts each may have another trouble.
    found = [words for pattern, words in _BY_TEXT.items() if re.search(pattern, str(error))]
    several = "attempts failed" in str(error)
    return "; ".join(found if several else found[:1]) or type(error).__name__


def options_of(url: str) -> Mapping[str, Any]:
    """What a URL says. Raises ConfigError, without its text, for one that libpq cannot read."""
    try:
        return conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        raise ConfigError(
            "store: found a postgresql:// URL that libpq cannot read, expected "
            "postgresql://user:password@host:port/database?option=value, with %XX for characters "
            "that are special in a URL (%40 for @)"
        ) from None


def name_of(url: str) -> str:
    """The database without user and password."""
    parts = options_of(url)
    return f"postgresql://{parts.get('host') or 'localhost'}/{parts.get('dbname') or ''}"


def _prepare(db: Session, name: str, place: tuple[int, int]) -> None:
    """Find our tables, or make them. Raises StoreError where they cannot be ours."""
    encoding = db.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreError(
            f"{name}: found a database in the encoding {encoding}, expected UTF8, which holds any "
            "page and name: CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'"
        )
    made = _made(db)
    if made is None:
        db.execute(b"SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
        made = _made(db)
        if made is None:
            made = SCHEMA_VERSION, *place
            _look_elsewhere(db, name)
            first, step = map(str, place)
            for statement in schema("postgres.sql"):
                keyed = statement.replace("{first}", first).replace("{step}", step)
                db.execute(keyed.encode())
            db.execute(b"INSERT INTO capi_schema VALUES (%s, %s, %s)", made)
    db.commit()
    if made[0] != SCHEMA_VERSION:
        raise StoreError(
            f"{name}: found schema {made[0]}, expected {SCHEMA_VERSION}: another version "
            "of capi_middleware made these tables, use the same version or another database"
        )
    if made[1:] != place:
        raise StoreError(
            f"{name}: found database {made[1]} of {made[2]}, expected {place[0]} of {place[1]}: "
            "events would be looked for, and stored again, in another one; give store the list "
            "that made them, each in its place, or begin with empty databases"
        )


def _made(db: Session) -> tuple[int, int, int] | None:
    """What made our tables: a version, for which one of how many databases."""
    # Read from the catalog: to_regclass() may answer from a cache that a waiting start keeps.
    ours = b"SELECT 1 FROM pg_class WHERE relname = 'capi_schema' AND pg_table_is_visible(oid)"
    if db.execute(ours).fetchone() is None:
        return None
    made: tuple[int, int, int] | None = db.execute(
        b"SELECT version, place, number FROM capi_schema"
    ).fetchone()
    return made


def _look_elsewhere(db: Session, name: str) -> None:
    found = db.execute(
        b"SELECT current_schema(), relnamespace::regnamespace::text FROM pg_class "
        b"WHERE relname = 'capi_schema'"
    ).fetchone()
    if found is not None:
        logger.warning(
            "%s: made tables in the schema %s, though %s has some: if other processes use those, "
            "give all the same search_path", name, *found, extra=about("store_second_schema"),
        )  # fmt: skip
