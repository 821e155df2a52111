"""Flags about sudden drops: the last hours beside the same hours of the days before."""

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt

from capi_middleware.report.breakdowns import counted
from capi_middleware.report.flags.evidence import flag
from capi_middleware.report.model import Flag
from capi_middleware.store.records import Slice

#: The hours that are judged together, and the days that they are compared with.
HOURS, DAYS = 3, 7
#: Fewer events than these on an average day are too few to miss any.
_USUAL = 20.0
#: A drop is less than half of the usual, and by more than chance (standard deviations of Poisson).
_HALF, _DEVIATIONS = 0.5, 4.0
#: With fewer days of data nobody knows what is usual.
_LEAST_DAYS = 3
_SIDES = ("server", "browser")


def flags_of_drops(slices: Iterable[Slice], *, upto: float) -> list[Flag]:
    """Copies that became fewer in the 3 hours before `upto` (Unix seconds, a whole hour).

    `slices` are by hour and reach back 7 days from there. The same hours of those days are the
    measure, so that nights and mornings are not compared.
    """
    end = int(upto) // 3600
    found: dict[tuple[str, str], dict[int, Sequence[int]]] = {}
    for one in slices:
        ago = end - 1 - int(one.value) // 3600
        day, hour = divmod(ago, 24)
        if ago >= 0 and hour < HOURS and day <= DAYS:
            days = found.setdefault((one.event_name, one.pixel_id), {})
            server, browser, _ = counted(one)
            before = days.get(day, (0, 0))
            days[day] = (before[0] + server, before[1] + browser)
    return [
        one
        for (name, pixel_id), days in sorted(found.items())
        for one in _drop(name, pixel_id, days)
    ]


def _drop(name: str, pixel_id: str, days: Mapping[int, Sequence[int]]) -> Iterable[Flag]:
    fallen = [one for one in map(_fall, (0, 1), (days, days)) if one is not None]
    if not fallen:
        return
    now, usual, word = min(fallen, key=lambda one: one[0] / one[1])
    both = len(fallen) == len(_SIDES)
    yield flag(
        "sudden_drop",
        "critical" if now == 0 else "warning",
        event_name=name,
        pixel_id=pixel_id,
        value=now,
        target=round(usual, 1),
        explanation=f"{now:,} {word} copies in the last {HOURS} hours, where the same hours of the "
        f"days before had {usual:,.0f} on average"
        + ("; the other copy fell as well." if both else "; the other copy did not fall."),
        fix="Look at what changed since then: "
        + (
            "a release, a route, a template, or simply fewer visitors."
            if both
            else "EventRoute and track() lines, the store, the access token."
            if word == "server"
            else "the template with the <head>, a consent banner, a Content-Security-Policy; open "
            "such a page and look for requests to facebook.com/tr."
        ),
    )


def _fall(side: int, days: Mapping[int, Sequence[int]]) -> tuple[int, float, str] | None:
    """(now, usual, the copy's word) when this copy fell, else None."""
    before = [sums[side] for day, sums in days.items() if day > 0]
    if len(before) < _LEAST_DAYS:
        return None
    usual, now = sum(before) / len(before), days.get(0, (0, 0))[side]
    if usual < _USUAL or now >= usual * _HALF or now >= usual - _DEVIATIONS * sqrt(usual):
        return None
    return now, usual, _SIDES[side]
