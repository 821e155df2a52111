"""Identity: fbp and fbc, the first-party cookies by which Meta knows a browser and a click."""

import ipaddress
import random
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote

from msgspec import Struct

from capi_middleware.capture.urls import LONGEST_HOST, URL_READ
from capi_middleware.meta.normalising import LONGEST_IP, address
from capi_middleware.private import Private

#: 90 days, as Meta's own pixel sets its cookies.
MAX_AGE = 7_776_000
#: Four segments, or five with the appendix of Meta's parameter builder: a known token of two
#: characters or any of eight.
_ID = re.compile(
    r"fb\.[0-9]\.[0-9]{10,16}\.[A-Za-z0-9_-]{1,2000}(\.(AQ|Ag|Aw|BA|BQ|Bg|[A-Za-z0-9_-]{8}))?"
)
#: Starts with what it looks for: cookies of other names are skipped at the speed of a search.
_COOKIES = re.compile(r"_fb([pci])\s*=([^;]*)")
#: Browsers keep cookies of 4 KB.
_LONGEST_CLICK = 2000
_CLICK = re.compile(rf"[A-Za-z0-9._-]{{1,{_LONGEST_CLICK}}}")
_HOST = re.compile(r"([A-Za-z0-9._-]+)(:\d{1,5})?")


class Identity(Private, Struct, frozen=True):
    """fbp and fbc of a visitor; `new_cookies` are those the browser does not have yet.

    `domain` is the domain of the new cookies, None for host-only ones. `ip` is the browser's
    address where Meta's code in the page (its parameter builder) has kept it in the cookie _fbi.
    """

    fbp: str | None
    fbc: str | None
    domain: str | None
    new_cookies: Sequence[tuple[str, str]]
    ip: str | None = None

    def address(self, of_connection: str | None) -> str | None:
        """The browser's address as Meta wants it: of IPv6 if there is one, then its own word."""
        if self.ip is None or (":" in (of_connection or "") and ":" not in self.ip):
            return of_connection
        return self.ip


def identify(
    *,
    cookie_header: str,
    query: str,
    referer: str | None,
    host: str,
    now_ms: int,
    within: str = "",
    withheld: bool = False,
) -> Identity:
    """Read or make fbp and fbc. Existing values stay as they are, with 4 or 5 segments.

    Of several cookies of one name the first good one counts. A click id comes from the URL, then,
    where none is known, from a referrer of the same site; its case is kept, its dots are written as
    Meta's pixel writes them. `now_ms`: Unix time in milliseconds; `within`: see cookie_domain;
    `withheld`: the browser may have cookies that it did not send, so that none is made.
    """
    fbp = fbc = ip = None
    for found in _COOKIES.finditer(cookie_header):
        before = found.start() - 1
        while before >= 0 and cookie_header[before].isspace():
            before -= 1
        if before >= 0 and cookie_header[before] != ";":
            continue  # the end of another cookie's name
        value = found[2].strip().strip('"')
        if found[1] == "i":
            ip = ip or address(unquote(value[:LONGEST_IP]))
        elif known := _ID.fullmatch(value):
            if found[1] == "p":
                fbp = fbp or known[0]
            else:
                fbc = fbc or known[0]
    click = click_of(query) if query else None
    # A click that is not in the cookie is older than it, or of another site.
    if click is None and fbc is None and referer and "?" in referer:
        page, _, rest = referer.partition("#")[0].partition("?")
        click = click_of(rest) if is_same_site(page, host, within) else None
    if click is not None:
        click = click.replace(".", "__DOT__")
        if len(click) > _LONGEST_CLICK or (fbc is not None and fbc.split(".")[3] == click):
            click = None
    if (fbp is not None and click is None) or (fbp is None and withheld):
        return Identity(fbp, fbc, None, [], ip)
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
    return Identity(fbp, fbc, domain, new, ip)


def is_same_site(url: str, host: str, within: str = "") -> bool:
    """Whether an address, perhaps without its scheme, is on the site of `host`."""
    name = (url.partition("://")[2] or url).partition("/")[0].rpartition("@")[2]
    domain = cookie_domain(name, within)
    same = domain is not None and domain == cookie_domain(host, within)
    return same or name.lower() == host.lower()


def click_of(query: str) -> str | None:
    """The first fbclid of a query string that may be one."""
    if "fbclid=" not in query:
        return None
    try:
        pairs = parse_qsl(query[:URL_READ], max_num_fields=200)
    except ValueError:
        return None
    return next((one for name, one in pairs if name == "fbclid" and _CLICK.fullmatch(one)), None)


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


def set_cookie_header(
    name: str, value: str, domain: str | None, seconds: int = MAX_AGE, *, secure: bool
) -> bytes:
    """A Set-Cookie value that Meta's pixel can read: not HttpOnly. 0 seconds remove the cookie."""
    text = f"{name}={value}; Path=/; Max-Age={seconds}; SameSite=Lax"
    if domain:
        text += f"; Domain=.{domain}"
    return (text + "; Secure" if secure else text).encode("ascii")
