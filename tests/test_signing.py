"""Minting: event_ids that only this site can make, checked without a database."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware.signing import Minter, TextSigner
from tests.support.configs import SECRET

OTHER = "another-secret-for-tests-of-32-characters-and-more"
NOW = 1_800_000_000.0


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
    first, second = Minter([SECRET]), Minter([SECRET, OTHER])
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
