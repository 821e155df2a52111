"""custom_data as Meta takes it: finite numbers, value with currency, contents with ids."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

#: Fields that are numbers; numeric text (from a form) is read as one.
_NUMBERS = frozenset({"value", "predicted_ltv", "net_revenue", "num_items"})
_LONGEST = 1000


def clean(event_name: str, data: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The usable part of `data`, and what is wrong with it as the names of its fields.

    None is left out silently. A Purchase needs value and currency, any value needs a currency
    (Meta refuses both otherwise, subcodes 2804009, 2804010, 2804023), contents need ids
    (2804008). Never raises.
    """
    wrong: list[str] = []
    cleaned: dict[str, Any] = {}
    for key, value in data.items():
        if value is None:
            continue
        item = _number(value) if key in _NUMBERS else _plain(value)
        if item is None:
            wrong.append(key)
        else:
            cleaned[key] = item
    currency = cleaned.get("currency")
    if currency is not None:
        code = currency.strip().upper() if isinstance(currency, str) else ""
        if len(code) == 3 and code.isascii() and code.isalpha():
            cleaned["currency"] = code
        else:
            del cleaned["currency"]
            wrong.append("currency")
    if "value" in cleaned and "currency" not in cleaned and "currency" not in wrong:
        wrong.append("currency")
    if event_name == "Purchase":
        wrong += [key for key in ("value", "currency") if key not in cleaned and key not in wrong]
    contents = cleaned.get("contents")
    if contents is not None and not (
        isinstance(contents, list)
        and all(isinstance(one, dict) and one.get("id") not in (None, "") for one in contents)
    ):
        del cleaned["contents"]
        wrong.append("contents")
    return cleaned, wrong


def refused_by_meta(event_name: str, data: Mapping[str, Any]) -> bool:
    """Whether the Graph API would refuse an event with this cleaned custom_data."""
    if event_name == "Purchase" and not ("value" in data and "currency" in data):
        return True
    return "value" in data and "currency" not in data


def _number(value: Any) -> int | float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = Decimal(value.strip())
        except InvalidOperation:
            return None
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        value = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, int):
        return value if abs(value) < 2**53 else None
    if isinstance(value, float) and math.isfinite(value):
        return value
    return None


def _plain(value: Any, depth: int = 0) -> Any:
    """`value` as plain JSON data with bounded strings; None when it is not."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()[:_LONGEST]
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float | Decimal):
        return _number(value)
    if depth > 3:
        return None
    if isinstance(value, Mapping):
        items = {str(key): _plain(item, depth + 1) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not None}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray):
        plain = [_plain(item, depth + 1) for item in value]
        return [item for item in plain if item is not None]
    return None if value is None or isinstance(value, bytes | bytearray) else str(value)[:_LONGEST]
