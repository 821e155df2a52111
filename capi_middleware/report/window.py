"""The window of time that a report is asked for."""

from collections.abc import Mapping
from datetime import UTC, datetime
from math import ceil

from msgspec import Struct
from msgspec.structs import replace

from capi_middleware.errors import CapiError

_HOUR, _DAY = 3600, 86400
#: Meta's own window for event coverage, in days.
DEFAULT_DAYS = 7
#: The longest window, in days.
LONGEST_DAYS = 92


class WindowError(CapiError, ValueError):
    """A window that cannot be reported on: names the parameter, what was found and expected."""


class Window(Struct, frozen=True):
    """What a request asks for: [start, end) in Unix seconds, one event name, one pixel.

    Both are whole hours in UTC: the store counts by hour.
    """

    start: float
    end: float
    event: str | None = None
    pixel: str | None = None

    def holds(self, event_name: str, pixel_id: str) -> bool:
        """Whether these events are asked for."""
        return self.event in (None, event_name) and self.pixel in (None, pixel_id)


def parse_window(params: Mapping[str, str], now: float) -> Window:
    """The window that `?from= &to= &event= &pixel=` ask for.

    `from` and `to` are ISO 8601 dates (their midnight) or datetimes, in UTC unless they carry an
    offset; `to` is not part of the window. The window is the whole hours in UTC that they touch:
    `from` is rounded down, `to` up. By default it ends with the present hour and begins 7 days
    before that; `?days=` is how many instead. A window of more than 92 days begins 92 days before
    its end.

    Args:
        params: the decoded query parameters; others are ignored, empty ones count as absent.
        now: Unix time in seconds.

    Raises:
        WindowError: a date or a number of days that cannot be read, or `from` is not before `to`.
    """
    given_end = _moment(params, "to")
    given_start = _moment(params, "from")
    end = (now // _HOUR + 1) * _HOUR if given_end is None else given_end
    last = float(ceil(end / _HOUR) * _HOUR)
    start = last - _days(params) * _DAY if given_start is None else given_start
    if start >= end:
        raise WindowError(
            f"from: found {params['from']!r}, expected a moment before the end of the window, "
            f"{datetime.fromtimestamp(end, UTC).isoformat()}"
        )
    return Window(
        max(start // _HOUR * _HOUR, last - LONGEST_DAYS * _DAY),
        last,
        params.get("event") or None,
        params.get("pixel") or None,
    )


def _days(params: Mapping[str, str]) -> int:
    text = params.get("days")
    if not text:
        return DEFAULT_DAYS
    if not (text.isascii() and text.isdecimal() and len(text) < 4 and int(text)):
        raise WindowError(f"days: found {text[:40]!r}, expected a whole number from 1 to 92")
    return int(text)


def last_day(now: float) -> Window:
    """The window of the last 24 hours, in whole hours, the present one to its end."""
    return Window((now - _DAY) // _HOUR * _HOUR, (now // _HOUR + 1) * _HOUR)


def compared(window: Window, now: float) -> tuple[Window, Window]:
    """What to tell first, and what beside it: the last 24 hours, and the 7 days before.

    Of another window than the default one it is that, and as long a time before.
    """
    first, seconds = window, window.end - window.start
    if is_of(window, DEFAULT_DAYS, now):
        day, seconds = last_day(now), DEFAULT_DAYS * _DAY
        first = replace(window, start=day.start, end=day.end)
    return first, replace(first, start=first.start - seconds, end=first.start)


def _moment(params: Mapping[str, str], name: str) -> float | None:
    text = params.get(name)
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if not 1970 < moment.year < 9999:
            raise ValueError
    except ValueError:
        raise WindowError(
            f"{name}: found {text[:40]!r}, expected an ISO 8601 date or time after 1970, such as "
            "2026-01-31 or 2026-01-31T08:00:00Z (in a URL a plus sign is written %2B)"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def is_of(window: Window, days: int, now: float) -> bool:
    """Whether this is what `?days=` gives now."""
    present = (now // _HOUR + 1) * _HOUR
    return (window.start, window.end) == (present - days * _DAY, present)


def iso(moment: float) -> str:
    """Unix seconds as ISO 8601 in UTC."""
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
