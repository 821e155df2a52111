"""One look: everything that Meta says now, beside our own counts of the same hours."""

from collections import Counter
from collections.abc import Callable, Iterable

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
)
from capi_middleware.insights.reading import (
    QUALITY_FIELDS,
    Counts,
    Reader,
    Untold,
    counts_of,
    number,
    quality_of,
    recommendations_of,
)
from capi_middleware.insights.sentences import problem
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
    hours = range(end - HOURS * HOUR, end)
    ours = list(our_hours(hours.start, hours.stop))
    before = {one.pixel_id: one for one in previous.pixels} if previous is not None else {}
    pixels = []
    for pixel in config.pixels:
        seen = before.get(pixel.id) or PixelInsights(pixel_id=pixel.id)
        seen = _quality(reader, pixel, seen, now)
        mine = [one for one in ours if one.pixel_id == pixel.id]
        pixels.append(_counts(reader, pixel, seen, now, hours, mine))
    known = previous.opportunity if previous is not None else None
    opportunity = _opportunity(reader, config, known, now)
    found = Insights(fetched_at=iso(now), pixels=pixels, opportunity=opportunity)
    return with_today(found, previous)


def _quality(reader: Reader, pixel: Pixel, before: PixelInsights, now: float) -> PixelInsights:
    asked = {"dataset_id": pixel.id, "fields": QUALITY_FIELDS}
    try:
        quality = quality_of(reader.get(pixel, "dataset_quality", asked))
    except Untold as why:
        return replace(before, quality_problem=why.problem)
    lacking = None if quality else problem("no_quality")
    return replace(before, quality=quality, quality_at=iso(now), quality_problem=lacking)


def _counts(
    reader: Reader, pixel: Pixel, before: PixelInsights, now: float, hours: range,
    ours: Iterable[Slice],
) -> PixelInsights:  # fmt: skip
    asked = {
        "aggregation": "event", "start_time": str(hours.start), "end_time": str(hours.stop),
    }  # fmt: skip
    try:
        browser, server = (
            counts_of(reader.pages(pixel, f"{pixel.id}/stats", {**asked, "event_source": source}))
            for source in ("WEB_ONLY", "SERVER_ONLY")
        )
    except Untold as why:
        return replace(before, hours_problem=why.problem)
    lacking = None if browser or server else problem("no_counts")
    counted = _hours(browser, server, ours, hours)
    return replace(before, hours=counted, hours_at=iso(now), hours_problem=lacking)


def _hours(browser: Counts, server: Counts, ours: Iterable[Slice], hours: range) -> list[HourCount]:
    our_browser, our_server = Counts(), Counts()
    for one in ours:
        place = int(one.value), one.event_name
        if one.browser == SENT:
            our_browser[place] += one.n
        if one.server == "delivered":
            our_server[place] += one.n
    channels = browser, server, our_browser, our_server
    places = sorted({place for counts in channels for place in counts if place[0] in hours})
    totals = Counter[str]()
    for place in places:
        totals[place[1]] += sum(counts[place] for counts in channels)
    kept = {name for name, _ in totals.most_common(_MOST_NAMES)}
    return [
        HourCount(
            hour=iso(hour), event_name=name,
            meta_browser=browser[hour, name], meta_server=server[hour, name],
            our_browser=our_browser[hour, name], our_server=our_server[hour, name],
        )
        for hour, name in places
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
    pixel = next((one for one in config.pixels if one.read_token), config.pixels[0])
    fields = {"fields": "opportunity_score,opportunity_score_weight"}
    try:
        score = number(reader.get(pixel, account, fields).get("opportunity_score"))
        before = replace(before, score=score, at=iso(now))
        tips = recommendations_of(reader.pages(pixel, f"{account}/recommendations", {}))
    except Untold as why:
        return replace(before, problem=why.problem)
    lacking = problem("no_score") if score is None else None
    return replace(before, recommendations=tips, problem=lacking)


def with_today(insights: Insights, previous: Insights | None) -> Insights:
    """`insights` with the history of `previous` and its own point; the last of a day stays.

    Only what was read now makes a point: a number left from before is not today's.
    """
    day, account = insights.fetched_at[:10], insights.opportunity
    today = Day(
        day=day,
        opportunity_score=account.score if account and account.at[:10] == day else None,
        events=[
            EventPoint(
                pixel_id=pixel.pixel_id, event_name=event.event_name,
                match_quality=event.match_quality, coverage=event.coverage, acr=event.acr,
            )
            for pixel in insights.pixels
            if pixel.quality_at[:10] == day
            for event in pixel.quality
        ],
    )  # fmt: skip
    history = [one for one in (previous.history if previous else []) if one.day < day]
    if today.events or today.opportunity_score is not None:
        history.append(today)
    return replace(insights, history=history[-MOST_DAYS:])
