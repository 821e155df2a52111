"""One response under WSGI: the app's headers and body to an Exchange, what becomes of them on."""

from collections.abc import Callable, Iterable, Iterator
from contextvars import Token
from inspect import isawaitable
from types import TracebackType
from typing import Any, TypeVar

from capi_middleware.request.exchange import Exchange, Passage, current
from capi_middleware.steps import Headers, Steps
from capi_middleware.store.commits import Commit, wait_for

ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
StartResponse = Callable[..., Callable[[bytes], object]]
T = TypeVar("T")


class Responder:
    """`start_response` and the body of one request that matters."""

    def __init__(self, exchange: Exchange, start_response: StartResponse) -> None:
        self.exchange = exchange
        self._shield = exchange.issuer.shield
        self._start_response = start_response
        self._held: tuple[str, list[tuple[str, str]], ExcInfo | None] | None = None
        self._started = False
        self._watching = False
        self._left: int | None = None
        self._write: Callable[[bytes], object] | None = None

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """The start_response that the app calls; again with exc_info after an error."""
        self._started = True
        if self._write is not None:
            # The headers are out: the server raises the error of exc_info.
            return self._call(status, headers, exc_info)
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self._left = _length(headers)
        try:
            self._watching = walk(self.exchange.begin(int(status[:3]), raw))
        except Exception as error:
            self._watching = False
            self._shield.caught(error, "the start of a response")
        if not self._watching and self.exchange.headers is not raw:
            headers = _decoded(self.exchange.headers)
        self._held = (status, headers, exc_info)
        if not self._watching:
            self._release(None)
        return self.write

    def write(self, data: bytes) -> None:
        """The old imperative way of sending, PEP 3333's write()."""
        piece = self._pass(data, last=False)
        assert self._write is not None or not piece
        if piece and self._write is not None:
            self._write(piece)

    def body(self, result: Iterable[bytes], file_wrapper: Any) -> Iterable[bytes]:
        """What the server iterates: the app's own object wherever nothing is to be changed."""
        offloaded = isinstance(file_wrapper, type) and isinstance(result, file_wrapper)
        if self._started and (offloaded or not self._watching):
            self._watching = False
            self._release(None)
            self.finish()
            return result
        return _Body(self, result)

    def next_piece(self, result: Iterator[bytes], only: bool) -> bytes:
        """One piece of the app's body, with ours in it. Raises StopIteration at the end."""
        token: Token[Passage | None] = current.set(self.exchange)
        try:
            chunk = next(result)
        except StopIteration:
            piece = self._end()
            if piece:
                return piece
            raise
        finally:
            current.reset(token)
        return self._pass(chunk, last=only)

    def finish(self) -> None:
        """Wait until the conversions of this response are on disk."""
        try:
            commits = self.exchange.finish()
        except Exception as error:
            return self._shield.caught(error, "the end of a response")
        for commit in commits:
            try:
                wait_for(commit)
            except Exception as error:
                self._shield.caught(error, "the commit")
        return None

    def _pass(self, chunk: bytes, last: bool) -> bytes:
        if self._left is not None and not self._watching:
            self._left -= len(chunk)
        if not self._watching:
            if last or (self._left is not None and self._left <= 0):
                self.finish()
            return chunk
        if not chunk and not last and self._held is not None:
            return b""
        try:
            if self._held is not None:
                headers, pieces = self.exchange.open_body(chunk, last)
            else:
                headers, pieces = [], self.exchange.feed(chunk, last)
            piece = b"".join(pieces)
        except Exception as error:
            self._shield.caught(error, "injection")
            self._watching = False
            headers, piece = [], chunk
        if last:
            self.finish()
        self._release(headers if self._watching else None)
        if last or self.exchange.passes_on:
            self._watching, self._left = False, None
        return piece

    def _end(self) -> bytes:
        piece = b""
        if self._started and self._watching:
            piece = self._pass(b"", last=True)
        self.finish()
        return piece

    def _release(self, headers: Headers | None) -> None:
        if self._held is None:
            return
        (status, given, exc_info), self._held = self._held, None
        self._write = self._call(status, given if headers is None else _decoded(headers), exc_info)

    def _call(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None
    ) -> Callable[[bytes], object]:
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)


class _Body:
    """The iterable that the server gets: lazy, one piece for one piece, closed once."""

    def __init__(self, responder: Responder, result: Iterable[bytes]) -> None:
        self._responder = responder
        self._result = result
        self._iterator = iter(result)
        self._only = isinstance(result, list | tuple) and len(result) == 1
        self._ended = False

    def __iter__(self) -> "Iterator[bytes]":
        return self

    def __next__(self) -> bytes:
        if self._ended:
            raise StopIteration
        try:
            return self._responder.next_piece(self._iterator, self._only)
        except StopIteration:
            self._ended = True
            raise

    def close(self) -> None:
        """Close the app's iterable, whatever happened before."""
        try:
            close = getattr(self._result, "close", None)
            if close is not None:
                close()
        finally:
            self._responder.finish()


def _decoded(headers: Headers) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _length(headers: list[tuple[str, str]]) -> int | None:
    for name, value in headers:
        if name.lower() == "content-length":
            return int(value) if value.strip().isdecimal() else None
    return None


def walk(steps: Steps[T]) -> T:
    """Run sans-IO steps in this thread. A step that fails gets its error thrown in."""
    result: Any = None
    failure: BaseException | None = None
    while True:
        try:
            asked = steps.throw(failure) if failure is not None else steps.send(result)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return] # T by the type of Steps
        result, failure = None, None
        try:
            if isinstance(asked, Commit):
                wait_for(asked)
            elif isawaitable(asked):
                # Only an asynchronous callable of the host's needs it.
                import asyncio

                result = asyncio.run(_await(asked))
            else:
                result = asked()
        except Exception as error:
            failure = error


async def _await(asked: Any) -> Any:
    return await asked
