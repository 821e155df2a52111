"""Where the tag goes: the case file in every split, what a document is, and random pages.

In the pages written here, ^ marks the place; a page without it must stay as it is.
"""

import re
from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware.page import injector as scanning
from capi_middleware.page.gate import inspect
from capi_middleware.page.injector import Injector
from tests.support.injection_cases import (
    TAG,
    Case,
    Tagged,
    case_name,
    load_cases,
    pieces_of,
    run,
    two_way_splits,
)


def injector() -> Tagged:
    return Tagged(Injector())


def allowed(case: Case) -> bool:
    return inspect(case.method, case.status, case.headers, host=case.host).inject


def reasons_inside(case: Case) -> bool:
    """Whether the decision needs the body."""
    return allowed(case) and not case.config and "decoded_injected" not in case.expect


STREAMED = [
    case
    for case in load_cases("tokenizer", "chunking", "charset", "eligibility", "headers", "csp")
    if reasons_inside(case)
]
SMALL = [case for case in STREAMED if len(case.body) < 10_000]
BIG = [case for case in STREAMED if len(case.body) >= 10_000]


@pytest.mark.parametrize("case", STREAMED, ids=case_name)
def test_a_whole_page_gets_its_tag_at_the_place(case: Case) -> None:
    assert run(injector, [case.body]) == case.output


@pytest.mark.parametrize("case", STREAMED, ids=case_name)
def test_the_chunks_of_a_case_change_nothing(case: Case) -> None:
    assert run(injector, case.chunks) == case.output


@pytest.mark.parametrize("case", SMALL, ids=case_name)
def test_every_split_in_two_gives_the_same_page(case: Case) -> None:
    assert {run(injector, chunks) for chunks in two_way_splits(case.body)} <= {case.output}


@pytest.mark.parametrize("case", BIG, ids=case_name)
def test_sampled_splits_of_a_long_page_give_the_same_page(case: Case) -> None:
    size = len(case.body)
    for point in (1, 30, 47, size // 2, size - 40, size - 9, size - 1):
        assert run(injector, [case.body[:point], case.body[point:]]) == case.output


@pytest.mark.parametrize("case", SMALL, ids=case_name)
def test_single_bytes_give_the_same_page(case: Case) -> None:
    assert run(injector, pieces_of(case.body, 1)) == case.output


@pytest.mark.parametrize("case", BIG, ids=case_name)
def test_small_chunks_of_a_long_page_give_the_same_page(case: Case) -> None:
    assert run(injector, pieces_of(case.body, 997)) == case.output


@pytest.mark.parametrize(
    "case", [case for case in STREAMED if case.expect.get("skip_reason")], ids=case_name
)
def test_a_page_left_alone_says_why(case: Case) -> None:
    page = injector()
    page.feed(case.body, last=True)

    assert page.skip_reason == case.expect["skip_reason"]


@pytest.mark.parametrize(
    "page",
    [
        b"<html><title>x</title>^<p>",
        b"<!-- c --> <HEAD>^</head>",
        b"<style></style>^<body>",
        b"^<body>",
        b"\xef\xbb\xbf<!DOCTYPE html>^<p>",
        b"<title>x</title><!doctype html>^<p>",
    ],
)
def test_any_mark_of_a_document_before_content_counts(page: bytes) -> None:
    assert run(injector, [page.replace(b"^", b"")]) == page.replace(b"^", TAG)


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b" \n",
        b"<!-- only a comment -->",
        b"<title>x</title></head><div>",
        b"<div><!doctype html><html><head></head>",
        b"<template><html></template><p>",
        b"<template><!doctype html></template><p>",
        b"\xef\xbb",
        b"\xef\xbb\xbfOK",
        b"<",
    ],
)
def test_a_fragment_is_left_alone(page: bytes) -> None:
    fragment = injector()

    assert b"".join(fragment.feed(page, last=True)) == page
    assert (fragment.is_document, fragment.skip_reason) == (False, "fragment")


@pytest.mark.parametrize(
    "attribute",
    [b"amp", b"AMP", b'amp=""', "⚡".encode(), "⚡️".encode(), b"amp4ads", "⚡4ads".encode()],
)
def test_an_amp_page_is_left_alone_in_every_split(attribute: bytes) -> None:
    body = b"<!doctype html><html lang=en " + attribute + b"><head></head>"

    assert {run(injector, chunks) for chunks in two_way_splits(body)} == {body}


@pytest.mark.parametrize("attribute", [b"data-amp", b"amplify", b"a=amp", b"x='amp' y", b"amp-x"])
def test_an_attribute_that_only_mentions_amp_does_not_count(attribute: bytes) -> None:
    body = b"<!doctype html><html " + attribute + b"><head amp><meta amp>"

    assert run(injector, [body]) == body + TAG


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_utf_16_is_left_alone_even_in_single_bytes(mark: bytes) -> None:
    body = mark + b"<!doctype html><p>"
    page = injector()

    pieces = [piece for byte in pieces_of(body, 1) for piece in page.feed(byte)]

    assert b"".join(pieces) == body
    assert page.skip_reason == "charset"


def test_japanese_text_in_escape_sequences_is_left_alone() -> None:
    body = b"<!doctype html><meta charset=iso-2022-jp><title>\x1b$B0l</head>^\x1b(B</title></head>"

    assert {run(injector, chunks) for chunks in two_way_splits(body)} == {body}


# Two blanks apart.
SNIPPETS = re.split(
    "  ",
    "<!doctype html>  <html>  <html lang='a'>  <head>  </head>  <body>  </html>  <!--  -->  --!>  -"
    "  !  >  <  </  <!-- x -->  <script>  <script src=a>  </script>  <!--<script>  <style>"
    "  </style>  <title>  </title>  <title>a</title>  <style>b{}</style>  <script>if(a<b)c</script>"
    "  <meta>  <meta a='b>'>  <meta x=y>  <link href=\"c\">  <template>  </template>  <svg>  <svg/>"
    "  </svg>  <style/>  <![CDATA[  ]]>  <p>  x  <noscript>  </noscript>  <textarea>  </TITLE>"
    "  <SCRIPT>  <?a  </%>  </br>  </p>  a=  \"  '  /  =  \x0b  é  amp  <meta a/b='>'>"
    '  <meta a="1"b>  <meta ="x>">  <meta a ="x>">  <meta a= "x>">  <meta a=b/c d>  <meta a/="x>">'
    '  <meta a b/ ="x>">  <link\na\n=\'b>\' />  <base a=b"c>',
)
PAGES = st.lists(st.sampled_from([*SNIPPETS, " ", "\n", "\t"]), max_size=25).map(
    lambda snippets: "".join(["<!doctype html><head>", *snippets]).encode()
)


@given(PAGES)
def test_ordinary_heads_end_where_the_tokenizer_ends_them(page: bytes) -> None:
    quick = run(injector, [page])
    with (
        patch.object(scanning, "_PAGE", re.compile(b"(?!)")),
        patch.object(scanning, "_HEAD", re.compile(b"[\t\n\f\r ]*")),
    ):
        token_by_token = run(injector, [page])

    assert quick == token_by_token


@given(PAGES, st.data())
def test_random_splits_give_the_same_page(page: bytes, data: st.DataObject) -> None:
    points = data.draw(st.lists(st.integers(0, len(page)), max_size=8).map(sorted))
    edges = [0, *points, len(page)]
    chunks = [page[a:b] for a, b in pairwise(edges)]

    assert run(injector, chunks) == run(injector, [page])
