"""Copies that stop are noticed as soon as chance is ruled out: in hours or, by small shops, days.

Shops in simulated time: orders are Poisson with a rhythm of day and week, seeds are fixed. The long
proof, CAPI_SILENCE=1, looks at each hour of more months and takes an hour.
"""

import os
from collections.abc import Iterator
from math import cos, exp, pi
from random import Random
from typing import Literal, NamedTuple

import pytest

from capi_middleware import EventRoute
from capi_middleware.alerts.rules import State, decide
from capi_middleware.report.flags import CHECKS, Facts
from capi_middleware.report.model import Flag
from capi_middleware.report.silence import LOOKS_BACK
from capi_middleware.report.window import iso
from capi_middleware.store.records import Slice
from tests.support.configs import make_config

LONG = bool(os.environ.get("CAPI_SILENCE"))
SHOPS = (5, 15, 40, 200, 1000, 5000)
SIDES = ("server", "browser", "both")
#: Hours since 1970 of a Monday, and how many the flag reads.
MONDAY, READ = 24 * 4 + 168 * 2900, LOOKS_BACK // 3600
#: Lengths of outages in hours, and so many of each side.
LENGTHS, OUTAGES = (2, 4, 6, 9, 12, 18, 24, 36, 48, 72), 30


class Outage(NamedTuple):
    start: int
    length: int
    side: str


def rate(orders: int, hour: int) -> float:
    """Orders expected in an hour: nights are quiet, and Saturdays and Sundays."""
    weekday, of_day = (hour - MONDAY) // 24 % 7, hour % 24
    weight = (0.1 + 0.5 - 0.5 * cos(2 * pi * (of_day - 4) / 24)) / 0.6
    return orders / 24 * weight * (0.6 if weekday > 4 else 1.16)


def poisson(random: Random, mean: float) -> int:
    if mean > 40:
        return max(0, round(random.gauss(mean, mean**0.5)))
    n, left, stop = 0, random.random(), exp(-mean)
    while left > stop:
        n, left = n + 1, left * random.random()
    return n


def orders_of(random: Random, orders: int, hour: int, missing: str = "") -> Iterator[Slice]:
    """Of 20 orders, 17 leave both copies, 2 are of the server alone and 1 of the browser alone."""
    for server, browser, of in (
        ("delivered", "sent", 0.85),
        ("delivered", "request_blocked", 0.1),
        ("unknown", "sent", 0.05),
    ):
        n = poisson(random, rate(orders, hour) * of)
        server = "unknown" if missing == "server" else server
        browser = "not_run" if missing == "browser" else browser
        if n and missing != "both":
            yield Slice(str(hour * 3600), "1", "Purchase", server, browser, n)


def shop(seed: str, orders: int, end: int, outage: Outage | None = None) -> list[Slice]:
    random = Random(seed)
    found: list[Slice] = []
    for hour in range(MONDAY, end):
        out = outage is not None and outage.start <= hour < outage.start + outage.length
        found += orders_of(random, orders, hour, outage.side if outage and out else "")
    return found


def drops(hours: list[Slice], end: int) -> list[Flag]:
    read = [one for one in hours if end - READ <= int(one.value) // 3600 < end]
    return list(CHECKS["sudden_drop"](Facts(hours=read, upto=end * 3600.0)))


def hour_when(orders: int, start: int, expected: float) -> int:
    """The end of the hour until which so many orders were expected from `start`."""
    hour = start
    while expected > 0:
        expected -= rate(orders, hour)
        hour += 1
    return hour


@pytest.mark.parametrize("orders", SHOPS)
def test_an_outage_is_told_when_twenty_events_are_missed_and_over_when_they_come(
    orders: int,
) -> None:
    random, told = Random(orders), 0
    for number in range(OUTAGES):
        side, length = SIDES[number % 3], LENGTHS[number // 3]
        outage = Outage(MONDAY + READ + random.randrange(168), length, side)
        over = outage.start + length
        closed = hour_when(orders, over, 14) + 1
        hours = shop(f"{orders} {number}", orders, closed, outage)
        assert not drops(hours, outage.start), outage
        noticed = max(hour_when(orders, outage.start, 20), outage.start + 2)
        if noticed <= over:
            [flag] = drops(hours, noticed)
            told += 1
            assert flag.severity == "critical", (outage, flag)
            missing = "server" if side == "server" else "browser"
            assert side == "both" or f" {missing} copies since " in flag.explanation, outage
            assert ("the other copy fell as well" in flag.explanation) is (side == "both"), outage
        assert not drops(hours, closed), outage
    # The others end before statistics know of them.
    assert told >= {5: 0, 15: 8, 40: 15, 200: 21}.get(orders, 24)


@pytest.mark.timeout(0 if LONG else 180)
@pytest.mark.parametrize("orders", SHOPS)
def test_a_shop_where_nothing_is_wrong_is_left_alone_for_three_months(orders: int) -> None:
    months, step = (36, 1) if LONG else (3, 8)
    begin = MONDAY + READ
    end = begin + months * 30 * 24
    hours, alarms, was = shop(f"well {orders}", orders, end), 0, False
    for hour in range(begin, end, step):
        first = next((at for at, one in enumerate(hours) if int(one.value) // 3600 >= hour - READ))
        hours = hours[first:]
        falls = bool(drops(hours, hour))
        alarms += falls and not was
        was = falls
    assert alarms <= months // 3


def each_hour(begin: int, end: int, n: int, name: str = "Purchase", **more: str) -> list[Slice]:
    states = {"server": "delivered", "browser": "sent"} | more
    return [Slice(str(hour * 3600), "1", name, n=n, **states) for hour in range(begin, end)]


def test_a_site_that_stops_is_one_alert_that_opens_and_closes() -> None:
    begin = MONDAY + READ
    events = {"PageView": 400, "ViewContent": 90, "AddToCart": 7, "Purchase": 2}
    hours: list[Slice] = []
    for name, n in events.items():
        hours += each_hour(MONDAY, begin, n, name) + each_hour(begin + 30, begin + 60, n, name)
    state, changes = State(), []
    for hour in range(begin, begin + 60):
        for minute in range(3):
            state, changed = decide(state, drops(hours, hour), hour * 3600 + minute * 60)
            changes += [(one.kind, one.flag.event_name) for one in changed]
    assert changes == [("opened", "PageView"), ("closed", "PageView")]


def test_what_fell_alike_is_told_with_the_busiest_event_and_what_fell_alone_apart() -> None:
    end = MONDAY + READ
    alike = each_hour(MONDAY, end - 20, 50, "PageView") + each_hour(MONDAY, end - 20, 2)
    [flag] = drops(alike, end)
    assert "So did Purchase of pixel 1 (0 of 40)." in flag.explanation
    apart = each_hour(MONDAY, end, 50, "PageView") + each_hour(MONDAY, end - 20, 2)
    [flag] = drops(apart, end)
    assert (flag.event_name, flag.value, flag.target) == ("Purchase", 0, 40.0)


def test_a_name_that_anybody_may_send_hides_no_event_of_the_site() -> None:
    end = MONDAY + READ
    hours = each_hour(MONDAY, end - 20, 900, "Foo") + each_hour(MONDAY, end - 20, 2)
    assert {flag.event_name for flag in drops(hours, end)} == {"Foo", "Purchase"}


def test_what_waits_for_delivery_is_not_missing() -> None:
    end = MONDAY + READ
    waiting = each_hour(end - 20, end, 10, server="pending")
    assert not drops(each_hour(MONDAY, end - 20, 10) + waiting, end)
    refused = each_hour(end - 20, end, 10, server="dead")
    [flag] = drops(each_hour(MONDAY, end - 20, 10) + refused, end)
    assert "0 server copies since " in flag.explanation


@pytest.mark.parametrize(("send", "told"), [("server", 1), ("both", 0)])
def test_events_of_the_server_alone_are_missed_unless_somebody_uploads_them(
    send: Literal["server", "both"], told: int
) -> None:
    end = MONDAY + READ
    config = make_config(routes=[EventRoute("POST /order", "Purchase", send=send)])
    hours = each_hour(MONDAY, end - 20, 10, browser="unpaired")
    facts = Facts(hours=hours, upto=end * 3600.0, config=config)
    assert len(list(CHECKS["sudden_drop"](facts))) == told


def test_a_quiet_hour_of_a_big_shop_is_no_silence_and_two_are() -> None:
    end = MONDAY + READ
    assert not drops(each_hour(MONDAY, end - 1, 200), end)
    assert drops(each_hour(MONDAY, end - 2, 200), end)


def test_half_of_the_usual_for_days_is_no_silence() -> None:
    end = MONDAY + READ
    assert not drops(each_hour(MONDAY, end - 72, 20) + each_hour(end - 72, end, 10), end)


def test_a_clock_that_changes_is_no_silence() -> None:
    change = MONDAY + READ - 168
    open_hours = [hour for hour in range(MONDAY, change) if 9 <= hour % 24 < 21]
    open_hours += [hour for hour in range(change, change + 168) if 10 <= hour % 24 < 22]
    hours = [one for hour in open_hours for one in each_hour(hour, hour + 1, 200)]
    assert not [end for end in range(change, change + 168) if drops(hours, end)]


def test_the_first_week_of_an_event_tells_nothing() -> None:
    end = MONDAY + READ
    assert not drops(each_hour(end - 160, end - 20, 50), end)


def test_a_silence_of_more_than_a_week_is_told_since_it_began() -> None:
    end = MONDAY + READ
    [flag] = drops(each_hour(MONDAY, end - 240, 10), end)
    assert (flag.severity, flag.value) == ("critical", 0)
    assert f" since {iso((end - 240) * 3600)}," in flag.explanation
