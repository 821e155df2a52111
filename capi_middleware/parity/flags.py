"""From numbers to flags: what to look at, in plain sentences, and what to do about it."""

from collections.abc import Iterable, Mapping
from math import sqrt

from capi_middleware.parity.causes import BROWSER_ADVICE, SERVER_ADVICE, Advice
from capi_middleware.parity.model import EventReport, Flag, Severity

_SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")
_Z = 1.96  # both sides of a 95 % interval

#: Server copies that are lost unless somebody acts, and the flag of each.
_LOSSES = {
    "rejected": "delivery_rejected",
    "expired": "delivery_expired",
    "dropped": "delivery_dropped",
}


def flags_of(event: EventReport, undelivered: Mapping[str, int], target: float) -> list[Flag]:
    """The flags of one event name at one pixel.

    A share is judged as it is printed, rounded to three decimals. An event without data gets no
    praise here: it gets no flag, and its coverage is None.

    Args:
        event: its numbers.
        undelivered: all server copies that the Graph API has not accepted, by cause, also those
            without a browser copy and those that left no row.
        target: the share of browser events that the server should cover, 0 to 1.
    """
    return [
        *_coverage(event, target),
        *_ratio(event, target),
        *_browser_missing(event, target),
        *_server_missing(event, target),
        *_repeated(event),
        *_losses(event, undelivered),
        *_stalled(event),
    ]


def gravest_first(flags: Iterable[Flag]) -> list[Flag]:
    """`flags` by severity; the order within one severity stays."""
    return sorted(flags, key=lambda flag: _SEVERITIES.index(flag.severity))


def wilson_upper(part: int, whole: int) -> float:
    """The upper end of the 95 % interval of the share `part` ÷ `whole`, for a share below 1.

    Wilson's score interval with continuity correction (Newcombe 1998, method 4). Without the
    correction two events of which none is covered would pass for proof of a share under 0.66.
    """
    p = part / whole
    root = sqrt(_Z**2 + 2 - 1 / whole + 4 * p * (whole * (1 - p) - 1))
    return (2 * part + _Z**2 + 1 + _Z * root) / (2 * (whole + _Z**2))


def percent(share: float) -> str:
    """`share` (0 to 1, or a ratio) in percent with one decimal."""
    return f"{share * 100:.1f} %"


def goal(target: float) -> str:
    """`target` (0 to 1) in percent, with the decimals it was set with."""
    return f"{target * 100:g} %"


def _biggest(causes: Mapping[str, int], advice: Mapping[str, Advice]) -> tuple[str, Advice]:
    cause, n = next(iter(causes.items()))
    return f"{cause}: {n:,} of {sum(causes.values()):,}", advice.get(cause, advice["unknown"])


def _flag(
    event: EventReport,
    code: str,
    severity: Severity,
    value: float,
    target: float,
    explanation: str,
    fix: str,
) -> Flag:
    return Flag(
        code=code,
        severity=severity,
        event_name=event.event_name,
        pixel_id=event.pixel_id,
        value=value,
        target=target,
        explanation=explanation,
        fix=fix,
    )


def _coverage(event: EventReport, target: float) -> Iterable[Flag]:
    if event.coverage is None or event.coverage >= target:
        return
    sure = wilson_upper(event.matched, event.browser) < target
    doubt = "" if sure else " These are too few events to be sure."
    yield _flag(
        event,
        "coverage_below_target",
        "critical" if sure else "warning",
        event.coverage,
        target,
        f"{event.matched:,} of {event.browser:,} browser events are covered by the server "
        f"({percent(event.coverage)}), less than the target of {goal(target)}.{doubt}",
        _biggest(event.missing_server, SERVER_ADVICE)[1].fix,
    )


def _ratio(event: EventReport, target: float) -> Iterable[Flag]:
    if event.ratio is None or event.ratio >= target:
        return
    yield _flag(
        event,
        "ratio_below_target",
        "warning",
        event.ratio,
        target,
        f"The server delivered {event.server:,} events where the browser sent {event.browser:,} "
        f"({percent(event.ratio)}), less than the target of {goal(target)}.",
        _biggest(event.missing_server, SERVER_ADVICE)[1].fix,
    )


def _browser_missing(event: EventReport, target: float) -> Iterable[Flag]:
    share = round(event.server_only / event.server, 3) if event.server else 0.0
    allowed = round(1 - target, 3)
    if share <= allowed:
        return
    most, advice = _biggest(event.missing_browser, BROWSER_ADVICE)
    yield _flag(
        event,
        "browser_missing",
        advice.severity,
        share,
        allowed,
        f"{event.server_only:,} of {event.server:,} server events have no browser copy "
        f"({percent(share)}); mostly because {advice.because} ({most}).",
        advice.fix,
    )


def _server_missing(event: EventReport, target: float) -> Iterable[Flag]:
    if not event.browser_only:
        return
    share = round(event.browser_only / event.browser, 3)
    allowed = round(1 - target, 3)
    most, advice = _biggest(event.missing_server, SERVER_ADVICE)
    line = ""
    if most.startswith("unmapped") and event.unmapped_pages:
        page = next(iter(event.unmapped_pages))
        line = (
            f'Config(mirror=["{event.event_name}"]) sends them, or EventRoute("GET {page}", '
            f'"{event.event_name}") if the page itself is the event, or track("{event.event_name}")'
            " in the view that does it. "
        )
    yield _flag(
        event,
        "server_missing",
        "warning" if share > allowed else "info",
        share,
        allowed,
        f"{event.browser_only:,} of {event.browser:,} browser events have no server copy "
        f"({percent(share)}); mostly because {advice.because} ({most}).",
        line or advice.fix,
    )


def _repeated(event: EventReport) -> Iterable[Flag]:
    if not event.repeated:
        return
    yield _flag(
        event,
        "repeated_events",
        "warning",
        event.repeated,
        0,
        f"{event.repeated:,} events look like one that the same visitor caused with the same value "
        "within a minute: a page loaded again, a form sent twice.",
        'Give the EventRoute or track() a dedupe_key, such as "{path.order_id}": the same order is '
        "then one event, however often it is seen.",
    )


def _losses(event: EventReport, undelivered: Mapping[str, int]) -> Iterable[Flag]:
    for cause, code in _LOSSES.items():
        lost = undelivered.get(cause, 0)
        if not lost:
            continue
        advice = SERVER_ADVICE[cause]
        yield _flag(
            event,
            code,
            "warning" if event.server else "critical",
            lost,
            0,
            f"{lost:,} of {lost + event.server:,} server copies did not get through, because "
            f"{advice.because}.",
            advice.fix,
        )


def _stalled(event: EventReport) -> Iterable[Flag]:
    if event.server or not event.pending:
        return
    yield _flag(
        event,
        "delivery_stalled",
        "warning",
        event.pending,
        0,
        f"{event.pending:,} server copies wait for delivery, and 0 were delivered.",
        SERVER_ADVICE["pending"].fix,
    )
