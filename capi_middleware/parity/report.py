"""The faces of the parity report: JSON, a page, and Prometheus text."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

import msgspec

from capi_middleware.parity.flags.evidence import goal, percent
from capi_middleware.parity.insights.history import trends
from capi_middleware.parity.match_keys import PRIORITIES
from capi_middleware.parity.model import TARGET, EventReport, Health, Report
from capi_middleware.parity.window import parse_window

if TYPE_CHECKING:
    import jinja2

#: What the page's address may say.
_FILTERS = ("from", "to", "event", "pixel")

__all__ = ["login_html", "metrics_text", "parse_window", "to_html", "to_json", "verdict"]


def to_json(report: Report) -> bytes:
    """`report` as the JSON of parity.json."""
    return msgspec.json.encode(report)


def to_html(report: Report, *, path: str, query: str, nonce: str, target: float = TARGET) -> str:
    """`report` as a page that needs no script and no other file.

    Args:
        report: what to show.
        path: where this page is served; the JSON is at the same path with ".json" after it.
        query: the query string that asked for it, for the form and the link to the JSON.
        nonce: of the Content-Security-Policy's style-src, for the one style element.
        target: the share that `report` was built with.
    """
    asked = {key: value for key, value in parse_qsl(query) if key in _FILTERS}

    def link(**changes: str) -> str:
        """This page with other filters."""
        return f"{path}?{urlencode({**asked, **changes})}"

    return _page(
        "parity.html.jinja",
        report=report,
        verdicts=[verdict(event, target) for event in report.events],
        target=target,
        goal=goal(target),
        priorities=PRIORITIES,
        event=asked.get("event", ""),
        pixel=asked.get("pixel", ""),
        path=path,
        link=link,
        json_url=f"{path}.json?{urlencode(asked)}",
        csv_url=f"{path}.csv?{urlencode(asked)}",
        meta_trends=trends(report.insights) if report.insights else [],
        nonce=nonce,
    )


def login_html(action: str, error: str = "", *, nonce: str = "") -> str:
    """The page that asks for the report_token and posts it to `action` as `token`.

    `error` is a sentence to show above the form. `nonce` as in `to_html`; without one the page
    has no style.
    """
    return _page("login.html.jinja", action=action, error=error, nonce=nonce)


def verdict(event: EventReport, target: float = TARGET) -> tuple[str, str]:
    """A word ("on target", "below target" or "no data") and a sentence about one event."""
    if event.coverage is not None:
        return (
            "on target" if event.coverage >= target else "below target",
            f"{event.matched:,} of {event.browser:,} browser events are covered by the server "
            f"({percent(event.coverage)}, target {goal(target)})",
        )
    return "no data", (
        f"{event.server:,} server events and 0 browser events, so there is no coverage to tell"
    )


@cache
def _environment() -> "jinja2.Environment":
    # Imported only now: most processes never show the report.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("capi_middleware.parity"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {"percent": percent, "n": "{:,}".format, "runs": _runs}
    return environment


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """The stretches of `values` without a gap, each value with its place."""
    runs: list[list[tuple[int, float]]] = [[]]
    for at, value in enumerate(values):
        if value is not None:
            runs[-1].append((at, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _page(template: str, **values: object) -> str:
    return _environment().get_template(template).render(values)


def metrics_text(report: Report) -> str:
    """`report` in Prometheus' text format 0.0.4.

    All are gauges: events leave the window again, so that nothing here only grows.
    """
    start, end = (
        datetime.fromisoformat(moment).timestamp()
        for moment in (report.window.start, report.window.end)
    )
    within = "in the window of capi_window_seconds."
    labels = [{"event_name": e.event_name, "pixel_id": e.pixel_id} for e in report.events]
    events = list(zip(report.events, labels, strict=True))
    copies = [
        ({**of, "copy": copy}, n)
        for e, of in events
        for copy, n in (("server", e.server), ("browser", e.browser), ("matched", e.matched))
    ]
    missing = [
        ({**of, "side": side, "cause": cause}, n)
        for e, of in events
        for side, causes in (("browser", e.missing_browser), ("server", e.missing_server))
        for cause, n in causes.items()
    ]
    suppressed = [
        ({**of, "reason": reason}, n) for e, of in events for reason, n in e.suppressed.items()
    ]
    pending = [(of, e.pending) for e, of in events]
    return "".join(
        (
            _gauge("capi_window_seconds", "Length of the report's window.", [({}, end - start)]),
            _gauge("capi_window_end_timestamp_seconds", "End of the window.", [({}, end)]),
            _gauge("capi_window_events", f"Events by copy, {within}", copies),
            _gauge("capi_window_missing_events", f"Copies missing, by cause, {within}", missing),
            _gauge("capi_window_suppressed_events", f"Events never made, {within}", suppressed),
            _gauge("capi_window_pending_events", f"Server copies waiting, {within}", pending),
            *_health(report.health),
        )
    )


def _health(health: Health | None) -> Iterable[str]:
    if health is None:
        return
    rows = [({"state": state}, n) for state, n in health.outbox.items()]
    yield _gauge("capi_outbox_rows", "Rows in the store by state of the server copy.", rows)
    pixels = [({"pixel_id": one.pixel_id}, one) for one in health.pixels]
    waiting = [(of, one.waiting) for of, one in pixels]
    yield _gauge("capi_outbox_waiting_events", "Server copies that wait for delivery.", waiting)
    oldest = [(of, one.oldest_seconds) for of, one in pixels]
    yield _gauge("capi_outbox_oldest_seconds", "Age of the oldest that waits.", oldest)
    paused = [(of, int(one.paused_until is not None)) for of, one in pixels]
    yield _gauge("capi_pixel_paused", "1 while Meta lets the pixel rest.", paused)
    yield _gauge(
        "capi_delivering", "0 when a delivery thread ended.", [({}, int(health.delivering))]
    )


def _gauge(name: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> str:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
    for labels, value in samples:
        shown = ",".join(f'{label}="{_label(word)}"' for label, word in labels.items())
        lines.append(f"{name}{{{shown}}} {value}" if shown else f"{name} {value}")
    return "\n".join(lines) + "\n"


def _label(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
