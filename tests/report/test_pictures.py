"""The timeline and the funnel: every shape stands for a number of the report."""

from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from capi_middleware import CAPI
from capi_middleware.report.marks import MOST, marks_of, remember
from capi_middleware.report.model import Mark, Outage, Part, Trend
from capi_middleware.report.pictures import STEPS, funnels, outages, timeline
from capi_middleware.report.window import Window
from capi_middleware.testing import MemoryStore
from tests.support.configs import make_config

DAYS = ["2026-11-20", "2026-11-21", "2026-11-22", "2026-11-23"]


def part(value: str, server: int, browser: int, matched: int) -> Part:
    return Part(value, server, browser, matched, None, None)


def days(*numbers: tuple[int, int, int], **more: Any) -> Trend:
    parts = [part(f"{day}T00:00:00Z", *one) for day, one in zip(DAYS, numbers, strict=False)]
    return Trend(event_name="Purchase", pixel_id="1", step="day", parts=parts, **more)


def drawn(
    trend: Trend,
    now: str = "2026-11-25T00:00:00Z",
    marks: tuple[Mark, ...] = (),
    window: Window | None = None,
) -> Any:
    moment = datetime.fromisoformat(now).timestamp()
    whole = Window(0, moment + 86400) if window is None else window
    return timeline(trend, width=400, height=200, window=whole, now=moment, marks=marks)


def test_the_heights_of_a_column_are_its_numbers_on_the_axis() -> None:
    picture = drawn(days((30, 25, 20), (0, 0, 0), (7, 9, 7)))
    (zero, *_, top) = picture.counts
    unit = (zero.at - top.at) / int(top.text)
    told = [
        {bar.kind: round(bar.height / unit) for bar in column.bars} for column in picture.columns
    ]
    assert told == [{"matched": 20, "server": 10, "browser": 5}, {}, {"matched": 7, "browser": 2}]
    assert all(bar.y >= picture.top - 0.1 for column in picture.columns for bar in column.bars)
    assert picture.columns[0].title == "20 Nov: 20 matched, 10 server only, 5 browser only"


@pytest.mark.parametrize(
    ("most", "labels"),
    [(0, ["0", "1"]), (1, ["0", "1"]), (7, ["0", "2", "4", "6", "8"]),
     (31, ["0", "10", "20", "30", "40"]),
     (4_100_000, ["0", "2,000,000", "4,000,000", "6,000,000"])],
)  # fmt: skip
def test_an_axis_has_a_few_round_numbers(most: int, labels: list[str]) -> None:
    assert [one.text for one in drawn(days((most, most, most))).counts] == labels


def test_what_is_not_over_is_marked_and_said_and_nothing_else_is() -> None:
    picture = drawn(days(*[(1, 1, 1)] * 4), "2026-11-23T10:00:00Z")
    assert [column.partial for column in picture.columns] == [False, False, False, True]
    assert picture.columns[-1].title.endswith("; this day is not over")


def test_a_day_of_which_a_part_is_asked_for_is_marked_and_said() -> None:
    begin, end = (datetime.fromisoformat(f"2026-11-{at}:00:00Z").timestamp()
                  for at in ("20T23", "23T01"))  # fmt: skip
    picture = drawn(days(*[(1, 1, 1)] * 4), window=Window(begin, end))
    assert [column.partial for column in picture.columns] == [True, False, False, True]
    for at in (0, -1):
        assert picture.columns[at].title.endswith("; this day is shown in part")


def test_the_biggest_number_of_an_axis_has_room_beside_the_columns() -> None:
    for most in (7, 41_000, 4_100_000):
        picture = drawn(days((most, most, most)))
        assert picture.left - 6 >= 8 * len(picture.counts[-1].text)


def test_days_and_hours_are_labelled_without_one_label_over_another() -> None:
    hours = [part(f"2026-11-2{h // 24}T{h % 24:02}:00:00Z", 1, 1, 1) for h in range(48)]
    trend = Trend(event_name="Lead", pixel_id="1", step="hour", parts=hours)
    picture = drawn(trend)
    assert [one.text for one in picture.times] == ["20 Nov", "12:00", "21 Nov", "12:00"]
    steps = [b.at - a.at for a, b in zip(picture.times, picture.times[1:], strict=False)]
    assert min(steps) >= 60


def test_marks_stand_at_their_times_and_those_of_other_events_are_left_out() -> None:
    marks = (
        Mark("2026-11-21T12:00:00Z", "release", "v7"),
        Mark("2026-11-22T00:00:00Z", "alert", "sudden drop", "Purchase", "1"),
        Mark("2026-11-22T00:00:00Z", "alert", "sudden drop", "Lead", "1"),
        Mark("2026-11-19T00:00:00Z", "release", "v6"),
    )
    picture = drawn(days(*[(1, 1, 1)] * 4), marks=marks)
    width = picture.right - picture.left
    assert [(one.kind, one.text) for one in picture.marks] == [
        ("release", "Release v7, 2026-11-21 12:00"),
        ("alert", "Alert: sudden drop, 2026-11-22 00:00"),
    ]
    assert [one.at for one in picture.marks] == pytest.approx(
        [picture.left + width * 1.5 / 4, picture.left + width * 2 / 4], abs=0.2
    )


def test_a_time_of_missed_copies_is_a_band_as_long_as_it_lasted() -> None:
    missed = Outage("server", "2026-11-21T00:00:00Z", "2026-11-22T12:00:00Z", 2, 40.0, False)
    picture = drawn(days(*[(1, 1, 1)] * 4, outages=[missed]))
    (band,) = picture.bands
    assert band.width == pytest.approx((picture.right - picture.left) * 1.5 / 4, abs=0.2)
    assert band.text.startswith("2 of about 40 usual server copies came")


def test_copies_that_stopped_are_an_outage_of_their_side_alone() -> None:
    hours = dict.fromkeys(range(1000, 1000 + 24 * 21), 10)
    stopped = {hour: n for hour, n in hours.items() if hour < 1000 + 24 * 21 - 9}
    (one,) = outages({"server": stopped, "browser": hours}, 1000 + 24 * 21)
    assert (one.side, one.found, one.expected, one.lasts) == ("server", 0, 90.0, True)


def test_a_funnel_has_the_steps_of_one_pixel_in_their_order() -> None:
    made: Any = [
        SimpleNamespace(event_name=name, pixel_id=pixel, place=(name, pixel), server=n, browser=n,
                        matched=n)
        for pixel, n, names in (("1", 5, STEPS[::-1]), ("2", 3, ["Purchase", "Lead"]))
        for name in names
    ]  # fmt: skip
    (found,) = funnels(made)
    assert (found.pixel_id, [one.event_name for one in found.steps]) == ("1", list(STEPS))


def test_a_release_is_remembered_when_it_is_first_seen_and_alerts_each_time() -> None:
    store = MemoryStore()
    remember(store, Mark("2026-11-20T00:00:00Z", "release", "v1"))
    remember(store, Mark("2026-11-21T00:00:00Z", "release", "v1"))
    for day in DAYS[2:]:
        remember(store, Mark(f"{day}T00:00:00Z", "alert", "sudden drop"))
    assert [(one.at[:10], one.kind) for one in marks_of(store)] == [
        ("2026-11-20", "release"), ("2026-11-22", "alert"), ("2026-11-23", "alert")
    ]  # fmt: skip


def test_many_alerts_do_not_take_the_place_of_releases() -> None:
    store = MemoryStore()
    remember(store, Mark("2026-11-20T00:00:00Z", "release", "v1"))
    remember(store, *[Mark(f"2026-11-21T00:00:00.{n:06}Z", "alert", "x") for n in range(MOST + 9)])
    kept = marks_of(store)
    assert (len(kept), kept[0].text) == (MOST + 1, "v1")


@pytest.mark.parametrize("said", ["setting", "environment"])
def test_the_release_of_the_setting_or_the_environment_is_marked(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPI_RELEASE", "v2" if said == "environment" else "other")
    capi = CAPI(make_config(**({"release": "v2"} if said == "setting" else {})))
    capi._mark_release()
    assert [(one.kind, one.text) for one in marks_of(capi.store)] == [("release", "v2")]
    capi.close()
