"""The first screen: what became of each event lately, beside the time before. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from capi_middleware.report.cards import cards_of
from capi_middleware.report.model import (
    EventReport,
    Flag,
    Glance,
    Outcome,
    ReportWindow,
)
from capi_middleware.report.numbers import MIN_EVENTS, copies_of, overall, together, worth_of
from capi_middleware.report.window import Window, iso
from capi_middleware.store.records import Slice

_DAY = 86400
#: So many things to do next are enough.
_MOST = 3


def glance(
    events: Sequence[EventReport], flags: Sequence[Flag], window: Window, *, since: float | None
) -> Glance:
    """The answer for `window`, whose `events` and `flags` these are."""
    return Glance(
        window=ReportWindow(iso(window.start), iso(window.end)),
        verdict=overall(events, flags),
        outcomes=[
            Outcome(**{name: getattr(one, name) for name in Outcome.__struct_fields__})
            for one in sorted(events, key=_place)
            if one.matched or one.server_only or one.browser_only or one.lost or one.pending
            or one.unpaired
        ],
        coverage=together(events).coverage,
        since=iso(since) if since is not None else None,
        next=[one for one in cards_of(flags) if one.severity != "info"][:_MOST],
    )  # fmt: skip


def _place(event: EventReport) -> tuple[bool, bool, float, int, str, str]:
    """Purchase first, then what is worth most, page views last."""
    name = event.event_name
    busy = event.server + event.browser
    return name != "Purchase", name == "PageView", -worth_of(event.money), -busy, *event.place


def same_since(hours: Iterable[Slice], end: float, target: float) -> float | None:
    """From when on coverage is on the same side of `target` as in the 24 hours before `end`.

    Goes back by as many hours; days with too few events to tell are passed over. None where the
    last day has too few. Unix seconds.
    """
    days: defaultdict[int, list[Slice]] = defaultdict(list)
    for one in hours:
        days[int((end - 1 - int(one.value)) // _DAY)].append(one)
    side, since = None, None
    for day in range(max(days, default=-1) + 1):
        copies = copies_of(days.get(day, ()))
        if copies.coverage is None or copies.browser < MIN_EVENTS:
            if side is None:
                return None
            continue
        if side is None:
            side = copies.coverage >= target
        if side != (copies.coverage >= target):
            break
        since = end - (day + 1) * _DAY
    return since
