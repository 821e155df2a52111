"""Payload: one event as the Graph API wants it."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from capi_middleware.events import Event
from capi_middleware.meta.event_object import FIELDS
from capi_middleware.meta.visitor import Visitor
from capi_middleware.private import Private

#: JSON bytes of plain data.
dumps: Callable[[Any], bytes] = msgspec.json.Encoder().encode


class EventObject(Private, Struct, omit_defaults=True):
    """The event object of Meta's page "Server Event Parameters", as far as we fill it."""

    event_name: str
    event_time: int
    event_id: str
    action_source: str
    user_data: dict[str, Any]
    custom_data: dict[str, Any] | None = None
    event_source_url: str | None = None
    referrer_url: str | None = None
    data_processing_options: list[str] | None = None
    data_processing_options_country: int | None = None
    data_processing_options_state: int | None = None
    opt_out: bool | None = None
    customer_segmentation: str | None = None
    original_event_data: dict[str, Any] | None = None
    attribution_data: dict[str, Any] | None = None
    messaging_channel: str | None = None


_decode = msgspec.json.Decoder(EventObject).decode
_DETAILS = tuple(name for name in EventObject.__struct_fields__ if name in FIELDS)


def known_of(visitor: Visitor) -> dict[str, str]:
    """What is known of the visitor as user_data; what the app gave goes before it."""
    known = {}
    if visitor.client_ip_address:
        known["client_ip_address"] = visitor.client_ip_address
    if visitor.client_user_agent:
        known["client_user_agent"] = visitor.client_user_agent
    if visitor.fbc:
        known["fbc"] = visitor.fbc
    if visitor.fbp:
        known["fbp"] = visitor.fbp
    return known


def encode(event: Event, visitor: Visitor | None, action_source: str = "website") -> bytes:
    """The event object as JSON bytes. `event.user_data` must be complete.

    event_time in whole seconds, GMT. The page of the visitor belongs to a "website" event alone;
    what the app gave (`event.details`) goes before all.
    """
    user_data = event.user_data
    made = EventObject(
        event.event_name,
        int(event.event_time),
        event.event_id,
        action_source,
        user_data,
        event.custom_data or None,
    )
    if visitor is not None:
        if action_source == "website":
            made.event_source_url = visitor.event_source_url
            made.referrer_url = visitor.referrer_url
        if visitor.consent == "limited":
            made.data_processing_options = ["LDU"]
            made.data_processing_options_country = visitor.data_processing_options_country
            made.data_processing_options_state = visitor.data_processing_options_state
    for name in event.details:
        setattr(made, name, event.details[name])
    return dumps(made)


def read_event(body: bytes, pixel_id: str) -> Event:
    """The Event that an event object is of, at one pixel."""
    made = _decode(body)
    return Event(
        made.event_id,
        made.event_name,
        float(made.event_time),
        (pixel_id,),
        made.custom_data or {},
        made.user_data,
        details={name: value for name in _DETAILS if (value := getattr(made, name)) is not None},
    )


def about(user_data: Mapping[str, Any]) -> Callable[[bytes], bool]:
    """Whether an event object names somebody of whom one of these is, as UserData.hashed() has it.

    The values of each key may be several.
    """
    wanted = {key: {*_several(value)} for key, value in user_data.items()}
    # Most are about others: they are not decoded.
    marks = [str(one).encode() for values in wanted.values() for one in values]

    def is_meant(body: bytes) -> bool:
        if not any(one in body for one in marks):
            return False
        try:
            given = _decode(body).user_data
        except msgspec.DecodeError:
            return True  # it names them, wherever that is
        return any(values & {*_several(given.get(key))} for key, values in wanted.items())

    return is_meant


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def with_changes(
    body: bytes, event_time: int, user_data: dict[str, Any], custom_data: dict[str, Any]
) -> bytes:
    """The event object with another time and other data; all else stays."""
    made = _decode(body)
    made.event_time, made.user_data, made.custom_data = event_time, user_data, custom_data or None
    return dumps(made)


def with_time(body: bytes, event_time: int) -> bytes:
    """The event object with a time that is not later."""
    made = _decode(body)
    made.event_time = min(made.event_time, event_time)
    return dumps(made)
