"""events: single events on a terminal, as the report's page of them shows them."""

import sys
from collections.abc import Mapping

import click

from capi_middleware.cli.terminal import JSON_LINES, NO_DATA, called, opened, print_json, print_line
from capi_middleware.report.inspector import InspectedEvent, parse_sought, read_events


@click.command(short_help="The newest events with what became of both copies.")
@click.argument("of", required=False, default="", metavar="[ID]")
@click.option("--event", default="", help="Only this event name.")
@click.option("--tenant", default="", help="Only events of the tenant with this key.")
@JSON_LINES
@click.pass_obj
def events(source: str, of: str, event: str, tenant: str, as_json: bool) -> None:
    """The newest 50 events with what became of both copies; or those of one event_id or order.

    ID is an event_id, or what the site gave as dedupe_key: the number of an order. Where an order
    has an event with a name of your own, give --event as well. Nothing that is shown is about a
    person. Exit code 3 when nothing is found.
    """
    with opened(source) as capi:
        sought = parse_sought({"event": event, "id": of}, tenant)
        found, names = read_events(capi.store, capi.config, sought), capi.config.pixel_names
    if as_json:
        for one in found:
            print_json(one)
    else:
        _print(found, names)
    if not found:
        click.echo("no such event is stored", err=True)
        sys.exit(NO_DATA)


def _print(found: list[InspectedEvent], names: Mapping[str, str]) -> None:
    causes: dict[str, str] = {}
    for one in found:
        where = ", ".join(filter(None, (one.route, one.page and f"page {one.page}")))
        whose = called(one.pixel_id, names)
        print_line(f"{one.event_time}  {one.event_name}  {whose}  {where}".rstrip())
        print_line(f"  {one.event_id}")
        server, browser = one.server, one.browser
        parts = [server.state, server.at, f"attempts {server.attempts}",
                 server.next_attempt and f"next at {server.next_attempt}",
                 server.trace_id and f"Meta's trace id {server.trace_id}"]  # fmt: skip
        print_line(f"  server   {', '.join(filter(None, parts))}")
        print_line(f"  browser  {', '.join(filter(None, (browser.state, browser.at)))}")
        print_line(f"  match keys: {', '.join(one.match_keys) or 'none'}")
        for side, copy in (("server", server), ("browser", browser)):
            if copy.because:
                causes[f"{side} {copy.state}: {copy.because}"] = copy.fix
    for cause, fix in causes.items():
        print_line(cause, fix)
