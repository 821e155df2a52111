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
from capi_middleware.store.records import Difference, Facet, Freshness, Slice, Tallies, Tally

#: How long rollups and counters are kept, in days.
KEPT_DAYS = 400
#: The spans that are summed, in hours: a window of a week is 15 of them, not 168.
HOUR, QUARTER, DAY = 1, 6, 24
#: What `tallies` reads.
OF_TALLIES = ("match_keys", "seconds", "differs")
#: Hours since 1970 that every database can hold.
_LAST_HOUR = 2**31


class State(NamedTuple):
    """What the sums know of a row, or of `n` equal ones; `rows` is how many more are stored.

    `hour` is event_time // 3600; `server` has no "leased", that is "pending"; `match_keys` is -1
    where `tenths` alone count; `tenths` are the tenths of a second from event_time to delivery, -1
    without one; `differs` is 1 when both copies arrived with different values.
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
    """[start, end) in hours since 1970, and how the spans fill it.

    By hour to `first_quarter`, by quarter to `first_day`, by day to `last_day`, by quarter to
    `last_quarter`, by hour to `end`.
    """

    start: int
    first_quarter: int
    first_day: int
    last_day: int
    last_quarter: int
    end: int


def hours(start: float, end: float) -> Window:
    """The whole hours that a window of Unix seconds touches."""
    first = max(0, floor(max(start, 0.0) / 3600))
    last = max(first, ceil(min(max(end, 0.0) / 3600, _LAST_HOUR)))
    first_quarter = min(-(-first // QUARTER) * QUARTER, last)
    first_day = min(-(-first // DAY) * DAY, max(first_quarter, last // QUARTER * QUARTER))
    last_day = max(first_day, last // DAY * DAY)
    return Window(
        first, first_quarter, first_day, last_day, max(last_day, last // QUARTER * QUARTER), last
    )


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
    if state.match_keys >= 0:
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
    by_hour: Counter[tuple[int, Key]] = Counter()
    sums: Counter[Place] = Counter()
    for state in changes:
        if state.n:
            for key in keys_of(state):
                by_hour[state.hour, key] += state.n
        if state.rows:
            sums[0, 0, Key("depth", "", state.pixel_id, "", state.server, "")] += state.rows
    for (hour, key), n in by_hour.items():
        sums[HOUR, hour, key] += n
        if key.facet != "hour":
            sums[QUARTER, hour - hour % QUARTER, key] += n
            sums[DAY, hour - hour % DAY, key] += n
    return {place: n for place, n in sums.items() if n}


#: The columns of a Key and n.
Sum = tuple[str, str, str, str, str, str, int]


def tallies_of(sums: Iterable[Sum], changes: Iterable[State], counts: list[Count]) -> Tallies:
    """The tallies of a window: its sums (none is 0), the changes not folded yet, its counters."""
    rows, freshness, differences = list[Tally](), list[Freshness](), list[Difference]()
    late = ((key, state.n) for state in changes for key in keys_of(state))
    for facet, value, pixel_id, event_name, server, browser, n in _added(sums, late):
        if facet == "match_keys":
            rows.append(Tally(pixel_id, event_name, server, browser, int(value), n))
        elif facet == "seconds":
            freshness.append(Freshness(pixel_id, event_name, float(value), n))
        elif facet == "differs":
            differences.append(Difference(pixel_id, event_name, n))
    return Tallies(rows, freshness, counts, differences)


def slices_of(facet: Facet, sums: Iterable[Sum], changes: Iterable[State]) -> list[Slice]:
    """The slices of a window, as in `tallies_of`; of "hour" each sum has its hour as value."""
    late = (
        (key._replace(value=str(state.hour * 3600)) if facet == "hour" else key, state.n)
        for state in changes
        for key in keys_of(state)
        if key.facet == facet
    )
    return [
        Slice(value, pixel_id, event_name, server, browser, n)
        for _, value, pixel_id, event_name, server, browser, n in _added(sums, late)
    ]


def _added(sums: Iterable[Sum], changes: Iterable[tuple[Key, int]]) -> Iterable[Sum]:
    late: Counter[Key] = Counter()
    for key, n in changes:
        late[key] += n
    if not late:
        return sums
    for *columns, n in sums:
        late[Key(*columns)] += n
    return [(*key, n) for key, n in late.items() if n]


def depth_of(states: Iterable[tuple[str, int]], leased: int) -> dict[str, int]:
    """Rows by state, where `states` know leased ones as pending."""
    totals = Counter[str]()
    for server, n in states:
        totals[server] += n
    totals["pending"] -= leased
    totals["leased"] += leased
    return {server: n for server, n in totals.items() if n}
