"""Match keys: one table says all that differs from one key to the next."""

import inspect
import tomllib
from pathlib import Path
from typing import Any

import iso3166
import pytest

from capi_middleware import UserData
from capi_middleware.meta import normalising
from capi_middleware.meta.match_keys import BITS, MATCH_KEYS, match_keys_of
from capi_middleware.meta.user_data import Fields


def test_the_typed_fields_of_user_data_are_the_keys_of_the_table() -> None:
    assert set(Fields.__annotations__) == set(MATCH_KEYS), "user_data.Fields and the table differ"


@pytest.mark.parametrize("name", MATCH_KEYS)
def test_user_data_explains_every_key(name: str) -> None:
    assert name in (inspect.getdoc(UserData) or "")


@pytest.mark.parametrize("name", MATCH_KEYS)
def test_every_key_has_exactly_one_rule(name: str) -> None:
    key = MATCH_KEYS[name]
    assert [key.lower, key.placed, key.plain].count(None) == 2


def test_every_everyday_name_leads_to_a_code_of_its_kind() -> None:
    tables = tomllib.loads(Path(normalising.__file__).with_name("words.toml").read_text("utf-8"))

    codes = {one.alpha2.lower() for one in iso3166.countries}
    assert tables["countries"].keys() <= codes
    assert all(len(code) == 2 and code.isalpha() for code in tables["us_states"])
    assert [int(month) for month in tables["months"]] == list(range(1, 13))
    assert list(tables["genders"]) == ["f", "m"]


@pytest.mark.parametrize("table", ["genders", "months", "countries", "us_states"])
def test_no_word_stands_for_two_codes(table: str) -> None:
    tables = tomllib.loads(Path(normalising.__file__).with_name("words.toml").read_text("utf-8"))
    words = " ".join(tables[table].values()).split()

    assert len(words) == len(set(words))


@pytest.mark.parametrize("name", MATCH_KEYS)
def test_every_key_has_a_bit_of_its_own(name: str) -> None:
    assert match_keys_of(BITS[name]) == [name]


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("client_ip_address", "2001:DB8::1", "2001:db8::1"),
        ("client_ip_address", "unknown", None),
        ("client_user_agent", "x@y (z)\n", "x@y (z)"),
        ("fbc", "fb.1.1700000000000.AbC", "fb.1.1700000000000.AbC"),
        ("fbp", "me@example.com", None),
        ("lead_id", "0123", 123),
        ("lead_id", "12a", None),
        ("subscription_id", "me@example.com", None),
        ("subscription_id", "S-1", "S-1"),
        ("madid", "x" * 501, None),
    ],
)
def test_what_meta_wants_unhashed_is_sent_as_it_should_be_or_left_out(
    key: str, value: str, kept: Any
) -> None:
    given: Any = {key: value}
    hashed, left_out = UserData(**given).hashed()
    assert (hashed.get(key), left_out) == (kept, [] if kept is not None else [key])
