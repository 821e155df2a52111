"""Records: what a store is told and tells, and the times that it keeps to."""

from collections.abc import Sequence, Set
from typing import Literal, NamedTuple

from msgspec import Struct

from capi_middleware.events import BROWSER_ONLY, Count
from capi_middleware.private import Private

#: Meta refuses event_time of more than 7 days ago, with the whole request; less an hour for the
#: way there. In seconds.
OLDEST_EVENT = 7 * 86400 - 3600
#: Meta removes duplicates for 48 hours from the first copy, less an hour for the way there: an
#: event that Meta may have counted already would count twice after that. In seconds.
DEDUPE_WINDOW = 47 * 3600
#: A lease that ends later than this from now was taken before the clock went back: it has run
#: out. In seconds; no lease may be asked for longer.
LONGEST_LEASE = 600.0
#: The same for the delay of an event; none may be longer. In seconds.
LONGEST_WAIT = 600.0
#: Clocks of one machine's processes differ by less: what began later than this from now did so
#: before the clock went back. In seconds.
CLOCK_SLACK = 1.0
#: However many processes share the looks at a store, each looks within this. In seconds.
LONGEST_TURN = 100.0
#: How often one process of all is on duty, see Look: a little more than the minute that flags are
#: good for. In seconds.
DUTY_SECONDS = 61.0
#: A conversion that became due this short ago goes before all that waits for longer. In seconds.
FRESH = 60.0
#: See LeasedEvent.suspect.
CLEARED = -1
#: A sighting that said nothing new: a replayed beacon, or a page that repeats itself.
REPLAYED = Count("beacon", "replayed")


#: So many uses of one event_id are kept: one order is seen in few browsers and places.
MOST_USES = 4
_BROWSER, _ADDRESS, _ORDER = slice(8), slice(8, 16), slice(16, 24)
_USE = 24


class Use(NamedTuple):
    """What is known of one event_id under one name: who it was made for, and what it is about.

    `uses` is up to MOST_USES times 24 characters, keyed hashes of this event_id alone: 8 of fbp, 8
    of the network address and user agent, and where the id is not unique by itself a letter and 7
    of the order: "o" of an order_id, "p" of the page's path, "u" of this one call of the site's
    code, "s" of the page that told of it where that is signed and names the order. What is not
    known is dashes. `digest` and `server` as in Row; `place` is the route, else the page; `key` is
    that of the row, 0 for one that is to come.
    """

    uses: str = ""
    digest: str = ""
    place: str = ""
    server: str = ""
    key: int = 0

    @property
    def seen(self) -> Sequence[str]:
        """The uses one by one."""
        return [self.uses[at : at + _USE] for at in range(0, len(self.uses), _USE)]

    @property
    def _is_of_page(self) -> bool:
        """Whether the page of the order told of it."""
        return any(use[_ORDER].startswith("s") for use in self.seen)

    def yields_to(self, other: "Use") -> bool:
        """Whether `other` takes the place of what a page told of under an id of the site's own.

        Such an id can be guessed: the word of the page of the order goes before that of another
        page, and what can be sent before what cannot.
        """
        if other.server != "pending" or other.uses[_ORDER][:1] not in ("u", "s"):
            return False
        if self.server in BROWSER_ONLY:
            return self._is_of_others(other)
        if self.server == "unmapped" or (self.server in ("dropped", "invalid") and not self.digest):
            return True
        return other._is_of_page and not self._is_of_page and self._is_told_otherwise(other)

    def _is_of_others(self, other: "Use") -> bool:
        return all(_is_other_visitor(use, other.uses) for use in self.seen)

    def _is_told_otherwise(self, other: "Use") -> bool:
        """Whether another visitor gives another value."""
        return self.digest != other.digest and self._is_of_others(other)

    def is_replayed_by(self, use: str) -> bool:
        """Whether a browser has the event that no page was made for: out of a stored copy."""
        seen = self.seen
        return 0 < len(seen) < MOST_USES and all(_is_other_visitor(one, use) for one in seen)

    def joined(self, other: "Use") -> tuple[str, "Use"]:
        """Why `other` must be another event with the same event_id, "" where it may be this one.

        And what is known then.
        """
        seen, one, order = self.seen, other.uses, other.uses[_ORDER]
        known = self._replace(digest=self.digest or other.digest)
        own_id = order[:1] in ("u", "s")
        if own_id and self._is_told_otherwise(other):
            kept = len(seen) < MOST_USES and one.strip("-")
            return "told", known._replace(uses=self.uses + one) if kept else known
        if self.digest and other.digest and self.digest != other.digest:
            return "value", known
        orders = [use[_ORDER] for use in seen if use[_ORDER].startswith("o")]
        if orders and order.startswith("o") and order not in orders:
            return "order", known
        visitors = {_is_other_visitor(use, one) for use in seen}
        orders_differ = {_is_other_order(use, one) for use in seen}
        visitor, another = visitors == {True}, orders_differ == {True}
        if visitor and another and order.startswith("p") and self.place == other.place != "":
            return "order", known
        says_new = visitors | orders_differ <= {None} or (order.startswith("o") and not orders)
        if not (visitor or another or says_new) or not one.strip("-"):
            return "", known
        if len(seen) < MOST_USES:
            return "", known._replace(uses=self.uses + one)
        if own_id:
            return "own_id", known
        return ("visitor" if visitor else "order" if another else ""), known


def _is_other_visitor(use: str, other: str) -> bool | None:
    """Whether two uses are of two browsers, None where that is not known; see Use."""
    for part in (_BROWSER, _ADDRESS):
        if use[part] and other[part] and "-" not in use[part] + other[part]:
            return use[part] != other[part]
    return None


def _is_other_order(use: str, other: str) -> bool | None:
    """The same of two orders, or calls of the site's own code."""
    one, another = use[_ORDER], other[_ORDER]
    comparable = one[:1] == another[:1] and one[:1] not in ("", "-")
    return one != another if comparable else None


class Remembered(Struct, frozen=True):
    """An order that was tracked before: at `first`, Unix time in seconds.

    `same_id`: under the event_id that was asked for, and not one that another key signed.
    """

    first: float
    same_id: bool

    def is_over(self, now: float) -> bool:
        """Whether one more copy may count twice: Meta would not know it for the same any more."""
        return not self.same_id or now - self.first > DEDUPE_WINDOW


class LeasedEvent(Private, Struct, frozen=True):
    """One server copy to deliver. `attempts` counts the requests it was part of before.

    `suspect` numbers the events that Meta refused together, of which at least one is bad; 0 where
    it was in no such batch, CLEARED where it was and is not suspected more than others.
    `fresh`: see Store.lease.
    """

    key: int
    event_id: str
    event_name: str
    event_time: float
    payload: bytes
    attempts: int
    suspect: int = 0
    fresh: bool = False


class Lease(Private, Struct, frozen=True):
    """A time-limited claim on some events of one pixel; it runs out by itself."""

    lease_id: str
    events: Sequence[LeasedEvent]


class Settlement(Struct, frozen=True):
    """The outcome for one leased event.

    `state`: delivered, dead, stopped by the host, pending again (then `delay` is the wait in
    seconds before the next attempt, `attempted` says whether this counts as an attempt, and
    `uncertain` that nobody knows whether Meta took it), or refused together with others (then
    `suspect` numbers them, see LeasedEvent, and it is due as before). `reason` is a short text
    without personal data: an error code, never a response body. `trace` is Meta's id of the
    request, "" where there was no answer of Meta's.
    """

    key: int
    state: Literal["delivered", "dead", "stopped", "pending", "refused"]
    reason: str = ""
    delay: float = 0.0
    attempted: bool = True
    uncertain: bool = False
    suspect: int = 0
    trace: str = ""


class Look(Struct, frozen=True):
    """Which pixels have something due, and the `seconds` until this process's next turn to look.

    `on_duty`: it is the one of all processes that does now what they share.
    """

    due: Set[str]
    seconds: float
    on_duty: bool


class Pause(Struct, frozen=True):
    """A pixel rests until Unix time `until` (seconds), for all processes.

    `reason` as in Settlement. `token` is a fingerprint of the access token that was refused, ""
    where the token is not the cause: a process with another token need not wait.
    """

    pixel_id: str
    until: float
    reason: str
    token: str = ""


class Rest(Struct, frozen=True):
    """What a pixel's rest, after `failures` in a row, is to the holder of one token.

    It lasts for `seconds` yet. At 0.0 it is over, and one may try before all others.
    """

    seconds: float
    failures: int


class DeadLetter(Private, Struct, frozen=True):
    """An event that Meta refuses: kept until somebody requeues or drops it, or retention ends."""

    key: int
    event_id: str
    event_name: str
    pixel_id: str
    event_time: float
    reason: str
    attempts: int
    payload: bytes


class Forgotten(Struct, frozen=True):
    """How many events of a person waited, and were dead letters; `held` were being sent then."""

    waiting: int
    dead: int
    held: int


class Backlog(Struct, frozen=True):
    """What waits for delivery to one pixel. Ages in seconds since event_time."""

    pixel_id: str
    waiting: int
    oldest: float


class Tally(Struct, frozen=True):
    """`n` events of one name and pixel that share these states and match keys.

    A `server` that is leased counts as "pending".
    """

    pixel_id: str
    event_name: str
    server: str
    browser: str
    match_keys: int
    n: int


class Freshness(Struct, frozen=True):
    """`n` delivered events took `seconds` from event_time to Meta's answer.

    To a tenth below 10 seconds, two significant digits above.
    """

    pixel_id: str
    event_name: str
    seconds: float
    n: int


class Difference(Struct, frozen=True):
    """`n` events whose two copies both arrived with different values or currencies."""

    pixel_id: str
    event_name: str
    n: int


class Tallies(Struct, frozen=True):
    """All that the report is made of, for one window of event_time."""

    rows: Sequence[Tally]
    freshness: Sequence[Freshness]
    counts: Sequence[Count]
    differences: Sequence[Difference] = ()
    money: Sequence["Slice"] = ()


class Slice(Struct, frozen=True):
    """`n` events of one hour, route, page or browser family that share these states.

    Of the facet "money" `value` is the currency and `n` what they are worth, in its smallest unit.
    `value` of the facet "hour" is the Unix time in seconds, as a whole number, at which it begins.
    """

    value: str
    pixel_id: str
    event_name: str
    server: str
    browser: str
    n: int


class Known(Struct, frozen=True):
    """What is known of one event at one pixel. `reason` and `trace` as in Settlement.

    Times are Unix seconds: `due_at` of the next attempt while it waits, `delivered_at` of Meta's
    answer, `browser_at` of the browser's word. `match_keys`, `route` and `page` as in Row.
    """

    key: int
    event_id: str
    event_name: str
    pixel_id: str
    event_time: float
    server: str
    browser: str
    reason: str
    attempts: int
    due_at: float
    delivered_at: float | None
    browser_at: float | None
    match_keys: int
    route: str
    page: str
    trace: str


#: How many event_ids one call of `Store.find` takes.
MOST_FOUND = 1000
