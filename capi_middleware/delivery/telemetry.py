"""Telemetry: a span and metrics for each request to Meta, where the host has OpenTelemetry's API.

Without `opentelemetry-api` nothing is imported and nothing is measured. Which exporter takes what
is made here is the host's to say. No URL, token or text of Meta's is in it, and nothing personal.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Literal

from capi_middleware.meta.codes import Outcome

#: first: none of the events was sent before; repeat: some were; split: a part of a batch that Meta
#: refused.
Attempt = Literal["first", "repeat", "split"]
Send = Callable[[], Outcome]
#: (send, pixel_id, events in the request, attempt) to what `send` returned.
Measure = Callable[[Send, str, int, Attempt], Outcome]

_SCOPE = "capi_middleware"


@cache
def measure() -> Measure:
    """What to send each request through: `measure()(send, pixel_id, n, "first")`."""
    try:
        from opentelemetry import metrics, trace

        tracer = trace.get_tracer(_SCOPE)
        meter = metrics.get_meter(_SCOPE)
        events = meter.create_counter(
            "capi.delivery.events",
            unit="{event}",
            description="Server copies that a request decided on, by what the request came to.",
        )
        duration = meter.create_histogram(
            "capi.delivery.duration", unit="s", description="Time from a request to Meta's answer."
        )
    except Exception:
        # Not installed, or the environment names a provider that cannot be loaded: delivery must
        # not depend on it.
        return _just_send

    def request(send: Send, pixel_id: str, n: int, attempt: Attempt) -> Outcome:
        span: trace.Span = trace.INVALID_SPAN
        of = {"capi.pixel_id": pixel_id}
        # Exporters and processors of the host may fail as they like: the outcome must be kept.
        with suppress(Exception):
            span = tracer.start_span(
                "capi.deliver",
                kind=trace.SpanKind.CLIENT,
                attributes={**of, "capi.events": n, "capi.attempt": attempt},
            )
        start = time.monotonic()
        outcome = Outcome("retry", "error")
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                outcome = send()
            return outcome
        finally:
            seconds = time.monotonic() - start
            with suppress(Exception):
                span.set_attribute("capi.outcome", outcome.kind)
                if outcome.kind != "delivered":
                    span.set_attribute("capi.reason", outcome.reason)
                    span.set_status(trace.StatusCode.ERROR)
                span.end()
            with suppress(Exception):
                told = {**of, "capi.outcome": outcome.kind}
                duration.record(seconds, told)
                # A refused batch is halved and sent again: one event alone is refused for good.
                if outcome.kind != "invalid" or n == 1:
                    events.add(n, told)

    return request


def _just_send(send: Send, pixel_id: str, n: int, attempt: Attempt) -> Outcome:
    return send()
