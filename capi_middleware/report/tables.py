"""Tables: every table of the report as rows of plain values, for CSV and JSON. Pure."""

from collections.abc import Callable, Iterable, Mapping

from msgspec.structs import asdict

from capi_middleware.report.model import EventReport, Glance, Report
from capi_middleware.report.window import WindowError

Row = Mapping[str, object]


def rows_of(report: Report, table: str) -> list[Row]:
    """The rows of a table of TABLES, each with the columns that it has.

    Raises WindowError for another name.
    """
    if table not in TABLES:
        known = ", ".join(TABLES)
        raise WindowError(f"table: found {table[:40]!r}, expected one of {known}")
    return list(TABLES[table](report))


def _place(event: EventReport) -> dict[str, object]:
    return {"event_name": event.event_name, "pixel_id": event.pixel_id}


def _outcomes(found: Glance | None) -> Iterable[Row]:
    for one in found.outcomes if found else ():
        yield {name: value for name, value in asdict(one).items() if name != "money"}


def _money(report: Report) -> Iterable[Row]:
    for event in report.events:
        for one in event.money:
            yield {**_place(event), **asdict(one)}


def _trends(report: Report) -> Iterable[Row]:
    for one in report.trends:
        for part in one.parts:
            yield {"event_name": one.event_name, "pixel_id": one.pixel_id, "step": one.step,
                   **asdict(part)}  # fmt: skip


def _breakdowns(report: Report) -> Iterable[Row]:
    return ({"by": one.by, **asdict(part)} for one in report.breakdowns for part in one.parts)


def _match_keys(report: Report) -> Iterable[Row]:
    for event in report.events:
        for origin, shares in asdict(event.match_keys_by_origin).items():
            for key, share in shares.keys.items():
                yield {**_place(event), "origin": origin, "key": key, "share": share,
                       "events": shares.events}  # fmt: skip


def _freshness(report: Report) -> Iterable[Row]:
    return ({**_place(one), **asdict(one.freshness_seconds)} for one in report.events)


def _deduplication(report: Report) -> Iterable[Row]:
    names = ("matched", "without_event_id", "differing", "repeated", "unsigned")
    for event in report.events:
        yield {**_place(event), **{name: getattr(event, name) for name in names}}


def _funnels(report: Report) -> Iterable[Row]:
    for one in report.funnels:
        yield from ({"pixel_id": one.pixel_id, **asdict(step)} for step in one.steps)


def _causes(report: Report) -> Iterable[Row]:
    for one in report.cards:
        for place in one.about or (None,):
            yield {"cause": one.cause, "severity": one.severity, "title": one.title,
                   "plain": one.plain, "event_name": place.event_name if place else "",
                   "pixel_id": place.pixel_id if place else "",
                   "since": one.since, "last_seen": one.last_seen,
                   "resolved": one.resolved}  # fmt: skip


def _consent(report: Report) -> Iterable[Row]:
    return (
        {"rule": rule, "answer": answer, "pages": n}
        for rule, answers in report.consent.items()
        for answer, n in answers.items()
    )


def _delivery(report: Report) -> Iterable[Row]:
    return map(asdict, report.health.pixels if report.health else ())


#: Each table of the page, by the name that ?table= asks for.
TABLES: dict[str, Callable[[Report], Iterable[Row]]] = {
    "now": lambda report: _outcomes(report.now),
    "before": lambda report: _outcomes(report.before),
    "money": _money,
    "causes": _causes,
    "trends": _trends,
    "marks": lambda report: map(asdict, report.marks),
    "funnels": _funnels,
    "breakdowns": _breakdowns,
    "match_keys": _match_keys,
    "match_key_advice": lambda report: map(asdict, report.match_key_advice),
    "freshness": _freshness,
    "deduplication": _deduplication,
    "consent": _consent,
    "comparisons": lambda report: map(asdict, report.comparisons),
    "delivery": _delivery,
}
