"""Carrying: what a redirect packs is what the next page unpacks, and nothing else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware.capture.carrying import (
    COOKIE_SECONDS,
    Carrier,
    as_header,
    is_navigation,
    is_scripted,
    set_cookie,
)
from capi_middleware.errors import BadBeacon
from capi_middleware.events import PageEvent
from capi_middleware.signing import TextSigner
from tests.support.configs import SECRET

FBP = "fb.1.1700000000000.123456789"
NOW = 1_800_000_000.0
CARRIER = Carrier(TextSigner([SECRET], "carried"))


def event(number: int = 1, **data: Any) -> PageEvent:
    return PageEvent("Purchase", f"t{number:063}", data, ("1234567890",))


@given(st.lists(st.text(max_size=20), max_size=3), st.booleans())
def test_what_was_packed_is_unpacked(texts: list[str], scripted: bool) -> None:
    events = [event(n, content_name=text) for n, text in enumerate(texts)]
    value, n = CARRIER.pack(events, now=NOW, scripted=scripted, owner=FBP)
    found, for_script, _ = CARRIER.unpack(value, now=NOW + 1, owner=FBP)
    assert (len(found), for_script) == (n, scripted)
    assert [one.event_id for one in found] == [one.event_id for one in events]


def test_a_long_event_leaves_all_but_its_value_at_home() -> None:
    contents = [{"id": "x" * 20, "quantity": n} for n in range(30)]
    value, n = CARRIER.pack([event(contents=contents, value=9.5, currency="EUR")], now=NOW,
                            scripted=False, owner=FBP)  # fmt: skip
    assert n == 1
    assert CARRIER.unpack(value, now=NOW, owner=FBP)[0][0].custom_data == {
        "value": 9.5,
        "currency": "EUR",
    }


def test_the_cookie_never_grows_beyond_its_limit() -> None:
    value, n = CARRIER.pack([event(k) for k in range(60)], now=NOW, scripted=False, owner=FBP)
    assert len(value) <= 1500
    assert 5 <= n < 60


def test_a_header_never_grows_beyond_its_limit() -> None:
    value, n = as_header([event(k, content_name="ü" * 100) for k in range(60)])
    assert len(value) <= 4000
    assert len(json.loads(value)) == n < 60


@given(st.text(max_size=300))
def test_what_we_did_not_sign_is_refused(text: str) -> None:
    with pytest.raises(BadBeacon):
        CARRIER.unpack(text, now=NOW, owner=FBP)


@pytest.mark.parametrize("seconds", [COOKIE_SECONDS + 1, -COOKIE_SECONDS - 1])
def test_what_is_too_old_is_refused(seconds: float) -> None:
    value, _ = CARRIER.pack([event()], now=NOW, scripted=False, owner=FBP)
    with pytest.raises(BadBeacon):
        CARRIER.unpack(value, now=NOW + seconds, owner=FBP)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"sec-fetch-dest": "empty"}, True),
        ({"sec-fetch-dest": "document", "x-requested-with": "app.browser"}, False),
        ({"sec-fetch-dest": "empty", "sec-fetch-mode": "navigate"}, False),
        ({"x-requested-with": "com.facebook.katana"}, False),
        ({"x-requested-with": "com.facebook.katana", "hx-request": "true"}, True),
        ({"x-requested-with": "XMLHttpRequest"}, True),
        ({"hx-request": "true"}, True),
        ({}, False),
    ],
)
def test_a_scripts_request_is_told_from_a_visit(headers: dict[str, str], expected: bool) -> None:
    assert is_scripted(headers) is expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"accept": "text/html, application/xhtml+xml"}, True),
        ({"accept": "text/html", "x-requested-with": "com.instagram.android"}, True),
        ({"accept": "text/html", "x-requested-with": "XMLHttpRequest"}, False),
        ({"accept": "text/html", "turbo-frame": "cart"}, False),
        ({"accept": "*/*"}, False),
        ({"hx-request": "true", "accept": "text/html"}, False),
        ({"hx-request": "true", "hx-boosted": "true"}, True),
    ],
)
def test_a_navigation_of_a_script_is_told_from_a_part_of_a_page(
    headers: dict[str, str], expected: bool
) -> None:
    assert is_navigation(headers) is expected


def test_the_cookie_is_for_the_server_alone() -> None:
    assert set_cookie("v", "", secure=True) == (
        b"capi_next=v; Max-Age=300; Path=/; HttpOnly; SameSite=Lax; Secure"
    )
    assert b"Max-Age=0" in set_cookie("", "", secure=False)
