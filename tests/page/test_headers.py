"""The headers of an injected page: what changes, what goes, and that nothing else does."""

import pytest

from capi_middleware.page.gate import rewrite, rewrite_head
from tests.support.injection_cases import Case, case_name, load_cases

Headers = list[tuple[bytes, bytes]]
ETAG = (b"ETag", b'"abc"')
MODIFIED = (b"Last-Modified", b"Tue, 24 Nov 2026 00:00:00 GMT")


def changed(*headers: tuple[bytes, bytes], event_ids: bool = False, length: int = 9) -> Headers:
    return rewrite(headers, event_ids=event_ids, length=length)


@pytest.mark.parametrize("event_ids", [False, True])
def test_other_headers_keep_their_order_and_duplicates(event_ids: bool) -> None:
    headers = [
        (b"Content-Type", b"text/html"),
        (b"Set-Cookie", b"a=1"),
        (b"X-A", b"1"),
        (b"set-cookie", b"b=2"),
        (b"Transfer-Encoding", b"chunked"),
        (b"content-encoding", b"gzip"),
        (b"x-a", b"2"),
    ]

    assert rewrite(headers, event_ids=event_ids, length=None) == headers


def test_the_headers_of_the_app_are_not_changed() -> None:
    headers = [ETAG, (b"content-length", b"1")]
    before = list(headers)
    changed(*headers)

    assert headers == before


def test_a_known_length_takes_the_place_of_the_old_one() -> None:
    headers = [(b"X-A", b"1"), (b"Content-Length", b"72"), (b"X-B", b"2")]

    assert changed(*headers, length=108) == [headers[0], (b"Content-Length", b"108"), headers[2]]


def test_an_unknown_length_is_dropped() -> None:
    assert rewrite([(b"content-length", b"72")], event_ids=False, length=None) == []


def test_no_length_is_added_to_a_stream() -> None:
    assert changed((b"transfer-encoding", b"chunked")) == [(b"transfer-encoding", b"chunked")]


@pytest.mark.parametrize(
    "name", [b"Accept-Ranges", b"Content-MD5", b"digest", b"Content-Digest", b"REPR-DIGEST"]
)
def test_what_describes_the_old_bytes_goes(name: bytes) -> None:
    assert changed((name, b"x")) == []


def test_a_strong_etag_becomes_weak() -> None:
    assert changed(ETAG) == [(b"ETag", b'W/"abc"')]


def test_a_weak_etag_stays() -> None:
    assert changed((b"etag", b'W/"abc"')) == [(b"etag", b'W/"abc"')]


def test_an_etag_that_cannot_be_made_weak_goes() -> None:
    assert changed((b"etag", b"abc")) == []


def test_the_date_stays_with_a_constant_tag() -> None:
    assert changed(MODIFIED) == [MODIFIED]


@pytest.mark.parametrize("header", [ETAG, (b"etag", b'W/"abc"'), MODIFIED])
def test_a_page_with_event_ids_cannot_be_revalidated(header: tuple[bytes, bytes]) -> None:
    assert changed(header, event_ids=True) == []


def test_head_answers_without_a_length_and_with_gets_validator() -> None:
    headers = [(b"content-type", b"text/html"), (b"content-length", b"72"), ETAG, MODIFIED]

    assert rewrite_head(headers) == [headers[0], (b"ETag", b'W/"abc"'), MODIFIED]


CASES = [case for case in load_cases("headers") if case.expect.get("injected")]


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_the_headers_a_case_names_stay_the_same(case: Case) -> None:
    rewritten = rewrite(case.headers, event_ids=True, length=None)

    for name, rule in case.expect["headers"].items():
        if rule in ("same", "app_values_first_in_order"):
            values = [value for key, value in case.headers if key.decode() == name]
            assert [value for key, value in rewritten if key.decode() == name] == values
