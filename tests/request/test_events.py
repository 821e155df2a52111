"""From a request to the outbox: what becomes an event, and what Meta would get."""

import gzip
import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from capi_middleware import (
    CAPI,
    CapiError,
    CAPIMiddleware,
    ConfigError,
    EventRoute,
    Pixel,
    UserData,
    Visitor,
    current_visitor,
    track,
)
from capi_middleware import capi as capi_module
from capi_middleware.errors import BadVisitor
from capi_middleware.events import Sighting
from capi_middleware.page.tag import TagMaker
from capi_middleware.report.read import read_report
from capi_middleware.report.window import last_day
from capi_middleware.request.issuing import Issuer
from capi_middleware.request.visit import Visit
from capi_middleware.store.records import Settlement
from capi_middleware.store.rollups import Facet
from tests.support.blocks import question
from tests.support.configs import PIXEL_ID, TOKEN, make_config

PAGE = "<!doctype html><html><head><title>x</title></head><body>hi</body></html>"
AGENT = {"user-agent": "Mozilla/5.0"}


class Site:
    """A Starlette app of one catch-all view behind the middleware, with its outbox."""

    def __init__(self, view: Callable[..., Any], **settings: Any) -> None:
        self.capi = CAPI(make_config(**settings))
        methods = ["GET", "POST"]
        app = Starlette(routes=[Route("/{path:path}", view, methods=methods)])
        self.client = TestClient(CAPIMiddleware(app, self.capi), headers=AGENT)

    def sent(self) -> list[dict[str, Any]]:
        """The events waiting in the outbox, as Meta would get them."""
        lease = self.capi.store.lease(PIXEL_ID, limit=100, seconds=60)
        return [json.loads(event.payload) for event in lease.events]

    def counts(self, kind: str) -> dict[tuple[str, str], int]:
        counts = self.capi.store.tallies(0, 1e12).counts
        return {(one.event_name, one.reason): one.n for one in counts if one.kind == kind}


async def page(request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


def names(events: list[dict[str, Any]]) -> list[str]:
    return sorted(event["event_name"] for event in events)


def test_a_page_is_a_page_view_and_its_routes_events() -> None:
    site = Site(page, routes=[EventRoute("GET /p/{sku}", "ViewContent",
                                         custom_data={"content_ids": ["{path.sku}"]})])  # fmt: skip
    body = site.client.get("/p/cup?utm=1&token=secret").text
    events = site.sent()
    assert names(events) == ["PageView", "ViewContent"]
    view = next(event for event in events if event["event_name"] == "ViewContent")
    assert view["custom_data"] == {"content_ids": ["cup"]}
    assert view["action_source"] == "website"
    assert view["event_source_url"] == "http://testserver/p/cup?utm=1"
    assert isinstance(view["event_time"], int)
    assert view["user_data"]["client_user_agent"] == "Mozilla/5.0"
    assert all(event["event_id"] in body for event in events)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("Mozilla/5.0 (Браузер) 浏览器/1".encode(), "Mozilla/5.0 (Браузер) 浏览器/1"),
        ("Mozilla/5.0 (Gerät)".encode("latin-1"), "Mozilla/5.0 (Gerät)"),
        (b"Mozilla/5.0 " + "é".encode() * 2000, "Mozilla/5.0 " + "é" * 1012),
    ],
    ids=["utf-8", "latin-1", "long"],
)
def test_a_user_agent_in_any_script_reaches_meta_as_text(sent: bytes, kept: str) -> None:
    site = Site(page)
    site.client.get("/", headers=[(b"user-agent", sent)])
    assert site.sent()[0]["user_data"]["client_user_agent"] == kept


def test_a_row_knows_the_device_the_country_and_the_host_of_its_page() -> None:
    site = Site(page, trusted_proxies=["10.0.0.0/8"])
    client = TestClient(site.client.app, client=("10.0.0.1", 50_000))
    phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5) AppleWebKit/605 Mobile/15E148 Safari/604.1"
    for host, country in (("www.shop.example", "DE"), ("Checkout.Shop.example", "AT")):
        client.get("/p/cup-7", headers={"host": host, "user-agent": phone, "cf-ipcountry": country})

    def found(facet: Facet) -> set[str]:
        return {one.value for one in site.capi.store.slices(facet, 0, 1e12)}

    assert found("device") == {"phone"}
    assert found("country") == {"DE", "AT"}
    assert found("host") == {"www.shop.example", "checkout.shop.example"}


def test_a_stranger_cannot_make_up_hosts_without_end() -> None:
    site = Site(page)
    client = TestClient(site.client.app, client=("9.9.9.9", 50_000), headers=AGENT)
    for n in range(70):
        client.get("/", headers={"host": f"h{n}.example"})
    hosts = {one.value for one in site.capi.store.slices("host", 0, 1e12)}
    assert 40 < len(hosts) <= 50


def test_a_row_knows_its_route_page_and_browser() -> None:
    site = Site(page, routes=[EventRoute("GET /p/{sku}", "ViewContent")])
    site.client.get("/p/cup-7?utm=1", headers={"user-agent": "Mozilla/5.0 Gecko/1 Firefox/140.0"})

    def found(facet: Facet) -> set[tuple[str, str]]:
        return {(one.event_name, one.value) for one in site.capi.store.slices(facet, 0, 1e12)}

    assert found("route") == {("ViewContent", "GET /p/{sku}")}
    assert found("page") == {("ViewContent", "/p/{id}"), ("PageView", "/p/{id}")}
    assert found("agent") == {("ViewContent", "Firefox"), ("PageView", "Firefox")}


def test_an_event_that_track_fills_in_keeps_its_route_and_others_have_none() -> None:
    async def view(request: Request) -> HTMLResponse:
        track("Lead")
        track("Contact")
        return HTMLResponse(PAGE)

    site = Site(view, routes=[EventRoute("GET /lead", "Lead")], page_view=False)
    site.client.get("/lead")

    routes = {(one.event_name, one.value) for one in site.capi.store.slices("route", 0, 1e12)}
    assert routes == {("Lead", "GET /lead")}


@pytest.mark.parametrize(("value", "currency", "n"), [(12.5, "eur", 0), (13, "EUR", 1)])
def test_a_browser_copy_can_be_compared_with_the_value_that_the_server_sent(
    value: float, currency: str, n: int
) -> None:
    async def view(request: Request) -> HTMLResponse:
        track("Lead", value="12.50", currency="EUR")
        return HTMLResponse(PAGE)

    site = Site(view, page_view=False)
    body = site.client.get("/").text
    store, digest = site.capi.store, site.capi.issuer.digest
    lease = store.lease(PIXEL_ID, limit=1, seconds=60)
    (event,) = lease.events
    assert event.event_id in body
    store.settle(lease.lease_id, [Settlement(event.key, "delivered")])

    seen = Sighting(event.event_id, "Lead", PIXEL_ID, "sent", digest(value, currency))
    store.sight([seen]).result(30)

    assert sum(one.n for one in store.tallies(0, 1e12).differences) == n


def test_without_page_view_an_unmapped_page_is_left_byte_identical_but_for_the_tag() -> None:
    site = Site(page, page_view=False)
    site.client.get("/")
    assert site.sent() == []


def test_a_form_gives_values_and_the_app_reads_every_byte() -> None:
    seen: list[bytes] = []

    async def view(request: Request) -> RedirectResponse:
        seen.append(await request.body())
        return RedirectResponse("/cart", 303)

    route = EventRoute("POST /cart", "AddToCart",
                       custom_data={"value": "{form.price}", "currency": "EUR"})  # fmt: skip
    site = Site(view, routes=[route])
    site.client.post("/cart", data={"price": "7.90", "n": "1"}, follow_redirects=False)
    assert seen == [b"price=7.90&n=1"]
    assert site.sent()[0]["custom_data"] == {"value": 7.9, "currency": "EUR"}


def test_a_multipart_form_gives_values_too() -> None:
    async def view(request: Request) -> JSONResponse:
        await request.body()
        return JSONResponse({})

    route = EventRoute("POST /cart", "Lead", custom_data={"content_name": "{form.name}"})
    site = Site(view, routes=[route])
    site.client.post("/cart", data={"name": "Tea"}, files={"file": ("a.txt", b"data")})
    assert site.sent()[0]["custom_data"] == {"content_name": "Tea"}


@pytest.mark.parametrize(
    ("size", "data", "counts"),
    [
        (70_000, {"content_name": "Tea"}, {}),
        (1_100_000, None, {("Lead", "content_name"): 1, ("Lead", "body_too_long"): 1}),
    ],
)
def test_a_form_field_behind_a_file_is_found_or_counted_with_its_reason(
    size: int, data: Any, counts: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    async def view(request: Request) -> JSONResponse:
        async with request.form() as form:
            seen.append(str(form["name"]))
        return JSONResponse({})

    route = EventRoute("POST /cart", "Lead", custom_data={"content_name": "{form.name}"})
    site = Site(view, routes=[route])
    files = {"file": ("a.txt", b"x" * size), "name": (None, b"Tea")}
    for _ in range(2):
        site.client.post("/cart", files=files)
    assert seen == ["Tea"] * 2
    assert [one.get("custom_data") for one in site.sent()] == [data] * 2
    assert site.counts("left_out") == {key: 2 * n for key, n in counts.items()}
    told = [one for one in caplog.records if one.name == "capi_middleware"]
    assert len(told) == bool(counts)


def test_a_body_that_the_app_does_not_read_is_counted_with_its_reason() -> None:
    async def view(request: Request) -> JSONResponse:
        return JSONResponse({})

    route = EventRoute("POST /cart", "Lead", custom_data={"content_name": "{form.name}"})
    site = Site(view, routes=[route])
    site.client.post("/cart", data={"name": "Tea"})
    assert site.counts("left_out") == {("Lead", "content_name"): 1, ("Lead", "body_unread"): 1}


def test_the_user_data_of_every_event_reads_a_form_that_its_route_does_not() -> None:
    async def view(request: Request) -> JSONResponse:
        await request.body()
        return JSONResponse({})

    route = EventRoute("POST /cart", "Lead")
    site = Site(view, routes=[route], user_data={"em": "{form.email}"})
    site.client.post("/cart", data={"text": "x" * 70_000, "email": "jane@example.com"})
    hashed = sha256(b"jane@example.com").hexdigest()
    assert site.sent()[0]["user_data"]["em"] == [hashed]


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("{json.order.total}", 12.5),
        ("{query.q}", "a b"),
        ("{cookie.c}", "1"),
        ("{header.x-y}", "2"),
        ("{state.user.id}", 42),
        ("{path.id}", 7),
        ("id-{path.id}-{query.q}", "id-7-a b"),
    ],
)
def test_every_expression_reads_its_part_of_the_request(expression: str, found: Any) -> None:
    async def view(request: Request) -> JSONResponse:
        await request.body()
        request.state.user = {"id": 42}
        return JSONResponse({})

    route = EventRoute("POST /x/{id:int}", "Lead", custom_data={"thing": expression})
    site = Site(view, routes=[route])
    site.client.cookies.set("c", "1")
    site.client.post("/x/7?q=a+b", json={"order": {"total": 12.5}}, headers={"x-y": "2"})
    assert site.sent()[0]["custom_data"] == {"thing": found}


def test_what_is_missing_is_left_out_and_counted() -> None:
    route = EventRoute("GET /", "Lead", custom_data={"a": "{query.a}", "b": "b{query.b}", "c": 1})
    site = Site(page, routes=[route], page_view=False)
    site.client.get("/?a=")
    assert site.sent()[0]["custom_data"] == {"c": 1}
    assert site.counts("left_out") == {("Lead", "a"): 1, ("Lead", "b"): 1}


def test_callables_may_be_sync_or_async_and_user_data_is_hashed() -> None:
    async def who(request: Request) -> UserData:
        return UserData(em=request.query_params["em"])

    route = EventRoute("GET /", "Lead", custom_data={"n": lambda request: 3})
    site = Site(page, routes=[route], user_data=who, page_view=False)
    site.client.get("/?em=Jane@Example.com")
    event = site.sent()[0]
    assert event["custom_data"] == {"n": 3}
    digest = "8c87b489ce35cf2e2f39f80e282cb2e804932a56a213983eeeb428407d43b52d"
    assert event["user_data"]["em"] in (digest, [digest])
    assert "Jane" not in json.dumps(event)


def test_a_callable_that_fails_costs_its_value_and_is_counted(
    swallowed: list[BaseException],
) -> None:
    def broken(request: Request) -> UserData:
        raise LookupError("private@example.com")

    site = Site(page, user_data=broken)
    assert "data-c" in site.client.get("/").text
    assert names(site.sent()) == ["PageView"]
    assert [type(error) for error in swallowed] == [LookupError]
    assert list(site.counts("error")) == [("", "the setting user_data: LookupError")]
    swallowed.clear()


def test_each_callable_that_fails_is_named_with_its_setting_and_told_once_a_minute(
    caplog: pytest.LogCaptureFixture, swallowed: list[BaseException]
) -> None:
    def broken(request: Request) -> Any:
        raise LookupError("private@example.com")

    value = EventRoute("GET /shop", "Lead", custom_data={"contents": [{"id": broken}]})
    site = Site(page, user_data={"em": broken}, routes=[value], internal=broken)
    for _ in range(3):
        site.client.get("/shop")
    settings = ["em in user_data", "id in contents in custom_data of GET /shop", "internal"]
    assert site.counts("error") == {
        ("", f"the setting {setting}: LookupError"): 3 for setting in settings
    }
    told = [one.getMessage() for one in caplog.records if one.name == "capi_middleware"]
    named = sorted(one.partition(" failed (LookupError at ")[0] for one in told)
    assert named == [f"the setting {setting}" for setting in sorted(settings)]
    assert "private" not in "".join(told)
    swallowed.clear()
    flags = read_report(site.capi.store, site.capi.config, last_day(site.capi.issuer.clock())).flags
    (flag,) = (one for one in flags if one.code == "callable_failed")
    assert flag.value == 9
    assert "em in user_data: LookupError (3)" in flag.explanation


def test_the_first_route_of_an_event_name_wins() -> None:
    routes = [
        EventRoute("GET /a/b", "Lead", custom_data={"n": 1}),
        EventRoute("GET /a/{x}", "Lead", custom_data={"n": 2}),
    ]
    site = Site(page, routes=routes, page_view=False)
    site.client.get("/a/b")
    assert [event["custom_data"] for event in site.sent()] == [{"n": 1}]


@pytest.mark.parametrize(("status", "n"), [(200, 1), (404, 0), (500, 0)])
def test_a_status_that_does_not_count_is_no_event(status: int, n: int) -> None:
    async def view(request: Request) -> HTMLResponse:
        return HTMLResponse(PAGE, status)

    site = Site(view, routes=[EventRoute("GET /", "Lead")], page_view=False)
    site.client.get("/")
    assert len(site.sent()) == n


def test_track_fills_in_the_event_of_a_matched_route() -> None:
    made: list[str] = []

    def view(request: Request) -> HTMLResponse:
        event = track("Purchase", value=10, currency="EUR", user_data=UserData(ph="+4930123456"))
        made.append(event.event_id)
        return HTMLResponse(PAGE)

    route = EventRoute("GET /o/{id}", "Purchase", dedupe_key="{path.id}", custom_data={"a": 1})
    site = Site(view, routes=[route], page_view=False)
    body = site.client.get("/o/7").text
    events = site.sent()
    assert len(events) == 1
    assert events[0]["custom_data"] == {"a": 1, "value": 10, "currency": "EUR"}
    assert events[0]["event_id"] == made[0]
    assert made[0] in body
    assert "ph" in events[0]["user_data"]
    assert made[0] == site.capi.issuer.mint("Purchase", "7")


def test_track_adds_an_event_where_no_route_made_one() -> None:
    def view(request: Request) -> JSONResponse:
        track("Lead", kind="newsletter")
        return JSONResponse({})

    site = Site(view)
    site.client.post("/subscribe")
    assert [event["custom_data"] for event in site.sent()] == [{"kind": "newsletter"}]


def test_track_while_streaming_is_kept() -> None:
    def view(request: Request) -> StreamingResponse:
        async def body() -> Any:
            yield PAGE[:50]
            track("Lead")
            yield PAGE[50:]

        return StreamingResponse(body(), media_type="text/html")

    site = Site(view, page_view=False)
    site.client.get("/")
    assert names(site.sent()) == ["Lead"]


def test_the_same_dedupe_key_is_one_event_in_pages_jobs_and_refreshes() -> None:
    def view(request: Request) -> HTMLResponse:
        track("Purchase", value=1, currency="EUR", dedupe_key=7)
        return HTMLResponse(PAGE)

    site = Site(view, page_view=False)
    site.client.get("/")
    site.client.get("/")
    event = site.capi.track("Purchase", value=1, currency="EUR", dedupe_key="7")
    assert [one["event_id"] for one in site.sent()] == [event.event_id]


def test_a_visitor_of_a_checkout_completes_the_event_of_a_webhook() -> None:
    texts: list[str] = []

    def view(request: Request) -> HTMLResponse:
        texts.append(current_visitor().dumps())
        return HTMLResponse(PAGE)

    site = Site(view, page_view=False)
    site.client.cookies.set("_fbp", "fb.1.1700000000000.123456789")
    site.client.get("/checkout")
    visitor = Visitor.loads(texts[0])
    site.capi.track("Purchase", visitor=visitor, value=5, currency="EUR", dedupe_key=1)
    event = site.sent()[0]
    assert event["user_data"]["fbp"] == "fb.1.1700000000000.123456789"
    assert event["user_data"]["client_user_agent"] == "Mozilla/5.0"
    assert event["event_source_url"] == "http://testserver/checkout"


def test_a_visitor_that_was_changed_is_refused() -> None:
    site = Site(page)
    text = site.capi.issuer.signed(Visitor(fbp="fb.1.1.1")).dumps()
    with pytest.raises(BadVisitor, match="did not sign"):
        site.capi.track("Lead", visitor=Visitor.loads(text.replace("fb.1.1.1", "fb.1.1.2")))
    with pytest.raises(BadVisitor):
        Visitor.loads("v9.nonsense")


@pytest.mark.parametrize("capis", [[], [{"debug": True}], [{}, {"debug": True}]])
def test_track_outside_of_a_request_says_what_to_do_where_somebody_develops(
    capis: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [Site(page, **settings).capi for settings in capis]
    monkeypatch.setattr(capi_module, "living", {*sites})
    with pytest.raises(CapiError, match=r"outside of a request use CAPI\(config\)\.track"):
        track("Lead")


def test_track_outside_of_a_request_is_counted_and_told_once_in_production(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(page)
    monkeypatch.setattr(capi_module, "living", {site.capi})
    events = [track("Purchase", value=9, currency="EUR", dedupe_key=7) for _ in range(3)]
    assert [event.event_name for event in events] == ["Purchase"] * 3
    assert site.counts("error") == {("", "track() outside of a request"): 3}
    assert site.sent() == []
    told = [one for one in caplog.records if one.name == "capi_middleware"]
    assert ["wrap the whole app" in one.getMessage() for one in told] == [True]


def test_a_bad_event_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="found event_name ''"):
        Site(page).capi.track("")


def test_a_purchase_that_meta_would_refuse_is_a_counted_drop() -> None:
    site = Site(page)
    site.capi.track("Purchase", value=1)
    assert site.sent() == []
    assert site.capi.store.depth() == {"invalid": 1}
    assert site.counts("dropped") == {("Purchase", "invalid"): 1}


@pytest.mark.parametrize("settings", [{"consent": lambda request: False}, {}])
def test_without_consent_there_is_no_tag_no_cookie_and_no_event(settings: dict[str, Any]) -> None:
    site = Site(page, routes=[EventRoute("GET /", "Lead")], **settings)
    headers = {} if settings else {"sec-gpc": "1"}
    answer = site.client.get("/", headers=headers)
    assert answer.text == PAGE
    assert "set-cookie" not in answer.headers
    assert site.sent() == []
    assert site.counts("suppressed") == {("Lead", "consent"): 1, ("PageView", "consent"): 1}


def test_a_page_without_events_gives_its_visitor_the_cookies_too() -> None:
    answer = Site(page, page_view=False).client.get("/?fbclid=IwAR0")
    assert {"_fbp", "_fbc"} <= set(answer.cookies)


def test_a_consent_rule_over_cookies_decides() -> None:
    rule = {"value": "{cookie.ok}", "granted": ["all"], "limited": ["some"]}
    site = Site(page, consent=rule)
    assert site.client.get("/").text == PAGE
    site.client.cookies.set("ok", "some")
    assert '"x":"limited"' in site.client.get("/").text
    event = site.sent()[0]
    assert event["data_processing_options"] == ["LDU"]


def test_a_public_page_carries_no_event_id_and_its_script_asks_for_them() -> None:
    async def view(request: Request) -> HTMLResponse:
        return HTMLResponse(PAGE, headers={"cache-control": "public, max-age=60"})

    site = Site(view, routes=[EventRoute("GET /p/{sku}", "ViewContent",
                                         custom_data={"content_ids": ["{path.sku}"]})])  # fmt: skip
    answer = site.client.get("/p/cup")
    assert '"e":[],"a":true' in answer.text
    assert "set-cookie" not in answer.headers
    assert site.sent() == []
    asked = site.client.post("/_capi/t", json=question(answer.text, "http://testserver/p/cup?a=1"))
    events = asked.json()["e"]
    assert sorted(event["n"] for event in events) == ["PageView", "ViewContent"]
    waiting = site.sent()
    assert {one["event_id"] for one in waiting} == {event["i"] for event in events}
    assert waiting[0]["event_source_url"] == "http://testserver/p/cup?a=1"


def test_a_prefetched_page_is_no_event_until_it_is_shown() -> None:
    site = Site(page, routes=[EventRoute("GET /", "Lead")])
    assert '"a":true' in site.client.get("/", headers={"sec-purpose": "prefetch"}).text
    assert site.sent() == []


def test_an_app_mounted_below_a_path_has_its_endpoints_there() -> None:
    capi = CAPI(make_config(routes=[EventRoute("GET /p/{sku}", "ViewContent")]))
    inner = CAPIMiddleware(Starlette(routes=[Route("/p/{sku}", page)]), capi)
    client = TestClient(Starlette(routes=[Mount("/shop", app=inner)]), headers=AGENT)
    body = client.get("/shop/p/cup").text
    assert 'src="/shop/_capi/s.js?v=' in body
    assert client.get("/shop/_capi/s.js").status_code == 200
    assert capi.store.depth() == {"pending": 2}


def test_events_go_to_the_pixels_they_are_configured_for() -> None:
    pixels = [Pixel("11", TOKEN, events=["Lead"]), Pixel("22", TOKEN)]
    routes = [EventRoute("GET /", "Lead"), EventRoute("GET /", "Search", pixels=["22"])]
    site = Site(page, pixels=pixels, routes=routes)
    site.client.get("/")
    lease = {
        pixel: sorted(e.event_name for e in site.capi.store.lease(pixel, limit=9, seconds=9).events)
        for pixel in ("11", "22")
    }
    assert lease == {"11": ["Lead"], "22": ["Lead", "PageView", "Search"]}


def test_an_event_for_the_server_only_is_not_in_the_page() -> None:
    routes = [
        EventRoute("GET /", "Lead", send="server"),
        EventRoute("GET /", "Search", send="browser"),
    ]
    site = Site(page, routes=routes, page_view=False)
    body = site.client.get("/").text
    assert "Lead" not in body
    assert "Search" in body
    assert names(site.sent()) == ["Lead"]


@pytest.mark.parametrize("station", ["Exchange.start", "rewrite", "Exchange._issue"])
def test_an_error_of_ours_lets_the_page_out_unchanged_and_is_counted(
    station: str, monkeypatch: pytest.MonkeyPatch, swallowed: list[BaseException]
) -> None:
    def broken(*given: Any, **named: Any) -> Any:
        raise RuntimeError("ours")

    monkeypatch.setattr(f"capi_middleware.request.exchange.{station}", broken)
    site = Site(page, routes=[EventRoute("GET /", "Lead", send="server")])
    answer = site.client.get("/")
    assert answer.status_code == 200
    if (
        station != "Exchange._issue"
    ):  # which the end of the response needs for an event without a page
        assert answer.text == PAGE
    assert swallowed
    assert any(reason.endswith("RuntimeError") for _, reason in site.counts("error"))
    swallowed.clear()


def test_a_tag_that_cannot_be_made_lets_the_page_out_unchanged_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, swallowed: list[BaseException]
) -> None:
    monkeypatch.setattr(TagMaker, "tag", lambda *_, **__: 1 / 0)
    site = Site(page)
    assert site.client.get("/").text == PAGE
    assert site.counts("skipped") == {("", "error"): 1}
    assert site.counts("error") == {("", "the tag: ZeroDivisionError"): 1}
    swallowed.clear()


@pytest.mark.parametrize("encode", [bytes, gzip.compress])
def test_a_stream_whose_tag_cannot_be_made_keeps_its_headers(
    encode: Callable[[bytes], bytes],
    monkeypatch: pytest.MonkeyPatch,
    swallowed: list[BaseException],
) -> None:
    monkeypatch.setattr(TagMaker, "tag", lambda *_, **__: 1 / 0)
    body = encode(PAGE.encode())

    async def view(request: Request) -> StreamingResponse:
        async def pieces() -> Any:
            yield body[:-3]
            yield body[-3:]

        headers = {"content-length": str(len(body)), "etag": '"1"'}
        if body[:1] == b"\x1f":
            headers["content-encoding"] = "gzip"
        return StreamingResponse(pieces(), media_type="text/html", headers=headers)

    answer = Site(view).client.get("/")
    assert answer.text == PAGE
    assert (answer.headers["content-length"], answer.headers["etag"]) == (str(len(body)), '"1"')
    swallowed.clear()


@pytest.mark.parametrize("encode", [bytes, gzip.compress])
def test_no_byte_is_lost_where_the_failure_cannot_be_counted_either(
    encode: Callable[[bytes], bytes],
    monkeypatch: pytest.MonkeyPatch,
    swallowed: list[BaseException],
) -> None:
    monkeypatch.setattr(TagMaker, "tag", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(Issuer, "count", lambda *_: 1 / 0)
    body = encode(PAGE.encode())

    async def view(request: Request) -> StreamingResponse:
        async def pieces() -> Any:
            for at in range(0, len(body), 7):
                yield body[at : at + 7]

        headers = {"content-encoding": "gzip"} if body[:1] == b"\x1f" else {}
        return StreamingResponse(pieces(), media_type="text/html", headers=headers)

    assert Site(view).client.get("/").text == PAGE
    swallowed.clear()


def test_no_event_claims_a_page_whose_tag_could_not_be_made(
    monkeypatch: pytest.MonkeyPatch, swallowed: list[BaseException]
) -> None:
    monkeypatch.setattr(TagMaker, "tag", lambda *_, **__: 1 / 0)
    site = Site(page, routes=[EventRoute("GET /", "Lead")])
    site.client.get("/")
    rows = {(row.event_name, row.server, row.browser) for row in site.capi.store.recent(9)}
    assert rows == {
        ("PageView", "pending", "tag_failed"), ("Lead", "pending", "tag_failed"),
    }  # fmt: skip
    swallowed.clear()


@pytest.mark.parametrize("moment", ["streaming", "after the end"])
def test_without_consent_a_late_track_is_no_event_either(moment: str) -> None:
    exchanges: list[Any] = []

    def view(request: Request) -> StreamingResponse:
        from capi_middleware.request.exchange import current

        exchanges.append(current.get())

        async def body() -> Any:
            yield PAGE[:50]
            if moment == "streaming":
                track("Lead")
            yield PAGE[50:]

        return StreamingResponse(body(), media_type="text/html")

    site = Site(view, consent=lambda request: False, page_view=False)
    site.client.get("/")
    if moment == "after the end":
        exchanges[0].opened().track("Lead", {}, None, None)
    assert site.sent() == []
    assert site.counts("suppressed") == {("Lead", "consent"): 1}


def test_an_error_of_ours_before_the_consent_is_known_sends_nothing(
    monkeypatch: pytest.MonkeyPatch, swallowed: list[BaseException]
) -> None:
    async def broken(self: Visit, waits: Any) -> Any:
        raise RuntimeError("ours")

    def view(request: Request) -> JSONResponse:
        track("Lead")
        return JSONResponse({})

    monkeypatch.setattr(Visit, "decide", broken)
    site = Site(view, consent=lambda request: False)
    site.client.get("/")
    assert site.sent() == []
    swallowed.clear()


@pytest.mark.parametrize(("answer", "kept"), [(True, "granted"), ("limited", "limited")])
def test_a_visitor_keeps_the_answer_of_a_consent_callable(answer: Any, kept: str) -> None:
    texts: list[str] = []

    def view(request: Request) -> JSONResponse:
        texts.append(current_visitor().dumps())
        return JSONResponse({})

    Site(view, consent=lambda request: answer).client.get("/checkout")
    assert Visitor.loads(texts[0]).consent == kept


def test_a_public_page_is_the_same_for_everybody_and_the_question_decides_on_consent() -> None:
    async def view(request: Request) -> HTMLResponse:
        return HTMLResponse(PAGE, headers={"cache-control": "public, max-age=60"})

    rule = {"value": "{cookie.ok}", "granted": ["all"], "limited": ["some"]}
    site = Site(view, consent=rule)
    bodies, answers = set(), []
    for cookie in ("none", "some", "all"):
        site.client.cookies.set("ok", cookie)
        text = site.client.get("/").text
        bodies.add(text)
        given = question(text, "http://testserver/")
        answer = site.client.post("/_capi/t", json=given).json()
        answers.append((len(answer["e"]), answer.get("x")))
    assert len(bodies) == 1
    assert answers == [(0, "denied"), (1, "limited"), (1, None)]


def test_a_question_finds_the_routes_of_an_encoded_path() -> None:
    route = EventRoute("GET /p/{sku}", "ViewContent", custom_data={"content_name": "{path.sku}"})
    site = Site(page, routes=[route], page_view=False)
    given = {"u": "http://testserver/p/t%C3%A9%20a", "k": site.capi.issuer.new_key()}
    site.client.post("/_capi/t", json=given)
    event = site.sent()[0]
    assert event["custom_data"] == {"content_name": "té a"}
    assert event["event_source_url"] == "http://testserver/p/t%C3%A9%20a"


def test_a_head_request_is_no_event() -> None:
    def view(request: Request) -> JSONResponse:
        track("Lead")
        return JSONResponse({})

    site = Site(view)
    site.client.head("/")
    assert site.sent() == []
    assert site.counts("suppressed") == {("Lead", "head"): 1}


# -- identity ------------------------------------------------------------------------------------


def landed(site: Site, url: str, **headers: str) -> list[str]:
    """The Set-Cookie lines of the answer to a click that lands on `url`."""
    answer = site.client.get(url, headers=headers, follow_redirects=False)
    return answer.headers.get_list("set-cookie")


@pytest.mark.parametrize("page_view", [True, False])
def test_a_click_that_lands_on_a_redirect_reaches_the_purchase(page_view: bool) -> None:
    def view(request: Request) -> Any:
        if request.url.path == "/":
            return RedirectResponse("/home")
        if request.url.path == "/thanks":
            track("Purchase", value=1, currency="EUR")
        return HTMLResponse(PAGE)

    site = Site(view, page_view=page_view)
    cookies = landed(site, "/?fbclid=IwAR0_Click")
    assert [one.split("=")[0] for one in cookies] == ["_fbc"]
    site.client.get("/home")
    site.client.get("/thanks")
    purchase = next(event for event in site.sent() if event["event_name"] == "Purchase")
    assert purchase["user_data"]["fbc"].endswith(".IwAR0_Click")


@pytest.mark.parametrize(
    ("settings", "cache", "headers"),
    [
        ({"consent": lambda request: False}, "", {}),
        ({}, "public, max-age=60", {}),
        ({}, "", {"sec-gpc": "1"}),
        ({}, "", {"user-agent": "Googlebot/2.1 (+http://www.google.com/bot.html)"}),
    ],
)
def test_a_redirect_sets_no_cookie_where_none_may_be_set(
    settings: dict[str, Any], cache: str, headers: dict[str, str]
) -> None:
    def view(request: Request) -> RedirectResponse:
        return RedirectResponse("/home", headers={"cache-control": cache} if cache else None)

    assert landed(Site(view, **settings), "/?fbclid=Click", **headers) == []


def test_a_redirect_without_a_click_is_left_alone() -> None:
    site = Site(lambda request: RedirectResponse("/home"))
    assert landed(site, "/?utm_source=fb") == []


def test_behind_a_trusted_proxy_everything_is_as_the_browser_sees_it() -> None:
    site = Site(page, trusted_proxies=["unix", "127.0.0.0/8"])
    site.client = TestClient(site.client.app, headers=AGENT, client=("127.0.0.1", 9))
    cookies = landed(
        site,
        "/p?a=1",
        **{
            "x-forwarded-for": "6.6.6.6, 2001:db8::7",
            "x-forwarded-proto": "https",
            "x-forwarded-host": "shop.example.co.uk",
            "referer": "https://www.facebook.com/?token=x",
        },
    )
    (event,) = site.sent()
    assert event["event_source_url"] == "https://shop.example.co.uk/p?a=1"
    assert event["referrer_url"] == "https://www.facebook.com/"
    assert event["user_data"]["client_ip_address"] == "2001:db8::7"
    assert event["user_data"]["fbp"].startswith("fb.2.")
    assert all(
        "Domain=.example.co.uk" in one and one.endswith("; Secure") and "HttpOnly" not in one
        for one in cookies
    )


def test_without_trust_a_visitor_cannot_forge_where_it_is() -> None:
    site = Site(page)
    landed(site, "/p", **{"x-forwarded-for": "6.6.6.6", "x-forwarded-host": "evil.example"})
    (event,) = site.sent()
    assert event["event_source_url"] == "http://testserver/p"
    assert "client_ip_address" not in event["user_data"]


# -- noise ---------------------------------------------------------------------------------------

HEADLESS = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "HeadlessChrome/142.0.0.0 Safari/537.36"
)


@pytest.mark.parametrize(
    ("headers", "path", "reason"),
    [
        ({"user-agent": "Googlebot/2.1 (+http://www.google.com/bot.html)"}, "/", "bot"),
        ({"user-agent": HEADLESS}, "/", "bot"),
        ({"user-agent": "kube-probe/1.29"}, "/", "health_check"),
        ({}, "/healthz", "health_check"),
    ],
)
def test_noise_gets_the_page_as_it_is_and_one_count_by_reason(
    headers: dict[str, str], path: str, reason: str
) -> None:
    def view(request: Request) -> HTMLResponse:
        track("ViewContent")
        return HTMLResponse(PAGE)

    site = Site(view)
    answer = site.client.get(path, headers=headers)
    assert answer.text == PAGE
    assert "set-cookie" not in answer.headers
    assert site.sent() == []
    assert site.counts("suppressed") == {("PageView", reason): 1, ("ViewContent", reason): 1}


def test_what_a_headless_browser_posts_is_in_no_copy_either() -> None:
    def view(request: Request) -> HTMLResponse:
        track("Lead")
        return HTMLResponse(PAGE)

    site = Site(view)
    assert site.client.post("/", headers={"user-agent": HEADLESS}).text == PAGE
    assert site.sent() == []
    assert site.counts("suppressed")["Lead", "bot"] == 1


def test_a_payment_provider_that_looks_like_a_crawler_loses_no_conversion() -> None:
    def view(request: Request) -> JSONResponse:
        track("Purchase", value=1, currency="EUR")
        return JSONResponse({})

    site = Site(view)
    site.client.post("/webhook", headers={"user-agent": "Stripe/1.0 (+https://stripe.com/docs)"})
    assert names(site.sent()) == ["Purchase"]


# -- consent and advanced matching ---------------------------------------------------------------


def data_of(text: str) -> dict[str, Any]:
    """The data block of a page."""
    block = text.partition("data-c>")[2].partition("</script>")[0]
    data: dict[str, Any] = json.loads(block)
    return data


def test_limited_data_use_reaches_both_copies_with_country_and_state() -> None:
    site = Site(page, consent=lambda request: ("limited", "US", "CA"))
    told = data_of(site.client.get("/").text)
    (event,) = site.sent()
    assert (told["x"], told["l"]) == ("limited", [1, 1000])
    assert event["data_processing_options"] == ["LDU"]
    assert event["data_processing_options_country"] == 1
    assert event["data_processing_options_state"] == 1000


def test_a_webhook_days_later_keeps_the_limited_data_use() -> None:
    texts: list[str] = []

    def view(request: Request) -> JSONResponse:
        texts.append(current_visitor().dumps())
        return JSONResponse({})

    site = Site(view, consent=lambda request: ("limited", "US", "CO"))
    site.client.get("/checkout")
    site.capi.track("Lead", visitor=Visitor.loads(texts[0]))
    (event,) = site.sent()
    assert event["data_processing_options_state"] == 1001


def test_a_banner_cookie_decides_by_its_ready_rule() -> None:
    site = Site(page, consent="cookiebot")
    assert site.client.get("/", headers={"cookie": "CookieConsent={marketing:false}"}).text == PAGE
    assert site.client.get("/", headers={"cookie": "CookieConsent={marketing:true}"}).text != PAGE
    assert names(site.sent()) == ["PageView"]


def test_advanced_matching_hands_hashes_to_the_pixel_and_nothing_raw() -> None:
    def view(request: Request) -> HTMLResponse:
        track("Lead", user_data=UserData(ph="+49 30 1234567", fb_login_id=77))
        return HTMLResponse(PAGE)

    settings = {"user_data": {"em": "{cookie.mail}"}, "advanced_matching": True}
    site = Site(view, **settings)
    answer = site.client.get("/", headers={"cookie": "mail=Jane@Example.com"})
    (pixel,) = data_of(answer.text)["p"]
    digests = [sha256(text.encode()).hexdigest() for text in ("jane@example.com", "49301234567")]
    assert pixel["am"] == {"em": digests[0], "ph": digests[1]}
    assert "ane@" not in answer.text
    assert "49301234567" not in answer.text


def test_the_pixel_gets_digests_without_the_appendix_that_it_would_hash_again() -> None:
    digest = sha256(b"jane@example.com").hexdigest()
    made = f"{digest}.AQQCAQMC"
    site = Site(page, user_data=lambda request: {"em": made}, advanced_matching=True)
    answer = site.client.get("/")
    assert data_of(answer.text)["p"][0]["am"] == {"em": digest}
    assert site.sent()[0]["user_data"]["em"] == [made]


def test_without_advanced_matching_the_page_knows_nothing_of_the_visitor() -> None:
    site = Site(page, user_data={"em": "{cookie.mail}"})
    answer = site.client.get("/", headers={"cookie": "mail=jane@example.com"})
    assert data_of(answer.text)["p"] == [{"id": PIXEL_ID}]


# -- what Meta would refuse ----------------------------------------------------------------------


def test_a_bad_event_is_refused_at_track_in_debug() -> None:
    errors: list[str] = []

    def view(request: Request) -> HTMLResponse:
        for given in (
            {"value": 5},
            {"value": float("nan"), "currency": "EUR"},
            {"currency": "US$"},
        ):
            with pytest.raises(ValueError, match="Purchase: found") as caught:
                track("Purchase", **given)
            errors.append(str(caught.value))
        return HTMLResponse(PAGE)

    site = Site(view, debug=True)
    assert site.client.get("/").status_code == 200
    assert len(errors) == 3
    with pytest.raises(ValueError, match="value and currency"):
        site.capi.track("Purchase", value=5)


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        (None, "value and currency"),
        ({"value": "{query.sum}", "currency": "EUR"}, "value"),
        ({"value": 12.5}, "currency"),
    ],
)
def test_a_route_whose_purchase_meta_would_refuse_is_one_warning_and_an_error_each_in_debug(
    data: dict[str, Any] | None, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    route = EventRoute("GET /thanks", "Purchase", custom_data=data)
    for debug, levels in ((False, ["WARNING"]), (True, ["ERROR", "ERROR"])):
        caplog.clear()
        site = Site(page, debug=debug, routes=[route])
        for _ in range(2):
            site.client.get("/thanks?total=jane@example.com")
        assert names(site.sent()) == ["PageView", "PageView"]
        told = [one for one in caplog.records if "Purchase of" in one.getMessage()]
        assert [one.levelname for one in told] == levels
        start = (
            f"found a Purchase of EventRoute('GET /thanks') without a usable {missing}, expected"
        )
        assert all(one.getMessage().startswith(start) for one in told)
        ours = [one for one in caplog.records if one.name.startswith("capi_middleware")]
        assert "jane" not in "".join(one.getMessage() for one in ours)
        window = last_day(site.capi.issuer.clock())
        report = read_report(site.capi.store, site.capi.config, window)
        (flag,) = [one for one in report.flags if one.code == "delivery_dropped"]
        assert "a Purchase its value and currency" in flag.explanation
        assert "queue_limit" not in flag.fix


def test_a_bad_event_is_counted_and_left_out_in_production() -> None:
    def view(request: Request) -> HTMLResponse:
        track("Purchase", value=float("nan"), currency="EUR")
        return HTMLResponse(PAGE)

    site = Site(view)
    assert site.client.get("/").status_code == 200
    assert names(site.sent()) == ["PageView"]
    assert site.counts("dropped") == {("Purchase", "invalid"): 1}
    assert site.counts("left_out") == {("Purchase", "value"): 1}


def test_user_data_that_cannot_be_normalised_is_counted_by_key() -> None:
    def view(request: Request) -> HTMLResponse:
        track("Lead", user_data=UserData(em="nobody", ph=["12", "+4930123456"]))
        return HTMLResponse(PAGE)

    site = Site(view)
    site.client.get("/")
    assert site.counts("left_out") == {("", "user_data.em"): 1, ("", "user_data.ph"): 1}
    lead = next(event for event in site.sent() if event["event_name"] == "Lead")
    assert "em" not in lead["user_data"]
    assert len(lead["user_data"]["ph"]) == 1


def test_without_a_user_agent_an_event_does_not_claim_to_be_of_a_website() -> None:
    site = Site(page)
    site.client.get("/", headers={"user-agent": ""})
    assert [event["action_source"] for event in site.sent()] == ["system_generated"]


@pytest.mark.parametrize(
    "make",
    [
        lambda mapping: make_config(user_data=mapping),
        lambda mapping: EventRoute("GET /", "Lead", user_data=mapping),
    ],
    ids=["config", "route"],
)
def test_a_key_that_user_data_does_not_have_is_refused_at_start_up(
    make: Callable[[dict[str, str]], Any],
) -> None:
    with pytest.raises(ConfigError, match="e_mail"):
        make({"e_mail": "{form.email}"})


ORDER = {"value": "9.5", "currency": "EUR"}


def test_an_order_that_is_shown_twice_looks_repeated_and_is_a_flag() -> None:
    site = Site(page, routes=[EventRoute("GET /thanks", "Purchase", custom_data=ORDER)])
    for _ in range(2):
        site.client.get("/thanks")
    assert site.counts("repeated") == {("Purchase", ""): 1}
    report = site.client.get(
        "/_capi/parity.json", headers={"authorization": "Bearer the-report-token"}
    )
    (flag,) = [one for one in report.json()["flags"] if one["code"] == "repeated_events"]
    assert "dedupe_key" in flag["fix"]


def test_two_of_a_kind_in_the_cart_are_no_repetition() -> None:
    site = Site(page, routes=[EventRoute("GET /thanks", "AddToCart", custom_data=ORDER)])
    for _ in range(2):
        site.client.get("/thanks")
    assert site.counts("repeated") == {}


@pytest.mark.parametrize("change", ["value", "visitor", "dedupe_key"])
def test_another_value_visitor_or_a_dedupe_key_is_no_repetition(change: str) -> None:
    order: dict[str, Any] = {**ORDER, "value": "{query.value}"}
    key = "{query.order}" if change == "dedupe_key" else None
    route = EventRoute("GET /thanks", "Purchase", custom_data=order, dedupe_key=key)
    site = Site(page, routes=[route])
    site.client.get("/thanks?value=9.5&order=1")
    if change == "visitor":
        site.client.cookies.clear()
        site.client.headers["user-agent"] = "Mozilla/5.0 (another)"
    site.client.get(f"/thanks?order=1&value={8 if change == 'value' else 9.5}")
    assert site.counts("repeated") == {}


def test_the_question_of_a_public_page_issues_what_only_the_server_sends_too() -> None:
    async def view(request: Request) -> HTMLResponse:
        return HTMLResponse(PAGE, headers={"cache-control": "public, max-age=60"})

    site = Site(view, routes=[EventRoute("GET /", "Contact", send="server")])
    given = question(site.client.get("/").text, "http://testserver/")
    answer = site.client.post("/_capi/t", json=given)
    assert [one["n"] for one in answer.json()["e"]] == ["PageView"]
    assert names(site.sent()) == ["Contact", "PageView"]


# -- a payment provider's form that leads back ---------------------------------------------------

FBP = "fb.1.1700000000000.42"


@pytest.mark.parametrize(
    "said",
    [
        {"sec-fetch-site": "cross-site", "origin": "https://pay.example"},
        {"origin": "https://pay.example"},
        {"origin": "null"},
    ],
    ids=["browser", "old browser", "old browser that hides"],
)
def test_what_another_site_posts_makes_no_fbp_and_overwrites_none(said: dict[str, str]) -> None:
    def view(request: Request) -> HTMLResponse:
        track("Purchase", value=9, currency="EUR", send="server")
        return HTMLResponse(PAGE)

    site = Site(view, page_view=False)
    answer = site.client.post("/return", headers=said)
    assert "set-cookie" not in answer.headers
    assert "fbp" not in site.sent()[0]["user_data"]
    site.client.post("/return", headers={**said, "cookie": f"_fbp={FBP}"})
    assert site.sent()[0]["user_data"]["fbp"] == FBP


@pytest.mark.parametrize(
    "said",
    [
        {"sec-fetch-site": "same-origin", "origin": "http://testserver"},
        {"sec-fetch-site": "none"},
        {"origin": "http://testserver"},
        {},
    ],
    ids=["form", "typed", "old browser", "no browser"],
)
def test_what_the_site_posts_makes_one(said: dict[str, str]) -> None:
    answer = Site(page).client.post("/", headers=said)
    assert "_fbp=" in answer.headers["set-cookie"]


@pytest.mark.parametrize(("agent", "n"), [("Mozilla/5.0", 1), ("Mozilla/5.0 another", 0)])
def test_the_purchase_of_a_payment_return_is_fired_on_the_page_it_leads_to(
    agent: str, n: int
) -> None:
    def view(request: Request) -> Any:
        if request.method == "GET":
            return HTMLResponse(PAGE)
        track("Purchase", value=9, currency="EUR")
        return RedirectResponse("/thanks", 303)

    site = Site(view, page_view=False)
    said = {"sec-fetch-site": "cross-site"}
    answer = site.client.post("/return", headers=said, follow_redirects=False)
    assert "_fbp" not in str(answer.headers.get_list("set-cookie"))
    carried = site.client.cookies["capi_next"]
    headers = {"user-agent": agent, "cookie": f"_fbp={FBP}; capi_next={carried}"}
    site.client.cookies.clear()
    body = site.client.get("/thanks", headers=headers).text
    assert len(data_of(body).get("e", [])) == n


def test_where_browser_and_server_see_other_families_of_addresses_it_is_counted() -> None:
    site = Site(page, trusted_proxies=["unix", "127.0.0.0/8"])
    site.client = TestClient(site.client.app, headers=AGENT, client=("127.0.0.1", 9))
    for by_server in ("203.0.113.7", "203.0.113.8", "2001:db8::8"):
        headers = {"x-forwarded-for": by_server, "cookie": f"_fbp={FBP}; _fbi=2001:db8::7"}
        site.client.get("/", headers=headers)
    site.client.get("/", headers={"x-forwarded-for": "203.0.113.7"})
    addresses = [one["user_data"]["client_ip_address"] for one in site.sent()]
    assert addresses == ["2001:db8::7"] * 3 + ["203.0.113.7"]
    assert site.counts("ip_family") == {("", "IPv6 IPv4"): 2, ("", "IPv6 IPv6"): 1}
