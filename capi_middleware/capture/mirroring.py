"""Mirroring: which events a page's own pixel code may cause on the server, and with what."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from capi_middleware.events import STANDARD_EVENTS
from capi_middleware.meta.personal import is_personal, is_token

#: How long a page may be open and still cause events, in seconds.
KEY_SECONDS = 24 * 3600
#: What a browser may say of an event unless the site names the event: nothing that is money.
_HARMLESS = frozenset(
    {"content_ids", "content_type", "content_name", "content_category", "contents", "num_items",
     "search_string", "status", "delivery_category"}
)  # fmt: skip

_QUOTES = frozenset("\"'`\\")
_PARTS, _DIGIT = re.compile(r"[^\W_]+"), re.compile(r"\d")
#: A shorter one behind letters counts something else: "x1", "v2".
_NUMBERED = re.compile(r"[^\W\d_]+(\d{3,})")


class Mirror:
    """The rule that Config.mirror is: True for all standard events but Purchase, or a list.

    What the list names comes with its value, currency and everything else that the page says.
    """

    def __init__(self, setting: bool | Sequence[str]) -> None:
        self.on: bool = bool(setting)
        self._named = frozenset() if isinstance(setting, bool) else frozenset(setting)
        self._standard = setting is True

    def takes(self, event_name: str) -> bool:
        """Whether a browser may cause the server copy of this event."""
        if event_name in self._named:
            return True
        return self._standard and event_name in STANDARD_EVENTS and event_name != "Purchase"

    def custom_data(self, event_name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The part of the browser's custom_data that is believed."""
        if event_name in self._named:
            return dict(given)
        kept = {key: value for key, value in given.items() if key in _HARMLESS}
        if isinstance(kept.get("contents"), list):
            kept["contents"] = [
                {key: value for key, value in one.items() if key in ("id", "quantity")}
                for one in kept["contents"]
                if isinstance(one, dict)
            ]
        return kept


def is_harmless(event_name: str) -> bool:
    """Whether a name that a page made up may be kept and shown.

    Never one with a quote, which could end that of a line of code in a flag's fix, nor one that is
    an e-mail address, a telephone number or a token: names are not hashed.
    """
    is_ones = is_personal(event_name) or is_token(event_name)
    return _QUOTES.isdisjoint(event_name) and not is_ones


def names_order(path: str, event_id: str) -> bool:
    """Whether the address of a page is about what this event_id of the site's own is about.

    The longest part of the id with a digit, or the long number at its end, is a part of the path:
    "order-1001", "order1001" and /orders/1001/thanks. Anybody may write what he likes into a query.
    """
    numbers = [one for one in _PARTS.findall(event_id) if _DIGIT.search(one)]
    number = max(numbers, key=len, default="")
    found = _NUMBERED.fullmatch(number)
    return not {number, found[1] if found else number}.isdisjoint(_PARTS.findall(path))


def made_by(key: str, event_id: str) -> bool:
    """Whether the page whose event_id is `key` may have made this event_id itself."""
    head, dash, number = event_id.rpartition("-")
    return dash == "-" and head == f"m{key[1:20]}" and number.isdecimal() and len(number) < 5
