"""Statements that take many rows of values at once.

Each step of a statement lets go of the interpreter's lock and waits for it again: up to 5 ms while
pages keep it busy, and with the database's lock held. So few statements take many rows.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

#: How many rows a statement takes: any number is a sum of few of these.
SIZES = (64, 32, 16, 8, 4, 2, 1)


def for_many(statement: str, width: int, *, shared: int = 0, more: str = "") -> Mapping[int, str]:
    """`statement` by how many rows of `width` values stand at "{rows}", each followed by `more`.

    Parameters 1 to `shared` are the same for all rows.
    """
    rows = [
        f"({', '.join(f'?{at + field}' for field in range(width))}{more})"
        for at in range(1 + shared, 1 + shared + width * SIZES[0], width)
    ]
    return {n: statement.format(rows=", ".join(rows[:n])) for n in SIZES}


def execute_many(
    db: sqlite3.Connection,
    statements: Mapping[int, str],
    rows: Sequence[Sequence[Any]],
    *shared: object,
) -> Iterator[sqlite3.Cursor]:
    """Execute for all `rows`, each part when its cursor is asked for."""
    done = 0
    for n in SIZES:
        while len(rows) - done >= n:
            values = tuple(chain(shared, *rows[done : done + n]))
            done += n
            yield db.execute(statements[n], values)
