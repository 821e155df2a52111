"""The ASGI door: scope and messages to an Exchange, bytes back."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from msgspec import Struct

from capi_middleware.capi import CAPI
from capi_middleware.capture.reading import BodyTee
from capi_middleware.config.settings import Config
from capi_middleware.doors.asgi_response import Message, Responder, Send, in_thread, walk
from capi_middleware.page import may_be_page
from capi_middleware.private import Private
from capi_middleware.request.exchange import Exchange, current
from capi_middleware.steps import BODY_LIMIT

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
#: Any framework's app: each has its own types for the three.
App = Callable[[Any, Any, Any], Awaitable[None]]

#: The most frequent header of what is no page: one look says it.
_JSON = (b"content-type", b"application/json")

#: In the scope: a CAPIMiddleware further out has this request already.
MARK = "capi_middleware"


class CAPIMiddleware:
    """Wraps any ASGI app: `app = CAPIMiddleware(app, config)`, or `app.add_middleware(...)`.

    `config` is a Config, or the CAPI that jobs and webhooks use too.
    """

    def __init__(self, app: App, config: Config | CAPI) -> None:
        self.app = app
        self.capi: CAPI = config if isinstance(config, CAPI) else CAPI(config)
        self._endpoints = self.capi.endpoints
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
            if not self.capi.started:
                self._start()
            taken = self.capi.take(scope)
        except Exception as error:
            self.capi.issuer.shield.caught(error, "opening")
            return await self.app(scope, receive, send)
        if isinstance(taken, str):
            return await self._answer(taken, scope, receive, send)
        scope[MARK] = True
        passage = _Passage(self.capi, scope, send, scope["path"], scope.get("root_path", ""))
        # Most requests come through here: no method of ours, no second coroutine between them
        # and the app.
        if taken is not None:
            passage.responder = Responder(taken, send)
            if taken.tee is not None:
                receive = _teeing(taken.tee, receive)
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

    def _start(self) -> None:
        self.capi.start()
        if not self._has_lifespan:
            self.capi.issuer.notices.say("no_lifespan")

    async def _answer(self, endpoint: str, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read_body(receive)
        response = await walk(self._endpoints.answer(endpoint, scope, body))
        await response(scope, receive, send)

    def _closing(self, send: Send) -> Send:
        """Deliver what is queued before the server hears that the shutdown is complete."""

        async def closing(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                try:
                    await in_thread(self.capi.close)
                except Exception as error:
                    self.capi.issuer.shield.caught(error, "closing")
            await send(message)

        return closing


class _Passage(Private, Struct):
    """One request; without a `responder` as long as nothing about it matters to us."""

    capi: CAPI
    scope: Scope
    send: Send
    #: As they came in: a router that mounts another app writes its own into the scope.
    path: str
    root_path: str
    responder: "Responder | None" = None
    started: bool = False

    @property
    def is_open(self) -> bool:
        """See exchange.Passage."""
        return self.responder is not None

    def opened(self) -> Exchange:
        """See exchange.Passage."""
        if self.responder is None:
            came = {"path": self.path, "root_path": self.root_path}
            exchange = self.capi.open(self.scope, came)
            if self.started:
                exchange.missed()
            self.responder = Responder(exchange, self.send)
        return self.responder.exchange

    def pass_on(self, message: Message) -> Awaitable[None]:
        """The `send` of a request that does not matter. No coroutine: it is one step less."""
        if self.responder is None and message["type"] == "http.response.start":
            headers = message.get("headers", ())
            try:
                # Reading a generator here would leave nothing to send.
                if type(headers) is not list or (_JSON not in headers and may_be_page(headers)):
                    self.opened()
            except Exception as error:
                self.capi.issuer.shield.caught(error, "opening")
            self.started = True
        if self.responder is None:
            return self.send(message)
        return self.responder(message)


def _teeing(tee: BodyTee, receive: Receive) -> Receive:
    """A `receive` that shows the body: an expression of a matched route reads it."""

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
