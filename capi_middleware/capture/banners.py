"""Banners: the cookies in which consent banners keep what a visitor chose, one rule for each.

What they mean: IAB Tech Lab, "Consent string and vendor list formats v2" (2.3: the segment of
disclosed vendors); Google, "Additional Consent technical specification" and "Consent mode
reference" (it defines words and no cookie); OneTrust, "OneTrust Cookies"; Cookiebot, "Server-side
usage of the Cookiebot consent cookie"; CookieYes, "CookieYes cookies"; Didomi, "Cookies and local
storage"; Klaro and Complianz: their public code. Usercentrics keeps its state in the browser's
local storage alone, under the name that is read here as a cookie's.
"""

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, unquote_plus

_LONGEST = 8192
# No part of it can start in the middle of another.
_PAIR = re.compile(r"""(?<![\w-])([\w-]++)['"]?\s*+:\s*+['"]?([\w-]++)""")
_YES = frozenset({"1", "granted", "true", "yes"})
_GCS = re.compile(r"G1([01])([01-])")
_UPPER = re.compile(r"(?<=[a-z])(?=[A-Z])")
#: What sites call Meta's pixel in their banner, between other words.
_METAS = re.compile(r"(?:^|[^a-z])(?:facebook[a-z]*|meta|metapixel|fb|fbq|fbpixel)(?:$|[^a-z])")
#: The cookie of Google's list of those who are no vendors of the IAB's, and one of them in a rule.
ADDITIONAL, _PROVIDER = "addtl_consent", re.compile(r"ac:([1-9]\d{0,4})")


class ReadyRule(NamedTuple):
    """A known banner: its cookie, what must be allowed in it, how to read it, and what shows it.

    `marks` are texts that only a page with this banner has. Before it is answered a banner has no
    cookie, or lacks the cookie `answered`, or has one in which nothing `is_chosen`.
    """

    cookie: str
    requires: Sequence[Any]
    allowed: Callable[[str], frozenset[str] | None]
    marks: Sequence[str] = ()
    answered: str = ""
    is_chosen: Callable[[str], bool] = lambda value: True

    def is_answered(self, jar: Mapping[str, Sequence[str]]) -> bool:
        """Whether the visitor answered, by all cookies of a browser."""
        values = jar.get(self.cookie, ())
        if self.answered and self.answered not in jar:
            return False
        return any(self.is_chosen(one[:_LONGEST]) for one in values)

    def allows(self, value: str, requires: Sequence[Any]) -> bool:
        """Whether the cookie allows all that is required; an unreadable one allows nothing.

        `allowed` answers None where the cookie says that consent is not needed at all.
        """
        if len(value) > _LONGEST:
            return False
        try:
            allowed = self.allowed(value)
        except (ValueError, RecursionError):
            allowed = frozenset()
        return allowed is None or allowed.issuperset(map(str, requires))


# -- TCF: where what begins in the core of a TC string, in bits ------------------------------------

_TCF_VERSION_2, _UPDATED, _PURPOSES, _VENDORS = "000010", slice(42, 78), slice(152, 176), 213
#: From here on a string without disclosed vendors is none (TCF 2.3): 2026-03-01, in tenths of a
#: second.
_DISCLOSED_SINCE, _DISCLOSED = 17_723_232_000, "001"
_MOST_SEGMENTS = 8


def _bits(segment: str) -> str:
    data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    return "".join(f"{byte:08b}" for byte in data)


class _TCString:
    """A TC string of version 2. Raises ValueError for what is none, or none any more."""

    def __init__(self, value: str) -> None:
        core, *others = value.split(".", _MOST_SEGMENTS)
        self._core = _bits(core)
        if not self._core.startswith(_TCF_VERSION_2):
            raise ValueError("found no TC string of version 2")
        segments = map(_bits, others[:_MOST_SEGMENTS])
        self._disclosed = next((one for one in segments if one.startswith(_DISCLOSED)), "")
        if int(self._core[_UPDATED], 2) >= _DISCLOSED_SINCE and not self._disclosed:
            raise ValueError("found no disclosed vendors, expected them since TCF 2.3")

    @property
    def purposes(self) -> frozenset[str]:
        """Those with consent, by number."""
        bits = self._core[_PURPOSES]
        return frozenset(str(place) for place, bit in enumerate(bits, 1) if bit == "1")

    def has(self, vendor: int) -> bool:
        """Whether this vendor of the IAB's list has consent, and was shown."""
        is_shown = not self._disclosed or _is_among(self._disclosed, len(_DISCLOSED), vendor)
        return is_shown and _is_among(self._core, _VENDORS, vendor)


def _is_among(bits: str, at: int, vendor: int) -> bool:
    """Whether a list of vendors that begins at this bit has one."""
    most, is_ranges = int(bits[at : at + 16], 2), bits[at + 16 : at + 17] == "1"
    at += 17
    if not is_ranges:
        return vendor <= most and bits[at + vendor - 1 : at + vendor] == "1"
    ranges = int(bits[at : at + 12], 2)
    at += 12
    for _ in range(ranges):
        first = last = int(bits[at + 1 : at + 17], 2)
        if bits[at : at + 1] == "1":
            last = int(bits[at + 17 : at + 33], 2)
            at += 16
        at += 17
        if first <= vendor <= last:
            return True
    return False


def has_vendor(value: str, vendor: int) -> bool:
    """Whether a TC string has consent for this vendor of the IAB's list."""
    try:
        return len(value) <= _LONGEST and _TCString(value).has(vendor)
    except ValueError:
        return False


def has_provider(value: str, provider: str) -> bool:
    """Whether an Additional Consent string has it among those with consent: 2~1.35~dv.9."""
    version, _, rest = unquote(value[:_LONGEST]).partition("~")
    return version in ("1", "2") and provider in rest.partition("~")[0].split(".")


def _tcf(value: str) -> frozenset[str]:
    return _TCString(value).purposes


# -- the others: what a cookie says yes to ---------------------------------------------------------


def _onetrust(value: str) -> frozenset[str]:
    """The groups that are on: groups=C0001:1,C0002:0,…"""
    groups = dict(parse_qsl(value, max_num_fields=100)).get("groups", "")
    pairs = (one.partition(":") for one in unquote(groups).split(","))
    return frozenset(name.strip() for name, _, on in pairs if on.strip() == "1")


def _cookiebot(value: str) -> frozenset[str] | None:
    """The categories that are true; -1 is a visitor from where no consent is needed."""
    return None if value.strip() == "-1" else _pairs(value)


def _pairs(value: str) -> frozenset[str]:
    """The names of name:value pairs that say yes."""
    found = _PAIR.findall(unquote_plus(value))
    return frozenset(name for name, answer in found if answer.lower() in _YES)


def _object(text: str) -> Mapping[str, Any]:
    told = json.loads(text)
    return told if isinstance(told, dict) else {}


def _google(value: str) -> frozenset[str]:
    """The consent types that are granted, from a JSON object or a gcs value such as G111."""
    text = unquote(value).strip()
    if found := _GCS.fullmatch(text):
        # gcs speaks of storage only; ad_user_data goes with ad_storage.
        granted = {"ad_storage", "ad_user_data"} if found[1] == "1" else set()
        return frozenset(granted | ({"analytics_storage"} if found[2] == "1" else set()))
    states = {
        _UPPER.sub("_", name).lower(): str(state).lower() in _YES
        for name, state in _object(text).items()
    }
    states.setdefault("ad_user_data", states.get("ad_storage", False))
    return frozenset(name for name, on in states.items() if on)


def _services(states: Mapping[str, bool]) -> frozenset[str]:
    """The names that are on, and "meta" if all that are called like Meta's pixel are."""
    on = {name for name, is_on in states.items() if is_on}
    metas = {name for name in states if _METAS.search(_UPPER.sub("-", name).lower())}
    return frozenset(on | {"meta"} if metas and metas <= on else on - {"meta"})


def _klaro(value: str) -> frozenset[str]:
    """The services that are true, by the names that the site gave them."""
    return _services({name: on is True for name, on in _object(unquote(value)).items()})


def _token(value: str) -> Mapping[str, Any]:
    text = unquote(value)
    return _object(base64.b64decode(text + "=" * (-len(text) % 4)).decode())


def _is_didomis_choice(value: str) -> bool:
    """A token is made with the first page, and names nothing before a choice."""
    try:
        token = _token(value)
    except (ValueError, RecursionError):
        return True
    return not token or "vendors" in token or "purposes" in token


def _didomi(value: str) -> frozenset[str]:
    """The purposes and vendors that are enabled; a purpose that is not takes Meta along."""
    told = _token(value)
    states: dict[str, bool] = {}
    for part in ("purposes", "vendors"):
        lists = told.get(part, {})
        for word in ("enabled", "disabled"):
            names = lists.get(word) if isinstance(lists, dict) else None
            for name in names if isinstance(names, list) else ():
                states[str(name)] = word == "enabled" and states.get(str(name), True)
            if (part, word) == ("purposes", "disabled") and not all(states.values()):
                states["meta"] = False
    return _services(states)


def _word(value: str) -> frozenset[str]:
    return frozenset({unquote(value).strip()})


#: By the name that `consent` takes. Purposes 1, 3, 4, 7: store, profile, select ads, measure them.
READY_RULES = {
    "tcf": ReadyRule("euconsent-v2", (1, 3, 4, 7), _tcf, ("__tcfapi",)),
    "onetrust": ReadyRule(
        "OptanonConsent",
        ("C0004",),
        _onetrust,
        ("otSDKStub", "cdn.cookielaw.org", "OptanonWrapper"),
        answered="OptanonAlertBoxClosed",
    ),
    "cookiebot": ReadyRule("CookieConsent", ("marketing",), _cookiebot, ("consent.cookiebot.",)),
    "cookieyes": ReadyRule(
        "cookieyes-consent",
        ("advertisement",),
        _pairs,
        ("cdn-cookieyes.com", "cookie-law-info"),
        is_chosen=lambda value: "action:yes" in unquote(value),
    ),
    "usercentrics": ReadyRule(
        "uc_gcm", ("ad_storage", "ad_user_data"), _google, ("usercentrics.eu", "usercentrics-cmp")
    ),
    "didomi": ReadyRule(
        "didomi_token",
        ("meta",),
        _didomi,
        ("sdk.privacy-center.org", "didomi"),
        is_chosen=_is_didomis_choice,
    ),
    "klaro": ReadyRule("klaro", ("meta",), _klaro, ("klaro.js", "klaro.min.js", "klaroConfig")),
    "complianz": ReadyRule("cmplz_marketing", ("allow",), _word, ("complianz-gdpr", "cmplz-")),
    "google": ReadyRule(
        "consentMode", ("ad_storage", "ad_user_data"), _google, ('"consent","default"',)
    ),
}


def banners_in(html: str) -> Iterator[str]:
    """The ready rules of the banners that a page shows signs of."""
    bare = html.replace(" ", "").replace("'", '"')
    for name, rule in READY_RULES.items():
        if any(mark in bare for mark in rule.marks):
            yield name


def is_vendor(vendor: object) -> bool:
    """Whether `vendor` of a rule names one: of the IAB's list, or "ac:89" of Google's."""
    if isinstance(vendor, str):
        return _PROVIDER.fullmatch(vendor) is not None
    return type(vendor) is int and 0 < vendor < 65536
