"""Every table of the report by itself, as CSV and as JSON."""

import csv
import io

import msgspec
import pytest

from capi_middleware.events import Count
from capi_middleware.report.csv import to_csv
from capi_middleware.report.html import to_html, to_json
from capi_middleware.report.tables import TABLES, rows_of
from capi_middleware.report.window import WindowError
from capi_middleware.store.records import Freshness
from tests.report.test_glance import now, read, some_rows
from tests.support.tallies import report_on, tally

__all__ = ["now"]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_the_same_as_csv_and_as_json(table: str, now: float) -> None:
    report = read(now, *some_rows(now, 300, 5))
    rows = msgspec.json.decode(to_json(report, table))
    found = list(csv.DictReader(io.StringIO(to_csv(report, table))))
    assert len(found) == len(rows)
    assert bool(rows) or table in ("marks", "consent", "comparisons")
    for one, row in zip(found, rows, strict=True):
        assert one == {name: "" if row.get(name) is None else str(row[name]) for name in one}


def test_the_table_of_causes_says_since_when(now: float) -> None:
    report = read(now, *some_rows(now, 300, 6))
    told = {row["cause"]: (row["since"], row["resolved"]) for row in rows_of(report, "causes")}
    assert told == {one.cause: (one.since, one.resolved) for one in report.cards}
    assert any(since for since, _ in told.values())


def test_the_money_of_a_table_is_that_of_the_events(now: float) -> None:
    report = read(now, *some_rows(now, 300, 6))
    told = [row["both"] for row in rows_of(report, "money")]
    assert told == [one.both for event in report.events for one in event.money]
    assert any(told)


def test_a_text_of_a_visitor_is_no_formula_in_any_table() -> None:
    report = report_on(tally("delivered", "sent", 9, name="=1+1"),
                       freshness=(Freshness("123", "=1+1", 0.4, 9),),
                       counts=(Count("consent", "=rule granted"),))  # fmt: skip
    for table in TABLES:
        assert "\n=" not in to_csv(report, table).replace("\r", "")
        assert ",=" not in to_csv(report, table)


def test_another_table_is_named_with_those_that_there_are() -> None:
    with pytest.raises(WindowError, match="table: found 'x', expected one of now, before, money"):
        rows_of(report_on(), "x")


def test_the_page_leads_to_each_table() -> None:
    page = to_html(report_on(tally("delivered", "sent", 9)), path="/p", query="days=28", nonce="n")
    for table in TABLES:
        for form in ("csv", "json"):
            assert f'href="/p.{form}?days=28&amp;table={table}"' in page
