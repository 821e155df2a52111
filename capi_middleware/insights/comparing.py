"""Comparing: our numbers beside Meta's, and each difference in a plain sentence. Pure."""

from collections.abc import Iterator
from datetime import datetime
from math import sqrt

from capi_middleware.insights.comparing_quality import compare_quality
from capi_middleware.insights.model import (
    ENOUGH,
    Comparison,
    HourCount,
    Insights,
    Measure,
    Verdict,
)
from capi_middleware.report.model import Report

#: Counts differ when they are further apart than this share, and than chance explains.
TOLERANCE = 0.05
_HOUR = 3600


def beside(
    report: Report, insights: Insights, *, event: str | None = None, pixel: str | None = None
) -> list[Comparison]:
    """Each event of `report`, and each that Meta alone knows, beside Meta's view.

    Counts are of the whole hours that both the report's window and Meta's counts hold, ours as
    they were when Meta was asked. Pixels of which Meta told nothing are left out: their Problem
    says why.

    Args:
        report: our numbers.
        insights: Meta's.
        event: only this event name; None for all.
        pixel: only this pixel; None for all.
    """
    start = datetime.fromisoformat(report.window.start).timestamp()
    end = datetime.fromisoformat(report.window.end).timestamp()
    reports = {(one.event_name, one.pixel_id): one for one in report.events}
    found: list[Comparison] = []
    for seen in insights.pixels:
        if pixel not in (None, seen.pixel_id):
            continue
        hours: dict[str, list[HourCount]] = {}
        for one in seen.hours:
            if start <= datetime.fromisoformat(one.hour).timestamp() <= end - _HOUR:
                hours.setdefault(one.event_name, []).append(one)
        qualities = {one.event_name: one for one in seen.quality}
        ours = [name for name, pixel_id in reports if pixel_id == seen.pixel_id]
        for name in dict.fromkeys([*ours, *qualities, *hours]):
            if event not in (None, name):
                continue
            found += _counts(name, seen.pixel_id, hours.get(name, []))
            quality, reported = qualities.get(name), reports.get((name, seen.pixel_id))
            if quality is not None and reported is not None:
                found += compare_quality(reported, quality)
    return found


def _counts(name: str, pixel_id: str, hours: list[HourCount]) -> Iterator[Comparison]:
    if not hours:
        return
    n_hours = len({one.hour for one in hours})
    channels: tuple[tuple[Measure, str, int, int], ...] = (
        ("browser events", "saw sent",
         sum(one.our_browser for one in hours), sum(one.meta_browser for one in hours)),
        ("server events", "got accepted",
         sum(one.our_server for one in hours), sum(one.meta_server for one in hours)),
    )  # fmt: skip
    for measure, verb, ours, metas in channels:
        if ours or metas:
            yield _count(name, pixel_id, measure, verb, ours, metas, n_hours)


def _count(
    name: str, pixel_id: str, measure: Measure, verb: str, ours: int, metas: int, hours: int
) -> Comparison:
    most, gap = max(ours, metas), abs(ours - metas)
    within = f"in the same {hours:,} {'hour' if hours == 1 else 'hours'}"
    fix = ""
    if most < ENOUGH:
        verdict: Verdict = "unknown"
        text = (
            f"Meta counts {metas:,} {measure}, we {verb} {ours:,} {within}: too few to tell more."
        )
    elif gap <= max(TOLERANCE * most, 3 * sqrt(most)):
        verdict = "agrees"
        text = f"Meta counts {metas:,} {measure}, we {verb} {ours:,} {within}: they agree."
    else:
        verdict = "differs"
        share = f"{100 * gap / ours:.0f} %" if ours else f"{gap:,}"
        word = "fewer" if metas < ours else "more"
        because, fix = _COUNT_CAUSES[measure, word]
        text = (
            f"Meta counts {share} {word} {measure} than we {verb} {within} ({metas:,} to "
            f"{ours:,}): {because}."
        )
    return Comparison(
        event_name=name, pixel_id=pixel_id, measure=measure, ours=ours, metas=metas,
        verdict=verdict, explanation=text, fix=fix,
    )  # fmt: skip


_COUNT_CAUSES: dict[tuple[str, str], tuple[str, str]] = {
    ("browser events", "fewer"): (
        "they left the browser and Meta does not count them: a traffic permission of the dataset "
        "does not list this domain, a blocker on the network answers in Meta's place, or Meta "
        "filters them as automated",
        "In Events Manager open Settings → Traffic permissions and allow this domain; then open a "
        "page with Test Events and see which browser event does not show up.",
    ),
    ("browser events", "more"): (
        "another installation fires the pixel too (a tag manager, a theme, another site or app "
        "with this id), or our beacons are stopped",
        "Look for the pixel's id in your tag manager and theme and remove the second one, or set "
        "mirror so that its events get an event_id; check that a CDN or firewall lets the "
        "beacons (b under the prefix setting) through.",
    ),
    ("server events", "fewer"): (
        "Meta accepted them and counts them not: it removed duplicates, or filtered events of "
        "domains that the dataset's traffic permissions do not list",
        "In Events Manager open Settings → Traffic permissions and allow this domain; then look at "
        "Diagnostics for this event. Give each conversion its own dedupe_key, or none.",
    ),
    ("server events", "more"): (
        "another sender posts to this dataset too: a gateway, a partner integration, a plugin, or "
        "another machine with its own store",
        "In Events Manager → Settings → Conversions API see which integrations send, and stop "
        "all but one: two senders without shared event_ids count conversions twice.",
    ),
}  # fmt: skip
