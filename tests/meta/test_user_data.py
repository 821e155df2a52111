"""UserData: normalised by Meta's rules, hashed, and never shown."""

import json
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware import UserData
from capi_middleware.meta.match_keys import MATCH_KEYS
from tests.support.clear import normalize

HASHED = [name for name, key in MATCH_KEYS.items() if key.plain is None]
RULES = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "match_key_rules.jsonl")
    .read_text()
    .splitlines()
]
#: What Meta's page does not say and its pixel does (all copies since 2.9.133).
PIXEL = {("external_id", "User-42"): "user-42"}


@pytest.mark.parametrize("rule", RULES, ids=range(len(RULES)))
def test_a_value_is_hashed_as_the_table_says(rule: dict[str, Any]) -> None:
    key, context = rule["field"], rule["context"]
    given = {key: rule["raw"]}
    if "country" in context:
        given["country"] = context["country"]
    hashed, left_out = UserData(**given).hashed(context.get("region", "US"))
    if (key, rule["raw"]) in PIXEL:
        wanted = PIXEL[key, rule["raw"]]
        assert hashed[key] == [sha256(wanted.encode()).hexdigest()]
    elif rule["sha256"] is None:
        assert key not in hashed
        assert rule["raw"] is None or key in left_out
    else:
        assert hashed[key] == [rule["sha256"]]
        assert key not in left_out


@pytest.mark.parametrize("given", ["USER-42", " User-42\n", "user-42"])
def test_an_external_id_is_hashed_as_metas_pixel_hashes_it(given: str) -> None:
    wanted = sha256(b"user-42").hexdigest()
    assert UserData(external_id=given).hashed()[0] == {"external_id": [wanted]}


def test_a_list_keeps_its_order_and_loses_doubles_and_what_is_unusable() -> None:
    hashed, left_out = UserData(em=["b@x.de", "A@x.de", "a@x.de", "none", ""]).hashed()
    wanted = [sha256(text.encode()).hexdigest() for text in ("b@x.de", "a@x.de")]
    assert hashed == {"em": wanted}
    assert left_out == ["em", "em"]


def test_a_date_is_a_birth_date() -> None:
    assert normalize("db", date(1997, 2, 16)) == "19970216"


@pytest.mark.parametrize("value", ["1997-02-30", "1899-01-01", "2199-01-01", "02/03/1997", "x"])
def test_a_birth_date_that_is_none_or_ambiguous_is_left_out(value: str) -> None:
    assert normalize("db", value) is None


def test_what_meta_wants_unhashed_stays_as_it_is() -> None:
    hashed, _ = UserData(fbp="fb.1.1.2", client_user_agent=" Mozilla ", lead_id=7).hashed()
    assert hashed == {"fbp": "fb.1.1.2", "client_user_agent": "Mozilla", "lead_id": 7}


def test_repr_shows_keys_and_never_values() -> None:
    assert repr(UserData(em="jane@example.com", ph="+4930123456")) == "UserData(em, ph)"


ANYTHING = st.none() | st.text() | st.integers() | st.floats() | st.binary() | st.lists(st.text())


@given(st.sampled_from(HASHED), ANYTHING, st.sampled_from(["US", "DE", "GB"]))
def test_nothing_raises_and_no_digest_is_of_nothing(key: str, value: Any, region: str) -> None:
    hashed, _ = UserData(**{key: value}).hashed(region)
    empty = sha256(b"").hexdigest()
    for value in hashed.values():
        digests = value if isinstance(value, list) else [value]
        assert digests
        assert all(len(digest) == 64 and digest != empty for digest in digests)


@given(st.sampled_from(["em", "fn", "ln", "ct", "external_id"]), st.text())
def test_normalising_twice_is_normalising_once(key: str, value: str) -> None:
    once = normalize(key, value)
    assert once is None or normalize(key, once) == once


def test_the_short_way_of_a_phone_number_is_the_long_one_everywhere() -> None:
    checked = 0
    for region in phonenumbers.SUPPORTED_REGIONS:
        for kind in (0, 1, 3):  # fixed line, mobile, toll free
            example = phonenumbers.example_number_for_type(region, kind)
            if example is None:
                continue
            for form in (0, 1):  # E.164, international with blanks and dashes
                text = phonenumbers.format_number(example, form)
                long = phonenumbers.format_number(phonenumbers.parse(text, None), 0)[1:]
                assert normalize("ph", text) == long
                checked += 1
    assert checked > 1000


@given(st.from_regex(r"\+[0-9][0-9 .-]{3,18}", fullmatch=True))
def test_the_short_way_agrees_with_parsing_on_any_digits(text: str) -> None:
    try:
        number = phonenumbers.parse(text, "US")
        reason = phonenumbers.is_possible_number_with_reason(number)
        possible = reason == phonenumbers.ValidationResult.IS_POSSIBLE
    except phonenumbers.NumberParseException:
        possible = False
    long = phonenumbers.format_number(number, 0)[1:] if possible else None
    assert normalize("ph", text) == long
