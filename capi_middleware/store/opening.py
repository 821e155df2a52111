"""From a store URL to a store: the only place that names the engines."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from capi_middleware.errors import ConfigError
from capi_middleware.store.store import Store

_EXPECTED = "sqlite:///capi.db, sqlite:////absolute/path.db, postgresql://… or memory:"
_SQLITE = "sqlite:///"
_POSTGRES = re.compile(r"postgres(ql)?://")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}(?=://)")


def open_store(url: str, *, queue_limit: int, clock: Callable[[], float] | None = None) -> Store:
    """The store that `url` names. Nothing is opened yet: that happens at the first use.

    Raises ConfigError for a URL that names no store, see `check_url`, and for a file that cannot
    be made where it should be. `clock` (Unix time in seconds) is for tests.
    """
    check_url(url)
    if _POSTGRES.match(url):
        try:
            from capi_middleware.store.postgres import PostgresEngine
        except ImportError as error:
            raise ConfigError(
                f"store: found a postgresql:// URL and no psycopg ({error}), expected it: "
                "pip install 'capi-middleware[postgres]'"
            ) from None
        engine = PostgresEngine(url, clock)
        return Store(engine, queue_limit=queue_limit, clock=clock or time.time)
    from capi_middleware.store.sqlite import File, Memory

    clock = clock or time.time
    if url == "memory:":
        return Store(Memory(clock), queue_limit=queue_limit, clock=clock)
    path = Path(url.removeprefix(_SQLITE))
    if not path.parent.is_dir():
        _fail(f"no directory {path.parent}", f"an existing one for {path.name}")
    if path.is_dir():
        _fail(f"a directory at {path}", "the name of a file")
    return Store(File(path, clock), queue_limit=queue_limit, clock=clock)


def check_url(url: str) -> None:
    """Raise ConfigError unless `url` names a store; its text is not shown, for its password.

    "sqlite:///capi.db" is relative to the working directory, "sqlite:////srv/capi.db" absolute;
    "memory:" forgets all at a restart.
    """
    if not isinstance(url, str):
        _fail(f"a {type(url).__name__}")
    if url == "memory:":
        return
    if url in ("sqlite:", "sqlite://", _SQLITE) or url.startswith(
        (f"{_SQLITE}:memory:", f"{_SQLITE}file:", f"{_SQLITE}?")
    ):
        _fail("SQLite without a file", '"memory:" for a store that forgets all, or ' + _EXPECTED)
    if url.startswith(_SQLITE):
        if "\0" in url or url.endswith("/"):
            _fail("sqlite:/// with something that is no file name")
        if "?" in url:
            _fail("sqlite:/// with options after '?'", "no options: " + _EXPECTED)
        return
    if url.startswith("sqlite:"):
        _fail("sqlite: with a number of slashes other than 3 or 4")
    if _POSTGRES.match(url):
        return
    scheme = _SCHEME.match(url)
    _fail(f"{scheme.group()}://" if scheme else "a text that is no URL of a store")


def _fail(found: str, expected: str = _EXPECTED) -> NoReturn:
    raise ConfigError(f"store: found {found}, expected {expected}")
