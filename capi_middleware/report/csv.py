"""The numbers of the report as a table: CSV for spreadsheets."""

import csv
import io
import re
from itertools import chain

from capi_middleware.report.causes import CAUSES
from capi_middleware.report.model import SIDES, EventReport, Report
from capi_middleware.report.tables import rows_of

_COUNTS = (
    "server", "browser", "matched", "server_only", "browser_only", "coverage", "ratio", "pending",
    "repeated", "differing", "unsigned", "unpaired",
)  # fmt: skip


_FORMULA = re.compile(r"(?:^|(?<=[;,|\t\r\n]))(?=[=+\-@\t\r])")


def to_csv(report: Report, table: str = "") -> str:
    """One line for each event name and pixel, one column for each cause (RFC 4180).

    Or one `table` of tables.py. An empty field is a share that has no denominator.
    """
    text = io.StringIO()
    rows = csv.writer(text)
    if table:
        found = rows_of(report, table)
        columns = list(dict.fromkeys(chain.from_iterable(found)))
        rows.writerow(columns)
        rows.writerows([_cell(one.get(column)) for column in columns] for one in found)
        return text.getvalue()
    causes = _causes(report.events)
    rows.writerow(
        ["from", "to", "event_name", "pixel_id", *_COUNTS, "freshness_p50_seconds",
         "freshness_p95_seconds", *(f"{part}: {cause}" for part, cause in causes)]
    )  # fmt: skip
    for one in report.events:
        fresh = one.freshness_seconds
        rows.writerow(
            [report.window.start, report.window.end, _text(one.event_name), _text(one.pixel_id),
             *(getattr(one, name) for name in _COUNTS), fresh.p50, fresh.p95,
             *(getattr(one, part).get(cause, 0) for part, cause in causes)]
        )  # fmt: skip
    return text.getvalue()


def _causes(events: list[EventReport]) -> list[tuple[str, str]]:
    """(part of the report, cause): the known ones in their order, and what else occurs."""
    known = {f"missing_{side}": CAUSES[side] for side in SIDES} | {"suppressed": {}}
    return [
        (part, cause)
        for part, causes in known.items()
        for cause in dict.fromkeys(chain(causes, *(getattr(event, part) for event in events)))
    ]


def _cell(value: object) -> object:
    return _text(value) if isinstance(value, str) else value


def _text(value: str) -> str:
    """A spreadsheet takes what begins so for a formula, after its own separator as well."""
    return _FORMULA.sub("'", value)
