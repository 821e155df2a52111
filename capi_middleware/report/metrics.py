"""Metrics: the report and the totals of all time kept, as templates/metrics.txt.jinja has them.

Label values are bounded: at most MOST event names and MOST pixels (the busiest; the rest is summed
as "other") and MOST reasons; a page or a route is never a label.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence, Set
from datetime import datetime
from math import inf

from msgspec.structs import replace

from capi_middleware.config.settings import Config
from capi_middleware.report.html import filled
from capi_middleware.report.model import EventReport, FreshnessSeconds, PixelHealth, Place, Report
from capi_middleware.report.numbers import Copies, copies_of, together, totals
from capi_middleware.report.read import read_report, tallies_of
from capi_middleware.report.window import Window
from capi_middleware.store.records import Tallies, Tally
from capi_middleware.store.store import Store

#: How many event names, and how many reasons of one kind, have series of their own.
MOST = 100
OTHER = "other"
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def read_metrics(
    store: Store, config: Config, window: Window, *, delivering: bool = True, tenant: str = ""
) -> str:
    """The metrics, with the report on `window`. Reads the store: may take long.

    `delivering`, `tenant` and errors as in `read_report`.
    """
    report = read_report(store, config, window, delivering=delivering, tenant=tenant)
    all_time = store.tallies(0.0, inf)
    return metrics_text(report, tallies_of(all_time, tenant) if tenant else all_time)


def metrics_text(report: Report, all_time: Tallies) -> str:
    """`report` as gauges, since events leave its window again; `all_time` as counters.

    A gauge without data is absent, never 0: the coverage of no browser events.
    """
    volume = totals(
        [
            *((one.event_name, one.n) for one in all_time.rows),
            *((one.event_name, 0) for one in report.events),
            *((one.event_name, one.n) for one in all_time.counts if one.event_name),
        ]
    )
    own = frozenset(list(volume)[:MOST])
    health = report.health
    waiting = [(one.pixel_id, one.waiting) for one in health.pixels] if health is not None else []
    loads = totals(
        [
            *waiting,
            *((one.pixel_id, one.n) for one in all_time.rows),
            *((one.pixel_id, 0) for one in report.events),
        ]
    )
    pixels = frozenset(list(loads)[:MOST])

    def place_of(name: str, pixel_id: str) -> Place:
        return name if name in own else OTHER, pixel_id if pixel_id in pixels else OTHER

    events: defaultdict[Place, list[EventReport]] = defaultdict(list)
    for event in report.events:
        events[place_of(event.event_name, event.pixel_id)].append(event)
    rows: defaultdict[Place, list[Tally]] = defaultdict(list)
    for row in all_time.rows:
        rows[place_of(row.event_name, row.pixel_id)].append(row)
    if health is not None and len(health.pixels) > MOST:
        health = replace(health, pixels=_bounded(health.pixels, pixels))

    def reasons(kind: str) -> list[tuple[str, int]]:
        """How often, by reason, the biggest first."""
        found = totals((one.reason, one.n) for one in all_time.counts if one.kind == kind)
        kept: Counter[str] = Counter()
        for at, (reason, n) in enumerate(found.items()):
            kept[reason if at < MOST else OTHER] += n
        return list(kept.items())

    return filled(
        "metrics.txt.jinja",
        start=datetime.fromisoformat(report.window.start).timestamp(),
        end=datetime.fromisoformat(report.window.end).timestamp(),
        events=[_sum(place, events[place]) for place in sorted(events)],
        flags=Counter((flag.code, flag.severity) for flag in report.flags),
        health=health,
        versions=report.graph_versions,
        all_time=[(place, _accepted(rows[place])) for place in sorted(rows)],
        reasons=reasons,
        labels=_labels,
    )


def _accepted(rows: list[Tally]) -> Copies:
    """The copies of these rows, with those that have no twin by nature."""
    accepted = sum(one.n for one in rows if one.server == "delivered")
    return copies_of(rows)._replace(server=accepted)


def _bounded(found: Sequence[PixelHealth], own: Set[str]) -> list[PixelHealth]:
    """The `own` pixels, and all others as one that rests for nothing."""
    others = [one for one in found if one.pixel_id not in own]
    return [
        *(one for one in found if one.pixel_id in own),
        PixelHealth(
            pixel_id=OTHER,
            waiting=sum(one.waiting for one in others),
            oldest_seconds=max(one.oldest_seconds for one in others),
            paused_until=None,
            paused_because=None,
            token_refused=False,
        ),
    ]


def _sum(place: Place, events: list[EventReport]) -> EventReport:
    """The numbers that are told here of all `events`; quantiles cannot be added."""
    first, copies = events[0], together(events)
    return replace(
        first,
        event_name=place[0],
        pixel_id=place[1],
        **copies._asdict(),
        coverage=copies.coverage,
        ratio=copies.ratio,
        pending=sum(one.pending for one in events),
        unpaired=sum(one.unpaired for one in events),
        suppressed=totals(item for one in events for item in one.suppressed.items()),
        missing_browser=totals(item for one in events for item in one.missing_browser.items()),
        missing_server=totals(item for one in events for item in one.missing_server.items()),
        freshness_seconds=first.freshness_seconds if len(events) == 1 else FreshnessSeconds(),
    )


def _labels(place: Place | None = None, **others: str) -> str:
    """The labels of one sample in braces."""
    labels = {"event_name": place[0], "pixel_id": place[1], **others} if place else others
    shown = ",".join(f'{label}="{word.translate(_ESCAPES)}"' for label, word in labels.items())
    return f"{{{shown}}}"
