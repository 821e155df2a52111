"""Breakdowns: the numbers of the report apart by pixel, route, page and browser, and over time."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from capi_middleware.events import SENT
from capi_middleware.report.model import Breakdown, EventReport, Part, Trend
from capi_middleware.report.window import iso
from capi_middleware.store.records import Facet, Slice

#: More parts than these are summed up as OTHER: a page is read by people.
MOST_PARTS = 12
OTHER = "(other)"
#: The longest window whose trend is shown by hour, in hours.
_BY_HOUR = 48
_HOUR, _DAY = 3600, 86400

Slices = Mapping[Facet, Sequence[Slice]]


def breakdowns(events: Iterable[EventReport], slices: Slices) -> list[Breakdown]:
    """`events` by pixel, and `slices` by route, page and agent, the busiest part first."""
    pixels: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for event in events:
        _add(pixels[event.pixel_id], event.server, event.browser, event.matched)
    found = [Breakdown("pixel", _parts(pixels))]
    for by in ("route", "page", "agent"):
        parts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for one in slices.get(by, ()):
            _add(parts[one.value], *counted(one))
        found.append(Breakdown(by, _parts(parts)))
    return [one for one in found if any(part.value for part in one.parts)]


def trends(slices: Iterable[Slice], *, start: float, end: float) -> list[Trend]:
    """Each event over the window [start, end): by hour up to two days, else by day in UTC.

    A longer window is shown from its first event: a site that began yesterday sees its hours.
    """
    slices = [one for one in slices if start <= int(one.value) < end]
    if end - start > _BY_HOUR * _HOUR and slices:
        since = min(int(one.value) for one in slices)
        start = since if end - since <= _BY_HOUR * _HOUR else start
    step: Literal["hour", "day"] = "hour" if end - start <= _BY_HOUR * _HOUR else "day"
    seconds = _HOUR if step == "hour" else _DAY
    first, last = int(start) // seconds, -(-int(end) // seconds)
    groups: dict[tuple[str, str], dict[int, list[int]]] = {}
    for one in slices:
        times = groups.setdefault((one.event_name, one.pixel_id), {})
        _add(times.setdefault(int(one.value) // seconds, [0, 0, 0]), *counted(one))
    return [
        Trend(
            event_name=name,
            pixel_id=pixel_id,
            step=step,
            parts=[_part(iso(at * seconds), times.get(at, [0, 0, 0])) for at in range(first, last)],
        )
        for (name, pixel_id), times in sorted(groups.items())
    ]


def counted(one: Slice) -> tuple[int, int, int]:
    """How many of these events the server delivered, the browser sent, and both."""
    delivered, sent = one.server == "delivered", one.browser == SENT
    return one.n * delivered, one.n * sent, one.n * (delivered and sent)


def _add(sums: list[int], server: int, browser: int, matched: int) -> None:
    sums[0] += server
    sums[1] += browser
    sums[2] += matched


def _parts(groups: Mapping[str, list[int]]) -> list[Part]:
    busiest = sorted(groups.items(), key=lambda item: (-sum(item[1]), item[0]))
    rest = busiest[MOST_PARTS:]
    parts = [_part(value, sums) for value, sums in busiest[:MOST_PARTS] if any(sums)]
    if rest:
        parts.append(
            _part(OTHER, [sum(column) for column in zip(*(s for _, s in rest), strict=True)])
        )
    return parts


def _part(value: str, sums: Sequence[int]) -> Part:
    server, browser, matched = sums
    return Part(
        value=value,
        server=server,
        browser=browser,
        matched=matched,
        coverage=round(matched / browser, 3) if browser else None,
        ratio=round(server / browser, 3) if browser else None,
    )
