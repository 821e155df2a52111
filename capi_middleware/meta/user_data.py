"""UserData: customer information, normalised by Meta's rules and hashed before it is kept."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from typing import Any, TypedDict, Unpack
from unicodedata import normalize as normalize_form

from capi_middleware.meta.match_keys import MATCH_KEYS, MatchKey
from capi_middleware.meta.normalising import APPENDIX, text_of

#: A value that is a SHA-256 in hex already, maybe one that Meta's parameter builder made.
_SHA256 = re.compile(rf"([0-9a-fA-F]{{64}})(\.{APPENDIX})?")
#: MD5 and SHA-1: once asked for by other systems, of no use to Meta, and no name or city either.
_OTHER_DIGEST = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{40}")
_DIGEST_OF_NOTHING = sha256(b"").hexdigest()

#: Longer values of the keys that repeat are not remembered, with their country.
_REMEMBERED = 40
#: So many values of one key are looked at.
_MOST = 1000

_NAMES = frozenset(MATCH_KEYS)


def unknown_keys(given: Iterable[str]) -> list[str]:
    """What among `given` is no key of UserData."""
    return sorted(set(given) - MATCH_KEYS.keys())


class Fields(TypedDict, total=False):
    """What UserData takes."""

    em: Any
    ph: Any
    fn: Any
    ln: Any
    ge: Any
    db: Any
    ct: Any
    st: Any
    zp: Any
    country: Any
    external_id: Any
    f5first: str | None
    f5last: str | None
    fi: str | None
    dobd: str | int | None
    dobm: str | int | None
    doby: str | int | None
    client_ip_address: str | None
    client_user_agent: str | None
    fbc: str | None
    fbp: str | None
    subscription_id: str | int | None
    fb_login_id: str | int | None
    lead_id: str | int | None
    anon_id: str | None
    madid: str | None
    page_id: str | int | None
    page_scoped_user_id: str | int | None
    ctwa_clid: str | None
    ig_account_id: str | int | None
    ig_sid: str | int | None
    whatsapp_business_account_id: str | int | None


class UserData:
    """Customer information for Meta's matching (Customer Information Parameters).

    Give raw values: they are normalised and hashed in memory. Each hashed key takes one value or
    any number of values; one that is a SHA-256 in hex already passes as it is, also with the
    appendix of Meta's parameter builder. What cannot be normalised is left out and counted, alone.
    Raw values stay in this object's memory: its repr shows the keys that are set, never a value.

    Args:
        em: e-mail address. ph: phone number. fn, ln: first and last name. ge: gender, a word.
        db: birth date, a date or text. ct: city. st: state. zp: postcode.
        country: ISO 3166-1 code of two or three letters, or the English name; of more than one
            the first reads phone number, state and postcode.
        external_id: your own id of the customer, the same in every channel; hashed in lower case,
            as Meta's pixel does.
        f5first, f5last, fi: the beginnings of names; dobd, dobm, doby: day, month and year of
            birth, where the whole is not known.
        client_ip_address, client_user_agent, fbc, fbp: of the visitor; known in a request.
        subscription_id, fb_login_id, lead_id, anon_id, madid: ids as Meta's page explains them.
        page_id, page_scoped_user_id, ctwa_clid, ig_account_id, ig_sid,
            whatsapp_business_account_id: of business messaging.
    """

    __slots__ = ("_given",)

    def __init__(self, **given: Unpack[Fields]) -> None:
        self._given: dict[str, Any] = given  # type: ignore[assignment] # a plain dict, ours alone
        if not _NAMES.issuperset(given):
            unknown = unknown_keys(given)
            self._given.clear()  # a traceback with local variables would show raw values
            raise TypeError(
                f"UserData: found the unknown {unknown}, expected some of {sorted(MATCH_KEYS)}"
            )

    def __repr__(self) -> str:
        keys = (key for key, value in self._given.items() if value is not None)
        return f"UserData({', '.join(keys)})"

    def __reduce__(self) -> Any:
        # A pickle would carry raw values into a job queue.
        raise TypeError(
            "found a UserData to pickle or copy, expected it to stay in memory; give a job the "
            "customer's id and make the UserData there"
        )

    def hashed(self, default_region: str = "US") -> tuple[dict[str, Any], list[str]]:
        """The Graph API's user_data object, and the keys whose values could not be used.

        `default_region` (ISO 3166-1 alpha-2) stands for the country where none is given. Hashed
        keys give lists, the partials one digest; never an empty digest, never null.
        """
        hashed: dict[str, Any] = {}
        left_out: list[str] = []
        country = self._given.get("country")
        if country is not None and type(country) is not str:
            country = next(iter(_texts(country, many=True)), None)
        for key, value in self._given.items():
            rule = _LISTED.get(key)
            if rule is not None and type(value) is str:  # the usual case, on a hot path
                one = rule(value, default_region, country)
                if one is None:
                    left_out.append(key)
                else:
                    hashed[key] = [one]
            elif value is not None:
                kept: list[Any] = []
                for text in _texts(value, many=MATCH_KEYS[key].plain is None):
                    one = _RULES[key](text, default_region, country) if text else None
                    if one is None:
                        left_out.append(key)
                    elif one not in kept:
                        kept.append(one)
                if rule is None and len(kept) > 1:
                    left_out.append(key)
                elif kept:
                    hashed[key] = kept if rule is not None else kept[0]
        return hashed, left_out


def _texts(value: Any, *, many: bool) -> list[str | None]:
    """What `value` holds, None for each that is no text: of keys that take `many` also a list."""
    many = many and isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    texts: list[str | None] = []
    try:
        for item in islice(value, _MOST) if many else (value,):
            texts.append(_text(item))
    except Exception:  # of what the host's database cannot read now
        texts.append(None)
    return texts


def _text(item: Any) -> str | None:
    try:
        return text_of(item)
    except Exception:  # such as a date that is none, "NaT"
        return None


Rule = Callable[[str, str, str | None], str | int | None]


def _rule_of(key: MatchKey) -> Rule:
    """What makes of a text, the site's region and the given country what Meta gets."""
    lower, placed, plain = key.lower, key.placed, key.plain
    if plain is not None:
        return lambda text, region, country: plain(text)

    def digest(value: str, region: str, country: str | None) -> str | None:
        if len(value) >= 32 and (given := _given_digest(value.strip(), key)) is not None:
            return given or None
        text = value.strip()
        try:
            if not text.isascii():
                text = normalize_form("NFC", text)
            clear = lower(text.lower()) if lower else placed(text, region, country)  # type: ignore[misc] # one of them is
            return sha256(clear.encode()).hexdigest() if clear else None
        except Exception:  # a traceback would carry the raw value
            return None

    if not key.common:
        return digest
    known = lru_cache(maxsize=256)(digest)

    def remembered(value: str, region: str, country: str | None) -> str | None:
        short = len(value) + len(country or "") <= _REMEMBERED
        return (known if short else digest)(value, region, country)

    return remembered


def _given_digest(value: str, key: MatchKey) -> str | None:
    """The SHA-256 that `value` is already, "" for a digest of no use, None for a raw value."""
    if given := _SHA256.fullmatch(value):
        digest = given[1].lower()
        return digest + (given[2] or "") if digest != _DIGEST_OF_NOTHING else ""
    return "" if not key.free and _OTHER_DIGEST.fullmatch(value) else None


_RULES = {name: _rule_of(key) for name, key in MATCH_KEYS.items()}
#: Of the keys that Meta gets a list of.
_LISTED = {name: _RULES[name] for name, key in MATCH_KEYS.items() if not (key.plain or key.single)}
