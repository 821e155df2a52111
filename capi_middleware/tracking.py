"""Tracking: what views call in a request, without a request object."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from capi_middleware.config.routes import check_event_name
from capi_middleware.errors import CapiError
from capi_middleware.events import Event, EventName
from capi_middleware.meta.custom_data import custom_data_of
from capi_middleware.meta.user_data import UserData
from capi_middleware.meta.visitor import Visitor
from capi_middleware.request.exchange import Exchange, current


def track(
    event_name: EventName,
    *,
    user_data: UserData | None = None,
    dedupe_key: object = None,
    value: float | Decimal | str | None = None,
    currency: str | None = None,
    contents: Sequence[Any] | None = None,
    **custom_data: Any,
) -> Event:
    """Add an event to the present request, or fill in the one that a route made of it.

    Args:
        event_name: a standard event of Meta or a custom name.
        user_data: customer information; hashed before anything is kept.
        dedupe_key: the same key and name give the same event_id everywhere, e.g. an order number.
        value, currency: the amount and its ISO 4217 code; Purchase needs both.
        contents: the items, each a mapping with at least "id".
        custom_data: anything else for Meta's custom_data.

    Returns the Event with its event_id. Raises CapiError outside of a request: use
    `CAPI(config).track` there.
    """
    exchange = _exchange("track()")
    check_event_name(event_name, "track")
    return exchange.track(
        event_name, custom_data_of(value, currency, contents, custom_data), user_data, dedupe_key
    )


def current_visitor() -> Visitor:
    """Who the present request comes from: keep `.dumps()` with the order, use it in the webhook.

    An asynchronous `consent` callable cannot be asked here: its visitor counts as denied, and the
    webhook's event is suppressed and counted. Raises CapiError outside of a request.
    """
    exchange = _exchange("current_visitor()")
    return exchange.issuer.signed(exchange.visit.visitor)


def _exchange(what: str) -> Exchange:
    passage = current.get()
    if passage is None:
        raise CapiError(
            f"{what}: found no request that passes CAPIMiddleware, expected one; outside of a "
            "request use CAPI(config).track(…, visitor=…)"
        )
    return passage.opened()
