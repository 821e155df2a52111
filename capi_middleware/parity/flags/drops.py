"""Flags about sudden drops: the last hours beside the same hours of the days before."""

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt

from capi_middleware.parity.breakdowns import counted
from capi_middleware.parity.flags.evidence import flag
from capi_middleware.parity.model import Flag
from capi_middleware.store.protocol import Slice

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
        for side in (0, 1)
        for one in _drop(name, pixel_id, side, days)
    ]


def _drop(name: str, pixel_id: str, side: int, days: Mapping[int, Sequence[int]]) -> Iterable[Flag]:
    before = [sums[side] for day, sums in days.items() if day > 0]
    if len(before) < _LEAST_DAYS:
        return
    usual, now = sum(before) / len(before), days.get(0, (0, 0))[side]
    if usual < _USUAL or now >= usual * _HALF or now >= usual - _DEVIATIONS * sqrt(usual):
        return
    word = _SIDES[side]
    yield flag(
        "sudden_drop",
        "critical" if now == 0 else "warning",
        event_name=name,
        pixel_id=pixel_id,
        value=now,
        target=round(usual, 1),
        explanation=f"{now:,} {word} copies in the last {HOURS} hours, where the same hours of the "
        f"{len(before)} days before had {usual:,.0f} on average.",
        fix="Look at what changed: a release, a new route or template, a token, a consent banner. "
        + (
            "The pages' server copies come from EventRoute and track()."
            if word == "server"
            else "Open such a page and look for requests to facebook.com/tr."
        ),
    )
