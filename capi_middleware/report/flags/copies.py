"""Flags about the two copies of each event: what is missing, does not fit, or suddenly falls.

A share is judged as it is printed, rounded to three decimals, and only where it is no chance:
two events raise nothing.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import sqrt

from capi_middleware.report.causes import Cause, cause_of
from capi_middleware.report.flags.registry import TEXTS, Facts, Flags, check, flag
from capi_middleware.report.model import EventReport, Place, Severity, Side
from capi_middleware.report.numbers import (
    MIN_EVENTS,
    Copies,
    copies_of,
    goal,
    misses,
    percent,
    share,
    surely_above,
)
from capi_middleware.store.records import Slice

#: A drop shows in so many hours together, beside the same hours of so many days before.
_HOURS, _DAYS = 3, 7
#: How far the hours of a report reach back for it, in seconds.
LOOKS_BACK = (_DAYS * 24 + _HOURS + 1) * 3600
#: Fewer events than these on an average day are too few to miss any.
_USUAL = 20.0
#: A drop is less than half of the usual, and by more than chance (standard deviations of Poisson).
_HALF, _DEVIATIONS = 0.5, 4.0
#: With fewer days of data nobody knows what is usual.
_LEAST_DAYS = 3


@check
def coverage_below_target(facts: Facts) -> Flags:
    """The server covers too few of the browser's events."""
    for event in facts.wanting("server"):
        yield from _below(facts, event, event.matched, "critical")


@check
def ratio_below_target(facts: Facts) -> Flags:
    """The server delivers fewer events than the browser sends."""
    for event in facts.wanting("server"):
        yield from _below(facts, event, event.server, "warning")


def _below(facts: Facts, event: EventReport, n: int, severity: Severity) -> Flags:
    """The flag where `n` misses the target among the browser's events."""
    part, target = share(n, event.browser), facts.target
    if part is not None and misses(n, event.browser, target):
        yield flag(
            severity, event.place, value=part, target=target,
            event=event, share=percent(part), goal=goal(target), fix=_server_fix(event),
        )  # fmt: skip


@check
def browser_missing(facts: Facts) -> Flags:
    """Too many server events have no browser copy."""
    allowed = round(1 - facts.target, 3)
    for event in facts.wanting("browser"):
        missing = share(event.server_only, event.server) or 0.0
        if missing > allowed and surely_above(event.server_only, event.server, allowed):
            most, cause = _biggest("browser", event.missing_browser)
            yield flag(
                cause.severity, event.place, value=missing, target=allowed,
                event=event, share=percent(missing), most=most, cause=cause,
            )  # fmt: skip


@check
def server_missing(facts: Facts) -> Flags:
    """Browser events have no server copy; one that is on its way is not missing."""
    allowed = round(1 - facts.target, 3)
    for event in facts.wanting("server"):
        causes = {cause: n for cause, n in event.missing_server.items() if cause != "pending"}
        n = sum(causes.values())
        missing = share(n, event.browser)
        if n and missing is not None:
            most, cause = _biggest("server", causes)
            severity: Severity = "warning" if surely_above(n, event.browser, allowed) else "info"
            yield flag(
                severity, event.place, value=missing, target=allowed, n=n,
                event=event, share=percent(missing), most=most, cause=cause, fix=_server_fix(event),
            )  # fmt: skip


def _biggest(side: Side, causes: Mapping[str, int]) -> tuple[str, Cause]:
    word, n = next(iter(causes.items()))
    return f"{word}: {n:,} of {sum(causes.values()):,}", cause_of(side, word)


def _server_fix(event: EventReport) -> str:
    """What brings the missing server copies, with the line to write where it is known."""
    word = next(iter(event.missing_server))
    if word != "unmapped" or not event.unmapped_pages:
        return cause_of("server", word).fix
    page = next(iter(event.unmapped_pages))
    return (
        f'Config(mirror=["{event.event_name}"]) sends them, or EventRoute("GET {page}", '
        f'"{event.event_name}") if the page itself is the event, or track("{event.event_name}")'
        " in the view that does it."
    )


@check
def event_id_mismatch(facts: Facts) -> Flags:
    """Both sides have events that meet nobody: the same ones, with two event_ids."""
    for event in facts.events:
        unmapped = event.missing_server.get("unmapped", 0) + event.missing_server.get("unknown", 0)
        alone = min(unmapped, event.server_only)
        if surely_above(alone, max(event.server, event.browser), 0.5):
            yield flag("critical", event.place, value=alone, event=event, unmapped=unmapped)


@check
def event_id_missing(facts: Facts) -> Flags:
    """Calls of the pages' own pixel code went out bare."""
    for event in facts.events:
        if n := event.without_event_id:
            mirror = f'Config(mirror=["{event.event_name}"])'
            fix = f"{mirror} gives them an event_id and a server copy."
            fix = _server_fix(event) if event.missing_server else fix
            yield flag("warning" if n >= MIN_EVENTS else "info", event.place, value=n, fix=fix)


@check
def repeated_events(facts: Facts) -> Flags:
    """Events look like one that the same visitor caused just before."""
    for event in facts.events:
        if event.repeated:
            yield flag("warning", event.place, value=event.repeated)


@check
def values_differ(facts: Facts) -> Flags:
    """The two copies of an event carry another value or currency."""
    for event in facts.events:
        if event.differing:
            yield flag("warning", event.place, value=event.differing, event=event)


@check
def sudden_drop(facts: Facts) -> Flags:
    """Copies became fewer in the last hours than in the same hours of the days before.

    So nights and mornings are not compared.
    """
    end = int(facts.upto) // 3600
    places: defaultdict[Place, defaultdict[int, list[Slice]]]
    places = defaultdict(lambda: defaultdict(list))
    for one in facts.hours:
        ago = end - 1 - int(one.value) // 3600
        day, hour = divmod(ago, 24)
        if ago >= 0 and hour < _HOURS and day <= _DAYS:
            places[one.event_name, one.pixel_id][day].append(one)
    for place, hours in places.items():
        now = copies_of(hours.pop(0, []))
        fallen = _fallen(now, [copies_of(one) for one in hours.values()])
        if fallen:
            left, usual, side = min(fallen, key=lambda one: one[0] / one[1])
            yield flag(
                "critical" if left == 0 else "warning", place, value=left, target=round(usual, 1),
                side=side, hours=_HOURS, usual=usual,
                words=TEXTS["sudden_drop"].words["both" if len(fallen) == 2 else side],
            )  # fmt: skip


def _fallen(now: Copies, before: Sequence[Copies]) -> list[tuple[int, float, Side]]:
    """(now, usual, side) of each copy that fell."""
    if len(before) < _LEAST_DAYS:
        return []
    averages = [sum(counts) / len(before) for counts in zip(*before, strict=True)]
    sides: list[tuple[int, float, Side]] = [
        (now.server, averages[0], "server"),
        (now.browser, averages[1], "browser"),
    ]
    return [
        (left, usual, side)
        for left, usual, side in sides
        if usual >= _USUAL and left < min(usual * _HALF, usual - _DEVIATIONS * sqrt(usual))
    ]
