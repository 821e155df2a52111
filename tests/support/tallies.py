"""Tallies as a store would give them, and the report on them."""

from capi_middleware.events import Count
from capi_middleware.meta.match_keys import BITS
from capi_middleware.report.model import EventReport, Flag, Health, Report
from capi_middleware.report.read import build
from capi_middleware.report.window import Window
from capi_middleware.store.records import Freshness, Tallies, Tally

START, END = 1_780_272_000.0, 1_780_876_800.0  # 2026-06-01 to 2026-06-08, UTC


def tally(
    server: str,
    browser: str,
    n: int = 1,
    *,
    name: str = "Purchase",
    pixel: str = "123",
    keys: tuple[str, ...] = (),
) -> Tally:
    return Tally(pixel, name, server, browser, sum(BITS[key] for key in keys), n)


def report_on(
    *rows: Tally,
    freshness: tuple[Freshness, ...] = (),
    counts: tuple[Count, ...] = (),
    event: str | None = None,
    pixel: str | None = None,
    health: Health | None = None,
) -> Report:
    tallies = Tallies(rows, freshness, counts)
    return build(tallies, Window(START, END, event, pixel), health=health)


def numbers(
    *rows: Tally, freshness: tuple[Freshness, ...] = (), counts: tuple[Count, ...] = ()
) -> EventReport:
    (event,) = report_on(*rows, freshness=freshness, counts=counts).events
    return event


def flags(*rows: Tally, counts: tuple[Count, ...] = ()) -> dict[str, Flag]:
    found = report_on(*rows, counts=counts).flags
    assert len({flag.code for flag in found}) == len(found)
    return {flag.code: flag for flag in found}
