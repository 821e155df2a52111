"""The gate decides by status and headers whether a body may be touched, and what they become."""

import re
from collections.abc import Sequence
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from capi_middleware.page.csp import integrity, own_address, rule

Header = tuple[bytes, bytes]


class Verdict(Struct, frozen=True):
    """What the gate found.

    `reason` is "" for a response to inject, else the first that holds of: not_html, xhtml,
    ambiguous_type, charset, status, encoded, attachment, content_length, no_transform, signed,
    offloaded, integrity_trailer, csp, head ("head": GET would be injected).

    `nonce`: the CSP nonce the tag has to carry. `public`: shared caches may keep the page, so it
    must not carry anything of one visitor (not looked at for not_html and xhtml). `gzip`: the
    body is gzip. `csp_notes`: directives that block a
    part of what the tag does. `hides`: its Referrer-Policy keeps its address from what it calls.
    """

    inject: bool
    reason: str
    nonce: str | None = None
    public: bool = False
    gzip: bool = False
    csp_notes: tuple[str, ...] = ()
    hides: bool = False


_NOT_HTML = Verdict(inject=False, reason="not_html")
_XHTML = Verdict(inject=False, reason="xhtml")

# 1xx and 3xx bodies are never shown; these have none, or a part of one.
_STATUSES_WITHOUT_PAGE = frozenset([204, 205, 206])
_CHARSET = re.compile(rb";[ \t]*charset[ \t]*=[ \t]*\"?([^\";]*)", re.IGNORECASE)
# Not a superset of ASCII, or with a state in which ASCII bytes are not ASCII characters.
_UNSAFE_CHARSET = re.compile(
    rb"utf-?(?:7|16|32).*|(?:cs)?iso-?2022.*|hz(?:-gb-2312)?|ucs-?[24].*|(?:cs)?unicode|"
    rb"unicodefeff|unicodefffe|(?:cs)?iso-?10646-?ucs.*|scsu|bocu-1",
    re.IGNORECASE,
)
# The server in front of the app replaces the body by a file.
_OFFLOADING = frozenset(
    [b"x-accel-redirect", b"x-lighttpd-send-file", b"x-litespeed-location", b"x-reproxy-url",
     b"x-sendfile"]
)  # fmt: skip
_INTEGRITY_FIELDS = frozenset([b"content-digest", b"content-md5", b"digest", b"repr-digest"])
_CDN_CACHE_CONTROL = b"cdn-cache-control"
# Read by caches of a CDN alone, before Cache-Control.
_SHARED = (b"surrogate-control", _CDN_CACHE_CONTROL, b"edge-control", b"x-litespeed-cache-control")
_RELEVANT = _OFFLOADING | frozenset(_SHARED) | frozenset(
    [b"cache-control", b"content-disposition", b"content-encoding", b"content-type",
     b"referrer-policy", b"signature", b"signature-input", b"trailer", b"x-accel-expires"]
)  # fmt: skip
# Of the words that browsers know the last one counts; "" is none of theirs.
_HIDING = frozenset([b"no-referrer", b"origin", b"strict-origin"])
_REFERRERS = _HIDING | frozenset(
    [b"no-referrer-when-downgrade", b"same-origin", b"origin-when-cross-origin",
     b"strict-origin-when-cross-origin", b"unsafe-url"]
)  # fmt: skip
_POLICIES = (
    b"content-security-policy", b"content-security-policy-report-only", b"integrity-policy"
)  # fmt: skip
# What lets a cache keep a response, in seconds; cache-maxage is Akamai's.
_LIFETIMES = frozenset(
    [b"max-age", b"s-maxage", b"cache-maxage", b"stale-while-revalidate", b"stale-if-error"]
)
# A comma within quotes divides nothing.
_ITEM = re.compile(rb'(?:[^,"]|"[^"]*"?)+')
_LONGEST_LENGTH = 18  # digits; int() refuses endless ones

Fields = dict[bytes, list[bytes]]


def inspect(
    method: str, status: int, headers: Sequence[Header], *, host: str = "", scheme: str = "https"
) -> Verdict:
    """Decide on a response by what it says of itself (never by request headers: no Vary needed).

    `host` (as in the Host header) and `scheme` of the page are for policies that allow scripts
    by host; without `host` such a source counts as blocking.
    """
    for name, value in headers:
        if len(name) == 12 and name.lower() == b"content-type":
            if value.lstrip()[:9].lower() != b"text/html":
                return _XHTML if value[:21].lower() == b"application/xhtml+xml" else _NOT_HTML
            break
    else:
        return _NOT_HTML
    relevant: list[Header] = []
    lengths: list[bytes] = []
    enforced: list[str] = []
    report_only: list[str] = []
    for name, value in headers:
        lower = name.lower()
        if lower == b"content-length":
            lengths.append(value.strip())
        elif lower in _RELEVANT or lower.endswith(_CDN_CACHE_CONTROL):
            relevant.append((lower, value))
        elif lower == b"content-security-policy":
            enforced.append(value.decode("latin-1"))
        elif lower == b"content-security-policy-report-only":
            report_only.append(value.decode("latin-1"))
        elif lower == b"integrity-policy":
            enforced += integrity(value.decode("latin-1"))
    # Equal ones are one (RFC 9110, section 8.6).
    digits = lengths[0] if lengths and lengths.count(lengths[0]) == len(lengths) else b""
    has_length = not lengths or (digits.isdigit() and len(digits) <= _LONGEST_LENGTH)
    verdict = _judge(status, has_length, *relevant)
    if verdict.inject and (enforced or report_only):
        verdict = _ruled(verdict, enforced, report_only, scheme, host)
    if verdict.inject and method == "HEAD":
        verdict = replace(verdict, inject=False, reason="head")
    return verdict


def inspect_head(
    verdict: Verdict, headers: Sequence[Header], policies: Sequence[str], *, host: str, scheme: str
) -> Verdict:
    """The verdict on a response that is to be injected, with the policies of its page besides."""
    fields = _fields(headers)
    texts = {name: [one.decode("latin-1") for one in fields.get(name, ())] for name in _POLICIES}
    enforced, report_only, wanted = (texts[name] for name in _POLICIES)
    enforced += [*policies, *(one for value in wanted for one in integrity(value))]
    return _ruled(verdict, enforced, report_only, scheme, host)


def _ruled(
    verdict: Verdict, enforced: list[str], report_only: list[str], scheme: str, host: str
) -> Verdict:
    allowed, nonce, notes = rule(enforced, report_only, own_address(scheme, host))
    reason = "" if allowed else "csp"
    return replace(verdict, inject=allowed, reason=reason, nonce=nonce, csp_notes=notes)


def may_be_page(headers: Sequence[Header]) -> bool:
    """A first look that costs little: False where inspect() finds "not_html"."""
    for name, value in headers:
        if len(name) == 12 and name.lower() == b"content-type":
            return b"html" in value.lower()
    return False


def is_public(headers: Sequence[Header]) -> bool:
    """Whether shared caches may keep a response with these headers."""
    return _is_public(_fields(headers))


def _fields(headers: Sequence[Header]) -> Fields:
    """The values of each field; a CDN's own field (RFC 9213) counts as all CDNs'."""
    fields: Fields = {}
    for name, value in headers:
        lower = name.lower()
        if lower.endswith(_CDN_CACHE_CONTROL):
            lower = _CDN_CACHE_CONTROL
        fields.setdefault(lower, []).append(value)
    return fields


@lru_cache(maxsize=64)
def _judge(status: int, has_length: bool, *relevant: Header) -> Verdict:
    """The verdict before any policy. Pages of a site have few different headers of this kind."""
    fields = _fields(relevant)
    encodings = [token for token in _tokens(fields, b"content-encoding") if token != b"identity"]
    reason = _reason(status, has_length, fields, encodings)
    is_gzip = bool(encodings) and not reason
    known = [one for one in _tokens(fields, b"referrer-policy") if one in _REFERRERS]
    return Verdict(
        inject=not reason, reason=reason, public=_is_public(fields), gzip=is_gzip,
        hides=bool(known) and known[-1] in _HIDING,
    )  # fmt: skip


def _reason(status: int, has_length: bool, fields: Fields, encodings: list[bytes]) -> str:
    content_types = fields[b"content-type"]
    content_type = content_types[0]
    if len(content_types) > 1 or b"," in content_type:
        return "ambiguous_type"
    if content_type.partition(b";")[0].strip().lower() != b"text/html":
        return "not_html"
    charset = _CHARSET.search(content_type)
    if charset and _UNSAFE_CHARSET.fullmatch(charset[1].strip()):
        return "charset"
    is_shown = 200 <= status < 300 or 400 <= status < 600
    if not is_shown or status in _STATUSES_WITHOUT_PAGE:
        return "status"
    if encodings and encodings not in ([b"gzip"], [b"x-gzip"]):
        return "encoded"
    if not all(map(_is_inline, fields.get(b"content-disposition", ()))):
        return "attachment"
    if not has_length:
        return "content_length"
    if b"no-transform" in _tokens(fields, b"cache-control"):
        return "no_transform"
    if b"signature" in fields or b"signature-input" in fields:
        return "signed"
    if not _OFFLOADING.isdisjoint(fields):
        return "offloaded"
    if not _INTEGRITY_FIELDS.isdisjoint(_tokens(fields, b"trailer")):
        return "integrity_trailer"
    return ""


def _is_inline(disposition: bytes) -> bool:
    """Whether browsers show it: RFC 6266 handles every unknown type like "attachment".

    A value that starts with a parameter has no type, and browsers show it.
    """
    kind = disposition.partition(b";")[0].strip().lower()
    return kind in (b"", b"inline") or b"=" in kind


def _is_public(fields: Fields) -> bool:
    """Whether shared caches may store it: RFC 9111, and the fields that only they read.

    Not what they only may (Expires, Last-Modified, a rule of their own): made_private() ends that.
    """
    for name in _SHARED:
        directives = _tokens(fields, name)
        if directives and not _is_closed(directives) and _is_open(directives):
            return True
    if any(token not in (b"0", b"off") for token in _tokens(fields, b"x-accel-expires")):
        return True
    directives = _tokens(fields, b"cache-control")
    return not _is_closed(directives) and _is_open(directives)


def _is_closed(directives: list[bytes]) -> bool:
    """Whether nobody or one visitor alone may keep all of it: private="set-cookie" says less."""
    return b"private" in directives or b"no-store" in directives


def _is_open(directives: list[bytes]) -> bool:
    """Whether a cache may keep it for some time, or show it when it is stale."""
    return b"public" in directives or any(map(_is_lifetime, directives))


def _is_lifetime(directive: bytes) -> bool:
    name, _, seconds = directive.partition(b"=")
    return name in _LIFETIMES and bool(seconds.strip(b'" \t0'))


def _tokens(fields: Fields, name: bytes) -> list[bytes]:
    """The comma separated tokens of all lines of a field, in lower case."""
    values = fields.get(name)
    if not values:
        return []
    tokens: list[bytes] = []
    for value in values:
        parts = _ITEM.findall(value) if b'"' in value else value.split(b",")
        tokens += [part.strip().lower() for part in parts]
    return [token for token in tokens if token]


# Each of them describes the bytes or the byte ranges of the body the app made.
_BROKEN = _INTEGRITY_FIELDS | {b"accept-ranges"}
_PRIVATE = (b"cache-control", b"private")


def rewrite(
    headers: Sequence[Header], *, event_ids: bool, length: int | None, private: bool = False
) -> list[Header]:
    """The headers of an injected page: a new list, with order and duplicates kept.

    `length` in bytes replaces Content-Length where the app sent one; None removes it.

    A page with `event_ids` loses ETag and Last-Modified: a revalidated copy would show the same
    ids for another view, and Meta drops the second event of an id. Without them a strong ETag
    becomes weak (RFC 9110, section 8.8.1: the bytes differ from those the app tagged).

    With `private` it says so, see made_private().
    """
    rewritten: list[Header] = []
    for header in headers:
        name = header[0].lower()
        if name in _BROKEN:
            continue
        if name == b"content-length":
            if length is not None:
                rewritten.append((header[0], b"%d" % length))
                length = None  # an equal one may follow
        elif name == b"etag":
            etag = header[1].strip()
            if etag.startswith((b"W/", b'"')) and not event_ids:
                rewritten.append(header if etag[:1] == b"W" else (header[0], b"W/" + etag))
        elif name != b"last-modified" or not event_ids:
            rewritten.append(header)
    return made_private(rewritten) if private else rewritten


def exposed(headers: Sequence[Header], name: bytes) -> list[Header]:
    """Headers that show pages of other origins the one of this name, too, in the same line."""
    line = b"access-control-expose-headers"
    told = [value for key, value in headers if key.lower() == line]
    others = [one for one in headers if one[0].lower() != line]
    return [*others, (line, b", ".join([*told, name]))]


def made_private(headers: Sequence[Header]) -> list[Header]:
    """Headers that let no shared cache keep what is one visitor's: a new list.

    A cache may guess (RFC 9111, section 4.2.2) or have a rule of its own (nginx:
    proxy_cache_valid). What the app says becomes stricter, never looser. "no-cache" is enough: such
    a copy is asked for each time, and has nothing by which it could be found the same.
    """
    made = list(headers)
    place = -1
    for at, (name, _) in enumerate(made):
        if len(name) == 13 and name.lower() == b"cache-control":
            place = at
    if place < 0:
        return [*made, _PRIVATE]
    said = _tokens(_fields(made), b"cache-control")
    if not _is_closed(said) and b"no-cache" not in said:
        name, value = made[place]
        made[place] = (name, value + b", private" if value.strip() else b"private")
    return made


def rewrite_head(headers: Sequence[Header]) -> list[Header]:
    """The headers of the HEAD answer of a page that GET would inject.

    The length of what GET would send is unknown, and the validator has to look like GET's.
    """
    return rewrite(headers, event_ids=False, length=None)
