"""What a browser's tokenizer skips as one whole: tags, comments, raw text and script data.

One table of states of the WHATWG HTML standard, chapter "Tokenization", followed over any number
of chunks.
"""

import re

#: The inside of a character class: HTML white space (no vertical tab, unlike `\s`).
WHITESPACE = rb"\t\n\f\r "

RAW_TEXT_ELEMENTS = (
    b"iframe", b"noembed", b"noframes", b"noscript", b"style", b"textarea", b"title", b"xmp",
)  # fmt: skip
_AMP_ATTRIBUTE = re.compile(rb"(?i)(?:amp|\xe2\x9a\xa1(?:\xef\xb8\x8f)?)(?:4[a-z]+)?")
_LONGEST_AMP_ATTRIBUTE = 24

_NAME_END = rb"(?=[%b/>])" % WHITESPACE
_SCRIPT_MARKS = (b"</script", b"<script", b"<!--", b"-->")

#: From after the name of a tag to its `>`; doctypes and bogus comments; from after `<!--` on (the
#: abrupt ends `<!-->` and `<!--->` are not for here); foreign content. All others are elements'.
TAG, MARKUP, COMMENT, CDATA = b"tag", b"markup", b"comment", b"cdata"
_ENDED, _CLOSED = b"ended", b"closed"

#: Of each state: what ends it; the next state, or what ended, by the group that was found; and what
#: it can end with, in lower case, where that may be cut off.
_State = tuple[re.Pattern[bytes], tuple[bytes, ...], tuple[bytes, ...]]
_STATES: dict[bytes, _State] = {
    state: (re.compile(end % {b"s": WHITESPACE, b"name_end": _NAME_END}), following, marks)
    for state, end, following, marks in (
        (TAG, rb"(/>)|(>)|[^%(s)b/]", (b"name", _CLOSED, _ENDED), (b"/>",)),
        (b"name", rb"(?=[%(s)b/>=])", (b"after name",), ()),
        (b"after name", rb"(=)|(?=[^%(s)b=])", (TAG, b"before value"), ()),
        (b"before value", rb"(>)|(\")|(')|(?=[^%(s)b>\"'])",
         (b"unquoted", _ENDED, b"double quoted", b"quoted"), ()),
        (b"double quoted", rb'"', (TAG,), ()),
        (b"quoted", rb"'", (TAG,), ()),
        (b"unquoted", rb"(?=[%(s)b>])", (TAG,), ()),
        (MARKUP, rb">", (_ENDED,), ()),
        (CDATA, rb"]]>", (_ENDED,), (b"]]>",)),
        (COMMENT, rb"--!?>", (_ENDED,), (b"--!>", b"-->")),
        (b"plaintext", rb"(?!)", (), ()),
        *((name, rb"(?i)</" + name + rb"%(name_end)b", (_ENDED,), (b"</" + name,))
          for name in RAW_TEXT_ELEMENTS),
        # Alternatives share their "<": it lets the search run from one to the next.
        (b"script", rb"(?i)<(?:(/script%(name_end)b)|!(?=--))", (b"escaped", _ENDED),
         _SCRIPT_MARKS),
        (b"escaped", rb"(?i)-->|<(?:(/script%(name_end)b)|(script%(name_end)b))",
         (b"script", _ENDED, b"double escaped"), _SCRIPT_MARKS),
        (b"double escaped", rb"(?i)-->|<(/script%(name_end)b)", (b"script", b"escaped"),
         _SCRIPT_MARKS),
    )
}  # fmt: skip


class Construct:
    """`states` to go through one after another: a start tag, say, its raw text and the end tag.

    Where a slash `closes` (in SVG and MathML), it ends all of them, and `closed` says so. `opens`:
    the element starts such foreign content. `amp` is known at the end, if it was watched for: an
    attribute marks an AMP page.
    """

    __slots__ = ("_closes", "_name", "_state", "_states", "_watch_amp", "amp", "closed", "opens")

    def __init__(
        self, *states: bytes, closes: bool = False, opens: bool = False, watch_amp: bool = False
    ) -> None:
        self._state, *self._states = states
        self._closes = closes
        self._watch_amp = watch_amp
        self.opens: bool = opens
        self._name = b""
        self.amp: bool = False
        self.closed: bool = False

    def skip(self, data: bytes, position: int) -> tuple[int, bool]:
        """How far the construct was followed from `position`, and whether it ended there.

        If it did not, the bytes after that position (12 at most) could be the start of its end, and
        have to be given again in front of the next chunk.
        """
        while True:
            end, following, marks = _STATES[self._state]
            found = end.search(data, position)
            if self._watch_amp and self._state in (TAG, b"name"):
                self._note_name(data[position : found.end() if found else None], bool(found))
            if found is None:
                return _unfinished(data, position, marks), False
            position = found.end()
            state = following[found.lastindex or 0]
            if state in (_ENDED, _CLOSED):
                self.closed = self._closes and state == _CLOSED
                if self.closed or not self._states:
                    return position, True
                state = self._states.pop(0)
            self._state = state

    def _note_name(self, text: bytes, whole: bool) -> None:
        if self._state == TAG:  # which the first character of a name ends
            self._name = text[-1:]
            return
        self._name = (self._name + text)[:_LONGEST_AMP_ATTRIBUTE]
        if whole and _AMP_ATTRIBUTE.fullmatch(self._name):
            self.amp = True


def _unfinished(data: bytes, position: int, marks: tuple[bytes, ...]) -> int:
    """Where a mark that the end of the data cut off starts; the length of the data without one."""
    for start in range(max(position, len(data) - max(map(len, marks), default=0)), len(data)):
        rest = data[start:].lower()
        if any(mark.startswith(rest) for mark in marks):
            return start
    return len(data)
