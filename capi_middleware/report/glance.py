"""The first screen: what became of each event lately, beside the time before. Pure."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

from capi_middleware.report.cards import cards_of
from capi_middleware.report.model import EventReport, Flag, Glance, Outcome, Place, ReportWindow
from capi_middleware.report.numbers import MIN_EVENTS, copies_of, overall, together, worth_of
from capi_middleware.report.window import Window, iso
from capi_middleware.store.records import Slice

_DAY = 86400
#: So many things to do next are enough.
_MOST = 3


def glance(
    events: Sequence[EventReport],
    flags: Sequence[Flag],
    window: Window,
    *,
    since: float | None = None,
    before: Glance | None = None,
) -> Glance:
    """The answer for `window`, whose `events` and `flags` these are, beside the time `before`."""
    found = [outcome(one) for one in events]
    found = [one for one in found if _all(one) or one.pending]
    if before is not None:
        found += _gone({(one.event_name, one.pixel_id) for one in found}, before, window)
    return Glance(
        window=ReportWindow(iso(window.start), iso(window.end)),
        verdict=overall(events, flags),
        outcomes=sorted(found, key=rank),
        coverage=together(events).coverage,
        since=iso(since) if since is not None else None,
        next=[one for one in cards_of(flags) if one.severity != "info"][:_MOST],
    )  # fmt: skip


def outcome(event: EventReport) -> Outcome:
    """What became of these events."""
    return Outcome(**{name: getattr(event, name) for name in Outcome.__struct_fields__})


def _all(one: Outcome) -> int:
    return one.matched + one.server_only + one.browser_only + one.lost + one.unpaired


def _gone(there: Collection[Place], before: Glance, window: Window) -> Iterator[Outcome]:
    """What came `before` and so often that none in `window` is no chance."""
    times = (window.end - window.start) / before.window.seconds
    for one in before.outcomes:
        if (one.event_name, one.pixel_id) not in there and _all(one) * times >= MIN_EVENTS:
            yield Outcome(event_name=one.event_name, pixel_id=one.pixel_id)


def rank(one: Outcome) -> tuple[bool, bool, bool, float, int, str, str]:
    """Sorts Purchase first, then what came no more, then what is worth most; page views last."""
    name, n = one.event_name, _all(one)
    worth = -worth_of(one.money)
    return name != "Purchase", name == "PageView", n > 0, worth, -n, name, one.pixel_id


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
