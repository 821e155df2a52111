"""gzip: pages that the app compressed itself get their tag, and everything else its own bytes."""

import gc
import gzip
import os
import tracemalloc
import weakref
import zlib
from types import SimpleNamespace

import pytest
from isal import isal_zlib

from capi_middleware.page import gzip as recode
from capi_middleware.page.gzip import GzipInjector
from capi_middleware.page.injector import Piece
from tests.support.injection_cases import TAG, Case, Tagged, case_name, load_cases, pieces_of, run

PAGE = b"<!doctype html><html><head><title>x</title></head><body>hi</body></html>"
TAGGED = PAGE.replace(b"</head>", TAG + b"</head>")
AMP = PAGE.replace(b"<html>", b"<html amp>")
UNPLACED = b"<!doctype html><!-- "


@pytest.fixture(autouse=True, params=["zlib", "isal"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test with either library."""
    library = zlib if request.param == "zlib" else isal_zlib
    monkeypatch.setattr(recode, "_decoder", library.decompressobj)


def injector() -> Tagged:
    return Tagged(GzipInjector())


def encode(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def joined(pieces: list[Piece]) -> bytes:
    return b"".join(pieces)


CASES = [case for case in load_cases("headers") if "decoded_injected" in case.expect]


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_a_compressed_page_gets_its_tag(case: Case) -> None:
    page, place = gzip.decompress(case.body), case.expect["decoded_insert_at"]

    for chunks in (case.chunks, [case.body], pieces_of(case.body, 1)):
        assert gzip.decompress(run(injector, chunks)) == page[:place] + TAG + page[place:]


def test_every_split_gives_the_same_page() -> None:
    body = encode(PAGE)

    for point in range(len(body)):
        assert gzip.decompress(run(injector, [body[:point], body[point:]])) == TAGGED


def test_the_output_has_no_time_in_it() -> None:
    assert run(injector, [encode(PAGE)])[4:8] == bytes(4)


@pytest.mark.parametrize("page", [b"<div>hi</div>", AMP, UNPLACED, b"", b"\xff\xfe<"])
def test_a_body_without_a_tag_keeps_its_own_bytes(page: bytes) -> None:
    body = encode(page)
    stream = injector()

    assert joined(stream.feed(body, last=True)) == body
    assert not stream.injected
    assert stream.settled


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (b"<div>hi</div>", "fragment"),
        (AMP, "amp"),
        (UNPLACED, "no_place"),
        (b"\xfe\xff", "charset"),
    ],
)
def test_it_says_why_there_is_no_tag(page: bytes, reason: str) -> None:
    stream = injector()
    stream.feed(encode(page), last=True)

    assert stream.skip_reason == reason


def test_a_fragment_in_small_chunks_keeps_its_own_bytes() -> None:
    body = encode(b" \n<!-- c --><div>" + os.urandom(500) + b"</div>")

    assert run(injector, pieces_of(body, 7)) == body


def test_a_fragment_is_released_as_soon_as_it_is_known() -> None:
    body = encode(b"<div>" + os.urandom(10_000).hex().encode())
    stream = injector()

    assert joined(stream.feed(body[:5000])) == body[:5000]
    assert stream.feed(body[5000:]) == [body[5000:]]


def test_every_chunk_of_a_page_can_be_read_at_once() -> None:
    source = zlib.compressobj(wbits=31)
    parts = [b"<!doctype html><head><title>x</title>", b"</head><p>shell", b"<p>late"]
    stream, reader = injector(), zlib.decompressobj(wbits=31)

    seen = [
        reader.decompress(
            joined(stream.feed(source.compress(part) + source.flush(zlib.Z_SYNC_FLUSH)))
        )
        for part in parts
    ]

    assert seen == [parts[0], TAG + parts[1], parts[2]]


def test_nothing_is_sent_for_a_chunk_without_content() -> None:
    stream = injector()
    stream.feed(encode(PAGE))

    assert stream.feed(b"") == []


def test_several_members_become_one_page() -> None:
    body = encode(PAGE[:20]) + encode(b"") + encode(PAGE[20:])

    assert gzip.decompress(run(injector, pieces_of(body, 11))) == TAGGED


def test_bytes_behind_the_last_member_are_ignored_like_browsers_do() -> None:
    body = encode(PAGE) + b"\0" + b"\x1f" * 40_000

    assert gzip.decompress(run(injector, [body])) == TAGGED


@pytest.mark.parametrize("body", [PAGE, b"\x1f\x8b\x08", encode(PAGE)[:-4], encode(PAGE)[:-9]])
def test_a_body_that_is_not_valid_gzip_keeps_its_own_bytes(body: bytes) -> None:
    stream = injector()

    assert joined(stream.feed(body, last=True)) == body
    assert (stream.injected, stream.skip_reason) == (False, "encoded")


def test_a_page_cut_off_later_ends_as_unfinished_as_it_came() -> None:
    source = zlib.compressobj(wbits=31)
    stream, reader = injector(), zlib.decompressobj(wbits=31)
    start = source.compress(PAGE) + source.flush(zlib.Z_SYNC_FLUSH)

    out = joined(stream.feed(start)) + joined(stream.feed(b"", last=True))

    assert reader.decompress(out) == TAGGED
    assert not reader.eof


def test_a_page_that_turns_invalid_sends_nothing_undecodable() -> None:
    source = zlib.compressobj(wbits=31)
    stream, reader = injector(), zlib.decompressobj(wbits=31)
    start = source.compress(PAGE) + source.flush(zlib.Z_SYNC_FLUSH)

    out = joined(stream.feed(start)) + joined(stream.feed(b"\xff" * 50))
    out += joined(stream.feed(b"more", last=True))

    assert reader.decompress(out) == TAGGED
    assert stream.injected


def test_chunks_after_the_last_pass_through() -> None:
    stream = injector()
    stream.feed(encode(PAGE), last=True)

    assert stream.feed(b"late") == [b"late"]


def test_without_a_tag_the_bytes_stay_as_they_were() -> None:
    body = encode(PAGE)
    stream = Tagged(GzipInjector(), lambda: b"")

    assert joined(stream.feed(body, last=True)) == body
    assert (stream.injected, stream.skip_reason) == (False, None)


def test_without_a_tag_a_page_that_is_on_its_way_goes_on_unchanged() -> None:
    stream = Tagged(GzipInjector(), lambda: b"")
    out = [joined(stream.feed(one)) for one in pieces_of(encode(PAGE), 7)]

    assert gzip.decompress(b"".join(out) + joined(stream.feed(b"", last=True))) == PAGE
    assert not stream.injected


@pytest.mark.parametrize("start", [b"", b"<!doctype html></head>"])
def test_a_body_that_expands_a_thousandfold_is_never_held_whole(start: bytes) -> None:
    bomb = encode(start + b" " * 30_000_000)
    stream = injector()
    tracemalloc.start()
    try:
        stream.feed(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1_000_000


def test_long_white_space_is_not_held_for_ever() -> None:
    noise = b"<!--" + os.urandom(200_000).hex().encode() + b"-->"
    body = encode(noise + PAGE)
    stream = injector()
    out = joined(stream.feed(body[:100_000]))

    assert len(out) > 90_000
    out += joined(stream.feed(body[100_000:], last=True))
    assert gzip.decompress(out) == noise + TAGGED


def test_an_error_of_ours_is_not_taken_for_a_body_that_is_not_valid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = SimpleNamespace(decompress=lambda *_: 1 / 0)
    monkeypatch.setattr(recode, "_decoder", lambda _: broken)
    stream = GzipInjector()
    body = encode(PAGE)

    pieces, at_place = stream.feed(body, last=True)

    assert (joined(pieces), at_place) == (body, False)
    assert stream.skip_reason == "error"
    assert isinstance(stream.failure, ZeroDivisionError)


def test_a_fragment_leaves_no_injector_to_the_garbage_collector() -> None:
    gc.disable()
    try:
        stream = GzipInjector()
        gone = weakref.ref(stream)
        stream.feed(encode(b"<p>a fragment</p>"), True)
        del stream
        assert gone() is None
    finally:
        gc.enable()
