"""The injector finds where the tag belongs in a streamed page, without copying or holding it up."""

from msgspec import Struct, field

from capi_middleware.page.scanner import Scanner

Piece = bytes | bytearray | memoryview
#: What feed() says: the pieces to send now, and whether the place of the tag is reached.
Fed = tuple[list[Piece], bool]


class Injector(Struct, eq=False):
    """Takes one response body in pieces and gives it back with one tag in it.

    At the place of the tag feed() says so, and insert() takes the tag. Nothing that goes wrong in
    here is raised: the rest of the body passes through untouched, because a page matters more
    than its measurement.

    Attributes: `is_document` (None = cannot tell yet); `injected`; `skip_reason` ("fragment",
    "amp", "charset", "no_place": it ended without a place, "error", or None); `failure` is the
    error of an "error"; `settled`: nothing about the rest of the body will be changed any more.
    """

    injected: bool = False
    skip_reason: str | None = None
    failure: Exception | None = None
    settled: bool = False
    _held: bytes = b""
    _data: bytes = b""
    _place: int = 0
    _scanner: Scanner = field(default_factory=Scanner)

    @property
    def is_document(self) -> bool | None:
        """Whether the body is a whole page, not a fragment of one; None = cannot tell yet."""
        return self._scanner.is_document

    def feed(self, chunk: Piece, last: bool = False) -> Fed:
        """The pieces to send now, in order; at most 32 bytes are held back for the next call.

        `last`: the body ends with this chunk. A chunk that needs no change is the very same
        object in the answer. Where the place is reached, insert() has to be called next: it
        gives back the pieces of this chunk.
        """
        if self.settled:
            return ([chunk] if chunk else []), False
        held = self._held
        try:
            data = chunk if isinstance(chunk, bytes) else bytes(chunk)
            if held:
                data = held + data
            scanner = self._scanner
            end, found = scanner.scan(data, last)
            if scanner.skip_reason:
                return self._skip(scanner.skip_reason, held, chunk), False
            if found and scanner.is_document:
                self.settled = True
                self._data, self._place, self._held = data, end, b""
                return [], True
            if found or last:
                reason = "no_place" if scanner.is_document else "fragment"
                return self._skip(reason, held, chunk), False
            self._held = data[end:]
            if end == len(chunk) and not held:
                return ([chunk] if chunk else []), False
            return ([memoryview(data)[:end]] if end else []), False
        except Exception as error:
            self.failure = error
            return self._skip("error", held, chunk), False

    def insert(self, tag: bytes) -> list[Piece]:
        """The pieces to send at the place that feed() found; without a `tag` as they came."""
        data, place, self._data = self._data, self._place, b""
        if not tag:
            return [data]
        self.injected = True
        view = memoryview(data)
        if 0 < place < len(data):
            return [view[:place], tag, view[place:]]
        return [view, tag] if place else [tag, view]

    def _skip(self, reason: str, held: bytes, chunk: Piece) -> list[Piece]:
        self.settled = True
        self._held = b""
        self.skip_reason = reason
        return [piece for piece in (held, chunk) if piece]
