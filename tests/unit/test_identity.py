"""Identity: Meta's cookies, the visitor's address, and URLs without secrets."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware.capture.identity import (
    Identity,
    client_ip,
    cookie_domain,
    identify,
    parse_proxies,
    scrub_url,
    set_cookie_header,
    source_url,
)
from capi_middleware.errors import ConfigError

NOW = 1_700_000_000_123


def ask(**given: Any) -> Identity:
    defaults: dict[str, Any] = {
        "cookie_headers": [],
        "query": "",
        "referer": None,
        "host": "www.example.com",
        "scheme": "https",
        "now_ms": NOW,
    }
    return identify(**{**defaults, **given})


def test_existing_cookies_stay_as_they_are_with_four_or_five_segments() -> None:
    header = "_fbp=fb.1.1700000000000.123; _fbc=fb.1.1700000000000.AbC.AQICAQMC"
    found = ask(cookie_headers=[header])
    assert (found.fbp, found.fbc) == ("fb.1.1700000000000.123", "fb.1.1700000000000.AbC.AQICAQMC")
    assert found.new_cookies == []


def test_the_same_click_keeps_its_time_and_another_one_gets_its_own() -> None:
    header = "_fbp=fb.1.1700000000000.1; _fbc=fb.1.1600000000000.Same"
    assert ask(cookie_headers=[header], query="fbclid=Same").fbc == "fb.1.1600000000000.Same"
    assert ask(cookie_headers=[header], query="fbclid=same").fbc == f"fb.1.{NOW}.same"


@pytest.mark.parametrize("click", ["a%0d%0aSet-Cookie:x", "", "a;b", "a b", "x" * 501, "%00"])
def test_a_click_id_that_is_none_makes_no_cookie(click: str) -> None:
    assert ask(query=f"fbclid={click}").fbc is None


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("shop.example.co.uk", "example.co.uk"),
        ("WWW.Example.com:8000", "example.com"),
        ("example.com.", "example.com"),
        ("localhost:8000", None),
        ("127.0.0.1", None),
        ("[::1]:80", None),
        ("co.uk", None),
        ("", None),
        ("a b", None),
    ],
)
def test_the_cookie_domain_is_the_registrable_one(host: str, domain: str | None) -> None:
    assert cookie_domain(host) == domain


def test_the_index_counts_the_dots_of_the_domain() -> None:
    found = ask(host="shop.example.co.uk", query="fbclid=A")
    assert found.fbc == f"fb.2.{NOW}.A"
    assert str(found.fbp).startswith("fb.2.")


def test_the_pixel_can_read_the_cookie() -> None:
    header = set_cookie_header("_fbp", "fb.1.1.2", "example.com", secure=True).decode()
    assert "HttpOnly" not in header
    assert "Max-Age=7776000" in header
    assert "Domain=example.com" in header
    assert header.endswith("Secure")


PROXIES = parse_proxies(["10.0.0.0/8", "2001:db8::/32"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("8.8.8.8", "", "8.8.8.8"),
        ("8.8.8.8", "9.9.9.9", "8.8.8.8"),
        ("10.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("10.0.0.1", "1.1.1.1, 9.9.9.9, 10.0.0.2", "9.9.9.9"),
        ("10.0.0.1", "9.9.9.9:4711", "9.9.9.9"),
        ("10.0.0.1", "[2606:4700::1111]:443", "2606:4700::1111"),
        ("10.0.0.1", "nonsense", None),
        ("10.0.0.1", "", None),
        ("192.168.0.7", "", None),
        ("::ffff:8.8.8.8", "", "8.8.8.8"),
        (None, "9.9.9.9", None),
    ],
)
def test_only_trusted_proxies_are_believed(
    peer: str | None, forwarded: str, found: str | None
) -> None:
    assert client_ip(peer, {"x-forwarded-for": forwarded}, PROXIES) == found


def test_a_network_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError):
        parse_proxies(["ten"])


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        (b"a=1&token=x", "?a=1"),
        (b"PASSWORD=x", ""),
        (b"q=jane%40example.com&b=2", "?b=2"),
        (b"j=eyJhbGciOi.eyJzdWIi.sig", ""),
        (b"a=%C3%A9", "?a=%C3%A9"),
    ],
)
def test_secrets_in_a_query_never_leave(query: bytes, kept: str) -> None:
    assert source_url("https", "Shop.example", b"/p", query) == f"https://shop.example/p{kept}"


@pytest.mark.parametrize(
    "url", [None, "", "android-app://x", "https://u:p@x.de/", "https://[", "x"]
)
def test_a_referrer_that_is_no_plain_address_is_left_out(url: str | None) -> None:
    assert scrub_url(url) is None


def test_a_referrer_loses_its_fragment() -> None:
    assert scrub_url("https://x.de/a?b=1#c") == "https://x.de/a?b=1"


@given(st.text(), st.text(), st.text(), st.text())
def test_nothing_that_a_visitor_sends_raises_or_breaks_a_header(
    cookie: str, query: str, referer: str, host: str
) -> None:
    found = ask(cookie_headers=[cookie], query=query, referer=referer, host=host)
    for value in (found.fbp, found.fbc, found.domain):
        assert value is None or not set("\r\n; \x00") & set(value)
    url = source_url(
        "https", host, query.encode("utf-8", "replace"), cookie.encode("utf-8", "replace")
    )
    assert url is None or url.isascii()
