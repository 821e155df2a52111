"""Addresses of pages: as the browser sees them, without secrets and personal data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware.capture.urls import scrub_url, source_url


def url(path: bytes = b"/p", query: bytes = b"", drop: tuple[str, ...] = ()) -> str | None:
    return source_url("https", "Shop.example", path, query, drop)


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        (b"a=1&token=x", "?a=1"),
        (b"PASSWORD=x", ""),
        (b"q=jane%40example.com&b=2", "?b=2"),
        (b"q=jane%2540example.com&b=2", "?b=2"),
        (b"j=eyJhbGciOi.eyJzdWIi.sig", ""),
        (b"a=%C3%A9&b=%20c", "?a=%C3%A9&b=%20c"),
        (
            b"user[email]=x&user[plan]=pro",
            "?user%5Bplan%5D=pro",
        ),
        (b"customer_phone=1&first_name=Jane&utm_source=fb", "?utm_source=fb"),
        (b"call=%2B49+30+1234567&id=1234567890", "?id=1234567890"),
        (b"next=%2Freset%3Ftoken%3Dabc&x=1", "?x=1"),
        (b"fbclid=AbC&utm_campaign=a.b", "?fbclid=AbC&utm_campaign=a.b"),
        (b"flag&empty=", "?flag&empty="),
        (b"&&", ""),
    ],
)
def test_secrets_in_a_query_never_leave_and_the_rest_stays_as_it_is(
    query: bytes, kept: str
) -> None:
    assert url(query=query) == f"https://shop.example/p{kept}"


def test_a_site_names_more_parameters_to_drop() -> None:
    assert url(query=b"Voucher=1&b=2", drop=("voucher",)) == "https://shop.example/p?b=2"


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        (b"/u/jane@example.com/orders", "/u/-/orders"),
        (b"/u/jane%40example.com", "/u/-"),
        (b"/verify/eyJhbGciOi.eyJzdWIi.sig", "/verify/-"),
        (b"/@shop/a%20b", "/@shop/a%20b"),
        (b"/caf\xc3\xa9", "/caf%C3%A9"),
    ],
)
def test_personal_parts_of_a_path_never_leave(path: bytes, kept: str) -> None:
    assert url(path) == f"https://shop.example{kept}"


def test_an_endless_query_loses_what_does_not_fit_and_keeps_its_campaign() -> None:
    endless = b"a=" + b"red-chair-" * 300 + b"&b=1&utm_source=fb&c=" + b"blue-" * 400
    assert url(query=endless) == "https://shop.example/p?b=1&utm_source=fb"


@pytest.mark.parametrize(
    "address", [None, "", "android-app://x", "https://u:p@x.de/", "https://[", "x"]
)
def test_a_referrer_that_is_no_plain_address_is_left_out(address: str | None) -> None:
    assert scrub_url(address) is None


def test_a_referrer_loses_its_fragment() -> None:
    assert scrub_url("https://x.de/a?b=1#c") == "https://x.de/a?b=1"


@given(st.text(), st.binary(), st.binary())
def test_whatever_a_visitor_sends_the_address_is_plain_ascii_or_none(
    host: str, path: bytes, query: bytes
) -> None:
    made = source_url("https", host, path, query)
    assert made is None or (made.isascii() and made.isprintable() and " " not in made)


@pytest.mark.parametrize(
    "path", [b"@evil.example/x", b":80@evil.example", b".evil.example", b"*", b""]
)
def test_what_begins_with_no_slash_names_no_other_host(path: bytes) -> None:
    url = source_url("https", "shop.example", path, b"") or ""
    assert url.startswith("https://shop.example/")


def test_a_host_that_no_name_server_knows_is_none() -> None:
    assert source_url("https", f"{'a' * 300}.example", b"/", b"") is None
