"""Comparing: our numbers beside Meta's, and the sentence that tells of each difference. Pure."""

from collections.abc import Callable, Iterator
from datetime import datetime
from importlib.resources import files
from math import sqrt

import msgspec

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
from capi_middleware.report.model import TARGET, EventReport, Place, Report
from capi_middleware.report.numbers import percent
from capi_middleware.report.window import Window

#: Counts differ when they are further apart than this share, and than chance explains.
TOLERANCE = 0.05
#: Shares differ when they are further apart than this.
APART = 0.1
#: Meta's advice for the event match quality.
GOOD_QUALITY = 6.0
#: user_data keys by the names that the Dataset Quality API uses for them.
_KEYS = {key.word: name for name, key in MATCH_KEYS.items() if key.word}
_HOUR = 3600


class Case(msgspec.Struct, frozen=True):
    """What is said of a measure in one case; the fields are those of a Comparison."""

    explanation: str
    verdict: Verdict = "differs"
    fix: str = ""


CASES: dict[Measure, dict[str, Case]] = msgspec.toml.decode(
    files("capi_middleware.insights").joinpath("measures.toml").read_bytes(),
    type=dict[Measure, dict[str, Case]],
)


def beside(report: Report, insights: Insights, window: Window) -> list[Comparison]:
    """Each event of `report`, and each that Meta alone knows, beside Meta's view.

    Counts are of the whole hours that both the `window` of the report and Meta's counts hold, ours
    as they were when Meta was asked. Pixels of which Meta told nothing are left out: their Problem
    says why.
    """
    reports = {one.place: one for one in report.events}
    found: list[Comparison] = []
    for seen in insights.pixels:
        hours: dict[str, list[HourCount]] = {}
        for one in seen.hours:
            if window.start <= datetime.fromisoformat(one.hour).timestamp() <= window.end - _HOUR:
                hours.setdefault(one.event_name, []).append(one)
        qualities = {one.event_name: one for one in seen.quality}
        ours = [name for name, pixel_id in reports if pixel_id == seen.pixel_id]
        for name in dict.fromkeys([*ours, *qualities, *hours]):
            place = name, seen.pixel_id
            if window.holds(*place):
                found += _counts(place, hours.get(name, []))
                if name in qualities and place in reports:
                    for compare in _QUALITIES:
                        found += compare(reports[place], qualities[name])
    return found


def _compared(
    place: Place, measure: Measure, case: str, ours: float | None, metas: float | None,
    told: str = "", **words: object,
) -> Comparison:  # fmt: skip
    """What measures.toml says of a `measure` in a `case`; `place`: event name and pixel."""
    found = CASES[measure][case]
    words |= {
        "ours": ours, "our_share": percent(ours), "metas": metas, "their_share": percent(metas),
    }  # fmt: skip
    return Comparison(
        event_name=place[0], pixel_id=place[1], measure=measure, ours=ours, metas=metas,
        verdict=found.verdict, explanation=found.explanation.format(**words),
        fix=found.fix.format(**words), told=told,
    )  # fmt: skip


def _counts(place: Place, hours: list[HourCount]) -> Iterator[Comparison]:
    n_hours = len({one.hour for one in hours})
    measures: tuple[tuple[Measure, list[int], list[int]], ...] = (
        ("browser events", [one.our_browser for one in hours], [one.meta_browser for one in hours]),
        ("server events", [one.our_server for one in hours], [one.meta_server for one in hours]),
    )
    for measure, our_hours, metas_hours in measures:
        ours, metas = sum(our_hours), sum(metas_hours)
        most, gap = max(ours, metas), abs(ours - metas)
        if not most:
            continue
        case = "fewer" if metas < ours else "more"
        if most < ENOUGH:
            case = "unknown"
        elif gap <= max(TOLERANCE * most, 3 * sqrt(most)):
            case = "agrees"
        yield _compared(
            place, measure, case, ours, metas,
            gap=f"{100 * gap / ours:.0f} %" if ours else f"{gap:,}",
            hours=f"{n_hours:,} {'hour' if n_hours == 1 else 'hours'}",
        )  # fmt: skip


# -- quality: what the Dataset Quality API says about one event, beside our report on it -----------


def _coverage(event: EventReport, quality: EventQuality) -> Iterator[Comparison]:
    metas, ours = quality.coverage, event.coverage
    if metas is not None:
        goal = quality.coverage_goal or TARGET
        case = "unknown"
        if ours is not None and event.browser >= ENOUGH:
            far = abs(ours - metas) > APART
            case = "agrees" if not far else "fewer" if metas < ours else "more"
        yield _compared(
            event.place, "coverage", case, ours, metas, browser=event.browser,
            goal=percent(goal), stands="at or above" if metas >= goal else "below",
        )  # fmt: skip


def _freshness(event: EventReport, quality: EventQuality) -> Iterator[Comparison]:
    told, ours = quality.upload_frequency, event.freshness_seconds.p95
    if told:
        arrive, case = told.replace("_", " ").lower(), "unknown"
        if ours is not None:
            case = "agrees" if arrive in ("real time", "realtime") or ours > _HOUR else "late"
        yield _compared(event.place, "freshness", case, ours, None, told, arrive=arrive)


def _dedupe_key(event: EventReport, quality: EventQuality) -> Iterator[Comparison]:
    for key in quality.dedupe_keys:
        if key.key == "event_id" and key.browser is not None and key.server is not None:
            lower, side = min((key.browser, "browser"), (key.server, "server"))
            yield _compared(
                event.place, "dedupe key", "agrees" if lower >= 1 - APART else side, 1.0, lower,
                browser=percent(key.browser), server=percent(key.server),
            )  # fmt: skip
            return


def _match_keys(event: EventReport, quality: EventQuality) -> Iterator[Comparison]:
    """The key on whose share we and Meta differ most."""
    gaps = [
        (abs(one.share - event.match_keys.get(key, 0.0)), key, one.share)
        for one in quality.match_keys
        if one.share is not None and (key := _KEYS.get(one.identifier.lower())) is not None
    ]
    if gaps and event.server >= ENOUGH:
        gap, key, metas = max(gaps)
        ours = event.match_keys.get(key, 0.0)
        case = "agrees" if gap <= APART else "apart"
        yield _compared(event.place, "match keys", case, ours, metas, key=key)


def _match_quality(event: EventReport, quality: EventQuality) -> Iterator[Comparison]:
    score = quality.match_quality
    if score is not None:
        best = max(quality.match_keys, key=lambda one: one.potential or 0, default=None)
        key, potential = (best.identifier, best.potential) if best else ("", None)
        case = "good" if score >= GOOD_QUALITY else "one_key" if potential else "low"
        yield _compared(
            event.place, "match quality", case, None, score, good=GOOD_QUALITY, key=key,
            potential=percent(potential),
        )  # fmt: skip


_QUALITIES: tuple[Callable[[EventReport, EventQuality], Iterator[Comparison]], ...] = (
    _coverage, _freshness, _dedupe_key, _match_keys, _match_quality,
)  # fmt: skip
