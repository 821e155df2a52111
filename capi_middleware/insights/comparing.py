"""Comparing: our numbers beside Meta's, and each difference in a plain sentence. Pure."""

from collections.abc import Callable, Iterator
from datetime import datetime
from math import sqrt
from typing import NamedTuple

from capi_middleware.insights.model import (
    ENOUGH,
    Comparison,
    EventQuality,
    HourCount,
    Insights,
    Measure,
    Verdict,
)
from capi_middleware.meta.match_keys import MATCH_KEYS
from capi_middleware.report.model import TARGET, EventReport, Report
from capi_middleware.report.numbers import percent

#: Counts differ when they are further apart than this share, and than chance explains.
TOLERANCE = 0.05
#: Shares differ when they are further apart than this.
APART = 0.1
#: Meta's advice for the event match quality.
GOOD_QUALITY = 6.0
#: user_data keys by the names that the Dataset Quality API uses for them.
_KEYS = {key.word: name for name, key in MATCH_KEYS.items() if key.word}
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


# -- quality: our shares and times of one event beside Meta's ------------------------------------


class _Found(NamedTuple):
    """What one measure came to; see Comparison."""

    ours: float | None
    metas: float | None
    verdict: Verdict
    explanation: str
    fix: str = ""
    told: str = ""


def compare_quality(event: EventReport, quality: EventQuality) -> Iterator[Comparison]:
    """What the Dataset Quality API says about one event, beside our report on it."""
    for measure, compare in _QUALITIES.items():
        found = compare(event, quality)
        if found is not None:
            yield Comparison(
                event_name=event.event_name,
                pixel_id=event.pixel_id,
                measure=measure,
                **found._asdict(),
            )


def _coverage(event: EventReport, quality: EventQuality) -> _Found | None:
    metas, ours = quality.coverage, event.coverage
    if metas is None:
        return None
    goal = quality.coverage_goal or TARGET
    stands = "at or above" if metas >= goal else "below"
    text = f"Meta's event coverage of the last 7 days is {percent(metas)}, {stands} its goal of " \
           f"{percent(goal)}"  # fmt: skip
    if ours is None or event.browser < ENOUGH:
        return _Found(
            ours, metas, "unknown",
            f"{text}; our own window has {event.browser:,} browser events, too few to compare.",
        )  # fmt: skip
    text += f"; ours in this window is {percent(ours)}"
    if abs(ours - metas) <= APART:
        return _Found(ours, metas, "agrees", f"{text}: they agree.")
    if metas < ours:
        return _Found(
            ours, metas, "differs",
            f"{text}: Meta sees browser events that we do not, without our event_id, or the setup "
            "improved within these days.",
            "Look for a second installation of this pixel (tag manager, theme) and remove it, or "
            "set mirror so that its events get an event_id.",
        )  # fmt: skip
    return _Found(
        ours, metas, "differs",
        f"{text}: Meta pairs events that we do not, by external_id or fbp or from another sender, "
        "or the setup got worse within these days.",
        "Look at what is missing on the server in the table above; another sender to this dataset "
        "is listed in Events Manager → Settings → Conversions API.",
    )  # fmt: skip


def _freshness(event: EventReport, quality: EventQuality) -> _Found | None:
    told, ours = quality.upload_frequency, event.freshness_seconds.p95
    if not told:
        return None
    word = told.replace("_", " ").lower()
    quick = word in ("real time", "realtime")
    if ours is None:
        text = f"Meta sees these events arrive {word}; we delivered none in this window."
        return _Found(None, None, "unknown", text, told=told)
    text = f"Meta sees these events arrive {word}; 95 % of ours were accepted within {ours:g} s"
    if quick or ours > 3600:
        return _Found(ours, None, "agrees", f"{text}: they agree.", told=told)
    return _Found(
        ours, None, "differs",
        f"{text}: another sender uploads events of this name late, or delivery stood still "
        "earlier in these days.",
        "Stop late uploads of the same event (a nightly job, an offline import), and look at "
        "Delivery for pixels that rest.",
        told=told,
    )  # fmt: skip


def _dedupe_key(event: EventReport, quality: EventQuality) -> _Found | None:
    key = next((one for one in quality.dedupe_keys if one.key == "event_id"), None)
    if key is None or key.browser is None or key.server is None:
        return None
    text = (
        f"Meta finds an event_id on {percent(key.browser)} of the browser and on "
        f"{percent(key.server)} of the server events; all of ours carry one"
    )
    lower = min(key.browser, key.server)
    if lower >= 1 - APART:
        return _Found(1.0, lower, "agrees", f"{text}: they agree.")
    side = "browser" if key.browser <= key.server else "server"
    fix = (
        "Look for pixel code that fires this event by itself (tag manager, theme): remove it, or "
        "set mirror so that it gets an event_id."
        if side == "browser" else
        "Stop the other sender of this event to the dataset, or let it send the same event_id."
    )  # fmt: skip
    return _Found(
        1.0, lower, "differs",
        f"{text}: {side} events that are not ours lack it and may count twice.", fix,
    )  # fmt: skip


def _match_keys(event: EventReport, quality: EventQuality) -> _Found | None:
    """The key on whose share we and Meta differ most."""
    gaps = [
        (abs(one.share - event.match_keys.get(key, 0.0)), key, one.share)
        for one in quality.match_keys
        if one.share is not None and (key := _KEYS.get(one.identifier.lower())) is not None
    ]
    if not gaps or event.server < ENOUGH:
        return None
    gap, key, metas = max(gaps)
    ours = event.match_keys.get(key, 0.0)
    text = f"Meta finds {key} in {percent(metas)} of the server events, we sent it in " \
           f"{percent(ours)}"  # fmt: skip
    if gap <= APART:
        return _Found(ours, metas, "agrees", f"{text}: they agree.")
    return _Found(
        ours, metas, "differs",
        f"{text}: another sender posts this event too, or what the app supplies changed within "
        "these days.",
        "Give every server event the same keys (user_data in the config or in track()), and see in "
        "Events Manager → Settings → Conversions API who else sends.",
    )  # fmt: skip


def _match_quality(event: EventReport, quality: EventQuality) -> _Found | None:
    score = quality.match_quality
    if score is None:
        return None
    wanted = [one for one in quality.match_keys if one.potential]
    text = f"Meta scores the match quality {score:g} of 10"
    if score >= GOOD_QUALITY:
        return _Found(None, score, "good", f"{text}: {GOOD_QUALITY:g} is good.")
    most = max(wanted, key=lambda one: one.potential or 0, default=None)
    hint = f"Send {most.identifier} with more of these events" if most else "Send more match keys"
    more = (
        f" (Meta expects up to {percent(most.potential)} more conversions from it)"
        if most and most.potential else ""
    )  # fmt: skip
    return _Found(
        None, score, "low", f"{text}: {GOOD_QUALITY:g} or more is good.",
        f"{hint}{more}: see Match keys for where the app could supply them.",
    )  # fmt: skip


_QUALITIES: dict[Measure, Callable[[EventReport, EventQuality], _Found | None]] = {
    "coverage": _coverage,
    "freshness": _freshness,
    "dedupe key": _dedupe_key,
    "match keys": _match_keys,
    "match quality": _match_quality,
}
