"""Rollups: what becomes of a row's states in hourly sums, and of the sums in a report.

Every database writes down each change of a row as two states, the old with n = -1 and the new with
n = +1, in the transaction that changes the row; they are folded into sums by hour and by day later.
A report adds the sums of the whole days and hours of its window and the changes that are not folded
yet, so that what it reads does not depend on the number of events.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import ceil, floor
from typing import NamedTuple

from capi_middleware.events import Count
from capi_middleware.store.protocol import Difference, Facet, Freshness, Slice, Tallies, Tally

#: How long rollups and counters are kept, in days.
KEPT_DAYS = 400
DAY = 24
#: Facets that a report adds up; the others are read by hours or not by time at all.
_BY_DAY = frozenset({"match_keys", "seconds", "differs", "route", "page", "agent"})
#: What `tallies` reads.
OF_TALLIES = ("match_keys", "seconds", "differs")
#: Hours since 1970 that every database can hold.
_LAST_HOUR = 2**31


class State(NamedTuple):
    """What the sums know of a row, or of `n` equal ones; `rows` is how many more are stored.

    `hour` is event_time // 3600; `server` has no "leased", that is "pending"; `tenths` are the
    tenths of a second from event_time to delivery, -1 without one; `differs` is 1 when both copies
    arrived with different values.
    """

    hour: int
    pixel_id: str
    event_name: str
    server: str
    browser: str
    match_keys: int
    tenths: int
    route: str
    page: str
    agent: str
    differs: int
    n: int
    rows: int


class Key(NamedTuple):
    """What is summed: `value` is the facet's own, as text."""

    facet: str
    value: str
    pixel_id: str
    event_name: str
    server: str
    browser: str


#: (span, start, key): the sum over `span` hours from hour `start`; span 0 is all time.
Place = tuple[int, int, Key]


class Window(NamedTuple):
    """A window in hours: [start, end), and the whole days in it, [first_day, last_day)."""

    start: int
    first_day: int
    last_day: int
    end: int


def hours(start: float, end: float) -> Window:
    """The whole hours that a window of Unix seconds touches."""
    first = max(0, floor(max(start, 0.0) / 3600))
    last = min(_LAST_HOUR, ceil(min(max(end, 0.0) / 3600, _LAST_HOUR)))
    first_day = min(-(-first // DAY) * DAY, last)
    return Window(first, first_day, max(first_day, last // DAY * DAY), last)


def oldest_hour(now: float) -> int:
    """The first hour of which sums and counters are kept, the begin of a day in UTC."""
    return (int(now // 86400) - KEPT_DAYS) * DAY


def seconds_of(tenths: int) -> float:
    """Tenths of a second as seconds; from 10 s on with two significant digits."""
    if tenths < 100:
        return tenths / 10
    unit: int = 10 ** (len(str(tenths)) - 2)
    return float((tenths + unit // 2) // unit * unit / 10)


def keys_of(state: State) -> Iterator[Key]:
    """The sums that a row in this state is part of. What is "" (not known) has none."""
    of_row = (state.pixel_id, state.event_name, state.server, state.browser)
    yield Key("match_keys", str(state.match_keys), *of_row)
    yield Key("hour", "", *of_row)
    if state.tenths >= 0:
        seconds = str(seconds_of(state.tenths))
        yield Key("seconds", seconds, state.pixel_id, state.event_name, "", "")
    if state.route:
        yield Key("route", state.route, *of_row)
    if state.page:
        yield Key("page", state.page, *of_row)
    if state.agent:
        yield Key("agent", state.agent, *of_row)
    if state.differs:
        yield Key("differs", "", state.pixel_id, state.event_name, "", "")


def folded(changes: Iterable[State]) -> Mapping[Place, int]:
    """What to add to which sum; nothing where changes cancel out."""
    sums: Counter[Place] = Counter()
    for state in changes:
        if state.n:
            day = state.hour - state.hour % DAY
            for key in keys_of(state):
                sums[1, state.hour, key] += state.n
                if key.facet in _BY_DAY:
                    sums[DAY, day, key] += state.n
        if state.rows:
            sums[0, 0, Key("depth", "", state.pixel_id, "", state.server, "")] += state.rows
    return {place: n for place, n in sums.items() if n}


def tallies_of(
    sums: Iterable[tuple[Key, int]], changes: Iterable[State], counts: list[Count]
) -> Tallies:
    """The tallies of a window: its sums, the changes not folded yet, and its counters."""
    totals = Counter[Key]()
    for key, n in sums:
        totals[key] += n
    for state in changes:
        for key in keys_of(state):
            totals[key] += state.n
    rows, freshness, differences = list[Tally](), list[Freshness](), list[Difference]()
    for key, n in totals.items():
        if n == 0:
            continue
        if key.facet == "match_keys":
            of_row = (key.pixel_id, key.event_name, key.server, key.browser)
            rows.append(Tally(*of_row, int(key.value), n))
        elif key.facet == "seconds":
            freshness.append(Freshness(key.pixel_id, key.event_name, float(key.value), n))
        elif key.facet == "differs":
            differences.append(Difference(key.pixel_id, key.event_name, n))
    return Tallies(rows, freshness, counts, differences)


def slices_of(
    facet: Facet, sums: Iterable[tuple[int, Key, int]], changes: Iterable[State]
) -> list[Slice]:
    """The slices of a window; `sums` are (hour, key, n), the hour is told of facet "hour" only."""
    totals = Counter[Key]()
    for hour, key, n in sums:
        totals[_sliced(facet, hour, key)] += n
    for state in changes:
        for key in keys_of(state):
            if key.facet == facet:
                totals[_sliced(facet, state.hour, key)] += state.n
    return [Slice(*key[1:], n) for key, n in totals.items() if n]


def _sliced(facet: Facet, hour: int, key: Key) -> Key:
    return key._replace(value=str(hour * 3600)) if facet == "hour" else key


def depth_of(states: Iterable[tuple[str, int]], leased: int) -> dict[str, int]:
    """Rows by state, where `states` know leased ones as pending."""
    totals = Counter[str]()
    for server, n in states:
        totals[server] += n
    totals["pending"] -= leased
    totals["leased"] += leased
    return {server: n for server, n in totals.items() if n}
