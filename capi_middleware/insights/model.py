"""The shape of Meta's own view: kept in the store, and part of parity.json under "insights".

Shares are 0 to 1 where Meta says percent; None where Meta says nothing. Times are ISO 8601 in UTC.
"""

from collections.abc import Callable, Iterator
from typing import Literal

from msgspec import Struct

#: Fewer events than this tell nothing.
ENOUGH = 30

Measure = Literal[
    "browser events", "server events", "coverage", "freshness", "dedupe key", "match keys",
    "match quality",
]  # fmt: skip


class Problem(Struct, frozen=True):
    """Why Meta told us nothing: the token may not read, Meta has no data, or asking failed."""

    state: Literal["no_permission", "no_data", "failed"]
    explanation: str
    fix: str


class KeyFeedback(Struct, frozen=True):
    """How many server events carry a match key, and what more of it might add to conversions.

    `identifier` is Meta's word ("email"), not the key of user_data ("em").
    """

    identifier: str
    share: float | None
    potential: float | None


class DedupeKey(Struct, frozen=True):
    """How many events of each channel carry a key, and the browser events it covers."""

    key: str
    browser: float | None
    server: float | None
    coverage: float | None


class Diagnosis(Struct, frozen=True):
    """A fault that Meta found in the server events."""

    name: str
    description: str
    solution: str
    share: float | None


class EventQuality(Struct, frozen=True, kw_only=True):
    """What the Dataset Quality API says about one event name, mostly on the last seven days.

    `match_quality` is Meta's composite score, 0 to 10; `coverage` the share of browser events that
    the server covers with a shared dedupe key; `acr` the additional conversions reported.
    """

    event_name: str
    match_quality: float | None = None
    match_keys: list[KeyFeedback] = []
    diagnostics: list[Diagnosis] = []
    coverage: float | None = None
    coverage_goal: float | None = None
    dedupe_keys: list[DedupeKey] = []
    upload_frequency: str = ""
    freshness: str = ""
    acr: float | None = None
    acr_explanation: str = ""


class HourCount(Struct, frozen=True, kw_only=True):
    """Events of one whole hour by channel: Meta's counts, and ours of the same moment."""

    hour: str
    event_name: str
    meta_browser: int = 0
    meta_server: int = 0
    our_browser: int = 0
    our_server: int = 0


class PixelInsights(Struct, frozen=True, kw_only=True):
    """Meta's view of one pixel. After a failure the last known numbers stay, with their time."""

    pixel_id: str
    quality: list[EventQuality] = []
    quality_at: str = ""
    quality_problem: Problem | None = None
    hours: list[HourCount] = []
    hours_at: str = ""
    hours_problem: Problem | None = None


class Recommendation(Struct, frozen=True, kw_only=True):
    """One of Meta's recommendations; `capi`: it is about the Conversions API or the pixel.

    `title` says what such one asks for, "" where that is not known.
    """

    type: str
    title: str = ""
    body: str = ""
    lift_estimate: str = ""
    score_lift: float | None = None
    url: str = ""
    capi: bool = False


class Opportunity(Struct, frozen=True, kw_only=True):
    """The opportunity score of the ad account, 0 to 100, and what would raise it."""

    account: str
    score: float | None = None
    recommendations: list[Recommendation] = []
    at: str = ""
    problem: Problem | None = None


class EventPoint(Struct, frozen=True, kw_only=True):
    """What a day's last look said about one event; `shares` are those of its match keys."""

    pixel_id: str
    event_name: str
    match_quality: float | None = None
    coverage: float | None = None
    acr: float | None = None
    shares: dict[str, float] = {}


class Day(Struct, frozen=True, kw_only=True):
    """One point of the trends; `day` is a date in UTC."""

    day: str
    opportunity_score: float | None = None
    events: list[EventPoint] = []


class Insights(Struct, frozen=True, kw_only=True):
    """Meta's own view: by pixel, of the ad account if one is configured, and its history."""

    fetched_at: str
    pixels: list[PixelInsights]
    opportunity: Opportunity | None = None
    history: list[Day] = []


class Estimate(Struct, frozen=True, kw_only=True):
    """What an event's match quality may gain if all its events carried a key.

    `key` is Meta's word for it, `share` the share that carries it now, `score` Meta's now. `gain`
    is in points of 10, with 95 % certainty between `low` and `high`; all three are None where the
    `days` that are known say nothing of it: too few, or the share did not move.
    """

    event_name: str
    pixel_id: str
    key: str
    share: float
    score: float
    days: int
    gain: float | None = None
    low: float | None = None
    high: float | None = None


#: "good" and "low" are Meta's scores of what we have no number of.
Verdict = Literal["agrees", "differs", "good", "low", "unknown"]


class Comparison(Struct, frozen=True, kw_only=True):
    """One measure of one event at one pixel, as we and as Meta see it.

    `ours` and `metas` are events, shares (0 to 1), seconds or a score from 0 to 10; None where one
    side knows nothing. `told` is Meta's word where it gives no number. `explanation` is a
    sentence; `fix` is "" where there is nothing to do.
    """

    event_name: str
    pixel_id: str
    measure: Measure
    ours: float | None
    metas: float | None
    verdict: Verdict
    explanation: str
    fix: str = ""
    told: str = ""


def problems(insights: Insights) -> Iterator[tuple[str, Problem]]:
    """What Meta did not tell: (of what, why)."""
    for pixel in insights.pixels:
        if pixel.quality_problem:
            yield f"quality of pixel {pixel.pixel_id}", pixel.quality_problem
        if pixel.hours_problem:
            yield f"counts of pixel {pixel.pixel_id}", pixel.hours_problem
    if insights.opportunity and insights.opportunity.problem:
        yield f"ad account {insights.opportunity.account}", insights.opportunity.problem


def is_wrong(insights: Insights) -> bool:
    """Whether Meta refused or did not answer what it should.

    A token made in Events Manager reads the quality and no counts: that is nothing wrong.
    """
    for_more = [
        one.hours_problem
        for one in insights.pixels
        if one.quality_problem is None
        and one.hours_problem is not None
        and one.hours_problem.state == "no_permission"
    ]
    told = [problem for _, problem in problems(insights) if problem.state != "no_data"]
    return len(told) > len(for_more)


class TrendLine(Struct, frozen=True):
    """One line over the days: what it shows, and its (day, value) points.

    `share`: the values are shares, 0 to 1.
    """

    label: str
    points: list[tuple[str, float]]
    share: bool = False


def trends(insights: Insights) -> list[TrendLine]:
    """The lines that have at least two points: score, additional conversions, quality, coverage."""
    points: dict[tuple[str, bool], list[tuple[str, float | None]]] = {
        ("Opportunity score", False): [(one.day, one.opportunity_score) for one in insights.history]
    }
    for label, of, share in _MEASURES:
        for day in insights.history:
            for one in day.events:
                line = f"{label} of {one.event_name} at pixel {one.pixel_id}", share
                points.setdefault(line, []).append((day.day, of(one)))
    lines = [
        TrendLine(label, [(day, value) for day, value in found if value is not None], share)
        for (label, share), found in points.items()
    ]
    return [one for one in lines if len(one.points) > 1]


_MEASURES: tuple[tuple[str, Callable[[EventPoint], float | None], bool], ...] = (
    ("Additional conversions reported", lambda one: one.acr, True),
    ("Event match quality", lambda one: one.match_quality, False),
    ("Event coverage", lambda one: one.coverage, True),
)
