"""Flags about delivery: what waits, what Meta refused, what was late, what was interrupted."""

from collections import Counter, defaultdict

from capi_middleware.meta.codes import kind_of, meaning_of
from capi_middleware.report.causes import cause_of
from capi_middleware.report.flags.registry import Facts, Flags, check, flag
from capi_middleware.report.model import Severity
from capi_middleware.report.numbers import MIN_EVENTS, ROWLESS, WITH_ROW

#: Half of the events later than this is not the "real time" that Meta asks for, in seconds.
_REAL_TIME = 60.0
#: Meta wants every event within an hour ("Using the API"), in seconds.
_LATE = 3600.0


@check
def delivery_not_running(facts: Facts) -> Flags:
    """A thread that should deliver has ended."""
    if facts.health is not None and not facts.health.delivering:
        yield flag("critical", value=0, target=1)


@check
def pixel_paused(facts: Facts) -> Flags:
    """A pixel rests: Meta refused its token, throttles, or is not reached."""
    for one in facts.pixels:
        if one.paused_because is not None:
            meaning, fix = meaning_of(one.paused_because)
            passes = kind_of(one.paused_because) in ("throttled", "passing", "event")
            yield flag(
                "warning" if passes else "critical", ("", one.pixel_id),
                value=one.waiting, pixel=one, meaning=meaning, fix=fix,
            )  # fmt: skip


@check
def delivery_stale(facts: Facts) -> Flags:
    """Events wait for longer than Meta wants, at a pixel that does not rest."""
    for one in facts.pixels:
        if one.paused_because is None and one.oldest_seconds > _LATE:
            yield flag(
                "critical", ("", one.pixel_id), value=one.oldest_seconds, target=_LATE,
                pixel=one, hours=one.oldest_seconds / 3600,
            )  # fmt: skip


@check
def delivery_rejected(facts: Facts) -> Flags:
    """Meta refused server copies."""
    return _lost(facts, "rejected")


@check
def delivery_expired(facts: Facts) -> Flags:
    """Server copies waited until Meta does not take them any more."""
    return _lost(facts, "expired")


@check
def delivery_dropped(facts: Facts) -> Flags:
    """Server copies were given up, or lack what Meta refuses them without.

    Those of a damaged file are told by store_damaged.
    """
    return _lost(facts, "dropped", "invalid", *{*ROWLESS, *WITH_ROW} - {"damaged"})


@check
def store_damaged(facts: Facts) -> Flags:
    """The database file was damaged."""
    found = Counter[str]()
    for count in facts.counts:
        if count.kind == "damaged":
            found[count.reason] += count.n
        elif (count.kind, count.reason) == ("dropped", "damaged"):
            found["waiting"] += count.n
    if found:
        lost = found["waiting"] + found["settled"]
        yield flag(
            "critical" if lost or found["unknown"] else "warning", value=lost,
            saved=found["saved"], waiting=found["waiting"], settled=found["settled"],
            sums=found["sums"],
            unknown=" How many more there were is not known." if found["unknown"] else "",
        )  # fmt: skip


def _lost(facts: Facts, *words: str) -> Flags:
    for event in facts.events:
        causes = {word: facts.undelivered.get(event.place, {}).get(word, 0) for word in words}
        lost, word = sum(causes.values()), max(causes, key=lambda one: (causes[one], one))
        if not lost:
            continue
        cause = cause_of("server", word)
        accepted = event.server + event.unpaired
        because, fix, refusals = cause.because, cause.fix, facts.refusals.get(event.place)
        if word == "rejected" and refusals:
            reason, n = max(refusals.items(), key=lambda item: item[1])
            meaning, fix = meaning_of(reason)
            of = sum(refusals.values())
            because = f"Meta refused them: {meaning} ({reason}, {n:,} of {of:,})"
        severity: Severity = "warning" if accepted else "critical"
        yield flag(
            "info" if word == "dead_letter" else severity, event.place, value=lost, fix=fix,
            by=cause,
            explanation=f"{lost:,} of {lost + accepted:,} server copies did not get through, "
            f"because {because}.",
        )  # fmt: skip


@check
def delivery_stalled(facts: Facts) -> Flags:
    """Server copies of an event wait, and none was delivered."""
    fix = cause_of("server", "pending").fix
    for event in facts.events:
        if event.pending >= MIN_EVENTS and not (event.server or event.unpaired):
            yield flag("warning", event.place, value=event.pending, fix=fix)


@check
def not_real_time(facts: Facts) -> Flags:
    """Events reach Meta later than it asks for."""
    for event in facts.events:
        seconds = event.freshness_seconds
        if seconds.p50 is None or seconds.p95 is None or event.server < MIN_EVENTS:
            continue
        late = seconds.p50 > _REAL_TIME
        value, target = (seconds.p50, _REAL_TIME) if late else (seconds.p95, _LATE)
        if value > target:
            yield flag("warning", event.place, value=value, target=target, seconds=seconds)


@check
def delivery_interrupted(facts: Facts) -> Flags:
    """A pixel had to rest in the window."""
    rested: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for count in facts.counts:
        if count.kind == "rested":
            rested[count.pixel_id][count.reason] += count.n
    for pixel_id, reasons in rested.items():
        [(reason, _)], times = reasons.most_common(1), reasons.total()
        meaning, fix = meaning_of(reason)
        often = "once" if times == 1 else f"{times:,} times"
        yield flag(
            "warning", ("", pixel_id), value=times,
            often=often, meaning=meaning, reason=reason, fix=fix,
        )  # fmt: skip


@check
def clock_skew(facts: Facts) -> Flags:
    """Our clock disagrees with Meta's."""
    skewed = Counter[str]()
    for count in facts.counts:
        if count.kind == "skewed":
            skewed[count.reason] += count.n
    for way, times in skewed.items():
        yield flag("warning", value=times, way=way)
