"""Who may speak: what another site makes a browser ask is no visit, nor is another Host."""

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from capi_middleware import EventRoute, track
from tests.request.test_events import PAGE, Site, names

ROUTES = [EventRoute("POST /newsletter", "Lead"), EventRoute("GET /products/{sku}", "ViewContent")]
OTHERS = {"sec-fetch-site": "cross-site"}


async def shop(request: Request) -> Response:
    track("Contact")
    if request.method == "POST":
        return RedirectResponse("/thanks", 303)
    return HTMLResponse(PAGE)


def came_of(method: str, path: str, headers: dict[str, str], **settings: Any) -> tuple[Any, Any]:
    """The events of a request, and what was counted of those that did not happen."""
    site = Site(shop, routes=ROUTES, **settings)
    site.client.request(method, path, headers=headers, follow_redirects=False)
    return names(site.sent()), {reason for _, reason in site.counts("suppressed")}


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("GET", "/products/1", {"sec-fetch-dest": "empty", "sec-fetch-mode": "no-cors"}),
        ("GET", "/products/1", {"sec-fetch-dest": "empty", "sec-fetch-mode": "cors"}),
        ("POST", "/newsletter", {"sec-fetch-dest": "empty", "sec-fetch-mode": "no-cors"}),
        ("GET", "/products/1", {"sec-fetch-dest": "empty", "accept": "text/event-stream"}),
        ("GET", "/products/1", {"sec-fetch-dest": "iframe", "sec-fetch-mode": "navigate"}),
        ("POST", "/newsletter", {"sec-fetch-dest": "iframe", "sec-fetch-mode": "navigate"}),
        ("GET", "/products/1", {"sec-fetch-dest": "frame"}),
        ("GET", "/products/1", {"sec-fetch-dest": "fencedframe"}),
    ],
)
def test_what_another_site_fetches_streams_or_frames_is_no_visit(
    method: str, path: str, said: dict[str, str]
) -> None:
    assert came_of(method, path, {**OTHERS, **said}) == ([], {"cross_site"})


@pytest.mark.parametrize(
    "said",
    [
        {**OTHERS, "sec-fetch-dest": "document", "sec-fetch-mode": "navigate"},
        {"sec-fetch-site": "same-site", "sec-fetch-dest": "iframe"},
        {"sec-fetch-site": "same-origin", "sec-fetch-dest": "empty", "sec-fetch-mode": "cors"},
        # A service worker that passes on what somebody clicked elsewhere.
        {**OTHERS, "sec-fetch-dest": "empty", "sec-fetch-mode": "navigate"},
        {},
    ],
)
def test_a_link_elsewhere_a_payment_s_way_back_and_the_site_s_own_requests_are_visits(
    said: dict[str, str],
) -> None:
    assert "ViewContent" in came_of("GET", "/products/1", said)[0]
    assert "Lead" in came_of("POST", "/newsletter", said)[0]


@pytest.mark.parametrize(
    ("who", "is_visit"),
    [
        ({"origin": "https://www.shop.example"}, True),
        ({"origin": "https://www.shop.example:8443"}, True),
        ({"referer": "https://www.shop.example/"}, True),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null", "referer": "https://www.shop.example/"}, False),
        ({"referer": "https://www.shop.example@evil.example/"}, False),
        ({}, False),
    ],
)
def test_the_site_s_own_hosts_may_fetch_from_each_other(
    who: dict[str, str], is_visit: bool
) -> None:
    said = {**OTHERS, "sec-fetch-dest": "empty", "sec-fetch-mode": "cors", **who}
    events, _ = came_of("POST", "/newsletter", said, hosts=["testserver", "www.shop.example"])
    assert ("Lead" in events) == is_visit


def test_a_host_that_is_not_the_site_s_is_no_visit_where_they_are_named() -> None:
    said = {"host": "evil.example"}
    assert came_of("POST", "/newsletter", said, hosts=["shop.example"]) == ([], {"foreign_host"})
    own = {"host": "www.shop.example:8000"}
    assert "Lead" in came_of("POST", "/newsletter", own, hosts=[".shop.example"])[0]
