"""UserData: normalised by Meta's rules, hashed, and never shown."""

import json
from datetime import date
from decimal import Decimal
from fractions import Fraction
from hashlib import sha256
from ipaddress import ip_address
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
        valid = phonenumbers.is_valid_number(number)
    except phonenumbers.NumberParseException:
        valid = False
    long = phonenumbers.format_number(number, 0)[1:] if valid else None
    assert normalize("ph", text) == long


def sha(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def told(key: str, value: Any, region: str = "US", **more: Any) -> Any:
    """The digest for one value, None where it was left out and counted."""
    given: Any = {key: value, **more}
    hashed, left_out = UserData(**given).hashed(region)
    assert (key in hashed) is (key not in left_out)
    return hashed[key][0] if key in hashed else None


MOBILES = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "national_mobiles.jsonl")
    .read_text("utf-8")
    .splitlines()
]


@pytest.mark.parametrize("one", MOBILES, ids=lambda one: str(one["country"]))
def test_a_national_mobile_number_is_read_in_the_country_of_its_person(one: dict[str, str]) -> None:
    country, national, digits = one["country"], one["national"], one["digits"]
    for region in ("US", "DE"):
        assert told("ph", national, region, country=country) == sha(digits)
        assert told("ph", f" {digits}", region, country=country) == sha(digits)
        assert told("ph", int(digits), region, country=country) == sha(digits)


@pytest.mark.parametrize("one", MOBILES, ids=lambda one: str(one["country"]))
def test_a_national_mobile_number_without_a_country_is_never_wrong(one: dict[str, str]) -> None:
    # A number can look like one of the site's country in every way, as "312 345 6789" of Italy does
    # in the US: none of these does.
    assert told("ph", one["national"]) in (None, sha(one["digits"]))


@pytest.mark.parametrize(
    ("given", "region", "country", "digits"),
    [
        ("491701234567", "US", None, "491701234567"),
        ("491701234567", "DE", None, "491701234567"),
        (491701234567, "DE", "Germany", "491701234567"),
        (491701234567.0, "DE", None, "491701234567"),
        (Decimal("491701234567"), "DE", None, "491701234567"),
        (Decimal("4917012345670E-1"), "DE", None, "491701234567"),
        ("491701234567.0", "DE", None, "491701234567"),
        (1701234567, "US", "de", "491701234567"),
        ("62812345678", "ID", None, "62812345678"),
        ("447911123456", "DE", "DE", "447911123456"),
        ("33612345678", "DE", "DE", None),
        ("0170 1234567", "US", "Atlantis", None),
        ("0170 1234567", "DE", " ", "491701234567"),
        ("0170 1234567", "US", ["DE", "FR"], "491701234567"),
        ("+49 170 1234567", "US", "Atlantis", "491701234567"),
        ("044 123 456", "US", "Kosovo", "38344123456"),
        ("6592234567", "US", None, "16592234567"),
        ("+1 200 555 1212", "US", None, None),
        ("+49 170 123", "DE", None, None),
        ("030 1234567", "US", "AQ", None),
        (float("nan"), "DE", None, None),
        (float("inf"), "DE", None, None),
        (Decimal("sNaN"), "DE", None, None),
        (Decimal("1E+400000"), "DE", None, None),
        (4.9e17, "DE", None, None),
        ("4.91701E+11", "DE", None, None),
        (True, "DE", None, None),
    ],
    ids=repr,
)
def test_a_phone_number_is_right_or_left_out(
    given: Any, region: str, country: Any, digits: str | None
) -> None:
    more = {} if country is None else {"country": country}
    assert told("ph", given, region, **more) == (digits and sha(digits))


@pytest.mark.parametrize(
    ("key", "given", "clear"),
    [
        ("external_id", 42, "42"),
        ("external_id", 42.0, "42"),
        ("external_id", Decimal("42.00"), "42"),
        ("external_id", Decimal("12345678901234567890"), "12345678901234567890"),
        ("external_id", Fraction(42), "42"),
        ("external_id", 42.5, None),
        ("external_id", 2.0**60, None),
        ("external_id", float("nan"), None),
        ("db", 19970216, "19970216"),
        ("db", 19970216.0, "19970216"),
        ("zp", 94035.0, "94035"),
    ],
    ids=repr,
)
def test_a_whole_number_is_read_as_its_digits(key: str, given: Any, clear: str | None) -> None:
    assert told(key, given) == (clear and sha(clear))


class Unreadable(list[str]):
    def __iter__(self) -> Any:
        raise RuntimeError("the database is away")


class NoDate(date):
    def isoformat(self) -> str:
        raise ValueError("NaT")


@pytest.mark.parametrize("bad", [NoDate(2000, 1, 1), b"x", object(), None, "", float("nan")])
def test_one_value_that_cannot_be_read_takes_no_other_along(bad: Any) -> None:
    hashed, left_out = UserData(em=["a@x.de", bad, "b@x.de"], db=bad, fn="Jane").hashed()
    assert hashed["em"] == [sha("a@x.de"), sha("b@x.de")]
    assert hashed["fn"] == [sha("jane")]
    assert "em" in left_out


def test_values_may_come_from_whatever_can_be_gone_through() -> None:
    assert UserData(em=(one for one in ["a@x.de"])).hashed() == ({"em": [sha("a@x.de")]}, [])
    assert UserData(em=Unreadable(), fn="Jane").hashed() == ({"fn": [sha("jane")]}, ["em"])
    assert UserData(em={"a@x.de": 1}).hashed() == ({}, ["em"])


HEX = sha256(b"jane@example.com").hexdigest()


@pytest.mark.parametrize("appendix", ["AQQCAQMC", "AQIAAQMC", "BA", "Ag"])
def test_what_metas_parameter_builder_hashed_passes_with_its_appendix(appendix: str) -> None:
    for key in ("em", "ph", "fn", "zp", "external_id"):
        assert told(key, f" {HEX}.{appendix}") == f"{HEX}.{appendix}"
        assert told(key, f"{HEX.upper()}.{appendix}") == f"{HEX}.{appendix}"
    assert told("em", f"{sha('')}.{appendix}") is None


@pytest.mark.parametrize("ending", [".", ".x", ".AQQCAQMC9", ".AQQC AQM", " .AQQCAQMC", ".@Q"])
def test_what_only_looks_like_it_is_left_out(ending: str) -> None:
    assert told("em", HEX + ending) is None


@pytest.mark.parametrize(
    ("given", "country", "clear"),
    [
        (2134, "US", None),
        ("2134", "us", None),
        (2134, None, None),
        (501, None, None),
        ("2134-1234", None, None),
        ("94035.0", "US", None),
        ("94035.0", None, None),
        ("80331.0", "DE", None),
        ("02134", "US", "02134"),
        ("94035-1234", "US", "94035"),
        (940351234, "US", "94035"),
        ("00601", "Puerto Rico", "00601"),
        ("SW1A 1AA", "US", None),
        ("SW1A 1AA", None, "sw1a1aa"),
        (1067, "DE", None),
        ("01067", "DE", "01067"),
        ("D-80331", "DE", "80331"),
        ("8010", "AT", "8010"),
        ("210 00", "Sweden", "21000"),
        (600001, "JP", None),
        ("060-0001", "JP", "0600001"),
        (1310100, "BR", None),
        ("01310-100", "BR", "01310100"),
        ("K1A 0B1", "CA", "k1a0b1"),
    ],
    ids=repr,
)
def test_a_postcode_that_lost_a_zero_or_gained_one_is_left_out(
    given: Any, country: str | None, clear: str | None
) -> None:
    more = {} if country is None else {"country": country}
    assert told("zp", given, **more) == (clear and sha(clear))


@pytest.mark.parametrize(
    ("given", "country", "clear"),
    [
        ("CA - California", "US", "ca"),
        ("CA \u2013 California", None, "ca"),
        ("California (CA)", "US", "ca"),
        ("NY, New York", "US", "ny"),
        ("CA-California", "US", "ca"),
        ("California, USA", "US", "ca"),
        ("US-CA", "US", "ca"),
        ("CA - Nevada", "US", None),
        ("Kansas City, MO", "US", None),
        ("ZZ", "US", None),
        ("Bayern", "US", None),
        ("AE", "US", "ae"),
        ("Bayern", None, "bayern"),
        ("BY - Bayern", "DE", "bayern"),
        ("Castilla - La Mancha", "ES", "castillalamancha"),
        ("Rheinland-Pfalz", "DE", "rheinlandpfalz"),
    ],
    ids=repr,
)
def test_a_state_is_one_code_or_one_name(
    given: str, country: str | None, clear: str | None
) -> None:
    more = {} if country is None else {"country": country}
    assert told("st", given, **more) == (clear and sha(clear))


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("United States of America (the)", "us"),
        ("Netherlands (the)", "nl"),
        ("Bahamas, the", "bs"),
        ("Congo (the Democratic Republic of the)", "cd"),
        ("Korea (the Republic of)", "kr"),
        ("Iran (Islamic Republic of)", "ir"),
        ("United Kingdom of Great Britain and Northern Ireland (the)", "gb"),
        ("Kosovo", "xk"),
        ("XK", "xk"),
        ("Republic of Kosovo", "xk"),
        ("DE - Germany", "de"),
        ("Germany (DE)", "de"),
        ("Georgia, USA", None),
        ("DE - France", None),
        ("the", None),
    ],
)
def test_a_country_is_found_however_lists_write_it(given: str, code: str | None) -> None:
    assert told("country", given) == (code and sha(code))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("10.0.0.5", None),
        ("fe80::1%eth0", None),
        ("100.64.0.1", None),
        ("::1", None),
        ("0.0.0.0", None),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("::ffff:10.0.0.5", None),
        ("203.0.113.5:443", "203.0.113.5"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        (" 2001:DB8::7 ", "2001:db8::7"),
        ("203.0.113.5.AQQAAQMC", "203.0.113.5"),
        ("2001:db8::7.AQQAAQMC", "2001:db8::7"),
        (ip_address("203.0.113.5"), "203.0.113.5"),
        ("203.0.113.5, 10.0.0.5", None),
        ("1" * 500, None),
    ],
    ids=repr,
)
def test_a_given_address_is_read_by_the_rules_of_the_connection(
    given: Any, kept: str | None
) -> None:
    hashed, left_out = UserData(client_ip_address=given).hashed()
    assert hashed.get("client_ip_address") == kept
    assert (left_out == []) is (kept is not None)


#: The float 2**53 may have been 2**53 + 1.
_EXACT = st.integers(0, 2**53 - 1)
WHOLE = _EXACT | _EXACT.map(Decimal) | _EXACT.map(float)


@given(st.sampled_from(HASHED), WHOLE, st.sampled_from(["US", "DE", "BR"]))
def test_every_kind_of_number_is_normalised_alike(key: str, value: Any, region: str) -> None:
    assert told(key, value, region) == told(key, int(value), region)


@given(st.sampled_from(["st", "zp", "country", "ph"]), st.text(), st.sampled_from(["US", "DE"]))
def test_what_was_normalised_is_normal(key: str, value: str, region: str) -> None:
    once = normalize(key, value, region, region)
    assert (
        once is None or normalize(key, f"+{once}" if key == "ph" else once, region, region) == once
    )
