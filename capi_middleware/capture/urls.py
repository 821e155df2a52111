"""Addresses of pages as Meta may see them: without tokens, e-mails and other personal data."""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote, unquote_plus, urlsplit

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")
_LONGEST = 2000
#: What a path has as it is, beside letters and digits (RFC 3986, section 3.3).
PATH_SAFE: str = "/:@!$&'()*+,;=~"
#: Query parameters that never leave the site, by their whole name in lower case.
_NAMES = """
    address address1 address2 api_key apikey auth birthday birthdate birth_date code credentials
    csrf dob e-mail family_name first_name firstname fname full_name fullname given_name hash iban
    key last_name lastname lname login name nonce otp pin session session_id sessionid sid sig
    signature ssn state street surname user user_name username vorname nachname
"""
#: The same for every part of a name: user[email], customer_phone, reset-token.
_PARTS_OF_NAMES = """
    csrfmiddlewaretoken email emailaddress jwt mail mobile pass passwd password passwort phone
    phonenumber pwd secret tel telephone telefon token accesstoken refreshtoken
"""
_SECRET_NAMES = frozenset(_NAMES.split())
_SECRET_PARTS = frozenset(_PARTS_OF_NAMES.split())
_SEPARATORS = re.compile(r"[^a-z0-9]+")
_EMAIL_LIKE = re.compile(r"[^\s@/]+@[^\s@/]+\.[^\s@/]+")
_JWT_LIKE = re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.")
_PHONE_LIKE = re.compile(r"\s*(?:\+|00|(?<=\s))[1-9](?:[ ()./-]*[0-9]){7,14}\s*")
_NESTED = re.compile(r"(?:^|[?&])([^=&?]+)=")
#: What stands for a part of a path that must not leave.
_REMOVED = "_"


def source_url(
    scheme: str, host: str, raw_path: bytes, query: bytes, drop: Collection[str] = ()
) -> str | None:
    """The page's address as the browser sees it, without secrets; None for a bad Host.

    `drop`: more query parameters to leave out, by name in lower case.
    """
    url = _address(scheme, host, raw_path)
    if url is None:
        return None
    kept = query and "&".join(  # what may leave, as it was written
        quote(pair.encode("latin-1", "replace"), safe="/?:@!$'()*+,;=~%")
        for pair in query.decode("latin-1").split("&")
        if pair and not _is_secret(pair, drop)
    )
    if kept and len(url) + len(kept) < _LONGEST:
        return f"{url}?{kept}"
    return url[:_LONGEST]


@lru_cache(maxsize=1024)
def _address(scheme: str, host: str, raw_path: bytes) -> str | None:
    if not _HOST.fullmatch(host) or scheme not in ("http", "https"):
        return None
    path = quote(raw_path.partition(b"?")[0], safe="/%:@!$&'()*+,;=~")
    if "@" in path or "%40" in path or "eyJ" in path:
        path = "/".join(_REMOVED if _is_personal(unquote(one)) else one for one in path.split("/"))
    return f"{scheme}://{host.lower()}{path}"


def scrub_url(url: str | None, drop: Collection[str] = ()) -> str | None:
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


def _is_secret(pair: str, drop: Collection[str]) -> bool:
    raw_name, _, raw_value = pair.partition("=")
    if _is_secret_name(unquote_plus(raw_name).lower(), drop):
        return True
    value = unquote_plus(raw_value)
    return (
        _is_personal(value)
        or _PHONE_LIKE.fullmatch(value) is not None
        or any(_is_secret_name(found.lower(), drop) for found in _NESTED.findall(value))
    )


def _is_secret_name(name: str, drop: Collection[str]) -> bool:
    if name in _SECRET_NAMES or name in drop:
        return True
    return not _SECRET_PARTS.isdisjoint(_SEPARATORS.split(name))


def _is_personal(text: str) -> bool:
    # Encoded twice, as addresses within addresses are.
    if "%" in text:
        text = unquote(text)
    return _EMAIL_LIKE.search(text) is not None or _JWT_LIKE.search(text) is not None
