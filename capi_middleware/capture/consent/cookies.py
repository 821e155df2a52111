"""Ready rules: what the consent cookies that sites really use say about advertising.

Sources: IAB Tech Lab, "Consent string and vendor list formats v2"; OneTrust, "OneTrust Cookies";
Cookiebot, "Server-side usage of the Cookiebot consent cookie"; CookieYes, "CookieYes cookies";
Google, "Consent mode reference" (it defines the words, no cookie: name yours).
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, unquote_plus

_LONGEST = 8192
_PAIR = re.compile(r"""['"]?([\w-]+)['"]?\s*:\s*['"]?([\w-]+)""")
_YES = frozenset({"1", "granted", "true", "yes"})
# Where the fields of a TC string of version 2 start, in bits.
_TCF_VERSION_BITS, _TCF_PURPOSES_AT, _TCF_PURPOSES = 6, 152, 24
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
        allowed = self.allowed(value)
        return allowed is None or allowed.issuperset(map(str, requires))


def _tcf(value: str) -> frozenset[str]:
    """The purposes with consent, by number."""
    core = value.partition(".")[0][:_TCF_HEAD]
    try:
        data = base64.urlsafe_b64decode(core + "=" * (-len(core) % 4))
    except (binascii.Error, ValueError):
        return frozenset()
    bits = "".join(f"{byte:08b}" for byte in data)
    if int(bits[:_TCF_VERSION_BITS] or "0", 2) != 2:
        return frozenset()
    purposes = bits[_TCF_PURPOSES_AT : _TCF_PURPOSES_AT + _TCF_PURPOSES]
    return frozenset(str(place) for place, bit in enumerate(purposes, 1) if bit == "1")


def _onetrust(value: str) -> frozenset[str]:
    """The groups that are on: groups=C0001:1,C0002:0,…"""
    try:
        groups = dict(parse_qsl(value, max_num_fields=100)).get("groups", "")
    except ValueError:
        return frozenset()
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
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return frozenset()
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
