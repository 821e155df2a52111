"""Pictures: the timeline of one event and the funnel, as numbers that a template draws. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import ceil, floor, log10
from typing import NamedTuple

from capi_middleware.report.model import EventReport, Funnel, Mark, Outage, Part, Step, Trend
from capi_middleware.report.silence import last_fall
from capi_middleware.report.window import Window, iso

#: What people do on the way to an order.
STEPS = ("ViewContent", "AddToCart", "InitiateCheckout", "Purchase")
_SECONDS = {"hour": 3600, "day": 86400}
#: About so many pixels of a picture a label of the time takes, a letter, and room at the columns.
_LABEL, _LETTER, _RIGHT, _TOP, _BOTTOM = 64, 8, 8, 20, 26
_LINES = 4


class Bar(NamedTuple):
    """A part of a column: what it is, and where it is drawn."""

    kind: str
    y: float
    height: float


class Column(NamedTuple):
    """One hour or day. `partial`: a part of it is shown, as it is not over or began before."""

    x: float
    width: float
    bars: Sequence[Bar]
    title: str
    partial: bool


class Line(NamedTuple):
    """A label of an axis, or a mark, and where it is."""

    at: float
    text: str
    kind: str = ""
    since: str = ""


class Band(NamedTuple):
    """A time in which copies were missed."""

    x: float
    width: float
    text: str


class Timeline(NamedTuple):
    """A picture of `width` by `height` pixels; the columns stand on `bottom`, from `left` on."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    columns: Sequence[Column]
    counts: Sequence[Line]
    times: Sequence[Line]
    marks: Sequence[Line]
    bands: Sequence[Band]


def timeline(
    trend: Trend, *, width: int, height: int, window: Window, now: float, marks: Iterable[Mark] = ()
) -> Timeline:
    """`trend` as columns of matched, server-only and browser-only events, with its axes.

    `now` is Unix time in seconds: the column that holds it is partial, and those that `window`
    does not hold whole.
    """
    seconds, n = _SECONDS[trend.step], max(len(trend.parts), 1)
    start = _unix(trend.parts[0].value) if trend.parts else 0.0
    most, step = _scale(max([_all(one) for one in trend.parts], default=0))
    counts = [(count, f"{count:,}") for count in range(0, most + 1, step)]
    left = max(len(text) for _, text in counts) * _LETTER + 12
    right, top, bottom = width - _RIGHT, _TOP, height - _BOTTOM
    each = (right - left) / n

    def x_of(moment: float) -> float:
        return round(left + min(max((moment - start) / seconds, 0), n) * each, 1)

    def y_of(count: float) -> float:
        return round(bottom - count / most * (bottom - top), 1)

    columns = []
    for at, part in enumerate(trend.parts):
        since, bars, below = start + at * seconds, list[Bar](), 0
        for kind, count in _parts(part):
            if count:
                bars.append(Bar(kind, y_of(below + count), y_of(below) - y_of(below + count)))
            below += count
        until = since + seconds
        partial = "not over" if since <= now < until else "shown in part" \
            if since < window.start or until > window.end else ""  # fmt: skip
        columns.append(
            Column(round(left + at * each, 1), round(max(each - 1, 0.5), 1), bars,
                   _title(part, trend.step, partial), bool(partial))
        )  # fmt: skip
    every = max(1, ceil(_LABEL / each))
    every = next((one for one in (1, 2, 3, 6, 12, 24) if one >= every), every) if seconds == 3600 \
        else every  # fmt: skip
    times = [
        Line(x_of(start + at * seconds), _label(start + at * seconds, trend.step))
        for at in range(n)
        if (round(start // seconds) + at) % every == 0 and left + at * each + _LABEL * 0.8 < width
    ]
    return Timeline(
        width, height, left, right, top, bottom, columns,
        [Line(y_of(count), text) for count, text in counts],
        times,
        [Line(x_of(_unix(one.at)), _told(one), one.kind, one.at)
         for one in marks
         if start <= _unix(one.at) < start + n * seconds
         and one.event_name in ("", trend.event_name) and one.pixel_id in ("", trend.pixel_id)],
        [Band(x_of(_unix(one.since)), round(x_of(_unix(one.until)) - x_of(_unix(one.since)), 1),
              f"{one.found:,} of about {one.expected:,.0f} usual {one.side} copies came from "
              f"{_minute(one.since)} to {_minute(one.until)} UTC")
         for one in trend.outages if _unix(one.until) > start],
    )  # fmt: skip


_KINDS = {"release": "Release", "alert": "Alert:"}


def outages(copies: Mapping[str, Mapping[int, int]], end: int) -> list[Outage]:
    """The last time in which the copies of a side were few, see silence.last_fall.

    `copies` are events by side and by hours since 1970, `end` is such an hour.
    """
    falls = ((side, last_fall(hours, end)) for side, hours in copies.items())
    return [
        Outage(side, iso(fall.span.since * 3600), iso(fall.span.until * 3600), fall.span.found,
               round(fall.span.expected, 1), fall.lasts)
        for side, fall in falls
        if fall is not None
    ]  # fmt: skip


def funnels(events: Iterable[EventReport]) -> list[Funnel]:
    """The way to an order at each pixel that has two steps of it at least, both copies apart."""
    known = {one.place: one for one in events}
    found = []
    for pixel_id in sorted({pixel_id for _, pixel_id in known}):
        steps = [
            Step(name, one.server, one.browser, one.matched)
            for name in STEPS
            if (one := known.get((name, pixel_id))) and one.server + one.browser
        ]
        if len(steps) > 1:
            found.append(Funnel(pixel_id, steps))
    return found


def _parts(part: Part) -> Sequence[tuple[str, int]]:
    return (
        ("matched", part.matched),
        ("server", part.server - part.matched),
        ("browser", part.browser - part.matched),
    )


def _all(part: Part) -> int:
    return sum(count for _, count in _parts(part))


def _title(part: Part, step: str, partial: str) -> str:
    matched, server, browser = (f"{count:,}" for _, count in _parts(part))
    begin = _label(_unix(part.value), "day") + (f" {part.value[11:16]}" if step == "hour" else "")
    told = f"{begin}: {matched} matched, {server} server only, {browser} browser only"
    return f"{told}; this {step} is {partial}" if partial else told


def _label(moment: float, step: str) -> str:
    at = datetime.fromtimestamp(moment, UTC)
    is_hour = step == "hour" and at.hour
    return f"{at:%H:%M}" if is_hour else f"{at.day} {at:%b}"


def _scale(most: int) -> tuple[int, int]:
    """The end of an axis for counts up to `most`, and the step of its lines: 1, 2, 5, 10, 20 …."""
    unit = 10 ** max(floor(log10(max(most, 1) / _LINES)), 0)
    step = next(unit * one for one in (1, 2, 5, 10) if unit * one * _LINES >= most)
    return max(ceil(most / step), 1) * step, step


def _told(mark: Mark) -> str:
    return f"{_KINDS[mark.kind]} {mark.text}, {_minute(mark.at)}"


def _minute(iso_time: str) -> str:
    return iso_time[:16].replace("T", " ")


def _unix(iso_time: str) -> float:
    return datetime.fromisoformat(iso_time).timestamp()
