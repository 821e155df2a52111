"""Identity: fbp and fbc, as Meta's pixel and its parameter builder would have them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware.capture.identity import (
    Identity,
    cookie_domain,
    identify,
    set_cookie_header,
)

NOW = 1_700_000_000_123


def ask(**given: Any) -> Identity:
    defaults: dict[str, Any] = {
        "cookie_header": "",
        "query": "",
        "referer": None,
        "host": "www.example.com",
        "now_ms": NOW,
    }
    return identify(**{**defaults, **given})


def test_existing_cookies_stay_as_they_are_with_four_or_five_segments() -> None:
    header = "_fbp=fb.1.1700000000000.123; _fbc=fb.1.1700000000000.AbC.AQICAQMC"
    found = ask(cookie_header=header)
    assert (found.fbp, found.fbc) == ("fb.1.1700000000000.123", "fb.1.1700000000000.AbC.AQICAQMC")
    assert found.new_cookies == []


def test_the_same_click_keeps_its_time_and_another_one_gets_its_own() -> None:
    header = "_fbp=fb.1.1700000000000.1; _fbc=fb.1.1600000000000.Same"
    assert ask(cookie_header=header, query="fbclid=Same").fbc == "fb.1.1600000000000.Same"
    assert ask(cookie_header=header, query="fbclid=same").fbc == f"fb.1.{NOW}.same"


@pytest.mark.parametrize(
    "click", ["a%0d%0aSet-Cookie:x", "", "a;b", "a b", "x" * 2001, "%00", "." * 300]
)
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


@pytest.mark.parametrize("before", ["", ";", "a=1;", "a=1; \t", "x_fbp=y;", " "])
def test_a_cookie_is_found_where_its_name_begins(before: str) -> None:
    assert (
        ask(cookie_header=f"{before}_fbp=fb.1.1600000000000.7; z=1").fbp == "fb.1.1600000000000.7"
    )


@pytest.mark.parametrize("before", ["x", "a=1", "a=", "a=1 ", "-"])
def test_the_end_of_another_cookies_name_is_no_cookie_of_ours(before: str) -> None:
    found = ask(cookie_header=f"{before}_fbp=fb.1.1600000000000.7")
    assert found.fbp != "fb.1.1600000000000.7"


def test_the_pixel_can_read_the_cookie() -> None:
    header = set_cookie_header("_fbp", "fb.1.1.2", "example.com", secure=True).decode()
    assert "HttpOnly" not in header
    assert "Max-Age=7776000" in header
    assert "Domain=.example.com" in header
    assert header.endswith("Secure")


@given(st.text(), st.text(), st.text(), st.text())
def test_nothing_that_a_visitor_sends_raises_or_breaks_a_header(
    cookie: str, query: str, referer: str, host: str
) -> None:
    found = ask(cookie_header=cookie, query=query, referer=referer, host=host)
    for value in (found.fbp, found.fbc, found.domain):
        assert value is None or not set("\r\n; \x00") & set(value)


@pytest.mark.parametrize(
    "cookie",
    [
        "x.y.z.w",
        "fb.1.1600000000000.Old.zz",
        "fb.1.1600000000000.a.b.AQICAQMC",
        "fb.1.1600000000000.",
        "fb.1.abc.Old",
        "fb.1.1600000000000.a%3Bb",
    ],
)
def test_a_cookie_that_meta_did_not_write_is_absent(cookie: str) -> None:
    assert ask(cookie_header=f"_fbc={cookie}").fbc is None


def test_a_click_of_the_url_goes_before_that_of_the_referrer() -> None:
    found = ask(query="fbclid=Url", referer="https://www.example.com/l?fbclid=Ref")
    assert found.fbc == f"fb.1.{NOW}.Url"
    assert ask(referer="https://shop.example.com/?fbclid=Ref#x").fbc == f"fb.1.{NOW}.Ref"
    assert ask(referer="https://www.example.com/#fbclid=Frag").fbc is None


@pytest.mark.parametrize("referer", ["http://[bad", "www.example.com/l", "?", ""])
def test_a_referrer_that_is_no_address_is_no_error(referer: str) -> None:
    assert ask(referer=referer).fbc is None


GOOD, OTHER = "fb.1.1600000000000.7", "fb.1.1700000000000.8"


@pytest.mark.parametrize("name", ["_fbp", "_fbc"])
@pytest.mark.parametrize("bad", ["", "null", "undefined", "x.y.z.w", OTHER])
def test_of_several_cookies_of_one_name_the_first_good_one_counts(name: str, bad: str) -> None:
    found = ask(cookie_header=f"{name}={GOOD}; {name}={bad}")
    assert (found.fbp if name == "_fbp" else found.fbc) == GOOD
    if bad != OTHER:
        found = ask(cookie_header=f"{name}={bad}; {name}={GOOD}; {name}={bad}")
        assert (found.fbp if name == "_fbp" else found.fbc) == GOOD


@pytest.mark.parametrize(
    ("query", "click"),
    [
        ("fbclid=A&fbclid=B", "A"),
        ("fbclid=&fbclid=B", "B"),
        ("fbclid=a%20b&fbclid=B&fbclid=C", "B"),
        ("FBCLID=A&fbclid=B", "B"),
        ("fbclid=" + "x" * 500, "x" * 500),
        ("fbclid=" + "x" * 2000, "x" * 2000),
    ],
    ids=range(6),
)
def test_the_first_click_of_an_address_counts_however_long(query: str, click: str) -> None:
    made = ask(query=query).fbc
    assert made == f"fb.1.{NOW}.{click}"
    again = ask(cookie_header=f"_fbp={GOOD}; _fbc={made}", query=query)
    assert (again.fbc, again.new_cookies) == (made, [])


@pytest.mark.parametrize(
    "referer",
    [
        "https://www.facebook.com/?fbclid=Ref",
        "https://other.example/?fbclid=Ref",
        "https://www.example.com.evil.example/?fbclid=Ref",
        "https://www.example.com@evil.example/?fbclid=Ref",
        "https://notexample.com/?fbclid=Ref",
        "https://evil.example/www.example.com?fbclid=Ref",
    ],
)
def test_the_referrer_of_another_site_gives_no_click(referer: str) -> None:
    assert ask(referer=referer).fbc is None


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "Shop.Example.com"])
def test_a_referrer_of_the_site_gives_one_wherever_it_runs(host: str) -> None:
    found = ask(host=host, referer=f"http://{host.lower()}/landing?fbclid=Ref")
    assert str(found.fbc).endswith(".Ref")


def test_an_older_click_in_a_referrer_does_not_replace_the_cookie() -> None:
    referer = "https://www.example.com/landing?fbclid=Old"
    found = ask(cookie_header=f"_fbp={GOOD}; _fbc=fb.1.1600000000000.New", referer=referer)
    assert (found.fbc, found.new_cookies) == ("fb.1.1600000000000.New", [])


def test_where_cookies_may_be_withheld_none_is_made() -> None:
    found = ask(withheld=True, query="fbclid=A")
    assert (found.fbp, found.fbc, found.new_cookies) == (None, None, [])
    assert ask(withheld=True, cookie_header=f"_fbp={GOOD}").fbp == GOOD


@pytest.mark.parametrize(
    ("cookie", "connection", "found"),
    [
        ("2001:db8::7", "203.0.113.7", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::8", "2001:db8::7"),
        ("203.0.113.5", "2001:db8::8", "2001:db8::8"),
        ("203.0.113.5.AQQAAQMC", "203.0.113.7", "203.0.113.5"),
        ("2001%3Adb8%3A%3A7", None, "2001:db8::7"),
        ("10.0.0.5", "203.0.113.7", "203.0.113.7"),
        ("nonsense", "203.0.113.7", "203.0.113.7"),
        ("", None, None),
    ],
)
def test_the_address_is_the_best_of_what_browser_and_connection_say(
    cookie: str, connection: str | None, found: str | None
) -> None:
    assert ask(cookie_header=f"a=1; _fbi={cookie}").address(connection) == found
