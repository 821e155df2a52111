"""History: Meta tells only the present, so each look leaves one point a day."""

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from capi_middleware.insights.model import Day, EventPoint, Insights

#: Days that are kept.
MOST_DAYS = 90


class TrendLine(Struct, frozen=True):
    """One line over the days: what it shows, and its (day, value) points.

    `share`: the values are shares, 0 to 1.
    """

    label: str
    points: list[tuple[str, float]]
    share: bool = False


def with_today(insights: Insights, previous: Insights | None) -> Insights:
    """`insights` with the history of `previous` and its own point; the last of a day stays.

    Only what was read now makes a point: a number left from before is not today's.
    """
    day = insights.fetched_at[:10]
    opportunity = insights.opportunity
    today = Day(
        day=day,
        opportunity_score=opportunity.score
        if opportunity is not None and opportunity.at[:10] == day
        else None,
        events=[
            EventPoint(
                pixel_id=pixel.pixel_id,
                event_name=event.event_name,
                match_quality=event.match_quality,
                coverage=event.coverage,
                acr=event.acr,
            )
            for pixel in insights.pixels
            if pixel.quality_at[:10] == day
            for event in pixel.quality
        ],
    )
    before = [one for one in (previous.history if previous is not None else []) if one.day < day]
    known = today.events or today.opportunity_score is not None
    history = [*before, today] if known else before
    return replace(insights, history=history[-MOST_DAYS:])


def trends(insights: Insights) -> list[TrendLine]:
    """The lines that have at least two points: score, additional conversions, quality, coverage."""
    lines = [
        TrendLine(
            "Opportunity score",
            [
                (one.day, one.opportunity_score)
                for one in insights.history
                if one.opportunity_score is not None
            ],
        )
    ]
    events = dict.fromkeys(
        (event.event_name, event.pixel_id) for one in insights.history for event in one.events
    )
    for label, of, share in _MEASURES:
        for name, pixel_id in events:
            points = [
                (one.day, value)
                for one in insights.history
                for event in one.events
                if (event.event_name, event.pixel_id) == (name, pixel_id)
                and (value := of(event)) is not None
            ]
            lines.append(TrendLine(f"{label} of {name} at pixel {pixel_id}", points, share))
    return [one for one in lines if len(one.points) > 1]


_MEASURES: tuple[tuple[str, Callable[[EventPoint], float | None], bool], ...] = (
    ("Additional conversions reported", lambda one: one.acr, True),
    ("Event match quality", lambda one: one.match_quality, False),
    ("Event coverage", lambda one: one.coverage, True),
)
