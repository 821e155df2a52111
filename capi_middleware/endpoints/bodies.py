"""The body of a request to an endpoint, through WSGI: so much of it, and not for ever."""

import os
import socket
import threading
from contextlib import suppress
from io import BufferedReader
from types import TracebackType
from typing import Any, ClassVar

from capi_middleware.endpoints import BODY_LIMIT, BODY_SECONDS, SECOND_BODY_SECONDS

#: More digits than any length has; int() refuses endless ones.
_LONGEST_LENGTH = 18
#: Where servers keep the connection: gunicorn's, and that of Flask's and Django's own.
_CONNECTIONS = ("gunicorn.socket", "werkzeug.socket")


def read_body(environ: dict[str, Any]) -> bytes | None:
    """The whole body; None when it is longer than BODY_LIMIT.

    Raises TimeoutError where it takes too long, see Patience.
    """
    stream: Any = environ.get("wsgi.input")
    given = environ.get("CONTENT_LENGTH") or ""
    if given.isdecimal():
        limit = int(given) if len(given) < _LONGEST_LENGTH else BODY_LIMIT + 1
        if limit > BODY_LIMIT:
            return None
    elif _ends(environ, stream):
        limit = BODY_LIMIT + 1
    else:
        limit = 0
    if not limit:
        return b""
    body = bytearray()
    with Patience(environ):
        while (
            stream is not None and len(body) < limit and (piece := stream.read(limit - len(body)))
        ):
            body += piece
    return bytes(body) if len(body) <= BODY_LIMIT else None


def _ends(environ: dict[str, Any], stream: object) -> bool:
    """Whether a body without a length can be read to its end: it comes in chunks.

    A server that hands its socket over as it is (wsgiref) would wait for more.
    """
    chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
    return chunked and (
        bool(environ.get("wsgi.input_terminated")) or not isinstance(stream, BufferedReader)
    )


class Patience:
    """A context in which a body is read: after BODY_SECONDS it is over, and TimeoutError raised.

    One network address is waited for in one thread at a time: its other bodies have
    SECOND_BODY_SECONDS. For servers that read from the connection when the app does; others have
    the body by then, or a limit of their own.
    """

    #: The addresses that are waited for.
    _awaited: ClassVar[set[str]] = set()

    def __init__(self, environ: dict[str, Any]) -> None:
        self._connection = _connection(environ)
        self._address: str = environ.get("REMOTE_ADDR") or ""
        self._is_first = False
        self._timer: threading.Timer | None = None
        self._over = False

    def __enter__(self) -> None:
        if self._connection is not None:
            self._is_first = self._address not in self._awaited
            self._awaited.add(self._address)
            seconds = BODY_SECONDS if self._is_first else SECOND_BODY_SECONDS
            self._timer = threading.Timer(seconds, self._end)
            self._timer.daemon = True
            with suppress(RuntimeError):  # no thread can be had: then it takes what it takes
                self._timer.start()

    def _end(self) -> None:
        self._over = True
        if self._connection is not None:
            _hear_no_more(self._connection)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._is_first:
            self._awaited.discard(self._address)
        if self._connection is not None:
            self._connection.close()
        if self._over and (kind is None or issubclass(kind, Exception)):
            raise TimeoutError("found no whole body in time") from error


def leave_body(environ: dict[str, Any]) -> None:
    """Let no server wait for the rest of a body that nobody wants.

    Some read it to its end before the next request, in a thread of the app.
    """
    if environ.get("CONTENT_LENGTH") or environ.get("HTTP_TRANSFER_ENCODING"):
        connection = _connection(environ)
        if connection is not None:
            _hear_no_more(connection)
            connection.close()


def _hear_no_more(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)


def _connection(environ: dict[str, Any]) -> socket.socket | None:
    """The connection of a request, as a socket of our own: the server may close its at any time."""
    found: Any = next((environ[name] for name in _CONNECTIONS if name in environ), None)
    if found is None:
        raw = getattr(environ.get("wsgi.input"), "raw", None)
        found = getattr(raw, "_sock", None)
    if found is None:
        return None
    try:
        return socket.socket(fileno=os.dup(found.fileno()))
    except OSError:
        return None
