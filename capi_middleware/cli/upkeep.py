"""deliver, health, migrate, prune, forget: what runs beside the web processes, and upkeep."""

import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

import click

from capi_middleware.capi import CAPI
from capi_middleware.cli import terminal
from capi_middleware.cli.terminal import (
    JSON,
    WRONG,
    called,
    capi_of,
    opened,
    print_done,
    print_json,
    print_line,
    progress,
)
from capi_middleware.delivery.courier import LEASE_SECONDS
from capi_middleware.errors import StoreError
from capi_middleware.meta.payload import about
from capi_middleware.meta.user_data import UserData
from capi_middleware.report.flags import Facts, flags_of
from capi_middleware.report.model import Flag, Health
from capi_middleware.report.read import read_health, read_report
from capi_middleware.report.window import last_day
from capi_middleware.store.opening import moved_aside


@click.command()
@click.option("--once", is_flag=True, help="End when nothing is due; 1 if something waits.")
@click.option("--drain", default=5.0, show_default=True, help="Seconds to end a request in flight.")
@JSON
@click.pass_obj
def deliver(source: str, once: bool, drain: float, as_json: bool) -> None:
    """Deliver what the web processes queue, until SIGTERM.

    Give the web processes Config(delivery=False). Any number of these may run at once.
    """
    capi = capi_of(source, delivery=True)
    stop = threading.Event()

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            sys.exit(128 + number)  # asked twice: at once
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    pixels = ", ".join(pixel.id for pixel in capi.config.fixed_pixels)
    click.echo(f"delivering to {pixels or 'the pixels of each tenant'}", err=True)
    capi.start()
    waiting = 0
    while not stop.wait(0.05 if once else None):
        try:
            if _nothing_is_due(capi) or not _waiting(capi):
                break
        except StoreError as error:
            with suppress(StoreError):
                capi.close(0)
            raise click.ClickException(str(error)) from None
    # The couriers go on when a store is back that is away, and say in the log what is wrong.
    with suppress(StoreError):
        waiting = _waiting(capi)
    with suppress(StoreError):
        capi.close(drain)
    if as_json:
        print_json({"waiting": waiting})
    if once and waiting:
        click.echo(f"{waiting} events wait", err=True)
        sys.exit(WRONG)


def _waiting(capi: CAPI) -> int:
    return sum(one.waiting for one in capi.store.backlog())


def _nothing_is_due(capi: CAPI) -> bool:
    """Whether all that waits has to wait: it was tried, or its pixel rests."""
    pixels = {pixel.id: pixel for pixel in capi.config.fixed_pixels}
    if (tenants := capi.issuer.tenants) is not None:
        for one in capi.store.backlog():
            if (found := tenants.pixel(one.pixel_id)) is not None:
                pixels[one.pixel_id] = found
    for pixel_id, pixel in pixels.items():
        due = capi.store.next_due(pixel_id)
        rest = capi.store.rest(pixel_id, capi.config.mark_of(pixel))
        if due is not None and due < 0.3 and (rest is None or rest.seconds < 0.3):
            return False
    # Last: what a courier took meanwhile is due no more, and not done.
    return not capi.store.depth().get("leased")


@click.command(short_help="What waits and what rests; exit code 1 if something is wrong.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, which a file or pipe gets always.")
@click.pass_obj
def health(source: str, as_json: bool) -> None:
    """What waits and what rests; exit code 1 when somebody should look.

    That is when a pixel rests, events are stale, or Meta refused every event of the last day.
    """
    with opened(source) as capi:
        found = read_health(capi.store, capi.config)
        names = capi.config.pixel_names
        day = read_report(capi.store, capi.config, last_day(time.time()))
    taken = {one.pixel_id for one in day.events if one.server or one.unpaired}
    flags = flags_of(Facts(health=found)) + [
        one for one in day.flags if one.code == "delivery_rejected" and one.pixel_id not in taken
    ]
    if as_json or not terminal.console.is_terminal:
        print_json({"health": found, "flags": flags})
    else:
        _print_health(found, flags, names)
    sys.exit(WRONG if flags else 0)


def _print_health(health: Health, flags: Sequence[Flag], names: Mapping[str, str]) -> None:
    for one in health.pixels:
        told = f"{one.waiting:,} wait" + (f", {one.oldest_seconds:,.0f} s" if one.waiting else "")
        rests = f", rests until {one.paused_until}: {one.paused_because}"
        print_line(f"{called(one.pixel_id, names)}: {told}{rests if one.paused_until else ''}")
    print_line(", ".join(f"{n:,} {state}" for state, n in health.outbox.items()) or "No events.")
    for flag in flags:
        print_line(f"{flag.severity}: {flag.explanation}", flag.fix)


@click.command()
@JSON
@click.pass_obj
def migrate(source: str, as_json: bool) -> None:
    """Make the tables of the store before the web processes start."""
    with opened(source) as capi, progress("opening the store"):
        rows = sum(capi.store.depth().values())
    print_done(as_json, rows, "events", f"the store is up to date, {rows} events")


@click.command(short_help="Delete settled events that are older than so many days.")
@click.option("--days", type=click.IntRange(min=8), help="Default: retention_days of the config.")
@JSON
@click.pass_obj
def prune(source: str, days: int | None, as_json: bool) -> None:
    """Delete settled events older than so many days, in small steps; couriers do it hourly."""
    with opened(source) as capi, progress("deleting old events"):
        before = time.time() - (days or capi.config.retention_days) * 86_400
        pruned = capi.store.prune(before)
    print_done(as_json, pruned, "deleted", f"{pruned} events deleted")


@click.command(short_help="Delete what waits and every dead letter of a person.")
@click.option("--em", multiple=True, help="An e-mail address.")
@click.option("--ph", multiple=True, help="A phone number.")
@click.option("--external-id", multiple=True, help="Your own id of the customer.")
@click.option("--fbp", multiple=True, help="The cookie _fbp.")
@JSON
@click.pass_obj
def forget(source: str, /, as_json: bool, **given: tuple[str, ...]) -> None:
    """Delete what waits and every dead letter of a person; say how many.

    Each option may be given often: an event that has one of these values is deleted. The SHA-256
    that Meta would get does as well, and stays out of the shell's history. What Meta has already
    is deleted in Events Manager. A damaged file that was moved aside keeps what it held: each is
    named, and the exit code is 1.
    """
    with opened(source) as capi, progress("looking for them"):
        region = capi.config.default_region
        named: dict[str, Any] = {key: [*values] for key, values in given.items() if values}
        fbps = named.pop("fbp", [])
        who, wrong = UserData(**named).hashed(region)
        who["fbp"] = [UserData(fbp=one).hashed(region)[0].get("fbp") for one in fbps]
        if wrong or None in who["fbp"] or not (named or fbps):
            found = f"an unusable {', '.join(wrong or ['fbp'])}" if named or fbps else "nobody"
            raise click.UsageError(f"found {found}, expected values as UserData takes them")
        end, waiting, dead, held = time.monotonic() + 2 * LEASE_SECONDS, 0, 0, 1
        while held and time.monotonic() < end:
            found_now = capi.store.forget(about(who))
            waiting, dead = waiting + found_now.waiting, dead + found_now.dead
            if held := found_now.held:
                time.sleep(0.2)  # a courier has them: they are gone, or wait again
    if as_json:
        print_json({"waiting": waiting, "dead_letters": dead, "being_sent": held})
    else:
        click.echo(f"{waiting} that waited and {dead} dead letters forgotten")
    if held:
        click.echo(f"{held} are being sent since long: try again", err=True)
    kept = moved_aside(capi.config.stores)
    for file in kept:
        click.echo(
            f"{file} is damaged and may hold more of them: delete it, its -wal and its -shm when "
            "the log says that its events are saved, and forget them again",
            err=True,
        )
    if held or kept:
        sys.exit(WRONG)
