"""reconcile: paid orders against what reached Meta; the rest with its cause, and sent after all."""

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click
from msgspec import Struct
from msgspec.structs import replace

from capi_middleware.capi import CAPI
from capi_middleware.cli import terminal
from capi_middleware.cli.orders import (
    MEANINGS,
    NotPaid,
    Numbers,
    Order,
    Orders,
    Written,
    numbers_in,
    read_orders,
)
from capi_middleware.config.settings import Config
from capi_middleware.errors import CapiError
from capi_middleware.events import SENT, VAGUE_BROWSER_CAUSES
from capi_middleware.meta.event_object import ACTION_SOURCES, ActionSource
from capi_middleware.meta.user_data import UserData
from capi_middleware.report.window import iso
from capi_middleware.signing import Minter
from capi_middleware.store.records import DEDUPE_WINDOW, MOST_FOUND, OLDEST_EVENT, Known
from capi_middleware.store.store import Store

_SHOWN = 50
_ON_ITS_WAY = frozenset({"pending", "leased", "delivered"})
_HOUR = 3600
#: An order that may be sent after all.
YES = "yes"
_QUEUED = "queued"
Reached = Literal["both", "server", "browser", "waiting", "tracked", "no"]


class Judged(Struct, frozen=True):
    """One order at one pixel.

    `reached` says by which channel Meta got it ("waiting": the server copy is still on its way;
    "tracked": that was so long ago that its row was pruned).
    `why` names the cause of an order that did not, `cause` is it without what differs from
    order to order, "" where nothing does; `replay` is YES, or why it may not be sent.
    """

    order: Order
    pixel_id: str
    reached: Reached
    why: str = ""
    replay: str = ""
    cause: str = ""


class DedupeKey(Struct, frozen=True):
    """Where the dedupe_key of an order is in the file, and how sure that is.

    `in_ledger` of the `looked_up` first orders are known by it. `doubt` is why nobody knows how the
    app writes it, "" where it is known.
    """

    column: str
    written: Written
    in_ledger: int
    looked_up: int
    doubt: str = ""


def _dedupe_key(capi: CAPI, event: str, found: Sequence[Numbers], example: str | None) -> DedupeKey:
    """The column and the way of writing that the ledger knows most orders by.

    Raises click.UsageError where it knows none and two columns fit alike.
    """
    if example is not None:
        for one in found:
            core = one.first[0].removeprefix("#") if one.first else ""
            if core and core in example:
                before, _, after = example.partition(core)
                return _known_by(capi, event, one, Written(True, before, after))
        numbers = ", ".join(f"{one.first[0]!r}" for one in found if one.first) or "none"
        raise click.UsageError(
            f"--dedupe-key: found {example!r}, expected that of the file's first order: {numbers}"
        )
    ways = [
        _known_by(capi, event, one, Written(bare))
        for one in found
        for bare in (False, True)
        if not bare or any(text.startswith("#") for text in one.first)
    ]
    best = max(ways, key=lambda way: way.in_ledger)
    if best.in_ledger:
        return best
    alike = [one for one in found if one.rank == min(each.rank for each in found)]
    if len(alike) > 1:
        shown = ", ".join(f"{one.column!r} ({one.first[0]!r})" for one in alike if one.first)
        if not sys.stdin.isatty():
            raise click.UsageError(
                f"found {len(alike)} columns that may be the dedupe_key, {shown}, and the ledger "
                "knows no order by either, expected --id-column"
            )
        names = [one.column for one in alike]
        named = click.prompt(f"Which is the dedupe_key, {shown}?", type=click.Choice(names))
        alike = [one for one in alike if one.column == named]
    best = next(way for way in ways if way.column == alike[0].column)
    if sum(way.column == best.column for way in ways) > 1:
        doubt = "the ledger knows no order of the file, with # or without: give --dedupe-key"
        best = replace(best, doubt=doubt)
    return best


def _known_by(capi: CAPI, event: str, numbers: Numbers, written: Written) -> DedupeKey:
    keys = {written(text) for text in numbers.first}
    minters = [Minter([secret]) for secret in capi.config.secrets]
    ids = {one.mint(event, 0.0, key): key for key in keys for one in minters}
    known = set[str]()
    for start in range(0, len(ids), MOST_FOUND):
        some = list(ids)[start : start + MOST_FOUND]
        known |= {ids[one.event_id] for one in capi.store.find(some) if one.event_name == event}
        known |= {ids[event_id] for event_id in capi.store.remembered(some)}
    return DedupeKey(numbers.column, written, len(known), len(keys))


class Ledger:
    """Judges orders by what the store knows of one event name."""

    def __init__(
        self, config: Config, store: Store, event_name: str, orders: Sequence[Order], *,
        consented: bool, doubt: str = "",
    ) -> None:  # fmt: skip
        self._config, self._event_name, self._consented = config, event_name, consented
        #: Why nobody knows how the app writes its dedupe_keys.
        self._doubt = doubt
        self._now = time.time()
        # An event_id was signed by the key of its day: each that still verifies may have.
        minters = [Minter([secret]) for secret in config.secrets]
        ids = {one.mint(event_name, self._now, order.id): order.id
               for order in orders for one in minters}  # fmt: skip
        #: By order and pixel.
        self._known: dict[str, dict[str, Known]] = {}
        #: Events by pixel and hour that belong to no order of the file.
        self._free: Counter[tuple[str, int]] = Counter()
        for known in _find(store, list(ids), "looking orders up"):
            if known.event_name == event_name:
                self._known.setdefault(ids[known.event_id], {})[known.pixel_id] = known
                self._free[known.pixel_id, int(known.event_time) // _HOUR * _HOUR] -= 1
        #: When orders were tracked first that have no row any more.
        self._tracked: dict[str, float] = {}
        unknown = [one for one, order_id in ids.items() if order_id not in self._known]
        for at in range(0, len(unknown), MOST_FOUND):
            for event_id, before in store.remembered(unknown[at : at + MOST_FOUND]).items():
                self._tracked[ids[event_id]] = before.first
        start = min((one.time - one.slack for one in orders), default=0.0) - _HOUR
        end = max((one.time + one.slack for one in orders), default=0.0) + 2 * _HOUR
        for piece in store.slices("hour", start, end):
            if piece.event_name == event_name:
                self._free[piece.pixel_id, int(piece.value)] += piece.n
        denied = ("suppressed", "consent", event_name)
        counts = store.tallies(start, end).counts
        self._denied = any((one.kind, one.reason, one.event_name) == denied for one in counts)

    def judge(self, order: Order) -> list[Judged]:
        """What became of an order, at each pixel that takes the event."""
        rows = self._known.get(order.id, {})
        judged = [
            self._known_at(order, rows[pixel_id])
            if pixel_id in rows
            else self._unknown_at(order, pixel_id)
            for pixel_id in self._config.pixel_ids(self._event_name)
        ]
        # A replay goes to all pixels: what must not go to one must not go at all.
        held = [one.replay for one in judged if one.pixel_id not in rows and one.replay != YES]
        return [
            replace(one, replay=held[0]) if held and one.replay == YES else one for one in judged
        ]

    def _known_at(self, order: Order, known: Known) -> Judged:
        reached = _reached(known)
        if reached is not None:
            return Judged(order, known.pixel_id, reached)
        match known.server:
            case "pending" | "leased":
                return Judged(order, known.pixel_id, "waiting", "pending")
            case "dead":
                why, may = f"rejected by Meta, {known.reason}", "see dead-letters requeue"
            case "expired":
                why, may = "expired", "too old, or Meta may have counted it"
            case "unknown":
                why, may = "the browser alone made it", self._may_replay(order)
                # Nobody saw the browser copy leave, nor fail; Meta no longer knows duplicates.
                vague = known.browser in VAGUE_BROWSER_CAUSES
                if may == YES and vague and order.time - order.slack < self._now - DEDUPE_WINDOW:
                    may = "the browser copy may have reached Meta"
            case state:
                why, may = f"no server copy ({state})", "the ledger holds it without a copy"
        return Judged(order, known.pixel_id, "no", f"{why}, browser: {known.browser}", may)

    def _unknown_at(self, order: Order, pixel_id: str) -> Judged:
        if order.id in self._tracked:
            why = f"tracked on {iso(self._tracked[order.id])[:10]}, its row was pruned"
            return Judged(
                order, pixel_id, "tracked", why, "it was tracked before",
                "tracked before, its row was pruned",
            )  # fmt: skip
        cause = ""
        first = int(order.time - order.slack) // _HOUR - 1
        last = int(order.time + order.slack) // _HOUR + 1
        nearby = sum(max(0, self._free[pixel_id, hour * _HOUR]) for hour in range(first, last + 1))
        if order.time < self._now - self._config.retention_days * 86_400:
            why = replay = "older than the ledger"
        elif nearby:
            why = f"not in the ledger; {nearby:,} events of that time have no order of this file"
            cause = "not in the ledger; events of that time have no order of this file"
            replay = "it may be one of them under another event_id (no dedupe_key)"
        elif self._denied and not (self._consented or order.consent):
            why = "never tracked; some visitors of these days denied consent"
            replay = "consent unknown: give a consent column or --consented"
        else:
            why, replay = "never tracked", self._may_replay(order)
        return Judged(order, pixel_id, "no", why, replay, cause)

    def _may_replay(self, order: Order) -> str:
        """YES, or why Meta would refuse the order or must not get it."""
        lacks_value = order.value is None or not order.currency
        reasons = (
            (bool(self._doubt), self._doubt),
            (order.consent is False, "the visitor denied consent"),
            (order.time < self._now - OLDEST_EVENT,
             "Meta takes no event of more than seven days ago"),
            (order.time > self._now + 60, "its time is in the future"),
            (self._event_name == "Purchase" and lacks_value,
             "a Purchase needs a value and a currency"),
            (not (order.email or order.phone), "Meta needs an email or a phone"),
        )  # fmt: skip
        return next((why for holds, why in reasons if holds), YES)


def _reached(known: Known) -> Reached | None:
    """By which channel Meta got an event; None where it did not."""
    server, browser = known.server == "delivered", known.browser == SENT
    if server and browser:
        return "both"
    return "server" if server else "browser" if browser else None


def _sent_unpaid(capi: CAPI, event_name: str, read: Orders) -> list[dict[str, Any]]:
    """Orders that Meta counts and that the shop refunded, cancelled or was never paid for.

    Where the row was pruned, what is remembered tells no pixel and no channel: "tracked".
    """
    paid = {one.id for one in read.orders}
    minters = [Minter([secret]) for secret in capi.config.secrets]
    orders = [one for one in read.not_paid.values() if one.id not in paid]
    ids = {minter.mint(event_name, 0.0, one.id): one for one in orders for minter in minters}
    sent: list[dict[str, Any]] = []
    known_ids = set()
    for known in _find(capi.store, list(ids), "looking unpaid orders up"):
        reached = _reached(known)
        known_ids.add(ids[known.event_id].id)
        if known.event_name == event_name and reached is not None:
            sent.append(_told_unpaid(ids[known.event_id], known.pixel_id, reached))
    unknown = [event_id for event_id, one in ids.items() if one.id not in known_ids]
    for at in range(0, len(unknown), MOST_FOUND):
        for event_id in capi.store.remembered(unknown[at : at + MOST_FOUND]):
            if ids[event_id].id not in known_ids:
                known_ids.add(ids[event_id].id)
                sent.append(_told_unpaid(ids[event_id], "", "tracked"))
    return sorted(sent, key=lambda one: (one["line"], one["pixel_id"]))


def _told_unpaid(order: NotPaid, pixel_id: str, reached: str) -> dict[str, Any]:
    return {"order": order.id, "line": order.line, "status": order.status, "pixel_id": pixel_id,
            "reached": reached}  # fmt: skip


def _find(store: Store, event_ids: Sequence[str], text: str) -> Iterator[Known]:
    for start in terminal.steps(range(0, len(event_ids), MOST_FOUND), text):
        yield from store.find(event_ids[start : start + MOST_FOUND])


def _sums(orders: Sequence[Order]) -> Mapping[str, float]:
    """The value by currency."""
    totals: dict[str, Decimal] = defaultdict(Decimal)
    for one in orders:
        if one.value is not None:
            totals[one.currency or "?"] += one.value
    return {currency: round(float(total), 2) for currency, total in totals.items()}


def _column_options(command: Any) -> Any:
    for name in reversed(MEANINGS):
        text = f"The column of the {name}; by its usual names without it."
        command = click.option(f"--{name}-column", help=text)(command)
    return command


@click.command(short_help="Compare paid orders (CSV) with the ledger.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--event", default="Purchase", show_default=True, help="The event of an order.")
@_column_options
@click.option("--currency", default="", help="For lines that name none.")
@click.option("--timezone", help="Of times without an offset, e.g. Europe/Berlin.")
@click.option(
    "--dates", type=click.Choice(["day-first", "month-first"]), help="How 3/4/2026 is meant."
)
@click.option("--dedupe-key", help="Your app's dedupe_key of the file's first order.")
@click.option("--replay", is_flag=True, help="Queue what is missing and may be sent.")
@click.option(
    "--action-source", type=click.Choice(ACTION_SOURCES), metavar="PLACE",
    help=f"Where replayed orders happened: {', '.join(ACTION_SOURCES)}. Config's, else other.",
)  # fmt: skip
@click.option("--consented", is_flag=True, help="All visitors of the file agreed to be tracked.")
@terminal.JSON
@click.pass_obj
def reconcile(
    source: str, /, file: Path, event: str, currency: str, timezone: str | None, replay: bool,
    action_source: ActionSource | None, consented: bool, as_json: bool, dates: str | None,
    dedupe_key: str | None, **columns: str | None,
) -> None:  # fmt: skip
    """Compare paid orders (CSV) with the ledger: which never reached Meta, and why.

    Orders whose status says refunded, cancelled or not paid, and that were sent, are named.

    The number of an order is the dedupe_key of the event: of several columns that which the ledger
    knows orders by, with Shopify's # or without. --replay queues orders of the last seven days
    that are in no ledger, with the order's time, and never one that Meta may have counted. E-mail
    and phone are hashed in memory. Exit code 0 when every order reached Meta, is on its way or was
    queued; 1 when one is missing; 3 when the file holds no paid order.
    """
    chosen = {name: columns[f"{name}_column"] for name in MEANINGS}
    with terminal.opened(source) as capi:
        if not capi.config.pixel_ids(event):
            raise click.UsageError(f"--event: found {event!r}, expected one that a pixel takes")
        try:
            zone = ZoneInfo(timezone) if timezone else None
            key = _dedupe_key(capi, event, numbers_in(file, chosen["id"]), dedupe_key)
            read = read_orders(
                file, {**chosen, "id": key.column}, currency=currency, zone=zone,
                written=key.written, day_first=None if dates is None else dates == "day-first",
            )  # fmt: skip
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise click.UsageError(str(error)) from None
        ledger = Ledger(
            capi.config, capi.store, event, read.orders, consented=consented, doubt=key.doubt
        )
        judged = [one for order in read.orders for one in ledger.judge(order)]
        where: ActionSource = action_source or capi.config.action_source or "other"
        queued = _replay(capi, event, judged, where) if replay else frozenset()
        unpaid = _sent_unpaid(capi, event, read)
        shown = _shown_key(capi, event, key, read)
    # At another pixel the same order may be a dead letter: there its row stays as it is.
    judged = [
        replace(one, replay=_QUEUED) if one.replay == YES and one.order.id in queued else one
        for one in judged
    ]
    told = _told(read, judged)
    told |= {"queued": len(queued), "sent_unpaid": unpaid, "dedupe_key": shown}
    terminal.print_json(told) if as_json else _print(event, told)
    missing = any(one.reached == "no" and one.replay != _QUEUED for one in judged)
    if not read.orders:
        sys.exit(terminal.NO_DATA)
    sys.exit(terminal.WRONG if missing or read.bad_lines else 0)


def _replay(
    capi: CAPI, event: str, judged: Sequence[Judged], action_source: ActionSource
) -> frozenset[str]:
    """Queue each order that may be sent, once; the ids of those that are on their way.

    A full store drops what it cannot take.
    """
    wanted = {one.order.id: one.order for one in judged if one.replay == YES}
    queued: dict[str, str] = {}
    for order in terminal.steps(list(wanted.values()), "queueing"):
        try:
            who = UserData(em=order.email or None, ph=order.phone or None)
            made = capi.track(
                event, user_data=who, dedupe_key=order.id, value=order.value,
                currency=order.currency or None, event_time=order.time,
                action_source=action_source,
            )  # fmt: skip
        except (CapiError, ValueError) as error:
            click.echo(f"line {order.line}: not queued ({error})", err=True)
        else:
            queued[made.event_id] = order.id
    capi.store.flush(10.0)
    known = _find(capi.store, list(queued), "looking at the queue")
    return frozenset(queued[one.event_id] for one in known if one.server in _ON_ITS_WAY)


def _shown_key(capi: CAPI, event: str, key: DedupeKey, read: Orders) -> dict[str, Any]:
    """The dedupe_key of the first order and its event_id, beside the newest in the ledger."""
    first = read.orders[0] if read.orders else None
    made = first and capi.issuer.minter.mint(event, first.time, first.id)
    newest = capi.store.newest(1, event)
    return {
        "column": key.column, "first": first and first.id, "event_id": made,
        "in_ledger": key.in_ledger, "looked_up": key.looked_up, "doubt": key.doubt,
        "newest_in_ledger": newest[0].event_id if newest else None,
    }  # fmt: skip


def _told(read: Orders, judged: Sequence[Judged]) -> dict[str, Any]:
    """What a program is told, and people from it: the channels first, then the frequent causes."""
    groups: dict[tuple[str, str, str], list[Judged]] = defaultdict(list)
    for one in judged:
        groups[one.pixel_id, one.reached, one.cause or one.why].append(one)
    outcomes = sorted(groups.items(), key=lambda item: (item[0][1] == "no", -len(item[1])))
    return {
        "columns": read.columns,
        "orders": len(read.orders),
        "unpaid": sum(read.left_out.values()),
        "left_out": read.left_out,
        "bad_lines": read.bad_lines,
        "outcomes": [
            {"pixel_id": pixel_id, "reached": reached, "orders": len(those),
             "why": those[0].why if len({one.why for one in those}) == 1 else cause,
             "value": _sums([one.order for one in those]), "example": those[0].order.id}
            for (pixel_id, reached, cause), those in outcomes
        ],
        "missing": [
            {"order": one.order.id, "line": one.order.line, "time": iso(one.order.time),
             "value": None if one.order.value is None else float(one.order.value),
             "currency": one.order.currency, "pixel_id": one.pixel_id, "why": one.why,
             "replay": one.replay}
            for one in judged
            if one.reached == "no"
        ],
    }  # fmt: skip


def _print(event: str, told: dict[str, Any]) -> None:
    found = ", ".join(f"{meaning} from {name!r}" for meaning, name in told["columns"].items())
    terminal.print_line(f"Columns: {found}")
    key = told["dedupe_key"]
    if key["first"] is not None:
        newest = key["newest_in_ledger"]
        beside = f"the ledger's newest {event} is {newest}" if newest else "the ledger has none yet"
        terminal.print_line(
            f"dedupe_key: {key['first']!r} makes the event_id {key['event_id']}, {beside}; it "
            f"knows {key['in_ledger']:,} of the first {key['looked_up']:,} orders"
        )
    left_out = ", ".join(f"{n:,} {why}" for why, n in told["left_out"].items())
    terminal.print_line(f"{told['orders']:,} paid orders, left out: {left_out or 'none'}")
    bad_lines, missing, queued = told["bad_lines"], told["missing"], told["queued"]
    for bad in bad_lines[:_SHOWN]:
        terminal.console.print(f"line {bad['line']}: {bad['why']}")
    if len(bad_lines) > _SHOWN:
        terminal.console.print(f"... {len(bad_lines):,} bad lines in all")
    numbers = ("orders", "value")
    rows = (
        (one["pixel_id"], one["reached"], f"{one['orders']:,}",
         ", ".join(f"{n:,.2f} {currency}" for currency, n in one["value"].items()), one["why"])
        for one in told["outcomes"]
    )  # fmt: skip
    columns = ("pixel", f"{event} reached Meta", *numbers, "why not")
    terminal.print_table(columns, rows, numbers=numbers)
    for one in missing[:_SHOWN]:
        place = f"order {one['order']} (line {one['line']}, {one['time']})"
        terminal.print_line(f"{place}: {one['why']}; replay: {one['replay']}")
    if len(missing) > _SHOWN:
        terminal.console.print(f"... {len(missing):,} missing in all; --json lists them")
    unpaid = told["sent_unpaid"]
    for one in unpaid[:_SHOWN]:
        place = f"order {one['order']} (line {one['line']}): {one['status']}"
        terminal.print_line(f"{place}, but Meta got its {event} ({one['reached']})")
    if len(unpaid) > _SHOWN:
        terminal.console.print(f"... {len(unpaid):,} sent but not paid in all; --json lists them")
    if queued:
        terminal.console.print(f"{queued:,} queued; they leave with the next delivery")
