"""How Meta's Graph API reads a body, and why it would refuse an event: pure, no HTTP.

Rules come from Meta's pages "Server Event Parameters", "Customer Information Parameters",
"Standard Parameters" and "Best Practices - Conversions API".
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qsl

from capi_middleware.meta import codes
from capi_middleware.meta.match_keys import MATCH_KEYS
from capi_middleware.meta.normalising import number

DAY = 86_400
#: How far back event_time may lie, in seconds; Meta allows store visits more.
MAX_AGE = 7 * DAY
MAX_AGE_PHYSICAL_STORE = 62 * DAY
#: How far ahead of Meta's clock event_time may lie, in seconds. Meta documents no number.
MAX_AHEAD = 60

ACTION_SOURCES = (
    "email", "website", "app", "phone_call", "chat", "physical_store", "system_generated",
    "business_messaging", "other",
)  # fmt: skip
#: user_data with no more than one of these sets of keys identifies nobody.
_TOO_LITTLE = (
    frozenset({"ct", "country", "st", "zp", "ge", "client_user_agent"}),
    frozenset({"db", "client_user_agent"}), frozenset({"fn", "ge"}), frozenset({"ln", "ge"}),
)  # fmt: skip
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CURRENCY = re.compile(r"[A-Za-z]{3}")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


class BodyError(ValueError):
    """A body that is not what its content type says."""


def fields_of(content_type: str, body: bytes) -> dict[str, Any]:
    """The fields of a JSON, form or multipart body, `data` decoded. Raises BodyError."""
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == "application/json":
            fields = json.loads(body)
        elif kind == "multipart/form-data":
            fields = _multipart(content_type, body)
        else:
            fields = dict(parse_qsl(body.decode(), keep_blank_values=True))
        if not isinstance(fields, dict):
            raise BodyError("The body must be an object")
        if "data" in fields:
            fields["data"] = _decoded(fields["data"])
    except (ValueError, RecursionError) as error:
        raise BodyError(f"The body cannot be read ({type(error).__name__})") from error
    return fields


def _decoded(data: Any) -> Any:
    # Meta's own SDK posts a JSON list of JSON texts in a form field.
    if isinstance(data, str):
        data = json.loads(data)
    if isinstance(data, list):
        return [json.loads(event) if isinstance(event, str) else event for event in data]
    return data


def _multipart(content_type: str, body: bytes) -> dict[str, str]:
    head = b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n"
    fields = {}
    for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            fields[name] = payload.decode()
    return fields


@dataclass(frozen=True)
class Refusal:
    """Why a request is refused: Meta's error `code`, as in meta/codes.py, and the guilty field."""

    message: str
    field: str = ""
    code: str = codes.INVALID


def refusal(event: object, now: float) -> Refusal | None:
    """The first reason to refuse `event`, or None. `now` is Unix time in seconds."""
    if not isinstance(event, Mapping):
        return Refusal("Each element of data must be an object", "data")
    return (
        _bad_envelope(event)
        or _bad_time(event, now)
        or _bad_user_data(event)
        or _bad_website_event(event)
        or _bad_custom_data(event)
    )


def _bad_envelope(event: Mapping[str, Any]) -> Refusal | None:
    name = event.get("event_name")
    if not isinstance(name, str) or not name:
        return Refusal("A non-empty string is required", "event_name")
    if event.get("action_source") not in ACTION_SOURCES:
        return Refusal("A known action source is required", "action_source")
    if "event_id" in event and not isinstance(event["event_id"], str):
        return Refusal("Must be a string", "event_id")
    if not isinstance(event.get("opt_out", False), bool):
        return Refusal("Must be a boolean", "opt_out")
    options = event.get("data_processing_options", [])
    if not isinstance(options, list) or any(option != "LDU" for option in options):
        return Refusal("Must be [] or ['LDU']", "data_processing_options")
    for key in ("data_processing_options_country", "data_processing_options_state"):
        if type(event.get(key, 0)) is not int:
            return Refusal("Must be an integer", key)
    return None


def _bad_time(event: Mapping[str, Any], now: float) -> Refusal | None:
    time = event.get("event_time")
    if not isinstance(time, int) or isinstance(time, bool):
        return Refusal("Unix time in whole seconds is required", "event_time")
    visit = event["action_source"] == "physical_store"
    if now - time > (MAX_AGE_PHYSICAL_STORE if visit else MAX_AGE):
        return Refusal("Event timestamp too old", "event_time", code=codes.TOO_OLD)
    if time - now > MAX_AHEAD:
        return Refusal("Event timestamp in the future", "event_time", code=codes.IN_FUTURE)
    return None


def _bad_user_data(event: Mapping[str, Any]) -> Refusal | None:
    user_data = event.get("user_data")
    if not isinstance(user_data, Mapping):
        return Refusal("An object is required", "user_data")
    for name, value in user_data.items():
        key = MATCH_KEYS.get(name)
        if key is None or key.free:
            continue
        if key.plain is None:
            values = value if isinstance(value, list) else [value]
            if not all(isinstance(one, str) and _SHA256.fullmatch(one) for one in values):
                return Refusal("User parameter not hashed", name, code=codes.NOT_HASHED)
        elif key.plain is not number and not isinstance(value, str):
            return Refusal("Must be a string", name)
    keys = {key for key, value in user_data.items() if value}
    if any(keys <= too_little for too_little in _TOO_LITTLE):
        return Refusal("Not enough customer information", "user_data", code=codes.TOO_LITTLE)
    return None


def _bad_website_event(event: Mapping[str, Any]) -> Refusal | None:
    if event["action_source"] != "website":
        return None
    url = event.get("event_source_url")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        return Refusal("A website event needs an http(s) URL", "event_source_url")
    if not event["user_data"].get("client_user_agent"):
        return Refusal("A website event needs a user agent", "client_user_agent")
    return None


def _bad_custom_data(event: Mapping[str, Any]) -> Refusal | None:
    data = event.get("custom_data", {})
    if not isinstance(data, Mapping):
        return Refusal("Must be an object", "custom_data")
    value, currency = data.get("value"), data.get("currency")
    if value is not None and not _is_number(value):
        return Refusal("Must be a number", "value")
    if currency is not None and not (isinstance(currency, str) and _CURRENCY.fullmatch(currency)):
        return Refusal("Must be an ISO 4217 code", "currency")
    if event["event_name"] == "Purchase":
        if value is None:
            return Refusal("A Purchase needs a value", "value", code=codes.NO_VALUE)
        if currency is None:
            return Refusal("A Purchase needs a currency", "currency", code=codes.NO_CURRENCY)
    if value is not None and currency is None:
        return Refusal("A value needs a currency", "currency", code=codes.VALUE_ALONE)
    contents = data.get("contents", [])
    if not isinstance(contents, list):
        return Refusal("Must be a list", "contents")
    if not all(isinstance(item, Mapping) and item.get("id") for item in contents):
        return Refusal("Each of contents needs an id", "contents", code=codes.NO_CONTENT_ID)
    return None


def _is_number(value: object) -> bool:
    # Meta's own samples send numbers as text, too.
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)
