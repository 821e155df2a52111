"""The WSGI door turns environ and iterables into an Exchange and back, as PEP 3333 says."""

import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, MutableMapping
from contextvars import Token, copy_context
from functools import lru_cache
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from msgspec import Struct

from capi_middleware.capi import CAPI, expect_app
from capi_middleware.capture.carrying import COOKIE
from capi_middleware.capture.client import HEADER_READ, HEADERS, cut
from capi_middleware.capture.urls import PATH_SAFE
from capi_middleware.config.settings import Config
from capi_middleware.endpoints import EVENTS
from capi_middleware.endpoints.bodies import leave_body, read_body
from capi_middleware.private import Private
from capi_middleware.request.exchange import Aside, Exchange, Passage, current
from capi_middleware.request.visit import Headers, in_time
from capi_middleware.store.commits import Commit, wait_for

if TYPE_CHECKING:
    from concurrent.futures import Future

    from capi_middleware.endpoints.public import Endpoints

App = Callable[[Any, Any], Iterable[bytes]]
Environ = dict[str, Any]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
StartResponse = Callable[..., Callable[[bytes], object]]
#: Header lines as WSGI has them.
Lines = list[tuple[str, str]]
T = TypeVar("T")

#: In the environ: a CAPIMiddleware further out has this request already.
MARK = "capi_middleware.request.exchange"
#: What a dispatcher that mounts another app changes in the environ: kept as it came in.
_PLACE = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO")
#: More digits than any length has; int() refuses endless ones.
_LONGEST_LENGTH = 18
#: Longer names of headers are not remembered.
_REMEMBERED = 64


class Waits:
    """How this door waits: in its thread. See request.visit.Waits. None of them ever suspends."""

    async def host(self, answer: Awaitable[Any]) -> Any:
        """The host's own coroutine, on an event loop of its own.

        In this thread, whose current event loop stays the host's. Greenlets share a thread, and
        asyncio runs one loop in each: in one of gevent's it is a thread of gevent's pool.
        """
        gevent, greenlet = sys.modules.get("gevent"), sys.modules.get("greenlet")
        if gevent is None or greenlet is None or greenlet.getcurrent().parent is None:
            return _on_own_loop(answer)
        return gevent.get_hub().threadpool.apply(copy_context().run, (_on_own_loop, answer))

    async def commit(self, commit: Commit) -> None:
        """Raises StoreError or TimeoutError."""
        wait_for(commit)

    async def read(self, call: Callable[[], T]) -> T:
        """In this thread."""
        return call()

    async def ask(self, call: Callable[[], T]) -> T:
        """In this thread, which is the host's own."""
        return call()

    async def answer(self, question: "Future[T]", seconds: float) -> T:
        """What another thread finds out."""
        return question.result(seconds)


WAITS = Waits()


def _on_own_loop(answer: Awaitable[T]) -> T:
    # Only an asynchronous callable of the host's needs it.
    import asyncio

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(in_time(answer))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine of ours that waits with Waits, and therefore never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("found a coroutine that suspends, expected one that waits in its thread")


class CAPIMiddleware:
    """Wraps any WSGI app: `application = CAPIMiddleware(application, config)`.

    `config` is a Config, or the CAPI that jobs and webhooks use too. Raises ConfigError for an ASGI
    app.
    """

    def __init__(self, app: App, config: Config | CAPI) -> None:
        expect_app(
            app, 3, "as an ASGI app does, expected a WSGI app: use capi_middleware.CAPIMiddleware"
        )
        self.app = app
        self.capi: CAPI = config if isinstance(config, CAPI) else CAPI(config)
        # Made now: its first request must not wait for its imports.
        self._endpoints: Endpoints = self.capi.endpoints

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """The WSGI interface."""
        capi = self.capi
        if is_wrapped(environ):
            capi.issuer.notices.say("twice")
            return self.app(environ, start_response)
        endpoint: str | None = None
        exchange: Exchange | None = None
        scope: dict[str, Any] = {}
        works = True
        try:
            works = capi.started or capi.start()
            if works and not _passes(capi, environ):
                scope = scope_of(environ)
                endpoint, exchange = capi.take(scope)
        except Exception as error:
            capi.issuer.shield.caught(error, "opening")
        if not works:
            environ[MARK] = True
            # Until this thread's next request: the iterable of the app, which is the server's,
            # may track() as well.
            current.set(Aside(capi.issuer))
            return self.app(environ, start_response)
        if endpoint is not None:
            return self.answer(endpoint, scope, environ, start_response)
        environ[MARK] = True
        came = {name: environ[name] for name in _PLACE if name in environ}
        response = Response(capi, start_response, exchange, environ, came, self.fill_in)
        if exchange is not None and exchange.tee is not None:
            environ["wsgi.input"] = Tee(environ["wsgi.input"], exchange.tee.add)
        token = current.set(response)
        try:
            result = self.app(environ, response.start)
        except BaseException:
            response.failed()
            response.end()
            raise
        finally:
            current.reset(token)
        body = response.body(result, environ.get("wsgi.file_wrapper"))
        if body is result or isinstance(body, list):
            response.end()
        return body

    def fill_in(self, scope: MutableMapping[str, Any]) -> None:
        """For doors of frameworks: add to a `scope` that is made while their app answers."""

    def answer(
        self,
        endpoint: str,
        scope: MutableMapping[str, Any],
        environ: Environ,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """The answer of our `endpoint` of this name, as an app gives it.

        `scope` is the ASGI form of `environ`; `start_response` is the server's.
        """
        endpoints = self._endpoints
        response = endpoints.refusal(endpoint, scope)
        if response is not None:
            leave_body(environ)
        else:
            try:
                body = read_body(environ)
            except TimeoutError:
                response = endpoints.too_slow()
            else:
                response = run(endpoints.answer(endpoint, scope, body, WAITS))
                if endpoint in EVENTS:
                    self.capi.send_now()
        status = response.status_code
        start_response(f"{status} {HTTPStatus(status).phrase}", _decoded(response.raw_headers))
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else bytes(response.body)]


def is_wrapped(environ: Environ) -> bool:
    """Whether a CAPIMiddleware further out has this request already."""
    return MARK in environ or "capi_middleware" in environ.get("asgi.scope", ())


def _passes(capi: CAPI, environ: Environ) -> bool:
    """Whether CAPI.take() would find nothing, for the many requests that show it at once."""
    path = environ.get("PATH_INFO", "")
    return (
        path.isascii()
        and not capi.may_want(environ.get("REQUEST_METHOD", "GET"), path)
        and "fbclid=" not in environ.get("QUERY_STRING", "")
        and COOKIE not in environ.get("HTTP_COOKIE", "")
    )


class Response(Private, Struct, eq=False, weakref=False):
    """One request, its `start_response` and its body.

    Without an `exchange` as long as nothing about it matters to us; `came` is what a router of
    the host may have changed in the `environ` since. `fill_in` adds to a scope that is made while
    the app answers. `left` are the bytes of the body that are to come, where that is known.
    `over`: see exchange.Passage.
    """

    capi: CAPI
    start_response: StartResponse
    exchange: Exchange | None = None
    environ: Environ = {}
    came: Environ = {}
    fill_in: Callable[[MutableMapping[str, Any]], None] | None = None
    started: bool = False
    watching: bool = False
    left: int | None = None
    over: bool = False
    waits: Waits = WAITS
    _passed: bool = False
    _held: list[tuple[str, Lines, ExcInfo | None]] = []
    _write: Callable[[bytes], object] | None = None

    @property
    def is_open(self) -> bool:
        """See exchange.Passage."""
        return self.exchange is not None

    def opened(self) -> Exchange:
        """See exchange.Passage."""
        if self.exchange is None:
            scope = scope_of({**self.environ, **self.came})
            scope["state"] = self.environ
            if self.fill_in is not None:
                self.fill_in(scope)
            self.exchange = self.capi.open(scope)
            if self.started:
                self.exchange.missed()
        return self.exchange

    def start(
        self, status: str, headers: Lines, exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """The start_response that the app calls; again with exc_info after an error."""
        if self.exchange is None:
            try:
                if _may_be_page(headers):
                    self.opened()
            except Exception as error:
                self.capi.issuer.shield.caught(error, "opening")
        exchange, self.started = self.exchange, True
        if self._held and exc_info is None:
            self._release(None)  # a second start without an error: the server refuses it
        if exchange is None or self._write is not None or type(headers) is not list:
            # Nothing of ours, or the headers are out: the server raises the error of exc_info.
            return self._call(status, headers, exc_info)
        try:
            raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            self.left = _length(headers)
            self.watching = run(exchange.start(int(status[:3]), raw, self.waits))
            if not self.watching and exchange.headers is not raw:
                headers = _decoded(exchange.headers)
        except Exception as error:
            self.watching = False
            self.capi.issuer.shield.caught(error, "the start of a response")
        self._held.append((status, headers, exc_info))
        if not self.watching:
            self._release(None)
        return self.write

    def write(self, data: bytes) -> None:
        """The old imperative way of sending, PEP 3333's write()."""
        piece = self.piece(data, last=False)
        assert self._write is not None or not piece
        if self._write is not None:
            self._write(piece)  # be it empty: the headers are out from here on

    def body(self, result: Iterable[bytes], file_wrapper: Any) -> Iterable[bytes]:
        """What the server iterates: the app's own object wherever nothing is to be changed."""
        if self.exchange is None and not self.started:
            # A generator calls start_response when it is iterated, and track() in it as well.
            try:
                self.opened()
            except Exception as error:
                self.capi.issuer.shield.caught(error, "opening")
        # Servers know their own wsgi.file_wrapper again; no code of the host runs in these.
        offloaded = isinstance(file_wrapper, type) and isinstance(result, file_wrapper)
        if self.exchange is None:
            runs_nothing = offloaded or isinstance(result, list | tuple)
            return result if runs_nothing else _Passing(self, result)
        if self.watching and offloaded:
            self.exchange.offloaded()
            self.watching = False
            self._release(None)
        if self.started and not self.watching:
            self.finish()
            if offloaded or isinstance(result, list | tuple):
                return result
        body = _Body(self, result)
        if not self._held:
            # Whatever it is, it may run code of the host that calls track().
            return body
        return body.begun()

    def next_piece(self, result: Iterator[bytes], only: bool) -> bytes:
        """One piece of the app's body, with ours in it. Raises StopIteration at the end."""
        token: Token[Passage | None] = current.set(self)
        try:
            chunk = next(result)
            while not chunk and self.waits_for_more:
                chunk = next(result)
        except StopIteration:
            piece = self._end()
            if piece:
                return piece
            raise
        except BaseException:
            self.failed()
            raise
        finally:
            current.reset(token)
        return self.piece(chunk, last=only)

    def failed(self) -> None:
        """The app raised an error: the server learns of its start as it would without us."""
        if self.exchange is not None and not self._passed:
            self.exchange.fail()
        self.watching = False
        self._release(None)

    def end(self) -> None:
        """The response is done, and so is the code of the app that made it."""
        self.over = True
        self.finish()

    def finish(self) -> None:
        """Wait until the conversions of this response are on disk."""
        if self.exchange is None:
            return
        commits = self.exchange.end()
        for commit in commits:
            try:
                wait_for(commit)
            except Exception:
                self.capi.issuer.ended_before(commit)
        if commits:
            self.capi.send_now()

    @property
    def waits_for_more(self) -> bool:
        """Whether the start can wait on for something of a body whose whole length is known."""
        return bool(self._held and self.left)

    def piece(self, chunk: bytes, last: bool) -> bytes:
        """A piece of the app's body, with ours in it."""
        exchange = self.exchange
        assert exchange is not None
        self._passed = True
        if not self.watching:
            if self.left is not None:
                self.left -= len(chunk)
            if last or (self.left is not None and self.left <= 0):
                self.finish()
            return chunk
        pieces = exchange.body(chunk, last)
        if last:
            self.finish()
        self._release(exchange.headers)
        if last or exchange.passes_on:
            self.watching, self.left = False, None
        return b"".join(pieces)

    def _end(self) -> bytes:
        piece = b""
        if self.started and self.watching:
            piece = self.piece(b"", last=True)
        self.finish()
        return piece

    def _release(self, headers: Headers | None) -> None:
        """Call the server's start_response as often as the app did, at last with `headers`."""
        held, self._held = self._held, []
        for place, (status, given, exc_info) in enumerate(held, 1):
            lines = given if headers is None or place < len(held) else _decoded(headers)
            self._write = self._call(status, lines, exc_info)

    def _call(
        self, status: str, headers: Lines, exc_info: ExcInfo | None
    ) -> Callable[[bytes], object]:
        if exc_info is None:
            return self.start_response(status, headers)
        return self.start_response(status, headers, exc_info)


class _Passing:
    """A body that is nothing to us as yet: code of the host runs in it, and may call track()."""

    __slots__ = ("_iterator", "_response", "_result")

    def __init__(self, response: Response, result: Iterable[bytes]) -> None:
        self._response = response
        self._result = result
        self._iterator = iter(result)

    def __iter__(self) -> "Iterator[bytes]":
        return self

    def __next__(self) -> bytes:
        token: Token[Passage | None] = current.set(self._response)
        try:
            return next(self._iterator)
        finally:
            current.reset(token)

    def close(self) -> None:
        """Close the app's iterable, whatever happened before."""
        try:
            close = getattr(self._result, "close", None)
            if close is not None:
                close()
        finally:
            self._response.end()


class _Body(_Passing):
    """The iterable that the server gets: lazy, one piece for one piece, closed once."""

    __slots__ = ("_ended", "_error", "_first", "_only")

    def __init__(self, response: Response, result: Iterable[bytes]) -> None:
        super().__init__(response, result)
        self._only = isinstance(result, list | tuple) and len(result) == 1
        self._ended = False
        self._first: bytes | None = None
        self._error: Exception | None = None

    def begun(self) -> Iterable[bytes]:
        """The same with its first piece made, and the response started.

        Some servers read status and headers when they get the iterable (granian), and others want
        a start before the first piece, be it empty.
        """
        try:
            self._first = self._response.next_piece(self._iterator, self._only)
        except StopIteration:
            self._ended = True
        except Exception as error:
            # For the server it is the body that fails, not the app.
            self._error = error
        if self._only and self._first is not None:
            return [self._first]
        return self

    def __next__(self) -> bytes:
        first, self._first = self._first, None
        if first is not None:
            return first
        if self._error is not None:
            error, self._error, self._ended = self._error, None, True
            raise error
        if self._ended:
            raise StopIteration
        try:
            return self._response.next_piece(self._iterator, self._only)
        except StopIteration:
            self._ended = True
            raise


def _decoded(headers: Headers) -> Lines:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _length(headers: Lines) -> int | None:
    for name, value in headers:
        if len(name) == 14 and name.lower() == "content-length":
            return (
                int(value) if value.strip().isdecimal() and len(value) <= _LONGEST_LENGTH else None
            )
    return None


def _may_be_page(headers: Lines) -> bool:
    for name, value in headers:
        if len(name) == 12 and name.lower() == "content-type":
            return "html" in value.lower()
    return False


class Tee:
    """wsgi.input that shows what is read from it, however it is read."""

    def __init__(self, stream: Any, seen: Callable[[bytes], None]) -> None:
        self._stream = stream
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._stream, name)
        if name not in ("read", "read1", "readinto", "readline", "readlines"):
            return found

        def reading(*given: Any) -> Any:
            read = found(*given)
            if read:  # None and nothing are no bytes
                if name == "readinto":
                    self._seen(bytes(given[0][:read]))
                else:
                    self._seen(b"".join(read) if name == "readlines" else read)
            return read

        return reading

    def __iter__(self) -> Iterator[bytes]:
        for line in self._stream:
            self._seen(line)
            yield line

    def __next__(self) -> bytes:
        line: bytes = next(self._stream)
        self._seen(line)
        return line


class _Scope(dict[str, Any]):
    """An ASGI http scope whose header lines are made when somebody asks for them."""

    def __missing__(self, key: str) -> Any:
        if key != "headers":
            raise KeyError(key)
        lines = self[key] = [
            (name.encode("latin-1"), text.encode("latin-1")) for name, text in self[HEADERS].items()
        ]
        return lines


def scope_of(environ: Environ) -> dict[str, Any]:
    """The request of a WSGI environ as an ASGI http scope."""
    mount = _text(environ.get("SCRIPT_NAME", ""))
    path = mount + _text(environ.get("PATH_INFO", "")) or "/"
    headers = {}
    for name, value in environ.items():
        if name[:5] == "HTTP_":
            name = _header(name) if len(name) <= _REMEMBERED else _header.__wrapped__(name)
            text = _latin(str(value))
            headers[name] = text if len(text) <= HEADER_READ else cut(name, text)
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[_header(f"HTTP_{name}")] = _latin(str(environ[name]))[:HEADER_READ]
    if "host" not in headers:
        headers["host"] = f"{environ.get('SERVER_NAME', '')}:{environ.get('SERVER_PORT', '')}"
    peer = environ.get("REMOTE_ADDR")
    return _Scope(
        {
            "type": "http",
            "method": environ.get("REQUEST_METHOD", "GET"),
            "path": path,
            "raw_path": quote(path, safe=PATH_SAFE).encode(),
            "root_path": mount,
            "query_string": environ.get("QUERY_STRING", "").encode("latin-1", "ignore"),
            "scheme": environ.get("wsgi.url_scheme", "http"),
            "client": (peer, 0) if peer else None,
            "state": environ,
            HEADERS: headers,
        }
    )


@lru_cache(maxsize=256)
def _header(name: str) -> str:
    """The header's name that a variable of the environ stands for."""
    return name[5:].replace("_", "-").lower()


def _latin(text: str) -> str:
    """A header's value as PEP 3333 has it; other characters are left out."""
    return text if text.isascii() else text.encode("latin-1", "ignore").decode("latin-1")


def _text(native: str) -> str:
    """PEP 3333 hands UTF-8 paths over as latin-1."""
    if native.isascii():
        return native
    return native.encode("latin-1", "ignore").decode("utf-8", "replace")
