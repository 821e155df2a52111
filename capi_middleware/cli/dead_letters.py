"""dead-letters: what Meta refused, and what to do with it."""

import json
from collections.abc import Callable
from typing import Any

import click
import msgspec

from capi_middleware.cli import terminal
from capi_middleware.report.window import iso
from capi_middleware.store.records import DeadLetter
from capi_middleware.store.store import Store

_PAGE = 500
_COLUMNS = ("key", "event_name", "pixel", "event_time", "reason", "attempts", "event_id")


@click.group("dead-letters")
def dead_letters() -> None:
    """Events that Meta refused: kept until somebody decides."""


@dead_letters.command("list")
@terminal.JSON_LINES
@click.pass_obj
def list_letters(source: str, as_json: bool) -> None:
    """All dead letters with Meta's error code."""
    letters: list[DeadLetter] = []
    with terminal.opened(source) as capi:
        while more := capi.store.dead_letters(limit=_PAGE, after=letters[-1].key if letters else 0):
            letters += more
    if as_json:
        for one in letters:
            terminal.print_json(_as_dict(one))
        return
    rows = (
        (str(one.key), one.event_name, one.pixel_id, iso(int(one.event_time)), one.reason,
         str(one.attempts), one.event_id)
        for one in letters
    )  # fmt: skip
    terminal.print_table(_COLUMNS, rows, empty="No dead letters.")


@dead_letters.command()
@click.argument("key", type=int)
@click.option("--json", "as_json", is_flag=True, help="As JSON, which it always is: on one line.")
@click.pass_obj
def show(source: str, key: int, as_json: bool) -> None:
    """One dead letter with its payload; personal data in it is hashed."""
    with terminal.opened(source) as capi:
        found = capi.store.dead_letters(limit=1, after=key - 1)
    if not found or found[0].key != key:
        raise click.ClickException(f"found no dead letter {key}, expected a key that `list` shows")
    letter = found[0]
    try:
        payload = json.loads(letter.payload)
    except ValueError:
        payload = f"{len(letter.payload)} bytes that are no JSON"
    shown = _as_dict(letter) | {"payload": payload}
    click.echo(json.dumps(shown, indent=None if as_json else 2))


def _as_dict(letter: DeadLetter) -> dict[str, Any]:
    shown = msgspec.structs.asdict(letter) | {"event_time": iso(letter.event_time)}
    del shown["payload"]
    return shown


def _add(name: str, act: Callable[[Store, list[int] | None], int], done: str, text: str) -> None:
    """A command that does something to the dead letters of some keys, or to all."""

    @dead_letters.command(name, help=text)
    @click.argument("keys", type=int, nargs=-1)
    @click.option("--all", "every", is_flag=True, help="All dead letters.")
    @terminal.JSON
    @click.pass_obj
    def command(source: str, keys: tuple[int, ...], every: bool, as_json: bool) -> None:
        if bool(keys) is every:
            found = "keys and --all" if keys else "neither keys nor --all"
            raise click.UsageError(f"found {found}, expected one of them")
        with terminal.opened(source) as capi, terminal.progress("at work"):
            n = act(capi.store, None if every else list(keys))
        terminal.print_done(as_json, n, done)


_add("requeue", Store.requeue, "requeued",
     "Send dead letters again, with the same event_id and event_time.")  # fmt: skip
_add("drop", Store.drop, "dropped",
     "Give dead letters up: counted as dropped, their payload deleted.")  # fmt: skip
