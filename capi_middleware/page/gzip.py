"""gzip: a tag for pages that the app compressed itself, decoded and encoded again as a stream."""

import zlib
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

from msgspec import field

from capi_middleware.page.injector import Fed, Injector, Piece

# zlib copies what is left of its input after every bounded step; short inputs keep that linear.
_INPUT_STEP = 16 * 1024
# The most decoded bytes that exist at once, however well the body was compressed.
_OUTPUT_STEP = 64 * 1024
_MOST_HELD = 64 * 1024
_decoder: Callable[[int], Any] = zlib.decompressobj
_invalid: tuple[type[Exception], ...] = (zlib.error,)
try:
    # The extra "speed": Intel's library decodes several times faster. Its levels end at a size
    # that no app chooses for its pages: they are encoded by zlib all the same.
    from isal import isal_zlib
except ImportError:
    pass
else:
    _decoder = isal_zlib.decompressobj
    _invalid = (zlib.error, isal_zlib.error)  # type: ignore[assignment] # a class, not as typed
_GZIP = 16 + zlib.MAX_WBITS
# zlib's 6, the default of most apps, takes up to twice the time for 1 to 3 % fewer bytes, and a
# page is made twice here: all of it must not take much longer than the app's own encoding.
_LEVEL = 4


class _Mode(Enum):
    HOLDING = "nothing went out yet, the app's bytes are kept"
    RECODING = "the body goes out as a gzip stream of our own"
    RAW = "the app's bytes go out as they come"
    ENDED = "our stream is complete"
    CUT_OFF = "our stream was left unfinished, because the app's turned invalid"


class GzipInjector(Injector, eq=False, weakref=True):
    """An Injector for a gzip body.

    As long as it cannot tell whether the body is a page (64 KiB of input at most), it holds the
    app's own bytes; if there is nothing to insert, these go out as they came, to the byte.
    After that the body is a new gzip stream of one member, flushed with every chunk, so that
    streaming stays streaming. `skip_reason` "encoded": the body is not valid gzip.

    A body that breaks off or turns invalid later ends just as unfinished as it came: without
    the trailer that would tell the browser that it is whole.
    """

    _source: Any = field(default_factory=lambda: _decoder(_GZIP))
    _target: Any = field(default_factory=lambda: zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP))
    _in_member: bool = False
    _after_member: bool = False
    _is_over: bool = False
    _mode: _Mode = _Mode.HOLDING
    _raw: list[Piece] = field(default_factory=list)
    _raw_size: int = 0
    _encoded: list[Piece] = field(default_factory=list)
    _is_flushed: bool = True
    _decoding: Iterator[bytes] = iter(())
    _last: bool = False

    @property
    def untouched(self) -> bool:
        """Whether it is certain that the body goes out as it came."""
        return self._mode is _Mode.RAW

    def feed(self, chunk: Piece, last: bool = False) -> Fed:
        """As Injector.feed: the pieces to send now, and whether the place is reached."""
        if self._mode in (_Mode.RAW, _Mode.ENDED):
            return ([chunk] if chunk else []), False
        if self._mode is _Mode.CUT_OFF:
            return [], False
        if self._mode is _Mode.HOLDING and chunk:
            self._raw.append(chunk if isinstance(chunk, bytes) else bytes(chunk))
            self._raw_size += len(chunk)
        self._decoding, self._last = self._decode(chunk, last), last
        return self._go_on()

    def insert(self, tag: bytes) -> list[Piece]:
        """As Injector.insert."""
        self._encode(Injector.insert(self, tag))
        return self._go_on()[0]

    def _go_on(self) -> Fed:
        try:
            while True:
                if self._mode is _Mode.HOLDING and self.settled and not self.injected:
                    return self._release(), False
                decoded = next(self._decoding, None)
                if decoded is None:
                    break
                pieces, at_place = Injector.feed(self, decoded, last=not decoded)
                if at_place:
                    return [], True
                self._encode(pieces)
        except _invalid:  # as the app sent it
            return self._fail("encoded"), False
        except Exception as error:
            return self._fail("error", error), False
        if self._last:
            self._end(_Mode.ENDED)
            return self._take(zlib.Z_FINISH), False
        if self._mode is _Mode.HOLDING:
            if not self.is_document and self._raw_size <= _MOST_HELD:
                return [], False
            self._mode = _Mode.RECODING
        return self._take(zlib.Z_SYNC_FLUSH), False

    def _decode(self, chunk: Piece, last: bool) -> Iterator[bytes]:
        """The decoded bytes of a chunk in bounded steps, and b"" after the last.

        Raises one of _invalid.
        """
        view = memoryview(chunk)
        for start in range(0, len(view), _INPUT_STEP):
            data = bytes(view[start : start + _INPUT_STEP])
            while data and not self._is_over:
                if self._after_member and not self._in_member and data[:1] != b"\x1f":
                    # Browsers ignore what follows a member and is not another one.
                    self._is_over = True
                    break
                self._in_member = True
                decoded = self._source.decompress(data, _OUTPUT_STEP)
                while decoded:
                    yield decoded
                    data = self._source.unconsumed_tail
                    decoded = self._source.decompress(data, _OUTPUT_STEP)
                data = self._source.unused_data
                if self._source.eof:
                    self._in_member = False
                    self._after_member = True
                    self._source = _decoder(_GZIP)
        if last:
            if self._in_member:
                raise zlib.error("the body ends in the middle")
            yield b""

    def _encode(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            self._is_flushed = False
            encoded = self._target.compress(piece)
            if encoded:
                self._encoded.append(encoded)

    def _take(self, how: int) -> list[Piece]:
        """What is encoded, flushed as zlib calls `how`."""
        pieces, self._encoded, self._raw = self._encoded, [], []
        if not self._is_flushed or how == zlib.Z_FINISH:
            pieces.append(self._target.flush(how))
            self._is_flushed = True
        return pieces

    def _end(self, mode: _Mode) -> None:
        self._mode = mode
        self._decoding = iter(())  # it holds this injector: a cycle would wait for the collector

    def _release(self) -> list[Piece]:
        self._end(_Mode.RAW)
        pieces, self._encoded, self._raw = self._raw, [], []
        return pieces

    def _fail(self, reason: str, failure: Exception | None = None) -> list[Piece]:
        if self._mode is _Mode.HOLDING:
            self._give_up(reason, failure)
            return self._release()
        pieces, at_place = Injector.feed(self, b"", last=True)
        self._encode(Injector.insert(self, b"") if at_place else pieces)
        self._give_up(None if self.injected else reason, failure)
        self._end(_Mode.CUT_OFF)
        return self._take(zlib.Z_SYNC_FLUSH)
