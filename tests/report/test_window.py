import pytest

from capi_middleware.errors import CapiError
from capi_middleware.report.window import Window, WindowError, parse_window
from tests.support.tallies import END, START

DAY = 86400


@pytest.mark.parametrize("now", [END - 3600, END - 1800, END - 0.4])
def test_the_default_is_7_days_to_the_end_of_the_present_hour(now: float) -> None:
    assert parse_window({}, now) == Window(START, END, None, None)


@pytest.mark.parametrize(
    "text",
    [
        "2026-06-01",
        "2026-06-01T00:00",
        "2026-06-01T00:00:00",
        "2026-06-01T00:00:00Z",
        "2026-06-01T02:00:00+02:00",
        "2026-05-31T19:00:00-05:00",
    ],
)
def test_a_moment_is_utc_unless_it_carries_an_offset(text: str) -> None:
    assert parse_window({"from": text}, END - 1).start == START


@pytest.mark.parametrize(
    ("given", "window"),
    [
        ({"from": "2026-06-01T00:59:59.5Z"}, Window(START, END)),
        ({"to": "2026-06-07T23:00:00.5Z"}, Window(START, END)),
        ({"from": "2026-06-07T23:10Z", "to": "2026-06-07T23:11Z"}, Window(END - 3600, END)),
        # Of a place whose hours are not those of UTC.
        ({"from": "2026-06-01T05:30:00+05:30"}, Window(START, END)),
        ({"from": "2026-06-01T06:00:00+05:30"}, Window(START, END)),
    ],
    ids=["start", "end", "both", "UTC", "half an hour"],
)
def test_a_window_is_the_whole_hours_that_it_touches(given: dict[str, str], window: Window) -> None:
    assert parse_window(given, END - 1) == window


def test_the_end_alone_gives_7_days_before_it() -> None:
    assert parse_window({"to": "2026-06-08"}, END + 500 * DAY) == Window(START, END)


def test_a_longer_window_than_92_days_begins_later() -> None:
    window = parse_window({"from": "2001-01-01", "to": "2026-06-08"}, END)
    assert window == Window(END - 92 * DAY, END)


def test_an_event_and_a_pixel_are_taken_as_they_are() -> None:
    window = parse_window({"event": "<b>", "pixel": "123", "other": "x"}, END)
    assert (window.event, window.pixel) == ("<b>", "123")


def test_fields_of_the_form_that_were_left_empty_count_as_absent() -> None:
    assert parse_window({"from": "", "to": "", "event": "", "pixel": ""}, END - 0.4) == Window(
        START, END
    )


@pytest.mark.parametrize("end", ["2026-06-01", "2026-05-31T23:59:59Z"])
def test_a_window_that_ends_before_it_begins_is_refused(end: str) -> None:
    with pytest.raises(WindowError, match=r"from: found '2026-06-01', expected a moment before"):
        parse_window({"from": "2026-06-01", "to": end}, END)


def test_a_window_that_begins_in_the_future_is_refused() -> None:
    with pytest.raises(WindowError, match="expected a moment before the end"):
        parse_window({"from": "2027-01-01"}, END)


@pytest.mark.parametrize("name", ["from", "to"])
@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "2026-13-01",
        "2026-06-31",
        "1780272000",
        "2026-06-01T02:00:00 02:00",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-06-01\0",
    ],
)
def test_a_moment_that_cannot_be_read_is_named(name: str, text: str) -> None:
    with pytest.raises(WindowError) as caught:
        parse_window({name: text}, END)
    message = str(caught.value)
    assert message.startswith(f"{name}: found {text!r}, expected an ISO 8601 date or time")
    assert "%2B" in message


def test_a_message_does_not_grow_with_what_was_given() -> None:
    with pytest.raises(WindowError) as caught:
        parse_window({"to": "x" * 100_000}, END)
    assert len(str(caught.value)) < 250


def test_the_error_is_a_value_error_of_the_product() -> None:
    assert issubclass(WindowError, ValueError)
    assert issubclass(WindowError, CapiError)


def test_a_number_of_days_ends_with_the_present_hour() -> None:
    assert parse_window({"days": "28"}, END - 1) == Window(END - 28 * DAY, END)
    assert parse_window({"days": "1", "to": ""}, END - 1) == Window(END - DAY, END)


@pytest.mark.parametrize("days", ["0", "-1", "1.5", "9999", "a week", "\u0663"])
def test_a_number_of_days_that_is_none_is_named(days: str) -> None:
    with pytest.raises(WindowError, match="days: found"):
        parse_window({"days": days}, END)
