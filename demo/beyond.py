"""Events that no page has: leads in a CRM, sales on the phone, in a shop, by message.

Each has an id of its own in the system that it comes from (its dedupe_key): a job may be started
again and tells Meta nothing twice. `capi-middleware import` reads the same from a file.
"""

from datetime import datetime
from decimal import Decimal
from typing import Literal

from capi_middleware import CAPI, Event, UserData


def lead_reached(
    capi: CAPI, stage: str, *, lead_id: int, at: datetime, crm: str, email: str | None = None
) -> Event:
    """A lead came to a stage of the CRM, such as "QualifiedLead" (Meta's Conversion Leads).

    `lead_id` is the number of 15 to 17 digits that a lead ad gave. `crm` is the name of the system.
    """
    return capi.track(
        stage, action_source="system_generated", event_time=at, dedupe_key=f"{lead_id} {stage}",
        user_data=UserData(lead_id=lead_id, em=email), event_source="crm", lead_event_source=crm,
    )  # fmt: skip


def sold_by_phone(
    capi: CAPI, call: str, *, at: datetime, phone: str, value: Decimal, currency: str
) -> Event:
    """A caller bought something; `call` is the call's id, `at` when it was."""
    return capi.track(
        "Purchase", action_source="phone_call", event_time=at, dedupe_key=call,
        user_data=UserData(ph=phone), value=value, currency=currency,
    )  # fmt: skip


def sold_in_store(
    capi: CAPI, receipt: str, *, at: datetime, card_email: str, value: Decimal, currency: str
) -> Event:
    """A customer with a loyalty card bought something in a shop, up to 62 days ago."""
    return capi.track(
        "Purchase", action_source="physical_store", event_time=at, dedupe_key=receipt,
        user_data=UserData(em=card_email), value=value, currency=currency, order_id=receipt,
        customer_segmentation="customer_in_loyalty_program",
    )  # fmt: skip


def sold_by_message(
    capi: CAPI, order: str, *, at: datetime, account: str, click: str, value: Decimal,
    currency: str, channel: Literal["whatsapp", "messenger", "instagram"] = "whatsapp",
) -> Event:  # fmt: skip
    """A chat that an ad began ended with an order.

    `account` is the WhatsApp business account, `click` the ctwa_clid that its webhook told.
    """
    return capi.track(
        "Purchase", action_source="business_messaging", messaging_channel=channel, event_time=at,
        dedupe_key=order, value=value, currency=currency,
        user_data=UserData(whatsapp_business_account_id=account, ctwa_clid=click),
    )  # fmt: skip


def renewed(
    capi: CAPI, invoice: str, *, at: datetime, customer: str, value: Decimal, currency: str
) -> Event:
    """A subscription was renewed by itself: that is what "system_generated" means."""
    return capi.track(
        "Purchase", action_source="system_generated", event_time=at, dedupe_key=invoice,
        user_data=UserData(external_id=customer), value=value, currency=currency,
    )  # fmt: skip
