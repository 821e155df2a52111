"""Mirroring: what a browser may cause on the server, and how often."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware.capture.limits import Allowance
from capi_middleware.capture.mirroring import Mirror, is_harmless, made_by, names_order
from capi_middleware.signing import Minter
from tests.support.configs import SECRET


@pytest.mark.parametrize(
    ("setting", "name", "taken"),
    [
        (False, "Lead", False),
        (True, "Lead", True),
        (True, "Purchase", False),
        (True, "MyOwnEvent", False),
        (["Purchase"], "Purchase", True),
        (["MyOwnEvent"], "MyOwnEvent", True),
        (["MyOwnEvent"], "Lead", False),
    ],
)
def test_which_events_a_browser_may_cause(
    setting: bool | list[str], name: str, taken: bool
) -> None:
    assert Mirror(setting).takes(name) is taken


def test_a_browsers_money_is_believed_only_where_the_config_names_the_event() -> None:
    said = {"value": 9, "currency": "EUR", "contents": [{"id": "a", "item_price": 9}]}
    assert Mirror(True).custom_data("Lead", said) == {"contents": [{"id": "a"}]}
    assert Mirror(["Lead"]).custom_data("Lead", said) == said


@given(st.text(max_size=30))
def test_only_a_page_makes_ids_under_its_key(event_id: str) -> None:
    key = Minter([SECRET]).mint("PageView", 1_800_000_000.0)
    assert not made_by(key, event_id)
    assert made_by(key, f"m{key[1:20]}-12")
    assert not made_by(key, f"m{key[1:20]}-x")
    assert not made_by(key, f"m{key[1:19]}.-1")


def test_an_id_tells_when_it_was_minted() -> None:
    minter = Minter([SECRET])
    assert minter.minted_at(minter.mint("Lead", 1_800_000_000.5)) == 1_800_000_000.5
    assert minter.minted_at(minter.mint("Lead", 1.0, "order-7")) is None


def test_a_visitor_may_do_so_much_and_more_later() -> None:
    allowance = Allowance(rate=1, burst=3, of_all=100)
    assert [allowance.take("8.8.8.8", 10.0) for _ in range(4)] == [True, True, True, False]
    assert allowance.take("9.9.9.9", 10.0)
    assert allowance.take("8.8.8.8", 11.0)
    assert not allowance.take("8.8.8.8", 11.0)


def test_the_addresses_of_one_ipv6_network_are_one_visitor() -> None:
    allowance = Allowance(rate=1, burst=2, of_all=100)
    taken = [allowance.take(f"2a00:1450:4001:80b::{n}", 10.0) for n in range(3)]
    assert taken == [True, True, False]


def test_visitors_behind_a_proxy_share_only_the_bucket_for_all() -> None:
    allowance = Allowance(rate=1, burst=2, of_all=2)
    assert [allowance.take("10.0.0.1", 10.0) for _ in range(5)] == [True] * 4 + [False]


def test_all_together_may_do_so_much() -> None:
    allowance = Allowance(rate=1, burst=2, of_all=2)
    assert [allowance.take(f"8.8.4.{n}", 10.0) for n in range(6)] == [True] * 4 + [False] * 2


def test_not_every_visitor_is_remembered() -> None:
    allowance = Allowance(rate=1, burst=1, of_all=1_000_000)
    for n in range(20_000):
        allowance.take(f"8.{n >> 16}.{n >> 8 & 255}.{n & 255}", 10.0)
    assert len(allowance._visitors) == 3_000


@pytest.mark.parametrize(
    "name", ["jane.doe@example.com", "+49 30 1234567", "4f9c8a7b6d5e4f3a2b1c0d9e"]
)
def test_a_name_that_is_somebody_s_is_not_heard(name: str) -> None:
    assert not is_harmless(name)
    assert is_harmless("Newsletter 2026")


@pytest.mark.parametrize("name", ['x"); import os #', "x'];alert(1)//", "`x`", "x\\"])
def test_no_name_of_a_stranger_ends_the_quotes_of_a_flag_s_line_of_code(name: str) -> None:
    assert not is_harmless(name)
    assert is_harmless("Lead (form), step 2")


@pytest.mark.parametrize(
    ("event_id", "path", "named"),
    [
        ("order-1001", "/orders/1001/thanks", True),
        ("order1001", "/orders/1001/thanks", True),
        ("1001", "/de/danke/1001", True),
        ("shop_A1B2C3", "/o/A1B2C3", True),
        ("a8098c1a-f86e-11da-bd1a-00112444be1e", "/x/a8098c1a-f86e-11da-bd1a-00112444be1e", True),
        ("order-1001", "/orders/10012/thanks", False),
        ("order-1001", "/orders/100/1", False),
        ("2026-order-10017", "/blog/2026", False),
        ("A1B2C3", "/o/3", False),
        ("lead-x1", "/products/1", False),
        ("order-1001", "/thanks", False),
        ("purchase", "/purchase", False),
        ("", "/", False),
    ],
)
def test_a_path_names_an_order_by_its_number(event_id: str, path: str, named: bool) -> None:
    assert names_order(path, event_id) is named
