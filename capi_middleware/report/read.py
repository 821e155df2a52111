"""Reading: one report from the store and the config, the same for page, data, metrics and CLI."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from time import time
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace

from capi_middleware.config.pixels import own_id
from capi_middleware.config.settings import Config
from capi_middleware.insights.comparing import beside
from capi_middleware.insights.estimating import estimates
from capi_middleware.insights.looking import kept_insights
from capi_middleware.meta.versions import versions_at
from capi_middleware.report.breakdowns import APART, Slices, breakdowns, trends
from capi_middleware.report.cards import cards_of
from capi_middleware.report.checklist import FEW, checklist
from capi_middleware.report.course import with_course
from capi_middleware.report.flags import Facts, flags_of
from capi_middleware.report.glance import glance, same_since
from capi_middleware.report.marks import marks_of, within
from capi_middleware.report.match_keys import advice_on
from capi_middleware.report.model import (
    TARGET,
    EventReport,
    Flag,
    Health,
    PixelHealth,
    Place,
    Report,
    ReportWindow,
)
from capi_middleware.report.numbers import choices_of, decisions, events_of, overall, page_views
from capi_middleware.report.pictures import funnels
from capi_middleware.report.silence import LOOKS_BACK
from capi_middleware.report.window import Window, compared, iso
from capi_middleware.store.records import Backlog, DeadLetter, Pause, Tallies
from capi_middleware.store.store import Store

#: Dead letters whose reasons are read: many have the same.
_LETTERS = 1000


def read_report(
    store: Store, config: Config, window: Window, *, delivering: bool = True, tenant: str = ""
) -> Report:
    """The report on `window`. Reads the store: may take long.

    `delivering` is False when a thread of this process that should deliver has ended. With the key
    of a `tenant` it is about that one's pixels alone: what counters know of no pixel is left out.
    Raises StoreError when the store cannot be read.
    """
    store.flush(1.0)
    now = time()
    before = min(window.start, min(window.end, now) - LOOKS_BACK)
    spans = [window, *compared(window, now)]
    with store.moment():
        health = read_health(store, config, delivering=delivering)
        tallies, *lately = [store.tallies(one.start, one.end) for one in spans]
        slices = {
            "hour": store.slices("hour", before, window.end),
            **{by: store.slices(by, window.start, window.end) for by in APART},
        }
        letters = store.dead_letters(limit=_LETTERS)
        known = [one.event_time for one in store.recent(FEW)] if len(tallies.rows) < FEW else []
        insights = None if tenant else kept_insights(store)
        marks = [] if tenant else marks_of(store)
    if tenant:
        tallies, *lately = [tallies_of(one, tenant) for one in (tallies, *lately)]
        slices = {by: _of(tenant, found) for by, found in slices.items()}
        letters = _of(tenant, letters)
        pixels = _of(tenant, health.pixels)
        waiting = sum(one.waiting for one in pixels)
        health = replace(health, pixels=pixels, outbox={"pending": waiting})
    report = build(
        tallies, window, health=health, config=config, slices=slices, refusals=_reasons(letters),
        now=now, tenant=tenant, lately=lately, begun=min(known, default=None),
    )  # fmt: skip
    asked = report.window
    report = replace(report, marks=within(marks, asked.start, asked.end))
    if insights is None:
        return report
    gains = [
        one for one in estimates(insights.history) if window.holds(one.event_name, one.pixel_id)
    ]
    return replace(
        report, insights=insights, comparisons=beside(report, insights, window), estimates=gains
    )


def read_health(store: Store, config: Config, *, delivering: bool = True) -> Health:
    """The state of delivery; arguments and errors as in `read_report`."""
    return health_of(
        store.depth(),
        store.backlog(),
        store.pauses(),
        marks={one.id: config.mark_of(one) for one in config.fixed_pixels},
        delivering=delivering,
    )


class _Pixels(Protocol):
    @property
    def pixel_id(self) -> str: ...


P = TypeVar("P", bound=_Pixels)


def _of(tenant: str, found: Iterable[P]) -> list[P]:
    return [one for one in found if one.pixel_id.endswith(own_id("", tenant))]


def tallies_of(tallies: Tallies, tenant: str) -> Tallies:
    """What is about the pixels of the tenant with this key."""
    return Tallies(
        _of(tenant, tallies.rows),
        _of(tenant, tallies.freshness),
        _of(tenant, tallies.counts),
        _of(tenant, tallies.differences),
        _of(tenant, tallies.money),
    )


def _reasons(letters: Iterable[DeadLetter]) -> dict[Place, Counter[str]]:
    reasons: dict[Place, Counter[str]] = {}
    for one in letters:
        reasons.setdefault((one.event_name, one.pixel_id), Counter())[one.reason] += 1
    return reasons


# -- from what was read to the report: no clock and no store ---------------------------------------


def build(
    tallies: Tallies,
    window: Window,
    *,
    target: float = TARGET,
    health: Health | None = None,
    config: Config | None = None,
    slices: Slices | None = None,
    refusals: Mapping[Place, Mapping[str, int]] | None = None,
    now: float | None = None,
    tenant: str = "",
    lately: Sequence[Tallies] = (),
    begun: float | None = None,
) -> Report:
    """The report on `tallies`, which the store gave for `window`.

    Args:
        tallies: everything in the window, aggregated.
        window: what was asked for.
        target: the share of browser events that the server should cover, 0 to 1.
        health: the state of delivery, whatever the window.
        config: the settings, for flags about them.
        slices: the same rows by facet; those by hour may reach further back, see LOOKS_BACK.
        refusals: the reasons of present dead letters.
        now: Unix time in seconds, for what happened just now; the end of the window by default.
        tenant: whose report it is: not that of the whole site.
        lately: what the store gave for the two windows of `compared`, without them no glance.
        begun: when the first event happened, in Unix seconds; asked only where there are few.
    """
    parts: Slices = {
        facet: [one for one in found if window.holds(one.event_name, one.pixel_id)]
        for facet, found in (slices or {}).items()
    }
    hours = parts.get("hour", ())
    present = window.end if now is None else min(window.end, now)
    pages = page_views(parts.get("page", ()))

    def judged(found: Tallies, **known: Any) -> tuple[list[EventReport], list[Flag]]:
        every, undelivered = events_of(found)
        events = [one for one in every if window.holds(*one.place)]
        facts = Facts(
            events=events,
            undelivered=undelivered,
            counts=found.counts,
            pages=pages,
            config=config,
            whole=not tenant and window.event is None and window.pixel is None,
            target=target,
            **known,
        )
        return events, flags_of(facts)

    upto = present // 3600 * 3600
    present_facts = {"refusals": refusals or {}, "hours": hours, "upto": upto, "health": health}
    events, flags = judged(tallies, **present_facts)
    now_, before, lately_ = None, None, None
    if lately:
        first, second = compared(window, present if now is None else now)
        since = same_since((one for one in hours if int(one.value) < first.end), first.end, target)
        of_now, flags_of_now = judged(lately[0], **present_facts)
        course = with_course(flags_of_now, hours, start=first.start, upto=upto, lately=None)
        before = glance(*judged(lately[1], upto=second.end), second)
        now_ = glance(of_now, course, first, since=since, before=before)
        if first != window:
            lately_ = {(one.code, one.event_name, one.pixel_id) for one in flags_of_now}
    flags = with_course(flags, hours, start=window.start, upto=upto, lately=lately_)
    consent, unanswered = decisions(tallies.counts)
    return Report(
        window=ReportWindow(iso(window.start), iso(window.end)),
        verdict=overall(events, flags),
        events=events,
        match_key_advice=advice_on(events),
        flags=flags,
        cards=cards_of(flags),
        checklist=checklist(
            tallies, health, waited=None if begun is None or now is None else now - begun
        ),
        trends=trends(hours, start=window.start, end=window.end, upto=upto),
        funnels=funnels(events),
        choices=choices_of(tallies.rows),
        breakdowns=breakdowns(events, parts),
        health=health,
        consent=consent,
        unanswered=unanswered,
        graph_versions=versions_at(config.graph_version, present) if config is not None else [],
        now=now_,
        before=before,
        pixel_names=config.pixel_names if config is not None else {},
    )


#: What waits for less than this, in seconds, is on its way.
_SOON = 60.0


def health_of(
    depth: Mapping[str, int],
    backlog: Sequence[Backlog],
    pauses: Sequence[Pause],
    *,
    marks: Mapping[str, str],
    delivering: bool,
) -> Health:
    """The state of delivery, for all configured pixels and those that still have events.

    `marks` are those of the access tokens of the configured pixels, see Pause. What another token
    rests for is over where nothing waits any more: the pixel has got a new one.
    """
    waiting = {one.pixel_id: one for one in backlog}
    paused = {
        one.pixel_id: one
        for one in pauses
        if one.token in ("", marks.get(one.pixel_id))
        or (one.pixel_id in waiting and waiting[one.pixel_id].oldest > _SOON)
    }
    pixels = []
    for pixel_id in dict.fromkeys([*marks, *waiting]):
        load, pause = waiting.get(pixel_id), paused.get(pixel_id)
        pixels.append(
            PixelHealth(
                pixel_id=pixel_id,
                waiting=load.waiting if load else 0,
                oldest_seconds=round(load.oldest, 1) if load else 0.0,
                paused_until=iso(pause.until) if pause else None,
                paused_because=pause.reason if pause else None,
                token_refused=bool(pause and pause.token),
            )
        )
    return Health(outbox=dict(sorted(depth.items())), pixels=pixels, delivering=delivering)
