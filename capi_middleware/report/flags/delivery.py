"""Flags about delivery: what Meta refused, what was late, what was interrupted."""

from collections.abc import Iterable, Mapping

from capi_middleware.events import Count
from capi_middleware.meta.codes import meaning_of
from capi_middleware.report.causes import SERVER_ADVICE
from capi_middleware.report.flags.evidence import MIN_EVENTS, flag
from capi_middleware.report.model import EventReport, Flag

#: Server copies that are lost unless somebody acts, and the flag of each.
_LOSSES = {
    "rejected": "delivery_rejected",
    "expired": "delivery_expired",
    "dropped": "delivery_dropped",
}
#: Half of the events later than this is not the "real time" that Meta asks for, in seconds.
REAL_TIME = 60.0
#: Meta wants every event within an hour ("Using the API"), in seconds.
LATE = 3600.0

#: How often Meta refused with a reason, by (event_name, pixel_id).
Refusals = Mapping[tuple[str, str], Mapping[str, int]]


def flags_of_delivery(
    event: EventReport, undelivered: Mapping[str, int], refusals: Mapping[str, int]
) -> list[Flag]:
    """The flags of one event name at one pixel.

    Args:
        event: its numbers.
        undelivered: all server copies that the Graph API has not accepted, by cause, also those
            without a browser copy and those that left no row.
        refusals: the reasons of those that are dead letters now, see store.DeadLetter.
    """
    return [
        *_losses(event, undelivered, refusals),
        *_stalled(event),
        *_late(event),
    ]


def _losses(
    event: EventReport, undelivered: Mapping[str, int], refusals: Mapping[str, int]
) -> Iterable[Flag]:
    for cause, code in _LOSSES.items():
        lost = undelivered.get(cause, 0)
        if not lost:
            continue
        because, fix = SERVER_ADVICE[cause].because, SERVER_ADVICE[cause].fix
        if cause == "rejected" and refusals:
            reason, n = max(refusals.items(), key=lambda item: item[1])
            meaning, fix = meaning_of(reason)
            because = (
                f"Meta refused them: {meaning} ({reason}, {n:,} of {sum(refusals.values()):,})"
            )
        yield flag(
            code,
            "warning" if event.server else "critical",
            event=event,
            value=lost,
            target=0,
            explanation=f"{lost:,} of {lost + event.server:,} server copies did not get through, "
            f"because {because}.",
            fix=fix,
        )


def _stalled(event: EventReport) -> Iterable[Flag]:
    if event.server or event.pending < MIN_EVENTS:
        return
    yield flag(
        "delivery_stalled",
        "warning",
        event=event,
        value=event.pending,
        target=0,
        explanation=f"{event.pending:,} server copies wait for delivery, and 0 were delivered.",
        fix=SERVER_ADVICE["pending"].fix,
    )


def _late(event: EventReport) -> Iterable[Flag]:
    p50, p95 = event.freshness_seconds.p50, event.freshness_seconds.p95
    if p50 is None or p95 is None or event.server < MIN_EVENTS:
        return
    if p50 <= REAL_TIME and p95 <= LATE:
        return
    yield flag(
        "not_real_time",
        "warning",
        event=event,
        value=p50 if p50 > REAL_TIME else p95,
        target=REAL_TIME if p50 > REAL_TIME else LATE,
        explanation=f"Half of the events reached Meta within {p50:,.0f} s and 95 % within "
        f"{p95:,.0f} s of happening; Meta asks for real time, within an hour at the latest.",
        fix="Run couriers all the time: Config(delivery=True) in the web processes, or "
        "`capi-middleware deliver` beside them (not from cron), as many as the events need.",
    )


def flags_of_interruptions(counts: Iterable[Count]) -> list[Flag]:
    """Pixels that had to rest in the window, and clocks that disagree with Meta's."""
    rested: dict[str, dict[str, int]] = {}
    skewed: dict[str, int] = {}
    for count in counts:
        if count.kind == "rested":
            reasons = rested.setdefault(count.pixel_id, {})
            reasons[count.reason] = reasons.get(count.reason, 0) + count.n
        elif count.kind == "skewed":
            skewed[count.reason] = skewed.get(count.reason, 0) + count.n
    flags = []
    for pixel_id, reasons in rested.items():
        reason, _ = max(reasons.items(), key=lambda item: item[1])
        times = sum(reasons.values())
        meaning, fix = meaning_of(reason)
        flags.append(
            flag(
                "delivery_interrupted",
                "warning",
                pixel_id=pixel_id,
                value=times,
                target=0,
                explanation=f"Delivery to this pixel stopped {_times(times)} in this window, "
                f"because {meaning} ({reason}). Nothing was lost: the events waited.",
                fix=fix,
            )
        )
    for way, times in skewed.items():
        flags.append(
            flag(
                "clock_skew",
                "warning",
                value=times,
                target=0,
                explanation=f"The clock of this server was more than a minute {way} of Meta's in "
                f"{times:,} checks: Meta refuses events from the future and after 7 days.",
                fix="Let the machine take its time from the network: chronyd, systemd-timesyncd "
                "or the time service of the cloud.",
            )
        )
    return flags


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n:,} times"
