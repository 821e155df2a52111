"""Stripe and Paddle: what their webhooks say was paid becomes one event, however often they say it.

At the checkout the visitor's signed text goes along: `metadata=stripe_metadata(current_visitor())`
for a Checkout Session (and its `subscription_data`) or a PaymentIntent, or `custom_data=` of a
Paddle transaction. Where the shop has rows of its own for orders, keep the text there instead. Then
one endpoint each calls stripe() or paddle() with the body as it came:

    status = stripe(capi, await request.body(), request.headers["stripe-signature"], secret)

Each notification is an event of its own id, so that a replayed or late one changes nothing: a
payment is known by the shop's order (the page of thanks has the same dedupe_key), a renewal by its
invoice. What opens a subscription is a Subscribe, what renews it a Purchase.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from types import SimpleNamespace

from capi_middleware import CAPI, UserData, Visitor
from capi_middleware.errors import BadVisitor
from capi_middleware.meta.event_object import ActionSource

#: Stripe takes 500 characters for a value of its metadata; a visitor's text may be longer.
_LONGEST, _KEY = 500, "capi_visitor"
#: Currencies whose amounts have no decimals, or three, at Stripe; all others have two.
_WHOLE = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF",
     "XOF", "XPF"}
)  # fmt: skip
_THREE = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
#: What an endpoint answers: done (nothing to do, too), or not signed by who says so.
DONE, REFUSED = 200, 400


def stripe_metadata(visitor: Visitor) -> dict[str, str]:
    """The visitor's text in as many values as Stripe needs for it."""
    text = visitor.dumps()
    parts = range(0, len(text), _LONGEST)
    return {f"{_KEY}_{n}": text[at : at + _LONGEST] for n, at in enumerate(parts)}


def stripe(capi: CAPI, body: bytes, signature: str, secret: str) -> int:
    """Track what a webhook of Stripe says; the HTTP status to answer with."""
    from stripe import SignatureVerificationError, WebhookSignature

    try:
        WebhookSignature.verify_header(body.decode(), signature, secret)
        event = json.loads(body)
    except (ValueError, SignatureVerificationError):
        return REFUSED
    found, kind = event["data"]["object"], event["type"]
    if kind == "invoice.paid":
        first = found["billing_reason"] == "subscription_create"
        source: ActionSource = "other" if first else "system_generated"
        subscription = (found.get("parent") or {}).get("subscription_details") or {}
        metadata = subscription.get("metadata") or found.get("metadata") or {}
        _track(
            capi, "Subscribe" if first else "Purchase", found["id"], metadata,
            _amount(found["amount_paid"], found["currency"]), found["currency"],
            event["created"], found.get("customer_email"), source,
        )  # fmt: skip
    elif (
        kind in ("checkout.session.completed", "checkout.session.async_payment_succeeded")
        and found["mode"] == "payment"  # a subscription's money comes with its invoice
        and found["payment_status"] == "paid"
    ):
        _track(
            capi, "Purchase", found.get("client_reference_id") or found["id"],
            found.get("metadata") or {}, _amount(found["amount_total"], found["currency"]),
            found["currency"], event["created"],
            (found.get("customer_details") or {}).get("email"),
        )  # fmt: skip
    return DONE


def paddle(capi: CAPI, body: bytes, signature: str, secret: str) -> int:
    """Track what a notification of Paddle says; the HTTP status to answer with.

    The checkout's `custom_data` is {"order": …, "capi_visitor_0": current_visitor().dumps()}.
    """
    from datetime import datetime

    from paddle_billing.Notifications import Secret, Verifier

    request = SimpleNamespace(headers={"Paddle-Signature": signature}, body=body)
    try:
        if not Verifier().verify(request, Secret(secret)):
            return REFUSED
        event = json.loads(body)
    except ValueError:
        return REFUSED
    if event["event_type"] == "transaction.completed":
        found = event["data"]
        custom = found.get("custom_data") or {}
        renews = found["origin"] == "subscription_recurring"
        name = "Subscribe" if found.get("subscription_id") and not renews else "Purchase"
        order = None if renews else custom.get("order")
        currency = found["currency_code"]
        _track(
            capi, name, order or found["id"], custom,
            _amount(found["details"]["totals"]["grand_total"], currency), currency,
            datetime.fromisoformat(event["occurred_at"]).timestamp(), None,
            "system_generated" if renews else "other",
        )  # fmt: skip
    return DONE


def _track(
    capi: CAPI, event_name: str, key: str, metadata: Mapping[str, str], value: Decimal,
    currency: str, event_time: float, email: str | None, action_source: ActionSource = "other",
) -> None:  # fmt: skip
    """`action_source` is for a payment whose visitor nobody knows, and for every renewal."""
    if not value:
        return  # a free trial, or paid with credit
    parts: list[str] = []
    while part := metadata.get(f"{_KEY}_{len(parts)}"):
        parts.append(str(part))

    def send(visitor: Visitor | None) -> None:
        # Nobody was on the site when it was renewed by itself.
        known = visitor is not None and action_source != "system_generated"
        capi.track(
            event_name, visitor=visitor, user_data=UserData(em=email), dedupe_key=key,
            value=value, currency=currency.upper(), event_time=event_time,
            action_source=None if known else action_source,
        )  # fmt: skip

    try:
        try:
            send(Visitor.loads("".join(parts)) if parts else None)
        except BadVisitor:  # of somebody else's making: the payment is true all the same
            send(None)
    except ValueError:
        pass  # sent again by hand after a week: Meta takes it no more


def _amount(minor: int | str, currency: str) -> Decimal:
    """The amount of so many of a currency's smallest units."""
    unit = currency.upper()
    decimals = 0 if unit in _WHOLE else 3 if unit in _THREE else 2
    return Decimal(minor).scaleb(-decimals)
