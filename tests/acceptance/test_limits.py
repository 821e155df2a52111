"""What a visitor sends is cut to its limit before it is looked at; up to the limit it is whole."""

import json
from typing import Any

import pytest

from capi_middleware import CAPI
from capi_middleware.capture.client import Proxies, headers_of, read_client
from capi_middleware.capture.reading import BodyTee, Fields
from capi_middleware.capture.urls import scrub_url, source_url
from capi_middleware.config.expressions import MISSING
from capi_middleware.meta.custom_data import clean
from capi_middleware.wsgi import scope_of
from tests.acceptance.test_growth import Site
from tests.support.configs import make_config
from tests.support.exchanges import environ_for, scope_for

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=x"


def scope_with(**headers: str) -> dict[str, Any]:
    return scope_for({"method": "GET", "path": "/", "scheme": "https", "headers": headers})


def read(kind: str, body: bytes, root: str) -> Any:
    """The field "a" of a body that comes in pieces."""
    scope = scope_with(**{"content-type": kind})
    tee = BodyTee(scope, {"a"})
    for at in range(0, len(body), 1000):
        tee.add(body[at : at + 1000])
    return Fields(scope, headers_of(scope), tee)(root, ("a",))


@pytest.mark.parametrize("letter", ["a", "é", "漢", "%40"])
def test_a_form_field_is_read_to_4_kb(letter: str) -> None:
    text = letter.replace("%40", "@")
    for n in (4095, 4096, 4097, 7000):
        assert read(FORM, f"a={letter * n}&b=c".encode(), "form") == (text * n)[:4096]
        part = f'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n{text * n}\r\n--x--\r\n'
        assert read(MULTIPART, part.encode(), "form") == (text * n)[:4096]
        whole = json.dumps({"a": text * n}, ensure_ascii=False).encode()
        assert read("application/json", whole, "json") == (text * n)[:4096]


def test_a_body_is_kept_to_64_kb() -> None:
    for n in (65536 - 8, 65536 - 7):
        body = b'{"a":"%b"}' % (b"a" * n)
        found = read("application/json", body, "json")
        assert found == ("a" * 4096 if len(body) <= 65536 else MISSING)


@pytest.mark.parametrize("n", [8191, 8192, 8193, 60_000])
def test_a_header_is_read_to_8_kb_at_both_doors(n: int) -> None:
    text = "a" * n
    asgi = headers_of(scope_with(**{"x-a": text}))
    given = {"method": "GET", "path": "/", "scheme": "https", "headers": {"x-a": text}}
    wsgi = headers_of(scope_of(environ_for(given)))
    assert asgi["x-a"] == wsgi["x-a"] == text[:8192]


def test_of_long_cookies_the_whole_ones_are_read() -> None:
    value = "x=" + "a" * 8170 + "; _fbp=fb.1.1700000000000.123456789; y=1"
    assert headers_of(scope_with(cookie=value))["cookie"] == "x=" + "a" * 8170
    scope = {**scope_with(), "headers": [(b"cookie", b"a=" + b"b" * 5000)] * 3}
    assert headers_of(scope)["cookie"] == "a=" + "b" * 5000


@pytest.mark.parametrize("name", ["x-forwarded-for", "forwarded"])
def test_a_visitor_cannot_push_a_proxy_out_of_what_is_read(name: str) -> None:
    start = "for=" if name == "forwarded" else ""
    forged = ", ".join([f"{start}6.6.6.6"] * 6000)
    headers = headers_of(scope_with(**{name: f"{forged}, {start}203.0.113.77"}))
    client = read_client("10.0.0.1", "https", headers, Proxies.of(["10.0.0.0/8"]))
    assert client.ip == "203.0.113.77"


def test_an_address_is_read_to_8_kb() -> None:
    for n in (8185, 8186, 8187):
        query = b"sort=" + b"a" * (n - 5) + b"&page=7"
        url = source_url("https", "a.example", b"/", query) or ""
        assert ("page=7" in url) == (len(query) <= 8192)
        assert "page=7" not in (scrub_url(f"https://a.example/?{'x' * n}&page=7") or "")
        fields = Fields({"query_string": query}, {}, None)
        assert (fields("query", ("page",)) == "7") == (len(query) <= 8192)


def test_text_of_custom_data_is_kept_to_1_kb() -> None:
    for n in (1000, 1001, 60_000):
        cleaned, wrong = clean("Lead", {"content_name": "b " * n, "b " * n: "x"})
        assert cleaned == {"content_name": ("b " * n)[:1000], ("b " * n)[:1000]: "x"}
        assert wrong == []


def test_a_user_agent_is_kept_to_1_kb() -> None:
    capi = CAPI(make_config())
    for n in (1023, 1024, 1025, 8000):
        exchange = capi.open(scope_with(**{"user-agent": "a" * n, "host": "a.example"}))
        visitor = exchange.visit().visitor(sets_cookies=True)
        assert visitor.client_user_agent == ("a" * n)[:1024]


@pytest.mark.parametrize("more", [0, 1])
def test_a_beacon_is_read_to_64_kb(more: int) -> None:
    site = Site()
    body = b'{"e":[]}'
    body += b" " * (65536 - len(body) + more)
    kind = {"content-type": "text/plain"}
    request = {"method": "POST", "path": "/_capi/b", "body": body, "headers": kind}
    assert site.status(request) == (413 if more else 400)
