"""The outbox in memory: claims, outcomes, pauses and dead letters."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from itertools import count as numbers

from msgspec.structs import replace

from capi_middleware.events import Count
from capi_middleware.store.forks import at_fork
from capi_middleware.store.memory_sums import Record, Sums
from capi_middleware.store.records import (
    LONGEST_LEASE,
    LONGEST_WAIT,
    Backlog,
    DeadLetter,
    Lease,
    LeasedEvent,
    Pause,
    Settlement,
)


class MemoryOutbox:
    """The part of MemoryStore that couriers and those who look after dead letters use."""

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


def _leased(record: Record) -> LeasedEvent:
    return LeasedEvent(
        record.key,
        record.event_id,
        record.event_name,
        record.event_time,
        record.payload or b"",
        record.attempts,
    )
