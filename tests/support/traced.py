"""A site for tracers to wrap: each app inside and outside of the middleware that instruments it.

META, STORE and SPANS name Meta, the store, and the file that gets a line for each span. It is the
module of Django's settings and addresses, too: what it imports at once is not instrumented yet.
"""

import os
from collections.abc import Callable, Iterable, MutableMapping
from importlib import import_module
from pathlib import Path
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

import capi_middleware
from capi_middleware import CAPIMiddleware, EventRoute, Pixel, wsgi
from capi_middleware.flask import init_app
from tests.support.configs import SECRET, make_config

TOKEN = "an-access-token-that-nobody-sees"
PAGE = "<!doctype html><html><head><title>Thanks</title></head><body>hi</body></html>"
_ROUTE = "/orders/{number}/thanks"

config = make_config(
    pixels=[Pixel("1234567890", access_token=TOKEN)],
    graph_url=os.environ["META"],
    store=os.environ["STORE"],
    delivery=True,
    user_data={"em": "{cookie.email}"},
    routes=[
        EventRoute(
            f"GET {_ROUTE}", "Purchase", dedupe_key="{path.number}",
            custom_data={"value": 19.9, "currency": "EUR"},
        )
    ],
)  # fmt: skip

SECRET_KEY = SECRET
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
MIDDLEWARE = ["capi_middleware.django.CAPIMiddleware"]
CAPI = config
capi = capi_middleware.CAPI(config)


def _view(_: HttpRequest, number: str) -> HttpResponse:
    return HttpResponse(PAGE)


urlpatterns = [path("orders/<number>/thanks", _view)]


def _write_spans() -> None:
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    lines = Path(os.environ["SPANS"]).open("a", encoding="utf-8")  # noqa: SIM115 - while it runs
    provider.add_span_processor(
        SimpleSpanProcessor(
            ConsoleSpanExporter(
                out=lines, formatter=lambda span: str(span.to_json(indent=None)) + "\n"
            )
        )
    )


if "SPANS" in os.environ:
    _write_spans()


def traced(kind: str, app: Any) -> Any:
    """`app` inside of OpenTelemetry's own middleware."""
    return import_module(f"opentelemetry.instrumentation.{kind}").OpenTelemetryMiddleware(app)


def asgi() -> Callable[..., Any]:
    """What answers is named by the header x-app."""
    from fastapi import FastAPI
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse
    from starlette.routing import Route

    def thanks(_: Request) -> HTMLResponse:
        return HTMLResponse(PAGE)

    def starlette(*middleware: Middleware) -> Starlette:
        return Starlette(routes=[Route(_ROUTE, thanks)], middleware=middleware)

    def fastapi() -> FastAPI:
        app = FastAPI()
        app.add_api_route(_ROUTE, lambda number: PAGE, response_class=HTMLResponse)
        return app

    async def plain(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/html; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": PAGE.encode()})

    inner, fast = starlette(Middleware(CAPIMiddleware, config=capi)), fastapi()
    fast.add_middleware(CAPIMiddleware, config=capi)
    apps: dict[bytes, Callable[..., Any]] = {
        b"": plain,
        b"starlette-inside": inner,
        b"starlette-outside": CAPIMiddleware(starlette(), capi),
        b"fastapi-inside": fast,
        b"fastapi-outside": CAPIMiddleware(fastapi(), capi),
        b"plain-inside": traced("asgi", CAPIMiddleware(plain, capi)),
        b"plain-outside": CAPIMiddleware(traced("asgi", plain), capi),
    }

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await apps[dict(scope["headers"]).get(b"x-app", b"")](scope, receive, send)

    return app


def wsgi_app() -> Callable[..., Iterable[bytes]]:
    """The same for WSGI."""
    from django.core.wsgi import get_wsgi_application
    from flask import Flask

    def flask() -> Flask:
        app = Flask(__name__)
        app.add_url_rule("/orders/<number>/thanks", "thanks", lambda number: PAGE)
        return app

    def plain(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [PAGE.encode()]

    inner = flask()
    init_app(inner, capi)
    apps: dict[str, Callable[..., Any]] = {
        "": plain,
        "django": get_wsgi_application(),
        "flask-inside": inner,
        "flask-outside": wsgi.CAPIMiddleware(flask(), capi),
        "plain-inside": traced("wsgi", wsgi.CAPIMiddleware(plain, capi)),
        "plain-outside": wsgi.CAPIMiddleware(traced("wsgi", plain), capi),
    }

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        answer: Iterable[bytes] = apps[environ.get("HTTP_X_APP", "")](environ, start_response)
        return answer

    return app
