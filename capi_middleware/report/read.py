"""Reading: one report from the store and the config, the same for page, data, metrics and CLI."""

from collections import Counter
from collections.abc import Sequence
from time import time

from msgspec.structs import replace

from capi_middleware.config.settings import Config
from capi_middleware.insights.comparing import beside
from capi_middleware.insights.keeping import kept_insights
from capi_middleware.report import numbers as coverage
from capi_middleware.report.flags import drops
from capi_middleware.report.health import health_of
from capi_middleware.report.model import Report
from capi_middleware.report.window import Window
from capi_middleware.store.records import DeadLetter
from capi_middleware.store.store import Store

#: Dead letters whose reasons are read: many have the same.
_LETTERS = 1000


def read_report(store: Store, config: Config, window: Window, *, delivering: bool = True) -> Report:
    """The report on `window`. Reads the store: may take long.

    `delivering` is False when a thread of this process that should deliver has ended. Raises
    StoreError when the store cannot be read.
    """
    store.flush(1.0)
    health = health_of(
        store.depth(),
        store.backlog(),
        store.pauses(),
        pixel_ids=[one.id for one in config.pixels],
        delivering=delivering,
    )
    now = time()
    upto = min(window.end, now)
    before = min(window.start, upto - (drops.DAYS * 24 + drops.HOURS + 1) * 3600)
    letters = store.dead_letters(limit=_LETTERS)
    report = coverage.build(
        store.tallies(window.start, window.end),
        health=health,
        start=window.start,
        end=window.end,
        event=window.event,
        pixel=window.pixel,
        config=config,
        slices={
            "hour": store.slices("hour", before, window.end),
            "route": store.slices("route", window.start, window.end),
            "page": store.slices("page", window.start, window.end),
            "agent": store.slices("agent", window.start, window.end),
        },
        refusals=_reasons(letters),
        now=now,
    )
    insights = kept_insights(store)
    if insights is None:
        return report
    compared = beside(report, insights, event=window.event, pixel=window.pixel)
    return replace(report, insights=insights, comparisons=compared)


def _reasons(letters: Sequence[DeadLetter]) -> dict[tuple[str, str], Counter[str]]:
    reasons: dict[tuple[str, str], Counter[str]] = {}
    for one in letters:
        reasons.setdefault((one.event_name, one.pixel_id), Counter())[one.reason] += 1
    return reasons
