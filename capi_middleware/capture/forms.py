"""Forms: the fields that expressions name, found in a request body while it streams by.

Work is linear in the body, and a bounded part of it is kept, whoever wrote it.
"""

import re
from binascii import Error, a2b_base64, a2b_qp
from codecs import lookup
from collections.abc import Iterable
from typing import Protocol
from urllib.parse import unquote, unquote_plus

#: At most this much of a request body is looked through for {form.x}, in bytes.
SCANNED = 1024 * 1024
#: At most this much of a request body is kept for {form.x} and {json.x}, in bytes.
KEPT = 64 * 1024
#: At most this much of a field is looked at, in characters.
FIELD_READ = 4096
#: A boundary has 70 characters at most (RFC 2046), the head of a part some 200.
_LONGEST_BOUNDARY, _LONGEST_HEAD, _LONGEST_PADDING, _MOST_PARAMETERS = 200, 4096, 64, 16
#: Frameworks take a thousand fields and a thousand files.
_MOST_PARTS = 2000

_NO_HEAD, _HEAD_ENDS = re.compile(rb"\r?\n"), (b"\n\r\n", b"\n\n")
_MARK_END = re.compile(rb"(--)|[ \t]{0,%d}\r?\n" % _LONGEST_PADDING)
_PARAMETER = re.compile(r'[ \t]*;[ \t]*([^\s;="]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*+)"|([^\s;"]*))')
_ESCAPED = re.compile(r'\\(["\\])')
#: Encodings of text that decode in one linear step.
_CHARSET = re.compile(
    r"utf-?8|(?:us-)?ascii|iso-?8859-?\d{1,2}|latin-?1|(?:windows-|cp)125\d|koi8-[ru]|shift_jis|euc-jp|"
    r"euc-kr|gb2312|gbk|gb18030|big5",
    re.IGNORECASE,
)


class Form(Protocol):
    """A form that is read as it comes in pieces."""

    #: Whether something of it was longer than what is kept or looked through.
    too_long: bool

    def feed(self, chunk: bytes) -> None:
        """One more piece of the body."""

    def fields(self) -> dict[str, str]:
        """The fields that were found so far: the first of each name that is not empty."""


def form_of(content_type: str, names: Iterable[str]) -> Form | None:
    """What reads the fields `names` of a form of this Content-Type; None where it is no form."""
    kind, parameters = _header(content_type)
    charset = parameters.get("charset", "")
    if "urlencoded" in kind:
        return UrlEncoded(names, charset)
    boundary = parameters.get("boundary", "").encode("latin-1", "replace")
    if kind == "multipart/form-data" and 0 < len(boundary) <= _LONGEST_BOUNDARY:
        return Multipart(names, boundary, charset)
    return None


class _Fields:
    """The fields of one form that have a name in `names`, within KEPT bytes."""

    def __init__(self, names: Iterable[str], charset: str) -> None:
        self._names = frozenset(names)
        self._charset = charset
        self._found: dict[str, str] = {}
        self._room = KEPT
        self.too_long: bool = False

    def _miss(self) -> None:
        self.too_long = True

    def _keep(self, name: str, text: str, size: int) -> None:
        if text:
            self._room -= size
            self._found[name] = text


class UrlEncoded(_Fields):
    """A form in application/x-www-form-urlencoded."""

    def __init__(self, names: Iterable[str], charset: str) -> None:
        super().__init__(names, charset)
        # Any character of a name may be written as it is or percent-encoded.
        wanted = b"|".join(b"".join(map(_spellings, name.encode())) for name in self._names)
        self._pairs = re.compile(b"(?:\\A|&)(%b)=([^&]+)" % (wanted or b"(?!)"))
        self._rest = bytearray()
        self._skips = False

    def feed(self, chunk: bytes) -> None:
        """One more piece of the body."""
        rest = self._rest
        before = len(rest)
        rest += chunk
        if self._skips:
            end = rest.find(b"&")
            del rest[: end if end >= 0 else len(rest)]
            before = 0
            if end < 0:
                return
            self._skips = False
        end = rest.rfind(b"&", before)
        if end >= 0:
            self._read(bytes(rest[:end]))
            del rest[:end]
        if len(rest) > KEPT:
            if self._pairs.match(rest) is not None:
                self._miss()
            self._skips = True
            rest.clear()

    def fields(self) -> dict[str, str]:
        """The fields that were found so far."""
        self._read(bytes(self._rest))
        return self._found

    def _read(self, pairs: bytes) -> None:
        for found in self._pairs.finditer(pairs):
            name, value = unquote_plus(found[1].decode()), found[2]
            if name in self._found:
                continue
            if len(value) > self._room:
                self._miss()
                continue
            value = value[: 12 * FIELD_READ]  # a character has four bytes, each may be encoded
            text = unquote_plus(_text(value, self._charset), _known(self._charset))
            self._keep(name, text[:FIELD_READ], len(found[2]))


def _spellings(byte: int) -> bytes:
    plain = b"+" if byte == 32 else bytes([byte])
    return b"(?:%b|%%(?i:%02x))" % (re.escape(plain), byte)


class Multipart(_Fields):
    """A form in multipart/form-data: its files go by, wherever they stand."""

    def __init__(self, names: Iterable[str], boundary: bytes, charset: str) -> None:
        super().__init__(names, charset)
        self._mark = b"\n--" + boundary
        self._rest = bytearray(b"\n")  # the first mark may have nothing before it
        self._searched = 0
        self._parts = 0
        self._in_head = self._done = False
        self._name = ""
        #: What there is so far of the value of a field that is wanted.
        self._value: bytearray | None = None
        self._encoding = self._part_charset = ""

    def feed(self, chunk: bytes) -> None:
        """One more piece of the body."""
        if self._done:
            return
        self._rest += chunk
        while self._head() if self._in_head else self._content():
            pass

    def fields(self) -> dict[str, str]:
        """The fields that were found so far."""
        return self._found

    def _head(self) -> bool:
        """Read the head of a part; whether there is more to read."""
        rest = self._rest
        end = _end_of_head(rest, self._searched)
        if end is not None:
            self._begin(bytes(rest[: end[0]]))
            del rest[: end[1]]
        elif len(rest) < _LONGEST_HEAD:
            self._searched = max(0, len(rest) - 2)
            return False
        self._searched = 0
        self._in_head = False
        return True

    def _content(self) -> bool:
        """Read the content of a part up to the next mark; whether there is more to read."""
        rest, size = self._rest, len(self._mark)
        place = rest.find(self._mark, self._searched)
        end = _MARK_END.match(rest, place + size) if place >= 0 else None
        if end is None:
            self._searched = 0
            if place < 0:
                self._take(len(rest) - size)
            elif len(rest) > place + size + _LONGEST_PADDING + 1:
                self._searched = place + 1
                return True
            else:  # it may be cut off; what a line ends with may be before it
                self._take(place - 1)
            return False
        self._take(place - (rest[place - 1 : place] == b"\r"))
        del rest[: rest.index(self._mark) + end.end() - place]
        self._finish()
        self._searched = 0
        self._in_head = True
        self._parts += 1
        self._done = end.start(1) >= 0 or self._parts > _MOST_PARTS
        if self._done:
            if end.start(1) < 0:
                self._miss()
            rest.clear()
        return not self._done

    def _take(self, size: int) -> None:
        """So many bytes are of the content of the part."""
        if size <= 0:
            return
        if self._value is not None:
            if len(self._value) + size > self._room:
                self._value = None
                self._miss()
            else:
                self._value += self._rest[:size]
        del self._rest[:size]

    def _begin(self, head: bytes) -> None:
        """The head of a part was read: its content is kept if it is a field that is wanted."""
        told = {}
        for line in _text(head, "utf-8").split("\n"):
            name, _, value = line.partition(":")
            told[name.strip().lower()] = value
        _, parameters = _header(told.get("content-disposition", ""))
        name = parameters.get("name", "")
        if "name*" in parameters:
            name = unquote(parameters["name*"].rpartition("'")[2])
        is_file = "filename" in parameters or "filename*" in parameters
        if is_file or name not in self._names or name in self._found:
            return
        self._name = name
        self._value = bytearray()
        self._encoding = told.get("content-transfer-encoding", "").strip().lower()
        _, of_part = _header(told.get("content-type", ""))
        self._part_charset = of_part.get("charset", self._charset)

    def _finish(self) -> None:
        if self._value is None:
            return
        value, self._value = bytes(self._value), None
        try:
            if self._encoding == "base64":
                value = a2b_base64(value)
            elif self._encoding == "quoted-printable":
                value = a2b_qp(value)
        except Error:
            return
        self._keep(self._name, _text(value, self._part_charset), len(value))


def _end_of_head(rest: bytearray, start: int) -> tuple[int, int] | None:
    """Where the head of a part ends, and its content begins."""
    if nothing := _NO_HEAD.match(rest):
        return 0, nothing.end()
    # Not by a regular expression: a body of nothing but marks has 2,000 heads of 4 KB.
    places = [(rest.find(end, start, _LONGEST_HEAD), len(end)) for end in _HEAD_ENDS]
    return min(((at, at + size) for at, size in places if at >= 0), default=None)


def _header(text: str) -> tuple[str, dict[str, str]]:
    """A header's value in lower case and its parameters, the first of each name."""
    kind, _, _ = text.partition(";")
    parameters: dict[str, str] = {}
    end = len(kind)
    for _ in range(_MOST_PARAMETERS):
        found = _PARAMETER.match(text, end)
        if found is None:
            break
        end = found.end()
        name, quoted, plain = found.groups()
        value = plain if quoted is None else _ESCAPED.sub(r"\1", quoted).replace("%22", '"')
        parameters.setdefault(name.lower(), value)
    return kind.strip().lower(), parameters


def _text(encoded: bytes, charset: str) -> str:
    return encoded.decode(_known(charset), "replace")


def _known(charset: str) -> str:
    try:
        return lookup(charset).name if _CHARSET.fullmatch(charset) else "utf-8"
    except LookupError:
        return "utf-8"
