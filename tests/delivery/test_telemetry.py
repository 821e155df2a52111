"""Telemetry: each request to Meta is a span and three numbers, where OpenTelemetry is installed."""

import builtins
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from capi_middleware.delivery import telemetry
from capi_middleware.delivery.courier import Courier
from capi_middleware.meta.codes import Outcome
from capi_middleware.testing import MemoryStore
from tests.delivery.test_delivery import Script
from tests.support.stores import PIXEL, Clock, row, store_rows


class Host:
    """An application with OpenTelemetry's SDK."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def numbers(self) -> dict[str, dict[str, Any]]:
        """By name of the instrument: sum or count by outcome."""
        data: Any = self.reader.get_metrics_data()
        return {
            metric.name: {
                point.attributes["capi.outcome"]: getattr(point, "value", None) or point.count
                for point in metric.data.data_points
            }
            for metric in data.resource_metrics[0].scope_metrics[0].metrics
        }


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    host = Host()
    monkeypatch.setattr(trace, "get_tracer", host.tracers.get_tracer)
    monkeypatch.setattr(metrics, "get_meter", host.meters.get_meter)
    telemetry.measure.cache_clear()
    yield host
    telemetry.measure.cache_clear()
    host.tracers.shutdown()
    host.meters.shutdown()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(clock=Clock())


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_each_request_is_a_span_that_names_pixel_size_attempt_and_outcome(
    host: Host, store: MemoryStore
) -> None:
    store_rows(store, *(row(f"e{n}", payload=b"%d" % n) for n in range(2)))
    Courier(store, PIXEL, lambda: Script(bad=frozenset({b"0"})))._round()
    spans = host.spans.get_finished_spans()
    assert [attributes(span) for span in spans] == [
        {"capi.pixel_id": PIXEL, "capi.events": n, "capi.attempt": attempt,
         "capi.outcome": outcome} | ({"capi.reason": "code 100"} if outcome == "invalid" else {})
        for n, attempt, outcome in (
            (2, "first", "invalid"), (1, "split", "invalid"), (1, "split", "delivered"))
    ]  # fmt: skip
    assert {span.name for span in spans} == {"capi.deliver"}
    assert [span.status.is_ok for span in spans] == [False, False, True]


def test_an_event_that_was_sent_before_makes_it_a_repeat(host: Host) -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    store_rows(store, row("e1"))
    courier = Courier(store, PIXEL, lambda: Script(Outcome("retry", "http 500")))
    courier._round()
    clock.now += 3600
    courier._round()
    attempts = [attributes(span)["capi.attempt"] for span in host.spans.get_finished_spans()]
    assert attempts == ["first", "repeat"]


def test_events_are_counted_when_a_request_decides_on_them_and_requests_are_timed(
    host: Host, store: MemoryStore
) -> None:
    store_rows(store, *(row(f"e{n}", payload=b"%d" % n) for n in range(3)))
    Courier(store, PIXEL, lambda: Script(bad=frozenset({b"0"})))._round()
    assert host.numbers() == {
        "capi.delivery.events": {"delivered": 2, "invalid": 1},
        "capi.delivery.duration": {"delivered": 1, "invalid": 2},
    }


def test_a_span_is_the_parent_of_what_happens_in_the_request(host: Host) -> None:
    def send() -> Outcome:
        seen.append(trace.get_current_span())
        return Outcome("delivered")

    seen: list[trace.Span] = []
    telemetry.measure()(send, PIXEL, 1, "first")
    (span,) = host.spans.get_finished_spans()
    assert seen[0].get_span_context() == span.get_span_context()


def test_telemetry_of_the_host_that_fails_changes_no_outcome(
    host: Host, store: MemoryStore
) -> None:
    class Broken(SpanProcessor):
        def on_start(self, span: Span, parent_context: object = None) -> None:
            raise RuntimeError

        def on_end(self, span: ReadableSpan) -> None:
            raise RuntimeError

    host.tracers.add_span_processor(Broken())
    store_rows(store, row("e1"))
    Courier(store, PIXEL, Script)._round()
    assert store.depth() == {"delivered": 1}


def test_a_request_that_fails_ends_its_span_without_the_errors_words(host: Host) -> None:
    def send() -> Outcome:
        raise RuntimeError("https://secret.example")

    with pytest.raises(RuntimeError):
        telemetry.measure()(send, PIXEL, 1, "first")
    (span,) = host.spans.get_finished_spans()
    assert "secret" not in span.to_json()


def test_without_opentelemetry_a_request_is_just_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return honest(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    telemetry.measure.cache_clear()
    assert telemetry.measure() is telemetry._just_send
    assert telemetry.measure()(lambda: Outcome("delivered"), PIXEL, 1, "first").kind == "delivered"
    telemetry.measure.cache_clear()


def test_an_environment_that_names_no_provider_does_not_stop_delivery() -> None:
    code = (
        "from capi_middleware.meta.codes import Outcome\n"
        "from capi_middleware.delivery.telemetry import measure\n"
        "for _ in range(2):\n"
        "    sent = measure()(lambda: Outcome('delivered'), '1', 1, 'first')\n"
        "    assert sent.kind == 'delivered'\n"
    )
    names = ("OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER")
    environment = {**os.environ, **dict.fromkeys(names, "nobody")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
