"""Match keys: presence by origin, and the advice that is worth most."""

import pytest

from capi_middleware.report.match_keys import PRIORITIES
from capi_middleware.report.model import MatchKeyAdvice
from capi_middleware.store.records import Tally
from tests.support.tallies import numbers, report_on, tally

FULL = ("em", "client_ip_address", "ph", "external_id", "fbp", "country", "db", "fn", "ln", "ct",
        "zp")  # fmt: skip


def advice(*rows: Tally) -> MatchKeyAdvice:
    (one,) = report_on(*rows).match_key_advice
    return one


def without(*keys: str) -> tuple[str, ...]:
    return tuple(key for key in FULL if key not in keys)


def test_presence_is_told_apart_for_pages_and_for_what_only_the_server_knows() -> None:
    event = numbers(
        tally("delivered", "sent", 3, keys=("em", "fbp")),
        tally("delivered", "not_run", 1, keys=("fbp",)),
        tally("delivered", "not_rendered", 4, keys=("em",)),
        tally("dead", "sent", 9, keys=("em",)),
    )
    origins = event.match_keys_by_origin
    assert (origins.browser.events, origins.browser.keys) == (4, {"em": 0.75, "fbp": 1.0})
    assert (origins.server_only.events, origins.server_only.keys) == (4, {"em": 1.0})
    assert event.match_keys == {"em": 0.875, "fbp": 0.5}


def test_the_missing_key_of_the_highest_priority_is_worth_most() -> None:
    assert advice(tally("delivered", "sent", 10, keys=without("em", "ph", "zp"))).key == "em"
    assert advice(tally("delivered", "sent", 10, keys=without("ph", "zp"))).key == "ph"
    assert advice(tally("delivered", "sent", 10, keys=without("zp"))).key == "zp"


def test_a_key_that_half_the_events_lack_is_worth_half() -> None:
    one = advice(
        tally("delivered", "sent", 5, keys=without("em")),
        tally("delivered", "sent", 5, keys=without()),
    )
    assert (one.share, one.events, one.priority, one.worth) == (0.5, 10, "high", 15.0)


def test_an_event_that_carries_everything_needs_no_advice() -> None:
    assert report_on(tally("delivered", "sent", 10, keys=FULL)).match_key_advice == []


def test_nothing_delivered_means_no_advice() -> None:
    assert report_on(tally("pending", "sent", 10)).match_key_advice == []


def test_a_missing_click_id_is_no_fault_of_the_site() -> None:
    assert "fbc" in PRIORITIES
    assert "fbc" not in FULL
    assert report_on(tally("delivered", "sent", 10, keys=FULL)).match_key_advice == []


def test_the_event_that_loses_most_comes_first() -> None:
    report = report_on(
        tally("delivered", "sent", 2, keys=without("em"), name="Purchase"),
        tally("delivered", "sent", 50, keys=without("em"), name="Lead"),
    )
    assert [one.event_name for one in report.match_key_advice] == ["Lead", "Purchase"]


@pytest.mark.parametrize(
    ("name", "browser", "key", "place"),
    [
        ("Purchase", "sent", "em", "UserData(em=order.email)"),
        ("Lead", "sent", "em", "{form.email}"),
        ("PageView", "sent", "em", "Config(user_data=...)"),
        ("ViewContent", "sent", "country", "{header.cf-ipcountry}"),
        ("Purchase", "not_rendered", "em", 'CAPI.track("Purchase"'),
        ("Purchase", "not_rendered", "fbp", "current_visitor().dumps()"),
        ("Purchase", "not_rendered", "client_ip_address", "Visitor.loads"),
        ("PageView", "sent", "client_ip_address", "trusted_proxies"),
        ("PageView", "sent", "fbp", "_fbp cookie"),
    ],
)
def test_the_fix_says_where_the_app_could_supply_the_key(
    name: str, browser: str, key: str, place: str
) -> None:
    one = advice(tally("delivered", browser, 9, name=name, keys=without(key)))
    assert one.key == key
    assert place in one.fix


def test_an_event_of_a_redirect_is_not_taken_for_one_of_a_webhook() -> None:
    keys = (*without("em"), "client_user_agent")
    one = advice(tally("delivered", "not_rendered", 9, name="Lead", keys=keys))
    assert "{form.email}" in one.fix
