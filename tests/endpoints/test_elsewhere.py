"""Pages that the app does not answer: who may ask from where, and what their questions cause."""

import asyncio
import io
import json
from typing import Any
from urllib.parse import quote

import pytest
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.testclient import TestClient

from capi_middleware import CAPI, ConfigError, EventRoute, track
from capi_middleware.page.tag import script_version
from tests.request.test_events import Site
from tests.support.configs import PIXEL_ID, make_config
from tests.support.exchanges import environ_for, scope_for, through_asgi, through_wsgi

SHOP, API = "https://www.shop.example", "https://api.shop.example"
FRONT = "https://www.front.example"
FBP = "fb.1.1700000000000.123456789"
ROUTES = [
    EventRoute("GET https://www.shop.example/products/{sku}", "ViewContent",
               custom_data={"content_ids": ["{path.sku}"], "value": "{query.price}"}),
    EventRoute("GET /search", "Search"),
    EventRoute("GET /thanks/{n}", "Purchase", custom_data={"value": 9, "currency": "EUR"}),
    EventRoute("POST /cart", "AddToCart"),
]  # fmt: skip
OTHERS = [
    "https://evil.example", "http://www.shop.example", "https://www.shop.example.evil.example",
    "https://www.shop.example:8443", "https://shop.example", "null", "*",
]  # fmt: skip


async def view(request: Request) -> Response:
    track("Lead")
    return JSONResponse({})


def api(**settings: Any) -> Site:
    site = Site(view, **{"routes": ROUTES, "origins": [SHOP, FRONT], **settings})
    site.client.base_url = API
    return site


def ask(site: Site, url: str, origin: str = SHOP, site_of: str = "same-site", **more: Any) -> Any:
    headers = {"origin": origin, "sec-fetch-site": site_of, **more.pop("headers", {})}
    return site.client.post("/_capi/t", json={"u": url, **more}, headers=headers)


def told(answer: Any) -> list[str]:
    return sorted(one["n"] for one in answer.json()["e"])


def test_a_page_of_a_named_origin_gets_the_events_of_its_address_with_their_server_copies() -> None:
    site = api()
    answer = ask(site, f"{SHOP}/products/cup?utm_source=x", r=f"{SHOP}/start")
    assert told(answer) == ["PageView", "ViewContent"]
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["vary"] == "Origin"
    sent = {one["event_name"]: one for one in site.sent()}
    assert {one["event_id"] for one in sent.values()} == {one["i"] for one in answer.json()["e"]}
    for event in sent.values():
        assert event["event_source_url"] == f"{SHOP}/products/cup?utm_source=x"
        assert event["referrer_url"] == f"{SHOP}/start"
    assert sent["ViewContent"]["custom_data"] == {"content_ids": ["cup"]}


def test_what_the_own_code_of_such_a_page_fires_is_the_browser_s_also_after_a_step() -> None:
    site = api()
    key = ask(site, f"{SHOP}/products/cup").json()["k"]
    for n, at in enumerate(("/products/cup", "/step/2")):
        call = {"n": "Contact", "i": f"m{key[1][1:20]}-{n}", "p": [PIXEL_ID], "b": True}
        more = {"k": key, "o": f"{SHOP}/products/cup", "m": [call]}
        assert ask(site, f"{SHOP}{at}", **more).status_code == 204
    assert sum(site.counts("unmapped").values()) == 2


def test_a_route_with_a_host_takes_no_page_of_another() -> None:
    assert told(ask(api(), f"{FRONT}/products/cup", FRONT)) == ["PageView"]


def test_a_route_with_a_host_takes_the_app_s_own_requests_of_that_host_alone() -> None:
    site = Site(view, routes=[EventRoute("GET https://a.example/p", "Contact")])
    site.client.get("https://a.example/p")
    site.client.get("https://b.example/p")
    assert sorted(one["event_name"] for one in site.sent()) == ["Contact", "Lead", "Lead"]


def beacon_of(event_id: str, state: str = "sent") -> str:
    return json.dumps({"e": [[event_id, "PageView", PIXEL_ID, state]]})


UNSIGNED = beacon_of("t".ljust(20, "-") + "." + "x" * 43)


@pytest.mark.parametrize("origin", OTHERS)
@pytest.mark.parametrize("path", ["t", "b"])
def test_a_page_of_any_other_origin_is_refused_without_a_header_and_counted(
    path: str, origin: str
) -> None:
    site = api()
    # Who hides its origin is read: it may be a page of ours.
    body = UNSIGNED if (path, origin) == ("b", "null") else json.dumps({"u": f"{origin}/"})
    for method in ("POST", "OPTIONS"):
        answer = site.client.request(
            method, f"/_capi/{path}", content=body,
            headers={"origin": origin, "sec-fetch-site": "same-site"},
        )  # fmt: skip
        assert answer.status_code == 403
        assert not [one for one in answer.headers if one.startswith("access-control")]
    assert site.sent() == []
    refused = site.counts("beacon")
    forged = refused.pop(("", "forged"), 0)
    assert refused == {("", "origin"): 2}
    assert forged == (body == UNSIGNED)


#: What tells no origin: sendBeacon and an image of a page with Referrer-Policy: no-referrer.
HIDDEN: dict[str, Any] = {"POST": {"origin": "null"}, "GET": {}}


@pytest.mark.parametrize("method", HIDDEN)
@pytest.mark.parametrize("site_of", ["same-site", "cross-site"])
def test_a_beacon_that_hides_its_origin_is_heard_by_what_is_signed_in_it(
    method: str, site_of: str
) -> None:
    site = api()
    page = ask(site, f"{SHOP}/search").json()
    headers = {**HIDDEN[method], "sec-fetch-site": site_of}

    def tell(body: str, **more: str) -> int:
        about: Any = {"content": body} if method == "POST" else {"params": {"e": body}}
        told = {**headers, **more}
        return int(site.client.request(method, "/_capi/b", headers=told, **about).status_code)

    def states() -> list[str]:
        rows = site.capi.store.tallies(0, 1e12).rows
        return [one.browser for one in rows if one.event_name == "PageView"]

    mine = {one["n"]: one["i"] for one in page["e"]}
    before = states()
    assert tell(UNSIGNED) == tell(beacon_of(mine["Search"])) == 403  # signed for another name
    assert tell("{}") == 400
    assert tell(beacon_of(mine["PageView"]), **{"content-encoding": "br"}) == 415
    assert states() == before
    assert tell(beacon_of(mine["PageView"])) == 204
    assert states() == ["sent"]
    # Its key speaks for what the page's own code fired.
    own = {"e": [["own-1", "Contact", PIXEL_ID, "sent"]], "k": page["k"]}
    assert tell(json.dumps(own)) == 204
    # No question comes that way: those tell their origin (CORS).
    asked = json.dumps({"u": f"{SHOP}/search", "k": page["k"]})
    if method == "POST":
        assert site.client.post("/_capi/t", content=asked, headers=headers).status_code == 403


def test_an_origin_speaks_for_its_own_pages_alone() -> None:
    site = api()
    assert ask(site, f"{FRONT}/search", SHOP).status_code == 403
    assert site.sent() == []


def test_without_origins_nothing_is_shared() -> None:
    site = api(origins=[])
    answer = ask(site, f"{SHOP}/search")
    assert answer.status_code == 403
    assert not {"access-control-allow-origin", "vary"} & answer.headers.keys()
    assert site.client.options("/_capi/t", headers={"origin": SHOP}).status_code == 405
    assert site.client.get("/_capi/s.mjs").status_code == 404


def test_an_address_alone_brings_no_order() -> None:
    site = api()
    assert told(ask(site, f"{SHOP}/thanks/7")) == ["PageView"]
    assert site.counts("suppressed") == {("Purchase", "script_address"): 1}


@pytest.mark.parametrize(
    ("settings", "names"),
    [({}, ["PageView", "ViewContent"]), ({"exclude": ["/docs"]}, [])],
)
def test_the_usual_paths_of_the_app_s_own_staff_are_ordinary_ones_elsewhere(
    settings: dict[str, Any], names: list[str]
) -> None:
    site = api(routes=[EventRoute("* /{any:path}", "ViewContent")], **settings)
    assert told(ask(site, f"{SHOP}/docs/prices")) == names


def test_what_one_visitor_opens_there_has_a_budget_for_each_origin() -> None:
    site = api()
    answers = [ask(site, f"{SHOP}/search", headers={"x": "y"}) for _ in range(3)]
    assert {one.status_code for one in answers} == {200}
    scope = {
        "method": "POST", "scheme": "https", "path": "/_capi/t",
        "headers": {"host": "api.shop.example", "origin": SHOP, "user-agent": "Mozilla/5.0"},
    }  # fmt: skip
    capi = site.capi
    capi.issuer.clock = lambda: 1e9

    def opens(origin: str) -> str:
        asked = {**scope, "headers": {**scope["headers"], "origin": origin}}  # type: ignore[dict-item]
        body = json.dumps({"u": f"{origin}/"}).encode()
        environ = environ_for(
            asked, **{"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        )
        environ["REMOTE_ADDR"] = "8.8.8.8"
        return through_wsgi(capi, environ, lambda *_: []).status

    answers = [opens(SHOP) for _ in range(121)]
    assert {*answers[:120]} == {"200 OK"}
    assert answers[120] == "429 Too Many Requests"
    assert opens(FRONT) == "200 OK"
    assert site.counts("beacon") == {("", "origin_budget"): 1}


# -- whose cookies ---------------------------------------------------------------------------------


def test_a_page_of_the_same_site_has_the_site_s_own_cookies() -> None:
    answer = ask(api(), f"{SHOP}/?fbclid=Click.1")
    cookies = answer.headers.get_list("set-cookie")
    assert [one.partition("=")[0] for one in cookies] == ["_fbp", "_fbc"]
    assert all("Domain=.shop.example" in one for one in cookies)
    assert "j" not in answer.json()


def test_a_page_of_another_site_sets_its_own_and_sends_them_along() -> None:
    site = api()
    answer = ask(site, f"{FRONT}/?fbclid=Click.1", FRONT, "cross-site")
    assert "set-cookie" not in answer.headers
    cookies = answer.json()["j"]
    assert [one.partition("=")[0] for one in cookies] == ["_fbp", "_fbc"]
    assert all("Domain=.front.example" in one and "Secure" in one for one in cookies)
    first = site.sent()[0]["user_data"]
    kept = "; ".join(one.partition(";")[0] for one in cookies)
    again = ask(site, f"{FRONT}/", FRONT, "cross-site", j=kept)
    assert "j" not in again.json()
    second = site.sent()[0]["user_data"]
    assert (first["fbp"], first["fbc"]) == (second["fbp"], second["fbc"])
    assert f"_fbp={first['fbp']}" in kept


@pytest.mark.parametrize("bad", ["_fbp=x", "_fbp=fb.1.1700000000000.1\r\nset-cookie: a=b"])
def test_a_cookie_that_is_none_of_meta_s_is_not_taken_from_a_page(bad: str) -> None:
    site = api()
    answer = ask(site, f"{FRONT}/", FRONT, "cross-site", j=bad)
    (event,) = site.sent()
    assert event["user_data"]["fbp"] in answer.json()["j"][0]


def test_a_banner_s_cookie_of_the_page_decides() -> None:
    site = api(consent={"rule": "onetrust"})
    refused = "OptanonAlertBoxClosed=1; OptanonConsent=groups=C0004:0"
    no = ask(site, f"{FRONT}/", FRONT, "cross-site", j=refused)
    assert no.json() == {"e": [], "x": "denied"}
    yes = ask(site, f"{FRONT}/", FRONT, "cross-site", j="OptanonConsent=groups=C0004:1")
    assert told(yes) == ["PageView"]
    for name in (b"OptanonConsent", b"OptanonAlertBoxClosed", b"capi_consent"):
        assert name in site.client.get("/_capi/s.js").content


def test_the_record_of_consent_has_each_page_elsewhere_once_for_each_answer() -> None:
    site = api(consent=lambda request: "unanswered")

    def record() -> dict[str, int]:
        counts = site.capi.store.tallies(0, 1e12).counts
        return {one.reason: one.n for one in counts if one.kind == "consent"}

    def page(**more: Any) -> Any:
        return ask(site, f"{FRONT}/search", FRONT, "cross-site", **more)

    assert page().json() == {"e": [], "x": "unanswered"}
    assert record() == {"callable held": 1}
    yes = page(x="granted")
    assert told(yes) == ["PageView", "Search"]
    wanted = {"callable held": 1, "callable granted": 1, "callable released": 1}
    assert record() == wanted
    key = yes.json()["k"]
    page(x="granted", k=key)  # an address more of a page that is open
    assert record() == wanted
    page(x="denied", k=key, f=True)
    wanted["callable withdrawn"] = 1
    assert record() == wanted
    held = called(site, FRONT, "cross-site").headers["x-capi-events"]
    page(x="denied", k=key, g=json.loads(held)["g"])  # what an answer brought is dropped
    assert record() == wanted
    page(x="denied")
    assert record() == {**wanted, "callable denied": 1}
    page(x="denied", g=json.loads(held)["g"])  # of the same page, which never got a key
    assert record() == {**wanted, "callable denied": 1}


def test_where_a_proxy_says_which_host_was_asked_the_page_is_still_that_of_its_origin() -> None:
    site = Site(view, routes=ROUTES, origins=[SHOP], trusted_proxies=["10.0.0.0/8"])
    scope = scope_for(
        {
            "method": "POST", "scheme": "http", "path": "/_capi/t",
            "headers": {
                "host": "10.0.0.3", "origin": SHOP, "user-agent": "Mozilla/5.0",
                "x-forwarded-for": "8.8.8.8", "x-forwarded-host": "api.shop.example",
                "x-forwarded-proto": "https",
            },
        },
        client=("10.0.0.2", 1), root_path="/api",
    )  # fmt: skip
    scope["path"] = scope["raw_path"] = "/api/_capi/t"
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": json.dumps({"u": f"{SHOP}/search"}).encode()}

    async def send(message: Any) -> None:
        sent.append(message)

    async def play() -> None:
        await site.client.app(scope, receive, send)

    asyncio.run(play())
    assert sent[0]["status"] == 200
    for event in site.sent():
        assert event["event_source_url"] == f"{SHOP}/search"
        assert event["user_data"]["client_ip_address"] == "8.8.8.8"


# -- events of the API's own answers ---------------------------------------------------------------


def called(site: Site, origin: str, site_of: str, **headers: str) -> Any:
    given = {"origin": origin, "sec-fetch-site": site_of, "sec-fetch-mode": "cors",
             "sec-fetch-dest": "empty", **headers}  # fmt: skip
    return site.client.post("/cart", headers=given)


@pytest.mark.parametrize("site_of", ["same-site", "cross-site"])
def test_an_answer_s_events_can_be_read_by_the_page_and_name_it(site_of: str) -> None:
    site, origin = api(), SHOP if site_of == "same-site" else FRONT
    answer = called(site, origin, site_of, referer=f"{origin}/products/cup")
    assert [one["n"] for one in json.loads(answer.headers["x-capi-events"])] == [
        "Lead", "AddToCart"
    ]  # fmt: skip
    assert answer.headers["access-control-expose-headers"] == "x-capi-events"
    assert {one["event_source_url"] for one in site.sent()} == {f"{origin}/products/cup"}


def test_a_page_that_says_nothing_but_its_origin_is_named_by_it() -> None:
    site = api()
    called(site, FRONT, "cross-site")
    assert {one["event_source_url"] for one in site.sent()} == {f"{FRONT}/"}


def test_a_call_says_in_its_referer_whose_it_is_and_meta_gets_no_word_of_that() -> None:
    site, jar = api(consent={"rule": "onetrust"}), f"_fbp={FBP}; OptanonConsent=groups=C0004:1"
    called(site, FRONT, "cross-site", referer=f"{FRONT}/p?x=1&_capi={quote(jar)}")
    for event in site.sent():
        assert event["user_data"]["fbp"] == FBP
        assert event["event_source_url"] == f"{FRONT}/p?x=1"


@pytest.mark.parametrize(
    ("origin", "jar"), [("https://evil.example", f"_fbp={FBP}"), (FRONT, f"_fbp={FBP}\n;a=b")]
)
def test_what_no_page_of_ours_says_so_is_nobody_s_cookie(origin: str, jar: str) -> None:
    site = api()
    called(site, origin, "same-site", referer=f"{origin}/p?_capi={quote(jar)}")
    sent = site.sent()
    assert sent
    assert "fbp" not in str(sent)


def test_where_a_page_may_not_connect_its_beacon_is_an_image_without_an_origin() -> None:
    site = api()
    event_id = ask(site, f"{SHOP}/search").json()["e"][0]["i"]
    told = beacon_of(event_id, "csp")
    for referer, status in ((f"{SHOP}/", 204), ("https://evil.example/", 403)):
        headers = {"referer": referer, "sec-fetch-site": "same-site"}
        answer = site.client.get("/_capi/b", params={"e": told}, headers=headers)
        assert answer.status_code == status
    rows = site.capi.store.tallies(0, 1e12).rows
    assert [one.browser for one in rows if one.event_name == "PageView"] == ["csp"]


def test_a_call_of_another_site_is_nobody_s_and_shows_nothing() -> None:
    site = api()
    answer = called(site, "https://evil.example", "cross-site")
    assert not {"x-capi-events", "access-control-expose-headers"} & answer.headers.keys()
    assert site.sent() == []


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "around"])
def test_the_app_s_own_cors_stays_as_it_is(inside: bool) -> None:
    site = api()
    own = {"allow_origins": [SHOP], "allow_credentials": True, "allow_methods": ["POST"]}
    middleware: Any = site.client.app
    if inside:
        middleware.app = CORSMiddleware(middleware.app, expose_headers=["x-total"], **own)  # type: ignore[arg-type]
    else:
        site.client.app = CORSMiddleware(middleware, **own)  # type: ignore[arg-type]
    site = site if inside else _around(site)
    asked = {"access-control-request-method": "POST"}
    preflight = site.client.options("/cart", headers={"origin": SHOP, **asked})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-methods"] == "POST"
    answer = called(site, SHOP, "same-site")
    for name in ("access-control-allow-origin", "access-control-expose-headers"):
        assert len(answer.headers.get_list(name)) == 1
    exposed = answer.headers["access-control-expose-headers"]
    assert exposed == ("x-total, x-capi-events" if inside else "x-capi-events")
    assert [one["event_name"] for one in site.sent()] == ["Lead", "AddToCart"]
    mine = ask(site, f"{SHOP}/search")
    assert mine.headers.get_list("access-control-allow-origin") == [SHOP]


def _around(site: Site) -> Site:
    site.client = TestClient(site.client.app, base_url=API, headers={"user-agent": "Mozilla/5.0"})
    return site


def test_what_a_browser_asks_before_a_call_is_no_event_of_a_route_with_any_method() -> None:
    site = Site(view, routes=[EventRoute("* /cart", "AddToCart")], origins=[SHOP])
    middleware: Any = site.client.app
    middleware.app = CORSMiddleware(middleware.app, allow_origins=[SHOP])
    asked = {"origin": SHOP, "access-control-request-method": "GET"}
    assert site.client.options("/cart", headers=asked).status_code == 200
    assert site.sent() == []


# -- our own preflights, and the script ------------------------------------------------------------


@pytest.mark.parametrize("door", ["asgi", "wsgi"])
def test_a_preflight_of_our_endpoints_is_answered_at_each_door(door: str) -> None:
    capi = CAPI(make_config(origins=[SHOP]))
    request = {
        "method": "OPTIONS", "scheme": "https", "path": "/_capi/t",
        "headers": {"host": "api.shop.example", "origin": SHOP,
                    "access-control-request-method": "POST"},
    }  # fmt: skip
    if door == "asgi":
        answer = through_asgi(capi, scope_for(request), [])
        assert answer.status == "204"
    else:
        answer = through_wsgi(capi, environ_for(request), lambda *_: [])
        assert answer.status == "204 No Content"
    headers = dict(answer.headers)
    assert headers["access-control-allow-origin"] == SHOP
    assert "POST" in headers["access-control-allow-methods"]


@pytest.mark.parametrize("name", ["s.js", "s.mjs"])
def test_the_script_of_such_a_page_is_asked_for_again_and_comes_once(name: str) -> None:
    site = api()
    answer = site.client.get(f"/_capi/{name}", headers={"origin": SHOP})
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert "immutable" not in answer.headers["cache-control"]
    same = {"if-none-match": answer.headers["etag"]}
    assert site.client.get(f"/_capi/{name}", headers=same).status_code == 304


def test_a_page_with_a_tag_gets_the_script_as_it_is() -> None:
    plain = Site(view).client.get(f"/_capi/s.js?v={script_version()}")
    mine = api().client.get(f"/_capi/s.js?v={script_version()}")
    assert mine.content == plain.content
    assert "immutable" in mine.headers["cache-control"]


@pytest.mark.parametrize(
    "origin", ["*", "null", "www.shop.example", "https://www.shop.example/", "https://Shop.example",
               "https://shop.example:443", "http://shop.example:80", "ftp://shop.example", 7],
)  # fmt: skip
def test_an_origin_is_what_browsers_send(origin: Any) -> None:
    with pytest.raises(ConfigError, match=r"origins: found .*, expected what browsers send"):
        make_config(origins=[origin])


@pytest.mark.parametrize(
    "match", ["GET https://shop.example", "GET ftp://shop.example/p", "GET https:///p"]
)
def test_a_route_s_host_is_part_of_an_address(match: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        EventRoute(match, "Lead")
