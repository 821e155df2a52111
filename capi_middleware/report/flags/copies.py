"""Flags about the two copies of each event: what is missing, does not fit, or suddenly falls.

A share is judged as it is printed, rounded to three decimals, and only where it is no chance:
two events raise nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import sqrt

from capi_middleware.events import STANDARD_EVENTS
from capi_middleware.report.causes import Cause, cause_of
from capi_middleware.report.flags.registry import TEXTS, Facts, Flags, check, flag
from capi_middleware.report.model import EventReport, Place, Severity, Side
from capi_middleware.report.numbers import (
    MIN_EVENTS,
    Copies,
    copies_of,
    goal,
    misses,
    percent,
    share,
    surely_above,
)
from capi_middleware.store.records import Slice

#: A drop shows in so many hours together, beside the same hours of so many days before.
_HOURS, _DAYS = 3, 7
#: How far the hours of a report reach back for it, in seconds.
LOOKS_BACK = (_DAYS * 24 + _HOURS + 1) * 3600
#: Fewer events than these on an average day are too few to miss any.
_USUAL = 20.0
#: A drop is less than half of the usual, and by more than chance (standard deviations of Poisson).
_HALF, _DEVIATIONS = 0.5, 4.0
#: A share of replays that is chance, and one of lost events that nobody may overlook.
_CHANCE, _LOST = 0.005, 0.05
#: What forms mean, and are easily taken for one another.
_FORMS = frozenset(
    {"Lead", "CompleteRegistration", "SubmitApplication", "Contact", "Schedule", "Subscribe",
     "StartTrial"}
)  # fmt: skip
#: What Google Analytics, Segment and shops call Meta's events, letters alone.
_OTHERS_NAMES = {
    "purchases": "purchase", "order": "purchase", "ordercompleted": "purchase",
    "ordercomplete": "purchase", "orderplaced": "purchase", "checkoutcompleted": "purchase",
    "begincheckout": "initiatecheckout", "checkoutstarted": "initiatecheckout",
    "viewitem": "viewcontent", "productviewed": "viewcontent", "viewproduct": "viewcontent",
    "productadded": "addtocart", "addtobasket": "addtocart", "addtobag": "addtocart",
    "signup": "completeregistration", "registration": "completeregistration",
    "generatelead": "lead", "leads": "lead", "formsubmit": "lead", "subscribed": "subscribe",
    "trialstarted": "starttrial", "viewsearchresults": "search",
}  # fmt: skip
#: With fewer days of data nobody knows what is usual.
_LEAST_DAYS = 3


@check
def coverage_below_target(facts: Facts) -> Flags:
    """The server covers too few of the browser's events."""
    for event in facts.wanting("server"):
        yield from _below(facts, event, event.matched, "critical")


@check
def ratio_below_target(facts: Facts) -> Flags:
    """The server delivers fewer events than the browser sends."""
    for event in facts.wanting("server"):
        yield from _below(facts, event, event.server, "warning")


def _below(facts: Facts, event: EventReport, n: int, severity: Severity) -> Flags:
    """The flag where `n` misses the target among the browser's events."""
    part, target = share(n, event.browser), facts.target
    if part is not None and misses(n, event.browser, target):
        yield flag(
            severity, event.place, value=part, target=target,
            event=event, share=percent(part), goal=goal(target), fix=_server_fix(facts, event),
        )  # fmt: skip


@check
def browser_missing(facts: Facts) -> Flags:
    """Too many server events have no browser copy."""
    allowed = round(1 - facts.target, 3)
    for event in facts.wanting("browser"):
        missing = share(event.server_only, event.server) or 0.0
        if missing > allowed and surely_above(event.server_only, event.server, allowed):
            most, cause = _biggest("browser", event.missing_browser)
            yield flag(
                cause.severity, event.place, value=missing, target=allowed,
                event=event, share=percent(missing), most=most, cause=cause,
            )  # fmt: skip


@check
def server_missing(facts: Facts) -> Flags:
    """Browser events have no server copy; one that is on its way is not missing."""
    allowed = round(1 - facts.target, 3)
    for event in facts.wanting("server"):
        causes = {cause: n for cause, n in event.missing_server.items() if cause != "pending"}
        n = sum(causes.values())
        missing = share(n, event.browser)
        if n and missing is not None:
            most, cause = _biggest("server", causes)
            severity: Severity = "warning" if surely_above(n, event.browser, allowed) else "info"
            yield flag(
                severity, event.place, value=missing, target=allowed, n=n,
                event=event, share=percent(missing), most=most, cause=cause,
                fix=_server_fix(facts, event),
            )  # fmt: skip


def _biggest(side: Side, causes: Mapping[str, int]) -> tuple[str, Cause]:
    word, n = next(iter(causes.items()))
    return f"{word}: {n:,} of {sum(causes.values()):,}", cause_of(side, word)


def _server_fix(facts: Facts, event: EventReport) -> str:
    """What brings the missing server copies, with the line to write where it is known."""
    if doubles := _doubles(facts, event):
        return doubles
    word = next(iter(event.missing_server))
    if word != "unmapped" or not event.unmapped_pages:
        return cause_of("server", word).fix
    page = next(iter(event.unmapped_pages))
    return (
        f'Config(mirror=["{event.event_name}"]) sends them, or EventRoute("GET {page}", '
        f'"{event.event_name}") if the page itself is the event, or track("{event.event_name}")'
        " in the view that does it."
    )


def _doubles(facts: Facts, event: EventReport) -> str:
    """What to do instead where another server copy would count the same event once more.

    The server sends it under another name, or without a page that could know its event_id.
    """
    if not (event.without_event_id or "unmapped" in event.missing_server):
        return ""
    for other in facts.events:
        if other.server and _one_thing(event, other):
            return _renamed(event.event_name, other.event_name)
    if event.missing_browser.get("not_rendered"):
        return TEXTS["event_id_mismatch"].fix.format_map({"event": event})
    return ""


@check
def event_id_mismatch(facts: Facts) -> Flags:
    """Both sides have events that meet nobody: the same ones, with two event_ids."""
    for event in facts.events:
        unmapped = event.missing_server.get("unmapped", 0) + event.missing_server.get("unknown", 0)
        alone = min(unmapped, event.server_only)
        if surely_above(alone, max(event.server, event.browser), 0.5):
            yield flag("critical", event.place, value=alone, event=event, unmapped=unmapped)


@check
def event_id_missing(facts: Facts) -> Flags:
    """Calls of the pages' own pixel code went out bare."""
    for event in facts.events:
        if n := event.without_event_id:
            mirror = f'Config(mirror=["{event.event_name}"])'
            fix = f"{mirror} gives them an event_id and a server copy."
            fix = (
                _server_fix(facts, event) if event.missing_server else _doubles(facts, event) or fix
            )
            yield flag("warning" if n >= MIN_EVENTS else "info", event.place, value=n, fix=fix)


@check
def repeated_events(facts: Facts) -> Flags:
    """Events look like one that the same visitor caused just before."""
    for event in facts.events:
        if event.repeated:
            yield flag("warning", event.place, value=event.repeated)


@check
def page_unproven(facts: Facts) -> Flags:
    """Events were not made: their page asks for them, and nothing shows that they happened."""
    words = TEXTS["page_unproven"].words
    for event in facts.events:
        for reason in words.keys() & event.suppressed.keys():
            yield flag("warning", event.place, value=event.suppressed[reason], words=words[reason])


@check
def values_differ(facts: Facts) -> Flags:
    """The two copies of an event carry another value or currency."""
    for event in facts.events:
        if event.differing:
            yield flag("warning", event.place, value=event.differing, event=event)


@check
def event_id_reused(facts: Facts) -> Flags:
    """Several events share one event_id, of which Meta keeps one."""
    reused = facts.counted("reused")
    for event in facts.events:
        words, places = Counter[str](), defaultdict[str, Counter[str]](Counter)
        for why, n in reused[event.place].items():
            word, _, place = why.partition(" ")
            if word in TEXTS["event_id_reused"].words:
                words[word] += n
                places[word][place] += n
        total = words.total()
        # Two tabs that a new visitor opens at once look like a copy, too.
        if not total or (set(words) == {"replay"} and total < event.browser * _CHANCE):
            continue
        [(word, _)] = words.most_common(1)
        [(place, _)] = places[word].most_common(1)
        shared = total - words["empty"]
        lost = surely_above(shared, shared + event.server, _LOST)
        severity: Severity = "critical" if lost else "warning" if total >= MIN_EVENTS else "info"
        if word in ("value", "order", "told") and severity == "info":
            severity = "warning"
        yield flag(
            severity, event.place, value=total, where=f" at {place}" if place else "",
            words=TEXTS["event_id_reused"].words[word],
        )  # fmt: skip


@check
def name_mismatch(facts: Facts) -> Flags:
    """One event_id came under two names."""
    mismatched = _mismatched(facts)
    for event in facts.events:
        for other, n in mismatched[event.place].most_common(1):
            names = sorted((event.event_name, other), key=lambda one: one in STANDARD_EVENTS)
            yield flag(
                "warning", event.place, value=n,
                name=event.event_name, other=other, fix=_renamed(*names),
            )  # fmt: skip


def _mismatched(facts: Facts) -> Mapping[Place, Counter[str]]:
    """By event, the names that had an event_id before this event came with it, and how often."""
    found: defaultdict[Place, Counter[str]] = defaultdict(Counter)
    for place, counted in facts.counted("reused").items():
        for why, n in counted.items():
            if why.startswith("name "):
                found[place][why.removeprefix("name ")] += n
    return found


def _renamed(name: str, other: str) -> str:
    """What to call an event that has two names, of which `other` is more likely Meta's."""
    return TEXTS["name_mismatch"].words["fix"]["rename"].format_map({"name": name, "other": other})


@check
def two_names(facts: Facts) -> Flags:
    """One thing seems to have two names: they are spelled alike, or always come together."""
    told = {
        (pixel_id, frozenset((name, other)))
        for (name, pixel_id), others in _mismatched(facts).items()
        for other in others
    }
    alike: defaultdict[Place, list[EventReport]] = defaultdict(list)
    for event in facts.events:
        alike[_spelled(event.event_name), event.pixel_id].append(event)
    for (_, pixel_id), events in alike.items():
        # The ones that Meta does not know first.
        events.sort(key=lambda one: one.event_name in STANDARD_EVENTS)
        for event in events[:-1]:
            known = events[-1]
            pair = pixel_id, frozenset((event.event_name, known.event_name))
            if pair not in told:
                told.add(pair)
                yield flag(
                    "warning", event.place, value=_all(event), target=_all(known),
                    how="are spelled alike", name=event.event_name, other=known.event_name,
                )  # fmt: skip
    totals = {event.place: _all(event) for event in facts.events}
    beside = facts.counted("beside")
    for event in facts.events:
        for name, n in beside[event.place].most_common():
            pair = event.pixel_id, frozenset((event.event_name, name))
            fewest = min(_all(event), totals.get((name, event.pixel_id), 0))
            if pair in told or n * 2 < fewest:
                continue
            forms = {event.event_name, name} <= _FORMS and n >= MIN_EVENTS
            yield flag(
                "warning" if forms else "info", event.place, value=n, target=fewest,
                how=f"came together {n:,} times, on one page within seconds",
                name=event.event_name, other=name,
            )  # fmt: skip
            break


def _all(event: EventReport) -> int:
    return event.server + event.browser_only + event.pending


def _one_thing(event: EventReport, other: EventReport) -> bool:
    """Whether two events of one pixel seem to be one that is spelled in two ways."""
    name, another = event.event_name, other.event_name
    apart = name != another and event.pixel_id == other.pixel_id
    return apart and _spelled(name) == _spelled(another)


def _spelled(name: str) -> str:
    """The letters of a name alone, as Meta calls the same."""
    letters = "".join(one for one in name.casefold() if one.isalnum())
    return _OTHERS_NAMES.get(letters, letters)


@check
def sudden_drop(facts: Facts) -> Flags:
    """Copies became fewer in the last hours than in the same hours of the days before.

    So nights and mornings are not compared.
    """
    end = int(facts.upto) // 3600
    places: defaultdict[Place, defaultdict[int, list[Slice]]]
    places = defaultdict(lambda: defaultdict(list))
    for one in facts.hours:
        ago = end - 1 - int(one.value) // 3600
        day, hour = divmod(ago, 24)
        if ago >= 0 and hour < _HOURS and day <= _DAYS:
            places[one.event_name, one.pixel_id][day].append(one)
    for place, hours in places.items():
        now = copies_of(hours.pop(0, []))
        fallen = _fallen(now, [copies_of(one) for one in hours.values()])
        if fallen:
            left, usual, side = min(fallen, key=lambda one: one[0] / one[1])
            yield flag(
                "critical" if left == 0 else "warning", place, value=left, target=round(usual, 1),
                side=side, hours=_HOURS, usual=usual,
                words=TEXTS["sudden_drop"].words["both" if len(fallen) == 2 else side],
            )  # fmt: skip


def _fallen(now: Copies, before: Sequence[Copies]) -> list[tuple[int, float, Side]]:
    """(now, usual, side) of each copy that fell."""
    if len(before) < _LEAST_DAYS:
        return []
    averages = [sum(counts) / len(before) for counts in zip(*before, strict=True)]
    sides: list[tuple[int, float, Side]] = [
        (now.server, averages[0], "server"),
        (now.browser, averages[1], "browser"),
    ]
    return [
        (left, usual, side)
        for left, usual, side in sides
        if usual >= _USUAL and left < min(usual * _HALF, usual - _DEVIATIONS * sqrt(usual))
    ]
