"""What a store promises. Every backend passes the same suite, tests/store/test_store.py."""

from collections.abc import Callable, Sequence
from typing import Protocol

from capi_middleware.events import Count, Row, Sighting
from capi_middleware.store.commits import Commit
from capi_middleware.store.records import (
    Backlog,
    DeadLetter,
    Facet,
    Known,
    Lease,
    Pause,
    Settlement,
    Slice,
    Tallies,
)


class Store(Protocol):
    """One store per process. All methods may be called from any thread, also after a fork.

    A forked child has nothing of what its parent had not committed yet: that is the parent's.
    Rows that are lost after all are counted by the store, as "dropped" with the reason
    "queue_full" or "store_error".
    """

    #: Called (from any thread) after rows with server "pending" were committed.
    on_commit: Callable[[], None] | None

    def append(self, rows: Sequence[Row], *, wait: bool) -> Commit | None:
        """Keep new events, without blocking. With `wait`, their commit.

        A row that exists already (event_id, event_name, pixel_id) is kept as it was, except that
        a row made by an early sighting (server "unknown") takes over the new server copy, and
        browser "not_rendered" becomes the new row's cause. Raises StoreFull when the queue in
        front of the store is full. The commit raises StoreError when it failed; while others keep
        the database locked it waits.
        """

    def sight(self, sightings: Sequence[Sighting]) -> Commit:
        """Record what browsers said. Idempotent and monotone.

        "sent" replaces every cause and is never replaced; another outcome replaces only
        VAGUE_BROWSER_CAUSES. An unknown event becomes a row with server "unknown". Raises
        StoreFull and StoreError like `append`. A sighting that changes nothing is counted as
        REPLAYED.
        """

    def count(self, counts: Sequence[Count]) -> None:
        """Add to the hourly counters, without blocking. Never raises StoreFull."""

    def lease(self, pixel_id: str, *, limit: int, seconds: float) -> Lease:
        """Claim up to `limit` due events of a pixel for `seconds`, those due longest first.

        Events whose lease ran out are due again. Never hands one event to two living leases.
        Due events older than OLDEST_EVENT become "expired" instead, as do those older than
        DEDUPE_WINDOW that Meta may have counted: an attempt was uncertain, or the browser copy is
        known to be sent. `seconds` is at most LONGEST_LEASE. An event that is due later than
        LONGEST_WAIT from now is due: the clock went back.
        """

    def settle(self, lease_id: str, settlements: Sequence[Settlement]) -> int:
        """Record outcomes; how many were still held by this lease (others are ignored)."""

    def next_due(self, pixel_id: str) -> float | None:
        """Seconds until the next event of this pixel is due (0.0 = now); None without any."""

    def pause(self, pixel_id: str, *, seconds: float, reason: str, token: str = "") -> None:
        """Let a pixel rest from now on; a later call replaces an earlier one. See Pause."""

    def resume(self, pixel_id: str) -> None:
        """End the rest of a pixel."""

    def pauses(self) -> Sequence[Pause]:
        """The pixels that rest now."""

    def backlog(self) -> Sequence[Backlog]:
        """What waits, by pixel."""

    def dead_letters(self, *, limit: int, after: int = 0) -> Sequence[DeadLetter]:
        """Dead letters with a key > `after`, in the order of their keys."""

    def requeue(self, keys: Sequence[int] | None = None) -> int:
        """Dead letters become pending again, with no attempts; all without `keys`; how many."""

    def drop(self, keys: Sequence[int] | None = None) -> int:
        """Dead letters become "dropped" without payload and are counted; all without `keys`."""

    def tallies(self, start: float, end: float) -> Tallies:
        """Everything in the window of Unix seconds, aggregated; see `slices` for the window.

        The sums of rows outlive them: what was pruned is still counted.
        """

    def slices(self, facet: Facet, start: float, end: float) -> Sequence[Slice]:
        """The rows of a window by hour, route, page or browser family.

        The window is whole hours: `start` is rounded down, `end` (not part of it) up. Rows of
        which the route, page or family is not known are in no slice: what `tallies` has more.
        """

    def find(self, event_ids: Sequence[str]) -> Sequence[Known]:
        """The rows of these events, at every pixel and of every name, by key.

        Raises ValueError for more than MOST_FOUND.
        """

    def recent(self, limit: int, after: int = 0) -> Sequence[Known]:
        """The first `limit` rows with a key > `after`; without it the newest. Always by key."""

    def keep(self, name: str, body: bytes, *, instead_of: bytes | None) -> bool:
        """Keep `body` under `name`, for all processes, if `instead_of` is what is kept now.

        `instead_of` is None where nothing is kept. False, and nothing is changed, when another
        process was first.
        """

    def kept(self, name: str) -> bytes | None:
        """What `keep` kept last; None without any."""

    def depth(self) -> dict[str, int]:
        """How many rows are in each server state."""

    def prune(self, before: float) -> int:
        """Delete settled rows with event_time < `before`, in small steps; how many.

        Rows that wait for delivery stay. Their sums and the counters stay for 400 days from now,
        so that a report on a window that is over says the same for as long.
        """

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until all that was appended is committed."""

    def close(self) -> None:
        """Flush and end the store's threads and connections. A later use starts them again."""
