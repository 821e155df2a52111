"""Metrics: the report and the totals of all time kept, in Prometheus' text format 0.0.4.

Names, units and types as "Metric and label naming" has them. Label values are bounded: at most
MOST event names (the busiest; the rest is summed as "other") and MOST reasons; a page or a route is
never a label.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from math import inf

from msgspec.structs import replace

from capi_middleware.config.settings import Config
from capi_middleware.events import SENT
from capi_middleware.report.model import EventReport, FreshnessSeconds, Health, Report
from capi_middleware.report.read import read_report
from capi_middleware.report.window import Window
from capi_middleware.store.records import Tallies
from capi_middleware.store.store import Store

#: How many event names, and how many reasons of one kind, have series of their own.
MOST = 100
OTHER = "other"

Labels = Mapping[str, str]
#: (event name or "other", pixel_id).
Place = tuple[str, str]


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
    volume: Counter[str] = Counter()
    for row in all_time.rows:
        volume[row.event_name] += row.n
    for event in report.events:
        volume[event.event_name] += 0
    for count in all_time.counts:
        if count.event_name:
            volume[count.event_name] += count.n
    ranked = sorted(volume, key=lambda name: (-volume[name], name))
    own = frozenset(ranked[:MOST])
    return lambda name: name if name in own else OTHER


def _folded(events: Iterable[EventReport], named: Callable[[str], str]) -> list[EventReport]:
    found: dict[Place, EventReport] = {}
    for event in events:
        place = (named(event.event_name), event.pixel_id)
        event = replace(event, event_name=place[0])
        found[place] = _sum(found[place], event) if place in found else event
    return [found[place] for place in sorted(found)]


def _sum(one: EventReport, two: EventReport) -> EventReport:
    """`one` with the numbers that are told here of both; quantiles cannot be added."""
    server, browser = one.server + two.server, one.browser + two.browser
    matched = one.matched + two.matched
    return replace(
        one,
        server=server,
        browser=browser,
        matched=matched,
        coverage=_share(matched, browser),
        ratio=_share(server, browser),
        pending=one.pending + two.pending,
        suppressed=_added(one.suppressed, two.suppressed),
        missing_browser=_added(one.missing_browser, two.missing_browser),
        missing_server=_added(one.missing_server, two.missing_server),
        freshness_seconds=FreshnessSeconds(None, None, None),
    )


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None


def _added(one: Mapping[str, int], two: Mapping[str, int]) -> dict[str, int]:
    return dict(Counter(one) + Counter(two))


# -- what there is to tell -------------------------------------------------------------------------


def _window(report: Report, events: list[EventReport]) -> Iterable[str]:
    start, end = (
        datetime.fromisoformat(moment).timestamp()
        for moment in (report.window.start, report.window.end)
    )
    within = "in the window of capi_window_seconds."
    both = [({"event_name": e.event_name, "pixel_id": e.pixel_id}, e) for e in events]
    yield _family("capi_window_seconds", "Length of the report's window.", [({}, end - start)])
    yield _family("capi_window_end_timestamp_seconds", "End of the window.", [({}, end)])
    yield _family(
        "capi_window_events",
        f"Events by copy, {within}",
        [
            ({**of, "copy": copy}, n)
            for of, e in both
            for copy, n in (("server", e.server), ("browser", e.browser), ("matched", e.matched))
        ],
    )
    yield _family(
        "capi_window_missing_events",
        f"Copies missing, by cause, {within}",
        [
            ({**of, "side": side, "cause": cause}, n)
            for of, e in both
            for side, causes in (("browser", e.missing_browser), ("server", e.missing_server))
            for cause, n in causes.items()
        ],
    )
    yield _family(
        "capi_window_suppressed_events",
        f"Events never made, {within}",
        [({**of, "reason": reason}, n) for of, e in both for reason, n in e.suppressed.items()],
    )
    yield _family(
        "capi_window_pending_events",
        f"Server copies waiting, {within}",
        [(of, e.pending) for of, e in both],
    )
    yield _family(
        "capi_window_coverage_ratio",
        f"Browser events that the server covers, 0 to 1, {within}",
        [(of, e.coverage) for of, e in both],
    )
    yield _family(
        "capi_window_server_browser_ratio",
        f"Server events for each browser event, {within}",
        [(of, e.ratio) for of, e in both],
    )
    yield _family(
        "capi_window_freshness_seconds",
        f"Time from an event to Meta's answer, by quantile, {within}",
        [
            ({**of, "quantile": quantile}, value)
            for of, e in both
            for quantile, value in (
                ("0.5", e.freshness_seconds.p50),
                ("0.95", e.freshness_seconds.p95),
                ("1", e.freshness_seconds.max),
            )
        ],
    )
    flags = Counter((flag.code, flag.severity) for flag in report.flags)
    yield _family(
        "capi_flags",
        "Flags of the report, of all events and pixels.",
        [({"code": code, "severity": severity}, n) for (code, severity), n in flags.items()],
    )


def _health(health: Health | None) -> Iterable[str]:
    if health is None:
        return
    rows = [({"state": state}, n) for state, n in health.outbox.items()]
    yield _family("capi_outbox_rows", "Rows in the store by state of the server copy.", rows)
    pixels = [({"pixel_id": one.pixel_id}, one) for one in health.pixels]
    waiting = [(of, one.waiting) for of, one in pixels]
    yield _family("capi_outbox_waiting_events", "Server copies that wait for delivery.", waiting)
    oldest = [(of, one.oldest_seconds) for of, one in pixels]
    yield _family("capi_outbox_oldest_seconds", "Age of the oldest that waits.", oldest)
    paused = [(of, int(one.paused_until is not None)) for of, one in pixels]
    yield _family("capi_pixel_paused", "1 while Meta lets the pixel rest.", paused)
    yield _family(
        "capi_delivering", "0 when a delivery thread ended.", [({}, int(health.delivering))]
    )


def _totals(all_time: Tallies, named: Callable[[str], str]) -> Iterable[str]:
    accepted: Counter[Place] = Counter()
    sent: Counter[Place] = Counter()
    for row in all_time.rows:
        place = (named(row.event_name), row.pixel_id)
        if row.server == "delivered":
            accepted[place] += row.n
        if row.browser == SENT:
            sent[place] += row.n
    for name, text, totals in (
        ("capi_server_events_accepted_total", "Server copies that Meta accepted.", accepted),
        ("capi_browser_events_sent_total", "Browser copies that are known to have left.", sent),
    ):
        samples = [
            ({"event_name": event, "pixel_id": pixel}, n)
            for (event, pixel), n in sorted(totals.items())
        ]
        yield _family(name, text, samples, "counter")
    for name, text, kind in (
        ("capi_suppressed_events_total", "Events never made: consent, bots and so on.",
         "suppressed"),
        ("capi_dropped_events_total", "Server copies that were given up.", "dropped"),
        ("capi_errors_total", "Errors of ours that the host never saw.", "error"),
    ):  # fmt: skip
        reasons: Counter[str] = Counter()
        for count in all_time.counts:
            if count.kind == kind:
                reasons[count.reason] += count.n
        yield _family(name, text, _by_reason(reasons), "counter")


def _by_reason(reasons: Mapping[str, int]) -> list[tuple[Labels, int]]:
    ranked = sorted(reasons, key=lambda reason: (-reasons[reason], reason))
    kept: Counter[str] = Counter({reason: reasons[reason] for reason in ranked[:MOST]})
    for reason in ranked[MOST:]:
        kept[OTHER] += reasons[reason]
    return [({"reason": reason}, n) for reason, n in kept.items()]


# -- as text ---------------------------------------------------------------------------------------


def _family(
    name: str, text: str, samples: Iterable[tuple[Labels, float | None]], kind: str = "gauge"
) -> str:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        if value is not None:
            shown = ",".join(f'{label}="{_label(word)}"' for label, word in labels.items())
            lines.append(f"{name}{{{shown}}} {value}" if shown else f"{name} {value}")
    return "\n".join(lines) + "\n"


def _label(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
