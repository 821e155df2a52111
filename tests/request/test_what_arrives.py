"""Every field of Meta's pages, however it is given: the bytes that arrive at Meta."""

import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from capi_middleware import (
    CAPI,
    CAPIMiddleware,
    EventRoute,
    Pixel,
    UserData,
    Visitor,
    current_visitor,
    track,
)
from capi_middleware.meta.custom_data import DOCUMENTED
from capi_middleware.meta.event_object import FIELDS
from capi_middleware.meta.match_keys import MATCH_KEYS
from capi_middleware.testing import FakeMeta
from tests.support.configs import make_config

PAGE = "<!doctype html><html><head></head><body></body></html>"
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
FBC = "fb.1.1790000000000.IwAR0abcdefghijklmnop"
PIXEL = "1234567890"


def hashed(text: str) -> list[str]:
    return [sha256(text.encode()).hexdigest()]


def part(text: str) -> str:
    return hashed(text)[0]


#: A customer parameter, what is given, and what arrives.
PEOPLE: dict[str, tuple[Any, Any]] = {
    "em": (" Jane@Example.com", hashed("jane@example.com")),
    "ph": ("+49 (0)151 234-56789", hashed("4915123456789")),
    "fn": ("Valéry", hashed("valéry")),
    "ln": ("O'Neill", hashed("oneill")),
    "ge": ("Female", hashed("f")),
    "db": ("1990-02-01", hashed("19900201")),
    "ct": ("San Francisco", hashed("sanfrancisco")),
    "st": ("California", hashed("ca")),
    "zp": ("94103-1234", hashed("94103")),
    "country": ("US", hashed("us")),
    "external_id": ("user-7", hashed("user-7")),
    "f5first": ("Valér", part("valér")),
    "f5last": ("ONeil", part("oneil")),
    "fi": ("V", part("v")),
    "dobd": (1, part("01")),
    "dobm": ("02", part("02")),
    "doby": (1990, part("1990")),
    "client_ip_address": ("8.8.8.8", "8.8.8.8"),
    "client_user_agent": (AGENT, AGENT),
    "fbc": (FBC, FBC),
    "fbp": ("fb.1.1790000000000.123456789", "fb.1.1790000000000.123456789"),
    "subscription_id": ("sub-1", "sub-1"),
    "fb_login_id": ("12345678", 12345678),
    "lead_id": ("1234567890123456", 1234567890123456),
    "anon_id": ("an-1", "an-1"),
    "madid": ("38400000-8cf0-11bd-b23e-10b96e40000d", "38400000-8cf0-11bd-b23e-10b96e40000d"),
    "page_id": ("111", "111"),
    "page_scoped_user_id": ("222", "222"),
    "ctwa_clid": ("Aff-n8ZTODiE79d22KtAwQKj9e", "Aff-n8ZTODiE79d22KtAwQKj9e"),
    "ig_account_id": ("333", "333"),
    "ig_sid": ("444", "444"),
    "whatsapp_business_account_id": ("555", "555"),
}
#: The same of custom_data.
THINGS: dict[str, tuple[Any, Any]] = {
    "value": ("19.90", 19.9),
    "currency": ("eur", "EUR"),
    "content_ids": (["cup", 7], ["cup", "7"]),
    "contents": (
        [{"id": 7, "quantity": 2, "item_price": 9.95, "title": "A cup",
          "delivery_category": "home_delivery"}],
        [{"id": "7", "quantity": 2, "item_price": 9.95, "title": "A cup",
          "delivery_category": "home_delivery"}],
    ),
    "content_type": ("product", "product"),
    "content_name": ("A cup", "A cup"),
    "content_category": ("Cups", "Cups"),
    "num_items": (2, 2),
    "order_id": (1001, "1001"),
    "item_number": ("1", "1"),
    "predicted_ltv": (30, 30),
    "net_revenue": (3.5, 3.5),
    "search_string": ("cups", "cups"),
    "status": (True, True),
    "delivery_category": ("home_delivery", "home_delivery"),
    "lead_event_source": ("My CRM", "My CRM"),
    "event_source": ("crm", "crm"),
    "a_property_of_our_own": ("blue", "blue"),
}  # fmt: skip
#: The same of the event itself.
EVENT: dict[str, tuple[Any, Any]] = {
    "action_source": ("business_messaging", "business_messaging"),
    "messaging_channel": ("whatsapp", "whatsapp"),
    "event_source_url": ("https://shop.example/p?token=abc", "https://shop.example/p"),
    "referrer_url": ("https://news.example/a", "https://news.example/a"),
    "opt_out": (True, True),
    "customer_segmentation": ("existing_customer_to_business", "existing_customer_to_business"),
    "original_event_data": (
        {"event_name": "Purchase", "event_time": 1_790_000_000, "order_id": 7, "event_id": "e"},
        {"event_name": "Purchase", "event_time": 1_790_000_000, "order_id": "7", "event_id": "e"},
    ),
    "attribution_data": ({"ad_id": "12", "attribution_share": 0.5},
                         {"ad_id": "12", "attribution_share": 0.5}),
}  # fmt: skip
given_event, given_things, given_people = (
    {name: given for name, (given, _) in table.items()} for table in (EVENT, THINGS, PEOPLE)
)


@pytest.fixture(scope="module")
def meta() -> Iterator[FakeMeta]:
    fake = FakeMeta()
    with fake.serve():
        yield fake


@pytest.fixture
def capi(request: pytest.FixtureRequest, meta: FakeMeta) -> Iterator[CAPI]:
    pixels = [Pixel(PIXEL, access_token="a-token")]
    settings = getattr(request, "param", {})
    made = CAPI(make_config(pixels=pixels, graph_url=meta.url, delivery=True, page_view=False,
                            default_region="DE", debug=True, **settings))  # fmt: skip
    yield made
    made.close(1)
    meta.received.server.clear()


def arrived(capi: CAPI, meta: FakeMeta) -> dict[str, Any]:
    """The event of the only request."""
    assert capi.flush(60)
    (one,) = meta.received.server
    found: dict[str, Any] = json.loads(json.dumps(one.event))
    return found


def asked(capi: CAPI, view: Callable[[Request], Any]) -> None:
    app = Starlette(routes=[Route("/thanks", view)])
    TestClient(CAPIMiddleware(app, capi), headers={"user-agent": "Mozilla/5.0"}).get("/thanks")


def by_job(capi: CAPI) -> None:
    capi.track("Lead", user_data=UserData(**given_people), **given_event, **given_things)


def by_view(capi: CAPI) -> None:
    def view(request: Request) -> HTMLResponse:
        track("Lead", user_data=UserData(**given_people), **given_event, **given_things)
        return HTMLResponse(PAGE)

    asked(capi, view)


def by_request(capi: CAPI) -> None:
    """A route, or the configuration, gives what there is to know."""
    asked(capi, lambda request: HTMLResponse(PAGE))


ROUTE = EventRoute(
    "GET /thanks", "Lead", user_data=given_people, custom_data=given_things, **given_event
)
BARE = EventRoute("GET /thanks", "Lead", custom_data=given_things, **given_event)


@pytest.mark.parametrize(
    ("capi", "how"),
    [
        ({}, by_job), ({}, by_view), ({"routes": [ROUTE]}, by_request),
        ({"routes": [BARE], "user_data": given_people}, by_request),
        ({"routes": [BARE], "user_data": lambda request: UserData(**given_people)}, by_request),
    ],
    indirect=["capi"], ids=["job", "view", "route", "config", "callable"],
)  # fmt: skip
def test_all_that_meta_takes_arrives_however_it_is_given(
    capi: CAPI, how: Callable[[CAPI], None], meta: FakeMeta
) -> None:
    how(capi)
    event = arrived(capi, meta)
    assert event.pop("event_id")
    assert abs(event.pop("event_time") - capi.issuer.clock()) < 3600
    assert event.pop("event_name") == "Lead"
    assert event.pop("user_data") == {name: sent for name, (_, sent) in PEOPLE.items()}
    assert event.pop("custom_data") == {name: sent for name, (_, sent) in THINGS.items()}
    assert event == {name: sent for name, (_, sent) in EVENT.items()}


def test_the_tables_have_every_field_that_is_known() -> None:
    assert PEOPLE.keys() == MATCH_KEYS.keys()
    assert THINGS.keys() >= DOCUMENTED
    assert EVENT.keys() == FIELDS.keys() - {"app_data"}


@pytest.mark.parametrize(
    ("options", "arrives"),
    [
        ("limited", (["LDU"], 0, 0)),
        (("limited", "US", "CA"), (["LDU"], 1, 1000)),
        ("granted", (None, None, None)),
    ],
)
def test_a_visitor_whose_data_is_limited_says_so_in_a_job_as_well(
    capi: CAPI, meta: FakeMeta, options: Any, arrives: tuple[Any, ...]
) -> None:
    answers = CAPI(make_config(consent=lambda request: options))
    kept: list[str] = []

    def view(request: Request) -> HTMLResponse:
        kept.append(current_visitor().dumps())
        return HTMLResponse(PAGE)

    asked(answers, view)
    capi.track("Lead", visitor=Visitor.loads(kept[0]), user_data=UserData(em="jane@example.com"))
    event = arrived(capi, meta)
    names = ("", "_country", "_state")
    assert tuple(event.get(f"data_processing_options{one}") for one in names) == arrives
    assert event["action_source"] == "website"
