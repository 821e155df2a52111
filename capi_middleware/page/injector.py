"""The injector: puts the tag into a streamed page, without copying it or holding it up."""

from collections.abc import Callable

from capi_middleware.page.scanner import Scanner

Piece = bytes | bytearray | memoryview


class Injector:
    """Puts one tag into one response body, given and taken in pieces.

    `make_tag` is called at most once, at the moment of insertion; if it raises or returns b"",
    the body stays as it was. Nothing that goes wrong in here is raised: the rest of the body
    passes through untouched, because a page matters more than its measurement.

    Attributes: `is_document` (None = cannot tell yet); `injected`; `skip_reason` ("fragment",
    "amp", "charset", "no_place": it ended without a place, "error", or None); `settled`: nothing
    about the rest of the body will be changed any more.
    """

    injected: bool = False
    skip_reason: str | None = None
    settled: bool = False
    _held = b""

    def __init__(self, make_tag: Callable[[], bytes]) -> None:
        self._make_tag = make_tag
        self._scanner = Scanner()

    @property
    def is_document(self) -> bool | None:
        """Whether the body is a whole page, not a fragment of one; None = cannot tell yet."""
        return self._scanner.is_document

    def feed(self, chunk: Piece, last: bool = False) -> list[Piece]:
        """The pieces to send now, in order; at most 32 bytes are held back for the next call.

        `last`: the body ends with this chunk. A chunk that needs no change is the very same
        object in the answer; parts of one are views of it.
        """
        if self.settled:
            return [chunk] if chunk else []
        held = self._held
        try:
            data = chunk if isinstance(chunk, bytes) else bytes(chunk)
            if held:
                data = held + data
            end, found = self._scanner.scan(data, last)
            if self._scanner.skip_reason:
                return self._skip(self._scanner.skip_reason, held, chunk)
            if found:
                return self._insert(data, end, held, chunk)
            if last:
                reason = "no_place" if self._scanner.is_document else "fragment"
                return self._skip(reason, held, chunk)
            self._held = data[end:]
            if end == len(chunk) and not held:
                return [chunk] if chunk else []
            return [memoryview(data)[:end]] if end else []
        except Exception:
            return self._skip("error", held, chunk)

    def _insert(self, data: bytes, place: int, held: bytes, chunk: Piece) -> list[Piece]:
        if not self._scanner.is_document:
            return self._skip("fragment", held, chunk)
        tag = self._make_tag()
        if not tag:
            return self._skip(None, held, chunk)
        self._settle()
        self.injected = True
        view = memoryview(data)
        if 0 < place < len(data):
            return [view[:place], tag, view[place:]]
        return [view, tag] if place else [tag, view]

    def _skip(self, reason: str | None, held: bytes, chunk: Piece) -> list[Piece]:
        self._settle()
        self.skip_reason = reason
        return [piece for piece in (held, chunk) if piece]

    def _settle(self) -> None:
        self.settled = True
        self._held = b""
        # Whoever makes the tag holds this injector: a cycle would wait for the garbage collector.
        self._make_tag = bytes
