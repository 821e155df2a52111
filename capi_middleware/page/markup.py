"""What a browser's tokenizer skips as one whole: tags, comments, raw text and script data.

Each class stands inside one construct of the WHATWG HTML standard, chapter "Tokenization", and
finds its end over any number of chunks. `skip(data, position)` answers how far it got and whether
the construct ended there. If it did not end, the bytes after that position (12 at most) could
be the start of its end, and have to be given again in front of the next chunk.
"""

import re
from typing import Protocol

#: The inside of a character class: HTML white space (no vertical tab, unlike `\s`).
WHITESPACE = rb"\t\n\f\r "

_SPACES = re.compile(rb"[%b]*+" % WHITESPACE)
_SPACES_AND_SLASHES = re.compile(rb"[%b/]*+" % WHITESPACE)
_ATTRIBUTE_NAME = re.compile(rb"[^%b/>=]*+" % WHITESPACE)
_UNQUOTED_VALUE = re.compile(rb"[^%b>]*+" % WHITESPACE)
_AMP_ATTRIBUTE = re.compile(rb"(?i)(?:amp|\xe2\x9a\xa1(?:\xef\xb8\x8f)?)(?:4[a-z]+)?")
_LONGEST_AMP_ATTRIBUTE = 24

_NAME_END = rb"(?=[%b/>])" % WHITESPACE

RAW_TEXT_ELEMENTS = (
    b"iframe",
    b"noembed",
    b"noframes",
    b"noscript",
    b"style",
    b"textarea",
    b"title",
    b"xmp",
)
_RAW_TEXT_ENDS = {name: re.compile(rb"(?i)</" + name + _NAME_END) for name in RAW_TEXT_ELEMENTS}

# Alternatives share their "<": it lets the search run from one to the next.
_SCRIPT_DATA = re.compile(rb"(?i)<(?:(/script%b)|!(?=--))" % _NAME_END)
_ESCAPED = re.compile(rb"(?i)-->|<(?:(/script%b)|(script%b))" % (_NAME_END, _NAME_END))
_DOUBLE_ESCAPED = re.compile(rb"(?i)-->|<(/script%b)" % _NAME_END)
_SCRIPT_MARKS = (b"</script", b"<script", b"<!--")
#: The state after a mark, by state and group of the mark; no entry: the element ended.
_AFTER_MARK = {
    (_SCRIPT_DATA, None): _ESCAPED,
    (_ESCAPED, None): _SCRIPT_DATA,
    (_ESCAPED, 2): _DOUBLE_ESCAPED,
    (_DOUBLE_ESCAPED, None): _SCRIPT_DATA,
    (_DOUBLE_ESCAPED, 1): _ESCAPED,
}


class Construct(Protocol):
    """Something to skip as a whole; `then` is what the tokenizer is in right after it."""

    then: "Construct | None"

    def skip(self, data: bytes, position: int) -> tuple[int, bool]:
        """How far the construct was followed from `position`, and whether it ended there."""


class Ends:
    """A construct that ends where `end` is found, whose last bytes may be cut off: `marks`.

    The marks are what it can end with, in lower case, all with the same first character.
    """

    __slots__ = ("_end", "_marks", "then")

    def __init__(
        self, end: re.Pattern[bytes], *marks: bytes, then: "Construct | None" = None
    ) -> None:
        self.then: Construct | None = then
        self._end = end
        self._marks = marks

    def skip(self, data: bytes, position: int) -> tuple[int, bool]:
        """Follow it to its end."""
        found = self._end.search(data, position)
        if found:
            return found.end(), True
        return _unfinished(data, position, self._marks), False


#: Doctypes and bogus comments.
MARKUP = Ends(re.compile(b">"))
CDATA = Ends(re.compile(b"]]>"), b"]]>")
#: From after `<!--` on; the abrupt ends `<!-->` and `<!--->` are not for here.
COMMENT = Ends(re.compile(rb"--!?>"), b"--!>", b"-->")
#: Everything after `<plaintext>`: it never ends.
PLAINTEXT = Ends(re.compile(rb"(?!)"))


def raw_text(name: bytes) -> Ends:
    """RCDATA and RAWTEXT: the content of an element that only its own end tag can end."""
    return Ends(_RAW_TEXT_ENDS[name], b"</" + name, then=Tag())


class Script:
    """Script data, with its escaped and double escaped states."""

    def __init__(self) -> None:
        self.then: Construct | None = Tag()
        self._state = _SCRIPT_DATA

    def skip(self, data: bytes, position: int) -> tuple[int, bool]:
        """Follow it to the end of the name of the end tag that ends the element."""
        while found := self._state.search(data, position):
            position = found.end()
            state = _AFTER_MARK.get((self._state, found.lastindex))
            if state is None:
                return position, True
            self._state = state
        start = _unfinished(data, position, _SCRIPT_MARKS)
        if start == len(data) and self._state is not _SCRIPT_DATA:
            for dashes in (b"--", b"-"):
                if data.endswith(dashes, position):
                    return len(data) - len(dashes), False
        return start, False


class Tag:
    """The attributes of a start or end tag, from after its name to its `>`.

    `self_closing` and, if it was watched for, `amp` (an attribute marks an AMP page) are known
    at its end. `opens` is the foreign element (svg, math) that it starts.
    """

    __slots__ = ("_name", "_quote", "_state", "_watch_amp", "amp", "opens", "self_closing", "then")

    _BEFORE_NAME, _NAME, _AFTER_NAME, _BEFORE_VALUE, _QUOTED, _UNQUOTED = range(6)

    def __init__(
        self, then: Construct | None = None, *, opens: bytes = b"", watch_amp: bool = False
    ) -> None:
        self.then: Construct | None = then
        self.opens: bytes = opens
        self._watch_amp = watch_amp
        self.self_closing: bool = False
        self.amp: bool = False
        self._state = self._BEFORE_NAME
        self._name = b""
        self._quote = b'"'

    def skip(self, data: bytes, position: int) -> tuple[int, bool]:
        """Follow the attributes to the first `>` that is not in a quoted value."""
        size = len(data)
        while position < size:
            state = self._state
            if state == self._BEFORE_NAME:
                end = _end(_SPACES_AND_SLASHES, data, position)
                if end > position:
                    self.self_closing = data[end - 1 : end] == b"/"
                if end == size:
                    return size, False
                if data[end : end + 1] == b">":
                    return end + 1, True
                self.self_closing = False
                self._name = data[end : end + 1]
                self._state = self._NAME
                position = end + 1
            elif state == self._NAME:
                end = _end(_ATTRIBUTE_NAME, data, position)
                if self._watch_amp and len(self._name) <= _LONGEST_AMP_ATTRIBUTE:
                    self._name += data[position : min(end, position + _LONGEST_AMP_ATTRIBUTE)]
                position = end
                if end < size:
                    if self._watch_amp and _AMP_ATTRIBUTE.fullmatch(self._name):
                        self.amp = True
                    self._state = self._AFTER_NAME
            elif state == self._AFTER_NAME:
                position = _end(_SPACES, data, position)
                if data[position : position + 1] == b"=":
                    position += 1
                    self._state = self._BEFORE_VALUE
                elif position < size:
                    self._state = self._BEFORE_NAME
            elif state == self._BEFORE_VALUE:
                position = _end(_SPACES, data, position)
                first = data[position : position + 1]
                if first == b">":
                    return position + 1, True
                if first in (b'"', b"'"):
                    position += 1
                    self._quote = first
                    self._state = self._QUOTED
                elif first:
                    self._state = self._UNQUOTED
            elif state == self._QUOTED:
                position = data.find(self._quote, position) + 1
                if position == 0:
                    return size, False
                self._state = self._BEFORE_NAME
            else:
                position = _end(_UNQUOTED_VALUE, data, position)
                if position < size:
                    self._state = self._BEFORE_NAME
        return size, False


def _end(pattern: re.Pattern[bytes], data: bytes, position: int) -> int:
    found = pattern.match(data, position)
    return found.end() if found else position


def _unfinished(data: bytes, position: int, marks: tuple[bytes, ...]) -> int:
    """Where a mark that the end of the data cut off starts; the length of the data without one."""
    if marks:
        first = marks[0][:1]
        start = data.find(first, max(position, len(data) - len(marks[0])))
        while start >= 0:
            rest = data[start:].lower()
            if any(mark.startswith(rest) for mark in marks):
                return start
            start = data.find(first, start + 1)
    return len(data)
