"""Payload: one event as the Graph API wants it."""

from typing import Any

import msgspec

from capi_middleware.events import Event
from capi_middleware.visitor import Visitor

_encode = msgspec.json.Encoder().encode


def user_data_of(hashed: dict[str, Any], visitor: Visitor | None) -> dict[str, Any]:
    """The user_data of an event: what the app gave, completed from the visitor."""
    if visitor is None:
        return hashed
    complete = dict(hashed)
    for key in ("client_ip_address", "client_user_agent", "fbc", "fbp"):
        value = getattr(visitor, key)
        if value:
            complete.setdefault(key, value)
    return complete


def encode(event: Event, visitor: Visitor | None) -> bytes:
    """The event object as JSON bytes. `event.user_data` must be complete.

    event_time in whole seconds, GMT. action_source is "website" for an event with a page, else
    "system_generated" (Meta wants event_source_url and a user agent for website events).
    """
    data: dict[str, Any] = {
        "event_name": event.event_name,
        "event_time": int(event.event_time),
        "event_id": event.event_id,
        "action_source": "system_generated",
        "user_data": event.user_data,
    }
    if event.custom_data:
        data["custom_data"] = event.custom_data
    if visitor is not None:
        if visitor.event_source_url and "client_user_agent" in event.user_data:
            data["action_source"] = "website"
            data["event_source_url"] = visitor.event_source_url
        if visitor.referrer_url:
            data["referrer_url"] = visitor.referrer_url
        if visitor.consent == "limited":
            data["data_processing_options"] = ["LDU"]
            data["data_processing_options_country"] = visitor.data_processing_options_country
            data["data_processing_options_state"] = visitor.data_processing_options_state
    return _encode(data)
