"""How the injector streams: what it holds, what it copies, and what it does when things fail."""

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware.page.injector import Injector, Piece
from tests.support.injection_cases import TAG, Tagged, load_cases, run

PAGE = b"<!doctype html><html><head><title>x</title></head><body>hi</body></html>"
FRAGMENT = b"<div>hi</div>"
MOST_HELD = 32


def injector() -> Tagged:
    return Tagged(Injector())


def joined(pieces: list[Piece]) -> bytes:
    return b"".join(pieces)


def test_the_tag_leaves_with_the_chunk_that_holds_the_place() -> None:
    page = injector()

    assert TAG in joined(page.feed(PAGE))
    assert page.injected
    assert page.settled


def test_a_chunk_before_the_place_leaves_at_once_as_the_same_object() -> None:
    chunk = b"<!doctype html><head><title>x</title>"

    assert injector().feed(chunk)[0] is chunk


def test_chunks_behind_the_place_leave_as_the_same_objects() -> None:
    page = injector()
    page.feed(PAGE)
    rows: list[Piece] = [b"<p>row</p>", bytearray(b"<p>row</p>"), memoryview(b"<p>row</p>")]

    assert all(page.feed(row)[0] is row for row in rows)


def test_the_bytes_behind_the_place_are_not_copied() -> None:
    page = PAGE + b"x" * 1_000_000
    stream = injector()
    tracemalloc.start()
    try:
        pieces = stream.feed(page)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert sum(map(len, pieces)) == len(page) + len(TAG)
    assert peak < 100_000


def test_a_comment_never_closed_takes_no_memory() -> None:
    stream = injector()
    stream.feed(b"<!doctype html><head><!--")
    chunk = b"x-" * 50_000
    tracemalloc.start()
    try:
        for _ in range(20):
            stream.feed(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # One joined copy of the chunk that follows a held dash, never a second one.
    assert peak < 2 * len(chunk)


@pytest.mark.parametrize("start", [b"<head>", b"<head><template><svg>"])
@pytest.mark.parametrize("mark", [b"<![CDATA[", b"<![cdata[", b"<!DOCTYPE", b"<!--", b"<!x"])
def test_no_declaration_holds_up_what_follows_it(start: bytes, mark: bytes) -> None:
    stream = injector()
    stream.feed(b"<!doctype html>" + start + mark)
    late = b"x" * 5000

    assert sum(map(len, stream.feed(late))) >= len(late) - MOST_HELD


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_other_kinds_of_bytes_are_scanned_too(kind: Callable[[bytes], Piece]) -> None:
    pieces = injector().feed(kind(PAGE), last=True)

    assert joined(pieces) == PAGE.replace(b"</head>", TAG + b"</head>")


def test_a_buffer_used_again_does_not_change_what_is_held() -> None:
    stream = injector()
    buffer = bytearray(b"<!doctype html></he")
    out = joined(stream.feed(buffer))
    buffer[:] = b"?" * len(buffer)

    assert out + joined(stream.feed(b"ad>", last=True)) == b"<!doctype html>" + TAG + b"</head>"


def test_chunks_after_the_last_pass_through() -> None:
    stream = injector()
    stream.feed(b"<!doctype html><!-- ", last=True)
    late = b"--></head>"

    assert stream.feed(late) == [late]


def test_an_empty_chunk_sends_nothing() -> None:
    stream = injector()

    assert stream.feed(b"") == []
    assert stream.feed(PAGE) != []
    assert stream.feed(b"") == []


def test_it_cannot_tell_a_page_from_white_space() -> None:
    stream = injector()
    stream.feed(b" \n<!-- c -->")

    assert stream.is_document is None
    assert not stream.settled


def test_a_doctype_makes_a_document() -> None:
    stream = injector()
    stream.feed(b"<!doctype html>")

    assert stream.is_document is True


def test_content_makes_a_fragment_at_once() -> None:
    stream = injector()
    stream.feed(FRAGMENT)

    assert stream.is_document is False
    assert stream.settled


def test_a_page_that_ends_without_a_place_says_so() -> None:
    stream = injector()
    stream.feed(b"<!doctype html><title>x", last=True)

    assert (stream.is_document, stream.skip_reason) == (True, "no_place")


def test_the_tag_is_made_once_at_the_place_and_not_before() -> None:
    made = []
    stream = Tagged(Injector(), lambda: made.append("tag") or TAG)  # type: ignore[func-returns-value]
    stream.feed(b"<!doctype html><head>")
    before = list(made)
    for chunk in (b"</head>", b"<head></head>", b""):
        stream.feed(chunk)

    assert (before, made) == ([], ["tag"])


def test_no_tag_is_made_for_a_fragment() -> None:
    def refuse() -> bytes:
        pytest.fail("asked for a tag")

    assert joined(Tagged(Injector(), refuse).feed(FRAGMENT, last=True)) == FRAGMENT


def test_an_empty_tag_leaves_the_page_as_it_was() -> None:
    stream = Tagged(Injector(), lambda: b"")

    assert joined(stream.feed(PAGE, last=True)) == PAGE
    assert (stream.injected, stream.skip_reason) == (False, None)


def test_an_own_mistake_lets_the_held_bytes_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = injector()
    out = joined(stream.feed(b"<!doctype html></he"))

    def fail(*_: object) -> tuple[int, bool]:
        raise RuntimeError

    monkeypatch.setattr("capi_middleware.page.injector.Scanner.scan", fail)
    out += joined(stream.feed(b"ad><body>")) + joined(stream.feed(b"hi"))

    assert out == b"<!doctype html></head><body>hi"
    assert stream.skip_reason == "error"


def test_a_page_of_an_early_flushed_head_never_waits() -> None:
    (case,) = [case for case in load_cases("chunking") if case.id == "C11"]
    stream = injector()

    held = 0
    for chunk in case.chunks[:-1]:
        held += len(chunk) - sum(map(len, stream.feed(chunk)))
        assert held <= case.expect["timing"]["max_hold_bytes"]


MARKUP = st.sampled_from(
    rb"< </ <! <!-- -- - > head script title template style <!doctype <html amp = ' / \"".split()
) | st.sampled_from([b" ", b"<!doctype html>", b"\xef\xbb\xbf"])
BODIES = st.lists(st.lists(MARKUP | st.binary(max_size=4), max_size=6).map(b"".join), max_size=12)


@given(BODIES, st.booleans())
def test_whatever_comes_in_comes_out_with_at_most_one_tag(chunks: list[bytes], page: bool) -> None:
    if page:
        chunks = [b"<!doctype html>", *chunks]
    stream = injector()
    out = [joined(stream.feed(chunk)) for chunk in chunks]
    text = b"".join(out) + joined(stream.feed(b"", last=True))

    assert text.count(TAG) == stream.injected
    assert text.replace(TAG, b"") == b"".join(chunks)
    assert run(injector, [b"".join(chunks)]) == text


@given(BODIES)
def test_no_more_is_ever_held_than_promised(chunks: list[bytes]) -> None:
    stream = injector()
    held = 0
    for chunk in [b"<!doctype html>", *chunks]:
        held += len(chunk) - sum(map(len, stream.feed(chunk)))
        held += len(TAG) if stream.injected else 0

        assert held <= MOST_HELD
        if stream.injected:
            break
