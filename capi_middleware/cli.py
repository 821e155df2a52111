"""The command line: deliver apart from the web processes, and look after dead letters."""

import importlib
import json
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

try:
    import click
    from rich.console import Console
    from rich.table import Table
except ImportError:
    sys.exit("capi-middleware: found no click and rich, expected them: "
             "pip install 'capi-middleware[cli]'")  # fmt: skip

import msgspec

from capi_middleware import __version__
from capi_middleware.config import Config
from capi_middleware.errors import CapiError, ConfigError
from capi_middleware.parity.health import flags_of_health, health_of
from capi_middleware.parity.window import iso
from capi_middleware.store.protocol import DeadLetter
from capi_middleware.tracker import CAPI

_PAGE = 500
_ALL = click.option("--all", "every", is_flag=True, help="All dead letters.")
_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON, one object for each line.")


@click.group()
@click.version_option(__version__)
@click.option(
    "--config",
    "source",
    default="capi.toml",
    envvar="CAPI_CONFIG",
    show_default=True,
    help="A capi.toml, or module:name of a Config or CAPI.",
)
@click.pass_context
def main(context: click.Context, source: str) -> None:
    """Meta's Conversions API for Python web apps."""
    context.obj = source


@main.command()
@click.option("--once", is_flag=True, help="End when nothing is due; 1 if something waits.")
@click.option("--drain", default=5.0, show_default=True, help="Seconds to end a request in flight.")
@click.pass_obj
def deliver(source: str, once: bool, drain: float) -> None:
    """Deliver what the web processes queue, until SIGTERM.

    Give the web processes Config(delivery=False). Any number of these may run at once.
    """
    capi = _capi(source, delivery=True)
    stop = threading.Event()

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            sys.exit(128 + number)  # asked twice: at once
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    pixels = ", ".join(pixel.id for pixel in capi.config.pixels)
    click.echo(f"delivering to {pixels}", err=True)
    capi.start()
    waiting = 0
    while not stop.is_set():
        waiting = sum(one.waiting for one in capi.store.backlog())
        if once and not waiting:
            break
        if once and _nothing_is_due(capi):
            break
        stop.wait(0.05 if once else 1.0)
    capi.close(drain)
    if once and waiting:
        click.echo(f"{waiting} events wait", err=True)
        sys.exit(1)


def _nothing_is_due(capi: CAPI) -> bool:
    """Whether all that waits has to wait: it was tried, or its pixel rests."""
    if capi.store.depth().get("leased"):
        return False
    resting = {pause.pixel_id for pause in capi.store.pauses()}
    for pixel in capi.config.pixels:
        due = capi.store.next_due(pixel.id)
        if pixel.id not in resting and due is not None and due < 0.3:
            return False
    return True


@main.command()
@click.pass_obj
def health(source: str) -> None:
    """What waits and what rests, as JSON; exit code 1 when a pixel rests or events are stale."""
    capi = _capi(source, delivery=False)
    store = capi.store
    found = health_of(
        store.depth(),
        store.backlog(),
        store.pauses(),
        pixel_ids=[pixel.id for pixel in capi.config.pixels],
        delivering=True,
    )
    flags = flags_of_health(found)
    click.echo(msgspec.json.encode({"health": found, "flags": flags}).decode())
    sys.exit(1 if flags else 0)


@main.command()
@click.pass_obj
def migrate(source: str) -> None:
    """Make the store, or bring its schema up to date, before the web processes start."""
    capi = _capi(source, delivery=False)
    rows = sum(capi.store.depth().values())
    capi.store.close()
    click.echo(f"the store is up to date, {rows} events")


@main.command()
@click.option("--days", type=click.IntRange(min=8), help="Default: retention_days of the config.")
@click.pass_obj
def prune(source: str, days: int | None) -> None:
    """Delete settled events older than so many days, in small steps; couriers do it hourly."""
    capi = _capi(source, delivery=False)
    pruned = capi.store.prune(time.time() - (days or capi.config.retention_days) * 86_400)
    capi.store.close()
    click.echo(f"{pruned} events deleted")


@main.group("dead-letters")
def dead_letters() -> None:
    """Events that Meta refused: kept until somebody decides."""


@dead_letters.command("list")
@_JSON
@click.pass_obj
def list_letters(source: str, as_json: bool) -> None:
    """All dead letters with Meta's error code."""
    letters = _letters(_capi(source, delivery=False))
    if as_json:
        for one in letters:
            click.echo(json.dumps(_as_dict(one)))
        return
    table = Table("key", "event_name", "pixel", "event_time", "reason", "attempts", "event_id")
    for one in letters:
        table.add_row(str(one.key), one.event_name, one.pixel_id, iso(one.event_time),
                      one.reason, str(one.attempts), one.event_id)  # fmt: skip
    Console().print(table if letters else "No dead letters.")


@dead_letters.command()
@click.argument("key", type=int)
@click.pass_obj
def show(source: str, key: int) -> None:
    """One dead letter with its payload; personal data in it is hashed."""
    found = _capi(source, delivery=False).store.dead_letters(limit=1, after=key - 1)
    if not found or found[0].key != key:
        raise click.ClickException(f"found no dead letter {key}, expected a key that `list` shows")
    click.echo(json.dumps(_as_dict(found[0]) | {"payload": _payload(found[0])}, indent=2))


@dead_letters.command()
@click.argument("keys", type=int, nargs=-1)
@_ALL
@click.pass_obj
def requeue(source: str, keys: tuple[int, ...], every: bool) -> None:
    """Send dead letters again, with the same event_id and event_time."""
    capi = _capi(source, delivery=False)
    click.echo(f"{capi.store.requeue(_wanted(keys, every))} requeued")


@dead_letters.command()
@click.argument("keys", type=int, nargs=-1)
@_ALL
@click.pass_obj
def drop(source: str, keys: tuple[int, ...], every: bool) -> None:
    """Give dead letters up: each is counted as dropped, its payload deleted."""
    capi = _capi(source, delivery=False)
    click.echo(f"{capi.store.drop(_wanted(keys, every))} dropped")


def _wanted(keys: tuple[int, ...], every: bool) -> list[int] | None:
    if bool(keys) is every:
        found = "keys and --all" if keys else "neither keys nor --all"
        raise click.UsageError(f"found {found}, expected one of them")
    return None if every else list(keys)


def _letters(capi: CAPI) -> list[DeadLetter]:
    letters: list[DeadLetter] = []
    while True:
        more = capi.store.dead_letters(limit=_PAGE, after=letters[-1].key if letters else 0)
        letters += more
        if len(more) < _PAGE:
            return letters


def _as_dict(letter: DeadLetter) -> dict[str, Any]:
    return {
        "key": letter.key,
        "event_name": letter.event_name,
        "pixel_id": letter.pixel_id,
        "event_id": letter.event_id,
        "event_time": iso(letter.event_time),
        "reason": letter.reason,
        "attempts": letter.attempts,
    }


def _payload(letter: DeadLetter) -> Any:
    try:
        return json.loads(letter.payload)
    except ValueError:
        return f"{len(letter.payload)} bytes that are no JSON"


def _capi(source: str, *, delivery: bool) -> CAPI:
    try:
        config = _config(source)
        return CAPI(replace(config, delivery=delivery))
    except CapiError as error:
        raise click.ClickException(str(error)) from None


def _config(source: str) -> Config:
    module, colon, name = source.partition(":")
    if not colon or Path(source).exists():
        return Config.load(source)
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--config: found no {source} ({error}), expected module:name") from None
    if isinstance(found, CAPI):
        found = found.config
    if not isinstance(found, Config):
        kind = type(found).__name__
        raise ConfigError(f"--config: found a {kind} at {source}, expected a Config or a CAPI")
    return found


if __name__ == "__main__":
    main()
