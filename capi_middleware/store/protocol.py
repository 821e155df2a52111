"""What a store promises. Every backend passes the same suite, tests/store/test_store.py."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from capi_middleware.events import Count, Row, Sighting
from capi_middleware.private import Private
from capi_middleware.store.commits import Commit

#: Meta refuses event_time of more than 7 days ago, with the whole request; less an hour for the
#: way there. In seconds.
OLDEST_EVENT = 7 * 86400 - 3600
#: Meta removes duplicates for 48 hours from the first copy, less an hour for the way there: an
#: event that Meta may have counted already would count twice after that. In seconds.
DEDUPE_WINDOW = 47 * 3600
#: A lease that ends later than this from now was taken before the clock went back: it has run
#: out. In seconds; no lease may be asked for longer.
LONGEST_LEASE = 600.0
#: The same for the delay of an event and the rest of a pixel; none may be longer. In seconds.
LONGEST_WAIT = 3600.0
#: A sighting that said nothing new: a replayed beacon, or a page that repeats itself.
REPLAYED = Count("beacon", "replayed")


class LeasedEvent(Private, Struct, frozen=True):
    """One server copy to deliver. `attempts` counts the requests it was part of before."""

    key: int
    event_id: str
    event_name: str
    event_time: float
    payload: bytes
    attempts: int


class Lease(Private, Struct, frozen=True):
    """A time-limited claim on some events of one pixel; it runs out by itself."""

    lease_id: str
    events: Sequence[LeasedEvent]


class Settlement(Struct, frozen=True):
    """The outcome for one leased event.

    `state`: delivered, dead, or pending again (then `delay` is the wait in seconds before the
    next attempt, `attempted` says whether this counts as an attempt, and `uncertain` that nobody
    knows whether Meta took it). `reason` is a short text without personal data: an error code,
    never a response body.
    """

    key: int
    state: Literal["delivered", "dead", "pending"]
    reason: str = ""
    delay: float = 0.0
    attempted: bool = True
    uncertain: bool = False


class Pause(Struct, frozen=True):
    """A pixel rests, for all processes, until Unix time `until` (seconds).

    `reason` as in Settlement. `token` is a fingerprint of the access token that was refused, ""
    where the token is not the cause: a process with another token need not wait.
    """

    pixel_id: str
    until: float
    reason: str
    token: str = ""


class DeadLetter(Private, Struct, frozen=True):
    """An event that Meta refuses: kept until somebody requeues or drops it, or retention ends."""

    key: int
    event_id: str
    event_name: str
    pixel_id: str
    event_time: float
    reason: str
    attempts: int
    payload: bytes


class Backlog(Struct, frozen=True):
    """What waits for delivery to one pixel. Ages in seconds since event_time."""

    pixel_id: str
    waiting: int
    oldest: float


class Tally(Struct, frozen=True):
    """`n` events of one name and pixel that share these states and match keys.

    A `server` that is leased counts as "pending".
    """

    pixel_id: str
    event_name: str
    server: str
    browser: str
    match_keys: int
    n: int


class Freshness(Struct, frozen=True):
    """`n` delivered events took `seconds` from event_time to Meta's answer.

    To a tenth below 10 seconds, two significant digits above.
    """

    pixel_id: str
    event_name: str
    seconds: float
    n: int


class Difference(Struct, frozen=True):
    """`n` events whose two copies both arrived with different values or currencies."""

    pixel_id: str
    event_name: str
    n: int


class Tallies(Struct, frozen=True):
    """All that the report is made of, for one window of event_time."""

    rows: Sequence[Tally]
    freshness: Sequence[Freshness]
    counts: Sequence[Count]
    differences: Sequence[Difference] = ()


#: What a report can be split by.
Facet = Literal["hour", "route", "page", "agent"]


class Slice(Struct, frozen=True):
    """`n` events of one hour, route, page or browser family that share these states.

    `value` of the facet "hour" is the Unix time in seconds, as a whole number, at which it begins.
    """

    value: str
    pixel_id: str
    event_name: str
    server: str
    browser: str
    n: int


class Known(Struct, frozen=True):
    """What is known of one event at one pixel. `reason` as in Settlement."""

    key: int
    event_id: str
    event_name: str
    pixel_id: str
    event_time: float
    server: str
    browser: str
    reason: str
    attempts: int


#: How many event_ids one call of `Store.find` takes.
MOST_FOUND = 1000


def check_found(event_ids: Sequence[str]) -> None:
    """Raise ValueError for more event_ids than `Store.find` takes."""
    if len(event_ids) > MOST_FOUND:
        raise ValueError(
            f"find: found {len(event_ids):,} event_ids, expected at most {MOST_FOUND:,} a call"
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
