"""Verdict: the whole report in one line."""

from collections.abc import Sequence

from capi_middleware.report.flags.evidence import MIN_EVENTS, percent
from capi_middleware.report.model import EventReport, Flag, Verdict


def overall(events: Sequence[EventReport], flags: Sequence[Flag]) -> Verdict:
    """What to think of `events`; the gravest of `flags` comes first. No data is never good."""
    critical = sum(one.severity == "critical" for one in flags)
    warnings = sum(one.severity == "warning" for one in flags)
    told = [one for one in events if one.browser >= MIN_EVENTS]
    matched, browser = sum(one.matched for one in told), sum(one.browser for one in told)
    covered = (
        f"{matched:,} of {browser:,} browser events are covered by the server "
        f"({percent(matched / browser)})."
        if browser
        else ""
    )
    if critical:
        return Verdict("act", f"{_many(critical, 'thing')} to act on now. {covered}".strip())
    if warnings:
        return Verdict("look", f"{_many(warnings, 'thing')} to look at. {covered}".strip())
    if not told:
        return Verdict("no data", "Too few events in this window to say anything about coverage.")
    return Verdict("healthy", f"Nothing to do. {covered}")


def _many(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
