"""Numbers: what the store counted as events, shares and causes, and how sure a share is. Pure."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate
from math import sqrt
from typing import NamedTuple

from msgspec import Struct

from capi_middleware.events import (
    SENT,
    UNPAIRED,
    UNSEEN_BROWSER_CAUSES,
    VAGUE_BROWSER_CAUSES,
    Count,
)
from capi_middleware.meta.custom_data import decimals_of
from capi_middleware.meta.match_keys import MATCH_KEYS, match_keys_of
from capi_middleware.report.causes import server_cause
from capi_middleware.report.model import (
    TARGET,
    Choices,
    EventReport,
    Flag,
    FreshnessSeconds,
    MatchKeysByOrigin,
    MatchKeyShares,
    Money,
    Place,
    Verdict,
)
from capi_middleware.store.records import Freshness, Slice, Tallies, Tally

#: More of them nobody reads.
_MOST_CHOICES = 100
#: Fewer events than these prove nothing.
MIN_EVENTS = 5
_Z = 1.96  # both sides of a 95 % interval
#: Why an event was dropped before it left a row, and why one that has a row: causes, too.
ROWLESS = ("queue_full", "store_error", "damaged", "passed", "no_tenant")
WITH_ROW = ("killed", "dead_letter")
#: What is counted of an event apart from its rows; others say nothing about one event.
_COUNTED = frozenset(
    {"suppressed", "unmapped", "repeated", "no_event_id", "dropped", "reused", "beside", "unsigned"}
)


# -- sums and shares -------------------------------------------------------------------------------


def share(part: int, whole: int) -> float | None:
    """`part` ÷ `whole` with three decimals; None where there is nothing to divide by."""
    return round(part / whole, 3) if whole else None


class Copies(NamedTuple):
    """How many events have a server copy, a browser copy, and both."""

    server: int = 0
    browser: int = 0
    matched: int = 0

    @property
    def coverage(self) -> float | None:
        """The share of browser events that the server sent too."""
        return share(self.matched, self.browser)

    @property
    def ratio(self) -> float | None:
        """Server events for each browser event."""
        return share(self.server, self.browser)


def copies_of(rows: Iterable[Tally | Slice]) -> Copies:
    """How many of these events Meta accepted, the browser is known to have sent, and both.

    What has no twin by nature is apart, see EventReport.
    """
    server = browser = matched = 0
    for one in rows:
        if one.browser == UNPAIRED:
            continue
        if one.browser == SENT:
            browser += one.n
        if one.server == "delivered":
            server += one.n
            matched += one.n if one.browser == SENT else 0
    return Copies(server, browser, matched)


def together(events: Iterable[EventReport]) -> Copies:
    """The copies of all these events."""
    return Copies(*map(sum, zip(*((e.server, e.browser, e.matched) for e in events), strict=True)))


def totals(parts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The sum for each word, the biggest first."""
    sums: defaultdict[str, int] = defaultdict(int)
    for word, n in parts:
        sums[word] += n
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


#: States of a server copy that is withheld on purpose, and of a browser copy.
_WITHHELD, _WITHHELD_THERE = ("consent", "bot", "stopped", "unsigned"), ("consent", "bot", "replay")
#: Those that tell nothing of the event's own server copy.
_NO_COPY = ("unmapped", "unknown")


def fate(row: Tally | Slice) -> str:
    """What became of these events, as the fields of Money name it; "" for what nobody wanted.

    "neither" copy arrived, and none waits or was withheld on purpose.
    """
    if row.browser == UNPAIRED and row.server == "delivered":
        return "unpaired"
    if row.browser == SENT:
        return "both" if row.server == "delivered" else "browser_only"
    if row.server in ("delivered", "pending", "leased"):
        return "server_only" if row.server == "delivered" else "pending"
    withheld = row.server in _WITHHELD or (
        row.server in _NO_COPY and row.browser in _WITHHELD_THERE
    )
    return "" if withheld else "neither"


def money_of(slices: Iterable[Slice]) -> list[Money]:
    """What these are worth by currency, the most first."""
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in slices:
        if what := fate(one):
            sums[one.value][what] += one.n
    found = [
        Money(currency=currency, decimals=decimals_of(currency), **parts)
        for currency, parts in sorted(sums.items())
    ]
    return sorted(found, key=lambda one: -worth_of([one]))


def worth_of(money: Iterable[Money]) -> float:
    """All of it, whatever the currency: good for an order, and for nothing else."""
    return sum(
        (one.both + one.one + one.neither + one.pending + one.unpaired) / float(10**one.decimals)
        for one in money
    )


# -- events ----------------------------------------------------------------------------------------


class _Group(Struct):
    """What the tallies say about one event name at one pixel."""

    rows: list[Tally] = []
    freshness: list[Freshness] = []
    counts: list[Count] = []
    differing: int = 0
    #: How many have their other copy under another name.
    renamed: int = 0
    money: list[Slice] = []

    def told_apart(
        self, causes: Iterable[tuple[str, int]], vague: Collection[str]
    ) -> dict[str, int]:
        """The sum for each cause, where what has a copy under another name is no `vague` one."""
        parts = totals(causes)
        left = self.renamed
        for word in [one for one in parts if one in vague]:
            n = min(left, parts[word])
            parts[word] -= n
            left -= n
        parts["other_name"] = parts.get("other_name", 0) + self.renamed - left
        return totals((word, n) for word, n in parts.items() if n)

    def counted(self, kind: str) -> dict[str, int]:
        """How often, by reason."""
        return totals((one.reason, one.n) for one in self.counts if one.kind == kind)

    def suppressed(self) -> dict[str, int]:
        """Events that were never made, by reason: those of stored copies of pages, too."""
        replays = sum(n for why, n in self.counted("reused").items() if why.startswith("replay"))
        parts = self.counted("suppressed").items()
        return totals([*parts, ("replay", replays)] if replays else parts)

    def lost(self) -> int:
        """Events of which Meta got neither copy, those without a row as well."""
        dropped = self.counted("dropped")
        rows = sum(one.n for one in self.rows if fate(one) == "neither")
        return rows + sum(dropped.get(reason, 0) for reason in ROWLESS)

    def undelivered(self) -> dict[str, int]:
        """What Meta has not accepted, by cause."""
        parts = [
            (server_cause(one.server), one.n) for one in self.rows if one.server != "delivered"
        ]
        dropped, rows = self.counted("dropped"), totals(parts).get("dropped", 0)
        parts += [(reason, dropped[reason]) for reason in ROWLESS if reason in dropped]
        for reason in WITH_ROW:
            n = min(rows, dropped.get(reason, 0))
            rows -= n
            parts += [(reason, n), ("dropped", -n)]
        return {word: n for word, n in totals(parts).items() if n}


def events_of(tallies: Tallies) -> tuple[list[EventReport], dict[Place, dict[str, int]]]:
    """The numbers of each event name at each pixel in the order of both, and what is undelivered.

    That is all that the Graph API has not accepted, by cause, whatever became of the browser copy.
    """
    groups: defaultdict[Place, _Group] = defaultdict(_Group)
    for row in tallies.rows:
        groups[row.event_name, row.pixel_id].rows.append(row)
    for freshness in tallies.freshness:
        groups[freshness.event_name, freshness.pixel_id].freshness.append(freshness)
    for count in tallies.counts:
        # A page is the reason of what is unmapped: without one it names nothing to repair.
        named = count.reason or count.kind != "unmapped"
        if count.event_name and count.kind in _COUNTED and named:
            groups[count.event_name, count.pixel_id].counts.append(count)
    for one in tallies.differences:
        groups[one.event_name, one.pixel_id].differing += one.n
    for sum_ in tallies.money:
        groups[sum_.event_name, sum_.pixel_id].money.append(sum_)
    for (name, pixel_id), group in list(groups.items()):
        for why, n in group.counted("reused").items():
            if why.startswith("name "):
                for place in ((name, pixel_id), (why.removeprefix("name "), pixel_id)):
                    if place in groups:
                        groups[place].renamed += n
    events = [_event(*place, groups[place]) for place in sorted(groups)]
    return events, {place: group.undelivered() for place, group in groups.items()}


def _event(name: str, pixel_id: str, group: _Group) -> EventReport:
    every = [row for row in group.rows if row.server == "delivered"]
    delivered = [row for row in every if row.browser != UNPAIRED]
    unpaired = _match_keys(row for row in every if row.browser == UNPAIRED)
    copies = copies_of(group.rows)
    return EventReport(
        event_name=name,
        pixel_id=pixel_id,
        **copies._asdict(),
        server_only=copies.server - copies.matched,
        browser_only=copies.browser - copies.matched,
        coverage=copies.coverage,
        ratio=copies.ratio,
        pending=group.undelivered().get("pending", 0),
        suppressed=group.suppressed(),
        missing_browser=group.told_apart(
            ((row.browser, row.n) for row in delivered if row.browser != SENT), VAGUE_BROWSER_CAUSES
        ),
        missing_server=group.told_apart(
            (
                (server_cause(row.server), row.n)
                for row in group.rows
                if row.browser == SENT and row.server != "delivered"
            ),
            ("unmapped", "unknown"),
        ),
        without_event_id=sum(group.counted("no_event_id").values()),
        repeated=sum(group.counted("repeated").values()),
        differing=group.differing,
        unsigned=sum(group.counted("unsigned").values()),
        unmapped_pages=group.counted("unmapped"),
        unpaired=unpaired.events,
        lost=group.lost(),
        money=money_of(group.money),
        match_keys=_match_keys(delivered).keys,
        match_keys_by_origin=MatchKeysByOrigin(
            browser=_match_keys(r for r in delivered if r.browser not in UNSEEN_BROWSER_CAUSES),
            server_only=_match_keys(r for r in delivered if r.browser in UNSEEN_BROWSER_CAUSES),
            unpaired=unpaired,
        ),
        freshness_seconds=_freshness(group.freshness),
    )


def _match_keys(rows: Iterable[Tally]) -> MatchKeyShares:
    """How many events `rows` stand for, and the share of them that carries each key."""
    events = 0
    carrying = dict.fromkeys(MATCH_KEYS, 0)
    for row in rows:
        events += row.n
        for key in match_keys_of(row.match_keys):
            carrying[key] += row.n
    return MatchKeyShares(events, {k: round(n / events, 3) for k, n in carrying.items() if n})


def _freshness(groups: Iterable[Freshness]) -> FreshnessSeconds:
    ordered = sorted((group.seconds, group.n) for group in groups)
    if not ordered:
        return FreshnessSeconds()
    ranks = list(accumulate(n for _, n in ordered))
    # The smallest of the seconds that so many hundredths of all events do not exceed.
    p50, p95 = (ordered[bisect_left(ranks, -(-ranks[-1] * of // 100))][0] for of in (50, 95))
    return FreshnessSeconds(p50, p95, ordered[-1][0])


def decisions(counts: Iterable[Count]) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """How often each rule of consent gave each answer; and the held pages that had none in time."""
    rules: defaultdict[str, dict[str, int]] = defaultdict(dict)
    told = totals((f"{one.kind} {one.reason}", one.n) for one in counts)
    for reason, n in told.items():
        kind, _, decision = reason.partition(" ")
        if kind == "consent":
            rule, _, answer = decision.partition(" ")
            rules[rule][answer] = n
    # Some may have been held before this window.
    left = {
        rule: max(0, answers["held"] - answers.get("released", 0) - told.get(f"refused {rule}", 0))
        for rule, answers in rules.items()
        if "held" in answers
    }
    return dict(rules), left


def choices_of(rows: Iterable[Tally]) -> Choices:
    """The names and pixels of these rows that have the most."""
    events, pixels = Counter[str](), Counter[str]()
    for one in rows:
        events[one.event_name] += one.n
        pixels[one.pixel_id] += one.n
    return Choices(*([name for name, _ in n.most_common(_MOST_CHOICES)] for n in (events, pixels)))


def page_views(pages: Iterable[Slice]) -> dict[str, int]:
    """How often each page was seen: one view is a row for each pixel."""
    rows: defaultdict[tuple[str, str], int] = defaultdict(int)
    for one in pages:
        if one.event_name == "PageView" and one.value:
            rows[one.value, one.pixel_id] += one.n
    views: dict[str, int] = {}
    for (page, _), n in rows.items():
        views[page] = max(n, views.get(page, 0))
    return views


# -- how sure a share is ---------------------------------------------------------------------------


def wilson_upper(part: int, whole: int) -> float:
    """The upper end of the 95 % interval of the share `part` ÷ `whole`, for a share below 1.

    Wilson's score interval with continuity correction (Newcombe 1998, method 4). Without the
    correction two events of which none is covered would pass for proof of a share under 0.66.
    """
    p = part / whole
    root = sqrt(_Z**2 + 2 - 1 / whole + 4 * p * (whole * (1 - p) - 1))
    return (2 * part + _Z**2 + 1 + _Z * root) / (2 * (whole + _Z**2))


def surely_below(part: int, whole: int, target: float) -> bool:
    """Whether the share `part` ÷ `whole` is less than `target` and not by chance."""
    if whole < MIN_EVENTS or part >= whole:
        return False
    return wilson_upper(part, whole) < target


def misses(part: int, whole: int, target: float) -> bool:
    """Whether the share as it is printed is less than `target`, and surely so."""
    printed = share(part, whole)
    return printed is not None and printed < target and surely_below(part, whole, target)


def surely_above(part: int, whole: int, limit: float) -> bool:
    """Whether the share `part` ÷ `whole` is more than `limit` and not by chance."""
    return surely_below(whole - part, whole, 1 - limit)


# -- in words --------------------------------------------------------------------------------------


def percent(share: float | None) -> str:
    """`share` (0 to 1, or a ratio) in percent with one decimal; "no data" for None."""
    return "no data" if share is None else f"{share * 100:.1f} %"


def goal(target: float) -> str:
    """`target` (0 to 1) in percent, with the decimals it was set with."""
    return f"{target * 100:g} %"


def verdict(event: EventReport) -> tuple[str, str]:
    """A word for one event, and a sentence.

    "on target", "below target", "beyond the page" or "no data".
    """
    if event.coverage is not None:
        return (
            "on target" if event.coverage >= TARGET else "below target",
            f"{covered(event)} ({percent(event.coverage)}, target {goal(TARGET)})",
        )
    if event.unpaired and not event.server:
        return "beyond the page", (
            f"{event.unpaired:,} accepted; they have no browser copy to be compared with"
        )
    return "no data", (
        f"{event.server:,} server events and 0 browser events, so there is no coverage to tell"
    )


def overall(events: Sequence[EventReport], flags: Sequence[Flag]) -> Verdict:
    """What to think of `events` with these `flags`. No data is never good."""
    copies = together(events)
    told = f" {covered(copies)} ({percent(copies.coverage)})." if copies.browser else ""
    gravest = {one.cause: one.severity for one in reversed(flags)}
    severities = Counter(gravest.values())
    if n := severities["critical"]:
        return Verdict("act", f"{_things(n)} to act on now.{told}")
    if n := severities["warning"]:
        return Verdict("look", f"{_things(n)} to look at.{told}")
    if not events:
        return Verdict("no data", "No events.")
    if not any(one.browser >= MIN_EVENTS for one in events):
        few = "Too few events in this window to say anything about coverage."
        return Verdict("no data", few + told)
    return Verdict("healthy", f"Nothing to do.{told}")


def _things(n: int) -> str:
    return f"{n} {'thing' if n == 1 else 'things'}"


def covered(of: Copies | EventReport) -> str:
    """How many of the browser's events the server covers, both numbers told."""
    return f"{of.matched:,} of {of.browser:,} browser events are covered by the server"
