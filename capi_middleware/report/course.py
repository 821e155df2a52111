"""The course of a fault: since when a cause takes copies, when it did last, and whether it is over.

Pure. Over is what happens to none of so many later events, or to surely less than half as many of
the last day, that chance is ruled out. Where a cause takes copies the events by hour tell of it;
of what is only counted, the last day.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import get_args

from msgspec.structs import replace

from capi_middleware.events import SENT, UNPAIRED
from capi_middleware.report.causes import CAUSES, server_cause
from capi_middleware.report.model import Flag, Place, Severity
from capi_middleware.report.numbers import surely_below
from capi_middleware.report.window import iso
from capi_middleware.store.records import Slice

_HOUR = 3600
#: Flags of something that happened to single events, and of what happens once.
_COUNTED = frozenset(
    {"event_id_missing", "event_id_reused", "name_mismatch", "page_unproven", "repeated_events",
     "values_differ"}
)  # fmt: skip
_SINGLE = frozenset({"clock_skew", "delivery_interrupted", "store_damaged"})
_GRAVITY = {severity: at for at, severity in enumerate(get_args(Severity))}


def with_course(
    flags: Iterable[Flag],
    hours: Sequence[Slice],
    *,
    start: float,
    upto: float,
    lately: Collection[tuple[str, str, str]] | None,
) -> list[Flag]:
    """The flags with their course; what is over is worth to know only. The gravest stay first.

    Args:
        flags: those of a window that begins at `start`, in Unix seconds.
        hours: its events by hour, and those before.
        start: see above.
        upto: the end of the last whole hour, in Unix seconds.
        lately: what was flagged in the last 24 hours, as code, event and pixel; None where that is
            not known.
    """
    last_day = int(upto) // _HOUR - 24
    found, by_place = [], dict[Place, list[Slice]]()
    for one in hours:
        if one.event_name and one.pixel_id:
            by_place.setdefault((one.event_name, one.pixel_id), []).append(one)
    for flag in flags:
        place = flag.event_name, flag.pixel_id
        if place not in by_place:
            by_place[place] = [one for one in hours if _is_about(flag, one)]
        since, last, over = _course(flag, by_place[place], last_day)
        if over is None and lately is not None and _is_missed(flag, lately):
            over = (
                last_day if _is_rare(flag, by_place[place], int(start) // _HOUR, last_day) else None
            )
        severity: Severity = "info" if over is not None else flag.severity
        found.append(
            replace(flag, severity=severity, since=_iso(since) or flag.since, last_seen=_iso(last),
                    resolved=_iso(over))
        )  # fmt: skip
    return sorted(found, key=lambda one: _GRAVITY[one.severity])


def _iso(hour: int | None) -> str | None:
    return None if hour is None else iso(hour * _HOUR)


def _course(
    flag: Flag, hours: Sequence[Slice], last_day: int
) -> tuple[int | None, int | None, int | None]:
    """Since when, until when and from when on no more, in hours since 1970.

    `hours` are of what the flag is about, here and below.
    """
    seen, of = _evidence(flag, hours)
    if not seen:
        return None, None, None
    since, last = min(seen), max(seen)
    share = seen.total() / sum(n for hour, n in of.items() if since <= hour <= last)
    if surely_below(0, _sum(of, last + 1), share):
        return since, last + 1, last + 1
    before = {hour: n for hour, n in seen.items() if hour < last_day}
    if before:
        share = sum(before.values()) / (_sum(of, since) - _sum(of, last_day))
        if surely_below(_sum(seen, last_day), _sum(of, last_day), share / 2):
            return since, last + 1, max(before) + 1
    return since, last + 1, None


def _sum(hours: Counter[int], start: int) -> int:
    return sum(n for hour, n in hours.items() if hour >= start)


def _is_missed(flag: Flag, lately: Collection[tuple[str, str, str]]) -> bool:
    return (flag.code, flag.event_name, flag.pixel_id) not in lately


def _is_rare(flag: Flag, hours: Sequence[Slice], start: int, last_day: int) -> bool:
    """Whether it is no chance that the last day has none of what was counted before."""
    if flag.code in _SINGLE:
        return True
    if flag.code not in _COUNTED:
        return False
    of = Counter[int]()
    for one in hours:
        of[int(one.value) // _HOUR] += one.n
    all_of, of_day = _sum(of, start), _sum(of, last_day)
    return bool(all_of) and surely_below(0, of_day, min(flag.value / all_of, 1.0))


def _is_about(flag: Flag, one: Slice) -> bool:
    return flag.event_name in ("", one.event_name) and flag.pixel_id in ("", one.pixel_id)


def _evidence(flag: Flag, hours: Sequence[Slice]) -> tuple[Counter[int], Counter[int]]:
    """By hours since 1970: how many copies the cause took, and of how many."""
    seen, of = Counter[int](), Counter[int]()
    browser, server = flag.cause in CAUSES["browser"], flag.cause in CAUSES["server"]
    for one in hours if browser or server else ():
        hour = int(one.value) // _HOUR
        if browser and one.server == "delivered" and one.browser != UNPAIRED:
            of[hour] += one.n
            seen[hour] += one.n if one.browser == flag.cause else 0
        elif server and (one.browser == SENT or one.server not in ("unmapped", "unknown")):
            of[hour] += one.n
            taken = one.server != "delivered" and server_cause(one.server) == flag.cause
            seen[hour] += one.n if taken else 0
    return +seen, of
