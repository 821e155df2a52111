"""Identity: who is behind a request, as Meta's cookies, addresses and URLs tell it."""

import ipaddress
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.requests import cookie_parser

from capi_middleware.errors import ConfigError

#: 90 days, as Meta's own pixel sets its cookies.
MAX_AGE = 7_776_000
_ID = re.compile(r"fb\.[0-9]\.[0-9]{10,16}\.[A-Za-z0-9_-]{1,500}(\.[A-Za-z0-9_-]{2,8})?")
_CLICK = re.compile(r"[A-Za-z0-9._-]{1,450}")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")
_LONGEST_URL = 2000
#: Query parameters that never leave the site.
SECRET_PARAMETERS = frozenset(
    [
        "access_token",
        "api_key",
        "apikey",
        "auth",
        "code",
        "email",
        "e-mail",
        "mail",
        "jwt",
        "key",
        "otp",
        "pass",
        "passwd",
        "password",
        "phone",
        "pwd",
        "secret",
        "session",
        "sessionid",
        "sid",
        "sig",
        "signature",
        "state",
        "tel",
        "token",
    ]
)
_EMAIL_LIKE = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")
_JWT_LIKE = re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Identity(NamedTuple):
    """fbp and fbc of a visitor; `new_cookies` are those the browser does not have yet.

    `domain` is the cookie domain, None for a host-only cookie.
    """

    fbp: str | None
    fbc: str | None
    domain: str | None
    new_cookies: Sequence[tuple[str, str]]


def identify(
    *,
    cookie_headers: Sequence[str],
    query: str,
    referer: str | None,
    host: str,
    scheme: str,
    now_ms: int,
) -> Identity:
    """Read or make fbp and fbc. Existing values stay as they are, with 4 or 5 segments.

    A click id comes from the URL, then from the referrer; its case is kept, its dots are written
    as Meta's pixel writes them. `now_ms`: Unix time in milliseconds.
    """
    domain = cookie_domain(host)
    index = domain.count(".") if domain else 0
    cookies = {
        name: value
        for header in reversed(cookie_headers)
        for name, value in cookie_parser(header).items()
        if name in ("_fbp", "_fbc") and _ID.fullmatch(value)
    }
    new: list[tuple[str, str]] = []
    fbp = cookies.get("_fbp")
    if fbp is None:
        fbp = f"fb.{index}.{now_ms}.{secrets.randbelow(10**18)}"
        new.append(("_fbp", fbp))
    fbc = cookies.get("_fbc")
    click = _click(query) or (_click(urlsplit_safely(referer).query) if referer else None)
    if click is not None:
        click = click.replace(".", "__DOT__")
        if fbc is None or fbc.split(".")[3] != click:
            fbc = f"fb.{index}.{now_ms}.{click}"
            new.append(("_fbc", fbc))
    return Identity(fbp, fbc, domain, new)


def _click(query: str) -> str | None:
    try:
        given = dict(parse_qsl(query, max_num_fields=200)).get("fbclid", "")
    except ValueError:
        return None
    return given if _CLICK.fullmatch(given) else None


@cache
def _suffixes() -> Any:
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()


def cookie_domain(host: str) -> str | None:
    """The registrable domain of a Host header; None for addresses, localhost and nonsense."""
    found = _HOST.fullmatch(host.strip())
    if found is None or found[1].startswith("["):
        return None
    name = found[1].lower().rstrip(".")
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
        text += f"; Domain={domain}"
    return (text + "; Secure" if secure else text).encode("ascii")


def parse_proxies(networks: Sequence[str]) -> list[Network]:
    """Networks in CIDR notation. Raises ConfigError for anything else."""
    try:
        return [ipaddress.ip_network(one, strict=False) for one in networks]
    except ValueError:
        raise ConfigError("trusted_proxies: expected networks such as '10.0.0.0/8'") from None


def client_ip(
    peer: str | None, headers: Mapping[str, str], proxies: Sequence[Network]
) -> str | None:
    """The visitor's public address: of the connection, or what trusted proxies say it is.

    X-Forwarded-For is read from the right, past trusted hops. Private addresses give None: Meta
    wants a real one.
    """
    address = _address(peer or "")
    if address is not None and _trusted(address, proxies):
        for hop in reversed(headers.get("x-forwarded-for", "").split(",")):
            forwarded = _address(hop)
            if forwarded is None:
                break
            address = forwarded
            if not _trusted(forwarded, proxies):
                break
    return str(address) if address is not None and address.is_global else None


def _trusted(address: Any, proxies: Sequence[Network]) -> bool:
    return any(address in network for network in proxies)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def source_url(
    scheme: str,
    host: str,
    raw_path: bytes,
    query: bytes,
    drop: Collection[str] = SECRET_PARAMETERS,
) -> str | None:
    """The page's address as the browser sees it, without secrets; None for a bad Host."""
    if not _HOST.fullmatch(host) or scheme not in ("http", "https"):
        return None
    path = quote(raw_path.partition(b"?")[0], safe="/%:@!$&'()*+,;=~")
    kept = _kept(query.decode("latin-1"), drop)
    return f"{scheme}://{host.lower()}{path}{'?' if kept else ''}{kept}"[:_LONGEST_URL]


def scrub_url(url: str | None, drop: Collection[str] = SECRET_PARAMETERS) -> str | None:
    """A referrer without user, fragment and secrets; None when it is no http(s) address."""
    parts = urlsplit_safely(url)
    if parts.scheme not in ("http", "https") or "@" in parts.netloc:
        return None
    return source_url(parts.scheme, parts.netloc, parts.path.encode(), parts.query.encode(), drop)


def urlsplit_safely(url: str | None) -> Any:
    """urlsplit that gives empty parts for what is no URL."""
    try:
        return urlsplit(url or "")
    except ValueError:
        return urlsplit("")


def _kept(query: str, drop: Collection[str]) -> str:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=200)
    except ValueError:
        return ""
    kept = [
        (name, value)
        for name, value in pairs
        if name.lower() not in drop
        and not _EMAIL_LIKE.search(value)
        and not _JWT_LIKE.search(value)
    ]
    if len(kept) == len(pairs):
        return quote(query.encode("latin-1", "replace"), safe="/?:@!$&'()*+,;=~%")
    return urlencode(kept)
