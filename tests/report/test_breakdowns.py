from capi_middleware.report.breakdowns import MOST_PARTS, OTHER, breakdowns, trends
from capi_middleware.report.html import to_html
from capi_middleware.report.model import Part
from capi_middleware.report.read import build
from capi_middleware.report.window import Window
from capi_middleware.store.records import Slice, Tallies
from tests.support.tallies import END, START, report_on, tally

HOUR = 3600


def part(value: str, server: int, browser: int, matched: int) -> tuple[str, int, int, int]:
    return value, server, browser, matched


def plain(parts: list[Part]) -> list[tuple[str, int, int, int]]:
    return [(one.value, one.server, one.browser, one.matched) for one in parts]


def cut(value: str, server: str, browser: str, n: int, name: str = "Purchase") -> Slice:
    return Slice(value, "123", name, server, browser, n)


def test_a_breakdown_counts_delivered_sent_and_both() -> None:
    slices = [
        cut("Chrome", "delivered", "sent", 5),
        cut("Chrome", "delivered", "csp", 2),
        cut("Chrome", "unmapped", "sent", 1),
        cut("Safari", "dead", "csp", 9),
    ]
    (found,) = breakdowns([], {"agent": slices})
    assert found.by == "agent"
    assert plain(found.parts) == [part("Chrome", 7, 6, 5)]
    assert (found.parts[0].coverage, found.parts[0].ratio) == (0.833, 1.167)


def test_a_country_or_a_host_alone_is_no_breakdown() -> None:
    one, two = cut("DE", "delivered", "sent", 5), cut("AT", "delivered", "sent", 5)
    assert breakdowns([], {"country": [one], "host": [one]}) == []
    (found,) = breakdowns([], {"country": [one, two], "host": [one]})
    assert found.by == "country"
    assert plain(found.parts) == [part("AT", 5, 5, 5), part("DE", 5, 5, 5)]


def test_a_breakdown_names_the_part_that_is_covered_worst() -> None:
    slices = [
        cut("phone", "delivered", "sent", 90),
        cut("phone", "unmapped", "sent", 10),
        cut("computer", "delivered", "sent", 10),
        cut("computer", "unmapped", "sent", 60),
        cut("tablet", "unmapped", "sent", 2),  # too few to tell
    ]
    (found,) = breakdowns([], {"device": slices})
    assert found.lowest == "computer"
    (found,) = breakdowns([], {"device": slices[:2]})
    assert found.lowest is None


def test_the_page_names_the_country_that_is_covered_worst() -> None:
    slices = [
        cut("AT", "delivered", "sent", 90),
        cut("DE", "delivered", "sent", 10),
        cut("DE", "unmapped", "sent", 60),
    ]
    rows = [tally("delivered", "sent", 100), tally("unmapped", "sent", 60)]
    report = build(Tallies(rows, (), ()), Window(START, END), slices={"country": slices})
    page = " ".join(to_html(report, path="/_capi/parity", query="", nonce="n").split())
    assert "By country: lowest for <bdi>DE</bdi>, 10 of 70</summary>" in page


def test_a_part_without_browser_events_has_no_coverage() -> None:
    (found,) = breakdowns([], {"route": [cut("POST /hook", "delivered", "not_rendered", 3)]})
    assert (found.parts[0].coverage, found.parts[0].ratio) == (None, None)


def test_the_busiest_parts_are_shown_and_the_rest_is_summed_up() -> None:
    slices = [cut(f"/{n:02}", "delivered", "sent", 100 - n) for n in range(MOST_PARTS + 3)]
    (found,) = breakdowns([], {"page": slices})
    assert len(found.parts) == MOST_PARTS + 1
    assert found.parts[0].value == "/00"
    rest = sum(100 - n for n in range(MOST_PARTS, MOST_PARTS + 3))
    assert plain(found.parts)[-1] == part(OTHER, rest, rest, rest)


def test_the_parts_by_pixel_add_up_to_the_events() -> None:
    report = report_on(
        tally("delivered", "sent", 3, pixel="1"),
        tally("delivered", "csp", 2, pixel="1", name="Lead"),
        tally("unmapped", "sent", 4, pixel="2"),
    )
    (by_pixel,) = report.breakdowns
    assert sorted(plain(by_pixel.parts)) == [part("1", 5, 3, 3), part("2", 0, 4, 0)]


def test_a_short_window_is_shown_by_hour_without_gaps() -> None:
    slices = [
        cut(str(10 * HOUR), "delivered", "sent", 2),
        cut(str(12 * HOUR), "unmapped", "sent", 1),
    ]
    (trend,) = trends(slices, start=9 * HOUR, end=13 * HOUR)
    assert trend.step == "hour"
    assert [one.value for one in trend.parts] == [
        "1970-01-01T09:00:00Z", "1970-01-01T10:00:00Z", "1970-01-01T11:00:00Z",
        "1970-01-01T12:00:00Z",
    ]  # fmt: skip
    assert [(one.server, one.browser, one.coverage) for one in trend.parts] == [
        (0, 0, None), (2, 2, 1.0), (0, 0, None), (0, 1, 0.0),
    ]  # fmt: skip


def test_a_long_window_is_shown_by_day_and_nothing_outside_of_it_counts() -> None:
    slices = [
        cut(str(23 * HOUR), "delivered", "sent", 7),  # the hour before the window
        cut(str(24 * HOUR), "delivered", "sent", 1),
        cut(str(47 * HOUR), "delivered", "sent", 2),
        cut(str(96 * HOUR), "delivered", "sent", 9),  # the hour after it
    ]
    (trend,) = trends(slices, start=24 * HOUR, end=96 * HOUR)
    assert trend.step == "day"
    assert [one.server for one in trend.parts] == [3, 0, 0]


def test_a_site_that_began_yesterday_sees_its_hours() -> None:
    slices = [cut(str(140 * HOUR), "delivered", "sent", 7)]
    (trend,) = trends(slices, start=0, end=168 * HOUR)
    assert (trend.step, len(trend.parts)) == ("hour", 28)
    assert trend.parts[0].value == "1970-01-06T20:00:00Z"
