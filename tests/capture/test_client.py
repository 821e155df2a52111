"""The client: the visitor's address and the site's, through proxies that are believed or not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware.capture.client import Client, Hosts, Proxies, read_client
from capi_middleware.errors import ConfigError

PROXIES = Proxies.of(["10.0.0.0/8", "2001:db8:ffff::/48"])
HOST = {"host": "internal:8000"}


def ip(peer: str | None, **headers: str) -> str | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_client(peer, "http", named, PROXIES).ip


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("203.0.113.7", "", "203.0.113.7"),
        ("203.0.113.7", "9.9.9.9", "203.0.113.7"),
        ("10.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("10.0.0.1", "1.1.1.1, 9.9.9.9, 10.0.0.2", "9.9.9.9"),
        ("10.0.0.1", "9.9.9.9:4711", "9.9.9.9"),
        ("10.0.0.1", "[2606:4700::1111]:443", "2606:4700::1111"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("2001:db8:ffff::1", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "9.9.9.9, nonsense", None),
        ("10.0.0.1", "9.9.9.9, 192.168.0.3", None),
        ("10.0.0.1", "", None),
        ("192.168.0.7", "", None),
        ("100.64.0.1", "", None),
        ("0.0.0.0", "", None),
        ("fe80::1", "", None),
        ("::1", "", None),
        ("::ffff:8.8.8.8", "", "8.8.8.8"),
        (None, "9.9.9.9", None),
        ("testclient", "9.9.9.9", None),
    ],
)
def test_only_trusted_proxies_are_believed(
    peer: str | None, forwarded: str, found: str | None
) -> None:
    assert ip(peer, x_forwarded_for=forwarded) == found


@pytest.mark.parametrize(
    ("forwarded", "found"),
    [
        ("for=9.9.9.9", "9.9.9.9"),
        ('for="[2606:4700::1111]:47"; proto=https', "2606:4700::1111"),
        ("for=1.1.1.1, for=9.9.9.9;by=10.0.0.9, For=10.0.0.2", "9.9.9.9"),
        ("for=unknown", None),
        ("for=_hidden", None),
        ("=;,for", None),
    ],
)
def test_the_forwarded_header_is_read_from_the_right_too(forwarded: str, found: str | None) -> None:
    assert ip("10.0.0.1", forwarded=forwarded) == found


def test_a_unix_socket_is_believed_where_the_site_says_so() -> None:
    headers = {"x-forwarded-for": "9.9.9.9"}
    assert read_client(None, "http", headers, Proxies.of(["unix"])).ip == "9.9.9.9"
    assert read_client("", "http", headers, Proxies.of(["unix"])).ip == "9.9.9.9"
    assert read_client("8.8.8.8", "http", headers, Proxies.of(["unix"])).ip == "8.8.8.8"


def test_scheme_and_host_are_those_of_the_browser() -> None:
    headers = {**HOST, "x-forwarded-for": "9.9.9.9", "x-forwarded-proto": "https",
               "x-forwarded-host": "shop.example"}  # fmt: skip
    found = read_client("10.0.0.1", "http", headers, PROXIES)
    assert found == Client("9.9.9.9", "https", "shop.example")
    assert read_client("8.8.8.8", "http", headers, PROXIES) == Client(
        "8.8.8.8", "http", "internal:8000"
    )


@pytest.mark.parametrize(
    ("headers", "country"),
    [
        ({"cf-ipcountry": "DE"}, "DE"),
        ({"cloudfront-viewer-country": "br"}, "BR"),
        ({"x-vercel-ip-country": "GB"}, "GB"),
        ({"x-appengine-country": "ZZ"}, ""),
        ({"cf-ipcountry": "XX"}, ""),
        ({"cf-ipcountry": "T1"}, ""),
        ({"x-country-code": "Germany"}, ""),
        ({"x-country-code": "\u00dfa"}, ""),
        ({}, ""),
    ],
)
def test_a_trusted_proxy_tells_the_country(headers: dict[str, str], country: str) -> None:
    told = {**HOST, "x-forwarded-for": "9.9.9.9", **headers}
    assert read_client("10.0.0.1", "http", told, PROXIES).country == country
    assert not read_client("8.8.8.8", "http", told, PROXIES).country
    assert not read_client("10.0.0.1", "http", told, Proxies()).country


@pytest.mark.parametrize("peer", ["10.0.0.1", ""])
def test_of_several_the_last_scheme_and_host_count_that_a_proxy_has_added(peer: str) -> None:
    headers = {**HOST, "x-forwarded-for": "6.6.6.6, 9.9.9.9", "x-forwarded-proto": "http, https",
               "x-forwarded-host": "evil.example, shop.example"}  # fmt: skip
    proxies = Proxies.of(["10.0.0.0/8", "unix"])
    assert read_client(peer, "http", headers, proxies) == Client("9.9.9.9", "https", "shop.example")


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("shop.example", True), ("SHOP.example:8443", True), ("pay.example", True),
        ("a.b.pay.example", True), ("www.shop.example", False), ("xpay.example", False),
        ("shop.example.evil.example", False), ("", False), ("[::1]:80", True), ("[::2]", False),
    ],
)  # fmt: skip
def test_hosts_are_the_site_s_where_they_are_named(host: str, is_own: bool) -> None:
    assert Hosts.of(["Shop.example", ".pay.example", "[::1]"]).has(host) == is_own
    assert Hosts.of([]).has(host)


def test_forwarded_tells_scheme_and_host_of_the_hop_that_saw_the_browser() -> None:
    headers = {**HOST, "forwarded": 'for=6.6.6.6;host=evil.example, for=9.9.9.9;proto=https;'
               'host="shop.example", for=10.0.0.3;proto=http'}  # fmt: skip
    found = read_client("10.0.0.1", "http", headers, PROXIES)
    assert found == Client("9.9.9.9", "https", "shop.example")


def test_a_network_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="trusted_proxies"):
        Proxies.of(["ten"])


NAMES = ["x-forwarded-for", "forwarded", "x-forwarded-proto", "x-forwarded-host", "host"]
HEADERS = st.dictionaries(st.sampled_from(NAMES), st.text())


@given(st.text(), HEADERS, st.sampled_from(["10.0.0.1", None, "8.8.8.8"]))
def test_no_header_raises(scheme: str, headers: dict[str, Any], peer: str | None) -> None:
    found = read_client(peer, scheme, headers, PROXIES)
    assert peer != "8.8.8.8" or found.ip == "8.8.8.8"
