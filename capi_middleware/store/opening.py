"""From a store URL to a store: the only place that names the engines."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from capi_middleware.errors import ConfigError
from capi_middleware.private import frameless
from capi_middleware.store.store import Store

_EXPECTED = "sqlite:///capi.db, sqlite:////absolute/path.db, postgresql://… or memory:"
_SQLITE = "sqlite:///"
_POSTGRES = re.compile(r"postgres(ql)?://")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}(?=://)")


@frameless
def open_store(
    url: str | Sequence[str], *, queue_limit: int, clock: Callable[[], float] | None = None
) -> Store:
    """The store that `url` names, or several. Nothing is opened yet: that happens at first use.

    Raises ConfigError for what names no store, see `check_url`, and for a file that cannot
    be made where it should be. `clock` (Unix time in seconds) is for tests.
    """
    urls = [url] if isinstance(url, str) else [*url]
    check_urls(urls)
    if len(urls) > 1:
        from capi_middleware.store.shards import Shards

        places = [(place, len(urls)) for place in range(1, len(urls) + 1)]
        share = -(-queue_limit // len(urls))
        return Shards([_open(*of, share, clock) for of in zip(urls, places, strict=True)])
    return _open(urls[0], (1, 1), queue_limit, clock)


def moved_aside(urls: Sequence[str]) -> list[Path]:
    """Damaged SQLite files beside those of the store URLs, which keep what they held."""
    files = [Path(url.removeprefix(_SQLITE)) for url in urls if url.startswith(_SQLITE)]
    if not files:
        return []
    from capi_middleware.store.sqlite import damaged_beside

    return [one for path in files for one in damaged_beside(path)]


def _open(
    url: str, place: tuple[int, int], queue_limit: int, clock: Callable[[], float] | None
) -> Store:
    if _POSTGRES.match(url):
        try:
            from capi_middleware.store.postgres import PostgresEngine
        except ImportError as error:
            raise ConfigError(
                f"store: found a postgresql:// URL and no psycopg ({error}), expected it: "
                "pip install 'capi-middleware[postgres]'"
            ) from None
        engine = PostgresEngine(url, clock, place)
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


def check_urls(urls: Sequence[str]) -> None:
    """Raise ConfigError unless these name a store: one alone, or several of PostgreSQL."""
    for url in urls:
        check_url(url)
    if not urls:
        _fail("an empty list")
    if len(urls) > 1 and not all(map(_POSTGRES.match, urls)):
        _fail(
            "a list with a URL of another kind", "postgresql:// URLs only where there are several"
        )
    if len({*urls}) < len(urls):
        _fail("a list with one URL twice", "a database of its own for each")


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
