"""Which answer of a mapped address is its event: once, however many answers lead to it."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount
from starlette.testclient import TestClient

from capi_middleware import EventRoute, track
from tests.request.test_events import PAGE, Site

EVENT = "ViewContent"
ROUTES = [
    EventRoute("GET /p/{sku}", EVENT),
    EventRoute("GET /p/{sku}/", EVENT),
    EventRoute("GET /de/p/{sku}", EVENT),
    EventRoute("POST /p/{sku}", EVENT),
]


def site_of(answer: Response, *routes: EventRoute) -> Site:
    async def view(request: Request) -> Response:
        return answer

    return Site(view, routes=list(routes or ROUTES), page_view=False)


def events(site: Site, path: str, method: str = "GET", **headers: str) -> tuple[int, bool]:
    """How many events there are, and whether they ride to the next page."""
    answer = site.client.request(method, path, headers=headers, follow_redirects=False)
    n = sum(row.n for row in site.capi.store.tallies(0, 1e12).rows)
    return n, "capi_next" in answer.headers.get("set-cookie", "")


@pytest.mark.parametrize(
    "location",
    [
        "https://testserver/p/cup",
        "http://www.testserver/p/cup",
        "//testserver:443/p/cup?x=1",
        "/p/cup/",
        "cup/",
        "/de/p/cup",
        "/p/C%C3%BCp",
        "/p/mug#top",
    ],
)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_the_same_event_is_not_yet_the_event(location: str, status: int) -> None:
    assert events(site_of(RedirectResponse(location, status)), "/p/cup") == (0, False)


@pytest.mark.parametrize(
    "location",
    [
        "/login?next=/p/cup",
        "/accounts/login/?next=%2Fp%2Fcup",
        "/hello?return_to=http%3A%2F%2Ftestserver%2Fp%2Fcup%3Fa%3D1",
        "/login",
        "/users/sign_in",
        "/auth",
        "https://id.example/oauth2/authorize?client_id=1",
        "/saml/start",
        "/signin.php",
    ],
)
def test_a_redirect_to_the_login_page_is_no_event(location: str) -> None:
    assert events(site_of(RedirectResponse(location, 302)), "/p/cup") == (0, False)


@pytest.mark.parametrize(
    ("method", "location", "status"),
    [
        ("GET", "/thanks", 302),  # no event of its own
        ("GET", "https://partner.example/p/cup", 302),
        ("GET", "/author/jane", 302),
        ("GET", "/p", 302),
        ("GET", "http://[", 302),
        ("GET", "", 302),
        ("POST", "/p/cup", 303),  # the deed is done, and the page is another one
        ("POST", "/login", 302),
    ],
)
def test_a_redirect_away_from_the_event_is_the_event(
    method: str, location: str, status: int
) -> None:
    answer = Response(status_code=status, headers={"location": location})
    assert events(site_of(answer), "/p/cup", method) == (1, True)


@pytest.mark.parametrize(
    ("location", "status"), [("/login?next=/p/cup", 302), ("https://testserver/p/cup", 308)]
)
def test_a_form_that_has_to_be_sent_again_is_no_event_yet(location: str, status: int) -> None:
    site = site_of(RedirectResponse(location, status))
    assert events(site, "/p/cup", "POST") == (0, False)


def test_a_route_that_takes_no_page_means_its_redirects() -> None:
    routes = [EventRoute("GET /go/{id}", "Lead", status="3xx")]
    assert events(site_of(RedirectResponse("/login", 302), *routes), "/go/1") == (1, True)


def test_an_app_mounted_below_a_path_redirects_within_it() -> None:
    site = site_of(RedirectResponse("/shop/p/cup/", 302))
    site.client = TestClient(Starlette(routes=[Mount("/shop", app=site.client.app)]))
    assert events(site, "/shop/p/cup") == (0, False)


@pytest.mark.parametrize(
    ("status", "content_range", "n"),
    [
        (304, None, 0),
        (206, "bytes 0-99/300", 1),
        (206, "bytes 0-299/*", 1),
        (206, "bytes 0-0/1", 1),
        (206, "bytes 0-1/300", 0),  # Safari looks first
        (206, "bytes 0-1/*", 0),
        (206, "bytes 100-199/300", 0),
        (206, "bytes 200-299/300", 0),
        (206, None, 0),
        (206, "bytes */300", 0),
        (201, None, 1),
    ],
)
def test_an_unchanged_file_is_no_event_and_its_ranges_are_one(
    status: int, content_range: str | None, n: int
) -> None:
    headers = {"content-type": "application/pdf"}
    if content_range:
        headers["content-range"] = content_range
    answer = Response(b"" if status == 304 else b"x", status, headers)
    assert events(site_of(answer), "/p/cup") == (n, False)


def test_three_ranges_of_one_file_are_one_event() -> None:
    async def view(request: Request) -> Response:
        start = int(request.headers["range"].removeprefix("bytes=").partition("-")[0])
        told = {"content-range": f"bytes {start}-{start + 99}/300"}
        return Response(b"x" * 100, 206, told, "application/pdf")

    site = Site(view, routes=ROUTES)
    for start in (0, 100, 200):
        site.client.get("/p/cup", headers={"range": f"bytes={start}-"})
    assert len(site.sent()) == 1


@pytest.mark.parametrize("answer", [Response(status_code=304), RedirectResponse("/p/cup/", 301)])
def test_what_the_view_tracks_itself_is_an_event_whatever_it_answers(answer: Response) -> None:
    async def view(request: Request) -> Response:
        track(EVENT)
        return answer

    site = Site(view, routes=ROUTES)
    site.client.get("/p/cup", follow_redirects=False)
    assert len(site.sent()) == 1


def test_a_canonical_redirect_and_its_page_are_one_event_in_both_copies() -> None:
    async def view(request: Request) -> Any:
        if request.url.path.endswith("/"):
            return HTMLResponse(PAGE)
        return RedirectResponse(f"{request.url.path}/", 301)

    site = Site(view, routes=ROUTES, page_view=False)
    text = site.client.get("/p/cup").text
    (event,) = site.sent()
    assert text.count('"n":"ViewContent"') == 1
    assert event["event_id"] in text


FORM = {"sec-fetch-dest": "document", "sec-fetch-mode": "navigate"}
HTMX = {"sec-fetch-dest": "empty", "hx-request": "true"}
BOOSTED = {**HTMX, "hx-boosted": "true"}
TURBO = {"sec-fetch-dest": "empty", "accept": "text/vnd.turbo-stream.html, text/html"}


@pytest.mark.parametrize(
    ("method", "answer", "headers", "n"),
    [
        ("POST", HTMLResponse(PAGE), FORM, 0),
        ("PUT", HTMLResponse(PAGE), {}, 0),
        ("DELETE", HTMLResponse(PAGE, 201), {}, 0),
        ("POST", HTMLResponse(PAGE, headers={"content-encoding": "br"}), FORM, 0),
        ("POST", HTMLResponse(PAGE, headers={"cache-control": "public, max-age=9"}), FORM, 0),
        ("POST", HTMLResponse(PAGE), BOOSTED, 0),
        ("POST", HTMLResponse(PAGE), TURBO, 0),
        ("POST", HTMLResponse(PAGE, 422), FORM, 0),
        ("POST", HTMLResponse("<b>1 in the cart</b>"), HTMX, 1),
        ("POST", Response(b"{}", media_type="application/json"), FORM, 1),
        ("POST", Response(status_code=204), FORM, 1),
        ("POST", RedirectResponse("/p/cup", 303), FORM, 1),
        ("GET", HTMLResponse(PAGE), FORM, 1),
    ],
)
def test_a_form_that_is_shown_again_is_no_event(
    method: str, answer: Response, headers: dict[str, str], n: int
) -> None:
    async def view(request: Request) -> Response:
        return answer

    site = Site(view, routes=[EventRoute("* /p/{sku}", EVENT)], page_view=False)
    handler = site.client.app.app  # type: ignore[attr-defined]
    handler.router.routes[0].methods.update({"PUT", "DELETE"})
    site.client.request(method, "/p/cup", headers=headers, follow_redirects=False)
    assert len(site.sent()) == n
    told = {(EVENT, "form_page"): 1} if n == 0 and answer.status_code < 300 else {}
    assert site.counts("suppressed") == told


@pytest.mark.parametrize("status", ["2xx", "200", "2xx,3xx"])
def test_a_page_that_answers_a_form_is_the_event_of_a_route_that_says_so(status: str) -> None:
    site = site_of(HTMLResponse(PAGE), EventRoute("POST /p/{sku}", EVENT, status=status))
    assert events(site, "/p/cup", "POST") == (1, False)


def test_what_a_view_tracks_counts_whatever_page_answers_a_form_and_its_route_fills_it_in() -> None:
    async def view(request: Request) -> Response:
        track(EVENT)
        return HTMLResponse(PAGE)

    route = EventRoute("POST /p/{sku}", EVENT, custom_data={"content_ids": ["{path.sku}"]})
    site = Site(view, routes=[route], page_view=False)
    site.client.post("/p/cup")
    assert [one["custom_data"] for one in site.sent()] == [{"content_ids": ["cup"]}]
    assert site.counts("suppressed") == {}


def test_a_form_answered_by_pages_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    site = site_of(HTMLResponse(PAGE))
    for _ in range(3):
        events(site, "/p/cup", "POST")
    (line,) = [one for one in caplog.records if one.name == "capi_middleware"]
    assert 'status="2xx"' in line.getMessage()
