"""Django's door: a MIDDLEWARE entry, sync and async, set up by settings.CAPI.

`MIDDLEWARE = ["capi_middleware.django.CAPIMiddleware", ...]`, and `CAPI = {"pixels": [...], ...}`
with the keys of Config. It runs the WSGI door's Response between Django's request and response.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import cache
from itertools import chain, takewhile
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.core.signals import setting_changed
from django.http import HttpResponse
from django.utils.module_loading import import_string

from capi_middleware import asgi
from capi_middleware.capi import CAPI
from capi_middleware.config.settings import Config
from capi_middleware.endpoints import BODY_LIMIT, EVENTS
from capi_middleware.endpoints.bodies import Patience, leave_body
from capi_middleware.private import frameless
from capi_middleware.request.exchange import Aside, Exchange, current
from capi_middleware.request.visit import REQUEST, in_time
from capi_middleware.wsgi import MARK, Response, Tee, Waits, is_wrapped, run, scope_of

#: What names the visitor where our own endpoints answer, before the other middleware had its turn.
_IDENTITY = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
)
#: What makes a nonce only when somebody asks for it: django-csp, and Django itself since 6.0.
_POLICIES = ("csp.middleware.", "django.middleware.csp.")
#: Packages whose pages are for those who make the site.
_TOOLS = frozenset({"debug_toolbar", "drf_spectacular", "drf_yasg", "silk"})
_CACHE, _ENTRY = "django.middleware.cache.UpdateCacheMiddleware", ".django.CAPIMiddleware"
Pairs = list[tuple[str, str]]


class _Waits(Waits):
    """How this door waits: as the WSGI door, but for coroutines of the host."""

    async def host(self, answer: Awaitable[Any]) -> Any:
        """On the event loop that runs the view, where there is one, as Django has it.

        What it runs with sync_to_async (the ORM, request.user) gets this very thread.
        """
        return async_to_sync(in_time)(answer)


_WAITS = _Waits()


@cache
def get_capi() -> CAPI:
    """The CAPI of this process, made of settings.CAPI: for webhooks, commands and Celery tasks.

    settings.CAPI is a mapping with the keys of Config, see Config.from_mapping, or a Config.
    Raises ConfigError when it is missing or cannot work.
    """
    return CAPI(configured())


@frameless
def configured() -> Config:
    """What settings.CAPI is as a Config. Raises ConfigError when it is missing or cannot work."""
    given: Any = getattr(settings, "CAPI", None)
    return given if isinstance(given, Config) else Config.from_mapping(given)


def _on_setting_changed(*, setting: str, **_: Any) -> None:
    if setting == "CAPI":  # override_settings in a test
        get_capi.cache_clear()


setting_changed.connect(_on_setting_changed)


class CAPIMiddleware:
    """A MIDDLEWARE entry. Put it first; only what compresses with br or zstd stands before it.

    Callables of the configuration get Django's HttpRequest, after the view: request.user and
    request.session are there, also in asynchronous projects. `{state.user.email}` reads the same
    request. A FileResponse stays as it is; a page that is one is counted as `offloaded`.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        self.capi: CAPI = get_capi()
        self._endpoints = self.capi.endpoints  # made now, not by its first request
        if _CACHE in takewhile(lambda entry: not entry.endswith(_ENTRY), settings.MIDDLEWARE):
            self.capi.issuer.notices.say("cache")
        is_async = iscoroutinefunction(get_response)
        if is_async:
            markcoroutinefunction(self)
        if any(entry.startswith(_POLICIES) for entry in settings.MIDDLEWARE):
            self.process_view: Callable[..., Any] = (
                self._ask_for_nonce_async if is_async else self._ask_for_nonce
            )

    def __call__(self, request: Any) -> Any:
        """Django's middleware interface."""
        if iscoroutinefunction(self):
            return self._asynchronous(request)
        endpoint, exchange = self._open(request)
        if endpoint is not None:
            return self._answer(endpoint, request)
        if exchange is None:
            return self.get_response(request)
        outgoing = _Outgoing(self.capi, exchange)
        with outgoing.made():
            response = self.get_response(request)
        return outgoing.finish(response)

    async def _asynchronous(self, request: Any) -> Any:
        endpoint, exchange = self._open(request)
        # In Django's own threads callables may use request.user and the database.
        if endpoint is not None:
            return await sync_to_async(self._answer)(endpoint, request)
        if exchange is None:
            return await self.get_response(request)
        outgoing = _Outgoing(self.capi, exchange)
        with outgoing.made():
            response = await self.get_response(request)
        if getattr(response, "is_async", False):
            return await outgoing.finish_stream(response)
        return await sync_to_async(outgoing.finish)(response)

    def _open(self, request: Any) -> tuple[str | None, Exchange | None]:
        """The name of our endpoint, or the exchange of a request; neither: it passes through."""
        try:
            asynchronous = hasattr(request, "scope")
            given = request.scope if asynchronous else request.environ
            if asgi.MARK in given if asynchronous else is_wrapped(given):
                self.capi.issuer.notices.say("twice")
                return None, None
            if not self.capi.start():
                current.set(Aside(self.capi.issuer))
                return None, None
            scope = _scope(request)
            endpoint = self.capi.endpoint(scope)
            if endpoint is not None:
                return endpoint, None
            exchange = self.capi.open(scope)
            if exchange.tee is not None:
                request._stream = Tee(request._stream, exchange.tee.add)
            given[asgi.MARK if asynchronous else MARK] = True
        except Exception as error:
            self.capi.issuer.shield.caught(error, "opening")
            current.set(Aside(self.capi.issuer))
            return None, None
        return None, exchange

    def _ask_for_nonce(self, request: Any, *_: Any) -> None:
        """Make the nonce of a page's policy while the policy can still name it: a tag needs it."""
        headers = request.headers
        accepted = headers.get("Accept", "*/*")
        fetched = headers.get("Sec-Fetch-Dest", "document") == "empty"
        if "html" in accepted or ("*/*" in accepted and not fetched):
            with self.capi.issuer.shield.guard("the nonce"):
                for name in ("csp_nonce", "_csp_nonce"):
                    str(getattr(request, name, ""))

    async def _ask_for_nonce_async(self, request: Any, *_: Any) -> None:
        self._ask_for_nonce(request)

    def _answer(self, endpoint: str, request: Any) -> HttpResponse:
        scope, environ = _scope(request), getattr(request, "environ", {})
        answer = self._endpoints.refusal(endpoint, scope)
        if answer is not None:
            leave_body(environ)
        else:
            try:
                with Patience(environ):
                    body = request.read(BODY_LIMIT + 1)
            except TimeoutError:
                answer = self._endpoints.too_slow()
            else:
                answer = self._heard(endpoint, request, body)
        response = HttpResponse(bytes(answer.body), status=answer.status_code)
        _change(response, [*response.items()], answer.headers.items())
        return response

    def _heard(self, endpoint: str, request: Any, body: bytes) -> Any:
        for path in _IDENTITY:
            if path in settings.MIDDLEWARE:
                import_string(path)(self.get_response).process_request(request)
        given = body if len(body) <= BODY_LIMIT else None
        answer = run(self._endpoints.answer(endpoint, _scope(request), given, _WAITS))
        if endpoint in EVENTS:
            self.capi.send_now()
        return answer


def _scope(request: Any) -> dict[str, Any]:
    """Django's request as an ASGI http scope."""
    scope = dict(request.scope) if hasattr(request, "scope") else scope_of(request.environ)
    if isinstance(scope["query_string"], str):  # as Django's AsyncClient makes it
        scope["query_string"] = scope["query_string"].encode()
    scope.update({REQUEST: request, "state": request})
    return scope


class _Outgoing:
    """One response on its way through the WSGI door's Response."""

    def __init__(self, capi: CAPI, exchange: Exchange) -> None:
        self._exchange = exchange
        self._response = Response(capi, self._start, exchange, waits=_WAITS)
        self._headers: Pairs | None = None

    @contextmanager
    def made(self) -> Iterator[None]:
        """The view makes the response here, and may track()."""
        token = current.set(self._response)
        try:
            yield
        except BaseException:
            self._response.failed()
            self._response.end()
            raise
        finally:
            current.reset(token)

    def finish(self, response: Any) -> Any:
        """The same response with the tag in its content or in its stream."""
        given = self._begin(response)
        if not response.streaming:
            content = response.content
            body = b"".join(self._response.body([content], None))
            self._response.end()
            if body != content:
                response.content = body
        else:
            is_file = getattr(response, "file_to_stream", None) is not None
            parts = response if is_file else iter(response)
            stream = self._response.body(parts, type(response))
            if stream is parts:
                self._response.end()
            else:
                response.streaming_content = _Stream(stream, lambda: self._headers is not None)
        return self._with_headers(response, given)

    async def finish_stream(self, response: Any) -> Any:
        """The same response with the tag in the stream of an asynchronous view."""
        given = await sync_to_async(self._begin)(response)
        stream = self._tagged(aiter(response.streaming_content))
        if self._headers is None:
            stream = _resumed(await anext(stream, b""), stream)
        response.streaming_content = stream
        return self._with_headers(response, given)

    def _begin(self, response: Any) -> Pairs:
        match = getattr(self._exchange.scope[REQUEST], "resolver_match", None)
        package = getattr(getattr(match, "func", None), "__module__", "").partition(".")[0]
        if "admin" in getattr(match, "app_names", ()) or package in _TOOLS:
            self._exchange.exclude()
        given = [*response.items()]
        given += [("Set-Cookie", cookie.OutputString()) for cookie in response.cookies.values()]
        self._response.start(f"{response.status_code} {response.reason_phrase}", given)
        return given

    def _with_headers(self, response: Any, given: Pairs) -> Any:
        try:
            _change(response, given, self._headers or given)
        except Exception as error:
            self._exchange.issuer.shield.caught(error, "the headers")
        return response

    def _start(self, status: str, headers: Pairs, *_: Any) -> Callable[[bytes], object]:
        self._headers = headers
        return lambda data: None

    async def _tagged(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        response = self._response
        try:
            while True:
                token = current.set(response)
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    break
                except BaseException:
                    response.failed()
                    raise
                finally:
                    current.reset(token)
                if chunk or not response.waits_for_more:
                    yield response.piece(chunk, last=False)
            if piece := await sync_to_async(self._end)():
                yield piece
        finally:
            await sync_to_async(response.end)()

    def _end(self) -> bytes:
        try:
            return self._response.next_piece(iter(()), only=False)
        except StopIteration:
            return b""


class _Stream:
    """A stream that was read until its headers were known."""

    def __init__(self, stream: Any, is_known: Callable[[], bool]) -> None:
        self._stream = stream
        self._read: list[bytes] = []
        while not is_known() and (piece := next(stream, None)) is not None:
            self._read.append(piece)

    def __iter__(self) -> Iterator[bytes]:
        return chain(self._read, self._stream)

    def close(self) -> None:
        """Close the view's own stream."""
        self._stream.close()


async def _resumed(
    first: bytes, stream: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    async with aclosing(stream):
        yield first
        async for piece in stream:
            yield piece


def _change(response: Any, given: Pairs, headers: Pairs) -> None:
    """Make the `given` headers of a response the `headers` that go out."""
    for name, _ in given:
        if name != "Set-Cookie" and all(name != one for one, _ in headers):
            del response[name]
    for pair in headers:
        if pair in given:
            continue
        name, text = pair
        if name.lower() == "set-cookie":
            response.cookies.load(text)
        else:
            response[name] = text
