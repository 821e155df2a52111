"""Telemetry: what each request to Meta tells: a span and metrics, and whether our clock is right.

Spans and metrics need `opentelemetry-api`: without it nothing is imported and measured. Which
exporter takes what is made here is the host's to say. No URL, token or text of Meta's is in it, and
nothing personal.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Literal

from capi_middleware.events import Count
from capi_middleware.meta.codes import Outcome
from capi_middleware.meta.http import http_date

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
                # A refused batch goes out again in parts: one event alone is refused for good.
                if outcome.kind not in ("invalid", "unsure", "large") or n == 1:
                    events.add(n, told)

    return request


def _just_send(send: Send, pixel_id: str, n: int, attempt: Attempt) -> Outcome:
    return send()


#: Clocks that differ by more are counted, in seconds: an answer may be ten seconds under way.
TOLERANCE = 60.0
#: How often the same pixel is counted at most, in seconds.
HOUR = 3600.0


def passing() -> float:
    """Seconds of a clock that nobody sets, and that goes on while the machine sleeps."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class ClockCheck:
    """Holds the Date of Meta's answers against our clock: Meta judges event_time by its own.

    One per pixel and process.
    """

    def __init__(
        self,
        pixel_id: str,
        count: Callable[[Sequence[Count]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pixel_id = pixel_id
        self._count = count
        self._clock = clock
        self._told_at: float | None = None
        #: What Meta's time is ahead of that which passes by itself; infinite where it tells none.
        self._ahead: float | None = None

    def surely(self) -> float | None:
        """Unix time in seconds by Meta's clock, whatever ours says; None before its first answer.

        Infinite where Meta's answers name no time: then there is no clock but ours.
        """
        return None if self._ahead is None else self._ahead + passing()

    def __call__(self, date: str | None) -> None:
        """Count "skewed" if the header `date` of an answer that just came is not now."""
        ours, metas = self._clock(), http_date(date)
        if metas is None:
            self._ahead = math.inf if self._ahead is None else self._ahead
            return
        self._ahead = metas - passing()
        ahead = ours - metas
        if abs(ahead) <= TOLERANCE:
            return
        # A clock that is set right moves in either direction.
        if self._told_at is not None and abs(ours - self._told_at) < HOUR:
            return
        self._told_at = ours
        reason = "ahead" if ahead > 0 else "behind"
        self._count([Count("skewed", reason, pixel_id=self._pixel_id)])
