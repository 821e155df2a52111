"""The ASGI door turns scope and messages into an Exchange, and what becomes of it into messages."""

import asyncio
from asyncio import _get_running_loop  # None under trio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from capi_middleware.capi import CAPI, expect_app
from capi_middleware.capture.reading import BodyTee
from capi_middleware.config.settings import Config
from capi_middleware.endpoints import BODY_LIMIT, BODY_SECONDS, EVENTS
from capi_middleware.errors import ConfigError
from capi_middleware.page.gate import may_be_page
from capi_middleware.private import Private
from capi_middleware.request.exchange import Aside, Exchange, current
from capi_middleware.request.visit import Headers, in_time
from capi_middleware.store.commits import Commit, arrival, committed

if TYPE_CHECKING:
    from concurrent.futures import Future

    from capi_middleware.endpoints.public import Endpoints

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
#: Any framework's app: each has its own types for the three.
App = Callable[[Any, Any, Any], Awaitable[None]]
T = TypeVar("T")

#: The most frequent header of what is no page: one look says it.
_JSON = (b"content-type", b"application/json")
#: In the scope: a CAPIMiddleware further out has this request already.
MARK = "capi_middleware"
#: More digits than any length has; int() refuses endless ones.
_LONGEST_LENGTH = 18
#: Pieces that are no longer than this together leave as one message, in bytes.
_JOINED = 64 * 1024
#: Where the functions and classes come from that are the view of one route.
_VIEWS = ("starlette.routing", "fastapi.routing", "starlette.endpoints")
_A_WSGI_APP = (
    "as a WSGI app does, expected an ASGI app: use capi_middleware.wsgi.CAPIMiddleware, "
    "capi_middleware.flask.init_app or, in Django's MIDDLEWARE, capi_middleware.django"
)
#: How many middlewares inside of this one are looked through.
_MOST_WRAPPED = 20
_FILES = ("http.response.pathsend", "http.response.zerocopysend")
#: How long the start of a response without Content-Length may wait for its first piece, in
#: seconds: long enough for a body that is ready, too short for anyone to notice.
_PATIENCE = 0.005
#: How long a shutdown that follows each request may wait for the disk, in seconds.
_FLUSH_SECONDS = 0.5


class Waits:
    """How this door waits: on its event loop. See request.visit.Waits."""

    async def host(self, answer: Awaitable[Any]) -> Any:
        """The host's own coroutine, in the task of its request."""
        return await in_time(answer)

    async def commit(self, commit: Commit) -> None:
        """Raises StoreError or TimeoutError."""
        await committed(commit)

    async def read(self, call: Callable[[], T]) -> T:
        """On another thread."""
        return await in_thread(call)

    async def ask(self, call: Callable[[], T]) -> T:
        """On a thread that nobody waits for longer than HOST_SECONDS."""
        return await in_time(asyncio.to_thread(call))

    async def answer(self, question: "Future[T]", seconds: float) -> T:
        """What another thread finds out."""
        return await asyncio.wait_for(asyncio.wrap_future(question), seconds)


_WAITS = Waits()


class CAPIMiddleware:
    """Wraps any ASGI app: `app = CAPIMiddleware(app, config)`, or `app.add_middleware(...)`.

    `config` is a Config, or the CAPI that jobs and webhooks use too. Raises ConfigError for what
    a framework's router calls for one route, where the endpoints could not be reached, and for a
    WSGI app.
    """

    def __init__(self, app: App, config: Config | CAPI) -> None:
        inside = _routing_around(app)
        if inside:
            raise ConfigError(
                f"app: found a part of an app inside of {inside}, expected the whole app: no path "
                "of the prefix would come here; use app = CAPIMiddleware(app, config) around it"
            )
        expect_app(app, 2, _A_WSGI_APP)
        self.app = app
        self.capi: CAPI = config if isinstance(config, CAPI) else CAPI(config)
        self._lifespan = _Lifespan(self.capi)
        # Made now: its first request must not wait for its imports.
        self._endpoints: Endpoints = self.capi.endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        if scope["type"] != "http" or MARK in scope:
            if scope["type"] == "lifespan":
                if _get_running_loop() is None:
                    return await _refuse(receive, send)
                send = self._lifespan.began(send)
            elif MARK in scope:
                self.capi.issuer.notices.say("twice")
            return await self.app(scope, receive, send)
        capi, lifespan = self.capi, self._lifespan
        endpoint: str | None = None
        exchange: Exchange | None = None
        works = True
        try:
            if not lifespan.requests:
                lifespan.first(scope)
            lifespan.requests += 1
            works = (capi.started or capi.start()) and _get_running_loop() is not None
            if works:
                endpoint, exchange = capi.take(scope)
        except Exception as error:
            capi.issuer.shield.caught(error, "opening")
        if not works:
            return await self._aside(scope, receive, send)
        if endpoint is not None:
            return await self._answer(endpoint, scope, receive, send)
        scope[MARK] = True
        came = (scope["path"], scope.get("root_path", ""), scope.get("raw_path"))
        response = _Response(capi, scope, send, came, exchange)
        # Most requests come through here: no method of ours, no second coroutine between them
        # and the app.
        if exchange is not None and exchange.tee is not None:
            receive = _teeing(exchange.tee, receive)
        token = current.set(response)
        try:
            await self.app(scope, receive, response.on_message)
            if response.held is not None:
                await response.release()
        except Exception:
            await response.failed()
            raise
        finally:
            current.reset(token)
            response.over = True
            opened = response.exchange
            if opened is not None and (
                not response.ended or opened.commits or response.timer is not None
            ):
                await response.close(opened)
        return None

    async def _aside(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request through untouched; its code may call track() all the same."""
        issuer = self.capi.issuer
        if _get_running_loop() is None:
            issuer.notices.say("trio")
        scope[MARK] = True
        token = current.set(Aside(issuer))
        try:
            await self.app(scope, receive, send)
        finally:
            current.reset(token)

    async def _answer(self, endpoint: str, scope: Scope, receive: Receive, send: Send) -> None:
        response = self._endpoints.refusal(endpoint, scope)
        if response is None:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    body = await _read_body(receive)
            except TimeoutError:
                response = self._endpoints.too_slow()
            else:
                response = await self._endpoints.answer(endpoint, scope, body, _WAITS)
                if self.capi.sends_first and endpoint in EVENTS:
                    await in_thread(self.capi.send_now)
        await response(scope, receive, send)


class _Lifespan(Private, Struct, eq=False):
    """What an app's server tells of its start and shutdown.

    Some tell both around each request: what the next one needs stays open then, and none waits for
    Meta. `requests` since the last start; `on_lambda`: a request shows that its server does so
    (Mangum); `was_brief`: the last shutdown came after a single request.
    """

    capi: CAPI
    exists: bool = False
    requests: int = 0
    on_lambda: bool = False
    was_brief: bool = False

    def first(self, scope: Scope) -> None:
        """The first request since a start."""
        if "route_handler" in scope or hasattr(scope.get("route"), "methods"):
            self.capi.issuer.notices.say("routed")
        if "aws.event" in scope:
            self.on_lambda = True
        elif not self.exists:
            self.capi.issuer.notices.say("no_lifespan")

    def began(self, send: Send) -> Send:
        """A `send` that delivers what is queued before the server hears of the shutdown's end."""
        self.exists, self.requests = True, 0

        async def closing(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                brief = self.on_lambda or (self.was_brief and self.requests <= 1)
                self.was_brief = brief or self.requests == 1
                with self.capi.issuer.shield.guard("closing"):
                    if brief:
                        await in_thread(partial(self.capi.store.flush, _FLUSH_SECONDS))
                    else:
                        await in_thread(self.capi.close)
            await send(message)

        return closing


class _Response(Private, Struct, eq=False, weakref=False):
    """One request and the `send` that its app gets.

    Without an `exchange` as long as nothing about it matters to us. `came` is path, root_path and
    raw_path as they came in: a router that mounts another app writes its own into the scope.
    `held` is a start that waits for the first piece of the body; `left` are the bytes of the body
    that are to come, where that is known; `passed`: a piece of it went out. `over`: see Passage.
    """

    capi: CAPI
    scope: Scope
    send: Send
    came: tuple[str, str, bytes | None]
    exchange: Exchange | None = None
    over: bool = False
    started: bool = False
    passed: bool = False
    watching: bool = False
    held: Message | None = None
    left: int | None = None
    timer: asyncio.TimerHandle | None = None
    hurried: "asyncio.Task[None] | None" = None
    ended: bool = False

    @property
    def is_open(self) -> bool:
        """See exchange.Passage."""
        return self.exchange is not None

    def opened(self) -> Exchange:
        """See exchange.Passage."""
        if self.exchange is None:
            path, root_path, raw_path = self.came
            came = {"path": path, "root_path": root_path, "raw_path": raw_path}
            self.exchange = self.capi.open(self.scope, came)
            if self.started:
                self.exchange.missed()
        return self.exchange

    def on_message(self, message: Message) -> Awaitable[None]:
        """The `send` of the app. No coroutine: for what does not matter it is one step less."""
        kind = message["type"]
        if kind == "http.response.start" and not self.started:
            if self.exchange is None:
                headers = message.get("headers", ())
                try:
                    # Reading a generator here would leave nothing to send.
                    if type(headers) is not list or (_JSON not in headers and may_be_page(headers)):
                        self.opened()
                except Exception as error:
                    self.capi.issuer.shield.caught(error, "opening")
            self.started = True
            if self.exchange is not None:
                return self._start(self.exchange, message)
        if self.exchange is None:
            return self.send(message)
        if kind == "http.response.body":
            return self._body(self.exchange, message)
        # A second start as well: the server refuses it.
        return self._other(self.exchange, message)

    async def _body(self, exchange: Exchange, message: Message) -> None:
        if self.hurried is not None:
            await self.hurried
        last = not message.get("more_body", False)
        chunk = message.get("body", b"")
        self.passed = self.passed or bool(chunk)
        if not self.watching:
            if self.left is not None:
                self.left -= len(chunk)
            if (last or (self.left is not None and self.left <= 0)) and not self.ended:
                await self.commit(exchange)
            return await self.send(message)
        if self.held is not None and not chunk and not last:
            return None  # nothing to see yet: the timer looks after the start
        pieces = exchange.body(chunk, last)
        if last:
            if self.timer is not None:
                self._stop_timer()
            # As commit() does, without another coroutine: nearly every page comes by here.
            self.ended = True
            commits = exchange.end()
            for commit in commits:
                waiting = commit.waiting
                if waiting is not None:
                    await arrival(commit, waiting)
                if commit.error is not None or commit.waiting is not None:
                    self.capi.issuer.ended_before(commit)
            if commits and self.capi.sends_first:
                await in_thread(self.capi.send_now)
        if self.held is not None:
            start, self.held = self.held, None
            if self.timer is not None:
                self._stop_timer()
            await self.send({**start, "headers": exchange.headers})
        if last or exchange.passes_on:
            self.watching, self.left = False, None
        if sum(map(len, pieces)) <= _JOINED:
            pieces = [b"".join(pieces)] if pieces else []
        for piece in pieces[:-1]:
            await self.send({"type": "http.response.body", "body": bytes(piece), "more_body": True})
        if pieces or last:
            body = bytes(pieces[-1]) if pieces else b""
            await self.send({**message, "body": body, "more_body": not last})
        return None

    async def _other(self, exchange: Exchange, message: Message) -> None:
        if self.hurried is not None:
            await self.hurried
        if message["type"] in _FILES:
            self.passed = True
            exchange.offloaded()
            self.watching = False
            await self.commit(exchange)
        await self.release()
        await self.send(message)

    async def failed(self) -> None:
        """The app raised an error: the server learns of its start as it would without us."""
        if self.exchange is not None and not self.passed:
            self.exchange.fail()
        self.watching = False
        with suppress(Exception):  # theirs is the one that counts
            await self.release()

    async def close(self, exchange: Exchange) -> None:
        """The app is done, or failed: nothing of ours may stay behind."""
        self._stop_timer()
        self.held = None
        await self.commit(exchange)

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    async def _start(self, exchange: Exchange, message: Message) -> None:
        given: Any = message.get("headers", [])
        headers: Headers = given
        if not isinstance(given, list | tuple):
            # A generator: reading it would leave nothing to send.
            headers = [(bytes(name), bytes(value)) for name, value in given]
            message = {**message, "headers": headers}
        self.left = _length(headers)
        try:
            own = list(headers)
            self.watching = await exchange.start(message["status"], own, _WAITS)
            if not self.watching and exchange.headers is not own:
                message = {**message, "headers": exchange.headers}
        except Exception as error:
            self.watching = False
            self.capi.issuer.shield.caught(error, "the start of a response")
        if not self.watching:
            if self.left == 0:
                await self.commit(exchange)
            return await self.send(message)
        self.held = message
        if self.left is None:
            loop = asyncio.get_running_loop()
            self.timer = loop.call_later(_PATIENCE, self._late)
        return None

    def _late(self) -> None:
        self.hurried = asyncio.ensure_future(self.release())

    async def release(self) -> None:
        """Send a start that is still held, without knowing whether there will be a tag."""
        if self.held is None:
            return
        start, self.held = self.held, None
        self._stop_timer()
        if self.watching and self.exchange is not None:
            self.exchange.hurry()
            start = {**start, "headers": self.exchange.headers}
        await self.send(start)

    async def commit(self, exchange: Exchange) -> None:
        """Wait until the conversions of this response are on disk."""
        self.ended = True
        commits = exchange.end()
        for commit in commits:
            try:
                await committed(commit)
            except Exception:
                self.capi.issuer.ended_before(commit)
        if commits and self.capi.sends_first:
            await in_thread(self.capi.send_now)


def _routing_around(app: Any) -> str:
    """What a framework calls the place where it hands `app` to a middleware; "" around an app."""
    found = ""
    for _ in range(_MOST_WRAPPED):
        if isinstance(app, FunctionType):
            names = {app.__module__}
        else:
            names = {
                base.__module__ for base in (app if isinstance(app, type) else type(app)).__mro__
            }
        if "litestar.app" in names:
            return ""
        if any(name.startswith("litestar.") for name in names):
            found = "Litestar's routing (middleware=[…])"
        elif isinstance(app, FunctionType | type) and not names.isdisjoint(_VIEWS):
            found = "a Route of Starlette (middleware=[…])"
        app = getattr(app, "app", None)
    return found


async def _refuse(receive: Receive, send: Send) -> None:
    """Ends a server at its start whose event loop is not asyncio's."""
    await receive()
    text = (
        "capi_middleware: found an event loop that is not asyncio's (trio?), expected asyncio or "
        "uvloop; start the server with them (hypercorn -k asyncio)"
    )
    await send({"type": "lifespan.startup.failed", "message": text})


def _length(headers: Headers) -> int | None:
    for name, value in headers:
        if len(name) == 14 and bytes(name).lower() == b"content-length":
            text = bytes(value).strip()
            return int(text) if text.isdigit() and len(text) <= _LONGEST_LENGTH else None
    return None


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


async def in_thread(call: Callable[[], T]) -> T:
    """What takes long, off the event loop."""
    # Imported where something takes long: it is no part of a page.
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(call)
