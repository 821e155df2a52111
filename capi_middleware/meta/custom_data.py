"""custom_data as Meta takes it: finite numbers, value with currency, contents with ids.

Sources: Meta's pages "Standard Parameters" and "Meta Pixel Reference", and the subcodes that the
Graph API answers.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from decimal import Decimal, InvalidOperation
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from capi_middleware.meta.normalising import text_of
from capi_middleware.meta.personal import is_personal, is_unmistakable, names_a_person

_LONGEST = 1000
_MOST_ITEMS = 1000
_DEEPEST = 4
_DELIVERY = frozenset({"in_store", "curbside", "home_delivery"})
_SAFE_INTEGER = 2**53
#: Whether an id is one that needs a closer look.
_ODD = re.compile(r"[@+]").search
# List One of ISO 4217 without testing codes, precious metals and units of account, and with codes
# that were replaced in 2023 to 2026 and that shops still use.
CURRENCIES = frozenset(Path(__file__).with_name("currencies.txt").read_text("ascii").split())

#: How many decimals a currency has that has not two (ISO 4217).
_DECIMALS = dict[str, int]()
for _decimals, _codes in {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}.items():
    _DECIMALS |= dict.fromkeys(_codes.split(), _decimals)
#: What is worth more is none of a shop's; millions of these are still summed exactly.
_MOST_UNITS = 10**12


def decimals_of(currency: str) -> int:
    """How many decimals amounts of a currency have."""
    return _DECIMALS.get(currency, 2)


def worth(data: Mapping[str, Any]) -> tuple[str, int]:
    """The currency and the value, in its smallest unit, of cleaned custom_data; "" without both."""
    value, currency = data.get("value"), data.get("currency", "")
    if value is None or not currency:
        return "", 0
    units = value * 10 ** _DECIMALS.get(currency, 2)
    return (currency, round(units)) if -_MOST_UNITS <= units <= _MOST_UNITS else ("", 0)


def clean(event_name: str, data: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The usable part of `data`, and what is wrong with it as the names of its fields.

    None and empty text are left out silently. A Purchase needs value and currency, any value needs
    a currency (Meta refuses both otherwise, subcodes 2804009, 2804010, 2804023), contents need ids
    (2804008). Personal data and secrets are left out, by name and by shape: nothing hashes
    custom_data, and the page carries it. Of a list what is usable is kept. Never raises.
    """
    wrong: list[str] = []
    cleaned: dict[str, Any] = {}
    for key, value in data.items():
        if value is None or (type(value) is str and not value):
            continue
        field = _FIELDS.get(key)
        try:
            if field is _content or field is _id:
                item, whole = _list(value, field)
                if item and not whole:
                    wrong.append(key)
            else:
                item = field(value) if field else _property(key, value)
        except Exception:  # of an object of the host that cannot be read
            item = None
        if item is None:
            wrong.append(key)
        else:
            plain = field or (type(key) is str and key.isascii() and len(key) <= _LONGEST)
            cleaned[key if plain else _name(key)] = item
    if refused_by_meta(event_name, cleaned):
        wrong += [key for key in ("value", "currency") if key not in cleaned and key not in wrong]
    return cleaned, wrong


def lacking(event_name: str, data: Mapping[str, Any]) -> list[str]:
    """What the Graph API wants beside this custom_data and does not find: value, currency."""
    if event_name != "Purchase" and "value" not in data:
        return []
    return [key for key in ("value", "currency") if key not in data]


def refused_by_meta(event_name: str, data: Mapping[str, Any]) -> bool:
    """Whether the Graph API would refuse an event with this cleaned custom_data."""
    if "value" in data:
        return "currency" not in data
    return event_name == "Purchase"


def _number(value: Any) -> int | float | None:
    """A finite number; numeric text (from a form) is read as one."""
    if type(value) is float:  # the usual case, on a hot path
        return value if math.isfinite(value) else None
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        return int(value) if abs(value) < _SAFE_INTEGER and not isinstance(value, bool) else None
    if isinstance(value, str):
        try:
            value = Decimal(value.strip())
        except InvalidOperation:
            return None
    if isinstance(value, Decimal) and value.is_finite() and abs(value) < _SAFE_INTEGER:
        return int(value) if value == value.to_integral_value() else float(value)
    return None


def _whole(value: Any) -> int | None:
    if type(value) is int and 0 <= value < _SAFE_INTEGER:
        return value
    number = _number(value)
    return int(number) if number is not None and number >= 0 and number == int(number) else None


def _currency(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    if value in CURRENCIES:
        return value
    code = value.strip().upper()
    return code if code in CURRENCIES else None


def _text(given: Any) -> str | None:
    if type(given) is str:
        value = given
    elif isinstance(given, bool | bytes | bytearray | Mapping | Set) or (
        isinstance(given, Sequence) and not isinstance(given, str)
    ):
        return None
    else:
        value = str(given)
    value = value[:_LONGEST]
    if not value.isalnum() and is_unmistakable(value):
        return None
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _name(key: Any) -> str:
    """A key as text that JSON can hold."""
    return str(key)[:_LONGEST].encode("utf-8", "replace").decode()


def _free_text(given: Any) -> str | None:
    """What somebody wrote."""
    value = _text(given)
    return None if value is None or is_personal(value) else value


def _list(value: Any, member: Callable[[Any], Any]) -> tuple[list[Any] | None, bool]:
    """What is usable of a list, or of a single one, and whether all is.

    It may be a list in a text (JSON), or whatever else can be gone through, as a QuerySet can.
    """
    if type(value) is not list:
        if isinstance(value, str) and value.lstrip()[:1] == "[":
            value = msgspec.json.decode(value)
        if isinstance(value, str | bytes | bytearray | Mapping) or not isinstance(value, Iterable):
            value = [value]
    kept = []
    whole = True
    for given in islice(value, _MOST_ITEMS):
        try:
            one = member(given)
        except Exception:  # of an object of the host that cannot be read
            one = None
        if one is not None:
            kept.append(one)
        elif given is not None and given != "":
            whole = False
    return kept or None, whole


def _id(given: Any) -> str | None:
    """An id as text: numbers may come from a table that has them as floats."""
    if type(given) is str and given.isascii() and len(given) <= _LONGEST and not _ODD(given):
        return given  # the usual case, on a hot path
    text = given if isinstance(given, str) else text_of(given)
    return _text(text) if text else None


def _content(given: Any) -> dict[str, Any] | None:
    """An object of contents, with an id; what is wrong with a field is wrong with the object."""
    if type(given) is dict and _is_ready(given):
        return {**given}
    return _converted(given) if isinstance(given, Mapping) else None


def _is_ready(item: Mapping[str, Any]) -> bool:
    """Whether an item of contents is as it should be: the usual case, on a hot path."""
    for key, value in item.items():
        kind = type(value)
        if key not in _CONTENT_FIELDS and (
            type(key) is not str or not key.isascii() or len(key) > _LONGEST or _is_ones_own(key)
        ):
            return False
        if kind is str:
            if not value.isascii() or len(value) > _LONGEST or _ODD(value):
                return False
            if key != "id" and (key in _CONTENT_NUMBERS or is_personal(value)):
                return False
        elif (kind is not float and kind is not int) or not -_SAFE_INTEGER < value < _SAFE_INTEGER:
            return False
    return bool(type(item.get("id")) is str and item["id"]) and "delivery_category" not in item


def _is_ones_own(key: str) -> bool:
    """Whether a field of an item is named like a person's; the name of an item is none."""
    return key not in _CONTENT_FIELDS and key != "name" and names_a_person(key)


def _converted(given: Mapping[str, Any]) -> dict[str, Any] | None:
    item = {
        _name(key): None if _is_ones_own(str(key)) else _CONTENT_FIELDS.get(key, _plain)(one)
        for key, one in given.items()
        if one is not None
    }
    return None if None in item.values() or not item.get("id") else item


def _delivery(value: Any) -> str | None:
    return value if isinstance(value, str) and value in _DELIVERY else None


def _status(value: Any) -> str | bool | None:
    return value if isinstance(value, bool) else _text(value)


def _plain(value: Any, depth: int = 0) -> Any:
    """`value` as plain JSON data with bounded texts and lists; None when it is not."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float | Decimal):
        return _number(value)
    if isinstance(value, bytes | bytearray) or depth > _DEEPEST:
        return None
    if isinstance(value, Mapping):
        items = {_name(key): _property(str(key), item, depth + 1) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not None}
    if isinstance(value, Sequence | Set) and not isinstance(value, str):
        plain = [_plain(item, depth + 1) for item in list(value)[:_MOST_ITEMS]]
        return [item for item in plain if item is not None]
    return _free_text(value)


def _property(key: str, value: Any, depth: int = 0) -> Any:
    """A property of the site's own; None for one that is named like a person's."""
    return None if names_a_person(key) else _plain(value, depth)


#: Fields that Meta's pages describe; every other one is a property of the site's own.
_FIELDS: dict[str, Callable[[Any], Any]] = {
    "value": _number,
    "currency": _currency,
    "contents": _content,  # each of these
    "content_ids": _id,
    "num_items": _whole,
    "predicted_ltv": _number,
    "net_revenue": _number,
    "status": _status,
    "delivery_category": _delivery,
    **dict.fromkeys(
        ("content_name", "content_category", "search_string"), _free_text
    ),
    **dict.fromkeys(("content_type", "order_id", "item_number"), _text),
}  # fmt: skip
#: The names of these fields.
DOCUMENTED = frozenset(_FIELDS)
_CONTENT_NUMBERS = frozenset({"quantity", "item_price"})
_CONTENT_FIELDS: dict[str, Callable[[Any], Any]] = {
    "id": _id,
    **dict.fromkeys(_CONTENT_NUMBERS, _number),
    "title": _free_text,
    "delivery_category": _delivery,
}
