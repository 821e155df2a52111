"""Events that go on from one host of a site to another: the cookie is the domain's."""

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.testclient import TestClient

from capi_middleware import ConfigError, EventRoute
from tests.request.test_events import AGENT, PAGE, Site
from tests.support.blocks import block_of
from tests.support.configs import make_config

CHECKOUT, WWW = "https://checkout.shop.example", "https://www.shop.example"
ROUTES = [EventRoute("POST /pay", "Lead"), EventRoute("GET /hop", "Search", status="3xx")]


async def view(request: Request) -> Response:
    to = request.query_params.get("to")
    return RedirectResponse(to, 303) if to else HTMLResponse(PAGE)


def browser(**settings: Any) -> tuple[Site, TestClient]:
    """A site on every host, and a client whose cookies follow their domains."""
    site = Site(view, routes=ROUTES, page_view=False, **settings)
    client = TestClient(site.client.app, base_url=CHECKOUT, headers=AGENT)
    client.cookies.set("_fbp", "fb.2.1700000000000.1", domain=".shop.example")
    return site, client


def fired(page: Any) -> list[str]:
    return [event["n"] for event in block_of(page.text)["e"]]


def test_an_event_goes_on_to_the_page_of_another_subdomain() -> None:
    site, client = browser()
    page = client.post("/pay", params={"to": f"{WWW}/thanks"})
    assert page.url == f"{WWW}/thanks"
    assert fired(page) == ["Lead"]
    assert [event["event_name"] for event in site.sent()] == ["Lead"]


def test_it_is_fired_once_on_whatever_host_comes_next() -> None:
    _, client = browser()
    client.post("/pay", params={"to": f"{WWW}/thanks"})
    assert "capi_next" not in client.cookies
    assert fired(client.get(f"{WWW}/again")) == fired(client.get("/again")) == []


def test_a_second_redirect_takes_along_what_came_from_another_host() -> None:
    _, client = browser()
    page = client.post("/pay", params={"to": f"{WWW}/hop?to={WWW}/thanks"})
    assert sorted(fired(page)) == ["Lead", "Search"]
    assert fired(client.get(f"{WWW}/again")) == []


def test_a_redirect_on_one_host_keeps_its_cookie_there() -> None:
    _, client = browser()
    page = client.post("/pay", params={"to": "/thanks"}, follow_redirects=False)
    (line,) = [one for one in page.headers.get_list("set-cookie") if one.startswith("capi_next")]
    assert "Domain" not in line
    assert fired(client.get("/thanks")) == ["Lead"]


@pytest.mark.parametrize(
    "to", ["https://evil.example/", "https://shop.example.evil.test/", "//127.0.0.1/", "https://["]
)
def test_a_redirect_to_another_site_widens_nothing(to: str) -> None:
    _, client = browser()
    page = client.post("/pay", params={"to": to}, follow_redirects=False)
    assert not [one for one in page.headers.get_list("set-cookie") if "Domain=" in one]


def test_a_port_is_no_other_host() -> None:
    _, client = browser()
    page = client.post("/pay", params={"to": f"{CHECKOUT}:8443/t"}, follow_redirects=False)
    assert not [one for one in page.headers.get_list("set-cookie") if "Domain=" in one]


def test_the_site_can_narrow_the_domain() -> None:
    site, _ = browser(cookie_domain="eu.shop.example")
    client = TestClient(site.client.app, base_url="https://pay.eu.shop.example", headers=AGENT)
    page = client.post("/pay", params={"to": "https://www.eu.shop.example/t"})
    assert fired(page) == ["Lead"]
    assert {cookie.domain for cookie in client.cookies.jar} == {".eu.shop.example"}


def test_a_host_outside_the_narrowed_domain_keeps_its_own_cookies() -> None:
    site, _ = browser(cookie_domain="eu.shop.example")
    client = TestClient(site.client.app, base_url="https://us.shop.example", headers=AGENT)
    client.get("/")
    assert "Domain=" not in client.get("/").headers.get("set-cookie", "")
    page = client.post("/pay", params={"to": f"{WWW}/t"}, follow_redirects=False)
    assert not [one for one in page.headers.get_list("set-cookie") if "Domain=" in one]


@pytest.mark.parametrize("domain", ["com", "co.uk", ".", "shop example", "https://shop.example", 7])
def test_a_domain_that_browsers_refuse_is_an_error_at_the_start(domain: object) -> None:
    with pytest.raises(ConfigError, match="cookie_domain"):
        make_config(cookie_domain=domain)
