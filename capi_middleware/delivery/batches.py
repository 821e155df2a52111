"""Batches: which of the leased events go into the next request, decided by values alone.

Meta refuses a batch as a whole for one bad event. Those that it refused together are suspects:
their first half goes out next, behind the fresh conversions, until the half of it that must hold
the bad one is that event alone. The rows keep who is suspected: whoever leases them goes on.
"""

import random
from collections.abc import Sequence

from capi_middleware.store.records import LeasedEvent

#: Meta takes 1 to 1000 events in a request.
BATCH = 1000
#: The most and the least that bodies are held to, in bytes: proxies and firewalls take about 1 MB,
#: and on a slow line a request must be through before its deadline.
MOST_BYTES, LEAST_BYTES = 1_000_000, 16_000
#: So many requests get through before twice as many bytes are tried.
_BEFORE_MORE = 10
#: What a body has beside its events.
_ENVELOPE = 1000
#: How many times fewer events go into a request after one that was refused, and the least.
_FEWER, _FEWEST = 4, 4
#: Where more than one of so many events is refused, the pixel rests between requests. A few are no
#: measure, and what was long ago counts less.
_BAD_OF, _FEW, _MANY = 10, 100, 1000
#: The longest of these rests, in seconds.
LONGEST_REST = 15.0


class Caution:
    """How much goes into a request, and how often one goes out, by what became of those before."""

    def __init__(self) -> None:
        self.events: int = BATCH
        self.bytes: int = MOST_BYTES
        #: How many events are worth leasing for one request.
        self.lease: int = BATCH
        #: Fresh conversions were refused together with others: next time they go out alone.
        self.apart: bool = False
        #: More was too large for something on the way.
        self._most_bytes = MOST_BYTES
        #: Requests since it last went up or down.
        self._passed = 0
        #: Of the events lately, those that Meta refused alone, and all that it took or refused so.
        self._bad = self._all = 0
        self._rests = 0

    def delivered(self, n: int, *, searching: bool) -> None:
        """A request with `n` events got through."""
        self._all += n
        self.apart = False
        if searching:
            return
        if n * 2 > self.events:
            self.events = min(BATCH, self.events * 2)
        self._passed += 1
        if self._passed >= _BEFORE_MORE:
            self._passed, self.bytes = 0, min(self._most_bytes, self.bytes * 2)
        if n * 2 > self.lease:
            self.lease = min(self.events, self.lease * 2)

    def refused(self, n: int) -> None:
        """One of `n` events at least is bad: a search for it takes fewer steps among fewer."""
        self.lease = self.events = max(_FEWEST, n // _FEWER)

    def late(self, batch: Sequence[LeasedEvent]) -> None:
        """A request was not answered in time."""
        self._passed, self.bytes = 0, max(LEAST_BYTES, _size_of(batch) // 2)

    def too_large(self, batch: Sequence[LeasedEvent]) -> None:
        """A request was refused for its size, which will not change soon."""
        self.bytes = self._most_bytes = _size_of(batch) // 2

    def bad(self) -> None:
        """An event was refused alone."""
        self._all, self._bad = self._all + 1, self._bad + 1
        if self._all > _MANY:
            self._all, self._bad = _MANY // 2, self._bad * _MANY // 2 // self._all

    def rest(self) -> float:
        """Seconds to rest before the next request after one that was refused; 0.0 for none."""
        if self._bad * _BAD_OF <= self._all + _FEW:
            self._rests = 0
            return 0.0
        self._rests += 1
        return min(LONGEST_REST, 2.0 ** min(self._rests, 10))


def _size_of(batch: Sequence[LeasedEvent]) -> int:
    return _ENVELOPE + sum([len(one.payload) + 1 for one in batch])


def next_batch(events: Sequence[LeasedEvent], caution: Caution) -> list[LeasedEvent]:
    """Those of `events`, as a lease gives them, that go out first: at least one.

    Suspects among them come last.
    """
    suspects = [one for one in events if one.suspect > 0]
    suspects.sort(key=lambda one: one.event_name == "PageView")  # conversions are in a hurry
    if len(suspects) == 1:
        return suspects
    half, first = suspects[: min(len(suspects) // 2, BATCH)], list(events)
    if suspects:
        # Of the others only fresh ones go along, which are bad as rarely as any.
        first = [one for one in events if one.fresh and not one.suspect]
        half = [] if first and caution.apart else half
    wanted = first[: min(caution.events, BATCH - len(half))] + half
    n, left = 0, caution.bytes - _ENVELOPE
    while n < len(wanted) and (left := left - len(wanted[n].payload) - 1) >= 0:
        n += 1
    if n < len(wanted):
        caution.lease = max(1, n)
    return wanted[: max(1, n)]


def oldest(events: Sequence[LeasedEvent]) -> LeasedEvent:
    """The one that happened first: what was right with it once is right still."""
    return min(events, key=lambda one: one.event_time)


def another(
    events: Sequence[LeasedEvent], than: LeasedEvent, chance: random.Random
) -> LeasedEvent | None:
    """Any other one, of another name if there is one; None without any."""
    others = [one for one in events if one.key != than.key]
    named = [one for one in others if one.event_name != than.event_name]
    return chance.choice(named or others) if others else None
