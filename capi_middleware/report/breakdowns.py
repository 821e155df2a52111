"""Breakdowns: the numbers of the report apart by pixel, page, country and so on, and over time."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from capi_middleware.events import SENT, UNPAIRED
from capi_middleware.report.model import TARGET, Breakdown, EventReport, Part, Place, Trend
from capi_middleware.report.numbers import Copies, copies_of, misses, together
from capi_middleware.report.pictures import outages
from capi_middleware.report.window import iso
from capi_middleware.store.records import Slice
from capi_middleware.store.rollups import Facet

#: More parts than these are summed up as OTHER: a page is read by people.
MOST_PARTS = 12
OTHER = "(other)"
#: The longest window whose trend is shown by hour, in hours.
_BY_HOUR = 48
_HOUR, _DAY = 3600, 86400

#: What the numbers are shown apart by, beside the pixel.
APART: tuple[Facet, ...] = ("route", "page", "agent", "device", "country", "host")
#: Those that say nothing as long as there is one value.
_OF_MANY = ("country", "host")
Slices = Mapping[Facet, Sequence[Slice]]


def breakdowns(events: Iterable[EventReport], slices: Slices) -> list[Breakdown]:
    """`events` by pixel, and `slices` by all that is in APART, the busiest part first."""
    pixels: defaultdict[str, list[EventReport]] = defaultdict(list)
    for event in events:
        pixels[event.pixel_id].append(event)
    found = [_breakdown("pixel", {of: together(them) for of, them in pixels.items()})]
    for by in APART:
        values: defaultdict[str, list[Slice]] = defaultdict(list)
        for one in slices.get(by, ()):
            values[one.value].append(one)
        found.append(_breakdown(by, {of: copies_of(them) for of, them in values.items()}))
    return [
        one
        for one in found
        if any(part.value for part in one.parts) and len(one.parts) > (one.by in _OF_MANY)
    ]


def trends(
    slices: Sequence[Slice], *, start: float, end: float, upto: float | None = None
) -> list[Trend]:
    """Each event over the window [start, end): by hour up to two days, else by day in UTC.

    A longer window is shown from its first event: a site that began yesterday sees its hours.
    Outages are looked for in all whole hours before `upto`, Unix seconds.
    """
    sides: defaultdict[Place, dict[str, Counter[int]]]
    sides = defaultdict(lambda: {"server": Counter(), "browser": Counter()})
    past = int(upto or 0) // _HOUR
    for one in slices:
        hour = int(one.value) // _HOUR
        if hour < past and one.browser != UNPAIRED:
            copies = sides[one.event_name, one.pixel_id]
            if one.server == "delivered":
                copies["server"][hour] += one.n
            if one.browser == SENT:
                copies["browser"][hour] += one.n
    slices = [one for one in slices if start <= int(one.value) < end]
    if end - start > _BY_HOUR * _HOUR and slices:
        since = min(int(one.value) for one in slices)
        start = since if end - since <= _BY_HOUR * _HOUR else start
    step: Literal["hour", "day"] = "hour" if end - start <= _BY_HOUR * _HOUR else "day"
    seconds = _HOUR if step == "hour" else _DAY
    first, last = int(start) // seconds, -(-int(end) // seconds)
    places: defaultdict[Place, defaultdict[int, list[Slice]]]
    places = defaultdict(lambda: defaultdict(list))
    for one in slices:
        places[one.event_name, one.pixel_id][int(one.value) // seconds].append(one)
    return [
        Trend(
            event_name=name,
            pixel_id=pixel_id,
            step=step,
            parts=[_part(iso(at * seconds), copies_of(times[at])) for at in range(first, last)],
            outages=outages(sides[name, pixel_id], past),
        )
        for (name, pixel_id), times in sorted(places.items())
    ]


def _breakdown(by: str, sums: Mapping[str, Copies]) -> Breakdown:
    parts = _parts(sums)
    short = [one for one in parts if misses(one.matched, one.browser, TARGET)]
    lowest = min(short, key=lambda one: one.coverage or 0.0, default=None)
    return Breakdown(by, parts, lowest.value if lowest is not None and len(parts) > 1 else None)


def _parts(sums: Mapping[str, Copies]) -> list[Part]:
    busiest = sorted(sums, key=lambda value: (-sum(sums[value]), value))
    parts = [_part(value, sums[value]) for value in busiest[:MOST_PARTS] if any(sums[value])]
    if rest := [sums[value] for value in busiest[MOST_PARTS:]]:
        parts.append(_part(OTHER, Copies(*map(sum, zip(*rest, strict=True)))))
    return parts


def _part(value: str, copies: Copies) -> Part:
    return Part(value, *copies, coverage=copies.coverage, ratio=copies.ratio)
