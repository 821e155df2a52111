"""Which responses may be touched, each reason alone, and what else their headers say."""

import pytest

from capi_middleware.page.gate import Verdict, inspect
from tests.support.injection_cases import Case, case_name, load_cases

HTML = (b"content-type", b"text/html; charset=utf-8")
NEEDS_THE_BODY = ("fragment", "amp")


def verdict(*headers: tuple[bytes, bytes], method: str = "GET", status: int = 200) -> Verdict:
    return inspect(method, status, [HTML, *headers], host="shop.example")


def of_type(content_type: bytes) -> Verdict:
    return inspect("GET", 200, [(b"content-type", content_type)])


def by_headers(case: Case) -> bool:
    """Whether the case is decided by its status and headers, without its body or a setting."""
    by_mark = case.id == "S07"
    return not by_mark and not case.config and case.expect.get("skip_reason") not in NEEDS_THE_BODY


CASES = [
    case for case in load_cases("eligibility", "headers", "charset", "csp") if by_headers(case)
]


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_a_case_is_decided_by_its_headers(case: Case) -> None:
    found = inspect(case.method, case.status, case.headers, host=case.host, scheme=case.scheme)

    assert found.inject == case.expect.get("injected", True)
    assert found.reason == case.expect.get("skip_reason", found.reason)
    assert (found.reason == "") == found.inject


@pytest.mark.parametrize(
    "case", [case for case in CASES if "nonce" in case.expect.get("snippet", {})], ids=case_name
)
def test_a_case_gets_its_nonce(case: Case) -> None:
    found = inspect(case.method, case.status, case.headers, host=case.host, scheme=case.scheme)

    assert found.nonce == case.expect["snippet"]["nonce"]


@pytest.mark.parametrize("case", [case for case in CASES if "warn" in case.expect], ids=case_name)
def test_a_case_is_warned_about(case: Case) -> None:
    found = inspect(case.method, case.status, case.headers, host=case.host, scheme=case.scheme)

    assert case.expect["warn"] in found.csp_notes


@pytest.mark.parametrize(
    "content_type",
    [
        b"text/html",
        b"TEXT/HTML",
        b" text/html",
        b"text/html ;charset=utf-8",
        b"text/html;",
        b"text/html; charset='utf-16'",
        b"text/html; charset=windows-1252",
        b"text/html; charset=shift_jis",
        b"text/html; charset=",
    ],
)
def test_html_is_found_in_every_spelling(content_type: bytes) -> None:
    assert of_type(content_type).inject


@pytest.mark.parametrize(
    "content_type", [b"", b"text/plain", b"text/htmlx", b"text/html+x", b"application/json"]
)
def test_other_types_are_not_html(content_type: bytes) -> None:
    assert of_type(content_type).reason == "not_html"


def test_a_response_without_a_type_is_not_html() -> None:
    assert inspect("GET", 200, [(b"content-length", b"2")]).reason == "not_html"


def test_xhtml_has_its_own_reason() -> None:
    assert of_type(b"Application/XHTML+xml; charset=utf-8").reason == "xhtml"


@pytest.mark.parametrize("second", [b"text/html", b"application/json"])
def test_two_types_are_ambiguous(second: bytes) -> None:
    assert verdict((b"Content-Type", second)).reason == "ambiguous_type"


def test_two_types_in_one_line_are_ambiguous() -> None:
    assert of_type(b"text/html, application/json").reason == "ambiguous_type"


@pytest.mark.parametrize(
    "charset",
    [
        b"utf-16",
        b"UTF-16BE",
        b'"utf-16le"',
        b"utf-32",
        b"utf-7",
        b"unicode",
        b"ucs-2",
        b"iso-10646-ucs-2",
        b"ISO-2022-JP",
        b"csiso2022kr",
        b"iso-2022-cn-ext",
        b"hz-gb-2312",
    ],
)
def test_a_charset_that_is_not_ascii_inside_is_left_alone(charset: bytes) -> None:
    assert of_type(b"text/html; Charset=" + charset).reason == "charset"


@pytest.mark.parametrize("status", [100, 103, 204, 205, 206, 300, 301, 302, 303, 304, 307, 308])
def test_a_status_without_a_page_is_left_alone(status: int) -> None:
    assert verdict(status=status).reason == "status"


@pytest.mark.parametrize("status", [200, 201, 203, 400, 403, 404, 410, 500, 503])
def test_pages_and_error_pages_get_the_tag(status: int) -> None:
    assert verdict(status=status).inject


@pytest.mark.parametrize(
    "disposition",
    [
        b"attachment",
        b"Attachment; filename=a.html",
        b" attachment ;filename=a.html",
        b"attachment; filename*=UTF-8''a.html",
        b'"attachment"',
        b"form-data; name=a",
    ],
)
def test_a_download_is_left_alone(disposition: bytes) -> None:
    assert verdict((b"Content-Disposition", disposition)).reason == "attachment"


@pytest.mark.parametrize("disposition", [b"", b"inline", b"INLINE; filename=a", b"filename=a.html"])
def test_what_browsers_show_gets_the_tag(disposition: bytes) -> None:
    assert verdict((b"content-disposition", disposition)).inject


@pytest.mark.parametrize("encoding", [b"", b"identity", b"Identity, identity"])
def test_no_encoding_in_any_spelling_is_none(encoding: bytes) -> None:
    found = verdict((b"content-encoding", encoding))

    assert (found.inject, found.gzip) == (True, False)


@pytest.mark.parametrize("encoding", [b"gzip", b"GZIP", b"x-gzip", b" gzip ", b"identity, gzip"])
def test_gzip_can_be_decoded(encoding: bytes) -> None:
    found = verdict((b"content-encoding", encoding))

    assert (found.inject, found.gzip) == (True, True)


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"deflate", b"gzip, br", b"none"])
def test_other_encodings_are_left_alone(encoding: bytes) -> None:
    assert verdict((b"content-encoding", encoding)).reason == "encoded"


def test_encodings_of_several_lines_add_up() -> None:
    twice = [(b"content-encoding", b"gzip"), (b"Content-Encoding", b"gzip")]

    assert verdict(*twice).reason == "encoded"


def test_a_page_may_have_a_length_or_none() -> None:
    assert verdict((b"Content-Length", b" 72 ")).inject
    assert verdict().inject


@pytest.mark.parametrize("length", [b"", b"abc", b"-1", b"+1", b"1.0", b"7, 7", b"9" * 5000])
def test_a_length_that_is_no_number_is_left_alone(length: bytes) -> None:
    assert verdict((b"content-length", length)).reason == "content_length"


@pytest.mark.parametrize("second", [b"11", b"010", b"", b"10, 10"])
def test_two_lengths_that_differ_are_left_alone(second: bytes) -> None:
    lengths = [(b"content-length", b"10"), (b"content-length", second)]

    assert verdict(*lengths).reason == "content_length"


def test_two_equal_lengths_are_one() -> None:
    assert verdict((b"content-length", b"10"), (b"Content-Length", b" 10 ")).inject


@pytest.mark.parametrize("value", [b"no-transform", b"private, No-Transform", b"a=1,no-transform"])
def test_no_transform_is_obeyed(value: bytes) -> None:
    assert verdict((b"Cache-Control", value)).reason == "no_transform"


@pytest.mark.parametrize("name", [b"Signature", b"signature-input"])
def test_a_signed_response_is_left_alone(name: bytes) -> None:
    assert verdict((name, b"sig1=()")).reason == "signed"


@pytest.mark.parametrize(
    "name", [b"X-Sendfile", b"x-accel-redirect", b"x-lighttpd-send-file", b"x-litespeed-location"]
)
def test_a_body_sent_by_the_server_in_front_is_left_alone(name: bytes) -> None:
    assert verdict((name, b"/a.html")).reason == "offloaded"


@pytest.mark.parametrize("name", [b"Content-Digest", b"repr-digest", b"X-A, digest"])
def test_an_announced_digest_is_left_alone(name: bytes) -> None:
    assert verdict((b"Trailer", name)).reason == "integrity_trailer"


def test_an_integrity_policy_of_scripts_blocks_metas_library() -> None:
    found = verdict((b"Integrity-Policy", b"blocked-destinations=(script)"))
    assert (found.inject, found.csp_notes) == (True, ("integrity-policy",))


def test_other_trailers_do_no_harm() -> None:
    assert verdict((b"trailer", b"server-timing")).inject


def test_head_of_a_page_is_told_apart() -> None:
    assert verdict(method="HEAD").reason == "head"


def test_head_of_something_left_alone_has_the_reason_of_get() -> None:
    assert verdict((b"content-encoding", b"br"), method="HEAD").reason == "encoded"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"cache-control", b"public"),
        (b"Cache-Control", b"Public, max-age=0"),
        (b"cache-control", b"max-age=300"),
        (b"cache-control", b"max-age=0, s-maxage=60"),
        (b"cache-control", b's-maxage="60"'),
        (b"surrogate-control", b'content="ESI/1.0", max-age=60'),
        (b"cdn-cache-control", b"max-age=60"),
        (b"Vercel-CDN-Cache-Control", b"s-maxage=60"),
        (b"cloudflare-cdn-cache-control", b"public"),
        (b"x-accel-expires", b"60"),
        (b"cache-control", b'public, private="set-cookie"'),
        (b"cache-control", b'max-age=60, private="set-cookie, private"'),
        (b"cache-control", b'max-age=60, no-cache="set-cookie"'),
        (b"cache-control", b"max-age=0, stale-while-revalidate=600"),
        (b"cache-control", b"stale-if-error=86400"),
        (b"edge-control", b"cache-maxage=10m"),
        (b"Edge-Control", b"max-age=1h"),
        (b"x-litespeed-cache-control", b"public,max-age=120"),
        (b"x-litespeed-cache-control", b"max-age=120, esi=on"),
    ],
)
def test_what_shared_caches_may_keep_is_public(name: bytes, value: bytes) -> None:
    assert verdict((name, value)).public


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"cache-control", b""),
        (b"cache-control", b"no-cache"),
        (b"cache-control", b"max-age=0"),
        (b"cache-control", b"s-maxage=0"),
        (b"cache-control", b"private, max-age=300"),
        (b"cache-control", b"public, no-store"),
        (b"cache-control", b"private, stale-while-revalidate=600"),
        (b"cache-control", b'private="a, b", no-store'),
        (b"surrogate-control", b"max-age=0"),
        (b"cdn-cache-control", b"no-store"),
        (b"x-accel-expires", b"0"),
        (b"edge-control", b"no-store"),
        (b"x-litespeed-cache-control", b"private,max-age=120"),
        (b"x-litespeed-cache-control", b"no-cache"),
    ],
)
def test_what_shared_caches_must_not_keep_is_not_public(name: bytes, value: bytes) -> None:
    assert not verdict((name, value)).public


def test_a_shared_lifetime_wins_over_a_private_one() -> None:
    headers = [(b"cache-control", b"private"), (b"surrogate-control", b"max-age=60")]

    assert verdict(*headers).public


def test_a_page_left_alone_can_be_public_too() -> None:
    headers = [(b"content-encoding", b"br"), (b"cache-control", b"public")]

    assert verdict(*headers).public
