"""Consent: what a visitor allows, by the site's rule and Global Privacy Control; who is none.

What the cookies of consent banners mean: IAB Tech Lab, "Consent string and vendor list formats v2";
OneTrust, "OneTrust Cookies"; Cookiebot, "Server-side usage of the Cookiebot consent cookie";
CookieYes, "CookieYes cookies"; Google, "Consent mode reference" (it defines the words, no cookie:
name yours).
"""

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, unquote_plus

from capi_middleware.capture.client import Address, Proxies
from capi_middleware.config.expressions import MISSING, Call, Lookup, fill, parse

_LONGEST = 8192
# No part of it can start in the middle of another.
_PAIR = re.compile(r"""(?<![\w-])([\w-]++)['"]?\s*+:\s*+['"]?([\w-]++)""")
_NO = frozenset({"", "0", "false", "no"})
_YES = frozenset({"1", "granted", "true", "yes"})
# How a TC string of version 2 starts, and where its purposes do, in bits.
_TCF_VERSION_2, _TCF_PURPOSES_AT, _TCF_PURPOSES = "000010", 152, 24
_TCF_HEAD = 32  # characters that hold them
_GCS = re.compile(r"G1([01])([01-])")


class ReadyRule(NamedTuple):
    """A known cookie: its usual name, what must be allowed in it, and how to read it."""

    cookie: str
    requires: Sequence[Any]
    allowed: Callable[[str], frozenset[str] | None]

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


def _tcf(value: str) -> frozenset[str]:
    """The purposes with consent, by number."""
    core = value.partition(".")[0][:_TCF_HEAD]
    data = base64.urlsafe_b64decode(core + "=" * (-len(core) % 4))
    bits = "".join(f"{byte:08b}" for byte in data)
    if not bits.startswith(_TCF_VERSION_2):
        return frozenset()
    purposes = bits[_TCF_PURPOSES_AT : _TCF_PURPOSES_AT + _TCF_PURPOSES]
    return frozenset(str(place) for place, bit in enumerate(purposes, 1) if bit == "1")


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


def _google(value: str) -> frozenset[str]:
    """The consent types that are granted, from a JSON object or a gcs value such as G111."""
    text = unquote(value).strip()
    if found := _GCS.fullmatch(text):
        # gcs speaks of storage only; ad_user_data goes with ad_storage.
        granted = {"ad_storage", "ad_user_data"} if found[1] == "1" else set()
        return frozenset(granted | ({"analytics_storage"} if found[2] == "1" else set()))
    told = json.loads(text)
    if not isinstance(told, dict):
        return frozenset()
    states = {name: str(state).lower() in _YES for name, state in told.items()}
    states.setdefault("ad_user_data", states.get("ad_storage", False))
    return frozenset(name for name, on in states.items() if on)


#: By the name that `consent` takes. Purposes 1, 3, 4, 7: store, profile, select ads, measure them.
READY_RULES = {
    "tcf": ReadyRule("euconsent-v2", (1, 3, 4, 7), _tcf),
    "onetrust": ReadyRule("OptanonConsent", ("C0004",), _onetrust),
    "cookiebot": ReadyRule("CookieConsent", ("marketing",), _cookiebot),
    "cookieyes": ReadyRule("cookieyes-consent", ("advertisement",), _pairs),
    "google": ReadyRule("consentMode", ("ad_storage", "ad_user_data"), _google),
}

#: Data Processing Options for US Users: the codes of Meta's page. 0 lets Meta locate the visitor.
_LDU_STATES = {
    "CA": 1000, "CO": 1001, "CT": 1002, "FL": 1003, "OR": 1004, "TX": 1005, "MT": 1006,
    "DE": 1007, "NE": 1008, "NH": 1009, "NJ": 1010, "MN": 1011, "MD": 1012, "RI": 1013,
}  # fmt: skip
_LDU_COUNTRIES = {"US": 1}


class Permission(NamedTuple):
    """The answer. `country` and `state` are Meta's codes for limited data use, 0 for "locate"."""

    consent: Literal["granted", "denied", "limited"]
    country: int = 0
    state: int = 0


GRANTED, DENIED = Permission("granted"), Permission("denied")


class ConsentRule:
    """The `consent` setting, see Config. `ask` is its callable, None where read() can answer."""

    def __init__(
        self, rule: Callable[..., Any] | Mapping[str, Any] | str | None, *, gpc: bool
    ) -> None:
        self.ask: Call | None = Call(rule) if callable(rule) else None
        if isinstance(rule, str):
            rule = {"rule": rule}
        self._declared: Mapping[str, Any] = rule if isinstance(rule, Mapping) else {}
        #: Without a rule all is granted.
        self.is_open: bool = rule is None
        self._ready: ReadyRule | None = READY_RULES.get(self._declared.get("rule", ""))
        self._templates = {key: parse(value) for key, value in self._declared.items()}
        #: Whether `Sec-GPC: 1` is a denial.
        self.gpc: bool = gpc

    def read(self, lookup: Lookup) -> Any:
        """The answer of a rule without a callable."""
        declared = self._declared
        if not declared:
            return True
        if self._ready is not None:
            cookie = lookup("cookie", (declared.get("cookie", self._ready.cookie),))
            if cookie is MISSING:
                return False
            return self._ready.allows(str(cookie), declared.get("requires", self._ready.requires))
        value, country, state = (
            fill(self._templates.get(key), lookup, {}, {}, [])
            for key in ("value", "country", "state")
        )
        for answer in ("granted", "limited"):
            wanted = declared.get(answer, ())
            if value is not MISSING and value in ([wanted] if isinstance(wanted, str) else wanted):
                return answer if answer == "granted" else (answer, country, state)
        return "denied"

    def decide(self, answer: Any, headers: Mapping[str, str]) -> Permission:
        """What may be done with this visitor's events.

        `answer`: True, False, "granted", "denied", "limited", or ("limited", country, state);
        anything else, None included, is denied: a rule that fails must not send. `Sec-GPC: 1`,
        where the site honours it, is denied too: Meta documents no mapping for it.
        """
        if self.gpc and headers.get("sec-gpc", "").strip() == "1":
            return DENIED
        given = answer if isinstance(answer, tuple | list) and len(answer) == 3 else (answer, 0, 0)
        answer, country, state = given
        if answer is True or answer == "granted":
            return GRANTED
        if answer != "limited":
            return DENIED
        return Permission("limited", *_codes(country, state))


class InternalRule:
    """The `internal` setting, see Config. `ask` is its callable, None where read() can answer."""

    def __init__(self, rule: Callable[..., Any] | Mapping[str, Any]) -> None:
        self.ask: Call | None = Call(rule) if callable(rule) else None
        declared: Mapping[str, Any] = rule if isinstance(rule, Mapping) else {}
        self._networks = Proxies.of(declared.get("networks", ())).networks
        self._value = parse(declared.get("value"))
        self._is = declared.get("is")

    def read(self, lookup: Lookup, address: Callable[[], Address | None]) -> bool:
        """Whether a request is of the site itself, by a rule without a callable."""
        if self._networks:
            found = address()
            if found is not None and any(found in network for network in self._networks):
                return True
        value = fill(self._value, lookup, {}, {}, [])
        if value is MISSING or value is None:
            return False
        if self._is is not None:
            return str(value) in map(str, self._is)
        return str(value).strip().lower() not in _NO


def _codes(country: Any, state: Any) -> tuple[int, int]:
    """Meta's codes from codes or names; a state without its country would be ignored by Meta."""
    country, state = (
        one if type(one) is int else names.get(str(one).strip().upper(), 0)
        for one, names in ((country, _LDU_COUNTRIES), (state, _LDU_STATES))
    )
    if state not in _LDU_STATES.values():
        # A country without a state makes Meta locate the visitor anyway.
        return 0, 0
    return (country or 1, state) if country in (0, 1) else (0, 0)
