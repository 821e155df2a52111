"""Addresses that leave for Meta: nothing of a person or a door, all of marketing and shops."""

import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from capi_middleware import CAPI
from capi_middleware.capture.urls import scrub_url, source_url
from capi_middleware.meta.custom_data import clean
from capi_middleware.meta.match_keys import MATCH_KEYS
from tests.support.configs import make_config
from tests.support.exchanges import scope_for

DATA = Path(__file__).parents[1] / "data"
REQUEST = {"method": "GET", "scheme": "https", "path": "/", "headers": [("host", "shop.example")]}
_SECRET = re.compile("<([^>]+)>")


def lines(name: str) -> list[str]:
    text = (DATA / name).read_text("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


KINDS = [line.split(" | ") for line in lines("private_addresses.txt")]


def sent(address: str) -> str:
    path, _, query = address.partition("?")
    made = source_url("https", "shop.example", path.encode(), query.encode())
    assert made is not None
    return made


@pytest.mark.parametrize(("kind", "addresses"), KINDS, ids=[kind for kind, _ in KINDS])
def test_nothing_of_a_kind_of_secrets_or_personal_data_leaves(kind: str, addresses: str) -> None:
    for marked in addresses.split():
        address = _SECRET.sub(r"\1", marked)
        referrer = scrub_url(f"https://other.example{address}")
        for left in (sent(address), referrer or ""):
            assert not [one for one in _SECRET.findall(marked) if one in left], (marked, left)


def test_there_are_89_kinds() -> None:
    assert len(KINDS) >= 89


def test_of_200_ordinary_addresses_at_least_98_of_100_parameters_stay_and_every_path() -> None:
    addresses = lines("ordinary_addresses.txt")
    assert len(addresses) == 200
    n, lost = 0, []
    for address in addresses:
        path, _, query = address.partition("?")
        left = urlsplit(sent(address))
        assert left.path == path
        pairs = parse_qsl(query, keep_blank_values=True)
        stayed = parse_qsl(left.query, keep_blank_values=True)
        n += len(pairs)
        lost += [pair for pair in pairs if pair not in stayed]
    assert n >= 350
    assert len(lost) <= n * 0.02, lost


def test_of_a_long_query_parameters_are_cut_and_marketing_stays() -> None:
    filters = "&".join(f"filter.v.option.size={n:06}" for n in range(180))
    left = parse_qsl(urlsplit(sent(f"/c?{filters}&utm_source=fb&fbclid=IwAR1&utm_id=7")).query)
    assert {("utm_source", "fb"), ("fbclid", "IwAR1"), ("utm_id", "7")} <= {*left}
    assert len(left) > 40


def test_the_site_s_word_on_a_parameter_counts_in_the_address_of_an_event() -> None:
    capi = CAPI(make_config(keep_parameters=["member"]))
    scope = scope_for(REQUEST, query_string=b"member=gold&name=Jane")
    visitor = capi.open(scope).visit().visitor(sets_cookies=False)
    assert visitor.event_source_url == "https://shop.example/?member=gold"


#: What is a person's among the arguments of track(); a country, a city and ids of catalogues are
#: properties of things as well.
_MISTAKEN = [
    key
    for key in MATCH_KEYS
    if key not in {"country", "subscription_id", "lead_id", "page_id", "ctwa_clid"}
]


@pytest.mark.parametrize("key", _MISTAKEN)
def test_a_match_key_given_as_custom_data_is_left_out_and_told(key: str) -> None:
    assert clean("Lead", {key: "Jane", "plan": "pro"}) == ({"plan": "pro"}, [key])


@pytest.mark.parametrize(
    "data",
    [
        {"contents": [{"id": "1", "email": "jane"}]},
        {"contents": [{"id": "1", "customerName": "Jane"}]},
        {"contents": [{"id": "1", "title": "for +49 30 1234567"}]},
        {"contents": [{"id": "1", "note": "4111 1111 1111 1111"}]},
        {"order_id": "+49 30 1234567"},
        {"content_ids": ["+49 30 1234567"]},
        {"plan": "415-555-0123"}, {"plan": "123-45-6789"}, {"plan": "52.5200,13.4050"},
        {"plan": "sk_live_4eC39HqLyjWDarjtT1zdp7dc"}, {"content_name": "jane (at) example.com"},
        {"content_category": "call 0151-23456789"}, {"search_string": "3782-822463-10005"},
        {"deviceId": "4711"}, {"religion": "x"}, {"prénom": "Jeanne"}, {"jane@example.com": 1},
        {"+49 30 1234567": 1}, {"shipping": {"fn": "Jane"}}, {"x": [{"y": "jane@example.com"}]},
    ],
)  # fmt: skip
def test_what_is_about_a_person_leaves_in_no_key_or_value_of_custom_data(
    data: dict[str, object],
) -> None:
    cleaned, _ = clean("Lead", data)
    assert str(cleaned) in ("{}", "{'shipping': {}}", "{'x': [{}]}")


@pytest.mark.parametrize(
    "data",
    [
        {"contents": [{"id": "1", "name": "Red Chair", "quantity": 2, "brand": "Acme"}]},
        {"contents": [{"id": "4006381333931", "title": "Drill 18V", "item_price": 9.5}]},
        {"content_ids": ["4006381333931", "AB-1234-XL", "123e4567-e89b-12d3-a456-426614174000"]},
        {"content_name": "Sony WH-1000XM5 2024-05-12"}, {"search_string": "lamp 12v 50w 2700k"},
        {"content_category": "Home > Desks > 120 x 60 x 75"}, {"order_id": "302-1234567-1234567"},
        {"sizes": "100-200"}, {"version": "10.0.19045.3803"}, {"isbn": "978-3-16-148410-0"},
        {"content_name": "Boeing 747-400 1:200"}, {"departure": "2026-12-20 10:30"},
    ],
)  # fmt: skip
def test_custom_data_of_ordinary_things_stays_whole(data: dict[str, object]) -> None:
    assert clean("Lead", data) == (data, [])
