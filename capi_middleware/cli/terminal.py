"""What all commands share: from --config to an opened CAPI, how results are printed, exit codes."""

import os
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import click
import msgspec
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.progress import track
from rich.status import Status
from rich.table import Table
from rich.text import Text

from capi_middleware.capi import CAPI
from capi_middleware.cli.source import config_of
from capi_middleware.errors import CapiError, ConfigError

JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")
JSON_LINES = click.option(
    "--json", "as_json", is_flag=True, help="As JSON, one object for each line."
)

T = TypeVar("T")

#: Exit codes of all commands, beside 0: something is wrong or under its target; the command was
#: used wrongly (click's own); nothing can be said with so little data; the configuration is broken.
WRONG, USAGE, NO_DATA, CONFIGURATION = 1, 2, 3, 4

_AS_JSON = "capi_middleware.as_json"
#: What the first word of a line means.
_COLOURS = {
    "critical": "red", "error": "red", "act": "red", "warning": "yellow", "look": "yellow",
    "info": "blue", "ok": "green", "healthy": "green",
}  # fmt: skip

#: Where people see that something is at work; a file or a pipe does not get it.
_SCREEN: Console = Console(stderr=True)
#: Where people look at results. Nothing of what is printed is markup.
console: Console = Console(markup=False, highlight=False, emoji=False)


class Program(click.Group):
    """All commands. With --json what they fail for is JSON as well: {"error": …} on stdout."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:  # fmt: skip
        """See click.Command.make_context."""
        as_json = "--json" in args
        with _told_as_json(as_json):
            made = super().make_context(info_name, args, parent, **extra)
        made.meta[_AS_JSON] = as_json
        return made

    def invoke(self, ctx: click.Context) -> Any:
        """See click.Command.invoke."""
        with _told_as_json(ctx.meta[_AS_JSON]):
            return super().invoke(ctx)


class BrokenConfiguration(click.ClickException):
    """A configuration that cannot work."""

    exit_code = CONFIGURATION


@contextmanager
def _told_as_json(asked: bool) -> Iterator[None]:
    try:
        yield
    except click.ClickException as error:
        if not asked:
            raise
        print_json({"error": error.format_message()})
        sys.exit(error.exit_code)


def failure(error: CapiError) -> click.ClickException:
    """What ends a command for `error`: one line for people."""
    kind = BrokenConfiguration if isinstance(error, ConfigError) else click.ClickException
    return kind(str(error))


def capi_of(source: str, *, delivery: bool, **settings: Any) -> CAPI:
    """The CAPI that `source` names, with other `settings`; its errors are lines for people."""
    try:
        return CAPI(replace(config_of(source), delivery=delivery, **settings))
    except CapiError as error:
        raise failure(error) from None


@contextmanager
def opened(source: str, **settings: Any) -> Iterator[CAPI]:
    """A CAPI that delivers nothing, with other `settings`; errors are lines for people.

    Its store is closed at the end.
    """
    capi = capi_of(source, delivery=False, **settings)
    try:
        yield capi
    except CapiError as error:
        raise failure(error) from None
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

    Where a terminal is too narrow for the longest words, each row is a paragraph of its own: no
    name is broken.
    """
    shown = [[plain(cell) for cell in row] for row in rows]
    if not shown and empty:
        console.print(empty)
        return
    cells = [[name, *(row[at] for row in shown)] for at, name in enumerate(columns)]
    least = [_longest(found if name in numbers else " ".join(found).split())
             for name, found in zip(columns, cells, strict=True)]  # fmt: skip
    if sum(least) + 2 * len(columns) > console.width:
        for first, *others in shown:
            told = zip(columns[1:], others, strict=True)
            print_line(f"{columns[0]} {first}")
            print_line(f"  {', '.join(f'{name} {cell}' for name, cell in told if cell)}")
        return
    made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, found, width in zip(columns, cells, least, strict=True):
        made.add_column(
            name, justify="right" if name in numbers else "left", min_width=width,
            no_wrap=_longest(found) == width,
        )  # fmt: skip
    for row in shown:
        made.add_row(*row)
    console.print(made)


def _longest(texts: Iterable[str]) -> int:
    return max(map(cell_len, texts), default=0)


def called(pixel_id: str, names: Mapping[str, str]) -> str:
    """A pixel by its number, and its name where it has one."""
    return f"{names[pixel_id]} ({pixel_id})" if pixel_id in names else f"pixel {pixel_id}"


def print_line(text: str, fix: str = "") -> None:
    """One line, and one for its `fix`; its first word has a colour where it says how grave it is.

    A terminal gets it in lines that end between words, a file or a pipe as one, however long.
    """
    for line in plain(f"{text}\n  fix: {fix}" if fix else text).split("\n"):
        for part in _wrapped(line):
            shown, word = Text(part), part.split(":")[0].split(" ")[0]
            if word in _COLOURS:
                shown.stylize(_COLOURS[word], 0, len(word))
            console.print(shown, soft_wrap=True)


def print_parts(*parts: str) -> None:
    """Parts on one line where they fit, else each on its own."""
    whole = "  ".join(parts)
    print_line(whole if len(_wrapped(whole)) == 1 else "\n  ".join(parts))


def _wrapped(line: str) -> Sequence[str]:
    if not (console.is_terminal or os.environ.get("COLUMNS")):
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(
        line, console.width, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False, replace_whitespace=False, drop_whitespace=True,
    ) or [""]  # fmt: skip


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
