"""MemoryStore: everything in dicts, for tests and for trying things out; a restart forgets all."""

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import count as numbers

from msgspec.structs import replace

from capi_middleware.errors import StoreError, StoreFull
from capi_middleware.events import VAGUE_BROWSER_CAUSES, Count, Row, Sighting
from capi_middleware.store.forks import at_fork
from capi_middleware.store.memory_sums import Record, Sums
from capi_middleware.store.protocol import (
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
from capi_middleware.store.queueing import room, waits_for_delivery
from capi_middleware.store.rollups import hours, oldest_hour, slices_of, tallies_of


class MemoryStore:
    """The store in this process's memory. Every call is done when it returns, futures as well.

    Args:
        queue_limit: how many events may wait for delivery.
        clock: Unix time in seconds.
    """

    def __init__(
        self, *, queue_limit: int = 100_000, clock: Callable[[], float] = time.time
    ) -> None:
        self.on_commit: Callable[[], None] | None = None
        self._queue_limit = queue_limit
        self._clock = clock
        self._start_over()
        at_fork(after_in_child=self._start_over)

    def _start_over(self) -> None:
        # In a forked child: the parent delivers what it has; here it would go out twice.
        self._lock = threading.RLock()
        self._keys = numbers(1)
        self._records: dict[tuple[str, str, str], Record] = {}
        self._waiting: dict[int, Record] = {}
        self._counts: dict[tuple[int, Count], int] = {}
        self._pauses: dict[str, Pause] = {}
        self._sums = Sums()
        self._kept: dict[str, bytes] = {}

    def append(self, rows: Sequence[Row], *, wait: bool) -> "Future[None] | None":
        """See Store.append."""
        future: Future[None] = Future()
        pending = waits_for_delivery(rows)
        if any(row.server in ("pending", "leased") and row.payload is None for row in rows):
            self._drop(rows, "store_error")
            future.set_exception(StoreError("the rows cannot be stored: found no payload"))
            return future if wait else None
        with self._lock:
            if pending and len(self._waiting) + len(rows) > room(self._queue_limit, rows):
                self._drop(rows, "queue_full")
                raise StoreFull(
                    f"{len(rows)} rows do not fit into the queue of {self._queue_limit} "
                    "(queue_limit)"
                )
            for row in rows:
                self._append(row)
        if pending and self.on_commit is not None:
            self.on_commit()
        future.set_result(None)
        return future if wait else None

    def _drop(self, rows: Sequence[Row], reason: str) -> None:
        self.count([Count("dropped", reason, row.event_name, row.pixel_id) for row in rows])

    def _record(self, new: Row | Sighting, event_time: float) -> Record:
        identity = (new.event_id, new.event_name, new.pixel_id)
        record = self._records.get(identity)
        if record is None:
            record = Record(next(self._keys), *identity, event_time, self._clock())
            self._records[identity] = record
            self._sums.add(record.state(1))
        return record

    def _append(self, row: Row) -> None:
        record = self._record(row, row.event_time)
        with self._sums.changing(record):
            if record.server == "unknown":
                record.event_time, record.due_at = row.event_time, self._clock()
                record.payload, record.match_keys = row.payload, row.match_keys
                record.route, record.page = row.route, row.page
                record.agent, record.digest = row.agent, row.digest
                self._enter(record, row.server)
            if record.browser == "not_rendered":
                record.browser = row.browser

    def _move(self, record: Record, server: str) -> None:
        with self._sums.changing(record):
            self._enter(record, server)

    def _enter(self, record: Record, server: str) -> None:
        record.server, record.lease_id = server, ""
        if server in ("pending", "leased"):
            self._waiting[record.key] = record
        else:
            self._waiting.pop(record.key, None)
            if server in ("delivered", "expired", "dropped"):
                record.payload = None

    def sight(self, sightings: Sequence[Sighting]) -> "Future[None]":
        """See Store.sight."""
        with self._lock:
            for sighting in sightings:
                known = len(self._records)
                record = self._record(sighting, self._clock())
                better = sighting.outcome == "sent" or record.browser in VAGUE_BROWSER_CAUSES
                if known == len(self._records) and (
                    not better or record.browser == sighting.outcome
                ):
                    self.count([REPLAYED])
                elif better:
                    with self._sums.changing(record):
                        record.browser = sighting.outcome
                        record.browser_digest = sighting.digest
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def count(self, counts: Sequence[Count]) -> None:
        """See Store.count."""
        hour = int(self._clock() // 3600)
        with self._lock:
            for c in counts:
                key = (hour, replace(c, n=0))
                self._counts[key] = self._counts.get(key, 0) + c.n

    def lease(self, pixel_id: str, *, limit: int, seconds: float) -> Lease:
        """See Store.lease."""
        lease_id = secrets.token_hex(16)
        with self._lock:
            now = self._clock()
            waiting = [record for record in self._waiting.values() if record.pixel_id == pixel_id]
            for record in waiting:
                if record.server == "leased" and not (
                    now < record.lease_until <= now + LONGEST_LEASE
                ):
                    self._move(record, "pending")
                elif record.server == "pending" and record.due_at > now + LONGEST_WAIT:
                    record.due_at = now
            due = [r for r in waiting if r.server == "pending" and r.due_at <= now]
            due.sort(key=lambda record: (record.due_at, record.key))
            events: list[LeasedEvent] = []
            for first in range(0, len(due), limit):
                for record in due[first : first + limit]:
                    if record.is_too_old(now):
                        self._move(record, "expired")
                    else:
                        self._move(record, "leased")
                        record.lease_id, record.lease_until = lease_id, now + seconds
                        events.append(_leased(record))
                if events:
                    break
        return Lease(lease_id, events)

    def settle(self, lease_id: str, settlements: Sequence[Settlement]) -> int:
        """See Store.settle."""
        held = 0
        with self._lock:
            now = self._clock()
            for settlement in settlements:
                record = self._waiting.get(settlement.key)
                if record is None or record.lease_id != lease_id:
                    continue
                held += 1
                record.attempts += settlement.attempted
                record.uncertain |= settlement.uncertain
                record.reason = settlement.reason
                if settlement.state == "pending":
                    record.due_at = now + settlement.delay
                elif settlement.state == "delivered":
                    record.delivered_at = now
                self._move(record, settlement.state)
        return held

    def pause(self, pixel_id: str, *, seconds: float, reason: str, token: str = "") -> None:
        """See Store.pause."""
        with self._lock:
            self._pauses[pixel_id] = Pause(pixel_id, self._clock() + seconds, reason, token)

    def resume(self, pixel_id: str) -> None:
        """See Store.resume."""
        with self._lock:
            self._pauses.pop(pixel_id, None)

    def pauses(self) -> Sequence[Pause]:
        """See Store.pauses."""
        with self._lock:
            now = self._clock()
            return [one for one in self._pauses.values() if now < one.until <= now + LONGEST_WAIT]

    def backlog(self) -> Sequence[Backlog]:
        """See Store.backlog."""
        with self._lock:
            now = self._clock()
            ages: dict[str, list[float]] = {}
            for record in self._waiting.values():
                ages.setdefault(record.pixel_id, []).append(max(0.0, now - record.event_time))
        return [Backlog(pixel_id, len(some), max(some)) for pixel_id, some in ages.items()]

    def dead_letters(self, *, limit: int, after: int = 0) -> Sequence[DeadLetter]:
        """See Store.dead_letters."""
        with self._lock:
            dead = [r for r in self._records.values() if r.server == "dead" and r.key > after]
            dead.sort(key=lambda record: record.key)
            return [
                DeadLetter(r.key, r.event_id, r.event_name, r.pixel_id, r.event_time, r.reason,
                           r.attempts, r.payload or b"")
                for r in dead[:limit]
            ]  # fmt: skip

    def requeue(self, keys: Sequence[int] | None = None) -> int:
        """See Store.requeue."""
        with self._lock:
            dead = self._dead(keys)
            for record in dead:
                record.due_at, record.attempts, record.uncertain = self._clock(), 0, False
                self._move(record, "pending")
        if dead and self.on_commit is not None:
            self.on_commit()
        return len(dead)

    def drop(self, keys: Sequence[int] | None = None) -> int:
        """See Store.drop."""
        with self._lock:
            dead = self._dead(keys)
            for record in dead:
                self._move(record, "dropped")
            self.count([Count("dropped", "dead_letter", r.event_name, r.pixel_id) for r in dead])
        return len(dead)

    def _dead(self, keys: Sequence[int] | None) -> list[Record]:
        return [
            record
            for record in self._records.values()
            if record.server == "dead" and (keys is None or record.key in keys)
        ]

    def next_due(self, pixel_id: str) -> float | None:
        """See Store.next_due."""
        with self._lock:
            now = self._clock()
            waits = []
            for record in self._waiting.values():
                if record.pixel_id == pixel_id:
                    leased = record.server == "leased"
                    wait = (record.lease_until if leased else record.due_at) - now
                    waits.append(0.0 if leased and wait > LONGEST_LEASE else max(0.0, wait))
            return min(waits, default=None)

    def tallies(self, start: float, end: float) -> Tallies:
        """See Store.tallies."""
        window = hours(start, end)
        counts: Counter[Count] = Counter()
        with self._lock:
            for (hour, what), n in self._counts.items():
                if window.start <= hour < window.end:
                    counts[what] += n
            sums = self._sums.of_window(window)
        return tallies_of(sums, (), [replace(what, n=n) for what, n in counts.items()])

    def slices(self, facet: Facet, start: float, end: float) -> Sequence[Slice]:
        """See Store.slices."""
        with self._lock:
            return slices_of(facet, self._sums.by_facet(facet, hours(start, end)), ())

    def find(self, event_ids: Sequence[str]) -> Sequence[Known]:
        """See Store.find."""
        check_found(event_ids)
        wanted = set(event_ids)
        with self._lock:
            return [r.known() for r in self._by_key() if r.event_id in wanted]

    def recent(self, limit: int, after: int = 0) -> Sequence[Known]:
        """See Store.recent."""
        with self._lock:
            some = [record for record in self._by_key() if record.key > after]
            return [record.known() for record in (some[:limit] if after else some[-limit:])]

    def _by_key(self) -> list[Record]:
        return sorted(self._records.values(), key=lambda record: record.key)

    def keep(self, name: str, body: bytes, *, instead_of: bytes | None) -> bool:
        """See Store.keep."""
        with self._lock:
            if self._kept.get(name) != instead_of:
                return False
            self._kept[name] = body
        return True

    def kept(self, name: str) -> bytes | None:
        """See Store.kept."""
        with self._lock:
            return self._kept.get(name)

    def depth(self) -> dict[str, int]:
        """See Store.depth."""
        with self._lock:
            return dict(Counter(record.server for record in self._records.values()))

    def prune(self, before: float) -> int:
        """See Store.prune."""
        with self._lock:
            old = [
                identity
                for identity, record in self._records.items()
                if record.event_time < before and record.key not in self._waiting
            ]
            for identity in old:
                del self._records[identity]
            oldest = oldest_hour(self._clock())
            for key in [key for key in self._counts if key[0] < oldest]:
                del self._counts[key]
            self._sums.prune(oldest)
        return len(old)

    def flush(self, timeout: float) -> bool:
        """See Store.flush."""
        return True

    def close(self) -> None:
        """See Store.close. The events stay: there is nowhere else to read them from."""


def _leased(record: Record) -> LeasedEvent:
    return LeasedEvent(
        record.key,
        record.event_id,
        record.event_name,
        record.event_time,
        record.payload or b"",
        record.attempts,
    )
