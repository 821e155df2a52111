"""Metrics: the report and the totals of all time kept, in Prometheus' text format 0.0.4.

Names, units and types as "Metric and label naming" has them. Label values are bounded: at most
MOST event names (the busiest; the rest is summed as "other") and MOST reasons; a page or a route is
never a label.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from math import inf
from typing import TypeVar

from msgspec.structs import replace

from capi_middleware.config.settings import Config
from capi_middleware.report.model import (
    SIDES,
    EventReport,
    FreshnessSeconds,
    Health,
    PixelHealth,
    Place,
    Report,
)
from capi_middleware.report.numbers import copies_of, together, totals
from capi_middleware.report.read import read_report
from capi_middleware.report.window import Window
from capi_middleware.store.records import Tallies, Tally
from capi_middleware.store.store import Store

#: How many event names, and how many reasons of one kind, have series of their own.
MOST = 100
OTHER = "other"

Labels = Mapping[str, str]
Sample = tuple[Labels, float | None]
_One = TypeVar("_One")


def read_metrics(store: Store, config: Config, window: Window, *, delivering: bool = True) -> str:
    """The metrics, with the report on `window`. Reads the store: may take long.

    `delivering` and errors as in `read_report`.
    """
    report = read_report(store, config, window, delivering=delivering)
    return metrics_text(report, store.tallies(0.0, inf))


def metrics_text(report: Report, all_time: Tallies) -> str:
    """`report` as gauges, since events leave its window again; `all_time` as counters.

    A gauge without data is absent, never 0: the coverage of no browser events.
    """
    named = _namer(report, all_time)
    events = _folded(report.events, named)
    return "".join((*_window(report, events), *_health(report.health), *_totals(all_time, named)))


# -- names -----------------------------------------------------------------------------------------


def _namer(report: Report, all_time: Tallies) -> Callable[[str], str]:
    """What an event name is called: the busiest of all time keep theirs."""
    volume = totals(
        [
            *((one.event_name, one.n) for one in all_time.rows),
            *((one.event_name, 0) for one in report.events),
            *((one.event_name, one.n) for one in all_time.counts if one.event_name),
        ]
    )
    own = frozenset(list(volume)[:MOST])
    return lambda name: name if name in own else OTHER


def _folded(events: Iterable[EventReport], named: Callable[[str], str]) -> list[EventReport]:
    groups: defaultdict[Place, list[EventReport]] = defaultdict(list)
    for event in events:
        groups[named(event.event_name), event.pixel_id].append(event)
    return [_sum(name, groups[name, pixel_id]) for name, pixel_id in sorted(groups)]


def _sum(name: str, events: list[EventReport]) -> EventReport:
    """The numbers that are told here of all `events`; quantiles cannot be added."""

    def added(part: str) -> dict[str, int]:
        return totals(item for one in events for item in getattr(one, part).items())

    copies = together(events)
    freshness = events[0].freshness_seconds
    if len(events) > 1:
        freshness = FreshnessSeconds(None, None, None)
    return replace(
        events[0],
        event_name=name,
        **copies._asdict(),
        coverage=copies.coverage,
        ratio=copies.ratio,
        pending=sum(one.pending for one in events),
        suppressed=added("suppressed"),
        missing_browser=added("missing_browser"),
        missing_server=added("missing_server"),
        freshness_seconds=freshness,
    )


# -- what there is to tell -------------------------------------------------------------------------

_Gauge = tuple[str, str, Callable[[_One], Iterable[Sample]]]


def _by(label: str, values: Mapping[str, float | None]) -> list[Sample]:
    return [({label: word}, value) for word, value in values.items()]


#: Of each event, in the window.
_OF_EVENT: Sequence[_Gauge[EventReport]] = (
    ("capi_window_events", "Events by copy",
     lambda one: _by("copy", together([one])._asdict())),
    ("capi_window_missing_events", "Copies missing, by cause",
     lambda one: [({"side": side, "cause": cause}, n)
                  for side in SIDES for cause, n in one.missing(side).items()]),
    ("capi_window_suppressed_events", "Events never made",
     lambda one: _by("reason", one.suppressed)),
    ("capi_window_pending_events", "Server copies waiting",
     lambda one: [({}, one.pending)]),
    ("capi_window_coverage_ratio", "Browser events that the server covers, 0 to 1",
     lambda one: [({}, one.coverage)]),
    ("capi_window_server_browser_ratio", "Server events for each browser event",
     lambda one: [({}, one.ratio)]),
    ("capi_window_freshness_seconds", "Time from an event to Meta's answer, by quantile",
     lambda one: _by("quantile", {"0.5": one.freshness_seconds.p50,
                                  "0.95": one.freshness_seconds.p95,
                                  "1": one.freshness_seconds.max})),
)  # fmt: skip
#: Of each pixel, now.
_OF_PIXEL: Sequence[_Gauge[PixelHealth]] = (
    ("capi_outbox_waiting_events", "Server copies that wait for delivery.",
     lambda one: [({}, one.waiting)]),
    ("capi_outbox_oldest_seconds", "Age of the oldest that waits.",
     lambda one: [({}, one.oldest_seconds)]),
    ("capi_pixel_paused", "1 while Meta lets the pixel rest.",
     lambda one: [({}, int(one.paused_until is not None))]),
)  # fmt: skip
#: Of all time kept, by a word of Copies, and by the kind of what left no row.
_OF_COPIES = (
    ("capi_server_events_accepted_total", "Server copies that Meta accepted.", "server"),
    ("capi_browser_events_sent_total", "Browser copies that are known to have left.", "browser"),
)
_OF_COUNTS = (
    ("capi_suppressed_events_total", "Events never made: consent, bots and so on.", "suppressed"),
    ("capi_dropped_events_total", "Server copies that were given up.", "dropped"),
    ("capi_errors_total", "Errors of ours that the host never saw.", "error"),
)


def _window(report: Report, events: list[EventReport]) -> Iterator[str]:
    start, end = (
        datetime.fromisoformat(moment).timestamp()
        for moment in (report.window.start, report.window.end)
    )
    yield _family("capi_window_seconds", "Length of the report's window.", [({}, end - start)])
    yield _family("capi_window_end_timestamp_seconds", "End of the window.", [({}, end)])
    labelled = [(_of(one.place), one) for one in events]
    for name, text, samples in _OF_EVENT:
        text = f"{text}, in the window of capi_window_seconds."
        yield _family(name, text, _each(labelled, samples))
    flags = Counter((flag.code, flag.severity) for flag in report.flags)
    by_flag = [({"code": code, "severity": severity}, n) for (code, severity), n in flags.items()]
    yield _family("capi_flags", "Flags of the report, of all events and pixels.", by_flag)


def _health(health: Health | None) -> Iterator[str]:
    if health is None:
        return
    rows = _by("state", health.outbox)
    yield _family("capi_outbox_rows", "Rows in the store by state of the server copy.", rows)
    labelled = [({"pixel_id": one.pixel_id}, one) for one in health.pixels]
    for name, text, samples in _OF_PIXEL:
        yield _family(name, text, _each(labelled, samples))
    text = "0 when a delivery thread ended."
    yield _family("capi_delivering", text, [({}, int(health.delivering))])


def _totals(all_time: Tallies, named: Callable[[str], str]) -> Iterator[str]:
    places: defaultdict[Place, list[Tally]] = defaultdict(list)
    for row in all_time.rows:
        places[named(row.event_name), row.pixel_id].append(row)
    sums = [(_of(place), copies_of(rows)._asdict()) for place, rows in sorted(places.items())]
    for name, text, copy in _OF_COPIES:
        samples = [(of, copies[copy]) for of, copies in sums if copies[copy]]
        yield _family(name, text, samples, "counter")
    for name, text, kind in _OF_COUNTS:
        reasons = totals((one.reason, one.n) for one in all_time.counts if one.kind == kind)
        kept: Counter[str] = Counter()
        for at, (reason, n) in enumerate(reasons.items()):
            kept[reason if at < MOST else OTHER] += n
        yield _family(name, text, _by("reason", kept), "counter")


# -- as text ---------------------------------------------------------------------------------------


def _of(place: Place) -> Labels:
    return {"event_name": place[0], "pixel_id": place[1]}


def _each(
    labelled: Iterable[tuple[Labels, _One]], samples: Callable[[_One], Iterable[Sample]]
) -> list[Sample]:
    return [({**of, **by}, value) for of, one in labelled for by, value in samples(one)]


def _family(name: str, text: str, samples: Iterable[Sample], kind: str = "gauge") -> str:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        if value is not None:
            shown = ",".join(f'{label}="{_label(word)}"' for label, word in labels.items())
            lines.append(f"{name}{{{shown}}} {value}" if shown else f"{name} {value}")
    return "\n".join(lines) + "\n"


def _label(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
