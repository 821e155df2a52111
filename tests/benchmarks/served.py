"""The apps that servers of the benchmarks run; LAYER says what is around them.

`app` (ASGI) and `flask` (WSGI): /other is JSON, /matched is a page of 10 KB.
"""

import os
from typing import Any

from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware

from capi_middleware import asgi, wsgi
from tests.benchmarks import requests


class _NoOp:
    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


def _wrapped(app: Any, door: Any, sentry: Any) -> Any:
    layer, _, durability = os.environ.get("LAYER", "bare").partition(":")
    if layer == "noop":
        return _NoOp(app)
    if layer == "sentry":
        requests.silent_sentry()
        return sentry(app)
    if layer == "ours":
        capi = requests.make_capi(20, store=os.environ["STORE"], durability=durability)
        return door.CAPIMiddleware(app, capi)
    return app


app = _wrapped(requests.starlette_app(), asgi, SentryAsgiMiddleware)
flask = _wrapped(requests.flask_app(), wsgi, SentryWsgiMiddleware)
