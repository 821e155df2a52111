"""gzip: a tag for pages that the app compressed itself, decoded and encoded again as a stream."""

import zlib
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

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


class GzipInjector:
    """An Injector for a gzip body, with the same interface and attributes.

    As long as it cannot tell whether the body is a page (64 KiB of input at most), it holds the
    app's own bytes; if there is nothing to insert, these go out as they came, to the byte.
    After that the body is a new gzip stream of one member, flushed with every chunk, so that
    streaming stays streaming. `skip_reason` "encoded": the body is not valid gzip.

    A body that breaks off or turns invalid later ends just as unfinished as it came: without
    the trailer that would tell the browser that it is whole.
    """

    def __init__(self) -> None:
        self._injector = Injector()
        self._decoder = _decoder(_GZIP)
        self._encoder = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._in_member = False
        self._after_member = False
        self._is_over = False
        self._mode = _Mode.HOLDING
        self._raw: list[Piece] = []
        self._raw_size = 0
        self._encoded: list[Piece] = []
        self._is_flushed = True
        self._decoding: Iterator[bytes] = iter(())
        self._last = False
        self._failure: str | None = None

    @property
    def is_document(self) -> bool | None:
        """Whether the body is a whole page, not a fragment of one; None = cannot tell yet."""
        return self._injector.is_document

    @property
    def injected(self) -> bool:
        """Whether the tag is in the body that went out."""
        return self._injector.injected and self._mode not in (_Mode.HOLDING, _Mode.RAW)

    @property
    def skip_reason(self) -> str | None:
        """Why there is no tag: a reason of Injector, or "encoded"."""
        return self._failure or self._injector.skip_reason

    @property
    def failure(self) -> Exception | None:
        """An error of ours that ended the work on this body."""
        return self._injector.failure

    @property
    def untouched(self) -> bool:
        """Whether it is certain that the body goes out as it came."""
        return self._mode is _Mode.RAW

    @property
    def settled(self) -> bool:
        """Whether it is decided if the body carries a tag."""
        return self._mode is not _Mode.HOLDING and (
            self._injector.settled or self._failure is not None
        )

    def feed(self, chunk: Piece, last: bool = False) -> Fed:
        """As Injector.feed: the pieces to send now, and whether the place is reached."""
        if self._mode in (_Mode.RAW, _Mode.ENDED):
            return ([chunk] if chunk else []), False
        if self._mode is _Mode.CUT_OFF:
            return [], False
        if self._mode is _Mode.HOLDING and chunk:
            self._raw.append(chunk if isinstance(chunk, bytes) else bytes(chunk))
            self._raw_size += len(chunk)
        self._decoding, self._last = self._decode(chunk), last
        return self._go_on()

    def insert(self, tag: bytes) -> list[Piece]:
        """As Injector.insert."""
        self._encode(self._injector.insert(tag))
        if self._is_in_vain():
            return self._release()
        return self._go_on()[0]

    def _go_on(self) -> Fed:
        try:
            for decoded in self._decoding:
                pieces, at_place = self._injector.feed(decoded)
                if at_place:
                    return [], True
                self._encode(pieces)
                if self._is_in_vain():
                    return self._release(), False
            if self._last:
                if self._in_member:
                    return self._fail(), False
                pieces, at_place = self._injector.feed(b"", last=True)
                if at_place:
                    return [], True
                self._encode(pieces)
                if self._is_in_vain():
                    return self._release(), False
                self._mode = _Mode.ENDED
                self._decoding = iter(())
                return [*self._take(), self._encoder.flush()], False
        except _invalid:  # as the app sent it
            return self._fail(), False
        except Exception as error:
            self._injector.failure = error
            return self._fail("error"), False
        if self._mode is _Mode.HOLDING:
            if not self._injector.is_document and self._raw_size <= _MOST_HELD:
                return [], False
            self._mode = _Mode.RECODING
        return self._take_flushed(), False

    def _decode(self, chunk: Piece) -> Iterator[bytes]:
        """The decoded bytes of a chunk in bounded steps. Raises one of _invalid."""
        view = memoryview(chunk)
        for start in range(0, len(view), _INPUT_STEP):
            data = bytes(view[start : start + _INPUT_STEP])
            while data and not self._is_over:
                if self._after_member and not self._in_member and data[:1] != b"\x1f":
                    # Browsers ignore what follows a member and is not another one.
                    self._is_over = True
                    break
                self._in_member = True
                decoded = self._decoder.decompress(data, _OUTPUT_STEP)
                while decoded:
                    yield decoded
                    data = self._decoder.unconsumed_tail
                    decoded = self._decoder.decompress(data, _OUTPUT_STEP)
                data = self._decoder.unused_data
                if self._decoder.eof:
                    self._in_member = False
                    self._after_member = True
                    self._decoder = _decoder(_GZIP)

    def _encode(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            self._is_flushed = False
            encoded = self._encoder.compress(piece)
            if encoded:
                self._encoded.append(encoded)

    def _take(self) -> list[Piece]:
        pieces = self._encoded
        self._encoded = []
        self._raw = []
        return pieces

    def _take_flushed(self) -> list[Piece]:
        pieces = self._take()
        if not self._is_flushed:
            pieces.append(self._encoder.flush(zlib.Z_SYNC_FLUSH))
            self._is_flushed = True
        return pieces

    def _is_in_vain(self) -> bool:
        return (
            self._mode is _Mode.HOLDING and self._injector.settled and not self._injector.injected
        )

    def _release(self) -> list[Piece]:
        self._mode = _Mode.RAW
        self._decoding = iter(())  # it holds this injector: a cycle would wait for the collector
        pieces = self._raw
        self._raw = []
        self._encoded = []
        return pieces

    def _fail(self, reason: str = "encoded") -> list[Piece]:
        if self._mode is _Mode.HOLDING:
            self._failure = reason
            return self._release()
        pieces, at_place = self._injector.feed(b"", last=True)
        self._encode(self._injector.insert(b"") if at_place else pieces)
        if not self._injector.injected:
            self._failure = reason
        self._mode = _Mode.CUT_OFF
        self._decoding = iter(())
        return self._take_flushed()
