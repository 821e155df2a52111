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
from capi_middleware.meta.event_object import (
    ACTION_SOURCES,
    ATTRIBUTION_FIELDS,
    ATTRIBUTION_METHODS,
    ATTRIBUTION_MODELS,
    MESSAGING_CHANNELS,
    SEGMENTATIONS,
    identifies,
    max_age,
)
from capi_middleware.meta.match_keys import MATCH_KEYS
from capi_middleware.meta.normalising import APPENDIX, number

#: How far ahead of Meta's clock event_time may lie, in seconds. Meta documents no number.
MAX_AHEAD = 60

_ORIGINAL = {"event_name": str, "event_time": int, "order_id": str, "event_id": str}
#: With what Meta's parameter builder joins to it.
_HASHED = re.compile(rf"[0-9a-f]{{64}}(\.{APPENDIX})?")
_CURRENCY = re.compile(r"[A-Za-z]{3}")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(eq=False)
class Refusal(Exception):
    """Why a request is refused: Meta's error `code`, as in meta/codes.py, and the guilty field."""

    message: str
    field: str = ""
    code: str = codes.INVALID
    status: int = 400


def need(met: object, message: str, field: str = "", code: str = codes.INVALID) -> None:
    """Raises Refusal unless something is `met`."""
    if not met:
        raise Refusal(message, field, code)


def fields_of(content_type: str, body: bytes) -> dict[str, Any]:
    """The fields of a JSON, form or multipart body, `data` decoded. Raises Refusal."""
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == "application/json":
            fields = json.loads(body)
        elif kind == "multipart/form-data":
            fields = _multipart(content_type, body)
        else:
            fields = dict(parse_qsl(body.decode(), keep_blank_values=True))
        if not isinstance(fields, dict):
            raise Refusal("The body must be an object", "data")
        if "data" in fields:
            fields["data"] = _decoded(fields["data"])
    except (ValueError, RecursionError) as error:
        raise Refusal(f"The body cannot be read ({type(error).__name__})", "data") from error
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


def check_event(event: Any, now: float) -> None:
    """Raises Refusal for the first fault of an `event`. `now` is Unix time in seconds."""
    need(isinstance(event, Mapping), "Each element of data must be an object", "data")
    name, source = event.get("event_name"), event.get("action_source")
    need(name and isinstance(name, str), "A non-empty string is required", "event_name")
    need(source in ACTION_SOURCES, "A known action source is required", "action_source")
    need(isinstance(event.get("event_id", ""), str), "Must be a string", "event_id")
    need(isinstance(event.get("opt_out", False), bool), "Must be a boolean", "opt_out")
    need(event.get("data_processing_options", []) in ([], ["LDU"]),
         "Must be [] or ['LDU']", "data_processing_options")  # fmt: skip
    for key in ("data_processing_options_country", "data_processing_options_state"):
        need(type(event.get(key, 0)) is int, "Must be an integer", key)
    time = event.get("event_time")
    need(type(time) is int, "Unix time in whole seconds is required", "event_time")
    oldest = now - max_age(source)
    need(time >= oldest, "Event timestamp too old", "event_time", codes.TOO_OLD)
    need(time <= now + MAX_AHEAD, "Event timestamp in the future", "event_time", codes.IN_FUTURE)
    user_data = event.get("user_data")
    need(isinstance(user_data, Mapping), "An object is required", "user_data")
    _check_user_data(user_data)
    if source == "website":
        url = str(event.get("event_source_url"))
        need(url.startswith(("http://", "https://")), "A website event needs an http(s) URL",
             "event_source_url")  # fmt: skip
        need(user_data.get("client_user_agent"), "A website event needs a user agent",
             "client_user_agent")  # fmt: skip
    _check_more(event, source)
    data = event.get("custom_data", {})
    need(isinstance(data, Mapping), "Must be an object", "custom_data")
    _check_custom_data(name, data)


def _check_more(event: Mapping[str, Any], source: str) -> None:
    """The fields of the event object that few events have."""
    for key in ("event_source_url", "referrer_url"):
        need(isinstance(event.get(key, ""), str), "Must be a string", key)
    segment = event.get("customer_segmentation")
    need(segment in (None, *SEGMENTATIONS), "Unknown segment", "customer_segmentation")
    channel = event.get("messaging_channel")
    messaging = source == "business_messaging"
    right = channel in MESSAGING_CHANNELS if messaging else channel is None
    need(right, "Business messaging needs its channel, others have none", "messaging_channel")
    original = event.get("original_event_data", {})
    need(isinstance(original, Mapping), "Must be an object", "original_event_data")
    for key, value in original.items():
        need(type(value) is _ORIGINAL.get(key), "Of another type, or unknown", f"original.{key}")
    credit = event.get("attribution_data", {})
    need(isinstance(credit, Mapping), "Must be an object", "attribution_data")
    need(ATTRIBUTION_FIELDS.issuperset(credit), "Unknown field", "attribution_data")
    for key, words in (("attribution_model", ATTRIBUTION_MODELS),
                       ("attribution_method", ATTRIBUTION_METHODS)):  # fmt: skip
        need(credit.get(key) in (None, *words), "Unknown word", key)
    need(source == "app" or "app_data" not in event, "Only of an app", "app_data")


def _check_user_data(user_data: Mapping[str, Any]) -> None:
    for name, value in user_data.items():
        key = MATCH_KEYS.get(name)
        if key is None or key.free:
            continue
        if key.plain is None:
            values = value if isinstance(value, list) else [value]
            hashed = all(isinstance(one, str) and _HASHED.fullmatch(one) for one in values)
            need(hashed, "User parameter not hashed", name, codes.NOT_HASHED)
        else:
            need(key.plain is number or isinstance(value, str), "Must be a string", name)
    whatsapp = not user_data.get("ctwa_clid") or user_data.get("whatsapp_business_account_id")
    need(whatsapp, "A ctwa_clid needs a WhatsApp account", "whatsapp_business_account_id")
    need(identifies(user_data), "Not enough customer information", "user_data", codes.TOO_LITTLE)


def _check_custom_data(event_name: str, data: Mapping[str, Any]) -> None:
    value, currency = data.get("value"), data.get("currency")
    # Meta's own samples send numbers as text, too.
    is_number = _NUMBER.fullmatch(value) if isinstance(value, str) else type(value) in (int, float)
    need(value is None or is_number, "Must be a number", "value")
    known = isinstance(currency, str) and _CURRENCY.fullmatch(currency)
    need(currency is None or known, "Must be an ISO 4217 code", "currency")
    if event_name == "Purchase":
        need(value is not None, "A Purchase needs a value", "value", codes.NO_VALUE)
        need(currency, "A Purchase needs a currency", "currency", codes.NO_CURRENCY)
    need(value is None or currency, "A value needs a currency", "currency", codes.VALUE_ALONE)
    # Meta's page "Conversion Leads": events of a CRM name it.
    crm = data.get("event_source") != "crm" or isinstance(data.get("lead_event_source"), str)
    need(crm, "Events of a CRM name it", "lead_event_source")
    contents = data.get("contents", [])
    need(isinstance(contents, list), "Must be a list", "contents")
    named = all(isinstance(item, Mapping) and item.get("id") for item in contents)
    need(named, "Each of contents needs an id", "contents", codes.NO_CONTENT_ID)
