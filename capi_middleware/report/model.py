"""The shape of the parity report: what parity.json promises, field by field."""

from datetime import datetime
from typing import Literal, get_args

from msgspec import Struct, field

from capi_middleware.insights.model import Comparison, Estimate, Insights
from capi_middleware.meta.match_keys import Priority
from capi_middleware.meta.versions import GraphVersion

#: Meta's goal for event coverage, which its Dataset Quality API gives as 75 percent.
TARGET = 0.75

Severity = Literal["critical", "warning", "info"]
#: (event_name, pixel_id).
Place = tuple[str, str]
#: The copy of an event that is missing.
Side = Literal["browser", "server"]
SIDES: tuple[Side, ...] = get_args(Side)


class ReportWindow(Struct, frozen=True):
    """The window of event_time that was read, as ISO 8601 in UTC; the end is not part of it."""

    start: str = field(name="from")
    end: str = field(name="to")

    @property
    def seconds(self) -> float:
        """How long it is."""
        start, end = datetime.fromisoformat(self.start), datetime.fromisoformat(self.end)
        return (end - start).total_seconds()


class FreshnessSeconds(Struct, frozen=True):
    """Seconds from event_time to Meta's answer (nearest rank); None when nothing was delivered."""

    p50: float | None = None
    p95: float | None = None
    max: float | None = None


class MatchKeyShares(Struct, frozen=True):
    """How many accepted events, and the share of them that carries each key (presence only)."""

    events: int
    keys: dict[str, float]


class MatchKeysByOrigin(Struct, frozen=True):
    """Events of which a page carried the browser copy, those that only the server knows, and those
    that have no twin by nature.
    """

    browser: MatchKeyShares
    server_only: MatchKeyShares
    unpaired: MatchKeyShares = MatchKeyShares(0, {})


class MatchKeyAdvice(Struct, frozen=True, kw_only=True):
    """The missing key worth most to one event.

    `priority` is Meta's, `share` that of the accepted `events` which carry it, `worth` the number
    of events without it, weighted 3, 2 or 1 by priority. `fix` says where the app could supply it.
    """

    event_name: str
    pixel_id: str
    key: str
    priority: Priority
    share: float
    events: int
    worth: float
    fix: str


class Money(Struct, frozen=True, kw_only=True):
    """What events of one currency are worth together, as integers of its smallest unit.

    `decimals` of them are behind the point (ISO 4217). Meta got `both` copies of the events, one of
    them (`server_only`, `browser_only`), or `neither`; `pending` waits for delivery and has no
    browser copy, and `unpaired` are accepted events beyond the page.
    """

    currency: str
    decimals: int
    both: int = 0
    server_only: int = 0
    browser_only: int = 0
    neither: int = 0
    pending: int = 0
    unpaired: int = 0

    @property
    def one(self) -> int:
        """What Meta got from one side."""
        return self.server_only + self.browser_only


class EventReport(Struct, frozen=True, kw_only=True):
    """The numbers of one event name at one pixel.

    An event counts as `server` when the Graph API accepted its copy, as `browser` when the pixel is
    known to have sent its copy, and as `matched` when both hold. `coverage` is matched ÷ browser,
    `ratio` is server ÷ browser, each rounded to three decimals and None without a browser event.
    The values of `missing_browser` add up to `server_only` and those of `missing_server` to
    `browser_only`; an event of which neither copy is known to have arrived is in none of them, and
    `lost` unless it waits or was withheld on purpose. `unmapped_pages` are the pages whose own
    pixel code fires what no rule on the server makes, the busiest first. `repeated` events look
    like another of the same visitor, with the same value, seconds before. `unsigned` are those that
    only beacons told of, under event_ids that are not ours: anybody may make them up, so they are
    in no other number. `unpaired` are the accepted events that have no browser twin by nature: they
    happened beyond the page (in a shop, on the phone, in a CRM) or were tracked for the server
    alone, and are in no other number. `pending` are all the server copies that wait for delivery,
    `suppressed` the events that were never made. `match_keys` are shares of `server`, keys of share
    0 left out; they say what the events carry and are not Meta's event match quality.
    """

    event_name: str
    pixel_id: str
    server: int
    browser: int
    matched: int
    server_only: int
    browser_only: int
    coverage: float | None
    ratio: float | None
    pending: int
    suppressed: dict[str, int]
    missing_browser: dict[str, int]
    missing_server: dict[str, int]
    unmapped_pages: dict[str, int]
    without_event_id: int
    repeated: int
    differing: int
    unsigned: int
    unpaired: int = 0
    lost: int = 0
    money: list[Money] = []
    match_keys: dict[str, float]
    match_keys_by_origin: MatchKeysByOrigin
    freshness_seconds: FreshnessSeconds

    @property
    def place(self) -> Place:
        """Whose numbers these are."""
        return self.event_name, self.pixel_id

    def missing(self, side: Side) -> dict[str, int]:
        """The copies of that side that the other one lacks, by cause."""
        return self.missing_browser if side == "browser" else self.missing_server


class Flag(Struct, frozen=True, kw_only=True):
    """Something to look at: `value` missed `target`; `explanation` says what, `fix` what to do.

    `title` and `plain` say it to those who run the ads. `line` is the exact line to write or run,
    "" where there is none. `cause` is what flags of one cause share: a word of causes.toml where a
    copy is missing, else mostly the code. `since`, `last_seen` and `resolved` are ISO 8601 in UTC,
    to the hour: None where that is not known, or it is not over.
    """

    code: str
    severity: Severity
    event_name: str
    pixel_id: str
    value: float
    target: float
    explanation: str
    fix: str
    title: str = ""
    plain: str = ""
    line: str = ""
    cause: str = ""
    since: str | None = None
    last_seen: str | None = None
    resolved: str | None = None


class Named(Struct, frozen=True):
    """An event and a pixel that a card is about; "" is all of them."""

    event_name: str
    pixel_id: str


class Card(Struct, frozen=True, kw_only=True):
    """One cause and all that it does: the flags that share it, the gravest first.

    `title` and `plain` are for those who run the ads; `explanations`, `fixes` and the exact `lines`
    are for developers, each told once. `since` is that of the first of them, `last_seen` and
    `resolved` those of the last; `resolved` is None as long as one is not over.
    """

    cause: str
    severity: Severity
    title: str
    plain: str
    codes: list[str]
    about: list[Named]
    explanations: list[str]
    fixes: list[str]
    lines: list[str]
    since: str | None
    last_seen: str | None
    resolved: str | None


class PixelHealth(Struct, frozen=True, kw_only=True):
    """What waits for a pixel, the age of the oldest in seconds, and whether the pixel rests.

    `token_refused`: it rests because Meta refused its token, not because Meta throttles.
    """

    pixel_id: str
    waiting: int
    oldest_seconds: float
    paused_until: str | None
    paused_because: str | None
    token_refused: bool


class Health(Struct, frozen=True, kw_only=True):
    """The state of delivery now. `outbox`: rows by state of the server copy, of all time kept.

    `delivering` is False when a thread of this process that should deliver has ended.
    """

    outbox: dict[str, int]
    pixels: list[PixelHealth]
    delivering: bool


class Part(Struct, frozen=True):
    """The numbers of one value of a facet, as in EventReport; "" is what has no such value."""

    value: str
    server: int
    browser: int
    matched: int
    coverage: float | None
    ratio: float | None


class Breakdown(Struct, frozen=True):
    """The same events apart by pixel, route, page, agent (the browser's family), device, country
    or host.

    `lowest` is the part whose coverage is the lowest of those that surely miss the target.
    """

    by: str
    parts: list[Part]
    lowest: str | None = None


class Outage(Struct, frozen=True):
    """From `since` to `until` (ISO 8601) `found` copies of a side came of so many `expected`."""

    side: str
    since: str
    until: str
    found: int
    expected: float
    lasts: bool


class Trend(Struct, frozen=True, kw_only=True):
    """The numbers of one event over time: `parts` by the ISO 8601 start of their hour or day.

    `outages` are the last fall of each side that was no chance, see silence.
    """

    event_name: str
    pixel_id: str
    step: Literal["hour", "day"]
    parts: list[Part]
    outages: list[Outage] = []


class Mark(Struct, frozen=True):
    """A release that was seen for the first time, or an alert, at an ISO 8601 time."""

    at: str
    kind: Literal["release", "alert"]
    text: str
    event_name: str = ""
    pixel_id: str = ""


class Step(Struct, frozen=True):
    """The copies of one step on the way to an order."""

    event_name: str
    server: int
    browser: int
    matched: int


class Funnel(Struct, frozen=True):
    """The way to an order as one pixel saw it: the steps of which there are events."""

    pixel_id: str
    steps: list[Step]


class FirstStep(Struct, frozen=True, kw_only=True):
    """A step of a new installation: `todo` says how it comes to be done.

    `fix` and `line` are told where it is open for more than a minute, else "".
    """

    step: str
    done: bool
    title: str
    todo: str
    fix: str
    line: str


class Verdict(Struct, frozen=True):
    """The answer in one line. "no data" also where there is too little to tell."""

    word: Literal["healthy", "look", "act", "no data"]
    sentence: str


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of the events of one name at one pixel; the fields are those of EventReport."""

    event_name: str
    pixel_id: str
    matched: int = 0
    server_only: int = 0
    browser_only: int = 0
    lost: int = 0
    pending: int = 0
    unpaired: int = 0
    browser: int = 0
    coverage: float | None = None
    money: list[Money] = []


class Glance(Struct, frozen=True, kw_only=True):
    """The answer for one window: conversions first, Purchase before all, page views last.

    `since` is the ISO 8601 time from which on coverage is on the same side of the target as now,
    by spans of 24 hours; None where that is not known. `coverage` is that of all events together,
    and `next` is what to do, three cards at most. What came in the time before, and so often that
    none now is no chance, is there with zeros.
    """

    window: ReportWindow
    verdict: Verdict
    coverage: float | None
    outcomes: list[Outcome]
    since: str | None
    next: list[Card]


class Choices(Struct, frozen=True):
    """The names and pixels that may be asked for, the busiest first."""

    events: list[str] = []
    pixels: list[str] = []


class Report(Struct, frozen=True):
    """The parity report: events by name and pixel, advice and flags with the weightiest first.

    `cards` are the flags by cause; `checklist` are the steps of an installation that begins.
    `insights` is what Meta said last, None when it was never asked; `comparisons` put it beside our
    numbers. `graph_versions` are the version of Meta's API that is used, and the newest known if
    that is another. `consent` counts the pages that were shown by the rule that decided about their
    visitors ("gpc" is Global Privacy Control) and its answer: granted, denied, limited, held
    (before an answer), released (of these, answered with a yes), withdrawn; `unanswered` counts the
    held ones that were never answered, or too late. `now` is the last 24 hours and `before` the 7
    days before; of a window that was asked for, itself and as long a time before. `pixel_names` are
    those of the config, by id. `marks` are releases and alerts in the window, `funnels` the way to
    an order, by pixel. `choices` are what else may be asked for.
    `estimates` say what a phone number on all events may bring to Meta's score.
    """

    window: ReportWindow
    verdict: Verdict
    events: list[EventReport]
    match_key_advice: list[MatchKeyAdvice]
    flags: list[Flag]
    trends: list[Trend] = []
    breakdowns: list[Breakdown] = []
    health: Health | None = None
    insights: Insights | None = None
    comparisons: list[Comparison] = []
    graph_versions: list[GraphVersion] = []
    consent: dict[str, dict[str, int]] = {}
    unanswered: dict[str, int] = {}
    now: Glance | None = None
    before: Glance | None = None
    pixel_names: dict[str, str] = {}
    cards: list[Card] = []
    checklist: list[FirstStep] = []
    marks: list[Mark] = []
    funnels: list[Funnel] = []
    choices: Choices = Choices()
    estimates: list[Estimate] = []
