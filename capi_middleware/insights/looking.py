"""Looking: all that Meta says now, beside our own counts of the same hours; asked on a schedule.

The last look lives in the store, for all processes, and when the next is due.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing, suppress

import msgspec
from msgspec.structs import replace

from capi_middleware.config.pixels import Pixel
from capi_middleware.config.settings import Config
from capi_middleware.delivery.daemon import Daemon
from capi_middleware.errors import StoreError
from capi_middleware.events import SENT
from capi_middleware.insights.model import (
    Day,
    EventPoint,
    HourCount,
    Insights,
    Opportunity,
    PixelInsights,
    problems,
)
from capi_middleware.insights.reading import (
    PROBLEMS,
    QUALITY_FIELDS,
    Counts,
    GivenUp,
    Reader,
    Untold,
    counts_of,
    number,
    quality_of,
    recommendations_of,
)
from capi_middleware.report.window import iso
from capi_middleware.store.records import Slice
from capi_middleware.store.store import Store

HOUR = 3600
#: How far back Meta counts hours, in hours.
HOURS = 7 * 24
#: Events of one pixel and week whose hours are kept: those with the most.
_MOST_NAMES = 30
#: Days of which a point is kept.
MOST_DAYS = 90

NAME, DUE = "insights", "insights-due"
#: When a look comes that follows one to which Meta told not all; in seconds.
AGAIN_SECONDS = 3600.0
#: How often a process asks the store whether a look is due, in seconds.
CHECK_SECONDS = 60.0
#: The same where nothing is configured for it.
PATIENCE = 1800.0
#: How long a process may take for a look before another one takes it over, in seconds.
CLAIM_SECONDS = 300.0


def look(
    reader: Reader, config: Config, store: Store, previous: Insights | None, now: float
) -> Insights:
    """Ask Meta about all pixels and the ad account.

    What cannot be read is a Problem beside what the `previous` look knew. `now` in Unix seconds.
    """
    end = int(now) // HOUR * HOUR
    hours = range(end - HOURS * HOUR, end)
    ours = store.slices("hour", hours.start, hours.stop)
    previous = previous or Insights(fetched_at="", pixels=[])
    before = {one.pixel_id: one for one in previous.pixels}
    pixels = []
    for pixel in config.fixed_pixels:
        seen = before.get(pixel.id) or PixelInsights(pixel_id=pixel.id)
        seen = _quality(reader, pixel, seen, now)
        mine = [one for one in ours if one.pixel_id == pixel.id]
        pixels.append(_counts(reader, pixel, seen, now, hours, mine))
    opportunity = _opportunity(reader, config, previous.opportunity, now)
    found = Insights(fetched_at=iso(now), pixels=pixels, opportunity=opportunity)
    return with_today(found, previous)


def _quality(reader: Reader, pixel: Pixel, before: PixelInsights, now: float) -> PixelInsights:
    asked = {"dataset_id": pixel.id, "fields": QUALITY_FIELDS}
    try:
        quality = quality_of(reader.get(pixel, "dataset_quality", asked))
    except Untold as why:
        return replace(before, quality_problem=why.problem)
    lacking = None if quality else PROBLEMS["no_quality"]
    return replace(before, quality=quality, quality_at=iso(now), quality_problem=lacking)


def _counts(
    reader: Reader, pixel: Pixel, before: PixelInsights, now: float, hours: range,
    ours: Iterable[Slice],
) -> PixelInsights:  # fmt: skip
    asked = {"aggregation": "event", "start_time": str(hours.start), "end_time": str(hours.stop)}
    try:
        browser, server = (
            counts_of(reader.pages(pixel, f"{pixel.id}/stats", {**asked, "event_source": source}))
            for source in ("WEB_ONLY", "SERVER_ONLY")
        )
    except Untold as why:
        return replace(before, hours_problem=why.problem)
    lacking = None if browser or server else PROBLEMS["no_counts"]
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
    pixel = next((one for one in config.fixed_pixels if one.read_token), config.fixed_pixels[0])
    fields = {"fields": "opportunity_score,opportunity_score_weight"}
    try:
        score = number(reader.get(pixel, account, fields).get("opportunity_score"))
        before = replace(before, score=score, at=iso(now))
        tips = recommendations_of(reader.pages(pixel, f"{account}/recommendations", {}))
    except Untold as why:
        return replace(before, problem=why.problem)
    lacking = PROBLEMS["no_score"] if score is None else None
    return replace(before, recommendations=tips, problem=lacking)


def with_today(insights: Insights, previous: Insights) -> Insights:
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
                shares={
                    one.identifier: one.share
                    for one in event.match_keys
                    if one.share is not None
                },
            )
            for pixel in insights.pixels
            if pixel.quality_at[:10] == day
            for event in pixel.quality
        ],
    )  # fmt: skip
    history = [one for one in previous.history if one.day < day]
    if today.events or today.opportunity_score is not None:
        history.append(today)
    return replace(insights, history=history[-MOST_DAYS:])


# -- kept in the store, on a schedule --------------------------------------------------------------


def kept_insights(store: Store) -> Insights | None:
    """The last look, None before the first. Raises StoreError when the store cannot be read."""
    return _decoded(store.kept(NAME))


def _decoded(body: bytes | None) -> Insights | None:
    if body is not None:
        with suppress(msgspec.DecodeError):  # of another version: the next look replaces it
            return msgspec.json.decode(body, type=Insights)
    return None


def refresh(config: Config, store: Store, reader: Reader | None = None) -> Insights:
    """Look now and keep it; may take up to reading.ROUND_SECONDS.

    Where another process kept one meanwhile, that one stays and is returned. Raises StoreError
    when the store cannot be used, and reading.GivenUp when the `reader` is closed meanwhile: then
    nothing is kept.
    """
    if reader is None:
        with closing(Reader(config.graph_url, config.graph_version)) as reader:
            return refresh(config, store, reader)
    before = store.kept(NAME)
    found = look(reader, config, store, _decoded(before), time.time())
    reader.check()
    if store.keep(NAME, msgspec.json.encode(found), instead_of=before):
        return found
    return kept_insights(store) or found


def hasten(store: Store, due: float) -> None:
    """The next look comes at Unix time `due`, unless some process changed that meanwhile."""
    store.keep(DUE, repr(due).encode(), instead_of=store.kept(DUE))


def claim(store: Store, now: float, seconds: float) -> bool:
    """Whether a look is due and it is ours to take: one process of all gets True."""
    kept, due = store.kept(DUE), 0.0
    with suppress(ValueError):
        due = float(kept or 0)
    if now < due <= now + seconds:  # later than that: the clock went back, or the setting changed
        return False
    # Who ends in the middle of a look has not looked: somebody else may soon.
    return store.keep(DUE, repr(now + min(CLAIM_SECONDS, seconds)).encode(), instead_of=kept)


class Lookout(Daemon):
    """Looks on a schedule while events are delivered, on a thread of its own.

    `caught` takes what goes wrong: nothing of this may touch delivery.
    """

    def __init__(
        self, config: Config, store: Store, caught: Callable[[BaseException, str], None]
    ) -> None:
        super().__init__("capi-insights")
        self._seconds = config.insights_hours * 3600.0 if config.fixed_pixels else 0.0
        #: Nobody asked for it: the first look is in no hurry, and neither is who asks the store.
        self._patient = config.ad_account is None and not any(
            one.read_token for one in config.fixed_pixels
        )
        self._quiet_until = 0.0
        self._config, self._store, self._caught = config, store, caught
        self._forked()

    def _forked(self) -> None:
        self._reader: Reader | None = None

    def tick(self) -> None:
        """Start a look if one is due. Returns at once; never raises."""
        now = time.time()
        if not self._seconds or self.running or now < self._quiet_until <= now + PATIENCE:
            return
        try:
            if self._patient:
                self._quiet_until = now + PATIENCE
                if self._store.kept(DUE) is None:
                    hasten(self._store, now + self._seconds)
                    return
            if claim(self._store, now, self._seconds):
                self.start()
        except Exception as error:
            # Others say already that a store is away, and nobody asked for this look.
            if not (self._patient and isinstance(error, StoreError)):
                self._caught(error, "insights")

    def halt(self) -> None:
        """Give a look in progress up, without waiting for its thread: nothing is kept any more."""
        super().halt()  # before the reader is read: there may be none yet
        reader = self._reader
        if reader is not None and self.running:
            reader.close()

    def _work(self) -> None:
        try:
            self._reader = Reader(self._config.graph_url, self._config.graph_version)
            with closing(self._reader):
                if self._stop.is_set():
                    return
                found = refresh(self._config, self._store, self._reader)
            again = self._seconds
            if any(problem.state != "no_permission" for _, problem in problems(found)):
                again = min(AGAIN_SECONDS, again)
            hasten(self._store, time.time() + again)
        except GivenUp:
            return
        except Exception as error:
            self._caught(error, "insights")
