"""Flags about the two copies of each event: coverage, ratio, what is missing, what does not fit."""

from collections.abc import Collection, Iterable, Mapping

from capi_middleware.report.causes import BROWSER_ADVICE, SERVER_ADVICE, Advice
from capi_middleware.report.flags.evidence import (
    MIN_EVENTS,
    flag,
    goal,
    percent,
    surely_above,
    surely_below,
)
from capi_middleware.report.model import EventReport, Flag

#: What visitors' tools do: no fault of the site, and the server copy covers it.
_BLOCKED = (
    "script_blocked", "script_replaced", "config_blocked", "request_blocked", "request_replaced"
)  # fmt: skip
#: From this share of blocked browser copies it is worth to know.
_BLOCKED_SHARE = 0.05


def flags_of_copies(
    event: EventReport, target: float, sides: Collection[str] = ("both",)
) -> list[Flag]:
    """The flags of one event name at one pixel.

    A share is judged as it is printed, rounded to three decimals, and only where it is no chance
    (evidence.py): two events raise nothing. An event without data gets no praise here either.
    `target` is the share of browser events that the server should cover, 0 to 1. `sides` is what
    the event's routes send: a copy that the site does not want is not missing.
    """
    no_server, no_browser = set(sides) == {"browser"}, set(sides) == {"server"}
    return [
        *(() if no_server else _coverage(event, target)),
        *(() if no_server else _ratio(event, target)),
        *(() if no_browser else _browser_missing(event, target)),
        *(() if no_server else _server_missing(event, target)),
        *_mismatch(event),
        *_without_event_id(event),
        *_repeated(event),
        *_differing(event),
    ]


def flags_of_blockers(events: Iterable[EventReport]) -> list[Flag]:
    """For each pixel whose browser copies are often blocked: what share, and that it is covered."""
    sums: dict[str, list[int]] = {}
    for event in events:
        blocked = sum(event.missing_browser.get(cause, 0) for cause in _BLOCKED)
        of_pixel = sums.setdefault(event.pixel_id, [0, 0])
        of_pixel[0] += blocked
        of_pixel[1] += event.server
    return [
        flag(
            "pixel_blocked",
            "info",
            pixel_id=pixel_id,
            value=round(blocked / server, 3),
            target=_BLOCKED_SHARE,
            explanation=f"Browsers blocked the pixel for {blocked:,} of {server:,} events that the "
            f"server delivered ({percent(blocked / server)}): ad blockers, mostly.",
            fix="Nothing to fix: the server copy covers these visitors. Without the Conversions "
            "API Meta would not know of them.",
        )
        for pixel_id, (blocked, server) in sums.items()
        if surely_above(blocked, server, _BLOCKED_SHARE)
    ]


def _biggest(causes: Mapping[str, int], advice: Mapping[str, Advice]) -> tuple[str, Advice]:
    cause, n = next(iter(causes.items()))
    return f"{cause}: {n:,} of {sum(causes.values()):,}", advice.get(cause, advice["unknown"])


def _coverage(event: EventReport, target: float) -> Iterable[Flag]:
    if event.coverage is None or event.coverage >= target:
        return
    if not surely_below(event.matched, event.browser, target):
        return
    yield flag(
        "coverage_below_target",
        "critical",
        event=event,
        value=event.coverage,
        target=target,
        explanation=f"{event.matched:,} of {event.browser:,} browser events are covered by the "
        f"server ({percent(event.coverage)}), less than the target of {goal(target)}.",
        fix=_server_fix(event),
    )


def _ratio(event: EventReport, target: float) -> Iterable[Flag]:
    if event.ratio is None or event.ratio >= target:
        return
    if not surely_below(event.server, event.browser, target):
        return
    yield flag(
        "ratio_below_target",
        "warning",
        event=event,
        value=event.ratio,
        target=target,
        explanation=f"The server delivered {event.server:,} events where the browser sent "
        f"{event.browser:,} ({percent(event.ratio)}), less than the target of {goal(target)}.",
        fix=_server_fix(event),
    )


def _browser_missing(event: EventReport, target: float) -> Iterable[Flag]:
    share = round(event.server_only / event.server, 3) if event.server else 0.0
    allowed = round(1 - target, 3)
    if share <= allowed or not surely_above(event.server_only, event.server, allowed):
        return
    most, advice = _biggest(event.missing_browser, BROWSER_ADVICE)
    yield flag(
        "browser_missing",
        advice.severity,
        event=event,
        value=share,
        target=allowed,
        explanation=f"{event.server_only:,} of {event.server:,} server events have no browser "
        f"copy ({percent(share)}); mostly because {advice.because} ({most}).",
        fix=advice.fix,
    )


def _server_missing(event: EventReport, target: float) -> Iterable[Flag]:
    missing = {cause: n for cause, n in event.missing_server.items() if cause != "pending"}
    if not missing:
        return
    n = sum(missing.values())
    share = round(n / event.browser, 3)
    allowed = round(1 - target, 3)
    most, advice = _biggest(missing, SERVER_ADVICE)
    yield flag(
        "server_missing",
        "warning" if surely_above(n, event.browser, allowed) else "info",
        event=event,
        value=share,
        target=allowed,
        explanation=f"{n:,} of {event.browser:,} browser events have no server copy "
        f"({percent(share)}); mostly because {advice.because} ({most}).",
        fix=_server_fix(event),
    )


def _server_fix(event: EventReport) -> str:
    """What brings the missing server copies, with the line to write where it is known."""
    most, advice = _biggest(event.missing_server, SERVER_ADVICE)
    if not most.startswith("unmapped") or not event.unmapped_pages:
        return advice.fix
    page = next(iter(event.unmapped_pages))
    return (
        f'Config(mirror=["{event.event_name}"]) sends them, or EventRoute("GET {page}", '
        f'"{event.event_name}") if the page itself is the event, or track("{event.event_name}")'
        " in the view that does it."
    )


def _mismatch(event: EventReport) -> Iterable[Flag]:
    """Both sides have events that meet nobody: the same ones, with two event_ids."""
    unmapped = event.missing_server.get("unmapped", 0) + event.missing_server.get("unknown", 0)
    alone = min(unmapped, event.server_only)
    if not surely_above(alone, max(event.server, event.browser), 0.5):
        return
    yield flag(
        "event_id_mismatch",
        "critical",
        event=event,
        value=alone,
        target=0,
        explanation=f"{event.server_only:,} server copies and {unmapped:,} browser copies have no "
        "twin: they look like the same events with two event_ids, and Meta counts each twice.",
        fix="Let one place make the event_id: take the page's own fbq call away (the middleware "
        "fires the event), or give it the id of the server's event: fbq('track', "
        f"'{event.event_name}', {{...}}, {{eventID: event.event_id}}), which track() returns.",
    )


def _without_event_id(event: EventReport) -> Iterable[Flag]:
    if not event.without_event_id:
        return
    enough = event.without_event_id >= MIN_EVENTS
    yield flag(
        "event_id_missing",
        "warning" if enough else "info",
        event=event,
        value=event.without_event_id,
        target=0,
        explanation=f"{event.without_event_id:,} calls of the pages' own pixel code went out "
        "without an eventID: no server copy can ever be matched with them.",
        fix=_server_fix(event)
        if event.missing_server
        else f'Config(mirror=["{event.event_name}"]) gives them an event_id and a server copy.',
    )


def _repeated(event: EventReport) -> Iterable[Flag]:
    if not event.repeated:
        return
    yield flag(
        "repeated_events",
        "warning",
        event=event,
        value=event.repeated,
        target=0,
        explanation=f"{event.repeated:,} events look like one that the same visitor caused with "
        "the same value within a minute: a page loaded again, a form sent twice.",
        fix='Give the EventRoute or track() a dedupe_key, such as "{path.order_id}": the same '
        "order is then one event, however often it is seen.",
    )


def _differing(event: EventReport) -> Iterable[Flag]:
    if not event.differing:
        return
    yield flag(
        "values_differ",
        "warning",
        event=event,
        value=event.differing,
        target=0,
        explanation=f"In {event.differing:,} of {event.matched:,} matched events the two copies "
        "have another value or currency: Meta keeps one of them, and its revenue is not yours.",
        fix="Take value and currency from one place: the order in the database, with the same "
        "rule for tax and shipping in the page's fbq call and in EventRoute or track().",
    )
