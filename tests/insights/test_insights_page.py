"""Meta's own view as a part of the page: plain words, every value escaped."""

from typing import Any

import jinja2
from markupsafe import Markup
from msgspec.structs import replace

from capi_middleware.insights.model import (
    Comparison,
    Diagnosis,
    Estimate,
    EventQuality,
    Opportunity,
    PixelInsights,
    Problem,
    Recommendation,
    TrendLine,
)
from capi_middleware.report.numbers import percent
from tests.report.test_report import HOSTILE, Page
from tests.support.insights import insights_of

MACRO = "{% macro trend(points, label) %}<svg aria-label='{{ label }}'></svg>{% endmacro %}"


def section(
    insights: Any, comparisons: Any = (), trends: Any = (), estimates: Any = ()
) -> Page:  # fmt: skip
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.DictLoader({"trend.html.jinja": MACRO}),
             jinja2.PackageLoader("capi_middleware.report")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"percent": percent, "n": "{:,}".format}
    template = environment.get_template("insights.html.jinja")
    given = {"comparisons": comparisons, "trends": trends, "estimates": estimates}
    given["of_pixel"] = Markup("pixel <bdi>{}</bdi>").format  # the page's own macro
    return Page(template.render(insights=insights, **given))


def comparison(text: str, **fields: Any) -> Comparison:
    given: dict[str, Any] = {"measure": "coverage", "ours": 0.9, "metas": 0.31, **fields}
    return Comparison(
        event_name=text, pixel_id=text, verdict="differs", explanation=text, fix=text, **given
    )


def test_nothing_asked_yet_says_how_to_ask() -> None:
    assert "Meta has not been asked yet" in section(None).text


def test_a_missing_permission_is_a_plain_sentence_with_what_to_do() -> None:
    pixel = PixelInsights(
        pixel_id="123",
        quality_problem=Problem("no_permission", "The token may not read this.", "Set read_token."),
        hours_problem=Problem("no_data", "Meta counts no event.", "Check the id."),
    )
    text = section(insights_of(pixel)).text
    assert "no permission The token may not read this." in text
    assert "What to do: Set read_token." in text
    assert "no data Meta counts no event." in text


def test_both_numbers_the_difference_and_its_fix_are_shown() -> None:
    found = section(
        insights_of(),
        [
            comparison("Because."),
            comparison("x", measure="browser events", ours=1000.0, metas=600.0),
            comparison("x", measure="freshness", ours=1.5, metas=None, told="real_time"),
        ],
        [
            TrendLine("Opportunity score", [("2026-06-01", 60.0), ("2026-06-02", 62.0)]),
            TrendLine("Coverage", [("2026-06-01", 0.5), ("2026-06-02", 0.75)], share=True),
        ],
    )
    assert "90.0 % 31.0 %" in found.text
    assert "1,000 600" in found.text
    assert "1.5 s real time" in found.text
    assert "Fix: Because." in found.text
    assert "Opportunity score : 60.0 → 62.0" in found.text
    assert "Coverage : 50.0 % → 75.0 %" in found.text
    assert [one["aria-label"] for one in found.all("svg")] == ["Opportunity score", "Coverage"]


def test_every_value_is_escaped() -> None:
    for text in HOSTILE:
        quality = EventQuality(
            event_name=text, acr=0.1, acr_explanation=text,
            diagnostics=[Diagnosis(text, text, text, None)],
        )  # fmt: skip
        problem = Problem("failed", text, text)
        recommendation = Recommendation(type=text, body=text, lift_estimate=text, capi=True)
        found = section(
            insights_of(
                PixelInsights(pixel_id=text, quality=[quality], quality_problem=problem),
                opportunity=Opportunity(
                    account=text, score=5.0, recommendations=[recommendation], problem=problem
                ),
            ),
            [comparison(text, told=text)],
            [TrendLine(text, [("2026-06-01", 1.0), ("2026-06-02", 1.0)])],
        )
        assert text in found.text
        assert not found.all("script")
        assert not found.all("img")
        assert not [name for _, given in found.tags for name in given if name.startswith("on")]


def test_numbers_that_agree_are_one_line_with_the_table_behind_it() -> None:
    lead = comparison("Lead")
    agreeing = [replace(comparison(f"Event{n}"), verdict="agrees", fix="") for n in range(5)]
    page = section(insights_of(), [lead, *agreeing])
    before, _, behind = page.text.partition("5 of 6 numbers agree or are good")
    assert "Lead" in before
    assert "Event0" not in before
    assert all(f"Event{n}" in behind for n in range(5))
    assert len(page.all("details")) == 1


def test_what_a_phone_number_would_bring_is_an_interval_or_not_enough_history() -> None:
    known = Estimate(event_name="Purchase", pixel_id="1", key="phone", share=0.38, score=6.1,
                     days=20, gain=1.9, low=1.2, high=2.6)  # fmt: skip
    unknown = replace(known, event_name="Lead", days=9, gain=None, low=None, high=None)
    text = section(insights_of(), estimates=[known, unknown]).text
    assert "the score may change by +1.9 (+1.2 to +2.6), by 20 days" in text
    assert "Not enough history" in text
