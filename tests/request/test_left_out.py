"""Who is left out: pages of `exclude` and those who are `internal`, on both sides and counted."""

from typing import Any

import pytest
from fastapi import FastAPI
from litestar import Litestar, MediaType, get
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import RedocRenderPlugin, SwaggerRenderPlugin
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.testclient import TestClient

from capi_middleware import CAPIMiddleware, EventRoute, Visitor, current_visitor, track
from tests.request.test_events import AGENT, PAGE, Site, names, page
from tests.support.blocks import question

TAG = "data-c>"


def left_out(site: Site) -> set[tuple[str, str]]:
    return set(site.counts("suppressed"))


@pytest.mark.parametrize(
    "path",
    ["/admin/", "/admin", "/admin/orders/7", "/docs", "/docs/oauth2-redirect", "/redoc",
     "/swagger/index.html", "/apidocs/", "/__debug__/render_panel/", "/_debug_toolbar/views"],
)  # fmt: skip
def test_the_pages_of_staff_and_api_docs_are_no_visits_by_default(path: str) -> None:
    site = Site(page)
    answer = site.client.get(path)
    assert (answer.text, answer.headers.get("set-cookie")) == (PAGE, None)
    assert (site.sent(), left_out(site)) == ([], {("PageView", "excluded")})


@pytest.mark.parametrize("path", ["/administration", "/docs-of-cars", "/shop/admin/", "/"])
def test_another_page_is_a_visit(path: str) -> None:
    site = Site(page)
    assert TAG in site.client.get(path).text
    assert names(site.sent()) == ["PageView"]


def test_what_a_route_is_below_is_not_excluded_by_default() -> None:
    site = Site(page, routes=[EventRoute("GET /docs/{name}", "ViewContent")])
    site.client.get("/docs/prices")
    assert names(site.sent()) == ["PageView", "ViewContent"]


def test_what_the_site_excludes_is_left_out_route_or_not_and_all_else_is_not() -> None:
    site = Site(page, exclude=["/desk"], routes=[EventRoute("GET /desk/{n}", "Lead")])
    site.client.get("/desk/7")
    assert left_out(site) == {("PageView", "excluded"), ("Lead", "excluded")}
    site.client.get("/admin/")
    assert names(site.sent()) == ["PageView"]


def test_a_robot_at_an_excluded_page_is_not_counted_as_excluded() -> None:
    site = Site(page)
    site.client.get("/admin/", headers={"user-agent": "Googlebot/2.1"})
    assert left_out(site) == set()


@pytest.mark.parametrize(("settings", "n"), [({}, 0), ({"exclude": ()}, 2)])
def test_fastapi_s_docs_are_left_out_wherever_they_are(settings: dict[str, Any], n: int) -> None:
    site = Site(page, **settings)
    app = FastAPI(docs_url="/api/help", redoc_url="/api/more")
    client = TestClient(CAPIMiddleware(app, site.capi), headers=AGENT)
    shown = [client.get("/api/help").text, client.get("/api/more").text]
    assert sum(TAG in one for one in shown) == n
    assert len(site.sent()) == n


@pytest.mark.parametrize("path", ["/api/help", "/api/help/swagger", "/api/help/redoc"])
def test_litestar_s_docs_are_left_out_wherever_they_are(path: str) -> None:
    @get("/shop", media_type=MediaType.HTML)
    async def shown() -> str:
        return PAGE

    site = Site(page)
    docs = OpenAPIConfig(
        "Shop", "1", path="/api/help", render_plugins=[SwaggerRenderPlugin(), RedocRenderPlugin()]
    )
    client = TestClient(
        CAPIMiddleware(Litestar([shown], openapi_config=docs), site.capi), headers=AGENT
    )
    assert TAG not in client.get(path).text
    assert left_out(site) == {("PageView", "excluded")}
    assert TAG in client.get("/shop").text


# -- internal --------------------------------------------------------------------------------------


async def shop(request: Request) -> Response:
    if request.url.path == "/api":
        track("Lead")
        return JSONResponse({"visitor": current_visitor().dumps()})
    if request.url.path == "/landing":
        return RedirectResponse("/", 303)
    track("Contact")
    headers = {"cache-control": "public, max-age=60"} if request.url.path == "/public" else {}
    return HTMLResponse(PAGE, headers=headers)


def is_staff(request: Request) -> bool:
    return request.cookies.get("role") == "staff"


async def is_staff_later(request: Request) -> bool:
    return is_staff(request)


STAFF: list[Any] = [
    is_staff, is_staff_later,
    {"value": "{cookie.role}"}, {"value": "{cookie.role}", "is": ["boss", "staff"]},
    {"networks": ["203.0.113.0/24"], "value": "{cookie.role}"},
]  # fmt: skip


@pytest.mark.parametrize("rule", STAFF)
def test_staff_leave_no_copy_on_either_side_and_are_counted(rule: Any) -> None:
    site = Site(shop, internal=rule)
    site.client.cookies.set("role", "staff")
    answer = site.client.get("/")
    assert TAG not in answer.text
    assert "set-cookie" not in answer.headers
    landed = site.client.get("/landing?fbclid=abc", follow_redirects=False)
    assert "set-cookie" not in landed.headers
    assert "x-capi-events" not in site.client.get("/api").headers
    assert site.sent() == []
    assert left_out(site) == {
        ("PageView", "internal"), ("Contact", "internal"), ("Lead", "internal")
    }  # fmt: skip


@pytest.mark.parametrize("rule", STAFF)
@pytest.mark.parametrize("cookie", [None, "0", "False", "no"])
def test_all_others_are_visitors(rule: Any, cookie: str | None) -> None:
    site = Site(shop, internal=rule)
    if cookie is not None:
        site.client.cookies.set("role", cookie)
    assert TAG in site.client.get("/").text
    assert names(site.sent()) == ["Contact", "PageView"]


def fails(request: Request) -> bool:
    raise KeyError


def test_a_rule_that_fails_leaves_nobody_out(swallowed: list[BaseException]) -> None:
    site = Site(shop, internal=fails)
    site.client.get("/")
    assert names(site.sent()) == ["Contact", "PageView"]
    assert {type(one) for one in swallowed} == {KeyError}
    swallowed.clear()


@pytest.mark.parametrize(
    ("peer", "headers", "proxies", "n"),
    [
        ("10.1.2.3", {}, [], 0),
        ("10.1.2.3", {"x-forwarded-for": "192.0.2.7"}, [], 0),
        ("192.0.2.7", {"x-forwarded-for": "10.1.2.3"}, [], 2),
        ("172.16.0.1", {"x-forwarded-for": "192.0.2.7, 10.1.2.3"}, ["172.16.0.0/12"], 0),
        ("172.16.0.1", {"x-forwarded-for": "10.1.2.3, 192.0.2.7"}, ["172.16.0.0/12"], 2),
        ("2001:db8::1", {}, [], 0),
        ("::ffff:10.1.2.3", {}, [], 0),
        ("", {}, [], 2),
    ],
)
def test_the_own_networks_are_those_of_the_address_that_can_be_believed(
    peer: str, headers: dict[str, str], proxies: list[str], n: int
) -> None:
    networks = {"networks": ["10.0.0.0/8", "2001:db8::/32"]}
    site = Site(shop, internal=networks, trusted_proxies=proxies)
    client = TestClient(site.client.app, headers=AGENT, client=(peer, 1))
    client.get("/", headers=headers)
    assert len(site.sent()) == n


def test_a_page_that_all_may_share_answers_staff_that_nothing_may_leave() -> None:
    site = Site(shop, internal=is_staff)
    site.client.cookies.set("role", "staff")
    text = site.client.get("/public").text
    asked = question(text, "http://testserver/public")
    told = site.client.post("/_capi/t", json=asked).json()
    assert (told["e"], told["x"]) == ([], "denied")
    assert site.sent() == []


def test_what_is_tracked_later_for_staff_is_suppressed_too() -> None:
    site = Site(shop, internal=is_staff)
    site.client.cookies.set("role", "staff")
    visitor = Visitor.loads(site.client.get("/api").json()["visitor"])
    site.capi.track("Purchase", visitor=visitor, value=3, currency="EUR")
    assert site.sent() == []
