"""Silence: copies that stop or become few, noticed as soon as it is no chance. Pure.

Each hour is compared with the same hour of the weeks before, so nights, mornings and Sundays only
with their like. What speaks for a fall adds up over the hours until it is enough (Page's cumulative
sum, 1954): within hours for a big shop, within days for a small one.
"""

from collections.abc import Mapping
from math import ceil, log
from typing import NamedTuple

_WEEK = 7 * 24
#: So many weeks before are compared with. The hours of one more are judged: what is few, but not
#: silent, since before it is told as if it began with it.
_WEEKS, _JUDGED = 4, _WEEK
#: How far back hours are read for it, in seconds.
LOOKS_BACK = (_WEEKS * _WEEK + _JUDGED + 1) * 3600
#: A fall leaves about this share of the usual: what leaves more than half never adds up.
_LEFT = 0.2
#: So much speaks for a fall by chance once in 10,000 hours at most, and for its end a third of it.
#: An hour alone is no proof: clocks change, and a week ago something was on television.
_SURE = log(10_000)
_OVER, _OF_AN_HOUR = _SURE / 3, _SURE / 2
#: Fewer events of a week before are too few to miss any, even all of them.
_FEWEST = ceil(_SURE / log(2 / (1 + _LEFT)))


class Span(NamedTuple):
    """From hour `since` to `until` (hours since 1970) `found` events came of so many `expected`."""

    since: int
    until: int
    found: int
    expected: float


class Fall(NamedTuple):
    """A span with few events, and whether it lasts."""

    span: Span
    lasts: bool


def last_fall(hours: Mapping[int, int], end: int, start: int = 0) -> Fall | None:
    """The last fall before hour `end` that began at hour `start` or later, None without one.

    `hours` are events by hours since 1970, those of LOOKS_BACK. It may be wrong once in 10,000
    hours where events are independent, however few weeks there are to compare with: of the events
    of an hour now and in the weeks before, those of now are a binomial share.
    """
    if sum(hours.values()) < _FEWEST:
        return None
    begun = min(hours)
    lasts, total, since, fall = False, 0.0, end, (end, 0)
    for hour in range(max(begun + _WEEK, end - _JUDGED, start), end):
        told = _told(hours, hour, begun)
        if lasts:
            total = max(total - told, 0.0)
            if total >= _OVER:
                lasts, total, fall = False, 0.0, (since, hour + 1)
            continue
        since = since if total else hour
        total = max(total + told, 0.0)
        if total >= _SURE:
            lasts, total = True, 0.0
    if not lasts:
        return Fall(span_of(hours, *fall), lasts) if fall[1] else None
    # Where nothing came since, a lull just before is no part of it.
    silent = 1 + max(hour for hour in hours if hour < end)
    silent = max(since, silent) if silent > end - _JUDGED else silent
    if sum(_told(hours, hour, begun) for hour in range(silent, end)) >= _SURE:
        since = silent
    return Fall(span_of(hours, since, end), lasts)


def span_of(hours: Mapping[int, int], since: int, until: int) -> Span:
    """What was found and expected from hour `since` to `until`, whether that is a fall or not."""
    begun = min(hours, default=until)
    found, expected = 0, 0.0
    for hour in range(since, until):
        before, weeks = _before(hours, hour, begun)
        found += hours.get(hour, 0)
        expected += before / weeks if weeks else 0.0
    return Span(since, until, found, expected)


def _told(hours: Mapping[int, int], hour: int, begun: int) -> float:
    """How much the events of an hour speak for a fall (log of the likelihood ratio)."""
    before, weeks = _before(hours, hour, begun)
    as_usual, fallen = 1 / (weeks + 1), _LEFT / (weeks + _LEFT)
    told = hours.get(hour, 0) * log(fallen / as_usual)
    told += before * log((1 - fallen) / (1 - as_usual))
    return min(told, _OF_AN_HOUR)


def _before(hours: Mapping[int, int], hour: int, begun: int) -> tuple[int, int]:
    """How many events the same hour had in the weeks before, and of how many weeks that is."""
    weeks = min((hour - begun) // _WEEK, _WEEKS)
    return sum(hours.get(hour - week * _WEEK, 0) for week in range(1, weeks + 1)), weeks
