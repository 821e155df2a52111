"""health, migrate, prune: the upkeep of the store."""

import sys
import time

import click

from capi_middleware.cli.terminal import JSON, opened, print_done, print_json, progress
from capi_middleware.report.flags import Facts, flags_of
from capi_middleware.report.read import read_health


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON, which it always is.")
@click.pass_obj
def health(source: str, as_json: bool) -> None:
    """What waits and what rests, as JSON; exit code 1 when a pixel rests or events are stale."""
    with opened(source) as capi:
        found = read_health(capi.store, capi.config)
    flags = flags_of(Facts(health=found))
    print_json({"health": found, "flags": flags})
    sys.exit(1 if flags else 0)


@click.command()
@JSON
@click.pass_obj
def migrate(source: str, as_json: bool) -> None:
    """Make the tables of the store before the web processes start."""
    with opened(source) as capi, progress("opening the store"):
        rows = sum(capi.store.depth().values())
    print_done(as_json, rows, "events", f"the store is up to date, {rows} events")


@click.command()
@click.option("--days", type=click.IntRange(min=8), help="Default: retention_days of the config.")
@JSON
@click.pass_obj
def prune(source: str, days: int | None, as_json: bool) -> None:
    """Delete settled events older than so many days, in small steps; couriers do it hourly."""
    with opened(source) as capi, progress("deleting old events"):
        before = time.time() - (days or capi.config.retention_days) * 86_400
        pruned = capi.store.prune(before)
    print_done(as_json, pruned, "deleted", f"{pruned} events deleted")
