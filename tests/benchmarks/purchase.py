"""A full Purchase (11 match keys, 3 contents) from the app's values to the bytes of a request."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

from facebook_business.adobjects.serverside.action_source import ActionSource
from facebook_business.adobjects.serverside.content import Content
from facebook_business.adobjects.serverside.custom_data import CustomData
from facebook_business.adobjects.serverside.event import Event as SdkEvent
from facebook_business.adobjects.serverside.event_request import EventRequest
from facebook_business.adobjects.serverside.gender import Gender
from facebook_business.adobjects.serverside.user_data import UserData as SdkUserData

from capi_middleware import UserData
from capi_middleware.events import Event
from capi_middleware.meta import payload
from capi_middleware.meta.custom_data import clean
from capi_middleware.meta.graph import body_of
from capi_middleware.meta.visitor import Visitor
from tests.benchmarks.measure import Row, Trial

KEYS: dict[str, Any] = {
    "em": "Jane.Doe@Example.com", "ph": "+1 650-555-1212", "fn": "Jane", "ln": "Doe", "ge": "f",
    "db": "19900216", "ct": "New York", "st": "NY", "zp": "10001", "country": "US",
    "external_id": "customer-42",
}  # fmt: skip
SEEN: dict[str, Any] = {
    "client_ip_address": "203.0.113.7",
    "client_user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/156.0.0.0",
    "fbc": "fb.1.1700000000000.IwAR2F4-dbP0l7Mn1IawQQGCINEz7PYXQvwjNwB_qa2ofrHyiLjcbCRxTDMgk",
    "fbp": "fb.1.1700000000000.1234567890",
}
URL = "https://shop.example.com/orders/1001/thanks"
EVENT_ID, EVENT_TIME = "t-P7AsIIi3XmBdaKXarT.a37jCwKPJx1T24cLLvvxPVeAKVc2GUA3VoD3fqrrUyo", 1.7e9
ITEMS = [("kettle", 1, 39.0), ("teapot", 2, 24.5), ("cup", 6, 7.9)]
DATA: dict[str, Any] = {
    "value": 135.4, "currency": "EUR", "order_id": "1001", "num_items": 9,
    "content_type": "product",
    "contents": [{"id": sku, "quantity": n, "item_price": price} for sku, n, price in ITEMS],
}  # fmt: skip
_BATCH = 1000
VISITOR = Visitor(event_source_url=URL, **SEEN)


def ours() -> bytes:
    """With this package, as the middleware and the courier do it: one event."""
    return body_of([_one()])


def _one() -> bytes:
    hashed, _ = UserData(**KEYS).hashed("US")
    data, _ = clean("Purchase", DATA)
    event = Event(
        event_id=EVENT_ID,
        event_name="Purchase",
        event_time=EVENT_TIME,
        pixel_ids=("1",),
        custom_data=data,
        user_data=hashed,
    )
    for key, text in payload.known_of(VISITOR).items():
        event.user_data.setdefault(key, text)
    return payload.encode(event, VISITOR)


def sdk_event() -> SdkEvent:
    """The event as facebook-business has it."""
    user_data = SdkUserData(
        emails=[KEYS["em"]], phones=[KEYS["ph"]], first_names=[KEYS["fn"]],
        last_names=[KEYS["ln"]], genders=[Gender.FEMALE], dates_of_birth=[KEYS["db"]],
        cities=[KEYS["ct"]], states=[KEYS["st"]], zip_codes=[KEYS["zp"]],
        country_codes=[KEYS["country"]], external_ids=[KEYS["external_id"]], **SEEN,
    )  # fmt: skip
    contents = [Content(product_id=sku, quantity=n, item_price=price) for sku, n, price in ITEMS]
    custom_data = CustomData(
        value=135.4, currency="EUR", order_id="1001", num_items=9, content_type="product",
        contents=contents,
    )  # fmt: skip
    return SdkEvent(
        event_name="Purchase", event_time=int(EVENT_TIME), event_id=EVENT_ID,
        event_source_url=URL, action_source=ActionSource.WEBSITE, user_data=user_data,
        custom_data=custom_data,
    )  # fmt: skip


def theirs(amount: int = _BATCH) -> bytes:
    """With facebook-business, a batch to the JSON that its parameters hold."""
    events = [sdk_event() for _ in range(amount)]
    return json.dumps(EventRequest(pixel_id="1", events=events).get_params()).encode()


def theirs_on_the_wire(amount: int = _BATCH) -> bytes:
    """With facebook-business, a batch to the form that it really posts."""
    events = [sdk_event() for _ in range(amount)]
    params = EventRequest(pixel_id="1", events=events).get_params()
    return urlencode({**params, "data": json.dumps(params["data"])}).encode()


def _each(make: Callable[[int], bytes]) -> Callable[[float], float]:
    """Seconds for one event of a batch."""

    def side(share: float) -> float:
        amount = max(1, int(_BATCH * share))
        start = time.thread_time()
        make(amount)
        return (time.thread_time() - start) / amount

    return side


def _ours_batch(amount: int) -> bytes:
    return body_of([_one() for _ in range(amount)])


def by_hand() -> bytes:
    """The least that could do it: values that are known to be normal, hashed and encoded."""
    hashed: dict[str, Any] = {
        key: [hashlib.sha256(value.lower().encode()).hexdigest()] for key, value in KEYS.items()
    }
    event = {
        "event_name": "Purchase", "event_time": int(EVENT_TIME), "event_id": EVENT_ID,
        "action_source": "website", "event_source_url": URL, "user_data": hashed | SEEN,
        "custom_data": DATA,
    }  # fmt: skip
    return b'{"data":[' + payload.dumps(event) + b"]}"


def stored() -> bytes:
    """The event as a store keeps it."""
    return by_hand()[len(b'{"data":[') : -len(b"]}")]


def rows() -> Iterator[Row | Trial]:
    """What the table says about building events."""
    what = "Purchase (11 match keys, 3 contents) to request bytes"
    batch = f"facebook-business, batch of {_BATCH}"
    ours_each = _each(_ours_batch)
    yield Trial(what, f"{batch}, its parameters as JSON", 1 / 5, ours_each, _each(theirs))
    yield Trial(what, f"{batch}, as it really posts", 1 / 10, ours_each, _each(theirs_on_the_wire))
    yield Trial(
        "bytes of a Purchase in a request", f"{batch}, as it really posts", 0.65,
        lambda _: len(_ours_batch(100)) / 100, lambda _: len(theirs_on_the_wire(100)) / 100,
        unit="B", rounds=1,
    )  # fmt: skip
    yield Row(what, "hashed and encoded by hand, nothing checked", 1.4, ours, by_hand)
