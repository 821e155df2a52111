"""Flags about the two copies of each event: what is missing, stops, or does not fit.

A share is judged as it is printed, rounded to three decimals, and only where it is no chance:
two events raise nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from capi_middleware.events import SENT, STANDARD_EVENTS, UNPAIRED
from capi_middleware.report.causes import Cause, cause_of
from capi_middleware.report.flags.registry import TEXTS, Facts, Flags, check, flag
from capi_middleware.report.model import EventReport, Place, Severity, Side
from capi_middleware.report.numbers import MIN_EVENTS, goal, misses, percent, share, surely_above
from capi_middleware.report.silence import Span, last_fall, span_of
from capi_middleware.report.window import iso

#: Where less than this share is left, the copy is gone.
_GONE = 0.1
#: Server copies that are there, or on their way: what waits is not missing.
_THERE = frozenset({"delivered", "pending"})
#: So many other events are named.
_NAMED = 5
#: Copies by event, and by hours since 1970.
_Hours = defaultdict[Place, Counter[int]]
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
            event=event, share=percent(part), goal=goal(target), by=_why(facts, event),
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
                event=event, share=percent(missing), most=most, by=cause,
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
                severity, event.place, value=missing, target=allowed, n=n, event=event,
                share=percent(missing), most=most, because=cause.because, by=_why(facts, event),
            )  # fmt: skip


def _biggest(side: Side, causes: Mapping[str, int]) -> tuple[str, Cause]:
    word, n = next(iter(causes.items()))
    return f"{word}: {n:,} of {sum(causes.values()):,}", cause_of(side, word)


def _why(facts: Facts, event: EventReport) -> Cause:
    """What keeps most server copies away, with the line to write where it is known."""
    if doubles := _doubles(facts, event):
        return doubles
    word = next(iter(event.missing_server))
    cause = cause_of("server", word)
    if word != "unmapped" or not event.unmapped_pages:
        return cause
    name, page = event.event_name, next(iter(event.unmapped_pages))
    return replace(
        cause,
        fix=f'Config(mirror=["{name}"]) sends them, or EventRoute("GET {page}", "{name}") if the '
        f'page itself is the event, or track("{name}") in the view that does it.',
        line=f'mirror = ["{name}"]',
    )


def _doubles(facts: Facts, event: EventReport) -> Cause | None:
    """What is wrong where another server copy would count the same event once more.

    The server sends it under another name, or without a page that could know its event_id.
    """
    if not (event.without_event_id or "unmapped" in event.missing_server):
        return None
    for other in facts.events:
        if other.server and _one_thing(event, other):
            cause = cause_of("server", "other_name")
            return replace(cause, fix=_renamed(event.event_name, other.event_name))
    if event.missing_browser.get("not_rendered"):
        texts, filling = TEXTS["event_id_mismatch"], {"event": event}
        return Cause(
            texts.title, texts.plain, "", texts.fix.format_map(filling),
            texts.line.format_map(filling), word="event_id_mismatch",
        )  # fmt: skip
    return None


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
            why = _why(facts, event) if event.missing_server else _doubles(facts, event)
            mirror = f'mirror = ["{event.event_name}"]'
            fix = f"Config({mirror.replace(' ', '')}) gives them an event_id and a server copy."
            yield flag(
                "warning" if n >= MIN_EVENTS else "info", event.place, value=n, by=why,
                fix=why.fix if why else fix, mirror=mirror,
            )  # fmt: skip


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


class _Drop(NamedTuple):
    """A fall of copies that are few in `span`; `word` is the side that is missing, or "both"."""

    place: Place
    hours: Mapping[int, int]
    side: Side
    word: str
    span: Span
    lasts: bool


@check
def sudden_drop(facts: Facts) -> Flags:
    """Copies of an event stopped, or became few. What fell alike is told with the busiest event."""
    end = int(facts.upto) // 3600
    every = sorted(_drops(facts, end), key=lambda one: (-sum(one.hours.values()), one.place))
    # Names that anybody may send must not hide others.
    known = [one for one in every if one.place[0] in STANDARD_EVENTS]
    others = [[one] for one in every if one.lasts and one.place[0] not in STANDARD_EVENTS]
    alike: defaultdict[str, list[_Drop]] = defaultdict(list)
    for at, one in enumerate(known):
        if one.lasts and not _is_over(one, known[:at], end):
            alike[one.word].append(one)
    for one, *more in [*alike.values(), *others]:
        gone = any(each.span.found < each.span.expected * _GONE for each in (one, *more))
        yield flag(
            "critical" if gone else "warning", one.place,
            value=one.span.found, target=round(one.span.expected, 1), side=one.side,
            since=iso(one.span.since * 3600), others=_in_words(more),
            words=TEXTS["sudden_drop"].words[one.word],
        )  # fmt: skip


def _is_over(drop: _Drop, busier: Iterable[_Drop], end: int) -> bool:
    """Whether a busier event fell alike and came back, and nothing since says otherwise."""
    back = max(
        (one.span.until for one in busier
         if not one.lasts and one.word == drop.word and one.span.until > drop.span.since),
        default=None,
    )  # fmt: skip
    return back is not None and last_fall(drop.hours, end, back) is None


def _in_words(drops: Sequence[_Drop]) -> str:
    if not drops:
        return ""
    parts = [
        f"{one.place[0]} of pixel {one.place[1]} ({one.span.found:,} of {one.span.expected:,.0f})"
        for one in drops[:_NAMED]
    ]
    parts += [f"{len(drops) - _NAMED} more"] if len(drops) > _NAMED else []
    return f" So did {', '.join(parts)}."


def _drops(facts: Facts, end: int) -> Iterator[_Drop]:
    server, browser = _copies(facts, end)
    for place in server.keys() | browser.keys():
        sides: dict[Side, Counter[int]] = {"server": server[place], "browser": browser[place]}
        falls = [(one, fall) for one in sides if (fall := last_fall(sides[one], end))]
        if not falls:
            continue
        # The one that lasts, or missed more.
        side, fall = max(
            falls, key=lambda one: (one[1].lasts, one[1].span.expected - one[1].span.found)
        )
        other = span_of(sides["browser" if side == "server" else "server"], *fall.span[:2])
        word = "both" if other.found * 2 < other.expected else side
        yield _Drop(place, sides[side], side, word, *fall)


def _copies(facts: Facts, end: int) -> tuple[_Hours, _Hours]:
    """Server and browser copies of each event by hour; those that only the server shall send, too.

    Other events without a twin by nature come when somebody uploads them.
    """
    sends: defaultdict[str, set[str]] = defaultdict(set)
    for route in facts.config.routes if facts.config is not None else ():
        sends[route.event_name].add(route.send)
    server, browser = _Hours(Counter), _Hours(Counter)
    for one in facts.hours:
        place, hour = (one.event_name, one.pixel_id), int(one.value) // 3600
        if hour >= end:
            continue
        if one.server in _THERE and (one.browser != UNPAIRED or sends[place[0]] == {"server"}):
            server[place][hour] += one.n
        if one.browser == SENT:
            browser[place][hour] += one.n
    return server, browser
