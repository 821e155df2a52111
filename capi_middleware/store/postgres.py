"""PostgresStore: one database that many machines share.

Claims use SKIP LOCKED, leases and all other times the database's clock. One table without
partitions: an event must be the same row whatever day its copies come, and only a unique index
over all rows keeps that; fillfactor, autovacuum and partial indexes keep the queue part small.
"""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from capi_middleware.errors import StoreError
from capi_middleware.store import postgres_statements as sql
from capi_middleware.store.grouped import GroupedStore
from capi_middleware.store.postgres_groups import columns_of, insert
from capi_middleware.store.postgres_link import Link, Transaction
from capi_middleware.store.postgres_rollups import (
    fold,
    prune_sums,
    read_depth,
    read_slices,
    read_tallies,
)
from capi_middleware.store.queueing import claim_of
from capi_middleware.store.records import (
    LONGEST_LEASE,
    LONGEST_WAIT,
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
from capi_middleware.store.submissions import Counters, LockedError, Submission

#: Rows that one transaction of `prune`, `requeue` and `drop` touches.
STEP_ROWS = 1000
#: Rows that this process changes before it folds what they changed.
FOLD_EVERY = 2000
#: How long `close` waits for the last commit, in seconds.
CLOSE_SECONDS = 5.0


class PostgresStore(GroupedStore):
    """The store in PostgreSQL 14 or newer; two connections per process.

    Opens nothing before its first use, and works on after a fork and after `close`. While the
    server cannot be reached, what is appended waits in memory, up to `queue_limit` rows.

    Args:
        url: a libpq connection URI; its password is never shown.
        queue_limit: how many rows may wait in memory for their commit.
        clock: for tests; the database's clock by default. Unix time in seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        queue_limit: int = 100_000,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._writing = Link(url, clock)
        self._link = Link(url, clock)
        #: The group whose COMMIT was not answered, and the number of its transaction.
        self._in_doubt: tuple[Sequence[Submission], str] | None = None
        self._changed = 0
        super().__init__(queue_limit=queue_limit, clock=clock or time.time)

    def __repr__(self) -> str:
        return f"PostgresStore({self._link.name!r})"

    def _write(self, submissions: Sequence[Submission], counters: Counters) -> None:
        doubt, self._in_doubt = self._in_doubt, None
        # The writer tries the same group again: was it committed after all?
        if doubt is not None and doubt[0] is submissions and self._was_committed(doubt):
            return
        with self._writing.transaction() as db:
            insert(db, submissions, counters)
            self._in_doubt = submissions, db.xact
        self._in_doubt = None

    def _committed(self, submissions: Sequence[Submission]) -> None:
        super()._committed(submissions)
        # After the commit that pages wait for, in a transaction of its own.
        self._fold_often(self._writing, sum(len(one.items) for one in submissions))

    def _fold_often(self, link: Link, changed: int) -> None:
        """Fold when this process has changed enough rows; what fails will work another time."""
        self._changed += changed
        if self._changed >= FOLD_EVERY:
            self._changed = 0
            with suppress(StoreError), link.transaction() as db:
                fold(db)

    def _was_committed(self, doubt: tuple[Sequence[Submission], str]) -> bool:
        """Raises LockedError while that is not known: the writer asks again."""
        self._in_doubt = doubt
        with self._writing.transaction(writing=False) as db:
            (state,) = db.execute(sql.XACT_STATUS, (doubt[1],)).fetchone() or (None,)
        if state == "in progress":
            raise LockedError(f"{self._link.name}: a commit is still under way")
        self._in_doubt = None
        return bool(state == "committed")

    def lease(self, pixel_id: str, *, limit: int, seconds: float) -> Lease:
        """See Store.lease."""
        lease_id = secrets.token_hex(16)
        while True:
            with self._link.transaction() as db:
                of_pixel = claim_of(pixel_id, db.now, limit)
                db.execute(sql.RELEASE, of_pixel)
                due = db.execute(sql.DUE, of_pixel).fetchall()
                expired = [columns[0] for columns in due if columns[-1]]
                if expired:
                    db.execute(sql.EXPIRE, (expired,))
                keys = [columns[0] for columns in due if not columns[-1]]
                leased = _keys(db, sql.LEASE, keys, pixel_id, lease_id, db.now + seconds)
                events = [LeasedEvent(*columns[:-1]) for columns in due if columns[0] in leased]
            # Whole batches of expired events go one transaction at a time.
            if events or not expired:
                return Lease(lease_id, events)

    def settle(self, lease_id: str, settlements: Sequence[Settlement]) -> int:
        """See Store.settle."""
        held = 0
        with self._link.transaction() as db:
            ours = _keys(db, sql.END_LEASE, lease_id, [one.key for one in settlements])
            for state in ("delivered", "dead", "pending"):
                some = [one for one in settlements if one.state == state and one.key in ours]
                if some:
                    keys, reasons, delays, attempted, uncertain = columns_of(
                        some, "key", "reason", "delay", "attempted", "uncertain"
                    )
                    given = {
                        "now": db.now,
                        "keys": keys,
                        "reasons": reasons,
                        "delays": [float(delay) for delay in delays],
                        "attempted": [int(one) for one in attempted],
                        "uncertain": uncertain,
                    }
                    held += db.execute(sql.SETTLE[state], given).rowcount
                    ours.difference_update(keys)
        self._fold_often(self._link, held)
        return held

    def pause(self, pixel_id: str, *, seconds: float, reason: str, token: str = "") -> None:
        """See Store.pause."""
        with self._link.transaction() as db:
            db.execute(sql.PAUSE, (pixel_id, db.now + seconds, reason, token))

    def resume(self, pixel_id: str) -> None:
        """See Store.resume."""
        with self._link.transaction() as db:
            db.execute(sql.RESUME, (pixel_id,))

    def pauses(self) -> Sequence[Pause]:
        """See Store.pauses."""
        with self._link.transaction(writing=False) as db:
            found = db.execute(sql.PAUSES, {"now": db.now, "wait": LONGEST_WAIT}).fetchall()
        return [Pause(*columns) for columns in found]

    def backlog(self) -> Sequence[Backlog]:
        """See Store.backlog."""
        with self._link.transaction(writing=False) as db:
            rows, now = db.execute(sql.BACKLOG).fetchall(), db.now
        return [Backlog(pixel_id, n, max(0.0, now - oldest)) for pixel_id, n, oldest in rows]

    def dead_letters(self, *, limit: int, after: int = 0) -> Sequence[DeadLetter]:
        """See Store.dead_letters."""
        with self._link.transaction(writing=False) as db:
            found = db.execute(sql.DEAD, (after, limit)).fetchall()
        return [DeadLetter(*columns) for columns in found]

    def requeue(self, keys: Sequence[int] | None = None) -> int:
        """See Store.requeue."""

        def step(db: Transaction, some: list[int]) -> int:
            return db.execute(sql.REQUEUE, (db.now, some)).rowcount

        done = self._each_dead(keys, step)
        if done and self.on_commit is not None:
            self.on_commit()
        return done

    def drop(self, keys: Sequence[int] | None = None) -> int:
        """See Store.drop."""

        def step(db: Transaction, some: list[int]) -> int:
            dropped = Counter(db.execute(sql.DROP, (some,)).fetchall())
            hour = int(db.now // 3600)
            rows = [
                (hour, "dropped", "dead_letter", name, pixel_id, n)
                for (name, pixel_id), n in dropped.items()
            ]
            db.many(sql.COUNT, sorted(rows))
            return dropped.total()

        return self._each_dead(keys, step)

    def _each_dead(
        self, keys: Sequence[int] | None, step: Callable[[Transaction, list[int]], int]
    ) -> int:
        done, after = 0, 0
        while True:
            some = list(keys or ())
            if keys is None:
                some = [one.key for one in self.dead_letters(limit=STEP_ROWS, after=after)]
            if some:
                with self._link.transaction() as db:
                    done += step(db, some)
                after = some[-1]
            if keys is not None or not some:
                return done

    def next_due(self, pixel_id: str) -> float | None:
        """See Store.next_due."""
        with self._link.transaction(writing=False) as db:
            given = {"pixel_id": pixel_id, "now": db.now, "longest": LONGEST_LEASE}
            times, now = db.execute(sql.NEXT_DUE, given).fetchone() or (), db.now
        return min((max(0.0, at - now) for at in times if at is not None), default=None)

    def tallies(self, start: float, end: float) -> Tallies:
        """See Store.tallies."""
        with self._link.transaction(writing=False, snapshot=True) as db:
            return read_tallies(db, start, end)

    def slices(self, facet: Facet, start: float, end: float) -> Sequence[Slice]:
        """See Store.slices."""
        with self._link.transaction(writing=False, snapshot=True) as db:
            return read_slices(db, facet, start, end)

    def find(self, event_ids: Sequence[str]) -> Sequence[Known]:
        """See Store.find."""
        check_found(event_ids)
        with self._link.transaction(writing=False) as db:
            found = db.execute(sql.FIND, (list(event_ids),)).fetchall()
        return [Known(*columns) for columns in found]

    def recent(self, limit: int, after: int = 0) -> Sequence[Known]:
        """See Store.recent."""
        statement, given = (sql.RECENT, (after, limit)) if after else (sql.NEWEST, (limit,))
        with self._link.transaction(writing=False) as db:
            found = db.execute(statement, given).fetchall()
        return [Known(*columns) for columns in found]

    def keep(self, name: str, body: bytes, *, instead_of: bytes | None) -> bool:
        """See Store.keep."""
        with self._link.transaction() as db:
            if instead_of is None:
                return db.execute(sql.KEEP, (name, body)).rowcount == 1
            return db.execute(sql.KEEP_INSTEAD, (body, name, instead_of)).rowcount == 1

    def kept(self, name: str) -> bytes | None:
        """See Store.kept."""
        with self._link.transaction(writing=False) as db:
            found = db.execute(sql.KEPT, (name,)).fetchone()
        return found[0] if found is not None else None

    def depth(self) -> dict[str, int]:
        """See Store.depth."""
        with self._link.transaction(writing=False, snapshot=True) as db:
            return read_depth(db)

    def prune(self, before: float) -> int:
        """See Store.prune."""
        pruned, deleted = 0, STEP_ROWS
        while deleted == STEP_ROWS:
            with self._link.transaction() as db:
                deleted = db.execute(sql.PRUNE, (before, STEP_ROWS)).rowcount
            pruned += deleted
        more = True
        while more:
            with self._link.transaction() as db:
                more = fold(db)
        with self._link.transaction() as db:
            prune_sums(db)
        return pruned

    def close(self) -> None:
        """See Store.close. Waits at most CLOSE_SECONDS for a server that does not answer."""
        self._writer.close(CLOSE_SECONDS)
        self._writing.close()
        self._link.close()


def _keys(db: Transaction, statement: str, *given: object) -> set[int]:
    return {key for (key,) in db.execute(statement, given).fetchall()}
