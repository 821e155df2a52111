"""Orders against the ledger: what reached Meta, by which channel, and why the rest did not."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from capi_middleware.cli.orders import Order, in_batches
from capi_middleware.config.settings import Config
from capi_middleware.events import SENT, VAGUE_BROWSER_CAUSES
from capi_middleware.signing import Minter
from capi_middleware.store.records import DEDUPE_WINDOW, MOST_FOUND, OLDEST_EVENT, Known
from capi_middleware.store.store import Store

_HOUR = 3600
#: An order that may be sent after all.
YES = "yes"
Reached = Literal["both", "server", "browser", "waiting", "no"]
#: Server states that come to an outcome by themselves.
_WAITING = frozenset({"pending", "leased"})


class Judged(Struct, frozen=True, kw_only=True):
    """One order at one pixel.

    `reached` says by which channel Meta got it ("waiting": the server copy is still on its way).
    `why` names the cause of an order that did not; `replay` is YES, or why it may not be sent.
    """

    order: Order
    pixel_id: str
    reached: Reached
    why: str = ""
    replay: str = ""


class Ledger:
    """Judges orders by what the store knows of one event name."""

    def __init__(
        self, config: Config, store: Store, event_name: str, now: float, *, consented: bool
    ) -> None:
        self._config, self._store = config, store
        self._event_name, self._now, self._consented = event_name, now, consented
        # An event_id was signed by the key of its day: each that still verifies may have.
        self._minters = [Minter([secret]) for secret in config.secrets]
        self._known: dict[str, list[Known]] = {}
        self._free: Counter[tuple[str, int]] = Counter()
        self._denied = 0

    def read(self, orders: Sequence[Order], advance: Callable[[int], None]) -> None:
        """Look all orders up; `advance` is told how many more have been."""
        for batch in in_batches(orders, MOST_FOUND // len(self._minters)):
            ids = {event_id: order.id for order in batch for event_id in self._ids(order)}
            for known in self._store.find(list(ids)):
                if known.event_name == self._event_name:
                    self._known.setdefault(ids[known.event_id], []).append(known)
            advance(len(batch))
        if not orders:
            return
        start = min(one.time - one.slack for one in orders) - _HOUR
        end = max(one.time + one.slack for one in orders) + 2 * _HOUR
        self._count_unclaimed(start, end)
        self._denied = sum(
            count.n
            for count in self._store.tallies(start, end).counts
            if (count.kind, count.reason) == ("suppressed", "consent")
            and count.event_name == self._event_name
        )

    def _ids(self, order: Order) -> list[str]:
        return [one.mint(self._event_name, self._now, order.id) for one in self._minters]

    def _count_unclaimed(self, start: float, end: float) -> None:
        """Events by pixel and hour that belong to no order of the file."""
        for piece in self._store.slices("hour", start, end):
            if piece.event_name == self._event_name:
                self._free[piece.pixel_id, int(piece.value)] += piece.n
        for rows in self._known.values():
            for known in rows:
                self._free[known.pixel_id, int(known.event_time) // _HOUR * _HOUR] -= 1

    def judge(self, order: Order) -> list[Judged]:
        """What became of an order, at each pixel that takes the event."""
        rows = {known.pixel_id: known for known in self._known.get(order.id, ())}
        pixel_ids = self._config.pixel_ids(self._event_name)
        unknown = [self._unknown_at(order, one) for one in pixel_ids if one not in rows]
        known = [self._known_at(order, rows[one]) for one in pixel_ids if one in rows]
        # A replay goes to all pixels: what must not go to one must not go at all.
        held = next((one.replay for one in unknown if one.replay != YES), None)
        return [
            replace(one, replay=held) if held is not None and one.replay == YES else one
            for one in (*known, *unknown)
        ]

    def _known_at(self, order: Order, known: Known) -> Judged:
        server, browser = known.server == "delivered", known.browser == SENT
        pixel_id = known.pixel_id
        if server or browser:
            reached: Reached = "both" if server and browser else "server" if server else "browser"
            return Judged(order=order, pixel_id=pixel_id, reached=reached)
        if known.server in _WAITING:
            return Judged(order=order, pixel_id=pixel_id, reached="waiting", why="pending")
        browser_half = f"browser: {known.browser}"
        match known.server:
            case "dead":
                why, replay = f"rejected by Meta, {known.reason}", "see dead-letters requeue"
            case "expired":
                why, replay = "expired", "too old, or Meta may have counted it"
            case "unknown":
                why, replay = "the browser alone made it", self._may_replay(order)
                # Nobody saw the browser copy leave, nor fail; Meta no longer knows duplicates.
                vague = known.browser in VAGUE_BROWSER_CAUSES
                if vague and order.time - order.slack < self._now - DEDUPE_WINDOW:
                    replay = "the browser copy may have reached Meta" if replay == YES else replay
            case state:
                why, replay = f"no server copy ({state})", "the ledger holds it without a copy"
        return Judged(
            order=order, pixel_id=pixel_id, reached="no", why=f"{why}, {browser_half}",
            replay=replay,
        )  # fmt: skip

    def _unknown_at(self, order: Order, pixel_id: str) -> Judged:
        first, last = (
            int(order.time + slack) // _HOUR * _HOUR for slack in (-order.slack, order.slack)
        )
        hours = range(first - _HOUR, last + 2 * _HOUR, _HOUR)
        nearby = sum(max(0, self._free[pixel_id, hour]) for hour in hours)
        kept = self._now - self._config.retention_days * 86_400
        if order.time < kept:
            why, replay = "older than the ledger", "older than the ledger"
        elif nearby:
            why = f"not in the ledger; {nearby:,} events of that time have no order of this file"
            replay = "it may be one of them under another event_id (no dedupe_key)"
        elif self._denied and not (self._consented or order.consent):
            why = "never tracked; some visitors of these days denied consent"
            replay = "consent unknown: give a consent column or --consented"
        else:
            why, replay = "never tracked", self._may_replay(order)
        return Judged(order=order, pixel_id=pixel_id, reached="no", why=why, replay=replay)

    def _may_replay(self, order: Order) -> str:
        """YES, or why Meta would refuse the order or must not get it."""
        if order.consent is False:
            return "the visitor denied consent"
        if order.time < self._now - OLDEST_EVENT:
            return "Meta takes no event of more than seven days ago"
        if order.time > self._now + 60:
            return "its time is in the future"
        if self._event_name == "Purchase" and (order.value is None or not order.currency):
            return "a Purchase needs a value and a currency"
        if not (order.email or order.phone):
            return "Meta needs an email or a phone"
        return YES


def sums(orders: Sequence[Order]) -> Mapping[str, float]:
    """The value by currency."""
    totals: dict[str, Decimal] = {}
    for one in orders:
        if one.value is not None:
            currency = one.currency or "?"
            totals[currency] = totals.get(currency, Decimal(0)) + one.value
    return {currency: round(float(total), 2) for currency, total in totals.items()}
