"""Ending: which answers only lead to the one that is the event, or repeat a part of it."""

import re
from collections.abc import Iterable, Sequence
from urllib.parse import parse_qsl, unquote, urljoin

from capi_middleware.capture.client import without_port
from capi_middleware.capture.urls import urlsplit_safely
from capi_middleware.config.routes import EventRoute, Match
from capi_middleware.request.visit import Headers

_RANGE = re.compile(rb"\s*bytes\s+0-(\d+)/(\d+|\*)\s*", re.IGNORECASE)
_LOGIN = re.compile(
    r"(?i)/(?:(?:log|sign)[-_]?(?:in|on)|auth(?:enticate|entication|orize)?|oauth2?|sso|saml2?|cas)"
    r"(?:[/.]|\Z)"
)
_KEEP_THE_METHOD = (307, 308)
#: Methods that change nothing (RFC 9110, section 9.2.1).
READING = frozenset({"GET", "HEAD", "OPTIONS", "QUERY", "TRACE"})


def is_shown(reason: str) -> bool:
    """Whether a browser shows a 2xx answer with a gate's verdict of this `reason` as a page."""
    return reason not in ("not_html", "attachment", "status")


def ends(
    matches: Sequence[Match],
    routes: Iterable[EventRoute],
    method: str,
    url: str,
    mount: str,
    status: int,
    headers: Headers,
) -> list[Match]:
    """Those of the `matches` of a request whose event this answer is.

    Not that it is unchanged (304), nor a further range of a file (206). A redirect is none where
    the address that it leads to is the same event (https, www, a slash, a language), or asks the
    visitor to log in first; a route whose `status` takes no page means its redirects. `url` is the
    request's address, `mount` the path that the app is mounted at.
    """
    if status == 304:
        return []
    told = {name.lower(): value for name, value in headers}
    if status == 206:
        return [*matches] if _is_start(told.get(b"content-range", b"")) else []
    location = told.get(b"location", b"").decode("latin-1")
    if not location or status == 201:
        return [*matches]
    here = urlsplit_safely(url)
    there = urlsplit_safely(_joined(url, location))
    # A form's redirect is read with GET: its deed is done.
    reads = method in READING
    keeps = reads or status in _KEEP_THE_METHOD
    path = unquote(there.path)
    follows = {
        route.event_name
        for route in routes
        if keeps
        and 200 in route.counted
        and route.method in ("*", "GET" if reads else method)
        and _site(here.netloc) == _site(there.netloc)
        and route.path.match(path.removeprefix(mount)) is not None
    }
    asks_to_log_in = _leads_back(there.query, here.path) or (
        reads and _LOGIN.search(path) is not None
    )
    return [
        match
        for match in matches
        if 200 not in match.route.counted
        or not (asks_to_log_in or match.route.event_name in follows)
    ]


def _is_start(content_range: bytes) -> bool:
    """Whether a part is the start of a file, and more than a look at its first bytes (Safari)."""
    found = _RANGE.fullmatch(content_range)
    return found is not None and not (found[1] in (b"0", b"1") and found[2] not in (b"1", b"2"))


def _site(netloc: str) -> str:
    return without_port(netloc).removeprefix("www.")


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return ""


def _leads_back(query: str, path: str) -> bool:
    """Whether a parameter of the address has `path` to come back to (next, return_to, …)."""
    path = unquote(path)
    try:
        values = [value for _, value in parse_qsl(query, max_num_fields=100)]
    except ValueError:
        return False
    return path != "/" and any(unquote(urlsplit_safely(one).path) == path for one in values)
