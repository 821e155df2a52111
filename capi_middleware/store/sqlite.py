"""SQLite: the store in one file that several processes of a machine share, or in memory."""

import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from capi_middleware.store.records import LeasedEvent
from capi_middleware.store.rollups import State
from capi_middleware.store.sqlite_file import CHECKPOINT_COMMITS, LOCK_PATIENCE, File, Memory
from capi_middleware.store.store import Query, Transaction, named

#: How many rows a statement takes at once: any number is a sum of few of these. Each step of a
#: statement lets go of the interpreter's lock and waits for it again: up to 5 ms while pages keep
#: it busy, and with the database's lock held.
_SIZES = (64, 32, 16, 8, 4, 2, 1)
#: An empty list of keys.
_NONE = "[]"


def _translated(query: Query) -> dict[int, str]:
    """A query as SQLite wants it, by how many rows it takes at once: 0 for one that takes none."""
    text = re.sub(r"\s*FOR UPDATE(?: SKIP LOCKED)?", "", query.text).replace("capi_", "")
    text = re.sub(r"= ANY\(:(\w+)\)", r"IN (SELECT value FROM json_each(:\1))", text)
    if not query.columns:
        return {0: text}
    # Numbered, as values are bound faster without a look for their names.
    shared = list(dict.fromkeys(re.findall(r":(\w+)", text)))
    for number, name in enumerate(shared, 1):
        text = re.sub(rf":{name}\b", f"?{number}", text)
    width = len(query.columns)
    starts = range(1 + len(shared), 1 + len(shared) + width * _SIZES[0], width)
    rows = [f"({', '.join(f'?{at + field}' for field in range(width))})" for at in starts]
    new = f"WITH new ({', '.join(name for name, _ in query.columns)}) AS (VALUES "
    return {n: text.replace("{new}", f"{new}{', '.join(rows[:n])})") for n in _SIZES}


QUERIES: Mapping[str, dict[int, str]] = {
    name: _translated(query) for name, query in named("queries.sql", "queries_sqlite.sql").items()
}


class _Transaction(Transaction):
    def __init__(self, db: sqlite3.Connection, now: float) -> None:
        self.now = now
        self._db = db

    def settle(self, lease_id: str, outcomes: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
        # The triggers would write down row by row what changes.
        held = 0
        for state, outcome in outcomes:
            given = {**outcome, "lease_id": lease_id, "keys": json.dumps(outcome["keys"])}
            if state == "pending":  # to the sums it was that before
                held += self.run("settle_pending", now=self.now, **given)
                continue
            self.run("trigger")
            held += self.run(f"settle_{state}", now=self.now, **given)
            self.run("trigger")
            self.run("note", **given)
        return held

    def take_changes(self) -> tuple[list[State], bool]:
        taken = [State(*columns) for name in ("changes", "fresh") for columns in self.read(name)]
        self.run("forget_changes")
        self.run("all_summed")
        return taken, False

    def _execute(self, query: str, given: dict[str, Any]) -> sqlite3.Cursor:
        for name, value in given.items():
            if type(value) is list:
                given[name] = json.dumps(value)
        return self._db.execute(QUERIES[query][0], given)

    def _execute_many(
        self, query: str, rows: Sequence[Sequence[Any]], given: Mapping[str, Any]
    ) -> Iterator[sqlite3.Cursor]:
        statements, done = QUERIES[query], 0
        for n in _SIZES:
            while len(rows) - done >= n:
                values = tuple(chain(given.values(), *rows[done : done + n]))
                done += n
                yield self._db.execute(statements[n], values)


class SqliteEngine:
    """See Engine. `path` is that of the file, made with mode 0600 when missing; None is memory.

    A missing directory, another application's file or another schema show as StoreError at the
    first use. `clock`: Unix time in seconds.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, clock: Callable[[], float] = time.time
    ) -> None:
        self.database: File | Memory = Memory() if path is None else File(Path(path))
        self.immediate: bool = path is None
        self.name: str = self.database.name
        self._clock = clock
        self._commits = 0

    @contextmanager
    def group(self, of: object) -> Iterator[_Transaction]:
        """See Engine.group. A failed COMMIT has stored nothing: no group is asked for twice."""
        self.database.check_space()
        with self.database.writing(LOCK_PATIENCE) as db:
            yield _Transaction(db, self._clock())
        self._commits += 1

    @contextmanager
    def writing(self) -> Iterator[_Transaction]:
        """See Engine.writing."""
        with self.database.writing() as db:
            yield _Transaction(db, self._clock())
        self._commits += 1

    @contextmanager
    def reading(self) -> Iterator[_Transaction]:
        """See Engine.reading: it holds up the checkpoint of everybody."""
        with self.database.reading() as db:
            yield _Transaction(db, self._clock())

    @contextmanager
    def idling(self) -> Iterator[_Transaction]:
        """See Engine.idling. It may bring what is in the WAL into the database."""
        with self.database.writing(LOCK_PATIENCE, checkpoint=True) as db:
            yield _Transaction(db, self._clock())
        self._commits = 0

    def claim(
        self, pixel_id: str, lease_id: str, *, limit: int, seconds: float
    ) -> tuple[list[LeasedEvent], bool]:
        """See Engine.claim."""
        with self.writing() as db:
            db.run("release", now=db.now)
            db.run("hurry", pixel_id=pixel_id, now=db.now)
            [(due, expired)] = db.read("due", pixel_id=pixel_id, now=db.now, limit=limit)
            if expired != _NONE:
                db.run("expire", keys=expired)
            if due != expired:
                db.run("lease", due=due, lease_id=lease_id, until=db.now + seconds)
        if due == expired:
            return [], due != _NONE
        with self.reading() as db:
            found = db.read("leased", due=due, lease_id=lease_id)
        return [LeasedEvent(*columns) for columns in found], expired != _NONE

    def tidy(self) -> None:
        """See Engine.tidy."""
        if self._commits >= CHECKPOINT_COMMITS:
            self._commits = 0
            self.database.checkpoint()

    def close(self) -> None:
        """See Engine.close."""
        self.database.close()
