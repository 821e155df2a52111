"""UserData: customer information, normalised by Meta's rules and hashed before it is kept."""

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Final

from capi_middleware.normalizing import normalize, plain

#: A value that is a SHA-256 in hex already.
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
#: MD5 and SHA-1: once asked for by other systems, of no use to Meta, and no name or city either.
_OTHER_DIGEST = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{40}")
_DIGEST_OF_NOTHING = sha256(b"").hexdigest()

#: Keys whose values are hashed (Customer Information Parameters; the partials from Meta's SDK).
HASHED: Final = (
    "em", "ph", "fn", "ln", "ge", "db", "ct", "st", "zp", "country", "external_id",
    "f5first", "f5last", "fi", "dobd", "dobm", "doby",
)  # fmt: skip
#: Keys that Meta wants as they are.
PLAIN: Final = (
    "client_ip_address", "client_user_agent", "fbc", "fbp", "subscription_id", "fb_login_id",
    "lead_id", "anon_id", "madid", "page_id", "page_scoped_user_id", "ctwa_clid",
    "ig_account_id", "ig_sid", "whatsapp_business_account_id",
)  # fmt: skip
_PLAIN = frozenset(PLAIN)
_KNOWN = _PLAIN.union(HASHED)
#: Keys that take one value only: no list.
_SINGLE = frozenset(("f5first", "f5last", "fi", "dobd", "dobm", "doby"))


def unknown_keys(given: Iterable[str]) -> list[str]:
    """What among `given` is no key of UserData."""
    return sorted(set(given) - _KNOWN)


class UserData:
    """Customer information for Meta's matching (Customer Information Parameters).

    Give raw values: they are normalised and hashed in memory. Each hashed key takes one value or
    a list of values; one that is a SHA-256 in hex already passes as it is. What cannot be
    normalised is left out and counted. Raw values stay in this object's memory: its repr shows
    the keys that are set, never a value.

    Args:
        em: e-mail address. ph: phone number. fn, ln: first and last name. ge: gender, a word.
        db: birth date, a date or text. ct: city. st: state. zp: postcode.
        country: ISO 3166-1 code of two or three letters, or the English name.
        external_id: your own id of the customer, the same in every channel; hashed.
        f5first, f5last, fi: the beginnings of names; dobd, dobm, doby: day, month and year of
            birth, where the whole is not known.
        client_ip_address, client_user_agent, fbc, fbp: of the visitor; known in a request.
        subscription_id, fb_login_id, lead_id, anon_id, madid: ids as Meta's page explains them.
        page_id, page_scoped_user_id, ctwa_clid, ig_account_id, ig_sid,
            whatsapp_business_account_id: of business messaging.
    """

    __slots__ = ("_given",)

    def __init__(
        self,
        *,
        em: Any = None,
        ph: Any = None,
        fn: Any = None,
        ln: Any = None,
        ge: Any = None,
        db: Any = None,
        ct: Any = None,
        st: Any = None,
        zp: Any = None,
        country: Any = None,
        external_id: Any = None,
        f5first: str | None = None,
        f5last: str | None = None,
        fi: str | None = None,
        dobd: str | int | None = None,
        dobm: str | int | None = None,
        doby: str | int | None = None,
        client_ip_address: str | None = None,
        client_user_agent: str | None = None,
        fbc: str | None = None,
        fbp: str | None = None,
        subscription_id: str | int | None = None,
        fb_login_id: str | int | None = None,
        lead_id: str | int | None = None,
        anon_id: str | None = None,
        madid: str | None = None,
        page_id: str | int | None = None,
        page_scoped_user_id: str | int | None = None,
        ctwa_clid: str | None = None,
        ig_account_id: str | int | None = None,
        ig_sid: str | int | None = None,
        whatsapp_business_account_id: str | int | None = None,
    ) -> None:
        given = locals()
        self._given: dict[str, Any] = {
            key: given[key] for key in (*HASHED, *PLAIN) if given[key] is not None
        }

    def __repr__(self) -> str:
        return f"UserData({', '.join(self._given)})"

    def __reduce__(self) -> Any:
        # A pickle would carry raw values into a job queue.
        raise TypeError(
            "found a UserData to pickle or copy, expected it to stay in memory; give a job the "
            "customer's id and make the UserData there"
        )

    def hashed(self, default_region: str = "US") -> tuple[dict[str, Any], list[str]]:
        """The Graph API's user_data object, and the keys whose values could not be normalised.

        `default_region` (ISO 3166-1 alpha-2) reads phone numbers without a country code. Hashed
        keys give lists; never an empty digest, never null.
        """
        hashed: dict[str, Any] = {}
        left_out: list[str] = []
        country = self._given.get("country")
        if isinstance(country, list | tuple):
            country = country[0] if country else None
        for key, value in self._given.items():
            if key in _PLAIN:
                kept = plain(key, value)
                if kept is None:
                    left_out.append(key)
                else:
                    hashed[key] = kept
                continue
            many = isinstance(value, list | tuple | set | frozenset)
            digests: list[str] = []
            for one in value if many else (value,):
                digest = _digest(key, one, default_region, country)
                if digest is None:
                    left_out.append(key)
                elif digest not in digests:
                    digests.append(digest)
            if digests and not (key in _SINGLE and len(digests) > 1):
                hashed[key] = digests
        return hashed, left_out


def _digest(key: str, value: Any, region: str, country: Any) -> str | None:
    if isinstance(value, str) and len(value) >= 32:
        given = value.strip()
        if _SHA256.fullmatch(given):
            digest = given.lower()
            return digest if digest != _DIGEST_OF_NOTHING else None
        if key != "external_id" and _OTHER_DIGEST.fullmatch(given):
            return None
    try:
        clear = normalize(key, value, region, country)
    except Exception:  # a traceback would carry the raw value
        return None
    return sha256(clear.encode("utf-8", "replace")).hexdigest() if clear else None
