"""The whole event object: every field of Meta's page, how it is given, what arrives."""

import json
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
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
    Config,
    EventRoute,
    Pixel,
    UserData,
    Visitor,
    track,
)
from capi_middleware.errors import ConfigError
from capi_middleware.meta.event_object import (
    ACTION_SOURCES,
    FIELDS,
    identifies,
    meant_by,
    standard_name,
)
from capi_middleware.testing.graph_rules import check_event
from tests.support.configs import PIXEL_ID, make_config

AGENT = {"user-agent": "Mozilla/5.0"}
PAGE = "<!doctype html><html><head></head><body></body></html>"
WHO: dict[str, Any] = {"user_data": UserData(em="jane@example.com")}
DAY = 86_400

#: Field, what is given, and what Meta gets; where it happened where that matters.
TABLE: list[tuple[str, Any, Any, str]] = [
    *(("action_source", one, one, one) for one in ACTION_SOURCES if one != "website"),
    ("event_source_url", "https://shop.example/p?utm_source=x&token=abc",
     "https://shop.example/p?utm_source=x", "chat"),
    ("referrer_url", "https://news.example/a", "https://news.example/a", "other"),
    ("opt_out", True, True, "other"),
    ("opt_out", False, False, "other"),
    ("customer_segmentation", "new_customer_to_business", "new_customer_to_business", "email"),
    ("customer_segmentation", "customer_in_loyalty_program", "customer_in_loyalty_program",
     "email"),
    ("original_event_data", {"event_name": "Purchase", "event_time": 1_700_000_000.0,
                             "order_id": 7, "event_id": "e"},
     {"event_name": "Purchase", "event_time": 1_700_000_000, "order_id": "7", "event_id": "e"},
     "other"),
    ("attribution_data", {"ad_id": "12", "attribution_share": 0.5,
                          "attribution_model": "last_click"},
     {"ad_id": "12", "attribution_share": 0.5, "attribution_model": "last_click"}, "other"),
    ("messaging_channel", "whatsapp", "whatsapp", "business_messaging"),
]  # fmt: skip


def sent(capi: CAPI) -> list[dict[str, Any]]:
    """What waits for Meta, each event checked by Meta's rules."""
    lease = capi.store.lease(PIXEL_ID, limit=100, seconds=60)
    events = [json.loads(event.payload) for event in lease.events]
    for event in events:
        check_event(event, capi.issuer.clock())
    return events


def by_job(given: dict[str, Any]) -> dict[str, Any]:
    capi = CAPI(make_config(action_source=None))
    capi.track("Lead", **WHO, **given)
    (event,) = sent(capi)
    return event


def asked(capi: CAPI, view: Callable[[Request], Any]) -> str:
    app = Starlette(routes=[Route("/{path:path}", view)])
    return TestClient(CAPIMiddleware(app, capi), headers=AGENT).get("/thanks").text


def by_view(given: dict[str, Any]) -> dict[str, Any]:
    capi = CAPI(make_config(page_view=False, debug=True, action_source=None))

    def view(request: Request) -> HTMLResponse:
        track("Lead", **WHO, **given)
        return HTMLResponse(PAGE)

    asked(capi, view)
    (event,) = sent(capi)
    return event


def by_route(given: dict[str, Any]) -> dict[str, Any]:
    route = EventRoute("GET /thanks", "Lead", user_data={"em": "jane@example.com"}, **given)
    capi = CAPI(make_config(page_view=False, debug=True, action_source=None, routes=[route]))
    asked(capi, lambda request: HTMLResponse(PAGE))
    (event,) = sent(capi)
    return event


@pytest.mark.parametrize("how", [by_job, by_view, by_route])
@pytest.mark.parametrize(
    ("field", "given", "arrives", "source"), TABLE, ids=[f"{one[0]}-{at}" for at, one in
                                                         enumerate(TABLE)],
)  # fmt: skip
def test_a_field_arrives_however_it_is_given(
    how: Callable[[dict[str, Any]], dict[str, Any]],
    field: str, given: Any, arrives: Any, source: str,
) -> None:  # fmt: skip
    more = {"messaging_channel": "whatsapp"} if source == "business_messaging" else {}
    event = how({"action_source": source, **more, field: given})
    assert event[field] == arrives
    assert event["action_source"] == source


def test_the_table_has_every_field() -> None:
    assert {one[0] for one in TABLE} == set(FIELDS) - {"app_data"}


@pytest.mark.parametrize("how", [by_view, by_route])
def test_a_page_is_a_website_without_a_word(
    how: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    event = how({})
    assert event["action_source"] == "website"
    assert event["event_source_url"] == "http://testserver/thanks"


def test_a_route_reads_a_field_of_the_request() -> None:
    route = EventRoute(
        "GET /thanks", "Lead", user_data={"em": "a@b.example"},
        customer_segmentation="{header.x-segment}", opt_out=lambda request: True,
    )  # fmt: skip
    capi = CAPI(make_config(page_view=False, routes=[route]))
    app = Starlette(routes=[Route("/{path:path}", lambda request: HTMLResponse(PAGE))])
    client = TestClient(CAPIMiddleware(app, capi), headers=AGENT)
    client.get("/thanks", headers={"x-segment": "existing_customer_to_medium"})
    client.get("/thanks", headers={"x-segment": "nonsense"})
    first, second = sent(capi)
    assert (first["customer_segmentation"], first["opt_out"]) == (
        "existing_customer_to_medium", True,
    )  # fmt: skip
    assert "customer_segmentation" not in second
    counts = {(one.kind, one.reason) for one in capi.store.tallies(0, 1e12).counts}
    assert ("left_out", "customer_segmentation") in counts


def test_a_route_reads_when_it_happened_as_requests_write_it() -> None:
    route = EventRoute(
        "GET /thanks", "Lead", user_data={"em": "a@b.example"}, event_time="{header.x-at}"
    )
    capi = CAPI(make_config(page_view=False, routes=[route]))
    app = Starlette(routes=[Route("/{path:path}", lambda request: HTMLResponse(PAGE))])
    client = TestClient(CAPIMiddleware(app, capi), headers=AGENT)
    at = int(capi.issuer.clock()) - 3600
    texts = [str(at), datetime.fromtimestamp(at, UTC).isoformat(), "2026-11-28T16:00", "soon"]
    for text in texts:
        client.get("/thanks", headers={"x-at": text})
    times = [one["event_time"] for one in sent(capi)]
    assert times[:2] == [at, at]
    assert min(times[2:]) > at  # what is no time is left out, and counted
    left_out = [one.n for one in capi.store.tallies(0, 1e12).counts if one.reason == "event_time"]
    assert left_out == [2]


def test_what_a_view_says_goes_before_what_its_route_says() -> None:
    route = EventRoute("GET /thanks", "Lead", opt_out=True, user_data={"em": "a@b.example"})
    capi = CAPI(make_config(page_view=False, routes=[route]))

    def view(request: Request) -> HTMLResponse:
        track("Lead", opt_out=False)
        return HTMLResponse(PAGE)

    asked(capi, view)
    assert [event["opt_out"] for event in sent(capi)] == [False]


# -- where it happened -----------------------------------------------------------------------------


def test_a_job_that_does_not_say_where_it_happened_is_refused_with_all_nine() -> None:
    capi = CAPI(make_config(action_source=None))
    with pytest.raises(ValueError, match="action_source") as refused:
        capi.track("Lead", **WHO)
    assert all(one in str(refused.value) for one in ACTION_SOURCES)
    assert capi.store.depth() == {}
    with pytest.raises(ValueError, match=r"'web'.*physical_store"):
        capi.track("Lead", **WHO, action_source="web")  # type: ignore[arg-type]


def test_the_config_says_it_for_all_jobs_and_an_argument_goes_before() -> None:
    capi = CAPI(make_config(action_source="phone_call"))
    capi.track("Lead", **WHO)
    capi.track("Lead", **WHO, action_source="email")
    assert [one["action_source"] for one in sent(capi)] == ["phone_call", "email"]
    with pytest.raises(ConfigError, match=r"action_source: found 'phone'.*business_messaging"):
        make_config(action_source="phone")


def test_a_visitor_s_page_is_a_website_and_one_made_by_hand_wants_all_of_it() -> None:
    capi = CAPI(make_config(action_source=None))
    who = capi.issuer.signed(
        Visitor(client_user_agent="Mozilla/5.0", event_source_url="https://shop.example/c")
    )
    capi.track("Lead", visitor=who, **WHO)
    agent = UserData(em="a@b.example", client_user_agent="Mozilla/5.0")
    capi.track("Lead", user_data=agent, event_source_url="https://shop.example/d")
    events = sent(capi)
    assert [one["action_source"] for one in events] == ["website"] * 2
    assert [one["event_source_url"][-2:] for one in events] == ["/c", "/d"]
    with pytest.raises(ValueError, match="event_source_url"):
        capi.track("Lead", **WHO, action_source="website")


def test_where_no_page_and_nothing_is_known_a_request_says_other() -> None:
    capi = CAPI(make_config(action_source=None))
    app = Starlette(routes=[Route("/{path:path}", lambda request: HTMLResponse(PAGE))])
    TestClient(CAPIMiddleware(app, capi)).get("/", headers={"user-agent": ""})
    lease = capi.store.lease(PIXEL_ID, limit=9, seconds=60)
    assert [json.loads(one.payload)["action_source"] for one in lease.events] == ["other"]


def test_what_happened_beyond_the_page_has_no_browser_copy() -> None:
    capi = CAPI(make_config(page_view=False))

    def view(request: Request) -> HTMLResponse:
        track("Lead", action_source="chat", **WHO)
        return HTMLResponse(PAGE)

    page = asked(capi, view)
    assert '"Lead"' not in page
    assert [one["event_name"] for one in sent(capi)] == ["Lead"]


def test_send_and_pixels_choose_the_copies() -> None:
    pixels = [{"id": "1", "access_token": "t"}, {"id": "2", "access_token": "t"}]
    config = Config.from_mapping({
        "secret_key": make_config().secret_key, "pixels": pixels, "store": "memory:",
        "delivery": False, "page_view": False, "debug": True,
    })  # fmt: skip
    capi = CAPI(config)

    def view(request: Request) -> HTMLResponse:
        track("Lead", send="server", pixels=["2"])
        track("Contact", send="browser")
        return HTMLResponse(PAGE)

    page = asked(capi, view)
    assert ('"Contact"' in page, '"Lead"' in page) == (True, False)
    assert capi.store.depth() == {"pending": 1, "unmapped": 2}
    for wrong in ({"pixels": ["3"]}, {"send": "nowhere"}, {"send": "browser"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            capi.track("Lead", action_source="other", **wrong)


# -- when it happened ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [float, int, lambda at: datetime.fromtimestamp(at, UTC),
             lambda at: datetime.fromtimestamp(at).astimezone()],
    ids=["float", "int", "UTC", "here"],
)  # fmt: skip
@pytest.mark.parametrize(("source", "days"), [("phone_call", 6.9), ("physical_store", 61.9)])
def test_a_time_is_a_number_or_an_aware_datetime(
    make: Callable[[float], Any], source: Any, days: float
) -> None:
    capi = CAPI(make_config())
    at = float(int(capi.issuer.clock() - days * DAY))
    capi.track("Lead", **WHO, action_source=source, event_time=make(at))
    assert [one["event_time"] for one in sent(capi)] == [int(at)]


@pytest.mark.parametrize(
    ("source", "ago", "says"),
    [("phone_call", 7.1 * DAY, "seven days"), ("physical_store", 62.1 * DAY, "62 days"),
     ("physical_store", -DAY, "62 days")],
)  # fmt: skip
def test_a_time_that_meta_refuses_is_an_error(source: Any, ago: float, says: str) -> None:
    capi = CAPI(make_config())
    at = datetime.now(UTC) - timedelta(seconds=ago)
    with pytest.raises(ValueError, match=rf"event_time: found a datetime, expected .*{says}"):
        capi.track("Lead", action_source=source, event_time=at)


@pytest.mark.parametrize("bad", [datetime(2026, 11, 1), True, "yesterday", float("nan"), [1]])
def test_what_is_no_time_is_an_error(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"event_time: found .*time zone"):
        CAPI(make_config()).track("Lead", event_time=bad)


# -- names that are almost another -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "meant"),
    [("ph", "ph="), ("email", "em="), ("phone", "ph="), ("first_name", "fn="),
     ("lead_id", "lead_id="), ("actionsource", "action_source"), ("action_sourc", "action_source"),
     ("actionSource", "action_source"), ("eventTime", "event_time"), ("event_tiem", "event_time"),
     ("optout", "opt_out"), ("userdata", "user_data"), ("dedupekey", "dedupe_key"),
     ("curency", "currency"), ("event_id", "dedupe_key"), ("external_ids", ""),
     ("data_processing_options", "consent"), ("test_event_code", "Pixel"),
     ("content", ""), ("color", ""), ("event_source", ""), ("country", ""),
     ("lead_event_source", ""), ("membership_level", ""), ("values", ""), ("campaign", "")],
)  # fmt: skip
def test_a_keyword_that_is_almost_one_of_ours_is_told_from_one_s_own(key: str, meant: str) -> None:
    found = meant_by(key)
    assert meant in found
    assert bool(found) is bool(meant)


def test_a_near_miss_is_an_error_in_debug(caplog: pytest.LogCaptureFixture) -> None:
    debugging = CAPI(make_config(debug=True))
    for key in ("ph", "actionsource", "email", "phone"):
        with pytest.raises(ValueError, match=re.escape(key)):
            debugging.track("Lead", **{key: "x"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"app_data: .*mobile app"):
        debugging.track("Lead", app_data={"extinfo": []})


def test_a_near_miss_is_left_out_logged_once_and_counted_in_production(
    caplog: pytest.LogCaptureFixture,
) -> None:
    capi = CAPI(make_config())
    for _ in range(2):
        capi.track("Lead", **WHO, actionsource="chat", color="red", ph="+4930123456")
    assert [one["custom_data"] for one in sent(capi)] == [{"color": "red"}] * 2
    counts = {one.reason: one.n for one in capi.store.tallies(0, 1e12).counts}
    assert counts == {"actionsource": 2, "ph": 2}
    told = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len([one for one in told if "actionsource" in one]) == 1
    assert not any("4930123456" in one for one in told)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("Purchse", "Purchase"), ("addtocart", "AddToCart"), ("Add To Cart", "AddToCart"),
     ("purchase", "Purchase"), ("PageVeiw", "PageView"), ("Initiate_Checkout", "InitiateCheckout"),
     ("Purchase", ""), ("NewsletterSignup", ""), ("AddToCompare", ""), ("Subscription", ""),
     ("PurchaseRefunded", ""), ("Donation", ""), ("Größe gewählt", "")],
)  # fmt: skip
def test_a_name_that_is_almost_a_standard_event_s(name: str, meant: str) -> None:
    assert standard_name(name) == meant


@pytest.mark.parametrize("name", ["Purchse", "addtocart", "Purchase ", " ", "", "x" * 51, 7, None])
def test_such_a_name_is_an_error_of_a_route(name: Any) -> None:
    with pytest.raises(ConfigError, match="event_name"):
        EventRoute("GET /", name)


def test_such_a_name_is_an_error_of_a_pixel_and_of_mirror_too() -> None:
    with pytest.raises(ConfigError, match=r"pixels\.events.*'Purchase'"):
        Pixel("1", access_token="t", events=["Purchse"])
    with pytest.raises(ConfigError, match=r"mirror: .*'AddToCart'"):
        make_config(mirror=["addtocart"])


def test_a_name_is_trimmed_and_told_once_by_track(caplog: pytest.LogCaptureFixture) -> None:
    capi = CAPI(make_config())
    for name in ("Purchase ", "Purchase ", "Purchse", "Purchse", "Purchase", "OurOwn"):
        capi.track(name, **WHO, value=1, currency="EUR")
    names = [one["event_name"] for one in sent(capi)]
    assert names == ["Purchase"] * 2 + ["Purchse"] * 2 + ["Purchase", "OurOwn"]
    told = [one.getMessage() for one in caplog.records if "almost" in one.getMessage()
            or "event name" in one.getMessage()]  # fmt: skip
    assert len(told) == 2
    for bad in ("   ", "", "x" * 51, None):
        with pytest.raises(ConfigError, match="event_name"):
            capi.track(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keys", "enough"),
    [({"em"}, True), ({"client_ip_address", "client_user_agent"}, True), (set(), False),
     ({"country", "client_user_agent"}, False), ({"fn", "ge"}, False), ({"fn", "ln"}, True)],
)  # fmt: skip
def test_meta_takes_some_keys_for_nobody(keys: set[str], enough: bool) -> None:
    assert identifies(dict.fromkeys(keys, "x")) is enough


@pytest.mark.parametrize(
    "given",
    [{"opt_out": 1}, {"referrer_url": "/x"}, {"event_source_url": "ftp://a.example"},
     {"customer_segmentation": "new"}, {"original_event_data": {"x": 1}},
     {"original_event_data": {"event_time": "now"}}, {"attribution_data": {"nonsense": 1}},
     {"attribution_data": {"attribution_model": "mine"}}, {"messaging_channel": "whatsapp"},
     {"action_source": "web"}],
)  # fmt: skip
def test_a_field_that_meta_would_refuse_is_an_error_of_route_and_job(given: dict[str, Any]) -> None:
    (field,) = given
    with pytest.raises(ConfigError, match=f"{field}: found"):
        EventRoute("GET /", "Lead", **given)
    with pytest.raises(ValueError, match=f"{field}: found"):
        CAPI(make_config()).track("Lead", **{"action_source": "other", **given})
