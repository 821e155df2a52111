"""One response under ASGI: the app's messages to an Exchange, what becomes of them on."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from inspect import isawaitable
from typing import Any, TypeVar

from capi_middleware.request.exchange import Exchange
from capi_middleware.steps import Headers, Steps
from capi_middleware.store.commits import Commit, committed

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
T = TypeVar("T")

#: Pieces that are no longer than this together leave as one message, in bytes.
_JOINED = 64 * 1024
_FILES = ("http.response.pathsend", "http.response.zerocopysend")
#: How long the start of a response without Content-Length may wait for its first piece, in
#: seconds: long enough for a body that is ready, too short for anyone to notice.
_PATIENCE = 0.005


class Responder:
    """The `send` of one request that matters."""

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self.exchange = exchange
        self._shield = exchange.issuer.shield
        self._send = send
        self._start: Message | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._hurried: asyncio.Task[None] | None = None
        self._watching = False
        self._left: int | None = None

    async def __call__(self, message: Message) -> None:
        """Take a message of the app."""
        if self._hurried is not None:
            await self._hurried
        if message["type"] == "http.response.start" and self._start is None:
            await self._started(message)
        elif message["type"] == "http.response.body":
            await self._body(message)
        else:
            if message["type"] in _FILES:
                # The server sends a file that nobody reads here: the response stays as it is.
                self._watching = False
                await self._commit()
            await self.release()
            await self._send(message)

    async def close(self) -> None:
        """The app is done, or failed: nothing of ours may stay behind."""
        if self._timer is not None:
            self._timer.cancel()
        await self._commit()

    async def _started(self, message: Message) -> None:
        given: Any = message.get("headers", [])
        headers: Headers = given
        if not isinstance(given, list | tuple):
            # A generator: reading it would leave nothing to send.
            headers = [(bytes(name), bytes(value)) for name, value in given]
            message = {**message, "headers": headers}
        self._left = _length(headers)
        try:
            own = list(headers)
            self._watching = await walk(self.exchange.begin(message["status"], own))
            if not self._watching and self.exchange.headers is not own:
                message = {**message, "headers": self.exchange.headers}
        except Exception as error:
            self._watching = False
            self._shield.caught(error, "the start of a response")
        if not self._watching:
            if self._left == 0:
                await self._commit()
            return await self._send(message)
        self._start = message
        if self._left is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_PATIENCE, self._late)
        return None

    def _late(self) -> None:
        self._hurried = asyncio.ensure_future(self.release())

    async def release(self) -> None:
        """Send a start that is still held, without knowing whether there will be a tag."""
        if self._start is None:
            return
        start, self._start = self._start, None
        if self._timer is not None:
            self._timer.cancel()
        try:
            if self._watching:
                start = {**start, "headers": self.exchange.hurry()}
        except Exception as error:
            self._shield.caught(error, "the headers")
            self._watching = False
        await self._send(start)

    async def _body(self, message: Message) -> None:
        last = not message.get("more_body", False)
        chunk = message.get("body", b"")
        if not self._watching:
            self._left = None if self._left is None else self._left - len(chunk)
            if last or (self._left is not None and self._left <= 0):
                await self._commit()
            return await self._send(message)
        pieces: list[Any]
        try:
            if self._start is not None:
                headers, pieces = self.exchange.open_body(chunk, last)
            else:
                headers, pieces = [], self.exchange.feed(chunk, last)
        except Exception as error:
            self._shield.caught(error, "injection")
            self._watching = False
            headers, pieces = list((self._start or {}).get("headers", [])), [chunk]
        if last:
            await self._commit()
        if self._start is not None:
            start, self._start = self._start, None
            if self._timer is not None:
                self._timer.cancel()
            await self._send({**start, "headers": headers})
        if last or self.exchange.passes_on:
            self._watching, self._left = False, None
        if sum(map(len, pieces)) <= _JOINED:
            pieces = [b"".join(pieces)] if pieces else []
        for piece in pieces[:-1]:
            await self._send(
                {"type": "http.response.body", "body": bytes(piece), "more_body": True}
            )
        if pieces or last:
            body = bytes(pieces[-1]) if pieces else b""
            await self._send({**message, "body": body, "more_body": not last})
        return None

    async def _commit(self) -> None:
        """Wait until the conversions of this response are on disk."""
        try:
            commits = self.exchange.finish()
        except Exception as error:
            return self._shield.caught(error, "the end of a response")
        if not commits:
            return None
        for commit in commits:
            try:
                await committed(commit)
            except Exception as error:
                self._shield.caught(error, "the commit")
        return None


def _length(headers: Iterable[Any]) -> int | None:
    for name, value in headers:
        if len(name) == 14 and bytes(name).lower() == b"content-length":
            text = bytes(value).strip()
            return int(text) if text.isdigit() else None
    return None


async def walk(steps: Steps[T]) -> T:
    """Run sans-IO steps on the event loop. A step that fails gets its error thrown in."""
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
                await committed(asked)
            elif isawaitable(asked):
                result = await asked
            else:
                result = await in_thread(asked)
        except Exception as error:
            failure = error


async def in_thread(call: Callable[[], T]) -> T:
    """What takes long, off the event loop."""
    # Imported where something takes long: anyio is no part of a page.
    from anyio import to_thread

    return await to_thread.run_sync(call)
