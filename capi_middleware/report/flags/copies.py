"""Flags about the two copies of each event: what is missing, does not fit, or suddenly falls.

A share is judged as it is printed, rounded to three decimals, and only where it is no chance:
two events raise nothing.
"""

from collections import defaultdict
from collections.abc import Mapping
from math import sqrt

from capi_middleware.report.causes import Cause, cause_of
from capi_middleware.report.flags.registry import Facts, Flags, check, flag
from capi_middleware.report.model import EventReport, Place, Severity, Side
from capi_middleware.report.numbers import (
    MIN_EVENTS,
    copies_of,
    covered,
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
        yield from _below(facts, event, event.matched, "critical", covered(event))


@check
def ratio_below_target(facts: Facts) -> Flags:
    """The server delivers fewer events than the browser sends."""
    for event in facts.wanting("server"):
        told = f"The server delivered {event.server:,} events where the browser sent "
        yield from _below(facts, event, event.server, "warning", f"{told}{event.browser:,}")


def _below(facts: Facts, event: EventReport, n: int, severity: Severity, told: str) -> Flags:
    """The flag where `n` misses the target among the browser's events."""
    part, target = share(n, event.browser), facts.target
    if part is not None and misses(n, event.browser, target):
        yield flag(
            severity, event.place, value=part, target=target,
            explanation=f"{told} ({percent(part)}), less than the target of {goal(target)}.",
            fix=_server_fix(event),
        )  # fmt: skip


@check
def browser_missing(facts: Facts) -> Flags:
    """Too many server events have no browser copy."""
    allowed = round(1 - facts.target, 3)
    for event in facts.wanting("browser"):
        missing = share(event.server_only, event.server) or 0.0
        if missing <= allowed or not surely_above(event.server_only, event.server, allowed):
            continue
        most, cause = _biggest("browser", event.missing_browser)
        yield flag(
            cause.severity, event.place, value=missing, target=allowed,
            explanation=f"{event.server_only:,} of {event.server:,} server events have no browser "
            f"copy ({percent(missing)}); mostly because {cause.because} ({most}).",
            fix=cause.fix,
        )  # fmt: skip


@check
def server_missing(facts: Facts) -> Flags:
    """Browser events have no server copy; one that is on its way is not missing."""
    allowed = round(1 - facts.target, 3)
    for event in facts.wanting("server"):
        causes = {cause: n for cause, n in event.missing_server.items() if cause != "pending"}
        n = sum(causes.values())
        missing = share(n, event.browser)
        if not n or missing is None:
            continue
        most, cause = _biggest("server", causes)
        yield flag(
            "warning" if surely_above(n, event.browser, allowed) else "info", event.place,
            value=missing, target=allowed,
            explanation=f"{n:,} of {event.browser:,} browser events have no server copy "
            f"({percent(missing)}); mostly because {cause.because} ({most}).",
            fix=_server_fix(event),
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
        if not surely_above(alone, max(event.server, event.browser), 0.5):
            continue
        yield flag(
            "critical", event.place, value=alone,
            explanation=f"{event.server_only:,} server copies and {unmapped:,} browser copies have "
            "no twin: they look like the same events with two event_ids, and Meta counts each "
            "twice.",
            fix="Let one place make the event_id: take the page's own fbq call away (the "
            "middleware fires the event), or give it the id of the server's event: fbq('track', "
            f"'{event.event_name}', {{...}}, {{eventID: event.event_id}}), which track() returns.",
        )  # fmt: skip


@check
def event_id_missing(facts: Facts) -> Flags:
    """Calls of the pages' own pixel code went out bare."""
    for event in facts.events:
        if not event.without_event_id:
            continue
        yield flag(
            "warning" if event.without_event_id >= MIN_EVENTS else "info", event.place,
            value=event.without_event_id,
            explanation=f"{event.without_event_id:,} calls of the pages' own pixel code went out "
            "without an eventID: no server copy can ever be matched with them.",
            fix=_server_fix(event)
            if event.missing_server
            else f'Config(mirror=["{event.event_name}"]) gives them an event_id and a server copy.',
        )  # fmt: skip


@check
def repeated_events(facts: Facts) -> Flags:
    """Events look like one that the same visitor caused just before."""
    for event in facts.events:
        if event.repeated:
            yield flag(
                "warning", event.place, value=event.repeated,
                explanation=f"{event.repeated:,} events look like one that the same visitor caused "
                "with the same value within a minute: a page loaded again, a form sent twice.",
                fix='Give the EventRoute or track() a dedupe_key, such as "{path.order_id}": the '
                "same order is then one event, however often it is seen.",
            )  # fmt: skip


@check
def values_differ(facts: Facts) -> Flags:
    """The two copies of an event carry another value or currency."""
    for event in facts.events:
        if event.differing:
            yield flag(
                "warning", event.place, value=event.differing,
                explanation=f"In {event.differing:,} of {event.matched:,} matched events the two "
                "copies have another value or currency: Meta keeps one of them, and its revenue is "
                "not yours.",
                fix="Take value and currency from one place: the order in the database, with the "
                "same rule for tax and shipping in the page's fbq call and in EventRoute or "
                "track().",
            )  # fmt: skip


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
        before = [copies_of(one) for one in hours.values()]
        falls = [
            _fall("server", now.server, [one.server for one in before]),
            _fall("browser", now.browser, [one.browser for one in before]),
        ]
        fallen = [one for one in falls if one is not None]
        if not fallen:
            continue
        left, usual, word = min(fallen, key=lambda one: one[0] / one[1])
        both = len(fallen) == 2
        yield flag(
            "critical" if left == 0 else "warning", place, value=left, target=round(usual, 1),
            explanation=f"{left:,} {word} copies in the last {_HOURS} hours, where the same hours "
            f"of the days before had {usual:,.0f} on average; the other copy "
            f"{'fell as well' if both else 'did not fall'}.",
            fix=f"Look at what changed since then: {_DROP_CAUSES['both' if both else word]}",
        )  # fmt: skip


_DROP_CAUSES = {
    "both": "a release, a route, a template, or simply fewer visitors.",
    "server": "EventRoute and track() lines, the store, the access token.",
    "browser": "the template with the <head>, a consent banner, a Content-Security-Policy; open "
    "such a page and look for requests to facebook.com/tr.",
}


def _fall(side: Side, now: int, before: list[int]) -> tuple[int, float, Side] | None:
    """(now, usual, side) when this copy fell, else None."""
    if len(before) < _LEAST_DAYS:
        return None
    usual = sum(before) / len(before)
    if usual < _USUAL or now >= usual * _HALF or now >= usual - _DEVIATIONS * sqrt(usual):
        return None
    return now, usual, side
