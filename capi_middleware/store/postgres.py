"""PostgresStore: one database that many machines share.

Claims use SKIP LOCKED, leases and all other times the database's clock. One table without
partitions: an event must be the same row whatever day its copies come, and only a unique index
over all rows keeps that; fillfactor, autovacuum and partial indexes keep the queue part small.
"""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from capi_middleware.events import Count, Row, Sighting
from capi_middleware.store import postgres_statements as sql
from capi_middleware.store.postgres_link import Link, Transaction
from capi_middleware.store.protocol import (
    DEDUPE_WINDOW,
    LONGEST_LEASE,
    OLDEST_EVENT,
    REPLAYED,
    Backlog,
    DeadLetter,
    Freshness,
    Lease,
    LeasedEvent,
    Pause,
    Settlement,
    Tallies,
    Tally,
    waits_for_delivery,
)
from capi_middleware.store.writer import Counters, Submission, Writer

#: Rows that one transaction of `prune`, `requeue` and `drop` touches.
STEP_ROWS = 1000
#: How long `close` waits for the last commit, in seconds.
CLOSE_SECONDS = 5.0


class PostgresStore:
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
        self.on_commit: Callable[[], None] | None = None
        self._writing = Link(url, clock)
        self._link = Link(url, clock)
        #: The number of a group's transaction whose COMMIT was not answered.
        self._in_doubt = ""
        self._writer = Writer(
            self._write,
            queue_limit=queue_limit,
            clock=clock or time.time,
            on_commit=self._committed,
        )

    def __repr__(self) -> str:
        return f"PostgresStore({self._link.name!r})"

    def append(self, rows: Sequence[Row], *, wait: bool) -> "Future[None] | None":
        """See Store.append."""
        return self._writer.submit("append", rows, wait=wait)

    def sight(self, sightings: Sequence[Sighting]) -> "Future[None]":
        """See Store.sight."""
        future = self._writer.submit("sight", sightings, wait=True)
        assert future is not None
        return future

    def count(self, counts: Sequence[Count]) -> None:
        """See Store.count."""
        self._writer.count(counts)

    def _write(self, submissions: Sequence[Submission], counters: Counters) -> None:
        if self._in_doubt:
            # The writer tries the same group again: was it committed after all?
            with self._writing.transaction(writing=False) as db:
                found = db.execute(sql.XACT_STATUS.encode(), (self._in_doubt,)).fetchone()
            self._in_doubt = ""
            if found is not None and found[0] == "committed":
                return
        with self._writing.transaction() as db:
            self._insert(db, submissions, counters)
            self._in_doubt = db.xact
        self._in_doubt = ""

    def _insert(
        self, db: Transaction, submissions: Sequence[Submission], counters: Counters
    ) -> None:
        now, replayed = db.now, 0
        for submission in submissions:
            if submission.kind == "append":
                db.many(
                    sql.APPEND,
                    [
                        (
                            row.event_id, row.event_name, row.pixel_id, row.event_time, now,
                            row.payload, row.server, now, row.browser, row.match_keys,
                        )
                        for row in submission.items
                    ],
                )  # fmt: skip
            elif submission.kind == "sight":
                replayed += len(submission.items) - db.many(
                    sql.SIGHT,
                    [
                        (s.event_id, s.event_name, s.pixel_id, now, now, now, s.outcome, now)
                        for s in submission.items
                    ],
                )
        rows = [(*key, n) for key, n in counters.items()]
        if replayed:
            rows.append((int(now // 3600), REPLAYED.kind, REPLAYED.reason, "", "", replayed))
        # In one order everywhere: two processes that count the same must not lock each other.
        db.many(sql.COUNT, sorted(rows))

    def _committed(self, submissions: Sequence[Submission]) -> None:
        if self.on_commit is not None and any(
            submission.kind == "append" and waits_for_delivery(submission.items)
            for submission in submissions
        ):
            self.on_commit()

    def lease(self, pixel_id: str, *, limit: int, seconds: float) -> Lease:
        """See Store.lease."""
        lease_id = secrets.token_hex(16)
        while True:
            with self._link.transaction() as db:
                of_pixel = {
                    "pixel_id": pixel_id,
                    "now": db.now,
                    "longest": LONGEST_LEASE,
                    "limit": limit,
                    "oldest": db.now - OLDEST_EVENT,
                    "dedupe": db.now - DEDUPE_WINDOW,
                }
                db.execute(sql.RELEASE.encode(), of_pixel)
                due = db.execute(sql.DUE.encode(), of_pixel).fetchall()
                events = [LeasedEvent(*columns) for *columns, too_old in due if not too_old]
                expired = [columns[0] for columns in due if columns[-1]]
                if expired:
                    db.execute(sql.EXPIRE.encode(), (expired,))
                if events:
                    keys = [event.key for event in events]
                    db.execute(sql.LEASE.encode(), (lease_id, db.now + seconds, keys))
            # Whole batches of expired events go one transaction at a time.
            if events or not expired:
                return Lease(lease_id, events)

    def settle(self, lease_id: str, settlements: Sequence[Settlement]) -> int:
        """See Store.settle."""
        held = 0
        with self._link.transaction() as db:
            # By key: two couriers must not lock each other.
            for state in ("delivered", "dead", "pending"):
                held += db.many(
                    sql.SETTLE[state],
                    [
                        {
                            "lease_id": lease_id,
                            "key": one.key,
                            "now": db.now,
                            "reason": one.reason,
                            "delay": one.delay,
                            "attempted": int(one.attempted),
                            "uncertain": one.uncertain,
                        }
                        for one in sorted(settlements, key=lambda one: one.key)
                        if one.state == state
                    ],
                )
        return held

    def release(self, lease_id: str) -> int:
        """See Store.release."""
        with self._link.transaction() as db:
            return db.execute(sql.GIVE_BACK.encode(), (lease_id,)).rowcount

    def pause(self, pixel_id: str, *, seconds: float, reason: str, token: str = "") -> None:
        """See Store.pause."""
        with self._link.transaction() as db:
            db.execute(sql.PAUSE.encode(), (pixel_id, db.now + seconds, reason, token))

    def resume(self, pixel_id: str) -> None:
        """See Store.resume."""
        with self._link.transaction() as db:
            db.execute(sql.RESUME.encode(), (pixel_id,))

    def pauses(self) -> Sequence[Pause]:
        """See Store.pauses."""
        with self._link.transaction(writing=False) as db:
            found = db.execute(sql.PAUSES.encode(), (db.now,)).fetchall()
        return [Pause(*columns) for columns in found]

    def backlog(self) -> Sequence[Backlog]:
        """See Store.backlog."""
        with self._link.transaction(writing=False) as db:
            rows, now = db.execute(sql.BACKLOG.encode()).fetchall(), db.now
        return [Backlog(pixel_id, n, max(0.0, now - oldest)) for pixel_id, n, oldest in rows]

    def dead_letters(self, *, limit: int, after: int = 0) -> Sequence[DeadLetter]:
        """See Store.dead_letters."""
        with self._link.transaction(writing=False) as db:
            found = db.execute(sql.DEAD.encode(), (after, limit)).fetchall()
        return [DeadLetter(*columns) for columns in found]

    def requeue(self, keys: Sequence[int] | None = None) -> int:
        """See Store.requeue."""

        def step(db: Transaction, some: list[int]) -> int:
            return db.execute(sql.REQUEUE.encode(), (db.now, some)).rowcount

        done = self._each_dead(keys, step)
        if done and self.on_commit is not None:
            self.on_commit()
        return done

    def drop(self, keys: Sequence[int] | None = None) -> int:
        """See Store.drop."""

        def step(db: Transaction, some: list[int]) -> int:
            dropped = Counter(db.execute(sql.DROP.encode(), (some,)).fetchall())
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
            times, now = db.execute(sql.NEXT_DUE.encode(), given).fetchone() or (), db.now
        return min((max(0.0, at - now) for at in times if at is not None), default=None)

    def tallies(self, start: float, end: float) -> Tallies:
        """See Store.tallies."""
        window = {"start": start, "end": end}
        with self._link.transaction(writing=False) as db:
            rows, freshness, counts = (
                db.execute(statement.encode(), window).fetchall()
                for statement in (sql.TALLIES, sql.FRESHNESS, sql.COUNTS)
            )
        return Tallies(
            [Tally(*columns) for columns in rows],
            [Freshness(*columns) for columns in freshness],
            [Count(*columns) for columns in counts],
        )

    def depth(self) -> dict[str, int]:
        """See Store.depth."""
        with self._link.transaction(writing=False) as db:
            return dict(db.execute(sql.DEPTH.encode()).fetchall())

    def prune(self, before: float) -> int:
        """See Store.prune."""
        pruned = 0
        while True:
            with self._link.transaction() as db:
                deleted = db.execute(sql.PRUNE.encode(), (before, STEP_ROWS)).rowcount
            pruned += deleted
            if deleted < STEP_ROWS:
                break
        with self._link.transaction() as db:
            db.execute(sql.PRUNE_COUNTS.encode(), (before,))
        return pruned

    def flush(self, timeout: float) -> bool:
        """See Store.flush."""
        return self._writer.flush(timeout)

    def close(self) -> None:
        """See Store.close. Waits at most CLOSE_SECONDS for a server that does not answer."""
        self._writer.close(CLOSE_SECONDS)
        self._writing.close()
        self._link.close()
