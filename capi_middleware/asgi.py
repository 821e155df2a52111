"""The ASGI door: scope and messages to an Exchange, bytes back."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import Future
from inspect import isawaitable
from typing import Any, TypeVar

from msgspec import Struct

from capi_middleware.arrivals import committed
from capi_middleware.capture.injection import may_be_page
from capi_middleware.config import Config
from capi_middleware.exchange import Exchange, current
from capi_middleware.steps import BODY_LIMIT, Headers, Steps
from capi_middleware.tracker import CAPI

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
#: Any framework's app: each has its own types for the three.
App = Callable[[Any, Any, Any], Awaitable[None]]
T = TypeVar("T")

#: In the scope: a CAPIMiddleware further out has this request already.
MARK = "capi_middleware"
#: Pieces that are no longer than this together leave as one message, in bytes.
_JOINED = 64 * 1024
_FILES = ("http.response.pathsend", "http.response.zerocopysend")
#: How long the start of a response without Content-Length may wait for its first piece, in
#: seconds: long enough for a body that is ready, too short for anyone to notice.
_PATIENCE = 0.005


class CAPIMiddleware:
    """Wraps any ASGI app: `app = CAPIMiddleware(app, config)`, or `app.add_middleware(...)`.

    `config` is a Config, or the CAPI that jobs and webhooks use too.
    """

    def __init__(self, app: App, config: Config | CAPI) -> None:
        self.app = app
        self.capi: CAPI = config if isinstance(config, CAPI) else CAPI(config)
        self._has_lifespan = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        if scope["type"] != "http" or MARK in scope:
            if scope["type"] == "lifespan":
                self._has_lifespan = True
                send = self._closing(send)
            elif MARK in scope:
                self.capi.issuer.notices.say("twice")
            return await self.app(scope, receive, send)
        try:
            if self.capi.start() and not self._has_lifespan:
                self.capi.issuer.notices.say("no_lifespan")
            taken = self.capi.take(scope)
        except Exception as error:
            self.capi.issuer.shield.caught(error, "opening")
            return await self.app(scope, receive, send)
        if isinstance(taken, str):
            return await self._answer(taken, scope, receive, send)
        scope[MARK] = True
        passage = _Passage(self.capi, scope, send)
        # Most requests come through here: no method of ours, no second coroutine between them
        # and the app.
        if taken is not None:
            passage.responder = _Responder(taken, send)
            receive = _teeing(taken, receive)
        token = current.set(passage)
        try:
            await self.app(scope, receive, passage.responder or passage.pass_on)
            if passage.responder is not None:
                await passage.responder.release()
        finally:
            current.reset(token)
            if passage.responder is not None:
                await passage.responder.close()
        return None

    async def _answer(self, endpoint: str, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read_body(receive)
        response = await walk(self.capi.endpoints.answer(endpoint, scope, body))
        await response(scope, receive, send)

    def _closing(self, send: Send) -> Send:
        """Deliver what is queued before the server hears that the shutdown is complete."""

        async def closing(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                try:
                    await _in_thread(self.capi.close)
                except Exception as error:
                    self.capi.issuer.shield.caught(error, "closing")
            await send(message)

        return closing


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
            if isinstance(asked, Future):
                result = await committed(asked)
            elif isawaitable(asked):
                result = await asked
            else:
                result = await _in_thread(asked)
        except Exception as error:
            failure = error


async def _in_thread(call: Callable[[], T]) -> T:
    # Imported where something takes long: anyio is no part of a page.
    from anyio import to_thread

    return await to_thread.run_sync(call)


class _Passage(Struct):
    """One request; without a `responder` as long as nothing about it matters to us."""

    capi: CAPI
    scope: Scope
    send: Send
    responder: "_Responder | None" = None
    started: bool = False

    @property
    def is_open(self) -> bool:
        """See exchange.Passage."""
        return self.responder is not None

    def opened(self) -> Exchange:
        """See exchange.Passage."""
        if self.responder is None:
            exchange = self.capi.open(self.scope)
            if self.started:
                exchange.missed()
            self.responder = _Responder(exchange, self.send)
        return self.responder.exchange

    def pass_on(self, message: Message) -> Awaitable[None]:
        """The `send` of a request that does not matter. No coroutine: it is one step less."""
        if self.responder is None and message["type"] == "http.response.start":
            headers = message.get("headers", ())
            try:
                # Reading a generator here would leave nothing to send.
                if type(headers) is not list or may_be_page(headers):
                    self.opened()
            except Exception as error:
                self.capi.issuer.shield.caught(error, "opening")
            self.started = True
        if self.responder is None:
            return self.send(message)
        return self.responder(message)


class _Responder:
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


def _teeing(exchange: Exchange, receive: Receive) -> Receive:
    """`receive` itself, unless an expression of a matched route reads the body."""
    tee = exchange.tee
    if tee is None:
        return receive

    async def teeing() -> Message:
        message = await receive()
        if message["type"] == "http.request":
            tee.add(message.get("body", b""))
        return message

    return teeing


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body; None when it is longer than BODY_LIMIT."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > BODY_LIMIT:
            return None
        if not message.get("more_body", False):
            return bytes(body)
