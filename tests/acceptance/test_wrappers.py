"""`opentelemetry-instrument` around all that we run: nothing is lost, and no visitor is traced."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from capi_middleware import CAPI, UserData
from capi_middleware.testing import FakeMeta
from tests.support.configs import make_config
from tests.support.processes import ROOT, free_port, running, until
from tests.support.servers import serve

PAGE = "<!doctype html><html><head><title>Thanks</title></head><body>hi</body></html>"
EMAIL = "jane@example.com"
SECRETS = (
    "an-access-token-that-nobody-sees", EMAIL, hashlib.sha256(EMAIL.encode()).hexdigest(),
    "a-secret-for-tests",
)  # fmt: skip
_TAG = re.compile(r'<script type="application/json" data-c.*?</script><script[^>]*></script>', re.S)
_INSTRUMENT = str(Path(sys.executable).with_name("opentelemetry-instrument"))
#: What the first visitor brings from elsewhere: a trace, and baggage that is about him.
_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
_BROUGHT = {"traceparent": f"00-{_TRACE}-00f067aa0ba902b7-01", "baggage": f"customer={EMAIL}"}
SERVERS = {
    "uvicorn": (
        "uvicorn --factory tests.support.traced:asgi --log-level warning --port {port}",
        ["starlette-inside", "starlette-outside", "fastapi-inside", "fastapi-outside",
         "plain-inside", "plain-outside"],
    ),
    "gunicorn": (
        "gunicorn tests.support.traced:wsgi_app() --threads 2 --log-level warning "
        "--bind 127.0.0.1:{port}",
        ["django", "flask-inside", "flask-outside", "plain-inside", "plain-outside"],
    ),
}  # fmt: skip


class Meta(NamedTuple):
    """A fake Meta that keeps the headers it was sent."""

    url: str
    fake: FakeMeta
    headers: list[dict[bytes, bytes]]


@pytest.fixture
def meta() -> Iterator[Meta]:
    fake, headers = FakeMeta(), []

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers.append(dict(scope["headers"]))
        await fake.app(scope, receive, send)

    with serve(app) as url:
        yield Meta(url, fake, headers)


def environment(meta: Meta, store: str, spans: Path) -> dict[str, str]:
    exporters = {f"OTEL_{one}_EXPORTER": "none" for one in ("TRACES", "METRICS", "LOGS")}
    return {
        **exporters, "META": meta.url, "STORE": store, "SPANS": str(spans),
        "DJANGO_SETTINGS_MODULE": "tests.support.traced",
        # Where they are installed: a trace of the whole server, and what costs time.
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "asyncio,click,system_metrics",
    }  # fmt: skip


def spans_in(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


@contextmanager
def site(name: str, environment: dict[str, str]) -> Iterator[httpx.Client]:
    port = free_port()
    program = (sys.executable, _INSTRUMENT)
    arguments = [sys.executable, "-m", *SERVERS[name][0].format(port=port).split()]
    with (
        running(arguments, port, environment=environment, program=program) as server,
        httpx.Client(base_url=server.url, timeout=60, cookies={"email": EMAIL}) as client,
    ):
        client.headers.update({"user-agent": "Mozilla/5.0", "accept": "text/html"})
        yield client


@pytest.mark.parametrize("name", SERVERS)
def test_instrumentors_inside_and_outside_cost_no_copy_and_no_span_tells_of_a_visitor(
    name: str, meta: Meta, tmp_path: Path, postgres_url: str
) -> None:
    store = postgres_url if name == "uvicorn" else f"sqlite:///{tmp_path}/capi.db"
    spans, apps = tmp_path / "spans", SERVERS[name][1]
    expected = {(event, f"/orders/{app}/thanks") for app in apps for event in
                ("PageView", "Purchase")}  # fmt: skip
    with site(name, environment(meta, store, spans)) as client:
        for app in apps:
            brought = _BROUGHT if app == apps[0] else {}
            text = client.get(f"/orders/{app}/thanks", headers={"x-app": app, **brought}).text
            assert (_TAG.sub("", text), len(_TAG.findall(text))) == (PAGE, 1), app
        until("all copies", lambda: len(meta.fake.received.server) >= len(expected), 60)
        got = [(one.event["event_name"], httpx.URL(one.event["event_source_url"]).path)
               for one in meta.fake.received.server]  # fmt: skip
        assert sorted(got) == sorted(expected)
        until("spans", lambda: {"POST", "capi.deliver"} <= {s["name"] for s in spans_in(spans)}, 60)
    told = spans.read_text("utf-8")
    assert [secret for secret in SECRETS if secret in told] == []
    visited = [one for one in spans_in(spans) if one["kind"] == "SpanKind.SERVER"]
    assert any(_TRACE in one["context"]["trace_id"] for one in visited)
    # What works for all visitors is part of nobody's trace, and takes nobody's baggage along.
    traces = {one["context"]["trace_id"] for one in visited}
    ours = [one for one in spans_in(spans) if one["kind"] == "SpanKind.CLIENT"]
    assert [one["name"] for one in ours if one["context"]["trace_id"] in traces] == []
    assert [one[b"baggage"] for one in meta.headers if b"baggage" in one] == []


def test_a_courier_under_opentelemetry_delivers_what_waits(meta: Meta, tmp_path: Path) -> None:
    spans = tmp_path / "spans"
    # The wrapper takes --config for one of its own: the environment names it.
    given = {**os.environ, **environment(meta, f"sqlite:///{tmp_path}/capi.db", spans),
             "CAPI_CONFIG": "tests.support.traced:config"}  # fmt: skip
    with closing(CAPI(make_config(store=given["STORE"]))) as capi:
        capi.track(
            "Purchase", value=1, currency="EUR", dedupe_key="1", user_data=UserData(em=EMAIL)
        )
    deliver = ["-m", "capi_middleware.cli", "deliver", "--once"]
    subprocess.run([sys.executable, _INSTRUMENT, sys.executable, *deliver], cwd=ROOT, check=True,
                   env=given)  # fmt: skip
    assert [one.event["event_name"] for one in meta.fake.received.server] == ["Purchase"]
    names = {one["name"] for one in spans_in(spans)}
    assert {"POST", "capi.deliver"} <= names
