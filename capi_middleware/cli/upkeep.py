"""Upkeep of the store: its schema and its age."""

import time

import click

from capi_middleware.cli.opening import opened
from capi_middleware.cli.printing import JSON, print_json, progress


@click.command()
@JSON
@click.pass_obj
def migrate(source: str, as_json: bool) -> None:
    """Make the store, or bring its schema up to date, before the web processes start."""
    with opened(source) as capi, progress("bringing the store up to date"):
        rows = sum(capi.store.depth().values())
    if as_json:
        print_json({"events": rows})
    else:
        click.echo(f"the store is up to date, {rows} events")


@click.command()
@click.option("--days", type=click.IntRange(min=8), help="Default: retention_days of the config.")
@JSON
@click.pass_obj
def prune(source: str, days: int | None, as_json: bool) -> None:
    """Delete settled events older than so many days, in small steps; couriers do it hourly."""
    with opened(source) as capi, progress("deleting old events"):
        before = time.time() - (days or capi.config.retention_days) * 86_400
        pruned = capi.store.prune(before)
    if as_json:
        print_json({"deleted": pruned})
    else:
        click.echo(f"{pruned} events deleted")
