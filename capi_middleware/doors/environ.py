"""The request of a WSGI environ: as an ASGI http scope, and its body as the app reads it."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from capi_middleware.steps import BODY_LIMIT

Environ = dict[str, Any]


class Tee:
    """wsgi.input that shows what is read from it."""

    def __init__(self, stream: Any, seen: Callable[[bytes], None]) -> None:
        self._stream = stream
        self._seen = seen

    def read(self, *size: int) -> bytes:
        """As the stream's own."""
        return self._show(self._stream.read(*size))

    def readline(self, *size: int) -> bytes:
        """As the stream's own."""
        return self._show(self._stream.readline(*size))

    def readlines(self, *hint: int) -> list[bytes]:
        """As the stream's own."""
        return [self._show(line) for line in self._stream.readlines(*hint)]

    def __iter__(self) -> Iterator[bytes]:
        for line in self._stream:
            yield self._show(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _show(self, data: bytes) -> bytes:
        self._seen(data)
        return data


def scope_of(environ: Environ) -> dict[str, Any]:
    """The request of a WSGI environ as an ASGI http scope."""
    mount = _text(environ.get("SCRIPT_NAME", ""))
    path = mount + _text(environ.get("PATH_INFO", "")) or "/"
    headers = [
        (_header(name), str(value).encode("latin-1", "ignore"))
        for name, value in environ.items()
        if name[:5] == "HTTP_"
    ]
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers.append((_header(f"HTTP_{name}"), environ[name].encode("latin-1")))
    if "HTTP_HOST" not in environ:
        host = f"{environ.get('SERVER_NAME', '')}:{environ.get('SERVER_PORT', '')}"
        headers.append((b"host", host.encode("latin-1")))
    peer = environ.get("REMOTE_ADDR")
    return {
        "type": "http",
        "method": environ.get("REQUEST_METHOD", "GET"),
        "path": path,
        "raw_path": quote(path, safe="/:@!$&'()*+,;=~").encode(),
        "root_path": mount,
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1", "ignore"),
        "scheme": environ.get("wsgi.url_scheme", "http"),
        "headers": headers,
        "client": (peer, 0) if peer else None,
        "state": environ,
    }


@lru_cache(maxsize=256)
def _header(name: str) -> bytes:
    """The header's name that a variable of the environ stands for."""
    return name[5:].replace("_", "-").lower().encode("latin-1")


def _text(native: str) -> str:
    """PEP 3333 hands UTF-8 paths over as latin-1."""
    if native.isascii():
        return native
    return native.encode("latin-1", "ignore").decode("utf-8", "replace")


def read_body(environ: Environ) -> bytes | None:
    """The whole body; None when it is longer than BODY_LIMIT."""
    given = environ.get("CONTENT_LENGTH") or "0"
    length = int(given) if given.isdecimal() else 0
    if length > BODY_LIMIT:
        return None
    return bytes(environ["wsgi.input"].read(length)) if length else b""
