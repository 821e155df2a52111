"""The store of an attacked site: what is in it, and what its database leaves behind."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

from tests.support import postgres

Rows = list[tuple[Any, ...]]
#: Errors of ours, but for a machine that had no time.
_ERRORS = "kind = 'error' AND reason NOT LIKE '%TimeoutError'"
#: All rows without the state of their delivery, and the errors.
_STATE = (
    "SELECT COUNT(*), MAX(key), COALESCE(SUM(length(browser) + length(browser_digest) + match_keys"
    " + length(uses) + length(digest)), 0), COALESCE(SUM(CAST(browser_at * 1000 AS bigint)), 0),"
    " (SELECT COALESCE(SUM(n), 0) FROM {}counts"
    f" WHERE {_ERRORS}) FROM {{}}events"
)


class Attacked:
    """A database; `read` runs a query, whose {} is the prefix of its tables."""

    def __init__(
        self, url: str, read: Callable[[str], Rows], left: Callable[[], dict[str, bytes]]
    ) -> None:
        self.url = url
        self._read = read
        #: What is on its disk apart from the folder of the attack, by what it is.
        self.left = left

    def state(self) -> Rows:
        """What no refused request may change."""
        return self._read(_STATE)

    def waiting(self) -> Rows:
        """How many events wait for delivery."""
        return self._read("SELECT COUNT(*) FROM {}events WHERE server = 'pending'")

    def errors(self) -> Rows:
        """Errors of ours, which were counted."""
        return self._read(f"SELECT reason, n FROM {{}}counts WHERE {_ERRORS}")


@contextmanager
def _sqlite(folder: Path) -> Iterator[Attacked]:
    path = folder / "capi.db"

    def read(query: str) -> Rows:
        if not path.exists():
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as db:
            return db.execute(query.replace("{}", "")).fetchall()

    yield Attacked(f"sqlite:///{path}", read, dict)


@contextmanager
def _postgres(folder: Path) -> Iterator[Attacked]:
    with postgres.server() as server, postgres.database(server) as url:

        def read(query: str) -> Rows:
            is_there = postgres.execute(url, "SELECT to_regclass('capi_events') IS NOT NULL")
            return postgres.execute(url, query.replace("{}", "capi_")) if is_there[0][0] else []

        def left() -> dict[str, bytes]:
            names = postgres.execute(
                url, "SELECT tablename FROM pg_tables WHERE tablename LIKE 'capi%'"
            )
            tables = {
                name: repr(postgres.execute(url, f"SELECT * FROM {name}")).encode()
                for (name,) in names
            }
            [(place,)] = postgres.execute(url, "SHOW data_directory")
            log = sorted(Path(place, "pg_wal").glob("0*"))
            return tables | {f"WAL {one.name}": one.read_bytes() for one in log}

        yield Attacked(url, read, left)


#: By name, each in a folder.
STORES: dict[str, Callable[[Path], AbstractContextManager[Attacked]]] = {
    "sqlite": _sqlite,
    "postgres": _postgres,
}
