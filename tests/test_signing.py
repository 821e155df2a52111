"""Signing: what only this site can make, checked without a database, and what its keys hide."""

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware.signing import (
    CARRIED,
    VISITOR,
    Minter,
    TextSigner,
    ValueDigest,
    fingerprint,
    login_signer,
    sign_alert,
    token_mark,
)
from tests.support.configs import SECRET

OTHER = "another-secret-for-tests-of-32-characters-and-more"
NOW = 1_800_000_000.0
digest = ValueDigest(["first secret of the site", "an older one"])


@given(st.text(min_size=1, max_size=50), st.one_of(st.none(), st.text(), st.integers()))
def test_an_event_id_is_short_safe_in_urls_and_cookies_and_verifies(
    name: str, key: str | int | None
) -> None:
    event_id = Minter([SECRET]).mint(name, NOW, key)
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", event_id)
    assert Minter([SECRET]).verifies(event_id, name)


def test_event_ids_sort_by_time() -> None:
    minter = Minter([SECRET])
    times = [1.0, 1e9, NOW, NOW + 0.002, NOW + 0.004, NOW + 1, 4e9]
    ids = [minter.mint("Lead", moment) for moment in times]
    assert ids == sorted(ids)


def test_two_events_of_the_same_moment_differ() -> None:
    minter = Minter([SECRET])
    assert len({minter.mint("Lead", NOW) for _ in range(1000)}) == 1000


def test_the_same_dedupe_key_and_name_give_the_same_event_id_in_every_process() -> None:
    first, second = Minter([SECRET]), Minter([OTHER, SECRET])
    assert first.mint("Purchase", NOW, "7") == second.mint("Purchase", NOW + 99, 7)


def test_another_name_or_key_gives_another_event_id() -> None:
    minter = Minter([SECRET])
    ids = {minter.mint(n, NOW, k) for n in ("Purchase", "Lead") for k in ("7", "8")}
    assert len(ids) == 4


def test_an_event_id_proves_one_event_name_only() -> None:
    minter = Minter([SECRET])
    assert not minter.verifies(minter.mint("PageView", NOW), "Purchase")


def test_an_old_key_still_verifies_and_the_first_one_signs() -> None:
    old = Minter([OTHER]).mint("Lead", NOW)
    ring = Minter([SECRET, OTHER])
    assert ring.verifies(old, "Lead")
    assert Minter([SECRET]).verifies(ring.mint("Lead", NOW), "Lead")
    assert not Minter([SECRET]).verifies(old, "Lead")


@given(st.integers(0, 63), st.sampled_from("ABCXYZabc019-_."))
def test_no_changed_character_goes_unnoticed(place: int, character: str) -> None:
    minter = Minter([SECRET])
    event_id = minter.mint("Lead", NOW, "order")
    forged = event_id[:place] + character + event_id[place + 1 :]
    assert forged == event_id or not minter.verifies(forged, "Lead")


@given(st.text())
def test_no_text_makes_verifying_raise(text: str) -> None:
    assert not Minter([SECRET]).verifies(text, text)


@pytest.mark.parametrize("purpose", ["visitor", "report"])
def test_a_text_signed_for_one_purpose_does_not_verify_for_another(purpose: str) -> None:
    signed = TextSigner([SECRET], purpose).sign("text")
    assert TextSigner([SECRET], purpose).unsign(signed) == "text"
    assert TextSigner([SECRET], "other").unsign(signed) is None
    assert TextSigner([OTHER], purpose).unsign(signed) is None


def test_a_signature_has_one_spelling() -> None:
    minter = Minter([SECRET])
    event_id = minter.mint("Lead", 1.0)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spellings = [event_id[:-1] + last for last in letters]
    assert [one for one in spellings if minter.verifies(one, "Lead") and one != event_id] == []


# -- made by the code of 2026-11-27: what browsers and order rows keep must go on verifying ------


def test_an_event_id_of_an_earlier_version_verifies() -> None:
    minter = Minter([OTHER, SECRET])
    made = "t-PBNM40v2mhllc76Fo8.qUiSsyk-asEWkNpN8_McNs0aUkihLMueQEovQY4keqo"
    assert minter.verifies(made, "Purchase")
    assert minter.minted_at(made) == NOW + 0.123


def test_a_dedupe_key_gives_the_event_id_that_it_gave_in_an_earlier_version() -> None:
    minter = Minter([SECRET])
    assert minter.mint("Purchase", NOW, "order-7") == (
        "kaCrKHWoVtpfwC6UKtw-.nbPBbiopOfOkslOVW691KWWBevLYpGqrlKL7Y3t1VQY"
    )
    assert minter.mint("Lead\udc80é", NOW, "x") == (
        "kMkQdLz1V8yZ83JtAkDn.clx49gFMxKcJlDBjgNR2ke4Irr3Ye-u3mRJ4xTOrYW8"
    )


@pytest.mark.parametrize(
    ("signer", "made"),
    [
        (
            TextSigner([OTHER, SECRET], VISITOR),
            'v1.{"fbp":"fb.1.1.2","consent":"limited"}.ZI-y0ICF6XiA24Xzx40SX-qiHQSgaSGiiFeQh-EEyhw',
        ),
        (
            TextSigner([OTHER, SECRET], CARRIED),
            "eyJ0IjoxfQ.qmcIXnaIr-uygYgSeBv18BuqfbrnImk4YJ6jETs4lpI",
        ),
        (
            login_signer([OTHER, SECRET], "a report token"),
            "1800043200.QMxpYZXFQhX8TLsdCSnguk6GVG9jTnx2yMzFs3Quyj4",
        ),
    ],
)
def test_a_text_signed_by_an_earlier_version_verifies(signer: TextSigner, made: str) -> None:
    assert signer.unsign(made) == made.rpartition(".")[0]


def test_a_value_and_an_alert_are_signed_as_in_an_earlier_version() -> None:
    assert ValueDigest([SECRET])(12.5, "EUR") == "b67402134ddeafe4"
    assert sign_alert(SECRET, b"{}", NOW) == (
        "t=1800000000,v1=6bc8a6dcc304186cb8e5bf93dfafb5e764fc674aa3084843c8b0bbccfa484ffc"
    )


def test_a_login_ends_with_its_report_token() -> None:
    login = login_signer([SECRET], "a report token").sign("1")
    assert login_signer([SECRET], "another report token").unsign(login) is None


# -- what the store keeps ------------------------------------------------------------------------


def test_a_fingerprint_and_a_mark_tell_secrets_apart_and_show_nothing() -> None:
    marks = [
        fingerprint(SECRET),
        fingerprint(OTHER),
        token_mark(SECRET, "t"),
        token_mark(OTHER, "t"),
    ]
    assert len({*marks, token_mark(SECRET, "u")}) == 5
    assert all(re.fullmatch("[0-9a-f]{16}", mark) for mark in marks)


@pytest.mark.parametrize("same", ["12.5", "12.50", " 12.500 ", Decimal("12.50"), "1.25e1"])
def test_equal_numbers_have_one_digest(same: object) -> None:
    assert digest(same, "EUR") == digest(12.5, "eur")


@pytest.mark.parametrize("other", [(12.51, "EUR"), (12.5, "USD"), (12.5, None), (-12.5, "EUR")])
def test_another_value_or_currency_has_another_digest(other: tuple[object, object]) -> None:
    assert digest(*other) != digest(12.5, "EUR")


def test_a_digest_is_short_and_shows_nothing() -> None:
    found = digest(99.99, "EUR")

    assert len(found) == 16
    assert set(found) <= set("0123456789abcdef")
    assert found != ValueDigest(["another secret of a site"])(99.99, "EUR")


def test_zero_is_a_value() -> None:
    assert digest(0, "EUR") == digest("-0.00", "EUR") != ""


@pytest.mark.parametrize(
    "value", [None, "", "12,50", "abc", float("nan"), float("inf"), True, [], "1e9999999999"]
)
def test_what_is_no_number_has_no_digest(value: object) -> None:
    assert digest(value, "EUR") == ""
