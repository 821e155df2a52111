"""What a page says of itself before the place of the tag: policies, a base, a tag of ours."""

import pytest

from capi_middleware.page.head import read_head
from capi_middleware.page.injector import Injector

META = '<meta http-equiv="Content-Security-Policy" content="{}">'
NONE = "script-src 'none'"


def head(markup: str) -> bytes:
    return f"<!doctype html><html><head><title>x</title>{markup}</head>".encode()


@pytest.mark.parametrize(
    "markup",
    [
        META.format(NONE),
        META.format(NONE).upper().replace("SCRIPT-SRC 'NONE'", NONE),
        "<meta content=\"script-src 'none'\" http-equiv='content-security-policy' />",
        "<META\nHTTP-EQUIV = Content-Security-Policy\tcontent='script-src &#39;none&#x27;'>",
        META.format("sandbox; frame-ancestors 'self'; script-src 'none';report-uri /r"),
        f'<script src="/a.js">"</script><!-- x -->{META.format(NONE)}',
    ],
)
def test_a_policy_of_a_meta_element_is_read(markup: str) -> None:
    (policy,) = read_head(head(markup)).policies
    assert policy.strip() == NONE


@pytest.mark.parametrize(
    "markup",
    [
        f"<!--{META.format(NONE)}-->",
        f"<noscript>{META.format(NONE)}</noscript>",
        f"<script>'{META.format(NONE)}'</script>",
        f"<style>{META.format(NONE)}</style>",
        f"<template>{META.format(NONE)}</template>",
        f"<title>{META.format(NONE)}</title>",
        META.format("  "),
        META.format("sandbox allow-forms; report-uri /r"),
        f'<meta name="description" content="{NONE} Content-Security-Policy">',
        '<meta http-equiv="Content-Security-Policy-Report-Only" content="script-src x">',
        f'<meta http-equiv="refresh" http-equiv="Content-Security-Policy" content="{NONE}">',
    ],
)
def test_what_browsers_take_for_no_policy_is_none(markup: str) -> None:
    assert read_head(head(markup)).policies == []


def test_a_comma_in_a_meta_element_does_not_begin_another_policy() -> None:
    (policy,) = read_head(head(META.format("script-src 'self', 'none'"))).policies
    assert "," not in policy


@pytest.mark.parametrize(
    ("markup", "leads_away"),
    [
        ('<base href="https://cdn.example/a/">', True),
        ("<BASE target=_top HREF=//cdn.example>", True),
        ("<base href='http:a'>", True),
        ('<base target="_top"><base href="https://cdn.example">', True),
        ('<base href="\\\\cdn.example">', True),
        ('<base href="/shop/">', False),
        ('<base href="/"><base href="https://cdn.example">', False),
        ('<base target="_top">', False),
        ('<base href="http://[">', False),
        ('<!-- <base href="https://cdn.example"> -->', False),
    ],
)
def test_a_base_is_known_that_leads_to_another_origin(markup: str, leads_away: bool) -> None:
    assert read_head(head(markup)).base is leads_away


@pytest.mark.parametrize(
    ("markup", "has_script", "has_block"),
    [
        ('<script src="/_capi/s.js?v=1" async></script>', True, False),
        ("<script async src=https://shop.example/_capi/s.js></script>", True, False),
        ('<script type="application/json" data-c>{}</script>', False, True),
        ("<script data-c>{}</script><script src='/_capi/s.js'></script>", True, True),
        ('<script data-cfasync="false" src="/js/tags.js"></script>', False, False),
        ('<!-- <script src="/_capi/s.js"></script> -->', False, False),
        ("<script>load('/_capi/s.js'); \"data-c \"</script>", False, False),
    ],
)
def test_the_parts_of_a_tag_that_is_there_are_known(
    markup: str, has_script: bool, has_block: bool
) -> None:
    found = read_head(head(markup))
    assert (found.has_script, found.has_block) == (has_script, has_block)


@pytest.mark.parametrize("size", [1, 7, 40, 10_000])
def test_the_head_is_known_whatever_the_chunks_are(size: int) -> None:
    page = head(META.format(NONE)) + b"<body>" + b"y" * 100
    injector = Injector()
    for start in range(0, len(page), size):
        injector.feed(page[start : start + size])
    assert injector.head.endswith(META.format(NONE).encode())


@pytest.mark.parametrize(
    "markup",
    [
        '<meta charset="utf-8"><meta name="a" content="q"><link rel="stylesheet" href="/s.css">',
        '<script src="/js/plugins.js" data-cfasync="false"></script><script>let a = 1</script>',
        "<meta charset=utf-8><meta property='og:title' content='a' name=b>",
    ],
)
def test_a_head_that_says_nothing_is_not_kept(markup: str) -> None:
    injector = Injector()
    injector.feed(head(markup))
    assert injector.settled
    assert injector.head == b""


@pytest.mark.parametrize(
    "markup",
    [
        META.format(NONE),
        META.format(NONE).upper(),
        f'<meta content="{NONE}" http-equiv="Content-Security-Policy">',
        f'<meta id="p" content="{NONE}" http-equiv="Content-Security-Policy">',
        f"<meta content='a > b' data-q='q' http-equiv=Content-Security-Policy content=\"{NONE}\">",
        '<base href="https://cdn.example">',
        "<BASE HREF=//cdn.example>",
        '<script src="/_capi/s.js?v=1" async></script>',
        "<script async src=https://shop.example/_capi/s.js></script>",
        '<script type="application/json" data-c>{}</script>',
        "<script DATA-C type=application/json>{}</script>",
    ],
)
def test_a_head_that_says_something_is_kept_whatever_is_around_it(markup: str) -> None:
    around = '<meta charset="utf-8"><script src="/a.js"></script><link rel="icon" href="/i.png">'
    injector = Injector()
    injector.feed(head(around + markup + around))
    assert markup.encode() in injector.head


def test_an_opening_within_an_attribute_opens_nothing_and_costs_nothing() -> None:
    policy = b"<meta http-equiv=Content-Security-Policy content=\"script-src 'none'\">"
    assert read_head(b'<meta a="' + policy.replace(b'"', b"'") + b'">').policies == []
    assert read_head(b"<meta a" * 100_000 + b">").policies == []
    assert read_head(b"<meta a" * 100_000 + b">" + policy).policies == ["script-src 'none'"]
