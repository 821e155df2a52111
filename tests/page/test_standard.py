"""The end of the head by the rules of the HTML standard, one page for each.

^ marks the place; a page without it must stay as it is.
"""

import pytest

from capi_middleware.page.injector import Injector
from tests.support.injection_cases import TAG, Tagged, pieces_of, run, two_way_splits

DOCTYPE = b"<!doctype html>"


def injector() -> Tagged:
    return Tagged(Injector())


PLACES = {
    "abrupt comment": b"<head><!-->^</head><body>",
    "abrupt comment with a dash": b"<head><!--->^</head><body>-->",
    "comment of four dashes": b"<head><!---->^</head>",
    "comment ended after a bang": b"<head><!-- </head> --!>^</head>",
    "comment that a bang does not end": b"<head><!-- --!x </head> -->^</head>",
    "comment that starts with a bang": b"<head><!--!> </head> -->^</head>",
    "comment with a dash before the bang end": b"<head><!---!> </head> --!-->^</head>",
    "declaration that is no comment": b"<head><!element </head>^</head>",
    "declaration of one dash": b"<head><!- </head>^</head>",
    "CDATA outside of foreign content": b"<head><![CDATA[ > ^</head> ]]>",
    "end tag without a name": b"<head></>^</head>",
    "vertical tab is no white space": b"<head>^\x0b</head>",
    "form feed is white space": b"<head>\x0c^</head\x0c>",
    "NUL is content": b"<head>^\x00</head>",
    "less-than sign before a digit": b"<head>^<3</head>",
    "byte order mark in the middle": b"<head>^\xef\xbb\xbf</head>",
    "unknown end tag": b"<head></p></title></headers>^</head>",
    "end tag of a template never opened": b"<head></template>^</head>",
    "legacy head elements": b"<head><basefont><bgsound><base><link><meta>^</head>",
    "noframes": b"<head><noframes></head></noframes>^</head>",
    "noscript with scripting on": b"<head><noscript><p></head></noscript>^</head>",
    "style end tag with attributes": b"<head><style></stylex></style a='>'>^</head>",
    "textarea is content": b"<head>^<textarea></head></textarea>",
    "frameset": b"<html><head>^<frameset></head>",
    "custom element with a long name": b"<head>^<my-very-long-element-name></head>",
    "name that continues a head name": b"<head>^<titles></head>",
    "name ended by a slash": b"<head><meta/>^</head>",
    "script in a string of an escaped script": b"<script><!--<script></script>--></script>^<p>",
    "escape that ends at once": b"<head><script><!--><script></script>^</head>",
    "escape that ends after a dash": b"<head><script><!---><script></script>^</head>",
    "double escape left by its end tag": (
        b"<head><script><!--<script></script></script>^</head>--></script>"
    ),
    "double escape left by the comment end": b"<script><!--<script>--></script>^<p>",
    "longer name does not escape twice": b"<head><script><!--<scripts></script>^</head>",
    "slash ends the name of an escaped script": b"<script><!--<script/</script>--></script>^<p>",
    "title never opened in a template": b"<head><template></head></template>^</head>",
    "script in a template": (
        b"<head><template><script></template></script></template>^</head></template>"
    ),
    "textarea in a template": (
        b"<head><template><textarea></template></textarea></head></template>^</head>"
    ),
    "text in a template": b"<template> a < b <3 <p>c</p></template>^<p>",
    "body in a template": b"<template><body></body></html></template>^<p>",
    "comment in a template": b"<template><!-- </template> --></template>^<p>",
    "bogus comment in a template": b"<template><?php </template></template>^<p>",
    "doctype in a template": b"<template><!doctype x></template>^<p>",
    "self-closing style of a picture": (
        b"<template><svg><style/></svg></template>^<p></style></template><p>"
    ),
    "style behind a closed picture": (
        b"<template><svg/><style/></template></style><b></b></template>^<p>"
    ),
    "style after a picture": b"<template><svg></svg><style></template></style></template>^<p>",
    "style with a slash in its value": (
        b"<template><svg><style a=b/></template></style><b></b></svg></template>^<p>"
    ),
    "slash before a name": (
        b"<template><svg><style /a></template></style><b></b></svg></template>^<p>"
    ),
    "self-closing style of the head": b"<head><style/></head></style>^</head>",
    "second script in an escaped script": (
        b"<script><!--<script></script><script></script>--></script>^<p>"
    ),
    "slash that is not the last": (
        b"<template><svg><style / ></template></style><b></b></svg></template>^<p>"
    ),
    "CDATA of a picture": (
        b"<template><svg><![CDATA[ > </template> ] ]]></svg></template>^<p></template>"
    ),
    "formula": b"<template><math><style/></math></template>^<p>",
    "picture never closed": b"<template><svg></template><template><![CDATA[></template>^<p>",
    "equals sign as a name": b'<head><meta =">^"></head>',
    "equals sign as a name with a value": b'<head><meta ==">">^</head>',
    "blanks around the equals sign": b"<head><meta a = '></head>'>^</head>",
    "missing value": b"<head><meta a=>^</head>",
    "quote in an unquoted value": b'<head><meta a=b"c>^"></head>',
    "quote in a name": b'<head><meta a"b>^"></head>',
    "slash before a quote": b'<head><meta a=/">^"></head>',
    "attribute right after a value": b"<head><meta a=\"1\"b='>'>^</head>",
    "upper case names": b"<HEAD><SCRIPT></HEAD></SCRIPT><STYLE></HEAD></STYLE>^</HEAD>",
    "doctype with a quoted end": b'<!doctype html SYSTEM "a>^"><head></head>',
    "text cut off at the end": b"<title>x</title>^<",
    "end tag cut off at the end": b"<title>x</title>^</",
    "page that ends after its head elements": b"<meta a=b> \n^",
    "head element cut off": b"<title>x</title><lin",
    "content element cut off": b"<title>x</title><di",
    "end of the head cut off": b"<title>x</title></head",
    "attributes cut off": b"<meta a='b",
    "bogus comment cut off": b"<title>x</title><!",
    "comment cut off": b"<title>x</title><!-",
    "script cut off": b"<script>a",
    "end tag of a script cut off": b"<script>a</script",
    "template cut off": b"<template>a",
    "less-than sign in a template cut off": b"<template>a<",
    "plaintext in a template": b"<template><plaintext></template></head><p>",
}


@pytest.mark.parametrize("page", PLACES.values(), ids=PLACES)
def test_the_place_follows_the_standard_in_every_split(page: bytes) -> None:
    body = DOCTYPE + page.replace(b"^", b"")
    expected = DOCTYPE + page.replace(b"^", TAG)

    outputs = {run(injector, chunks) for chunks in two_way_splits(body)}
    outputs |= {run(injector, [body]), run(injector, pieces_of(body, 1))}

    assert outputs == {expected}
