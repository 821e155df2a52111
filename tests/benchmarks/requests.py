"""One request in process: what a layer adds to a bare app, ASGI and WSGI.

Figures are the time of the thread that answers, so that a busy machine does not count; what the
store's own thread costs beside it is in the rows of serving.py.
"""

import asyncio
import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import sentry_sdk
from asgi_correlation_id import CorrelationIdMiddleware
from flask import Flask
from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from capi_middleware import CAPI, EventRoute, asgi, wsgi
from tests.benchmarks.measure import Trial
from tests.support.configs import make_config

_HEAD = "<!doctype html><html><head><meta charset=utf-8><title>A kettle</title>"
_LINKS = "".join(f'<link rel="stylesheet" href="/static/{n}.css">' for n in range(8))
#: 10 KB, as a template makes it.
PAGE = f"{_HEAD}{_LINKS}</head><body>" + "<p>A good kettle for good tea.</p>" * 290 + "</body>"
#: What a browser sends.
BROWSER = {
    "host": "shop.example.com",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/142.0.0.0 Safari/537.36",
    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "accept-language": "en-GB,en;q=0.9",
    "accept-encoding": "gzip, deflate, br, zstd",
    "referer": "https://shop.example.com/",
    "cookie": "_fbp=fb.1.1700000000000.1234567890; session=0123456789abcdef",
    "sec-fetch-dest": "document",
    "sec-fetch-mode": "navigate",
    "sec-fetch-site": "same-origin",
}
_REQUESTS = 300
#: Small differences need many short rounds.
_ROUNDS = 61


async def _json(request: Request) -> JSONResponse:
    return JSONResponse({"ok": True})


async def _page(request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


def starlette_app() -> Any:
    """A bare app: /other is JSON, /matched is a page of 10 KB."""
    return Starlette(routes=[Route("/other", _json), Route("/matched", _page)])


def flask_app() -> Any:
    """The same for WSGI."""
    app = Flask(__name__)
    app.add_url_rule("/other", "other", lambda: {"ok": True})
    app.add_url_rule("/matched", "matched", lambda: PAGE)
    return app.wsgi_app


def make_capi(routes: int, **settings: Any) -> CAPI:
    """A tracker with `routes` routes; the first of them takes /matched."""
    made = [EventRoute("GET /matched", "ViewContent", custom_data={"content_name": "Kettle"})]
    made += [
        EventRoute(f"GET /shop{n}/products/{{sku}}", "ViewContent", custom_data={"n": n})
        for n in range(1, routes)
    ]
    given = {"durability": "none", "page_view": False, **settings}
    return CAPI(make_config(routes=made, **given))


def silent_sentry() -> None:
    """sentry-sdk with nothing sampled, and without patches of what is measured beside it."""
    sentry_sdk.init(
        dsn="http://public@127.0.0.1:9/1", traces_sample_rate=0.0, default_integrations=False,
        auto_enabling_integrations=False,
    )  # fmt: skip


def asgi_side(app: Any, path: str) -> Callable[[float], float]:
    """Seconds for one request to `path` on a running event loop."""
    loop = asyncio.new_event_loop()
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "scheme": "https", "path": path, "raw_path": path.encode(), "root_path": "",
        "query_string": b"", "client": ("203.0.113.9", 50000), "server": ("127.0.0.1", 8000),
    }  # fmt: skip
    headers = [(name.encode(), value.encode()) for name, value in BROWSER.items()]
    request = {"type": "http.request", "body": b"", "more_body": False}

    async def receive() -> Any:
        return request

    async def send(message: Any) -> None:
        pass

    async def many(amount: int) -> float:
        start = time.thread_time()
        for _ in range(amount):
            await app({**scope, "headers": list(headers), "state": {}}, receive, send)
        return (time.thread_time() - start) / amount

    return lambda share: loop.run_until_complete(many(max(1, int(_REQUESTS * share))))


def wsgi_side(app: Any, path: str) -> Callable[[float], float]:
    """Seconds for one request to `path`."""
    environ = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "",
        "SERVER_NAME": "shop.example.com", "SERVER_PORT": "443", "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "203.0.113.9", "wsgi.url_scheme": "https", "wsgi.input": None,
        **{"HTTP_" + name.upper().replace("-", "_"): value for name, value in BROWSER.items()},
    }  # fmt: skip

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        return None

    def side(share: float) -> float:
        amount = max(1, int(_REQUESTS * share))
        start = time.thread_time()
        for _ in range(amount):
            body = app(dict(environ), start_response)
            b"".join(body)
            close = getattr(body, "close", None)
            if close is not None:
                close()
        return (time.thread_time() - start) / amount

    return side


def rows() -> Iterator[Trial]:
    """What the table says about one request."""
    bare = starlette_app()
    correlation = CorrelationIdMiddleware(bare)
    silent_sentry()
    numbers = itertools.count()
    with contextlib.ExitStack() as ends:
        folder = ends.enter_context(tempfile.TemporaryDirectory())

        def ours(app: Any, door: Any, routes: int = 20, **settings: Any) -> Any:
            store = f"sqlite:///{folder}/{next(numbers)}.db"
            capi = make_capi(routes, store=store, **settings)
            ends.callback(capi.close)
            return door.CAPIMiddleware(app, capi)

        what = "unmatched route, 20 routes, {}, in process, added time"
        yield Trial(
            what.format("page_view=False"), "what asgi-correlation-id adds", 0.08,
            asgi_side(ours(bare, asgi), "/other"), asgi_side(correlation, "/other"),
            asgi_side(bare, "/other"), rounds=_ROUNDS,
        )  # fmt: skip
        yield Trial(
            what.format("page_view=True, JSON"), "what asgi-correlation-id adds", 0.25,
            asgi_side(ours(bare, asgi, page_view=True), "/other"),
            asgi_side(correlation, "/other"), asgi_side(bare, "/other"), rounds=_ROUNDS,
        )  # fmt: skip
        yield Trial(
            "unmatched route, 500 routes, in process, a request", "20 routes", 1.1,
            asgi_side(ours(_raw, asgi, 500), "/other"), asgi_side(ours(_raw, asgi), "/other"),
            rounds=_ROUNDS,
        )  # fmt: skip
        yield Trial(
            "matched page of 10 KB, durability=none, in process, added time",
            "sentry-sdk ASGI, nothing sampled", 0.30,
            asgi_side(ours(bare, asgi), "/matched"),
            asgi_side(SentryAsgiMiddleware(bare), "/matched"), asgi_side(bare, "/matched"),
            rounds=_ROUNDS,
        )  # fmt: skip
        flask = flask_app()
        yield Trial(
            "matched page of 10 KB on Flask, durability=none, in process, added time",
            "sentry-sdk WSGI, nothing sampled", 0.30,
            wsgi_side(ours(flask, wsgi), "/matched"),
            wsgi_side(SentryWsgiMiddleware(flask), "/matched"), wsgi_side(flask, "/matched"),
            rounds=_ROUNDS,
        )  # fmt: skip


async def _raw(scope: Any, receive: Any, send: Any) -> None:
    """The least app there is: what is measured around it stays visible."""
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})
