"""Each tenant's pages have its own pixels, and what comes back from one is no other's."""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from capi_middleware import CAPI, CAPIMiddleware, EventRoute, Pixel, Tenant, track, wsgi
from capi_middleware.capture.limits import Allowance
from capi_middleware.request import visit
from tests.support.blocks import block_of, question
from tests.support.configs import make_config

PAGE = "<!doctype html><title>x</title><p>hi"
FIRST = Tenant("first", [Pixel("111", access_token="a"), Pixel("112", access_token="b")])
SECOND = Tenant("second", [Pixel("222", access_token="c")])
TENANTS = {one.key: one for one in (FIRST, SECOND)}
ROUTES = [EventRoute("GET /thanks/{id}", "Purchase", dedupe_key="{path.id}",
                     custom_data={"value": 5, "currency": "EUR"})]  # fmt: skip


def by_host(request: Any) -> str | None:
    host: str = request.headers["host"]
    return host.removesuffix(".shops.example") if host.endswith(".shops.example") else None


async def view(request: Request) -> Response:
    if request.url.path == "/buy":
        track("Lead", pixels=["112"])
        return RedirectResponse("/", 303)
    if request.url.path == "/tracked":
        track("Lead")
    kept = {"cache-control": "public, max-age=60"} if request.url.path == "/cached" else {}
    return HTMLResponse(PAGE, headers=kept)


class Platform:
    """A site of many shops, each under a host of its own."""

    def __init__(self, **settings: Any) -> None:
        given = {"pixels": by_host, "tenant": TENANTS.get, "routes": ROUTES, **settings}
        self.capi = CAPI(make_config(**given))
        app = Starlette(routes=[Route("/{path:path}", view, methods=["GET", "POST"])])
        self.app = CAPIMiddleware(app, self.capi)

    def client(self, key: str) -> TestClient:
        agent = {"user-agent": "Mozilla/5.0"}
        return TestClient(self.app, f"http://{key}.shops.example", headers=agent)

    def limit_strangers(self, n: int) -> None:
        """Strangers make us ask for so many keys, and never again."""
        tenants = self.capi.issuer.tenants
        assert tenants is not None
        tenants._strangers = Allowance(rate=0.0, burst=n, of_all=1)

    def rows(self) -> list[tuple[str, str, str]]:
        """(event_name, pixel, browser) of all that is stored."""
        self.capi.store.flush(5)
        found = self.capi.store.tallies(0, 1e12).rows
        return sorted((one.event_name, one.pixel_id, one.browser) for one in found)

    def refused(self) -> dict[str, int]:
        counts = self.capi.store.tallies(0, 1e12).counts
        return {one.reason: one.n for one in counts if one.kind == "beacon"}


@pytest.fixture
def site() -> Iterator[Platform]:
    made = Platform()
    yield made
    made.capi.close()


def test_a_page_has_the_pixels_of_its_tenant_under_metas_numbers(site: Platform) -> None:
    block = block_of(site.client("first").get("/").text)
    assert [one["id"] for one in block["p"]] == ["111", "112"]
    assert block["e"][0]["p"] == ["111", "112"]
    assert [one["id"] for one in block_of(site.client("second").get("/").text)["p"]] == ["222"]
    assert [one[1] for one in site.rows()] == ["111@first", "112@first", "222@second"]


@pytest.mark.parametrize("key", ["nobody", "www.first", "no key"])
def test_a_page_of_nobody_has_no_tag(site: Platform, key: str) -> None:
    answer = site.client("first").get("/thanks/1", headers={"host": f"{key}.shops.example"})
    assert answer.text == PAGE
    assert site.rows() == []


def test_a_rule_that_fails_leaves_the_page_as_it_is(swallowed: list[BaseException]) -> None:
    site = Platform(pixels=lambda _: 1 / 0)
    assert site.client("first").get("/").text == PAGE
    assert [type(one) for one in swallowed] == [ZeroDivisionError]
    swallowed.clear()


def test_a_look_up_that_fails_leaves_the_page_as_it_is(swallowed: list[BaseException]) -> None:
    def away(key: str) -> Tenant | None:
        raise OSError

    site = Platform(tenant=away)
    assert site.client("first").get("/tracked").text == PAGE
    assert {type(one) for one in swallowed} == {OSError}
    swallowed.clear()


def test_a_look_up_that_hangs_leaves_the_page_as_it_is(
    swallowed: list[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visit, "HOST_SECONDS", 0.05)
    gate = threading.Event()

    def look_up(key: str) -> Tenant | None:
        gate.wait(60)
        return TENANTS.get(key)

    site = Platform(tenant=look_up)

    async def ask() -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(site.app)) as client:
            agent = {"user-agent": "Mozilla/5.0"}
            answer = await client.get("http://first.shops.example/tracked", headers=agent)
        gate.set()
        return answer.text

    assert asyncio.run(ask()) == PAGE
    assert {type(one) for one in swallowed} == {TimeoutError}
    swallowed.clear()
    site.capi.close()


def test_a_crowd_of_made_up_hosts_is_asked_for_in_part_and_the_rest_counted() -> None:
    keys: list[str] = []

    def look_up(key: str) -> Tenant | None:
        keys.append(key)
        return TENANTS.get(key)

    site = Platform(tenant=look_up)
    site.limit_strangers(4)
    site.client("first").get("/")
    for n in range(8):
        assert site.client(f"made-up-{n}").get("/").text == PAGE
    counts = site.capi.store.tallies(0, 1e12).counts
    assert sum(one.n for one in counts if one.reason == "too_many_tenants") == 5
    assert keys == ["first", "made-up-0", "made-up-1", "made-up-2"]
    assert [one["id"] for one in block_of(site.client("first").get("/").text)["p"]] == [
        "111",
        "112",
    ]
    site.capi.close()


def test_the_look_up_may_be_asynchronous() -> None:
    async def look_up(key: str) -> Tenant | None:
        return TENANTS.get(key)

    site = Platform(tenant=look_up)
    assert block_of(site.client("second").get("/").text)["p"] == [{"id": "222"}]


def test_what_a_view_tracks_is_its_tenants(site: Platform) -> None:
    site.client("second").get("/tracked")
    assert [one[:2] for one in site.rows()] == [("Lead", "222@second"), ("PageView", "222@second")]


def test_a_view_may_choose_pixels_by_metas_number(site: Platform) -> None:
    site.client("first").post("/buy", follow_redirects=False)
    assert [one[:2] for one in site.rows()] == [("Lead", "112@first")]


def test_two_shops_may_have_an_order_of_the_same_number(site: Platform) -> None:
    ids = [
        [one["i"] for one in block_of(site.client(key).get("/thanks/1001").text)["e"]][-1]
        for key in ("first", "second", "first")
    ]
    assert ids[0] == ids[2] != ids[1]
    bought = [one[1] for one in site.rows() if one[0] == "Purchase"]
    assert bought == ["111@first", "112@first", "222@second"]


def test_a_redirect_sends_events_on_to_a_page_of_the_same_tenant(site: Platform) -> None:
    client = site.client("first")
    client.post("/buy", follow_redirects=False)
    told = block_of(client.get("/").text)["e"]
    assert ("Lead", ["112"]) in [(one["n"], one["p"]) for one in told]
    assert {one[1] for one in site.rows()} == {"111@first", "112@first"}


def test_a_cached_page_asks_for_its_tenants_events(site: Platform) -> None:
    client = site.client("second")
    text = client.get("/cached").text
    assert block_of(text)["p"] == [{"id": "222"}]
    told = client.post("/_capi/t", json=question(text, "http://second.shops.example/cached"))
    assert [one["p"] for one in told.json()["e"]] == [["222"]]


# -- what comes back ---------------------------------------------------------------------------


def beacon(client: TestClient, block: dict[str, Any], pixel: str, key: Any = None) -> int:
    event = block["e"][0]
    body = {"e": [[event["i"], event["n"], pixel, "sent"]], "k": key or block["k"]}
    given = {"content-type": "text/plain"}
    return client.post("/_capi/b", content=json.dumps(body), headers=given).status_code


def test_a_beacon_is_about_the_pixels_of_the_pages_tenant(site: Platform) -> None:
    client = site.client("second")
    assert beacon(client, block_of(client.get("/").text), "222") == 204
    assert site.rows() == [("PageView", "222@second", "sent")]


@pytest.mark.parametrize("pixel", ["222", "222@second", "111@first", "999"])
def test_a_beacon_about_another_tenants_pixel_changes_nothing(site: Platform, pixel: str) -> None:
    client = site.client("first")
    block = block_of(client.get("/").text)
    before = site.rows()
    beacon(client, block, pixel)
    assert site.rows() == before
    assert site.refused() == {"unknown_pixel": 1}


def test_a_visitor_of_one_shop_tells_nothing_of_another_by_its_key(site: Platform) -> None:
    first, second = (block_of(site.client(key).get("/").text) for key in ("first", "second"))
    before = site.rows()
    beacon(site.client("second"), first, "222", second["k"])
    beacon(site.client("second"), first, "222", [second["k"][0], *first["k"][1:]])
    # Under the key of its own page it is an event_id like any other that a browser makes up: apart.
    assert site.rows() == before
    assert site.refused() == {"unknown_pixel": 1}


def mirrored(client: TestClient, key: Any, host: str, pixels: list[str]) -> int:
    call = {"n": "Contact", "i": "own-1", "p": pixels}
    body = {"u": f"http://{host}.shops.example/", "k": key, "m": [call]}
    return client.post("/_capi/t", json=body).status_code


def test_what_a_pages_own_code_fires_is_its_tenants() -> None:
    site = Platform(mirror=["Contact"])
    client = site.client("second")
    key = block_of(client.get("/").text)["k"]
    assert mirrored(client, key, "second", ["222", "111"]) == 204
    assert ("Contact", "222@second") in [one[:2] for one in site.rows()]
    assert {one[1] for one in site.rows()} == {"222@second"}


def test_a_key_of_one_shop_mirrors_nothing_to_another() -> None:
    site = Platform(mirror=["Contact"])
    key = block_of(site.client("first").get("/").text)["k"]
    mirrored(site.client("second"), key, "second", ["222"])
    assert "222@second" not in [one[1] for one in site.rows()]


def test_a_wsgi_app_has_tenants_too() -> None:
    capi = CAPI(make_config(pixels=by_host, tenant=TENANTS.get))

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("content-type", "text/html; charset=utf-8")])
        return [PAGE.encode()]

    environ = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/", "QUERY_STRING": "",
        "SERVER_NAME": "x", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "second.shops.example", "HTTP_USER_AGENT": "Mozilla/5.0",
        "REMOTE_ADDR": "203.0.113.9", "wsgi.url_scheme": "http",
    }  # fmt: skip
    body = b"".join(wsgi.CAPIMiddleware(app, capi)(environ, lambda *_: print))
    assert block_of(body.decode())["p"] == [{"id": "222"}]
