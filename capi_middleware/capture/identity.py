"""Identity: fbp and fbc, the first-party cookies by which Meta knows a browser and a click."""

import ipaddress
import random
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any
from urllib.parse import parse_qsl

from msgspec import Struct

from capi_middleware.capture.urls import LONGEST_HOST, URL_READ
from capi_middleware.private import Private

#: 90 days, as Meta's own pixel sets its cookies.
MAX_AGE = 7_776_000
#: Four segments, or five with the appendix of Meta's parameter builder: a known token of two
#: characters or any of eight.
_ID = re.compile(
    r"fb\.[0-9]\.[0-9]{10,16}\.[A-Za-z0-9_-]{1,500}(\.(AQ|Ag|Aw|BA|BQ|Bg|[A-Za-z0-9_-]{8}))?"
)
#: Starts with what it looks for: cookies of other names are skipped at the speed of a search.
_COOKIES = re.compile(r"_fb([pc])\s*=([^;]*)")
_CLICK = re.compile(r"[A-Za-z0-9._-]{1,450}")
_HOST = re.compile(r"([A-Za-z0-9._-]+)(:\d{1,5})?")


class Identity(Private, Struct, frozen=True):
    """fbp and fbc of a visitor; `new_cookies` are those the browser does not have yet.

    `domain` is the domain of the new cookies, None for host-only ones.
    """

    fbp: str | None
    fbc: str | None
    domain: str | None
    new_cookies: Sequence[tuple[str, str]]


def identify(
    *,
    cookie_header: str,
    query: str,
    referer: str | None,
    host: str,
    now_ms: int,
    within: str = "",
) -> Identity:
    """Read or make fbp and fbc. Existing values stay as they are, with 4 or 5 segments.

    A click id comes from the URL, then from the referrer; its case is kept, its dots are written
    as Meta's pixel writes them. `now_ms`: Unix time in milliseconds; `within`: see cookie_domain.
    """
    fbp = fbc = None
    for found in _COOKIES.finditer(cookie_header):
        before = found.start() - 1
        while before >= 0 and cookie_header[before].isspace():
            before -= 1
        if before >= 0 and cookie_header[before] != ";":
            continue  # the end of another cookie's name
        known = _ID.fullmatch(found[2].strip().strip('"'))
        if found[1] == "p":
            fbp = known and known[0]
        else:
            fbc = known and known[0]
    click = click_of(query) if query else None
    if click is None and referer and "?" in referer:
        click = click_of(referer.partition("#")[0].partition("?")[2])
    if click is not None:
        click = click.replace(".", "__DOT__")
        if fbc is not None and fbc.split(".")[3] == click:
            click = None
    if fbp is not None and click is None:
        return Identity(fbp, fbc, None, [])
    domain = cookie_domain(host, within)
    index = domain.count(".") if domain else 0
    new: list[tuple[str, str]] = []
    if fbp is None:
        # As Meta's own script: it keeps browsers apart and guards nothing.
        fbp = f"fb.{index}.{now_ms}.{random.randrange(10**18)}"  # noqa: S311
        new.append(("_fbp", fbp))
    if click is not None:
        fbc = f"fb.{index}.{now_ms}.{click}"
        new.append(("_fbc", fbc))
    return Identity(fbp, fbc, domain, new)


def click_of(query: str) -> str | None:
    """The fbclid of a query string."""
    if "fbclid=" not in query:
        return None
    try:
        given = dict(parse_qsl(query[:URL_READ], max_num_fields=200)).get("fbclid", "")
    except ValueError:
        return None
    return given if _CLICK.fullmatch(given) else None


@cache
def _suffixes() -> Any:
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()


def cookie_domain(host: str, within: str = "") -> str | None:
    """The registrable domain of a Host header; None for addresses, localhost and nonsense.

    Instead the narrower domain `within` that the site chose; None for a host that is not below it.
    """
    return _domain_of(host, within) if len(host) <= LONGEST_HOST else None


@lru_cache(maxsize=256)
def _domain_of(host: str, within: str) -> str | None:
    found = _HOST.fullmatch(host.strip())
    if found is None:
        return None
    name = found[1].lower().rstrip(".")
    if within:
        return within if name == within or name.endswith(f".{within}") else None
    try:
        ipaddress.ip_address(name)
    except ValueError:
        private: str | None = _suffixes().privatesuffix(name)
        return private
    return None


def set_cookie_header(name: str, value: str, domain: str | None, *, secure: bool) -> bytes:
    """A Set-Cookie value that Meta's pixel can read: not HttpOnly."""
    text = f"{name}={value}; Path=/; Max-Age={MAX_AGE}; SameSite=Lax"
    if domain:
        text += f"; Domain=.{domain}"
    return (text + "; Secure" if secure else text).encode("ascii")
