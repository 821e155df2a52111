"""Flags about drops, the set-up, delivery, and copies that do not fit; each with its fix."""

from typing import Any

import pytest

from capi_middleware import EventRoute, Pixel
from capi_middleware.events import Count
from capi_middleware.meta.codes import meaning_of
from capi_middleware.report.model import Flag
from capi_middleware.report.read import build
from capi_middleware.report.window import Window
from capi_middleware.store.records import Difference, Freshness, Slice, Tallies, Tally
from tests.support.configs import PIXEL_ID, make_config
from tests.support.tallies import END, START, tally

HOUR = 3600


def found(
    *rows: Tally,
    counts: tuple[Count, ...] = (),
    freshness: tuple[Freshness, ...] = (),
    differences: tuple[Difference, ...] = (),
    **more: Any,
) -> dict[str, Flag]:
    tallies = Tallies(rows, freshness, counts, differences)
    flags = build(tallies, Window(START, END), **more).flags
    return {flag.code: flag for flag in flags}


def hours(ago: range, n: int, *, side: str = "both") -> list[Slice]:
    """`n` events in each of the hours so long ago; the last whole hour is 0."""
    server, browser = (
        "delivered" if side != "browser" else "unmapped",
        "sent" if side != "server" else "csp",
    )
    return [
        Slice(str(int(END) - (one + 1) * HOUR), "123", "Purchase", server, browser, n)
        for one in ago
    ]


def usual(n: int = 20) -> list[Slice]:
    """The same hours of the seven days before, of which one is that of the week before."""
    return [one for day in range(1, 8) for one in hours(range(day * 24, day * 24 + 3), n)]


def test_copies_that_stop_are_a_sudden_drop() -> None:
    flag = found(slices={"hour": usual()})["sudden_drop"]
    assert (flag.severity, flag.value, flag.target) == ("critical", 0, 60.0)
    assert "where 60 were expected" in flag.explanation


def test_one_copy_that_falls_says_which() -> None:
    flag = found(slices={"hour": [*usual(), *hours(range(3), 20, side="server")]})["sudden_drop"]
    assert "0 browser copies" in flag.explanation
    assert "the other copy did not fall" in flag.explanation


@pytest.mark.parametrize(
    "slices",
    [
        [*usual(), *hours(range(3), 18)],  # as usual
        [*usual(5), *hours(range(3), 3)],  # too few to tell
        [*hours(range(24, 27), 20), *hours(range(48, 51), 20)],  # two days of history
    ],
    ids=["usual", "few", "young"],
)
def test_what_may_be_chance_is_no_drop(slices: list[Slice]) -> None:
    assert "sudden_drop" not in found(slices={"hour": slices})


def test_nights_are_compared_with_nights() -> None:
    busy = [one for day in range(8) for one in hours(range(day * 24 + 6, day * 24 + 12), 500)]
    assert "sudden_drop" not in found(slices={"hour": busy})


def test_two_event_ids_of_the_same_events_are_found() -> None:
    flag = found(tally("delivered", "not_run", 40), tally("unmapped", "sent", 38))[
        "event_id_mismatch"
    ]
    assert (flag.severity, flag.value) == ("critical", 38)
    assert "eventID: event.event_id" in flag.fix


def test_a_gap_on_one_side_only_is_no_mismatch() -> None:
    assert "event_id_mismatch" not in found(tally("unmapped", "sent", 38))


def test_calls_without_an_event_id_are_found() -> None:
    counts = (Count("no_event_id", "", "Lead", "123", 9),)
    flag = found(tally("unmapped", "sent", 9, name="Lead"), counts=counts)["event_id_missing"]
    assert (flag.value, flag.event_name) == (9, "Lead")


def test_values_that_differ_are_found() -> None:
    flag = found(tally("delivered", "sent", 50), differences=(Difference("123", "Purchase", 4),))[
        "values_differ"
    ]
    assert "In 4 of 50 matched events" in flag.explanation


@pytest.mark.parametrize(("seconds", "late"), [(0.4, False), (59, False), (90, True)])
def test_events_that_are_not_sent_in_real_time_are_flagged(seconds: float, late: bool) -> None:
    freshness = (Freshness("123", "Purchase", seconds, 50),)
    flags = found(tally("delivered", "sent", 50), freshness=freshness)
    assert ("not_real_time" in flags) is late


def test_a_refusal_names_metas_reason_and_its_fix() -> None:
    flag = found(
        tally("delivered", "sent", 50), tally("dead", "sent", 3),
        refusals={("Purchase", "123"): {"code 100/2804050": 3}},
    )["delivery_rejected"]  # fmt: skip
    assert "say too little about the customer (code 100/2804050, 3 of 3)" in flag.explanation
    assert "current_visitor().dumps()" in flag.fix


def test_a_field_that_meta_blames_is_named() -> None:
    meaning, _ = meaning_of("code 100/2804010 custom_data.currency")
    assert meaning == "a Purchase has no value; Meta names custom_data.currency"


def test_a_token_that_was_refused_for_a_while_is_told_afterwards() -> None:
    counts = (Count("rested", "code 190", "", "123", 2),)
    flag = found(tally("delivered", "sent", 50), counts=counts)["delivery_interrupted"]
    assert "stopped 2 times" in flag.explanation
    assert "new access token" in flag.fix


def test_a_clock_that_is_wrong_is_told() -> None:
    flag = found(counts=(Count("skewed", "ahead", "", "123", 1),))["clock_skew"]
    assert "ahead of Meta's" in flag.explanation


def test_a_test_event_code_that_is_left_on_is_told() -> None:
    assert "test_event_code_on" in found(config=make_config(test_event_code="TEST1"))
    assert "test_event_code_on" not in found(config=make_config())


def test_a_pixel_without_any_event_is_silent() -> None:
    config = make_config(pixels=[Pixel("123", access_token="a"), Pixel("456", access_token="b")])
    flag = found(tally("delivered", "sent", 50), config=config)["pixel_silent"]
    assert flag.pixel_id == "456"
    assert "pixel_silent" not in found(tally("delivered", "sent", 2), config=config)


def views(path: str, n: int) -> dict[str, Any]:
    return {"slices": {"page": [Slice(path, "123", "PageView", "delivered", "sent", n)]}}


def test_an_event_that_the_pages_suggest_and_nobody_sends_is_named_with_its_line() -> None:
    flag = found(config=make_config(), **views("/checkout/pay", 30))["event_suggested"]
    assert flag.event_name == "InitiateCheckout"
    assert 'EventRoute("GET /checkout/pay", "InitiateCheckout")' in flag.fix


@pytest.mark.parametrize(
    ("path", "n", "routes"),
    [
        ("/about", 100, []),
        ("/checkout", 5, []),
        ("/checkout", 100, [EventRoute("POST /pay", "InitiateCheckout")]),
        ("/shopping-cartography", 100, []),
    ],
    ids=["no word", "few views", "mapped", "part of a word"],
)
def test_an_event_that_nothing_suggests_is_not_named(
    path: str, n: int, routes: list[EventRoute]
) -> None:
    assert "event_suggested" not in found(config=make_config(routes=routes), **views(path, n))


def test_a_missing_match_key_of_conversions_is_flagged_with_its_fix() -> None:
    keys = ("client_ip_address", "client_user_agent", "fbp")
    rows = [
        tally("delivered", "sent", 30, keys=keys),
        tally("delivered", "sent", 20, keys=(*keys, "em")),
    ]
    flag = found(*rows, config=make_config())["match_key_missing"]
    assert flag.value == 0.4
    assert "UserData(em=order.email)" in flag.fix
    views_only = [tally("delivered", "sent", 50, name="PageView", keys=keys)]
    assert "match_key_missing" not in found(*views_only, config=make_config())


def test_a_checkout_that_begins_need_not_know_the_e_mail_address() -> None:
    begun = tally("delivered", "sent", 100, name="InitiateCheckout")
    assert "match_key_missing" not in found(begun, config=make_config())


def test_shares_without_consent_and_of_robots_are_told() -> None:
    counts = (
        Count("suppressed", "consent", "PageView", PIXEL_ID, 1200),
        Count("suppressed", "bot", "PageView", PIXEL_ID, 800),
    )
    flags = found(tally("delivered", "sent", 50), counts=counts, config=make_config())
    assert flags["consent_share"].value == 0.585
    assert flags["bot_share"].value == 0.39


def test_a_healthy_shop_raises_no_flag_at_all() -> None:
    keys = ("em", "client_ip_address", "client_user_agent", "fbp", "external_id")
    rows = [
        tally("delivered", "sent", 300, name="PageView", keys=keys[1:4]),
        tally("delivered", "left_early", 9, name="PageView", keys=keys[1:4]),
        tally("pending", "sent", 2, name="PageView", keys=keys[1:4]),
        tally("delivered", "sent", 60, keys=keys),
        tally("delivered", "script_blocked", 2, keys=keys),
    ]
    freshness = (Freshness("123", "Purchase", 0.4, 62),)
    config = make_config(pixels=[Pixel("123", access_token="a")])
    assert found(*rows, freshness=freshness, config=config, slices={"hour": usual()[:0]}) == {}


@pytest.mark.parametrize(
    ("send", "row"), [("server", ("delivered", "not_rendered")), ("browser", ("unmapped", "sent"))]
)
def test_a_copy_that_the_site_does_not_want_is_not_missing(send: Any, row: tuple[str, str]) -> None:
    routes = [EventRoute("POST /hook", "Purchase", send=send)]
    config = make_config(pixels=[Pixel("123", access_token="a")], routes=routes)
    keys = ("em", "client_ip_address")
    assert found(tally(*row, 50, keys=keys), config=config) == {}
    assert found(tally(*row, 50, keys=keys)) != {}


def test_a_part_of_the_report_says_nothing_of_what_is_elsewhere() -> None:
    config = make_config(pixels=[Pixel("123", access_token="a"), Pixel("456", access_token="b")])
    rows = [tally("delivered", "sent", 50, pixel=pixel) for pixel in ("123", "456")]
    part = build(Tallies(rows, (), ()), Window(START, END, pixel="123"), config=config)
    assert [one.code for one in part.flags if one.code == "pixel_silent"] == []


def test_one_view_is_one_view_however_many_pixels_count_it() -> None:
    slices = [Slice("/checkout", pixel, "PageView", "delivered", "sent", 12) for pixel in "12"]
    assert "event_suggested" not in found(config=make_config(), slices={"page": slices})
