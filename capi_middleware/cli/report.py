"""report: the parity report on a terminal: the numbers of the page, and an exit code for CI."""

import sys
import time
from collections.abc import Sequence

import click

from capi_middleware.cli.terminal import (
    JSON,
    NO_DATA,
    WRONG,
    called,
    opened,
    print_line,
    print_table,
)
from capi_middleware.report.html import to_json
from capi_middleware.report.model import SIDES, EventReport, Flag, Report
from capi_middleware.report.numbers import MIN_EVENTS, misses, percent
from capi_middleware.report.read import read_report
from capi_middleware.report.window import WindowError, parse_window


@click.command(short_help="The parity report: coverage, causes and flags.")
@click.option("--from", help="ISO 8601, UTC without an offset. Default: 7 days ago.")
@click.option("--to", help="ISO 8601, not part of the window. Default: now.")
@click.option("--event", help="Only this event name.")
@click.option("--pixel", help="Only this pixel.")
@click.option("--tenant", default="", help="Only the pixels of this tenant, by its key.")
@click.option(
    "--fail-under", type=click.FloatRange(0, 1, min_open=True),
    help="A share such as 0.75: exit code 1 when the coverage of an event is under it.",
)  # fmt: skip
@JSON
@click.pass_obj
def report(
    source: str, /, tenant: str, fail_under: float | None, as_json: bool, **asked: str | None
) -> None:
    """The parity report: coverage, causes and flags, the same numbers as the page.

    With --fail-under the exit code is 1 when the coverage of an event is under the share with 95 %
    certainty, so that two unlucky events fail no build. No data is never called good: the exit
    code is 3 when no event has five browser events or more, or when one is under the share with
    too few events to be certain.
    """
    try:
        window = parse_window({name: one for name, one in asked.items() if one}, time.time())
    except WindowError as error:
        raise click.UsageError(str(error)) from None
    with opened(source) as capi:
        if tenant and capi.config.tenant is None:
            raise click.UsageError(
                f"--tenant: found {tenant!r}, expected none: this configuration has no tenants"
            )
        found = read_report(capi.store, capi.config, window, tenant=tenant)
    if as_json:
        click.echo(to_json(found).decode())
    else:
        _print(found)
    if fail_under is not None:
        sys.exit(_judge(found, fail_under))


def _judge(found: Report, target: float) -> int:
    below = [one for one in found.events if one.coverage is not None and one.coverage < target]
    surely = [one for one in below if misses(one.matched, one.browser, target)]
    for one in surely:
        click.echo(
            f"{one.event_name} at {called(one.pixel_id, found.pixel_names)}: "
            f"coverage {percent(one.coverage)} "
            f"({one.matched:,} of {one.browser:,}) is under {percent(target)}",
            err=True,
        )
    if surely:
        return WRONG
    if not below and any(one.browser >= MIN_EVENTS for one in found.events):
        return 0
    click.echo("there is too little data in this window to call it good", err=True)
    return NO_DATA


def _print(found: Report) -> None:
    print_line(f"Events from {found.window.start} up to {found.window.end}")
    print_line(f"{found.verdict.word}: {found.verdict.sentence}")
    if not found.events:
        print_line("No events in this window.")
    for pixel_id in dict.fromkeys(one.pixel_id for one in found.events):
        print_line(f"All of {called(pixel_id, found.pixel_names)}:")
        _print_pixel([one for one in found.events if one.pixel_id == pixel_id])
    for fix, flags in _by_fix(found.flags).items():
        for flag in flags:
            pixel = called(flag.pixel_id, found.pixel_names) if flag.pixel_id else ""
            who = " at ".join(filter(None, (flag.event_name, pixel)))
            said = f"{flag.severity}: {who}{': ' if who else ''}{flag.explanation}"
            print_line(said, fix if flag is flags[-1] else "")


def _print_pixel(events: Sequence[EventReport]) -> None:
    numbers = ("server", "browser", "matched", "coverage", "ratio", "pending")
    rows = (
        (one.event_name, f"{one.server:,}", f"{one.browser:,}", f"{one.matched:,}",
         percent(one.coverage), percent(one.ratio), f"{one.pending:,}")
        for one in events
    )  # fmt: skip
    print_table(("event", *numbers), rows, numbers=numbers)
    for one in events:
        for side in SIDES:
            if causes := one.missing(side):
                parts = ", ".join(f"{n:,} {cause}" for cause, n in causes.items())
                print_line(f"{one.event_name}, no {side} copy: {parts}")
        if one.unpaired:
            print_line(f"{one.event_name}: {one.unpaired:,} beyond the page")


def _by_fix(flags: Sequence[Flag]) -> dict[str, list[Flag]]:
    """What one fix ends comes together, so that it is said once."""
    together: dict[str, list[Flag]] = {}
    for one in flags:
        together.setdefault(one.fix, []).append(one)
    return together
