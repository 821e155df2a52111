"""Flask's door: `init_app(app)`, set up by app.config["CAPI"]."""

from collections.abc import Iterable, MutableMapping
from typing import Any

import flask

from capi_middleware import wsgi
from capi_middleware.capi import CAPI
from capi_middleware.config.settings import Config
from capi_middleware.private import frameless
from capi_middleware.request.exchange import current
from capi_middleware.request.visit import REQUEST
from capi_middleware.wsgi import Environ, StartResponse


@frameless
def init_app(app: flask.Flask, config: Config | CAPI | None = None) -> CAPI:
    """Wrap a Flask app; call it after other wrappers of app.wsgi_app that change pages.

    `config` is a Config, or the CAPI that jobs use too; without it app.config["CAPI"] is read, a
    mapping with the keys of Config (see Config.from_mapping) or a Config. Callables of the
    configuration get Flask's request, inside of its context: g, session and current_user are
    there; `{state.user.email}` reads g.user.email. Returns the CAPI, which is
    app.extensions["capi"] as well. Raises ConfigError when it is missing or cannot work.
    """
    given: Any = app.config.get("CAPI") if config is None else config
    if isinstance(given, CAPI):
        capi = given
    else:
        capi = CAPI(given if isinstance(given, Config) else Config.from_mapping(given))
    app.extensions["capi"] = capi
    flask.request_started.connect(_name_request, app, weak=False)
    app.wsgi_app = _Door(app, capi)  # type: ignore[method-assign] # as Flask's documentation does
    return capi


def _name_request(app: flask.Flask, **_: Any) -> None:
    passage = current.get()
    if passage is not None and passage.is_open:
        _fill_in(passage.opened().scope)


def _fill_in(scope: MutableMapping[str, Any]) -> None:
    scope[REQUEST] = flask.request._get_current_object()  # type: ignore[attr-defined]
    scope["state"] = flask.g._get_current_object()


class _Door(wsgi.CAPIMiddleware):
    """The WSGI door, whose endpoints answer inside of the app's request context."""

    def __init__(self, app: flask.Flask, capi: CAPI) -> None:
        super().__init__(app.wsgi_app, capi)
        self._flask = app

    def fill_in(self, scope: MutableMapping[str, Any]) -> None:
        """Flask's request, where the app is answering it."""
        if flask.has_request_context():
            _fill_in(scope)

    def answer(
        self,
        endpoint: str,
        scope: MutableMapping[str, Any],
        environ: Environ,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """As the WSGI door's, with Flask's request, session and g."""
        with self._flask.request_context(environ):
            _fill_in(scope)
            return super().answer(endpoint, scope, environ, start_response)
