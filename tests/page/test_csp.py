"""Content Security Policy: when the tag may run, under which nonce, and what is blocked besides."""

import pytest

from capi_middleware.page.csp import Address, Ruling, integrity, own_address, rule

OWN = own_address("https", "shop.example")


def enforced(*policies: str, own: Address = OWN) -> Ruling:
    return rule(policies, [], own)


@pytest.mark.parametrize(
    "policy",
    [
        "",
        ";",
        "img-src 'none'",
        "script-src *",
        "script-src https:",
        "script-src http:",
        "SCRIPT-SRC 'SELF'",
        "script-src 'none' 'self'",
        "default-src 'none'; script-src 'self'",
        "script-src 'self'; script-src 'none'",
        "script-src 'none'; script-src-elem 'self'",
        "script-src shop.example",
        "script-src https://shop.example/",
        "script-src HTTP://SHOP.EXAMPLE",
        "script-src https://shop.example:443",
        "script-src shop.example:80",
        "script-src shop.example:*",
        "script-src https://*",
        "sandbox allow-scripts allow-same-origin; script-src 'self'",
        "script-src 'unsafe-inline' 'self'",
    ],
)
def test_a_policy_that_allows_our_file_needs_no_nonce(policy: str) -> None:
    assert enforced(policy)[:2] == (True, None)


@pytest.mark.parametrize(
    "policy",
    [
        "script-src",
        "default-src 'none'",
        "script-src 'self'; script-src-elem 'none'",
        "script-src 'self' 'strict-dynamic'",
        "script-src * 'strict-dynamic'",
        "script-src 'sha256-AAAA'",
        "script-src 'unsafe-inline' 'unsafe-eval'",
        "script-src https://cdn.example",
        "script-src *.shop.example",
        "script-src https://shop.example:8443",
        "script-src https://shop.example/static/",
        "script-src wss:",
        "script-src https://shop.example.evil",
        "script-src 'nonce-'",
        "script-src 'nonce-a\"b'",
        "script-src 'nonce-a<b'",
        "script-src 'nonce-abc===='",
        "script-src nonce-abc",
        "script-src x'nonce-abc'",
        "sandbox",
        "sandbox allow-scripts; script-src 'self'",
        "sandbox allow-same-origin; script-src 'self'",
        "sandbox allow-forms; script-src 'self'",
    ],
)
def test_a_policy_that_forbids_our_file_forbids_the_tag(policy: str) -> None:
    assert enforced(policy) == Ruling(allowed=False)


@pytest.mark.parametrize("nonce", ["abc", "a+/=", "a-_==", "0"])
def test_a_nonce_is_used(nonce: str) -> None:
    assert enforced(f"script-src 'nonce-{nonce}' 'strict-dynamic'").nonce == nonce


def test_a_nonce_is_used_even_where_self_would_do() -> None:
    assert enforced("script-src 'self' 'nonce-abc'").nonce == "abc"


def test_the_nonce_of_another_directive_is_not_ours() -> None:
    assert not enforced("script-src 'none'; style-src 'nonce-abc'").allowed


def test_the_keyword_may_be_in_any_case() -> None:
    assert enforced("script-src 'Nonce-aBc'").nonce == "aBc"


def test_nonces_are_told_apart_by_case() -> None:
    assert not enforced("script-src 'nonce-abc'", "script-src 'nonce-ABC'").allowed


def test_all_policies_have_to_allow_the_one_nonce() -> None:
    ruling = enforced("script-src 'nonce-a' 'nonce-b'", "script-src 'nonce-b' 'nonce-c'")

    assert ruling.nonce == "b"


def test_policies_without_a_common_nonce_forbid_the_tag() -> None:
    assert not enforced("script-src 'nonce-a', script-src 'nonce-b'").allowed


def test_each_response_gets_its_own_nonce() -> None:
    policy = "script-src 'nonce-{}' 'nonce-b'"

    assert [enforced(policy.format(nonce)).nonce for nonce in ("x", "y", "b")] == ["x", "y", "b"]


def test_a_report_only_policy_never_blocks() -> None:
    assert rule([], ["script-src 'none'; sandbox"], OWN) == Ruling(allowed=True)


def test_a_report_only_nonce_is_used_where_no_other_is() -> None:
    assert rule(["script-src 'self'"], ["script-src 'nonce-r'"], OWN).nonce == "r"


def test_an_enforced_nonce_goes_before_a_report_only_one() -> None:
    assert rule(["script-src 'nonce-e'"], ["script-src 'nonce-r'"], OWN).nonce == "e"


def test_a_source_of_our_host_is_no_help_when_the_host_is_unknown() -> None:
    assert not enforced("script-src https://shop.example", own=own_address("https", "")).allowed


def test_self_needs_no_host() -> None:
    assert enforced("script-src 'self'", own=own_address("https", "")).allowed


def test_a_page_over_http_is_not_allowed_by_https_sources() -> None:
    assert not enforced("script-src https:", own=own_address("http", "localhost:8000")).allowed


def test_a_source_without_a_port_means_the_usual_one() -> None:
    assert not enforced("script-src shop.example", own=own_address("https", "shop.example:8443"))[0]


@pytest.mark.parametrize("source", ["localhost:8000", "localhost:*", "http://localhost:8000"])
def test_the_port_of_our_host_counts(source: str) -> None:
    assert enforced(f"script-src {source}", own=own_address("http", "localhost:8000")).allowed


def test_a_wildcard_covers_our_subdomain() -> None:
    assert enforced("script-src *.shop.example", own=own_address("https", "www.shop.example"))[0]


@pytest.mark.parametrize(
    "policy",
    [
        "script-src 'self' https://connect.facebook.net",
        "script-src 'self' https://*.facebook.net",
        "script-src 'self' connect.facebook.net/en_US/ connect.facebook.net/signals/",
        "script-src 'nonce-abc' 'strict-dynamic'",
        "script-src 'self' https:",
        "img-src https://www.facebook.com/tr/; connect-src 'self' https://www.facebook.com",
        "connect-src shop.example https://*.facebook.com",
    ],
)
def test_a_policy_that_blocks_nothing_has_no_notes(policy: str) -> None:
    assert enforced(policy).notes == ()


@pytest.mark.parametrize(
    ("policy", "note"),
    [
        ("script-src 'self'", "script-src"),
        ("script-src 'nonce-abc'", "script-src"),
        ("script-src 'self' https://connect.facebook.net/en_US/", "script-src"),
        ("img-src 'self'", "img-src"),
        ("img-src https://facebook.com", "img-src"),
        ("img-src https://www.facebook.com/tr", "img-src"),
        ("connect-src 'none'", "connect-src"),
        ("connect-src https://api.shop.example", "connect-src"),
        ("connect-src 'self'", "connect-src-meta"),
        ("connect-src shop.example", "connect-src-meta"),
    ],
)
def test_what_a_policy_blocks_besides_is_noted(policy: str, note: str) -> None:
    assert enforced(policy).notes == (note,)


@pytest.mark.parametrize(
    ("header", "blocks"),
    [
        ("blocked-destinations=(script)", True),
        ("blocked-destinations=(style script), endpoints=(one)", True),
        ("endpoints=(script), blocked-destinations=(style)", False),
        ("sources=(inline)", False),
        ("", False),
    ],
)
def test_an_integrity_policy_of_scripts_is_noted(header: str, blocks: bool) -> None:
    ruling = enforced(*integrity(header))
    assert (ruling.allowed, ruling.notes) == (True, ("integrity-policy",) * blocks)


def test_the_default_stands_in_for_every_directive() -> None:
    assert set(enforced("default-src 'self'").notes) == {
        "script-src", "img-src", "connect-src-meta",
    }  # fmt: skip


def test_a_note_of_two_policies_is_made_once() -> None:
    assert enforced("img-src 'self'", "img-src 'none'").notes == ("img-src",)
