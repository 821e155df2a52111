"""Addresses of pages as Meta may see them: without tokens, e-mails and other personal data."""

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote_plus, urlsplit

from capi_middleware.meta.personal import ORDINARY_PATH, decoded, may_leave, parts_of_path

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")
_LONGEST = 2000
#: A name has 253 characters at most (RFC 1035), and there may be a port.
LONGEST_HOST = 260
#: What a path has as it is, beside letters and digits (RFC 3986, section 3.3).
PATH_SAFE: str = "/:@!$&'()*+,;=~"
#: How much of a path and of a query is looked at, in bytes.
URL_READ = 8192
_MOST_PAIRS = 200
#: Longer addresses are not remembered, in bytes.
_REMEMBERED = 200
#: What a query keeps first where it is too long for an address.
_FIRST = re.compile(r"utm_|[a-z]*clid=|[gw]braid=|gad_", re.IGNORECASE)


def source_url(
    scheme: str,
    host: str,
    raw_path: bytes,
    query: bytes,
    drop: Collection[str] = (),
    keep: Collection[str] = (),
) -> str | None:
    """The page's address as the browser sees it, without secrets; None for a bad Host.

    `drop` and `keep`: parameters that the site decided about, by name in lower case.
    """
    if len(host) + len(raw_path) <= _REMEMBERED:
        url = _address(scheme, host, raw_path)
    else:
        url = _address.__wrapped__(scheme, host, raw_path[:URL_READ])
    if url is None or not query:
        return url
    kept = [  # what may leave, as it was written
        quote(pair.encode("latin-1", "replace"), safe="/?:@!$'()*+,;=~%")
        for pair in query[:URL_READ].decode("latin-1").split("&", _MOST_PAIRS)[:_MOST_PAIRS]
        if pair and may_leave(*_name_and_value(pair), keep, drop)
    ]
    text = "&".join(kept)
    if len(url) + len(text) >= _LONGEST:
        text = "&".join(_fitting(kept, _LONGEST - len(url) - 1))
    return f"{url}?{text}" if text else url


def _name_and_value(pair: str) -> tuple[str, str]:
    name, _, value = pair.partition("=")
    return decoded(unquote_plus(name)), decoded(unquote_plus(value))


def _fitting(pairs: Sequence[str], room: int) -> list[str]:
    """The pairs that fit into so many characters, those of marketing before all others."""
    chosen = set()
    for place in sorted(range(len(pairs)), key=lambda one: _FIRST.match(pairs[one]) is None):
        if len(pairs[place]) < room:
            chosen.add(place)
            room -= len(pairs[place]) + 1
    return [pair for place, pair in enumerate(pairs) if place in chosen]


@lru_cache(maxsize=1024)
def _address(scheme: str, host: str, raw_path: bytes) -> str | None:
    if len(host) > LONGEST_HOST or not _HOST.fullmatch(host) or scheme not in ("http", "https"):
        return None
    path = quote(raw_path.partition(b"?")[0], safe="/%:@!$&'()*+,;=~")
    if path[:1] != "/":  # "@evil.example" would name another host
        path = f"/{path}"
    if not ORDINARY_PATH.fullmatch(path):
        path = "/".join(parts_of_path(path.split("/")))
    return f"{scheme}://{host.lower()}{path}"[:_LONGEST]


def scrub_url(
    url: str | None, drop: Collection[str] = (), keep: Collection[str] = ()
) -> str | None:
    """A referrer without user, fragment and secrets; None when it is no http(s) address."""
    parts = urlsplit_safely(url)
    if parts.scheme not in ("http", "https") or "@" in parts.netloc:
        return None
    path, query = parts.path.encode(), parts.query.encode()
    return source_url(parts.scheme, parts.netloc, path, query, drop, keep)


def urlsplit_safely(url: str | None) -> Any:
    """urlsplit that gives empty parts for what is no URL."""
    try:
        return urlsplit((url or "")[:URL_READ])
    except ValueError:
        return urlsplit("")
