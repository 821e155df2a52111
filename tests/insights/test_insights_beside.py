"""Our numbers beside Meta's: what agrees, what differs, why, and what to do."""

from typing import Any

import pytest

from capi_middleware.insights.comparing import beside
from capi_middleware.insights.model import (
    Comparison,
    DedupeKey,
    EventQuality,
    HourCount,
    KeyFeedback,
    PixelInsights,
    Problem,
)
from capi_middleware.insights.reading import counts_of, quality_of, recommendations_of
from capi_middleware.meta.match_keys import MATCH_KEYS
from capi_middleware.report.window import Window
from capi_middleware.store.records import Freshness
from tests.support.insights import insights_of
from tests.support.tallies import END, START, report_on, tally

WINDOW = Window(START, END)
HOUR = "2026-06-02T10:00:00Z"
PURCHASES = (tally("delivered", "sent", 90, keys=("em",)), tally("unmapped", "sent", 10))


def compared(
    *, hours: list[HourCount] | None = None, quality: dict[str, Any] | None = None
) -> dict[str, Comparison]:
    pixel = PixelInsights(
        pixel_id="123",
        hours=hours or [],
        quality=[EventQuality(event_name="Purchase", **quality)] if quality is not None else [],
    )
    report = report_on(*PURCHASES, freshness=(Freshness("123", "Purchase", 1.5, 90),))
    found = beside(report, insights_of(pixel), WINDOW)
    assert len({one.measure for one in found}) == len(found)
    return {one.measure: one for one in found}


def counted(**counts: int) -> HourCount:
    return HourCount(hour=HOUR, event_name="Purchase", **counts)


def test_counts_of_the_same_hours_that_are_close_agree() -> None:
    found = compared(hours=[counted(our_browser=100, meta_browser=96, our_server=90,
                                    meta_server=90)])  # fmt: skip
    assert [(one.verdict, one.ours, one.metas) for one in found.values()] == [
        ("agrees", 100, 96),
        ("agrees", 90, 90),
    ]
    assert found["browser events"].fix == ""


def test_fewer_browser_events_at_meta_are_explained_with_a_fix() -> None:
    found = compared(hours=[counted(our_browser=1000, meta_browser=600)])["browser events"]
    assert found.verdict == "differs"
    assert found.explanation.startswith(
        "Meta counts 40 % fewer browser events than we saw sent in the same 1 hour (600 to 1,000): "
    )
    assert "traffic permission" in found.explanation
    assert "Traffic permissions" in found.fix


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({"our_browser": 100, "meta_browser": 300}, "Meta counts 200 % more browser events"),
        ({"our_server": 1000, "meta_server": 500}, "Meta counts 50 % fewer server events"),
        ({"our_server": 0, "meta_server": 500}, "Meta counts 500 more server events"),
        ({"our_server": 500, "meta_server": 0}, "Meta counts 100 % fewer server events"),
    ],
)
def test_every_difference_of_counts_has_a_cause_and_a_fix(
    counts: dict[str, int], text: str
) -> None:
    (found,) = compared(hours=[counted(**counts)]).values()
    assert found.explanation.startswith(text)
    assert found.verdict == "differs"
    assert found.fix


def test_few_events_tell_nothing() -> None:
    (found,) = compared(hours=[counted(our_browser=20, meta_browser=2)]).values()
    assert found.verdict == "unknown"
    assert found.fix == ""


def test_only_hours_within_the_window_count() -> None:
    outside = HourCount(hour="2026-06-08T00:00:00Z", event_name="Purchase", meta_browser=500)
    before = HourCount(hour="2026-05-31T23:00:00Z", event_name="Purchase", meta_browser=500)
    found = compared(hours=[outside, before, counted(our_browser=50, meta_browser=50)])
    assert found["browser events"].metas == 50


def test_an_event_that_meta_alone_knows_is_shown() -> None:
    lead = HourCount(hour=HOUR, event_name="Lead", meta_server=70)
    report = report_on(*PURCHASES)
    found = beside(report, insights_of(PixelInsights(pixel_id="123", hours=[lead])), WINDOW)
    assert [(one.event_name, one.ours, one.metas) for one in found] == [("Lead", 0, 70)]
    other = insights_of(PixelInsights(pixel_id="9", hours=[lead]))
    assert beside(report, other, Window(START, END, pixel="123")) == []
    assert beside(report, other, Window(START, END, event="X")) == []


@pytest.mark.parametrize(
    ("metas", "verdict", "text"),
    [
        (0.88, "agrees", "88.0 %, at or above its goal of 75.0 %"),
        (0.3, "differs", "without our event_id"),
        (1.0, "agrees", "ours in this window is 90.0 %"),
    ],
)
def test_coverage_is_compared(metas: float, verdict: str, text: str) -> None:
    found = compared(quality={"coverage": metas, "coverage_goal": 0.75})["coverage"]
    assert (found.verdict, found.ours, found.metas) == (verdict, 0.9, metas)
    assert text in found.explanation
    assert bool(found.fix) is (verdict == "differs")


@pytest.mark.parametrize(
    ("told", "verdict"), [("real_time", "agrees"), ("REAL_TIME", "agrees"), ("daily", "differs")]
)
def test_freshness_is_compared(told: str, verdict: str) -> None:
    found = compared(quality={"upload_frequency": told})["freshness"]
    assert (found.verdict, found.ours, found.told) == (verdict, 1.5, told)


def test_browser_events_without_an_event_id_are_named() -> None:
    keys = [DedupeKey("fbp", 1.0, 1.0, 1.0), DedupeKey("event_id", 0.4, 1.0, 0.4)]
    found = compared(quality={"dedupe_keys": keys})["dedupe key"]
    assert (found.verdict, found.metas) == ("differs", 0.4)
    assert "browser events that are not ours" in found.explanation
    agreeing = compared(quality={"dedupe_keys": [DedupeKey("event_id", 1.0, 1.0, 1.0)]})
    assert agreeing["dedupe key"].verdict == "agrees"


def test_a_low_match_quality_names_the_key_worth_most() -> None:
    keys = [KeyFeedback("email", 1.0, None), KeyFeedback("phone", 0.0, 0.09)]
    found = compared(quality={"match_quality": 4.2, "match_keys": keys})
    assert (found["match quality"].verdict, found["match quality"].ours) == ("low", None)
    assert "Send phone" in found["match quality"].fix
    assert "9.0 %" in found["match quality"].fix
    assert found["match keys"].verdict == "agrees"
    better = compared(quality={"match_quality": 8.0})["match quality"]
    assert (better.verdict, better.fix) == ("good", "")


def test_match_keys_are_compared_by_meta_s_words_for_them() -> None:
    found = compared(quality={"match_keys": [KeyFeedback("email", 0.3, None)]})["match keys"]
    assert (found.verdict, found.ours, found.metas) == ("differs", 1.0, 0.3)
    assert "em in 30.0 %" in found.explanation
    assert "em" in MATCH_KEYS


def test_a_pixel_of_which_meta_told_nothing_is_left_out() -> None:
    problem = Problem("no_permission", "x", "y")
    pixel = PixelInsights(pixel_id="123", quality_problem=problem, hours_problem=problem)
    assert beside(report_on(*PURCHASES), insights_of(pixel), WINDOW) == []


@pytest.mark.parametrize(
    "answer",
    [
        {}, {"web": None}, {"web": {}}, {"web": [None, 7, {}, {"event_name": 7}]},
        {"web": [{"event_name": ""}]},
    ],
)  # fmt: skip
def test_an_answer_of_another_kind_is_no_quality(answer: Any) -> None:
    assert [one for one in quality_of(answer) if one.event_name] == []


def test_nonsense_within_an_answer_is_left_out() -> None:
    (found,) = quality_of(
        {"web": [{
            "event_name": "\x1b[31m" + "x" * 99, "event_match_quality": 7,
            "event_coverage": {"percentage": "n"},
            "dedup_key_feedback": [{"dedupe_key": "event_id"}, 3], "acr": {"percentage": "12.5"},
            "data_freshness": {"upload_frequency": None},
        }]}
    )  # fmt: skip
    assert found.event_name == " [31m" + "x" * 45
    assert (found.match_quality, found.coverage, found.acr) == (None, None, 0.125)
    assert [one.key for one in found.dedupe_keys] == ["event_id"]


def test_counts_come_from_hours_in_either_spelling() -> None:
    buckets = [
        {"start_time": "2026-06-02T10:00:00+0000", "data": [{"value": "Lead", "count": 2}]},
        {"start_time": 1780394400, "data": [{"value": "Lead", "count": "3"}, {"count": 1}]},
        {"start_time": "soon", "data": [{"value": "Lead", "count": 9}]},
        {"data": []}, 7,
    ]  # fmt: skip
    assert counts_of(buckets) == {(1780394400, "Lead"): 5}


def test_recommendations_about_signals_come_first_and_links_are_meta_s() -> None:
    def one(kind: str, lift: str, url: str = "") -> dict[str, Any]:
        return {
            "type": kind,
            "url": url,
            "recommendation_content": {"opportunity_score_lift": lift},
        }

    found = recommendations_of(
        [{"recommendations": [
            one("AUTOFLOW", "3", "javascript:alert(1)"),
            one("BUDGET", "20", "https://www.facebook.com.evil.example/"),
            one("CAPI_EVENT_COVERAGE", "1", "https://business.facebook.com/x"),
            one("SIGNALS_GROWTH_CAPI_V2", "nan"),
        ]}, None]
    )  # fmt: skip
    assert [(it.type, it.score_lift, it.url, it.capi) for it in found] == [
        ("SIGNALS_GROWTH_CAPI_V2", None, "", True),
        ("CAPI_EVENT_COVERAGE", 1.0, "https://business.facebook.com/x", True),
        ("BUDGET", 20.0, "", False),
        ("AUTOFLOW", 3.0, "", False),
    ]
