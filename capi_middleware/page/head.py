"""What the head of a page says that its tag must heed: policies, a base, a tag put in by hand."""

import re
from html import unescape
from urllib.parse import urlsplit

from msgspec import Struct

from capi_middleware.page.markup import WHITESPACE

# Comments, and the inside of elements that are text or are not there yet, say nothing.
_OPENING = re.compile(
    rb"(?i)<(?:(!--)|(script|meta|base|title|style|noscript|noframes|template)(?=[%b/>]))"
    % WHITESPACE
)
_ATTRIBUTES = re.compile(
    rb"((?:[%(s)b/]*+[^%(s)b/>][^%(s)b/>=]*+(?:[%(s)b]*+=[%(s)b]*+"
    rb"(?:\"[^\"]*+\"|'[^']*+'|[^%(s)b>\"']++))?+)*+)[%(s)b/]*+>" % {b"s": WHITESPACE}
)
_ENDS = {
    name: re.compile(rb"(?i)</%b[%b/>]" % (name, WHITESPACE))
    for name in (b"script", b"title", b"style", b"noscript", b"noframes", b"template")
}
_ATTRIBUTE = re.compile(
    rb"([^%(s)b/>][^%(s)b/>=]*+)(?:[%(s)b]*=[%(s)b]*(?:\"([^\"]*+)\"|'([^']*+)'|([^%(s)b>\"']++)))?"
    % {b"s": WHITESPACE}
)
#: Directives that browsers do not take from a meta element.
_IGNORED = frozenset({"sandbox", "frame-ancestors", "report-uri"})


class Head(Struct):
    """`policies`: those of meta elements, as of a header. `base`: relative addresses of the page
    lead to another origin. `has_script` and `has_block`: the parts of a tag of ours that are there.
    """

    policies: list[str] = []
    base: bool = False
    has_script: bool = False
    has_block: bool = False


def read_head(head: bytes) -> Head:
    """What a head says up to the place of the tag."""
    found = Head()
    based = False
    position = 0
    while opening := _OPENING.search(head, position):
        position = opening.end()
        name = (opening[2] or b"").lower()
        if not name:
            position = head.find(b"-->", position)
        elif name not in (b"meta", b"base"):
            position = _after(head, name, position)
        if position < 0:
            break
        if name not in (b"script", b"meta", b"base"):
            continue
        told = _ATTRIBUTES.match(head, opening.end())
        if told is None:
            break  # it does not end here
        position = max(position, told.end())  # an opening in an attribute opens nothing
        attributes = _attributes(told[1])
        if name == b"script":
            path = attributes.get("src", "").partition("?")[0]
            found.has_script = found.has_script or path.endswith("/s.js")
            found.has_block = found.has_block or "data-c" in attributes
        elif name == b"base":
            if not based and "href" in attributes:
                based = True
                found.base = _leads_away(attributes["href"].strip())
        elif attributes.get("http-equiv", "").strip().lower() == "content-security-policy":
            policy = _of_meta(attributes.get("content", ""))
            if policy.strip():
                found.policies.append(policy)
    return found


def _after(head: bytes, name: bytes, position: int) -> int:
    """Where the end tag of an element starts that holds no other, -1 where there is none."""
    end = _ENDS[name].search(head, position)
    return end.start() if end else -1


def _attributes(text: bytes) -> dict[str, str]:
    """Attributes by name in lower case; the first of a name counts."""
    attributes: dict[str, str] = {}
    for found in _ATTRIBUTE.finditer(text):
        value = next((one for one in found.groups()[1:] if one is not None), b"")
        attributes.setdefault(found[1].decode("latin-1").lower(), unescape(value.decode("latin-1")))
    return attributes


def _of_meta(content: str) -> str:
    """The policy of a meta element: one alone, and without what browsers ignore there."""
    directives = content.replace(",", "%2C").split(";")
    return ";".join(one for one in directives if _IGNORED.isdisjoint(one.lower().split()[:1]))


def _leads_away(href: str) -> bool:
    try:
        parts = urlsplit(href.replace("\\", "/"))
    except ValueError:
        return False
    return bool(parts.netloc or parts.scheme)
