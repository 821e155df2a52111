"""SqliteStore: one file that several processes of a machine share."""

import json
import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from msgspec.structs import astuple

from capi_middleware.errors import StoreError
from capi_middleware.store import sqlite_statements as sql
from capi_middleware.store.grouped import GroupedStore
from capi_middleware.store.queueing import claim_of
from capi_middleware.store.records import (
    LONGEST_LEASE,
    LONGEST_WAIT,
    REPLAYED,
    Backlog,
    DeadLetter,
    Facet,
    Known,
    Lease,
    LeasedEvent,
    Pause,
    Settlement,
    Slice,
    Tallies,
    check_found,
)
from capi_middleware.store.sqlite_connections import Connections
from capi_middleware.store.sqlite_file import check_space
from capi_middleware.store.sqlite_groups import store_group
from capi_middleware.store.sqlite_rollups import (
    fold,
    is_overdue,
    prune_sums,
    read_depth,
    read_slices,
    read_tallies,
    summing,
)
from capi_middleware.store.submissions import Counters, Submission

#: An empty list of keys.
_NONE = "[]"
#: Rows that one transaction of `prune` deletes: others wait for the lock only for milliseconds.
PRUNE_ROWS = 1000
#: Commits after which the WAL begins anew: those that make its file longer take half as long again.
CHECKPOINT_COMMITS = 100
#: How long a group commit waits for the lock before pages are told not to, in seconds.
LOCK_PATIENCE = 0.025
#: How long `close` waits for the last commit, in seconds.
CLOSE_SECONDS = 10.0


class SqliteStore(GroupedStore):
    """The store in a SQLite file (WAL mode, synchronous=FULL: a commit survives a power cut).

    Opens nothing before its first use, and works on after a fork and after `close`. A missing
    directory, another application's file or a newer schema show as StoreError at the first use.

    Args:
        path: the file; made with mode 0600 when missing.
        queue_limit: how many rows may wait in memory for their commit.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        queue_limit: int = 100_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._connections = Connections(path)
        self._overdue, self._commits = False, 0
        super().__init__(queue_limit=queue_limit, clock=clock)

    def __repr__(self) -> str:
        return f"SqliteStore({str(self._connections.path)!r})"

    def _write(self, submissions: Sequence[Submission], counters: Counters) -> None:
        now = self._clock()
        if any(submission.kind != "flush" for submission in submissions):
            check_space(self._connections.path)
        with self._connections.writing(LOCK_PATIENCE) as db:
            replayed = store_group(db, submissions, now)
            if replayed:
                key = (int(now // 3600), REPLAYED.kind, REPLAYED.reason, "", "")
                db.execute(sql.COUNT, (*key, replayed))
            if counters:
                db.executemany(sql.COUNT, [(*key, n) for key, n in counters.items()])
            self._overdue = is_overdue(db)

    def _committed(self, submissions: Sequence[Submission]) -> None:
        super()._committed(submissions)
        self._keep_up()

    def _keep_up(self) -> None:
        """Fold and checkpoint when there is enough of it, after the commit that pages wait for."""
        self._commits += 1
        if self._overdue:
            self._overdue, self._commits = False, 0
            # Another time, or another process, where the lock cannot be had.
            with (
                suppress(StoreError),
                self._connections.writing(LOCK_PATIENCE, checkpoint=True) as db,
            ):
                fold(db)
        elif self._commits >= CHECKPOINT_COMMITS:
            self._commits = 0
            with suppress(StoreError):
                self._connections.checkpoint()

    def lease(self, pixel_id: str, *, limit: int, seconds: float) -> Lease:
        """See Store.lease. Raises StoreError, also when others hold the lock for long."""
        lease_id = secrets.token_hex(16)
        while True:
            now = self._clock()
            of_pixel = claim_of(pixel_id, now, limit)
            with self._connections.writing() as db:
                for statement in (sql.RELEASE, sql.RELEASE_OLD, sql.HURRY):
                    db.execute(statement, of_pixel)
                due, expired = db.execute(sql.DUE, of_pixel).fetchone()
                if expired != _NONE:
                    db.execute(sql.EXPIRE, (expired,))
                if due != expired:
                    given = {"due": due, "lease_id": lease_id, "until": now + seconds}
                    db.execute(sql.LEASE, given)
            if due != expired:
                with self._connections.reading() as db:
                    found = db.execute(sql.LEASED, given).fetchall()
                return Lease(lease_id, [LeasedEvent(*columns) for columns in found])
            # Whole batches of expired events go one transaction at a time.
            if due == _NONE:
                return Lease(lease_id, [])

    def settle(self, lease_id: str, settlements: Sequence[Settlement]) -> int:
        """See Store.settle. Raises StoreError, also when others hold the lock for long."""
        now = self._clock()
        held = 0
        alike: dict[tuple[Any, ...], list[int]] = {}
        for one in settlements:
            key, *outcome = astuple(one)
            alike.setdefault(tuple(outcome), []).append(key)
        with self._connections.writing() as db:
            for (state, reason, delay, attempted, uncertain), keys in alike.items():
                given = {
                    "lease_id": lease_id,
                    "keys": json.dumps(keys),
                    "now": now,
                    "state": state,
                    "reason": reason,
                    "delay": delay,
                    "attempted": attempted,
                    "uncertain": uncertain,
                }
                with summing(db, given):
                    held += db.execute(sql.SETTLE[state], given).rowcount
                db.execute(sql.END_LEASE, given)
            self._overdue = is_overdue(db)
        self._keep_up()
        return held

    def pause(self, pixel_id: str, *, seconds: float, reason: str, token: str = "") -> None:
        """See Store.pause."""
        with self._connections.writing() as db:
            db.execute(sql.PAUSE, (pixel_id, self._clock() + seconds, reason, token))

    def resume(self, pixel_id: str) -> None:
        """See Store.resume."""
        with self._connections.writing() as db:
            db.execute(sql.RESUME, (pixel_id,))

    def pauses(self) -> Sequence[Pause]:
        """See Store.pauses."""
        given = {"now": self._clock(), "wait": LONGEST_WAIT}
        with self._connections.reading() as db:
            return [Pause(*columns) for columns in db.execute(sql.PAUSES, given)]

    def backlog(self) -> Sequence[Backlog]:
        """See Store.backlog."""
        now = self._clock()
        with self._connections.reading() as db:
            rows = db.execute(sql.BACKLOG).fetchall()
        return [Backlog(pixel_id, n, max(0.0, now - oldest)) for pixel_id, n, oldest in rows]

    def dead_letters(self, *, limit: int, after: int = 0) -> Sequence[DeadLetter]:
        """See Store.dead_letters."""
        with self._connections.reading() as db:
            return [DeadLetter(*columns) for columns in db.execute(sql.DEAD, (after, limit))]

    def requeue(self, keys: Sequence[int] | None = None) -> int:
        """See Store.requeue."""
        return self._each_dead(keys, (sql.REQUEUE,))

    def drop(self, keys: Sequence[int] | None = None) -> int:
        """See Store.drop."""
        return self._each_dead(keys, (sql.DROP_COUNT, sql.DROP))

    def _each_dead(self, keys: Sequence[int] | None, statements: Sequence[str]) -> int:
        """Run statements for dead letters, in small transactions."""
        done, after = 0, 0
        while True:
            some = keys
            if keys is None:
                some = [one.key for one in self.dead_letters(limit=PRUNE_ROWS, after=after)]
            now = self._clock()
            with self._connections.writing() as db:
                for key in some or ():
                    given = {"key": key, "now": now, "hour": int(now // 3600)}
                    done += [db.execute(one, given).rowcount for one in statements][-1]
            if keys is not None or not some:
                break
            after = some[-1]
        if done and self.on_commit is not None:
            self.on_commit()
        return done

    def next_due(self, pixel_id: str) -> float | None:
        """See Store.next_due."""
        now = self._clock()
        with self._connections.reading() as db:
            times = db.execute(
                sql.NEXT_DUE, {"pixel_id": pixel_id, "now": now, "longest": LONGEST_LEASE}
            ).fetchone()
        return min((max(0.0, at - now) for at in times if at is not None), default=None)

    def tallies(self, start: float, end: float) -> Tallies:
        """See Store.tallies."""
        with self._connections.reading() as db:
            return read_tallies(db, start, end)

    def slices(self, facet: Facet, start: float, end: float) -> Sequence[Slice]:
        """See Store.slices."""
        with self._connections.reading() as db:
            return read_slices(db, facet, start, end)

    def find(self, event_ids: Sequence[str]) -> Sequence[Known]:
        """See Store.find."""
        check_found(event_ids)
        with self._connections.reading() as db:
            found = [
                Known(*columns)
                for event_id in dict.fromkeys(event_ids)
                for columns in db.execute(sql.FIND, (event_id,))
            ]
        return sorted(found, key=lambda known: known.key)

    def recent(self, limit: int, after: int = 0) -> Sequence[Known]:
        """See Store.recent."""
        with self._connections.reading() as db:
            found = (
                db.execute(sql.RECENT, (after, limit))
                if after
                else db.execute(sql.NEWEST, (limit,))
            )
            return [Known(*columns) for columns in found]

    def keep(self, name: str, body: bytes, *, instead_of: bytes | None) -> bool:
        """See Store.keep."""
        with self._connections.writing() as db:
            if instead_of is None:
                return db.execute(sql.KEEP, (name, body)).rowcount == 1
            return db.execute(sql.KEEP_INSTEAD, (body, name, instead_of)).rowcount == 1

    def kept(self, name: str) -> bytes | None:
        """See Store.kept."""
        with self._connections.reading() as db:
            found = db.execute(sql.KEPT, (name,)).fetchone()
        return found[0] if found is not None else None

    def depth(self) -> dict[str, int]:
        """See Store.depth."""
        with self._connections.reading() as db:
            return read_depth(db)

    def prune(self, before: float) -> int:
        """See Store.prune."""
        pruned = 0
        while True:
            with self._connections.writing() as db:
                deleted = db.execute(sql.PRUNE, (before, PRUNE_ROWS)).rowcount
                if is_overdue(db):
                    fold(db)
            pruned += deleted
            if deleted < PRUNE_ROWS:
                break
        with self._connections.writing() as db:
            prune_sums(db, self._clock())
        return pruned

    def close(self) -> None:
        """See Store.close. Waits at most CLOSE_SECONDS for a database that others keep locked."""
        self._writer.close(CLOSE_SECONDS)
        self._connections.close()
