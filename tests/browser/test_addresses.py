"""Where a page says it is and what proxies make of it: both copies meet all the same."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from capi_middleware import EventRoute
from tests.browser.conftest import Until
from tests.browser.shop import ROUTES, Shop, open_shop
from tests.support.servers import serve


@pytest.fixture
def shop() -> Iterator[Shop]:
    with open_shop() as shop:
        yield shop


def proxy(shop: Shop, host: str) -> Starlette:
    """A proxy that says another Host, as nginx does without a line about it."""

    async def pass_on(request: Request) -> Response:
        headers = {**request.headers, "host": host}
        async with httpx.AsyncClient() as client:
            answer = await client.request(
                request.method, f"{shop.url}{request.url.path}?{request.url.query}",
                headers=headers, content=await request.body(),
            )  # fmt: skip
        response = Response(answer.content, answer.status_code)
        response.raw_headers = [
            (name, value)
            for name, value in answer.headers.raw
            if name.lower() not in (b"content-length", b"content-encoding", b"transfer-encoding")
        ] + [(b"content-length", b"%d" % len(answer.content))]
        return response

    return Starlette(routes=[Route("/{path:path}", pass_on, methods=["GET", "POST"])])


@pytest.mark.parametrize("host", ["backend:8000", "127.0.0.1:80"])
@pytest.mark.parametrize("cache", ["no-store", "public, max-age=60"])
def test_behind_a_proxy_that_sets_no_host_the_beacon_and_the_question_are_heard(
    page: Page, shop: Shop, until: Until, host: str, cache: str
) -> None:
    shop.cache = {"cache-control": cache}
    with serve(proxy(shop, host)) as url:
        page.goto(f"{url}/products/7")
        until(lambda: shop.browser("ViewContent") == ["sent"])
        until(lambda: shop.browser("PageView") == ["sent"])
    assert shop.pairs("ViewContent") == shop.pairs("PageView") == [(1, 1)]


def test_a_page_that_hides_its_referrer_is_heard(page: Page, shop: Shop, until: Until) -> None:
    shop.cache = {"cache-control": "no-store", "referrer-policy": "no-referrer"}
    page.goto(f"{shop.url}/products/7")
    until(lambda: shop.browser("ViewContent") == ["sent"])
    assert shop.pairs("ViewContent") == [(1, 1)]


def test_whoever_goes_on_to_another_host_of_the_site_takes_along_answer_cookies_and_events(
    page: Page, until: Until
) -> None:
    routes = [*ROUTES, EventRoute("GET /go", "Lead", status="303")]
    with open_shop(consent=lambda request: "unanswered", routes=routes) as shop:
        port = shop.url.rpartition(":")[2]
        checkout, www = (f"http://{name}.shop.localhost:{port}" for name in ("checkout", "www"))

        async def answer(request: Request) -> Response:
            to_www = request.url.path == "/go"
            return RedirectResponse(f"{www}/about", 303) if to_www else await shop.page(request)

        shop.answer = answer
        page.goto(f"{checkout}/products/7?fbclid=Click-1")
        page.evaluate("capi.consent('granted')")
        until(lambda: shop.browser("PageView") == ["sent"])
        page.goto(f"{checkout}/go")
        page.wait_for_url(f"{www}/about")
        until(lambda: shop.browser("Lead") == ["sent"])
        until(lambda: shop.browser("PageView") == ["sent"] * 2)
        for name, n in {"PageView": 2, "ViewContent": 1, "Lead": 1}.items():
            assert shop.pairs(name) == [(1, 1)] * n
        known = [one.event["user_data"] for one in shop.meta.received.server]
        assert len({(one["fbp"], one["fbc"]) for one in known}) == 1
        assert known[0]["fbc"].endswith(".Click-1")
        page.evaluate("capi.consent('denied')")
        kept = "document.cookie.includes('capi_consent=denied')"
        page.wait_for_function(f"{kept} && !/_fb[pc]=/.test(document.cookie)")
        page.goto(f"{checkout}/products/7")
        assert page.evaluate("[window.fbq, document.querySelector('[data-c]')]") == [None, None]


@pytest.mark.parametrize("cache", ["no-store", "public, max-age=60"])
def test_a_base_elsewhere_costs_neither_script_nor_question_nor_beacon(
    page: Page, shop: Shop, until: Until, cache: str
) -> None:
    shop.head = "<base href='http://127.0.0.1:1/elsewhere/'>"
    shop.cache = {"cache-control": cache}
    page.goto(f"{shop.url}/products/7")
    until(lambda: shop.browser("ViewContent") == ["sent"])
    assert shop.pairs("ViewContent") == [(1, 1)]
    page.evaluate(f"fetch('{shop.url}/api/lead', {{method: 'POST'}})")
    until(lambda: shop.browser("Lead") == ["sent"])
    assert shop.pairs("Lead") == [(1, 1)]


@pytest.mark.parametrize("how", ["async", ""])
def test_a_script_that_was_put_in_by_hand_before_its_block_runs_once(
    page: Page, shop: Shop, until: Until, how: str
) -> None:
    shop.head = f"<script src='/_capi/s.js' {how}></script>"
    page.goto(f"{shop.url}/products/7")
    until(lambda: shop.browser("ViewContent") == ["sent"])
    page.wait_for_timeout(300)
    assert shop.pairs("ViewContent") == shop.pairs("PageView") == [(1, 1)]


def test_a_policy_in_the_page_that_forbids_the_tag_is_the_cause(
    page: Page, shop: Shop, until: Until
) -> None:
    shop.head = "<meta http-equiv=Content-Security-Policy content=\"script-src 'none'\">"
    page.goto(f"{shop.url}/products/7")
    until(lambda: shop.browser("ViewContent"))
    assert shop.browser("ViewContent") == ["csp"]
    assert page.evaluate("window.fbq === undefined")


#: What the page's scripts ask for; `own` is a header of theirs.
CALLS = {
    "fetch": "fetch('/api/lead', { method: 'POST', headers: { own: '1' } })",
    "fetch of a request": """fetch(new Request('/api/lead', { method: 'POST', body: 'text',
        headers: { own: '1' } }))""",
    "XMLHttpRequest": """new Promise(done => {
        const one = new XMLHttpRequest();
        one.open('POST', '/api/lead');
        one.setRequestHeader('own', '1');
        one.onloadend = done;
        one.send('text');
    })""",
}


@pytest.mark.parametrize("hidden_by", ["header", "element", "nothing"])
def test_a_call_happened_at_its_page_on_both_sides_whatever_hides_that(
    page: Page, shop: Shop, until: Until, hidden_by: str
) -> None:
    if hidden_by == "header":
        shop.cache = {"cache-control": "no-store", "referrer-policy": "no-referrer"}
    elif hidden_by == "element":
        shop.head = "<meta name=referrer content=origin>"
    page.goto(f"{shop.url}/products/7?utm_source=x")
    until(lambda: shop.browser("PageView") == ["sent"])
    for call in CALLS.values():
        with page.expect_request("**/api/lead") as asked:
            page.evaluate(f"{call}.then(() => 0)")
        assert asked.value.headers["own"] == "1"
        assert ("x-capi-page" in asked.value.headers) == (hidden_by != "nothing")
        assert ("/products/7" in asked.value.headers.get("referer", "")) == (hidden_by == "nothing")
    until(lambda: shop.pairs("Lead") == [(1, 1)] * len(CALLS))
    assert shop.pairs("Lead") == [(1, 1)] * len(CALLS)
    received = shop.meta.received
    sent = {one.event["event_source_url"] for one in received.server}
    assert sent == {one.dl for one in received.browser}
    assert sent == {f"{shop.url}/products/7?utm_source=x"}
