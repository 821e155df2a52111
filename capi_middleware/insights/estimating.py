"""Estimating: what a match key on more events may do to Meta's score, from this site's own days.

Meta tells each day how it scores an event's match quality and which share of it carries each key.
Where the share of a key went up or down, the score shows what that is worth on this site. Pure.
"""

from collections.abc import Iterator, Sequence
from math import sqrt
from statistics import NormalDist, fmean

from capi_middleware.insights.model import Day, Estimate, EventPoint

#: Days of an event, and how far the share of its key must have moved in them: less says nothing.
ENOUGH_DAYS = 14
MOVED = 0.1
#: The score goes to this.
_MOST = 10.0
#: Of 100 such intervals 95 hold what they estimate.
_SURE = NormalDist().inv_cdf(0.975)


def estimates(history: Sequence[Day], key: str = "phone") -> list[Estimate]:
    """What each event's score may gain if all its events carried `key` (Meta's word for it).

    Of an event whose score Meta told last and whose key is not on all events already.
    """
    days: dict[tuple[str, str], list[EventPoint]] = {}
    for day in history:
        for point in day.events:
            if point.match_quality is not None and key in point.shares:
                days.setdefault((point.event_name, point.pixel_id), []).append(point)
    return [one for points in days.values() for one in _estimate(points, key)]


def _estimate(points: Sequence[EventPoint], key: str) -> Iterator[Estimate]:
    last = points[-1]
    share, score = last.shares[key], last.match_quality
    if score is None or share >= 1:
        return
    told = Estimate(
        event_name=last.event_name, pixel_id=last.pixel_id, key=key, share=share, score=score,
        days=len(points),
    )  # fmt: skip
    shares = [one.shares[key] for one in points]
    if len(points) < ENOUGH_DAYS or max(shares) - min(shares) < MOVED:
        yield told
        return
    slope, error = _line(shares, [one.match_quality or 0.0 for one in points])
    more, room = 1 - share, _MOST - score
    wide = _quantile(len(points) - 2) * error
    low, gain, high = (
        round(max(-score, min(room, more * one)), 1)
        for one in (slope - wide, slope, slope + wide)
    )  # fmt: skip
    yield Estimate(
        event_name=told.event_name, pixel_id=told.pixel_id, key=key, share=share, score=score,
        days=told.days, gain=gain, low=low, high=high,
    )  # fmt: skip


def _line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """The slope of the line through these points by least squares, and its standard error."""
    x, y = fmean(xs), fmean(ys)
    spread = sum((one - x) ** 2 for one in xs)
    slope = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / spread
    left = sum((b - y - slope * (a - x)) ** 2 for a, b in zip(xs, ys, strict=True))
    return slope, sqrt(left / (len(xs) - 2) / spread)


def _quantile(free: int) -> float:
    """Student's t of _SURE with so many degrees of freedom (Cornish and Fisher's expansion)."""
    z = _SURE
    return (
        z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    )  # fmt: skip
