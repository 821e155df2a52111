"""From tallies to numbers and causes: what both copies share, and why the rest does not match."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate

from msgspec import Struct, field

from capi_middleware.config.settings import Config
from capi_middleware.events import SENT
from capi_middleware.report.breakdowns import Slices, breakdowns, trends
from capi_middleware.report.flags.copies import flags_of_blockers, flags_of_copies
from capi_middleware.report.flags.delivery import (
    Refusals,
    flags_of_delivery,
    flags_of_interruptions,
)
from capi_middleware.report.flags.drops import flags_of_drops
from capi_middleware.report.flags.evidence import gravest_first
from capi_middleware.report.flags.policies import flags_of_policies
from capi_middleware.report.flags.setup import flags_of_setup
from capi_middleware.report.health import flags_of_health
from capi_middleware.report.match_keys import advise, by_origin, shares
from capi_middleware.report.model import (
    TARGET,
    EventReport,
    FreshnessSeconds,
    Health,
    Report,
    ReportWindow,
)
from capi_middleware.report.verdict import overall
from capi_middleware.report.window import iso
from capi_middleware.store.records import Freshness, Tallies, Tally

__all__ = ["EventReport", "Report", "build"]

#: States whose cause has another name; every other state is its own cause.
_SERVER_CAUSE = {"leased": "pending", "dead": "rejected"}


class _Group(Struct):
    """What the tallies say about one event name at one pixel."""

    rows: list[Tally] = field(default_factory=list)
    freshness: list[Freshness] = field(default_factory=list)
    suppressed: list[tuple[str, int]] = field(default_factory=list)
    pages: list[tuple[str, int]] = field(default_factory=list)
    dropped: int = 0
    repeated: int = 0
    without_event_id: int = 0
    differing: int = 0


def build(
    tallies: Tallies,
    *,
    start: float,
    end: float,
    event: str | None,
    pixel: str | None,
    target: float = TARGET,
    health: Health | None = None,
    config: Config | None = None,
    slices: Slices | None = None,
    refusals: Refusals | None = None,
    now: float | None = None,
) -> Report:
    """The report on `tallies`, which the store gave for the window [start, end).

    Args:
        tallies: everything in the window, aggregated.
        start: Unix time in seconds.
        end: Unix time in seconds, not part of the window.
        event: only this event name; None for all.
        pixel: only this pixel; None for all.
        target: the share of browser events that the server should cover, 0 to 1.
        health: the state of delivery, whatever the window.
        config: the settings, for flags about them.
        slices: the same rows by facet; those by hour may reach further back, see flags/drops.py.
        refusals: the reasons of present dead letters.
        now: Unix time in seconds, for what happened just now; the end of the window by default.
    """

    def wanted(name: str, pixel_id: str) -> bool:
        return event in (None, name) and pixel in (None, pixel_id)

    parts: Slices = {
        facet: [one for one in found if wanted(one.event_name, one.pixel_id)]
        for facet, found in (slices or {}).items()
    }
    flags = flags_of_health(health) if health is not None else []
    flags += flags_of_policies(tallies.counts)
    flags += flags_of_interruptions(tallies.counts)
    events: list[EventReport] = []
    for (name, pixel_id), group in sorted(_groups(tallies).items()):
        if not wanted(name, pixel_id):
            continue
        undelivered = _undelivered(group)
        report = _event_report(name, pixel_id, group, undelivered.get("pending", 0))
        events.append(report)
        flags += flags_of_copies(report, target, _sides(config, name))
        reasons = (refusals or {}).get((name, pixel_id), {})
        flags += flags_of_delivery(report, undelivered, reasons)
    flags += flags_of_blockers(events)
    if config is not None:
        whole = event is None and pixel is None
        flags += flags_of_setup(config, events, _views(parts), whole=whole)
    by_hour = parts.get("hour", ())
    present = end if now is None else min(end, now)
    flags += flags_of_drops(by_hour, upto=present // 3600 * 3600)
    flags = gravest_first(flags)
    advice = [one for one in map(advise, events) if one is not None]
    return Report(
        window=ReportWindow(iso(start), iso(end)),
        verdict=overall(events, flags),
        events=events,
        match_key_advice=sorted(advice, key=lambda one: -one.worth),
        flags=flags,
        trends=trends(by_hour, start=start, end=end),
        breakdowns=breakdowns(events, parts),
        health=health,
    )


def _sides(config: Config | None, name: str) -> set[str]:
    """What the routes of an event send: "both" for one that no route makes."""
    routes = config.routes if config is not None else ()
    return {route.send for route in routes if route.event_name == name} or {"both"}


def _views(slices: Slices) -> dict[str, int]:
    """How often each page was seen: one view is a row for each pixel."""
    rows: defaultdict[tuple[str, str], int] = defaultdict(int)
    for one in slices.get("page", ()):
        if one.event_name == "PageView" and one.value:
            rows[one.value, one.pixel_id] += one.n
    views: dict[str, int] = {}
    for (page, _), n in rows.items():
        views[page] = max(n, views.get(page, 0))
    return views


def _groups(tallies: Tallies) -> dict[tuple[str, str], _Group]:
    groups: defaultdict[tuple[str, str], _Group] = defaultdict(_Group)
    for row in tallies.rows:
        groups[row.event_name, row.pixel_id].rows.append(row)
    for freshness in tallies.freshness:
        groups[freshness.event_name, freshness.pixel_id].freshness.append(freshness)
    for count in tallies.counts:
        if not count.event_name:
            continue
        if count.kind == "suppressed":
            groups[count.event_name, count.pixel_id].suppressed.append((count.reason, count.n))
        elif count.kind == "unmapped" and count.reason:
            groups[count.event_name, count.pixel_id].pages.append((count.reason, count.n))
        elif count.kind == "repeated":
            groups[count.event_name, count.pixel_id].repeated += count.n
        elif count.kind == "no_event_id":
            groups[count.event_name, count.pixel_id].without_event_id += count.n
        elif count.kind == "dropped":
            groups[count.event_name, count.pixel_id].dropped += count.n
    for one in tallies.differences:
        groups[one.event_name, one.pixel_id].differing += one.n
    return groups


def _undelivered(group: _Group) -> dict[str, int]:
    """All that the Graph API has not accepted, by cause, whatever became of the browser copy."""
    causes = [(_server_cause(row), row.n) for row in group.rows if row.server != "delivered"]
    if group.dropped:
        causes.append(("dropped", group.dropped))
    return _totals(causes)


def _event_report(name: str, pixel_id: str, group: _Group, pending: int) -> EventReport:
    delivered = [row for row in group.rows if row.server == "delivered"]
    sent = [row for row in group.rows if row.browser == SENT]
    server, browser = _n(delivered), _n(sent)
    matched = _n(row for row in delivered if row.browser == SENT)
    return EventReport(
        event_name=name,
        pixel_id=pixel_id,
        server=server,
        browser=browser,
        matched=matched,
        server_only=server - matched,
        browser_only=browser - matched,
        coverage=_share(matched, browser),
        ratio=_share(server, browser),
        pending=pending,
        suppressed=_totals(group.suppressed),
        missing_browser=_totals((row.browser, row.n) for row in delivered if row.browser != SENT),
        missing_server=_totals(
            (_server_cause(row), row.n) for row in sent if row.server != "delivered"
        ),
        without_event_id=group.without_event_id,
        repeated=group.repeated,
        differing=group.differing,
        unmapped_pages=_totals(group.pages),
        match_keys=shares(delivered).keys,
        match_keys_by_origin=by_origin(delivered),
        freshness_seconds=_freshness(group.freshness),
    )


def _server_cause(row: Tally) -> str:
    return _SERVER_CAUSE.get(row.server, row.server)


def _n(rows: Iterable[Tally]) -> int:
    return sum(row.n for row in rows)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None


def _totals(parts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The sum for each word, the biggest first."""
    totals: defaultdict[str, int] = defaultdict(int)
    for word, n in parts:
        totals[word] += n
    return dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))


def _freshness(groups: Iterable[Freshness]) -> FreshnessSeconds:
    ordered = sorted((group.seconds, group.n) for group in groups)
    if not ordered:
        return FreshnessSeconds(None, None, None)
    return FreshnessSeconds(_percentile(ordered, 50), _percentile(ordered, 95), ordered[-1][0])


def _percentile(ordered: list[tuple[float, int]], percent: int) -> float:
    """The smallest of the seconds that `percent` of all events do not exceed (nearest rank)."""
    ranks = list(accumulate(n for _, n in ordered))
    rank = -(-ranks[-1] * percent // 100)  # rounded up
    return ordered[bisect_left(ranks, rank)][0]
