"""The sentences about Meta's numbers: each is told of something, and none is told unfilled."""

import re
from typing import Any

import pytest

from capi_middleware.insights.comparing import CASES, beside
from capi_middleware.insights.model import DedupeKey, EventQuality, HourCount, KeyFeedback
from capi_middleware.insights.model import PixelInsights as Seen
from capi_middleware.insights.reading import PROBLEMS, Untold
from capi_middleware.report.window import Window
from capi_middleware.store.records import Freshness
from tests.support.insights import insights_of
from tests.support.tallies import END, START, report_on, tally

HOUR = "2026-06-02T10:00:00Z"
#: What Meta says of an event of which the server sent 90 and the browser 100 copies.
QUALITIES: list[dict[str, Any]] = [
    {"coverage": 0.9, "upload_frequency": "real_time", "match_quality": 9.0,
     "dedupe_keys": [DedupeKey("event_id", 1.0, 1.0, 1.0)],
     "match_keys": [KeyFeedback("email", 1.0, None)]},
    {"coverage": 0.2, "upload_frequency": "daily", "match_quality": 2.0,
     "dedupe_keys": [DedupeKey("event_id", 0.2, 1.0, 1.0)],
     "match_keys": [KeyFeedback("email", 0.2, 0.1)]},
    {"coverage": 1.1, "match_quality": 2.0, "dedupe_keys": [DedupeKey("event_id", 1.0, 0.2, 1.0)]},
]  # fmt: skip
COUNTS = [(100, 100), (100, 20), (20, 100), (1, 2)]


def told() -> list[tuple[str, str, str]]:
    many = report_on(
        tally("delivered", "sent", 90, keys=("em",)), tally("unmapped", "sent", 10),
        freshness=(Freshness("123", "Purchase", 1.5, 90),),
    )  # fmt: skip
    few = report_on(tally("delivered", "sent", 3))
    seen = [Seen(pixel_id="123", quality=[EventQuality(event_name="Purchase", **one)])
            for one in QUALITIES]  # fmt: skip
    for ours, metas in COUNTS:
        hour = HourCount(hour=HOUR, event_name="Purchase", our_browser=ours, meta_browser=metas,
                         our_server=ours, meta_server=metas)  # fmt: skip
        seen.append(Seen(pixel_id="123", hours=[hour]))
    return [
        (one.measure, one.explanation, one.fix)
        for report in (many, few)
        for pixel in seen
        for one in beside(report, insights_of(pixel), Window(START, END))
    ]


def test_every_sentence_is_told_of_some_numbers() -> None:
    shown = told()
    for measure, cases in CASES.items():
        for case, one in cases.items():
            forms = [
                re.sub(r"\\{.*?\\}", ".+", re.escape(text)) for text in (one.explanation, one.fix)
            ]
            assert any(
                measure == found[0] and all(map(re.fullmatch, forms, found[1:])) for found in shown
            ), (measure, case)
    assert not [one for one in shown if re.search("[{}]", one[1] + one[2])]


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_says_why_and_what_to_do(name: str) -> None:
    words = {"code": "190", "meaning": "It means this", "todo": "Do this.", "what": "it rained"}
    found = Untold(name, **words).problem
    assert found.explanation.endswith(".")
    assert found.fix.endswith(".")
    assert not re.search("[{}]", found.explanation + found.fix)
