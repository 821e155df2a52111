"""The site that is attacked: whatever is asked, its answer is known beforehand.

STORE, GRAPH and FOLDER name the store, Meta and where the log and the spans are written.
"""

import logging
import os
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from capi_middleware import CAPI, CAPIMiddleware, EventRoute, asgi, track, wsgi
from capi_middleware.delivery import courier
from capi_middleware.endpoints import bodies
from tests.support.configs import make_config

TOKEN = "a-report-token-of-the-attack"
PAGE = b"<!doctype html><html><head><title>x</title></head><body>" + b"<p>hi</p>" * 20 + b"</body>"
JSON = b'{"a": 1}'
_LINES = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(PAGE)))]
_JSON_LINES = [("Content-Type", "application/json"), ("Content-Length", str(len(JSON)))]
FIELDS = ("name", "email", "phone", "city", "note")
_PERSON = {"em": "{form.email}", "ph": "{form.phone}", "fn": "{form.name}", "ct": "{form.city}",
           "external_id": "{cookie.customer}"}  # fmt: skip
_ORDER = {"content_name": "{form.note}", "plan": "{query.plan}", "x": "{json.x}"}

if "STORE" in os.environ:
    folder = Path(os.environ["FOLDER"])
    logging.basicConfig(level=logging.DEBUG, filename=folder / f"log-{os.getpid()}.txt")
    spans = (folder / f"spans-{os.getpid()}.txt").open("w")
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=spans)))
    trace.set_tracer_provider(provider)
    courier.POLL_SECONDS = 0.2
    # Whoever waits for the rest of a body here waits until the test has failed.
    for module in (bodies, asgi):
        vars(module)["BODY_SECONDS"] = 600.0

capi = CAPI(
    make_config(
        store=os.environ.get("STORE", "memory:"),
        graph_url=os.environ.get("GRAPH", "http://127.0.0.1:1"),
        delivery="STORE" in os.environ,
        report_token=TOKEN,
        mirror=True,
        advanced_matching=True,
        trusted_proxies=["127.0.0.1"],
        routes=[
            EventRoute("GET /products/{id:int}", "ViewContent", custom_data={"id": "{path.id}"}),
            EventRoute(
                "POST /lead", "Lead", status="2xx", user_data=_PERSON, custom_data=_ORDER
            ),
            EventRoute(
                "GET /thanks/{key}", "Purchase", dedupe_key="{path.key}",
                custom_data={"value": "{query.amount}", "currency": "EUR", "note": "{query.note}"},
            ),
        ],
    )
)  # fmt: skip


def answer_to(path: str) -> tuple[int, bytes, list[tuple[str, str]]]:
    """What the app itself answers."""
    if path.startswith("/api"):
        return 200, JSON, _JSON_LINES
    if path.startswith("/missing"):
        return 404, PAGE, _LINES
    return 200, PAGE, _LINES


def _wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if environ["REQUEST_METHOD"] == "POST":
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        track("Contact", content_name="a form")
    status, page, lines = answer_to(environ["PATH_INFO"])
    start_response(f"{status} Any", lines)
    return [page]


async def _asgi_app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    if scope["method"] == "POST":
        while (await receive()).get("more_body"):
            pass
        track("Contact", content_name="a form")
    status, page, lines = answer_to(scope["path"])
    headers = [(name.lower().encode(), value.encode()) for name, value in lines]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": page})


wsgi_app = wsgi.CAPIMiddleware(_wsgi_app, capi)
asgi_app = CAPIMiddleware(_asgi_app, capi)
