"""The injector finds where the tag belongs in a streamed page, without copying or holding it up.

The place is just before the first token that ends the parser's "in head" insertion mode
(WHATWG HTML, "Tree construction"): behind every meta element, so that the encoding and any
policy the page declares stay valid, and before anything that is content.
"""

import re

from msgspec import Struct, field

from capi_middleware.page.markup import (
    CDATA,
    COMMENT,
    MARKUP,
    RAW_TEXT_ELEMENTS,
    TAG,
    WHITESPACE,
    Construct,
)

Piece = bytes | bytearray | memoryview
#: What feed() says: the pieces to send now, and whether the place of the tag is reached.
Fed = tuple[list[Piece], bool]

# Ordinary heads are skipped by one regular expression, token by token in C. It takes only whole
# tokens in their usual spelling, on which it and the tokenizer agree, and leaves the others to
# the tokenizer. Its repetitions are bounded or possessive, so it never backtracks far.
_SPACE = rb"[%b]*+" % WHITESPACE


_VALUE = rb"=(?:\"[^\"]*+\"|'[^']*+'|[^%b\"'`=<>]++)" % WHITESPACE
#: From after the name of a tag to its end. A run of characters without meaning may hold several
#: attributes without a value: what matters is where quotes open, and that no "=" starts a name.
_ATTRIBUTES = rb"(?=[%b/>])(?:%b[^%b/<>\"'`=][^/<>\"'`=]*+%b)*+[^/<>\"'`=]*+/?>" % (
    WHITESPACE, _SPACE, WHITESPACE, _VALUE,
)  # fmt: skip
_NOT_AMP_ATTRIBUTES = rb"(?:[%b]++(?![aA][mM][pP])[a-zA-Z][a-zA-Z0-9:_.-]*+(?:%b)?){0,24}%b/?>" % (
    WHITESPACE, _VALUE, _SPACE,
)  # fmt: skip
#: How nearly all tags of a head are written, without the choices of _ATTRIBUTES: twice as fast.
_PLAIN = rb' [a-z-]++="[^"]*+"'
#: What matters to the tag (see head.py) is not ordinary: a policy, and a tag that is there.
_EQUIV = rb"(?:[^>\"'qQ]++|\"[^\"]*+\"|'[^']*+'|[qQ](?![uU][iI][vV]))*+[qQ]"
_OURS = rb"(?:[^>/dD]++|/(?!s\.js)|[dD](?![aA][tT][aA]-[cC][%b=>/]))*+[/dD]" % WHITESPACE
_ORDINARY_TOKENS = rb"""(?:<(?:
    meta(?![ ]http)%(plain)b(?![ ]http)%(plain)b ?/?>
    |link%(plain)b%(plain)b(?:%(plain)b)*+ ?/?>
    |link%(attributes)b
    |meta(?!%(equiv)b)%(attributes)b
    |title%(attributes)b[^<]*+</title>
    |script(?!%(ours)b)%(attributes)b[^<]*+(?:<(?!!--|/[sS])[^<]*+){0,200}</script>
    |style%(attributes)b[^<]*+</style>
    |!--(?!-?>)[^-]*+(?:-(?!->|-!>)[^-]*+){0,200}-->
)%(space)b){0,100}(</head>)?""" % {
    b"attributes": _ATTRIBUTES, b"plain": _PLAIN, b"space": _SPACE, b"equiv": _EQUIV,
    b"ours": _OURS,
}  # fmt: skip
# re.VERBOSE would drop the space that WHITESPACE stands for, so the layout goes by hand.
_ORDINARY = _SPACE + re.sub(rb"\n *", b"", _ORDINARY_TOKENS)
_HEAD = re.compile(_ORDINARY)
_PAGE = re.compile(
    rb"%b<!(?:doctype|DOCTYPE) (?:html|HTML)>%b(?:<html%b%b)?(?:<head%b)?%b"
    % (_SPACE, _SPACE, _NOT_AMP_ATTRIBUTES, _SPACE, _ATTRIBUTES, _ORDINARY)
)

#: This much of earlier pieces of a head is looked through for what matters to the tag, in bytes.
_LONGEST_HEAD = 64 * 1024
_LONGEST_NAME = 12  # longer than every name that has a meaning here
_NAME_END = re.compile(rb"[%b/>]" % WHITESPACE)

_HEAD_VOID = frozenset([b"base", b"basefont", b"bgsound", b"link", b"meta"])
# The parser runs with scripting on, so noscript is raw text like the others.
_HEAD_TEXT = frozenset([b"noframes", b"noscript", b"script", b"style", b"title"])
_TEMPLATE_TEXT = frozenset([*RAW_TEXT_ELEMENTS, b"plaintext", b"script"])
_HEAD_ENDING_END_TAGS = frozenset([b"body", b"br", b"head", b"html"])
_NOTED = frozenset([b"base", b"meta", b"script"])
_DOCUMENT_TAGS = frozenset([b"body", b"head", b"html"])
_FOREIGN_ROOTS = frozenset([b"math", b"svg"])

_DOCTYPE = b"<!doctype"
_COMMENT = b"<!--"
_CDATA = b"<![CDATA["
_DECLARATIONS = (_DOCTYPE, _COMMENT, _CDATA.lower())
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF_16_MARKS = (b"\xfe\xff", b"\xff\xfe")
_UNFINISHED_MARKS = frozenset([b"", b"\xef", b"\xef\xbb", b"\xfe", b"\xff"])

# Answers of the steps below that are not a position to go on from.
_HELD = -1
_PLACE = -2


class Scanner:
    """Finds the place for the tag, in linear time, whatever the chunks are.

    `is_document` is None until a doctype, `<html`, `<head` or `<body` (True) or content without
    one of them (False) was seen. `skip_reason` is "amp" or "charset" (UTF-16 by its byte order
    mark; ISO-2022-JP, in which the bytes of `</head>` can be text) for a page to be left alone.
    """

    is_document: bool | None = None
    skip_reason: str | None = None
    #: Whether there was a base, or a meta or script that the ordinary ones are not.
    notes: bool = False
    _at_start = True
    _inside: Construct | None = None
    _template_depth = 0
    _foreign_depth = 0

    def scan(self, data: bytes, last: bool) -> tuple[int, bool]:
        """How much of `data` is known to be before the place, and whether the place is there.

        Without a place or a `skip_reason` the rest (16 bytes at most) must be given again in front
        of the next chunk.
        """
        end, found = self._start(data, last) if self._at_start else (0, False)
        if not (found or self._at_start):
            end, found = self._scan(data, end, last)
        # No page has a control character ESC, but ISO-2022-JP begins every Japanese text with it,
        # and browsers detect that encoding even when it is not declared.
        if data.find(b"\x1b", 0, end) >= 0:
            self.skip_reason = "charset"
        if self.is_document is None and (found or last):
            self.is_document = False
        return end, found

    def _scan(self, data: bytes, position: int, last: bool) -> tuple[int, bool]:
        while True:
            if self._inside is not None:
                position, ended = self._inside.skip(data, position)
                if not ended:
                    return position, False
                if self._inside.amp:
                    self.skip_reason = "amp"
                    return position, False
                if self._inside.opens and not self._inside.closed:
                    self._foreign_depth += 1
                self._inside = None
            elif self._template_depth:
                position = data.find(b"<", position)
                if position < 0:
                    return len(data), False
                following = self._markup(data, position, last)
                if following == _HELD:
                    return position, False
                position = following
            else:
                head = _HEAD.match(data, position)
                if head:
                    if head.lastindex:
                        return head.start(1), True
                    position = head.end()
                if position == len(data):
                    return position, last
                following = self._markup(data, position, last)
                if following < 0:
                    return position, following == _PLACE
                position = following

    def _start(self, data: bytes, last: bool) -> tuple[int, bool]:
        """Read the byte order mark, and an ordinary page up to something that is not ordinary."""
        if not last and len(data) < 3 and data in _UNFINISHED_MARKS:
            return 0, False
        if data.startswith(_UTF_16_MARKS):
            self.skip_reason = "charset"
            return 0, False
        self._at_start = False
        position = len(_BYTE_ORDER_MARK) if data.startswith(_BYTE_ORDER_MARK) else 0
        page = _PAGE.match(data, position)
        if page:
            self.is_document = True
            if page.lastindex:
                return page.start(1), True
            position = page.end()
        return position, False

    def _markup(self, data: bytes, position: int, last: bool) -> int:
        """Take in the start of the token at `position`; where to go on, or _HELD or _PLACE."""
        if data[position : position + 1] != b"<":
            return _PLACE
        slash = data[position + 1 : position + 2] == b"/"
        first = data[position + 1 + slash : position + 2 + slash]
        if first.isalpha():
            return self._tag(data, position, closing=slash)
        if not first and not last:
            return _HELD
        if first and (slash or first == b"?"):
            self._inside = Construct(MARKUP)
            return position + 1 + slash
        if first == b"!":
            return self._declaration(data, position, last)
        return position + 1 if self._template_depth else _PLACE

    def _declaration(self, data: bytes, position: int, last: bool) -> int:
        opening = data[position : position + len(_DOCTYPE)]
        if opening.lower() == _DOCTYPE:
            if not self._template_depth:
                self.is_document = True
            self._inside = Construct(MARKUP)
            return position + len(_DOCTYPE)
        if opening.startswith(_COMMENT):
            content = data[position + len(_COMMENT) : position + len(_COMMENT) + 2]
            if content in (b"", b"-") and not last:
                return _HELD
            if content.startswith((b">", b"->")):
                return data.index(b">", position) + 1
            self._inside = Construct(COMMENT)
            return position + len(_COMMENT)
        if opening == _CDATA and self._foreign_depth:
            self._inside = Construct(CDATA)
            return position + len(_CDATA)
        is_cut_off = len(opening) < len(_CDATA) and not last
        if is_cut_off and any(mark.startswith(opening.lower()) for mark in _DECLARATIONS):
            return _HELD
        self._inside = Construct(MARKUP)
        return position + 2

    def _tag(self, data: bytes, position: int, *, closing: bool) -> int:
        start = position + 1 + closing
        name = data[start : start + _LONGEST_NAME]
        found = _NAME_END.search(name)
        if found:
            name = name[: found.start()]
        elif len(name) < _LONGEST_NAME:
            return _HELD
        name = name.lower()
        if not closing:
            self.notes = self.notes or name in _NOTED
            self._inside = self._start_tag(name)
            if self._inside is None:
                return _PLACE
        elif not self._template_depth and name in _HEAD_ENDING_END_TAGS:
            return _PLACE
        else:
            self._inside = Construct(TAG)
            if self._template_depth and name == b"template":
                self._template_depth -= 1
                self._foreign_depth = 0
            elif name in _FOREIGN_ROOTS and self._foreign_depth:
                self._foreign_depth -= 1
        return start + len(name)

    def _start_tag(self, name: bytes) -> Construct | None:
        """The start tag and the text in its element; None for one that ends the head.

        Inside a template every element is allowed.
        """
        if name in (_TEMPLATE_TEXT if self._template_depth else _HEAD_TEXT):
            # In SVG and MathML a slash really closes: <style/> has no text to wait the end of.
            return Construct(TAG, name, TAG, closes=self._foreign_depth > 0)
        if name == b"template":
            self._template_depth += 1
            self._foreign_depth = 0
        elif self._template_depth:
            if name in _FOREIGN_ROOTS:
                return Construct(TAG, closes=True, opens=True)
        elif name in _DOCUMENT_TAGS:
            self.is_document = True
            return None if name == b"body" else Construct(TAG, watch_amp=name == b"html")
        elif name not in _HEAD_VOID:
            return None
        return Construct(TAG)


class Injector(Struct, eq=False):
    """Takes one response body in pieces and gives it back with one tag in it.

    At the place of the tag feed() says so, and insert() takes the tag. Nothing that goes wrong in
    here is raised: the rest of the body passes through untouched, because a page matters more
    than its measurement.

    Attributes: `is_document` (None = cannot tell yet); `injected`; `skip_reason` ("fragment",
    "amp", "charset", "no_place": it ended without a place, "error", or None); `failure` is the
    error of an "error"; `settled`: nothing about the rest of the body will be changed any more;
    `head`: what comes before the place, where it may say something of the tag (see head.py).
    """

    injected: bool = False
    skip_reason: str | None = None
    failure: Exception | None = None
    settled: bool = False
    head: bytes = b""
    _before: list[bytes] = []
    _before_size: int = 0
    _held: bytes = b""
    _data: bytes = b""
    _place: int = 0
    _scanner: Scanner = field(default_factory=Scanner)

    @property
    def is_document(self) -> bool | None:
        """Whether the body is a whole page, not a fragment of one; None = cannot tell yet."""
        return self._scanner.is_document

    @property
    def untouched(self) -> bool:
        """Whether it is certain that the body goes out as it came."""
        return self.settled and not self.injected

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
                if scanner.notes:
                    self.head = b"".join([*self._before, data[:end]])
                self._before = []
                return [], True
            if found or last:
                reason = "no_place" if scanner.is_document else "fragment"
                return self._skip(reason, held, chunk), False
            if self._before_size < _LONGEST_HEAD:
                self._before.append(data[: min(end, _LONGEST_HEAD - self._before_size)])
                self._before_size += end
            self._held = data[end:]
            if end == len(chunk) and not held:
                return ([chunk] if chunk else []), False
            return ([memoryview(data)[:end]] if end else []), False
        except Exception as error:
            return self._skip("error", held, chunk, error), False

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

    def _skip(
        self, reason: str, held: bytes, chunk: Piece, failure: Exception | None = None
    ) -> list[Piece]:
        self._give_up(reason, failure)
        return [piece for piece in (held, chunk) if piece]

    def _give_up(self, reason: str | None, failure: Exception | None) -> None:
        self.settled, self.injected = True, reason is None
        self._held = b""
        self.skip_reason = reason
        self.failure = failure
