"""Rollups: what becomes of a row's states in hourly sums, and of the sums in a report.

Every database writes down each change of a row as two states, the old with n = -1 and the new with
n = +1, in the transaction that changes the row; they are folded into sums by hour and by day later.
A report adds the sums of the whole days and hours of its window and the changes that are not folded
yet, so that what it reads does not depend on the number of events.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil, floor
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from capi_middleware.events import BETWEEN, UNPAIRED, Count
from capi_middleware.store.records import Difference, Freshness, Slice, Tallies, Tally

if TYPE_CHECKING:
    from capi_middleware.store.store import Transaction

#: How long rollups and counters are kept, in days.
KEPT_DAYS = 400
#: The spans that are summed, in hours: a window of a week is 15 of them, not 168.
HOUR, QUARTER, DAY = 1, 6, 24
#: What `tallies` reads.
_OF_TALLIES = ("match_keys", "seconds", "differs", "money")
#: So many changes are folded in one transaction at least, where nobody waits for its end.
_TOGETHER = 1000
#: Hours since 1970 that every database can hold.
_LAST_HOUR = 2**31


#: What a report can be split by: see keys_of.
Facet = Literal["hour", "route", "page", "agent", "device", "country", "host", "money"]
#: What a segment is made of, in this order, see events.Row.
SEGMENT: tuple[Facet, ...] = ("agent", "device", "country", "host")


class State(NamedTuple):
    """What the sums know of a row, or of `n` equal ones; `rows` is how many more are stored.

    `amount` is what these are worth together, in the smallest unit of `currency`.

    `hour` is event_time // 3600; `match_keys` is -1 where `tenths` alone count; `tenths` are the
    tenths of a second from event_time to delivery, -1 without one; `differs` is 1 when both copies
    arrived with different values. What differs most comes first: databases sort and compare less.
    """

    page: str
    route: str
    match_keys: int
    segment: str
    event_name: str
    server: str
    browser: str
    tenths: int
    differs: int
    hour: int
    pixel_id: str
    currency: str
    n: int
    rows: int
    amount: int


#: What equal rows have in common.
SHARED = State._fields[:-3]


#: What a State is while a row waits for delivery, in SQL; all else is the same before and after.
WAITING = {"server": "'pending'", "tenths": "-1", "differs": "0"}


class Key(NamedTuple):
    """What is summed: `value` is the facet's own, as text."""

    facet: str
    value: str
    pixel_id: str
    event_name: str
    server: str
    browser: str


#: What to add by (span, start), over `span` hours from hour `start`; span 0 is all time.
Sums = dict[tuple[int, int], dict[Key, int]]


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


def parts_of(state: State) -> Iterator[tuple[Key, int]]:
    """The sums that rows in this state are part of, and what they add to each."""
    for key in keys_of(state):
        yield key, state.n
    if state.currency:
        of_row = (state.pixel_id, state.event_name, state.server, state.browser)
        yield Key("money", state.currency, *of_row), state.amount


def keys_of(state: State) -> Iterator[Key]:
    """The sums that count a row in this state. What is "" (not known) has none."""
    of_row = (state.pixel_id, state.event_name, state.server, state.browser)
    if state.match_keys >= 0:
        yield Key("match_keys", str(state.match_keys), *of_row)
        yield Key("hour", "", *of_row)
    if state.tenths >= 0 and state.browser != UNPAIRED:  # what is uploaded late is not late
        seconds = str(seconds_of(state.tenths))
        yield Key("seconds", seconds, state.pixel_id, state.event_name, "", "")
    if state.route:
        yield Key("route", state.route, *of_row)
    if state.page:
        yield Key("page", state.page, *of_row)
    for facet, value in zip(SEGMENT, state.segment.split(BETWEEN), strict=False):
        if value:
            yield Key(facet, value, *of_row)
    if state.differs:
        yield Key("differs", "", state.pixel_id, state.event_name, "", "")


def folded(changes: Iterable[State]) -> Sums:
    """What to add to which sum."""
    hours: defaultdict[int, dict[Key, int]] = defaultdict(dict)
    stored: Counter[Key] = Counter()
    for state in changes:
        if state.n or state.amount:
            of_hour = hours[state.hour]
            for key, n in parts_of(state):
                of_hour[key] = of_hour.get(key, 0) + n
        if state.rows:
            stored[Key("depth", "", state.pixel_id, "", state.server, "")] += state.rows
    sums: Sums = {(0, 0): stored}
    for hour, added in hours.items():
        longer = {key: n for key, n in added.items() if key[0] != "hour"}
        sums[HOUR, hour] = added
        for place in ((QUARTER, hour - hour % QUARTER), (DAY, hour - hour % DAY)):
            known = sums.get(place, {})
            sums[place] = known | {key: n + known.get(key, 0) for key, n in longer.items()}
    return sums


def fold(db: "Transaction") -> bool:
    """Fold changes into the sums unless another process is at it; whether there may be more."""
    if not db.alone():
        return False
    states, more = db.take_changes()
    # Together they cost less: of what many pages told half as much again in 500 as in 1,000.
    while more and len(states) < _TOGETHER and not db.is_wanted():
        some, more = db.take_changes()
        states += some
    add(db, folded(states))
    return more


def add(db: "Transaction", sums: Sums) -> None:
    """Add to sums."""
    wanted = [(key, *place, n) for place, added in sums.items() for key, n in added.items() if n]
    keys = list({key for key, *_ in wanted})
    numbers = _numbers(db, keys)
    new = [key for key in keys if key not in numbers]
    if new:
        db.many("add_keys", new)
        numbers |= _numbers(db, new)
    rows = [(key[0], span, start, numbers[key], n) for key, span, start, n in wanted]
    db.many("add", rows)
    db.many("forget_empty", [one[:-1] for one in rows if one[-1] < 0])


def _numbers(db: "Transaction", keys: Sequence[Key]) -> dict[Key, int]:
    return {Key(*columns): number for *columns, number in db.read_many("find_keys", keys)}


def prune_sums(db: "Transaction") -> None:
    """Delete the sums and counters that are older than KEPT_DAYS."""
    # Two processes that prune at once must not add the same twice.
    if not db.alone():
        return
    oldest = oldest_hour(db.now)
    db.run("keep_totals", oldest=oldest)
    db.run("keep_counts", oldest=oldest)
    for (facet,) in db.read("facets"):
        spans = (HOUR, QUARTER, DAY)
        if sum([db.run("prune_rollups", facet=facet, span=one, oldest=oldest) for one in spans]):
            # Every sum but those of "hour" is in one of a day.
            db.run("prune_keys", facet=facet, span=HOUR if facet == "hour" else DAY)
    db.run("prune_counts", oldest=oldest)


def read_tallies(db: "Transaction", start: float, end: float) -> Tallies:
    """See Store.tallies."""
    window = hours(start, end)._asdict()
    counts = [Count(*columns) for columns in db.read("counts", **window)]
    rows, freshness, differences = list[Tally](), list[Freshness](), list[Difference]()
    money = list[Slice]()
    sums = db.read("sums", facets=list(_OF_TALLIES), **window)
    late = (part for state in _changes(db, window) for part in parts_of(state))
    for facet, value, pixel_id, event_name, server, browser, n in _added(sums, late):
        if facet == "match_keys" and server == "unsigned":
            counts.append(Count("unsigned", "", event_name, pixel_id, n))
        elif facet == "match_keys":
            rows.append(Tally(pixel_id, event_name, server, browser, int(value), n))
        elif facet == "seconds":
            freshness.append(Freshness(pixel_id, event_name, float(value), n))
        elif facet == "differs":
            differences.append(Difference(pixel_id, event_name, n))
        elif facet == "money" and server != "unsigned":
            money.append(Slice(value, pixel_id, event_name, server, browser, n))
    return Tallies(rows, freshness, counts, differences, money)


def read_slices(db: "Transaction", facet: Facet, start: float, end: float) -> list[Slice]:
    """See Store.slices; of "hour" each sum has its hour as value, of "money" its currency."""
    window = hours(start, end)._asdict()
    hourly = facet == "hour"
    sums = db.read("hours", **window) if hourly else db.read("sums", facets=[facet], **window)
    late = (
        (key._replace(value=str(state.hour * 3600)) if hourly else key, n)
        for state in _changes(db, window)
        for key, n in parts_of(state)
        if key.facet == facet
    )
    slices = [Slice(*columns) for _, *columns in _added(sums, late)]
    return [one for one in slices if one.server != "unsigned"]


def read_depth(db: "Transaction") -> dict[str, int]:
    """See Store.depth: the sums know leased rows as pending."""
    totals = Counter[str]()
    for server, n in db.read("depth"):
        totals[server] += n
    ((held,),) = db.read("held")
    totals["pending"] -= held
    totals["leased"] += held
    return {server: n for server, n in totals.items() if n}


def _changes(db: "Transaction", window: Mapping[str, int]) -> Iterator[State]:
    return (State(*columns) for columns in db.read("changes_of_window", **window))


def _added(
    sums: list[tuple[Any, ...]], changes: Iterable[tuple[Key, int]]
) -> Iterable[tuple[Any, ...]]:
    """Sums, each the columns of a Key and n, with what is not folded yet."""
    late: Counter[Key] = Counter()
    for key, n in changes:
        late[key] += n
    if not late:
        return sums
    for *columns, n in sums:
        late[Key(*columns)] += n
    return [(*key, n) for key, n in late.items() if n]
