"""UserData: customer information, normalised by Meta's rules and hashed before anything is kept."""

import re
import unicodedata
from collections.abc import Callable
from datetime import date
from hashlib import sha256
from typing import Any, Final

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_EMAIL = re.compile(r"[^\s@,;<>()\"]+@[^\s@,;<>()\"]+\.[^\s@,;<>()\"]+")
_GENDERS = {"f": "f", "female": "f", "woman": "f", "m": "m", "male": "m", "man": "m"}
#: The usual names beside ISO 3166-1 alpha-2 codes.
_COUNTRIES = {
    "usa": "us", "unitedstates": "us", "unitedstatesofamerica": "us", "uk": "gb", "gbr": "gb",
    "unitedkingdom": "gb", "greatbritain": "gb", "england": "gb", "deu": "de", "germany": "de",
    "fra": "fr", "france": "fr", "esp": "es", "spain": "es", "ita": "it", "italy": "it",
    "bra": "br", "brazil": "br", "can": "ca", "canada": "ca", "ind": "in", "india": "in",
    "jpn": "jp", "japan": "jp", "che": "ch", "switzerland": "ch", "aut": "at", "austria": "at",
    "nld": "nl", "netherlands": "nl", "aus": "au", "australia": "au", "mex": "mx", "mexico": "mx",
}  # fmt: skip
_STATES = {
    "alabama": "al", "alaska": "ak", "arizona": "az", "arkansas": "ar", "california": "ca",
    "colorado": "co", "connecticut": "ct", "delaware": "de", "florida": "fl", "georgia": "ga",
    "hawaii": "hi", "idaho": "id", "illinois": "il", "indiana": "in", "iowa": "ia",
    "kansas": "ks", "kentucky": "ky", "louisiana": "la", "maine": "me", "maryland": "md",
    "massachusetts": "ma", "michigan": "mi", "minnesota": "mn", "mississippi": "ms",
    "missouri": "mo", "montana": "mt", "nebraska": "ne", "nevada": "nv", "newhampshire": "nh",
    "newjersey": "nj", "newmexico": "nm", "newyork": "ny", "northcarolina": "nc",
    "northdakota": "nd", "ohio": "oh", "oklahoma": "ok", "oregon": "or", "pennsylvania": "pa",
    "rhodeisland": "ri", "southcarolina": "sc", "southdakota": "sd", "tennessee": "tn",
    "texas": "tx", "utah": "ut", "vermont": "vt", "virginia": "va", "washington": "wa",
    "westvirginia": "wv", "wisconsin": "wi", "wyoming": "wy", "districtofcolumbia": "dc",
}  # fmt: skip

HASHED: Final = (
    "em", "ph", "fn", "ln", "ge", "db", "ct", "st", "zp", "country", "external_id",
)  # fmt: skip
PLAIN: Final = (
    "client_ip_address", "client_user_agent", "fbc", "fbp", "subscription_id", "fb_login_id",
    "lead_id", "anon_id", "madid",
)  # fmt: skip


class UserData:
    """Customer information for Meta's matching (Customer Information Parameters).

    Each hashed key takes one value or a list of values, raw or already a SHA-256 in hex. Raw
    values stay in this object's memory: its repr shows the keys that are set, never a value.
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
        client_ip_address: str | None = None,
        client_user_agent: str | None = None,
        fbc: str | None = None,
        fbp: str | None = None,
        subscription_id: str | None = None,
        fb_login_id: str | int | None = None,
        lead_id: str | int | None = None,
        anon_id: str | None = None,
        madid: str | None = None,
    ) -> None:
        given = {
            "em": em, "ph": ph, "fn": fn, "ln": ln, "ge": ge, "db": db, "ct": ct, "st": st,
            "zp": zp, "country": country, "external_id": external_id,
            "client_ip_address": client_ip_address, "client_user_agent": client_user_agent,
            "fbc": fbc, "fbp": fbp, "subscription_id": subscription_id,
            "fb_login_id": fb_login_id, "lead_id": lead_id, "anon_id": anon_id, "madid": madid,
        }  # fmt: skip
        self._given: dict[str, Any] = {
            key: value for key, value in given.items() if value is not None
        }

    def __repr__(self) -> str:
        return f"UserData({', '.join(self._given)})"

    def hashed(self, default_region: str = "US") -> tuple[dict[str, Any], list[str]]:
        """The Graph API's user_data object, and the keys whose values could not be normalised.

        `default_region` (ISO 3166-1 alpha-2) reads phone numbers without a country code. Never
        an empty digest, never null.
        """
        hashed: dict[str, Any] = {}
        left_out: list[str] = []
        country = self._given.get("country")
        for key, value in self._given.items():
            if key in PLAIN:
                text = str(value).strip()
                if text:
                    hashed[key] = text
                continue
            digests: list[str] = []
            for one in value if isinstance(value, list | tuple | set | frozenset) else [value]:
                digest = _digest(key, one, default_region, country)
                if digest is None:
                    left_out.append(key)
                elif digest not in digests:
                    digests.append(digest)
            if digests:
                hashed[key] = digests
        return hashed, left_out


def _digest(key: str, value: Any, region: str, country: Any) -> str | None:
    if isinstance(value, str) and _SHA256.fullmatch(value.strip()):
        return value.strip().lower()
    clear = normalize(key, value, region, country)
    return sha256(clear.encode("utf-8", "replace")).hexdigest() if clear else None


def normalize(key: str, value: Any, default_region: str = "US", country: Any = None) -> str | None:
    """The clear text that is hashed for `key`; None when `value` cannot be normalised."""
    if isinstance(value, date):
        value = value.isoformat()
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = unicodedata.normalize("NFC", str(value)).strip()
    if key == "ph":
        return _phone(text, default_region)
    if key == "external_id":
        return text or None
    if key in ("st", "zp"):
        code = _country(str(country).lower()) if country else None
        return (_state if key == "st" else _zip)(text.lower(), code)
    return _RULES[key](text.lower())


def _email(text: str) -> str | None:
    return text if _EMAIL.fullmatch(text) and ".." not in text else None


def _letters(text: str) -> str:
    """Without punctuation, symbols and blanks; accents stay."""
    return "".join(one for one in text if unicodedata.category(one)[0] not in "PSZC")


def _name(text: str) -> str | None:
    return _letters(text) or None


def _city(text: str) -> str | None:
    return "".join(one for one in _letters(text) if not one.isdigit()) or None


def _state(text: str, country: str | None) -> str | None:
    plain = _city(text)
    return _STATES.get(plain, plain) if plain and country in (None, "us") else plain


def _zip(text: str, country: str | None) -> str | None:
    if country in (None, "us") and re.fullmatch(r"\d{5}(-?\d{4})?", text):
        return text[:5]
    return _letters(text) or None


def _country(text: str) -> str | None:
    plain = _letters(text)
    if plain in _COUNTRIES:
        return _COUNTRIES[plain]
    return plain if len(plain) == 2 and plain.isascii() and plain.isalpha() else None


def _gender(text: str) -> str | None:
    return _GENDERS.get(text)


def _birth(text: str) -> str | None:
    found = re.fullmatch(r"(\d{4})[-/. ]?(\d{1,2})[-/. ]?(\d{1,2})", text)
    if found is None:
        return None
    try:
        born = date(int(found[1]), int(found[2]), int(found[3]))
    except ValueError:
        return None
    return born.strftime("%Y%m%d") if 1900 <= born.year <= date.today().year else None


def _phone(text: str, region: str) -> str | None:
    import phonenumbers

    text = re.sub(r"^(tel:|00)", lambda found: "+" if found[0] == "00" else "", text)
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)[1:]


_RULES: dict[str, Callable[[str], str | None]] = {
    "em": _email, "fn": _name, "ln": _name, "ct": _city, "country": _country, "ge": _gender,
    "db": _birth,
}  # fmt: skip
