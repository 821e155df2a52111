"""The recipes for Stripe and Paddle, given payloads of our own making that are signed as theirs."""

import hmac
import json
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from capi_middleware import CAPI, Visitor
from demo import payments
from tests.support.configs import PIXEL_ID, make_config

KEY = "whsec_for_tests"


@pytest.fixture
def capi() -> CAPI:
    return CAPI(make_config())


def visitor(capi: CAPI, **more: Any) -> Visitor:
    who = Visitor(fbp="fb.1.1700000000000.123456789", client_user_agent="Mozilla/5.0", **more)
    return capi.issuer.signed(who)


def sent(capi: CAPI) -> list[dict[str, Any]]:
    lease = capi.store.lease(PIXEL_ID, limit=100, seconds=60)
    return [json.loads(one.payload) for one in lease.events]


def stripe_says(capi: CAPI, kind: str, found: dict[str, Any], ago: float = 0.0) -> int:
    body = json.dumps(
        {"id": "evt_1", "type": kind, "created": int(time.time() - ago), "data": {"object": found}}
    ).encode()
    at = int(time.time())
    mark = hmac.new(KEY.encode(), f"{at}.".encode() + body, sha256).hexdigest()
    return payments.stripe(capi, body, f"t={at},v1={mark}", KEY)


def paddle_says(capi: CAPI, kind: str, found: dict[str, Any]) -> int:
    body = json.dumps(
        {"event_type": kind, "occurred_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
         "data": found}
    ).encode()  # fmt: skip
    at = int(time.time())
    mark = hmac.new(KEY.encode(), f"{at}:".encode() + body, sha256).hexdigest()
    return payments.paddle(capi, body, f"ts={at};h1={mark}", KEY)


def session(metadata: dict[str, str], **more: Any) -> dict[str, Any]:
    return {
        "id": "cs_1", "mode": "payment", "payment_status": "paid", "client_reference_id": "1001",
        "amount_total": 1250, "currency": "eur", "metadata": metadata,
        "customer_details": {"email": "jane@example.com"}, **more,
    }  # fmt: skip


def invoice(number: str, reason: str, metadata: dict[str, str]) -> dict[str, Any]:
    return {
        "id": number, "billing_reason": reason, "amount_paid": 900, "currency": "jpy",
        "parent": {"subscription_details": {"metadata": metadata}},
    }  # fmt: skip


def transaction(number: str, origin: str, custom: dict[str, str]) -> dict[str, Any]:
    return {
        "id": number, "origin": origin, "subscription_id": "sub_1", "currency_code": "USD",
        "custom_data": custom, "details": {"totals": {"grand_total": "2990"}},
    }  # fmt: skip


def test_a_payment_is_one_purchase_of_its_visitor_however_often_stripe_says_it(capi: CAPI) -> None:
    who = visitor(capi, event_source_url="https://shop.example/" + "a" * 1200)
    metadata = payments.stripe_metadata(who)
    assert len(metadata) > 2
    assert max(map(len, metadata.values())) <= 500
    for kind in ("checkout.session.completed", "checkout.session.async_payment_succeeded") * 2:
        assert stripe_says(capi, kind, session(metadata)) == 200
    (event,) = sent(capi)
    assert event["event_id"] == capi.issuer.mint("Purchase", "1001")
    assert event["custom_data"] == {"value": 12.5, "currency": "EUR"}
    assert event["user_data"]["fbp"] == who.fbp


def test_each_invoice_is_one_event_in_any_order(capi: CAPI) -> None:
    metadata = payments.stripe_metadata(visitor(capi))
    for number, reason in [
        ("in_2", "subscription_cycle"), ("in_1", "subscription_create"),
        ("in_2", "subscription_cycle"), ("in_3", "subscription_cycle"),
    ]:  # fmt: skip
        assert stripe_says(capi, "invoice.paid", invoice(number, reason, metadata)) == 200
        late = session(metadata, mode="subscription")
        assert stripe_says(capi, "checkout.session.completed", late) == 200
    events = sent(capi)
    names = sorted(event["event_name"] for event in events)
    assert names == ["Purchase", "Purchase", "Subscribe"]
    assert {event["custom_data"]["value"] for event in events} == {900}
    assert {event["user_data"].get("fbp") for event in events} == {visitor(capi).fbp}


def test_each_transaction_of_paddle_is_one_event_in_any_order(capi: CAPI) -> None:
    custom = {"order": "1001", "capi_visitor_0": visitor(capi).dumps()}
    for number, origin in [
        ("txn_2", "subscription_recurring"), ("txn_1", "web"), ("txn_2", "subscription_recurring"),
        ("txn_3", "subscription_recurring"), ("txn_1", "web"),
    ]:  # fmt: skip
        assert (
            paddle_says(capi, "transaction.completed", transaction(number, origin, custom)) == 200
        )
    events = sent(capi)
    assert sorted(event["event_name"] for event in events) == ["Purchase", "Purchase", "Subscribe"]
    assert {event["custom_data"]["value"] for event in events} == {29.9}
    assert {event["user_data"].get("fbp") for event in events} == {visitor(capi).fbp}


@pytest.mark.parametrize("hook", [payments.stripe, payments.paddle])
@pytest.mark.parametrize("signature", ["", "t=1,v1=00", "ts=1;h1=00", "x", "ts=x;h1=1", "é"])
def test_a_webhook_that_they_did_not_sign_is_refused(
    capi: CAPI, hook: Callable[..., int], signature: str
) -> None:
    body = json.dumps({"type": "checkout.session.completed", "data": {"object": session({})}})
    assert hook(capi, body.encode(), signature, KEY) == 400
    assert sent(capi) == []


def test_what_is_unpaid_free_too_old_or_of_another_kind_is_no_event(capi: CAPI) -> None:
    for kind, found, ago in [
        ("checkout.session.completed", session({}, payment_status="unpaid"), 0),
        ("checkout.session.completed", session({}, amount_total=0), 0),
        ("checkout.session.completed", session({}), 8 * 86_400),
        ("charge.refunded", {"id": "ch_1"}, 0),
    ]:
        assert stripe_says(capi, kind, found, ago) == 200
    assert sent(capi) == []


def test_a_payment_with_a_visitor_of_somebody_elses_making_counts_without_one(capi: CAPI) -> None:
    other = CAPI(make_config(secret_key="another-secret-for-tests-of-more-than-32-characters"))
    metadata = payments.stripe_metadata(visitor(other))
    for number, given in enumerate([metadata, {"capi_visitor_0": "v1.x.y"}]):
        found = session(given, client_reference_id=str(number))
        assert stripe_says(capi, "checkout.session.completed", found) == 200
    assert [event["user_data"].get("fbp") for event in sent(capi)] == [None, None]
