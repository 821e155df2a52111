"""What commands print: tables for people, JSON for programs, progress on standard error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.table import Table

JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")

#: Where people look at results. Nothing of what is printed is markup.
console: Console = Console(markup=False, highlight=False, emoji=False)


def table(*texts: str, numbers: tuple[str, ...] = (), after: tuple[str, ...] = ()) -> Table:
    """A table of text columns, then columns of numbers, then text columns again.

    Without lines and borders: eight columns of numbers must fit a terminal of 80 characters.
    """
    made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in texts:
        made.add_column(name, overflow="fold")
    for name in numbers:
        made.add_column(name, justify="right", no_wrap=True)
    for name in after:
        made.add_column(name, overflow="fold")
    return made


def print_line(text: str) -> None:
    """One line, however long: a terminal wraps it, a file keeps it whole."""
    console.print(text, soft_wrap=True)


def print_json(value: Any) -> None:
    """One line of JSON on standard output."""
    click.echo(msgspec.json.encode(value).decode())


@contextmanager
def progress(text: str, total: int | None = None) -> Iterator[Progress]:
    """Shows on a terminal that something takes long: `total` steps, or nobody knows how many.

    Yields the Progress; its one task has the id 0.
    """
    screen = Console(stderr=True)
    columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False), Elapsed()]
    more = [BarColumn(), MofNCompleteColumn()] if total is not None else []
    with Progress(
        *columns, *more, console=screen, transient=True, disable=not screen.is_terminal
    ) as shown:
        shown.add_task(text, total=total)
        yield shown
