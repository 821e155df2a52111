"""Injecting into bodies of all sizes beside New Relic, heads that are made to hurt, gzip."""

import gzip
import itertools
import random
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from isal import isal_zlib
from newrelic.api.html_insertion import insert_html_snippet

from capi_middleware.page import gzip as recode
from capi_middleware.page.gzip import GzipInjector
from capi_middleware.page.injector import Injector
from tests.benchmarks.measure import Row, Trial, constant

TAG = b"<script>" + b"x" * 1480 + b"</script>"
_KB = 1024
_random = random.Random(7)
_WORDS = ["".join(_random.choices("abcdefghijklmnopqrstuvwxyz", k=n % 9 + 2)) for n in range(2000)]
_META = "".join(f'<meta property="og:{name}" content="{name} of a kettle">' for name in _WORDS[:12])
_LINKS = "".join(f'<link rel="stylesheet" href="/static/{name}.css">' for name in _WORDS[:8])
_DATA = ",".join(f'"{name}":"{name}"' for name in _WORDS[:60])
#: About 3 KB, as a shop's template makes it.
_START = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A kettle</title>'
    f'{_META}{_LINKS}<script type="application/ld+json">{{{_DATA}}}</script>'
    '<style>body{margin:0}</style><script src="/static/site.js" defer></script></head><body>'
).encode()
#: Heads without an end, `size` bytes long.
_HEADS: dict[str, Callable[[int], bytes]] = {
    "a comment": lambda size: b"<!doctype html><head><!--" + b"c-" * (size // 2),
    "tags": lambda size: b"<!doctype html><head>" + b"<meta a=b>" * (size // 10),
    "a script": lambda size: b"<!doctype html><head><script>" + b"a<b;" * (size // 4),
    "an attribute": lambda size: b'<!doctype html><head><meta x="' + b"v " * (size // 2),
}


def page(size: int) -> bytes:
    """A page of about `size` bytes with an ordinary head and prose."""
    words = iter(_random.choices(_WORDS, k=size // 4))
    prose = "".join(f"<p>{' '.join(itertools.islice(words, 40))}</p>\n" for _ in range(size // 160))
    return _START + prose.encode()[: size - len(_START)]


def _chunks(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def _ours(chunks: Sequence[bytes]) -> Callable[[], Any]:
    """As the doors do it: what comes after the tag is not looked at."""

    def inject() -> Any:
        injector = Injector()
        sent: list[Any] = []
        for chunk in chunks:
            if injector.settled:
                sent.append(chunk)
            else:
                pieces, at_place = injector.feed(chunk)
                sent += injector.insert(TAG) if at_place else pieces
        if not injector.injected:
            raise AssertionError("the tag is not in the page")
        return sent

    return inject


def _new_relic(chunks: Sequence[bytes]) -> Callable[[], Any]:
    """As its middleware does: what came so far is searched again until there is a body."""

    def inject() -> Any:
        held, sent, inserted = b"", [], False
        for chunk in chunks:
            if inserted:
                sent.append(chunk)
                continue
            held += chunk
            done = insert_html_snippet(held, lambda: TAG)
            if done is not None:
                sent.append(done)
                inserted = True
        if not inserted:
            raise AssertionError("the tag is not in the page")
        return sent

    return inject


def _hurt(chunks: Sequence[bytes], size: int) -> Callable[[float], float]:
    """Seconds for each byte of a head that has no end."""

    def side(share: float) -> float:
        start = time.thread_time()
        injector = Injector()
        for chunk in chunks:
            injector.feed(chunk)
        injector.feed(b"", last=True)
        return (time.thread_time() - start) / size

    return side


def _throughput(head: bytes) -> Callable[[float], float]:
    side = _hurt([head], len(head))
    return lambda share: 1 / side(share) / 1e6


def _held(chunks: Sequence[bytes]) -> Callable[[float], float]:
    """The most that is held beside the chunk that is given, in KB."""

    def side(share: float) -> float:
        injectors: list[Any] = [Injector(), GzipInjector()]
        most = 0
        for injector in injectors:
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            for chunk in chunks:
                injector.feed(chunk)
                most = max(most, tracemalloc.get_traced_memory()[0] - before)
            tracemalloc.stop()
        return most / _KB

    return side


def _recoded(body: bytes) -> Callable[[], Any]:
    def inject() -> Any:
        injector = GzipInjector()
        pieces, at_place = injector.feed(body, True)
        sent = injector.insert(TAG) if at_place else pieces
        if not injector.injected:
            raise AssertionError("the tag is not in the page")
        return sent

    return inject


def _encoded(body: bytes) -> Callable[[], Any]:
    def encode() -> Any:
        encoder = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        return encoder.compress(body) + encoder.flush()

    return encode


def rows() -> Iterator[Row | Trial]:
    """What the table says about injecting."""
    for size, name, whole in ((10, "10 KB", 0.5), (100, "100 KB", 0.5), (1024, "1 MB", 0.05)):
        body = page(size * _KB)
        for chunks, how, reach in (
            ([body], "whole", whole),
            (_chunks(body, 8 * _KB), "in 8 KB chunks", 0.5),
        ):
            yield Row(
                f"injecting into {name}, {how}", "New Relic's html_insertion", reach,
                _ours(chunks), _new_relic(chunks),
            )  # fmt: skip
    for kind, make in _HEADS.items():
        large, small = make(_KB * _KB), make(256 * _KB)
        yield Trial(
            f"a head of 1 MB that is {kind}, for each byte", "one of 256 KB", 1.2,
            _hurt([large], len(large)), _hurt([small], len(small)), rounds=21,
        )  # fmt: skip
    tags = _HEADS["tags"]
    pieces, fewer = [_chunks(tags(size * _KB), 1) for size in (64, 16)]
    yield Trial(
        "a head of 64 KB in 1-byte chunks, for each byte", "one of 16 KB", 1.2,
        _hurt(pieces, len(pieces)), _hurt(fewer, len(fewer)),
    )  # fmt: skip
    yield Trial(
        "searching a comment of 1 MB", "100 MB/s", 1.0, _throughput(_HEADS["a comment"](_KB * _KB)),
        constant(100.0), unit="MB/s",
    )  # fmt: skip
    yield Trial(
        "the most that is held of 4 MB without a head's end", "64 KB", 1.0,
        _held(_chunks(_HEADS["a comment"](4 * _KB * _KB), 8 * _KB)), constant(64.0), unit="KB",
        rounds=1,
    )  # fmt: skip
    body = page(100 * _KB)
    for name, library in (("zlib", zlib), ("isal", isal_zlib)):
        recode._decoder = library.decompressobj
        yield Row(
            f"gzip of 100 KB, {name}: decode, inject, encode", "encoding it once, zlib, level 6",
            1.2, _recoded(gzip.compress(body, 6)), _encoded(body),
        )  # fmt: skip
