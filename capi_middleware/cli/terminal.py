"""What all commands share: from --config to an opened CAPI, and how results are printed."""

import importlib
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.status import Status
from rich.table import Table

from capi_middleware.capi import CAPI
from capi_middleware.config.settings import Config
from capi_middleware.errors import CapiError, ConfigError

JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")
JSON_LINES = click.option(
    "--json", "as_json", is_flag=True, help="As JSON, one object for each line."
)

T = TypeVar("T")

#: Where people see that something is at work; a file or a pipe does not get it.
_SCREEN: Console = Console(stderr=True)
#: Where people look at results. Nothing of what is printed is markup.
console: Console = Console(markup=False, highlight=False, emoji=False)


def config_of(source: str) -> Config:
    """The Config that `source` names. Raises ConfigError."""
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


def capi_of(source: str, *, delivery: bool, **settings: Any) -> CAPI:
    """The CAPI that `source` names, with other `settings`; its errors are lines for people."""
    try:
        return CAPI(replace(config_of(source), delivery=delivery, **settings))
    except CapiError as error:
        raise click.ClickException(str(error)) from None


@contextmanager
def opened(source: str, **settings: Any) -> Iterator[CAPI]:
    """A CAPI that delivers nothing, with other `settings`; errors are lines for people.

    Its store is closed at the end.
    """
    capi = capi_of(source, delivery=False, **settings)
    try:
        yield capi
    except CapiError as error:
        raise click.ClickException(str(error)) from None
    finally:
        capi.close()
        capi.store.close()


def plain(text: str) -> str:
    """`text` without characters that a terminal would obey; those of others are spelled out."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in "\n\t" else f"\\x{ord(one):02x}" for one in text
    )


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[str] = (),
    empty: str = "",
) -> None:  # fmt: skip
    """A table; `numbers` are the columns to the right, `empty` is said instead without `rows`.

    Without lines and borders: eight columns of numbers must fit a terminal of 80 characters.
    """
    made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        if name in numbers:
            made.add_column(name, justify="right", no_wrap=True)
        else:
            made.add_column(name, overflow="fold")
    for row in rows:
        made.add_row(*map(plain, row))
    console.print(made if made.rows or not empty else empty)


def print_line(text: str, fix: str = "") -> None:
    """One line, however long, and one for its `fix`: a terminal wraps it, a file keeps it whole."""
    console.print(plain(f"{text}\n  fix: {fix}" if fix else text), soft_wrap=True)


def print_json(value: Any) -> None:
    """One line of JSON on standard output."""
    click.echo(msgspec.json.encode(value).decode())


def print_done(as_json: bool, n: int, word: str, text: str = "") -> None:
    """How many events something was done to: {word: n} for programs, `text` for people."""
    print_json({word: n}) if as_json else click.echo(text or f"{n} {word}")


def progress(text: str) -> Status:
    """Shows on a terminal, in a `with`, that something takes long."""
    return _SCREEN.status(text)


def steps(things: Sequence[T], text: str) -> Iterable[T]:
    """All `things`, one after another; a terminal shows how many have been."""
    return track(things, text, console=_SCREEN, transient=True, disable=not _SCREEN.is_terminal)
