"""The numbers of the report as a table: CSV for spreadsheets."""

import csv
import io

from capi_middleware.events import BROWSER_CAUSES, SERVER_CAUSES
from capi_middleware.report.model import EventReport, Report

_COUNTS = (
    "server", "browser", "matched", "server_only", "browser_only", "coverage", "ratio", "pending",
    "repeated", "differing",
)  # fmt: skip


def to_csv(report: Report) -> str:
    """One line for each event name and pixel, one column for each cause (RFC 4180).

    An empty field is a share that has no denominator.
    """
    text = io.StringIO()
    rows = csv.writer(text)
    causes = [(side, cause) for side, known in _causes(report.events) for cause in known]
    rows.writerow(
        [
            "from", "to", "event_name", "pixel_id", *_COUNTS,
            "freshness_p50_seconds", "freshness_p95_seconds",
            *(f"{side}: {cause}" for side, cause in causes),
        ]
    )  # fmt: skip
    for event in report.events:
        rows.writerow(
            [
                report.window.start,
                report.window.end,
                _text(event.event_name),
                _text(event.pixel_id),
                *(getattr(event, name) for name in _COUNTS),
                event.freshness_seconds.p50,
                event.freshness_seconds.p95,
                *(getattr(event, side).get(cause, 0) for side, cause in causes),
            ]
        )
    return text.getvalue()


def _causes(events: list[EventReport]) -> list[tuple[str, list[str]]]:
    """The known causes in their order, and what else occurs."""
    known = {
        "missing_browser": BROWSER_CAUSES, "missing_server": SERVER_CAUSES, "suppressed": ()
    }  # fmt: skip
    return [
        (side, list(dict.fromkeys([*first, *(one for e in events for one in getattr(e, side))])))
        for side, first in known.items()
    ]


def _text(value: str) -> str:
    """A spreadsheet takes what begins like this for a formula."""
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
