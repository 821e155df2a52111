"""What belongs to one visitor is of no use to another, and stays as it was signed."""

from typing import Any

import pytest
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from capi_middleware import EventRoute, Visitor, current_visitor
from capi_middleware.errors import BadVisitor
from tests.request.test_events import PAGE, Site

SUBMIT = EventRoute("POST /order", "Lead", status="303")
MINE, OTHERS = (f"fb.1.1700000000000.{n}" for n in (123456789, 987654321))


async def shop(request: Request) -> Response:
    return RedirectResponse("/thanks", 303) if request.method == "POST" else HTMLResponse(PAGE)


def ordered(site: Site, **cookies: str) -> dict[str, str]:
    """The cookies that a browser has after its order."""
    site.client.cookies = cookies
    site.client.post("/order", follow_redirects=False)
    return {one.name: one.value or "" for one in site.client.cookies.jar}


def shown(site: Site, **cookies: str) -> bool:
    site.client.cookies = cookies
    return '"Lead"' in site.client.get("/thanks").text


@pytest.mark.parametrize("known", [{}, {"_fbp": MINE}])
def test_what_a_redirect_sends_on_is_shown_in_the_browser_that_it_was_sent_to(
    known: dict[str, str],
) -> None:
    site = Site(shop, routes=[SUBMIT])
    assert shown(site, **ordered(site, **known))


@pytest.mark.parametrize("known", [{}, {"_fbp": MINE}])
@pytest.mark.parametrize("planted_in", [{}, {"_fbp": OTHERS}, {"_fbp": "nobody"}, {"_fbp": ""}])
def test_planted_in_another_browser_it_fires_nothing_and_is_counted(
    known: dict[str, str], planted_in: dict[str, str]
) -> None:
    site = Site(shop, routes=[SUBMIT])
    stolen = ordered(site, **known)["capi_next"]
    assert not shown(site, **planted_in, capi_next=stolen)
    assert site.counts("beacon") == {("", "carried"): 1}


def test_a_visitor_who_is_new_at_the_redirect_has_one_fbp_in_both_copies() -> None:
    site = Site(shop, routes=[SUBMIT])
    fbp = ordered(site)["_fbp"]
    (lead,) = site.sent()
    assert lead["user_data"]["fbp"] == fbp


def a_visitor() -> tuple[Site, Visitor]:
    found: list[Visitor] = []

    async def view(request: Request) -> Response:
        found.append(current_visitor())
        return Response("ok")

    site = Site(view)
    site.client.cookies.set("_fbp", MINE)
    site.client.get("/checkout")
    return site, found[0]


def test_the_text_of_a_visitor_carries_its_time() -> None:
    site, visitor = a_visitor()
    assert abs(Visitor.loads(visitor.dumps()).signed_at - site.capi.issuer.clock()) < 60


@pytest.mark.parametrize(
    "change",
    [{"fbp": OTHERS}, {"consent": "limited"}, {"client_ip_address": "8.8.8.8"}, {"signed_at": 1},
     {"event_source_url": "https://shop.example/other"}],
)  # fmt: skip
def test_a_visitor_that_was_changed_after_signing_is_refused(change: dict[str, Any]) -> None:
    site, visitor = a_visitor()
    loaded = Visitor.loads(visitor.dumps())
    site.capi.track("Lead", visitor=loaded)
    for one in (visitor, loaded):
        with pytest.raises(BadVisitor, match="changed after signing"):
            site.capi.track("Lead", visitor=replace(one, **change))
