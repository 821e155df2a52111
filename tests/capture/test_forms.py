"""Forms: a field is found wherever it stands and however it is written, as frameworks read it."""

import sys
from io import BytesIO
from typing import Any
from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.formparser import parse_form_data

from capi_middleware.capture.forms import KEPT, SCANNED, form_of
from capi_middleware.capture.reading import BodyTee

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b-1"


def part(content: bytes, disposition: str, *more: str) -> bytes:
    lines = [f"Content-Disposition: form-data; {disposition}", *more]
    return b"--b-1\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + content + b"\r\n"


def closed(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b-1--\r\n"


def field(name: str, value: bytes, *more: str) -> bytes:
    return part(value, f'name="{name}"', *more)


def file(content: bytes, name: str = "photo") -> bytes:
    kind = "Content-Type: image/png"
    return part(content, f'name="{name}"; filename="a.png"', kind)


def read(kind: str, body: bytes, *names: str, size: int = 0) -> tuple[dict[str, str], str]:
    """The fields, and why others may be lacking."""
    tee = BodyTee({"headers": [(b"content-type", kind.encode("latin-1"))]}, names)
    step = size or max(1, len(body))
    for start in range(0, len(body), step):
        tee.add(body[start : start + step])
    return tee.form(), tee.lack


@pytest.mark.parametrize(
    "before",
    [
        file(b"x" * 70_000),
        file(b"\r\n--b-" * 90_000),  # nearly the boundary, all over
        file(b"\r\n--b-1x\r\n" * 70_000, "name"),  # a file of the same name
        field("other", b"y" * 900_000),
        b"".join(field(f"f{n}", b"1") for n in range(900)),
        b"a preamble that nobody reads\r\n",
    ],
    ids=["a file", "a hostile file", "a file of that name", "a text", "many fields", "a preamble"],
)
def test_a_field_of_a_multipart_form_is_found_whatever_comes_before_it(before: bytes) -> None:
    body = closed(before, field("name", b"Tea"))
    assert read(MULTIPART, body, "name") == ({"name": "Tea"}, "")
    assert read(MULTIPART, body, "name", size=4093) == ({"name": "Tea"}, "")


@pytest.mark.parametrize(
    "before",
    [b"text=" + b"y" * 70_000, b"&".join([b"name"] * 90_000), b"=&" * 400_000, b"name=&name="],
    ids=["a text", "names without a value", "nothing", "empty ones"],
)
def test_a_field_of_an_urlencoded_form_is_found_whatever_comes_before_it(before: bytes) -> None:
    body = before + b"&name=Tea&other=1"
    assert read(URLENCODED, body, "name") == ({"name": "Tea"}, "")
    assert read(URLENCODED, body, "name", size=4093) == ({"name": "Tea"}, "")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (MULTIPART, closed(file(b"x" * SCANNED), field("name", b"Tea"))),
        (MULTIPART, closed(field("name", b"y" * (KEPT + 1)))),
        (MULTIPART, closed(field("a", b"y" * KEPT), field("name", b"Tea"))),
        (MULTIPART, closed(*[file(b"")] * 2500, field("name", b"Tea"))),
        (URLENCODED, b"text=" + b"y" * SCANNED + b"&name=Tea"),
        (URLENCODED, b"name=" + b"y" * (KEPT + 1) + b"&b=2"),
        (URLENCODED, b"a=" + b"y" * KEPT + b"&name=Tea"),
    ],
)
@pytest.mark.parametrize("size", [0, 999])
def test_what_lies_beyond_the_bounds_is_missing_with_its_reason(
    kind: str, body: bytes, size: int
) -> None:
    found, lack = read(kind, body, "name", "a", size=size)
    assert (found.get("name"), lack) == (None, "body_too_long")


@pytest.mark.parametrize(
    ("kind", "body", "value"),
    [
        (URLENCODED, b"n%C3%A4me=gr%C3%BCn+tee", "grün tee"),
        (URLENCODED, b"n%c3%a4me=gr\xc3\xbcn", "grün"),
        (URLENCODED + "; charset=iso-8859-1", b"n%c3%a4me=gr%FCn", "grün"),
        (URLENCODED + "; charset=punycode", b"n%C3%A4me=gr%C3%BCn", "grün"),
        (URLENCODED.upper() + ";charset=UTF-8", b"n%C3%A4me=1&n%C3%A4me=2", "1"),
        (MULTIPART, closed(field("näme", "grün".encode())), "grün"),
        (MULTIPART + "; charset=latin-1", closed(field("näme", b"gr\xfcn")), "grün"),
        (MULTIPART + "; charset=iso-8859-1", closed(field("näme", b"gr\xfcn")), "grün"),
        (
            MULTIPART,
            closed(field("näme", b"gr\xfcn", "Content-Type: text/plain; charset=iso-8859-1")),
            "grün",
        ),
        (
            MULTIPART,
            closed(field("näme", b"Z3LDvG4=", "Content-Transfer-Encoding: base64")),
            "grün",
        ),
        (
            MULTIPART,
            closed(field("näme", b"gr=C3=BCn", "content-transfer-encoding: Quoted-Printable")),
            "grün",
        ),
        (MULTIPART, closed(part("grün".encode(), "name*=UTF-8''n%C3%A4me")), "grün"),
        (MULTIPART, closed(part("grün".encode(), "name=näme")), "grün"),
        (MULTIPART, closed(field("näme", b"a\nb\r\n")).replace(b"\r\n", b"\n"), "a\nb\n"),
        (
            'Multipart/Form-Data; charset=utf-8; boundary="b-1"',
            closed(field("näme", b"x")).replace(b"b-1\r\n", b"b-1  \t\r\n"),
            "x",
        ),
        (MULTIPART, b"--b-1\r\n\r\nno head\r\n" + closed(field("näme", b"x")), "x"),
        (MULTIPART, b"--b-1\r\n" + b"y" * 9000 + b"\r\n" + closed(field("näme", b"x")), "x"),
    ],
)
@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_field_is_read_in_every_encoding_that_frameworks_take(
    kind: str, body: bytes, value: str, size: int
) -> None:
    assert read(kind, body, "näme", size=size) == ({"näme": value}, "")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (MULTIPART, closed(file(b"data", "name"))),
        (MULTIPART, closed(part(b"data", "name=name; filename*=utf-8''a.txt"))),
        (MULTIPART, closed(field("name", b""))),
        (MULTIPART, closed(field("name", b"!", "Content-Transfer-Encoding: base64"))),
        (MULTIPART, field("name", b"no end")),
        ("multipart/form-data", closed(field("name", b"Tea"))),
        ("multipart/mixed; boundary=b-1", closed(field("name", b"Tea"))),
        (f"multipart/form-data; boundary={'b' * 999}", closed(field("name", b"Tea"))),
        (URLENCODED, b"name"),
        (URLENCODED, b"xname=1&name.x=2&name=&%=%"),
        ("text/plain", b"name=Tea"),
    ],
)
def test_what_is_no_field_of_that_name_is_none(kind: str, body: bytes) -> None:
    assert read(kind, body, "name")[0] == {}


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters='"\\%\r\n\0'), min_size=1, max_size=4
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


@given(st.lists(st.tuples(NAMES, TEXTS), max_size=6), st.integers(1, 50))
def test_an_urlencoded_form_reads_as_werkzeug_reads_it(
    pairs: list[tuple[str, str]], size: int
) -> None:
    body = urlencode(pairs).encode()
    _, form, _ = parse_form_data(_environ(URLENCODED, body))
    expected: dict[str, str] = {}
    for name, value in form.items(multi=True):
        if value:
            expected.setdefault(name, value)
    assert read(URLENCODED, body, *(name for name, _ in pairs), size=size)[0] == expected


@given(
    st.lists(st.tuples(NAMES.filter(str.strip), TEXTS, st.booleans()), max_size=6),
    st.integers(1, 50),
)
def test_a_multipart_form_reads_as_werkzeug_reads_it(
    parts: list[tuple[str, str, bool]], size: int
) -> None:
    body = closed(
        *(file(v.encode(), n) if is_file else field(n, v.encode()) for n, v, is_file in parts)
    )
    _, form, _ = parse_form_data(
        _environ(MULTIPART, body), stream_factory=lambda *_, **__: BytesIO()
    )
    expected: dict[str, str] = {}
    for name, value in form.items(multi=True):
        if value:
            expected.setdefault(name, value)
    assert read(MULTIPART, body, *(name for name, *_ in parts), size=size)[0] == expected


def _environ(kind: str, body: bytes) -> dict[str, Any]:
    length = str(len(body))
    return {"wsgi.input": BytesIO(body), "CONTENT_TYPE": kind, "CONTENT_LENGTH": length}


HOSTILE = [
    b"--b-1\r\n",
    b"--b-1 \t",
    b"\n--b-1",
    b"--b-1\r\nContent-Disposition: form-data" + b';a="' * 50 + b"\r\n\r\n",
    b"name=%" + b"&",
    b"name=",
    b"&",
    quote_plus("näme").encode() + b"=",
]


@pytest.mark.parametrize("unit", HOSTILE)
@pytest.mark.parametrize("kind", [URLENCODED, MULTIPART])
def test_twice_the_body_is_twice_the_work_and_no_more_is_kept(kind: str, unit: bytes) -> None:
    def work(length: int) -> int:
        form: Any = form_of(kind, {"name", "näme"})
        body = unit * (length // len(unit))
        with _counting() as calls:
            for start in range(0, len(body), 512):
                form.feed(body[start : start + 512])
            form.fields()
        held = len(form._rest) + sum(map(len, form.fields().values()))
        assert held <= 2 * KEPT + 512
        return calls[0]

    assert work(160_000) <= 2.5 * work(80_000)


class _counting:  # noqa: N801
    def __enter__(self) -> list[int]:
        self.calls = [0]

        def count(frame: Any, kind: str, _: Any) -> None:
            self.calls[0] += kind in ("call", "c_call")

        sys.setprofile(count)
        return self.calls

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (
            MULTIPART,
            closed(file(b"\r\n--b" * 9), field("name", b"Tea\r\n--b-"), field("b", b"2")),
        ),
        (URLENCODED, b"text=yy&n%61me=T%65a&b=2"),
    ],
)
def test_pieces_of_any_size_give_the_same_fields(kind: str, body: bytes) -> None:
    whole = read(kind, body, "name", "b")
    assert set(whole[0]) == {"name", "b"}
    for size in range(1, len(body)):
        assert read(kind, body, "name", "b", size=size) == whole


def test_a_type_that_is_no_form_has_no_reader() -> None:
    assert form_of("application/json", ["name"]) is None
