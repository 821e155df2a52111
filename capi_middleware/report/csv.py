"""The numbers of the report as a table: CSV for spreadsheets."""

import csv
import io

from capi_middleware.report.causes import CAUSES
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
    causes = _causes(report.events)
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


def _causes(events: list[EventReport]) -> list[tuple[str, str]]:
    """(part of the report, cause): the known ones in their order, and what else occurs."""
    known = {f"missing_{side}": list(causes) for side, causes in CAUSES.items()}
    return [
        (part, cause)
        for part in (*known, "suppressed")
        for cause in dict.fromkeys(
            [*known.get(part, ()), *(word for event in events for word in getattr(event, part))]
        )
    ]


def _text(value: str) -> str:
    """A spreadsheet takes what begins like this for a formula."""
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
