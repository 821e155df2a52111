"""One look: everything that Meta says now, beside our own counts of the same hours."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from capi_middleware.config.pixels import Pixel
from capi_middleware.config.settings import Config
from capi_middleware.events import SENT
from capi_middleware.insights.model import (
    Day,
    EventPoint,
    HourCount,
    Insights,
    Opportunity,
    PixelInsights,
    Problem,
)
from capi_middleware.insights.reading import (
    QUALITY_FIELDS,
    Reader,
    counts_of,
    number,
    quality_of,
    recommendations_of,
)
from capi_middleware.report.window import iso
from capi_middleware.store.records import Slice

HOUR = 3600
#: How far back Meta counts hours, in hours.
HOURS = 7 * 24
#: Events of one pixel and week whose hours are kept: those with the most.
_MOST_NAMES = 30
#: Days of which a point is kept.
MOST_DAYS = 90

#: Our own counts by hour of the window [start, end), as Store.slices("hour", …) gives them.
OurHours = Callable[[float, float], Iterable[Slice]]


def look(
    reader: Reader, config: Config, our_hours: OurHours, previous: Insights | None, now: float
) -> Insights:
    """Ask Meta about all pixels and the ad account.

    What cannot be read is a Problem beside what the `previous` look knew. `now` in Unix seconds.
    """
    end = int(now) // HOUR * HOUR
    start = end - HOURS * HOUR
    ours = list(our_hours(start, end))
    before = {one.pixel_id: one for one in previous.pixels} if previous is not None else {}
    pixels = [
        _counts(
            reader, pixel, ours, start, end,
            _quality(reader, pixel, before.get(pixel.id) or PixelInsights(pixel_id=pixel.id), now),
            now,
        )
        for pixel in config.pixels
    ]  # fmt: skip
    known = previous.opportunity if previous is not None else None
    found = Insights(
        fetched_at=iso(now),
        pixels=pixels,
        opportunity=_opportunity(reader, config, known, now),
    )
    return with_today(found, previous)


def _token(pixel: Pixel) -> dict[str, Any]:
    return {"token": pixel.read_token or pixel.access_token, "app_secret": pixel.app_secret}


def _quality(reader: Reader, pixel: Pixel, before: PixelInsights, now: float) -> PixelInsights:
    asked = {"dataset_id": pixel.id, "fields": QUALITY_FIELDS}
    answer = reader.get("dataset_quality", asked, **_token(pixel))
    if isinstance(answer, Problem):
        return replace(before, quality_problem=answer)
    quality = quality_of(answer)
    problem = None
    if not quality:
        problem = Problem(
            "no_data",
            "Meta has no data yet about the quality of this dataset.",
            "Nothing to do: it needs server events of some days. Check the id of the pixel if "
            "events have been sent for a week.",
        )
    return replace(before, quality=quality, quality_at=iso(now), quality_problem=problem)


def _counts(
    reader: Reader,
    pixel: Pixel,
    ours: Sequence[Slice],
    start: int,
    end: int,
    before: PixelInsights,
    now: float,
) -> PixelInsights:
    counts = []
    for source in ("WEB_ONLY", "SERVER_ONLY"):
        asked = {
            "aggregation": "event", "event_source": source,
            "start_time": str(start), "end_time": str(end),
        }  # fmt: skip
        answer = reader.pages(f"{pixel.id}/stats", asked, **_token(pixel))
        if isinstance(answer, Problem):
            return replace(before, hours_problem=answer)
        counts.append(counts_of(answer))
    browser, server = counts
    problem = None
    if not browser and not server:
        problem = Problem(
            "no_data",
            "Meta counts no event of this pixel in the last seven days.",
            "Check the id of the pixel, and that events are delivered.",
        )
    hours = _hours(browser, server, [one for one in ours if one.pixel_id == pixel.id], start, end)
    return replace(before, hours=hours, hours_at=iso(now), hours_problem=problem)


def _hours(
    browser: dict[tuple[int, str], int],
    server: dict[tuple[int, str], int],
    ours: Iterable[Slice],
    start: int,
    end: int,
) -> list[HourCount]:
    sums: dict[tuple[int, str], list[int]] = {}

    def add(hour: int, name: str, place: int, n: int) -> None:
        if start <= hour < end:
            sums.setdefault((hour, name), [0, 0, 0, 0])[place] += n

    for place, counts in enumerate((browser, server)):
        for (hour, name), n in counts.items():
            add(hour, name, place, n)
    for one in ours:
        if one.browser == SENT:
            add(int(one.value), one.event_name, 2, one.n)
        if one.server == "delivered":
            add(int(one.value), one.event_name, 3, one.n)
    totals: dict[str, int] = {}
    for (_, name), four in sums.items():
        totals[name] = totals.get(name, 0) + sum(four)
    kept = sorted(totals, key=lambda name: -totals[name])[:_MOST_NAMES]
    return [
        HourCount(
            hour=iso(hour), event_name=name, meta_browser=four[0], meta_server=four[1],
            our_browser=four[2], our_server=four[3],
        )
        for (hour, name), four in sorted(sums.items())
        if name in kept
    ]  # fmt: skip


def _opportunity(
    reader: Reader, config: Config, before: Opportunity | None, now: float
) -> Opportunity | None:
    account = config.ad_account
    if account is None:
        return None
    if before is None or before.account != account:
        before = Opportunity(account=account)
    token = _token(next((one for one in config.pixels if one.read_token), config.pixels[0]))
    fields = {"fields": "opportunity_score,opportunity_score_weight"}
    answer = reader.get(account, fields, **token)
    if isinstance(answer, Problem):
        return replace(before, problem=answer)
    score = number(answer.get("opportunity_score"))
    listed = reader.pages(f"{account}/recommendations", {}, **token)
    if isinstance(listed, Problem):
        return replace(before, score=score, at=iso(now), problem=listed)
    problem = None
    if score is None:
        problem = Problem(
            "no_data",
            "Meta has no opportunity score for this ad account yet.",
            "Nothing to do: an account gets one when it has campaigns.",
        )
    return Opportunity(
        account=account,
        score=score,
        recommendations=recommendations_of(listed),
        at=iso(now),
        problem=problem,
    )


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
