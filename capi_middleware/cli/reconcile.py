"""Paid orders against what reached Meta; what is missing can be sent after all."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from capi_middleware.capi import CAPI
from capi_middleware.cli.ledger import YES, Judged, Ledger, sums
from capi_middleware.cli.opening import opened
from capi_middleware.cli.orders import Orders, OrdersError, read_orders
from capi_middleware.cli.printing import JSON, console, print_json, print_line, progress, table
from capi_middleware.errors import CapiError
from capi_middleware.meta.user_data import UserData
from capi_middleware.report.window import iso
from capi_middleware.store.records import MOST_FOUND

_SHOWN = 50
_ON_ITS_WAY = frozenset({"pending", "leased", "delivered"})
_COLUMNS = ("id", "time", "value", "currency", "status", "email", "phone", "consent")


def _column_options(command: Any) -> Any:
    for name in reversed(_COLUMNS):
        text = f"The column of the {name}; by its usual names without it."
        command = click.option(f"--{name}-column", help=text)(command)
    return command


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--event", default="Purchase", show_default=True, help="The event of an order.")
@_column_options
@click.option("--currency", default="", help="For lines that name none.")
@click.option("--timezone", help="Of times without an offset, e.g. Europe/Berlin.")
@click.option("--replay", is_flag=True, help="Queue what is missing and may be sent.")
@click.option("--consented", is_flag=True, help="All visitors of the file agreed to be tracked.")
@JSON
@click.pass_obj
def reconcile(
    source: str,
    /,
    file: Path,
    event: str,
    currency: str,
    timezone: str | None,
    replay: bool,
    consented: bool,
    as_json: bool,
    **columns: str | None,
) -> None:
    """Compare paid orders (CSV) with the ledger: which never reached Meta, and why.

    The id column is the dedupe_key of the event. --replay queues orders of the last seven days
    that are in no ledger, with the order's time, and never one that Meta may have counted. E-mail
    and phone are hashed in memory. Exit code 0 when every order reached Meta, is on its way or was
    queued; 1 when one is missing; 2 when the file holds no paid order.
    """
    chosen = {name: columns[f"{name}_column"] for name in _COLUMNS}
    try:
        zone = ZoneInfo(timezone) if timezone else None
        read = read_orders(file, chosen, currency=currency, zone=zone)
    except (OrdersError, ZoneInfoNotFoundError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    with opened(source) as capi:
        if not capi.config.pixel_ids(event):
            raise click.UsageError(f"--event: found {event!r}, expected one that a pixel takes")
        ledger = Ledger(capi.config, capi.store, event, time.time(), consented=consented)
        with progress("looking orders up", len(read.orders)) as shown:
            ledger.read(read.orders, lambda n: shown.advance(shown.tasks[0].id, n))
        judged = [one for order in read.orders for one in ledger.judge(order)]
        queued = _replay(capi, event, judged) if replay else {}
    missing = [one for one in judged if one.reached == "no" and not _is_queued(one, queued)]
    if as_json:
        print_json(_as_json(read, judged, queued))
    else:
        _print(event, read, judged, queued)
    sys.exit(2 if not read.orders else 1 if missing or read.bad_lines else 0)


def _replay(capi: CAPI, event: str, judged: Sequence[Judged]) -> dict[str, str]:
    """Queue each order that may be sent, once; its event_id by order id."""
    wanted = {one.order.id: one.order for one in judged if one.replay == YES}
    # At a pixel that has the order already, its row stays as it is.
    queued = {}
    with progress("queueing", len(wanted)) as shown:
        for order in wanted.values():
            try:
                made = capi.track(
                    event,
                    dedupe_key=order.id,
                    value=order.value,
                    currency=order.currency or None,
                    user_data=UserData(em=order.email or None, ph=order.phone or None),
                    event_time=order.time,
                )
            except (CapiError, ValueError) as error:
                click.echo(f"line {order.line}: not queued ({error})", err=True)
            else:
                queued[order.id] = made.event_id
            shown.advance(shown.tasks[0].id)
    return _stored(capi, queued)


def _stored(capi: CAPI, queued: dict[str, str]) -> dict[str, str]:
    """Those that are in the store and on their way: a full store drops what it cannot take."""
    capi.store.flush(10.0)
    orders, found = list(queued), set()
    for start in range(0, len(orders), MOST_FOUND):
        ids = [queued[order] for order in orders[start : start + MOST_FOUND]]
        found |= {one.event_id for one in capi.store.find(ids) if one.server in _ON_ITS_WAY}
    return {order: event_id for order, event_id in queued.items() if event_id in found}


def _is_queued(one: Judged, queued: dict[str, str]) -> bool:
    # At another pixel the same order may be a dead letter: there its row stays as it is.
    return one.replay == YES and one.order.id in queued


def _causes(judged: Sequence[Judged]) -> dict[tuple[str, str], list[Judged]]:
    """By pixel and outcome: the channels first, then the causes, the most frequent first."""
    groups: dict[tuple[str, str], list[Judged]] = {}
    for one in judged:
        outcome = one.why if one.reached == "no" else one.reached
        groups.setdefault((one.pixel_id, outcome), []).append(one)
    return dict(
        sorted(groups.items(), key=lambda item: (item[1][0].reached == "no", -len(item[1])))
    )


def _as_json(read: Orders, judged: Sequence[Judged], queued: dict[str, str]) -> dict[str, Any]:
    return {
        "columns": read.columns,
        "orders": len(read.orders),
        "unpaid": read.unpaid,
        "bad_lines": read.bad_lines,
        "outcomes": [
            {
                "pixel_id": pixel_id,
                "reached": group[0].reached,
                "why": group[0].why,
                "orders": len(group),
                "value": sums([one.order for one in group]),
            }
            for (pixel_id, _), group in _causes(judged).items()
        ],
        "missing": [
            {
                "order": one.order.id,
                "line": one.order.line,
                "time": iso(one.order.time),
                "value": None if one.order.value is None else float(one.order.value),
                "currency": one.order.currency,
                "pixel_id": one.pixel_id,
                "why": one.why,
                "replay": "queued" if _is_queued(one, queued) else one.replay,
            }
            for one in judged
            if one.reached == "no"
        ],
        "queued": len(queued),
    }


def _print(event: str, read: Orders, judged: Sequence[Judged], queued: dict[str, str]) -> None:
    columns = ", ".join(f"{meaning} from {name!r}" for meaning, name in read.columns.items())
    print_line(f"Columns: {columns}")
    console.print(f"{len(read.orders):,} paid orders, {read.unpaid:,} unpaid left out")
    for bad in read.bad_lines[:_SHOWN]:
        console.print(f"line {bad.line}: {bad.why}")
    if len(read.bad_lines) > _SHOWN:
        console.print(f"... {len(read.bad_lines):,} bad lines in all")
    shown = table("pixel", f"{event} reached Meta", numbers=("orders", "value"), after=("why not",))
    for (pixel_id, _), group in _causes(judged).items():
        value = ", ".join(f"{n:,.2f} {c}" for c, n in sums([one.order for one in group]).items())
        shown.add_row(pixel_id, group[0].reached, f"{len(group):,}", value, group[0].why)
    console.print(shown)
    missing = [one for one in judged if one.reached == "no"]
    for one in missing[:_SHOWN]:
        replay = "queued" if _is_queued(one, queued) else one.replay
        print_line(
            f"order {one.order.id} (line {one.order.line}, {iso(one.order.time)}): "
            f"{one.why}; replay: {replay}"
        )
    if len(missing) > _SHOWN:
        console.print(f"... {len(missing):,} missing in all; --json lists them")
    if queued:
        console.print(f"{len(queued):,} queued; they leave with the next delivery")
