"""The WSGI door: environ and iterables to an Exchange, bytes back. PEP 3333 to the letter."""

from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from msgspec import Struct

from capi_middleware.capi import CAPI
from capi_middleware.capture.carrying import COOKIE
from capi_middleware.config.settings import Config
from capi_middleware.doors.environ import Environ, Tee, read_body, scope_of
from capi_middleware.doors.wsgi_response import ExcInfo, Responder, StartResponse, walk
from capi_middleware.private import Private
from capi_middleware.request.exchange import Exchange, current

App = Callable[[Any, Any], Iterable[bytes]]

#: In the environ: a CAPIMiddleware further out has this request already.
MARK = "capi_middleware.request.exchange"
#: What a dispatcher that mounts another app changes in the environ: kept as it came in.
_PLACE = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO")


class CAPIMiddleware:
    """Wraps any WSGI app: `application = CAPIMiddleware(application, config)`.

    `config` is a Config, or the CAPI that jobs and webhooks use too.
    """

    def __init__(self, app: App, config: Config | CAPI) -> None:
        self.app = app
        self.capi: CAPI = config if isinstance(config, CAPI) else CAPI(config)
        self._endpoints = self.capi.endpoints

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """The WSGI interface."""
        if is_wrapped(environ):
            self.capi.issuer.notices.say("twice")
            return self.app(environ, start_response)
        taken: Exchange | str | None = None
        scope: dict[str, Any] = {}
        try:
            self.capi.start()
            if not _passes(self.capi, environ):
                scope = scope_of(environ)
                taken = self.capi.take(scope)
        except Exception as error:
            self.capi.issuer.shield.caught(error, "opening")
            return self.app(environ, start_response)
        if isinstance(taken, str):
            return self.answer(taken, scope, environ, start_response)
        environ[MARK] = True
        came = {name: environ[name] for name in _PLACE if name in environ}
        passage = _Passage(self, environ, start_response, came)
        if taken is not None:
            passage.responder = Responder(taken, start_response)
            if taken.tee is not None:
                environ["wsgi.input"] = Tee(environ["wsgi.input"], taken.tee.add)
        token = current.set(passage)
        try:
            result = self.app(environ, passage.start)
        except BaseException:
            if passage.responder is not None:
                passage.responder.finish()
            raise
        finally:
            current.reset(token)
        return passage.body(result)

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
        response = walk(self._endpoints.answer(endpoint, scope, read_body(environ)))
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in response.raw_headers
        ]
        start_response(f"{response.status_code} {_phrase(response.status_code)}", headers)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else bytes(response.body)]


def is_wrapped(environ: Environ) -> bool:
    """Whether a CAPIMiddleware further out has this request already."""
    return MARK in environ or "capi_middleware" in environ.get("asgi.scope", ())


def _passes(capi: CAPI, environ: Environ) -> bool:
    """Whether CAPI.take() would say None, for the many requests that show it at once."""
    path = environ.get("PATH_INFO", "")
    return (
        path.isascii()
        and not capi.may_want(environ.get("REQUEST_METHOD", "GET"), path)
        and "fbclid=" not in environ.get("QUERY_STRING", "")
        and COOKIE not in environ.get("HTTP_COOKIE", "")
    )


class _Passage(Private, Struct):
    """One request; without a `responder` as long as nothing about it matters to us."""

    door: CAPIMiddleware
    environ: Environ
    start_response: StartResponse
    came: Environ
    responder: "Responder | None" = None
    started: bool = False

    @property
    def is_open(self) -> bool:
        """See exchange.Passage."""
        return self.responder is not None

    def opened(self) -> Exchange:
        """See exchange.Passage."""
        if self.responder is None:
            scope = scope_of({**self.environ, **self.came})
            scope["state"] = self.environ
            self.door.fill_in(scope)
            exchange = self.door.capi.open(scope)
            if self.started:
                exchange.missed()
            self.responder = Responder(exchange, self.start_response)
        return self.responder.exchange

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """The start_response that the app calls."""
        if self.responder is None:
            try:
                if _may_be_page(headers):
                    self.opened()
            except Exception as error:
                self.door.capi.issuer.shield.caught(error, "opening")
            self.started = True
        if self.responder is not None:
            return self.responder.start(status, headers, exc_info)
        if exc_info is None:
            return self.start_response(status, headers)
        return self.start_response(status, headers, exc_info)

    def body(self, result: Iterable[bytes]) -> Iterable[bytes]:
        """What the server iterates: the app's own object wherever nothing is to be changed."""
        if self.responder is None and not self.started:
            # A generator calls start_response when it is iterated, and track() in it as well.
            try:
                self.opened()
            except Exception as error:
                self.door.capi.issuer.shield.caught(error, "opening")
        if self.responder is None:
            return result
        return self.responder.body(result, self.environ.get("wsgi.file_wrapper"))


def _may_be_page(headers: list[tuple[str, str]]) -> bool:
    for name, value in headers:
        if len(name) == 12 and name.lower() == "content-type":
            return "html" in value.lower()
    return False


def _phrase(status: int) -> str:
    from http import HTTPStatus

    return HTTPStatus(status).phrase
