"""MemoryStore: everything in dicts, for tests and for trying things out; a restart forgets all."""

from collections import Counter
from collections.abc import Sequence

from msgspec.structs import replace

from capi_middleware.errors import StoreError, StoreFull
from capi_middleware.events import VAGUE_BROWSER_CAUSES, Count, Row, Sighting
from capi_middleware.store.commits import Commit, ended
from capi_middleware.store.memory_outbox import MemoryOutbox
from capi_middleware.store.memory_sums import Record
from capi_middleware.store.queueing import room, waits_for_delivery
from capi_middleware.store.records import REPLAYED, Facet, Known, Slice, Tallies, check_found
from capi_middleware.store.rollups import hours, oldest_hour, slices_of, tallies_of


class MemoryStore(MemoryOutbox):
    """The store in this process's memory. Every call is done when it returns, commits as well.

    Args:
        queue_limit: how many events may wait for delivery.
        clock: Unix time in seconds.
    """

    def append(self, rows: Sequence[Row], *, wait: bool) -> Commit | None:
        """See Store.append."""
        pending = waits_for_delivery(rows)
        if any(row.server in ("pending", "leased") and row.payload is None for row in rows):
            self._drop(rows, "store_error")
            error = StoreError("the rows cannot be stored: found no payload")
            return ended(error) if wait else None
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
        return ended() if wait else None

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

    def sight(self, sightings: Sequence[Sighting]) -> Commit:
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
        return ended()

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
            for key in [key for key in self._counts if 0 < key[0] < oldest]:
                n = self._counts.pop(key)
                self._counts[0, key[1]] = self._counts.get((0, key[1]), 0) + n
            self._sums.prune(oldest)
        return len(old)

    def flush(self, timeout: float) -> bool:
        """See Store.flush."""
        return True

    def close(self) -> None:
        """See Store.close. The events stay: there is nowhere else to read them from."""
