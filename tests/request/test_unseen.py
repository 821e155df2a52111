"""Why no page carried an event: each reason is a cause of its own, found where it arises."""

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from capi_middleware import EventRoute, track
from capi_middleware.events import NO_TAG
from capi_middleware.page.gate import inspect
from capi_middleware.report.causes import CAUSES
from tests.request.test_events import Site

MONEY = {"value": "9.5", "currency": "EUR"}
ROUTES = [EventRoute("* /thanks", "Purchase", custom_data=MONEY)]
PAGE = "<!doctype html><html><head><title>x</title></head><body>hi</body></html>"
HTML = "text/html; charset=utf-8"
BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Safari/537.36"
)


def cause_of(
    body: str | Response = PAGE, *, media_type: str = HTML, status: int = 200,
    method: str = "GET", asks: dict[str, str] | None = None, routes: list[EventRoute] = ROUTES,
    headers: dict[str, str] | None = None, **settings: Any,
) -> str:  # fmt: skip
    """The browser's cause of the one event of a request."""

    async def view(request: Request) -> Response:
        if not routes:
            track("Purchase", value=9.5, currency="EUR")
        if isinstance(body, Response):
            return body
        return Response(body, status, headers, media_type)

    site = Site(view, routes=routes, page_view=False, **settings)
    given = {"user-agent": BROWSER, **(asks or {})}
    with site.client.stream(method, "/thanks", headers=given, follow_redirects=False) as answer:
        list(answer.iter_raw())
    (row,) = site.capi.store.tallies(0, 1e12).rows
    return row.browser


@pytest.mark.parametrize(
    ("headers", "cause"),
    [
        ({"content-encoding": "br"}, "encoded"),
        ({"content-encoding": "gzip, zstd"}, "encoded"),
        ({"cache-control": "max-age=0, No-Transform"}, "no_transform"),
        ({"content-disposition": "attachment; filename=x.html"}, "attachment"),
        ({"x-accel-redirect": "/files/x.html"}, "offloaded"),
        ({"signature-input": "sig1=()"}, "signed"),
        ({"trailer": "Content-Digest"}, "integrity_trailer"),
        ({"content-security-policy": "script-src 'none'"}, "csp"),
    ],
)
@pytest.mark.parametrize("routes", [ROUTES, []], ids=["a route", "track()"])
def test_a_page_that_can_get_no_tag_says_why(
    headers: dict[str, str], cause: str, routes: list[EventRoute]
) -> None:
    assert cause_of(headers=headers, routes=routes) == cause


@pytest.mark.parametrize(
    ("body", "media_type", "cause"),
    [
        (PAGE, "application/xhtml+xml", "xhtml"),
        (PAGE, "text/html; charset=utf-16", "charset"),
        ("<p>Thank you</p>", HTML, "fragment"),
        ("Thank you", HTML, "fragment"),
        ("", HTML, "fragment"),
        ("<!doctype html><html amp><head></head></html>", HTML, "amp"),
        ('{"ok": true}', "application/json", "not_rendered"),
        ("%PDF", "application/pdf", "not_rendered"),
    ],
)
def test_what_is_no_page_that_holds_a_tag_says_why(body: str, media_type: str, cause: str) -> None:
    assert cause_of(body, media_type=media_type) == cause


def test_an_error_in_the_tag_is_no_page_of_a_webhook(
    monkeypatch: pytest.MonkeyPatch, swallowed: list[BaseException]
) -> None:
    def fails(*args: object, **more: object) -> bytes:
        raise RuntimeError("of a test")

    monkeypatch.setattr("capi_middleware.page.tag.TagMaker.tag", fails)
    assert cause_of() == "tag_failed"
    swallowed.clear()


def test_an_answer_to_a_page_of_another_origin_says_so() -> None:
    asks = {"origin": "https://www.elsewhere.test", "accept": "*/*"}
    api = JSONResponse({"ok": True})
    assert cause_of(api, method="POST", asks=asks) == "other_origin"
    same_site = asks | {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}
    assert cause_of(api, method="POST", asks=same_site) == "other_origin"


@pytest.mark.parametrize(
    "asks",
    [
        {},  # a webhook
        {"origin": "http://testserver"},
        {"origin": "https://shop.test:8443", "sec-fetch-site": "same-origin"},  # behind a proxy
        {"origin": "https://pay.test", "accept": "text/html", "sec-fetch-mode": "navigate"},
    ],
)
def test_an_answer_to_the_own_page_or_to_none_is_of_no_other_origin(asks: dict[str, str]) -> None:
    assert cause_of(JSONResponse({"ok": True}), method="POST", asks=asks) in (
        "not_rendered", "not_run",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("location", "cause"),
    [
        ("https://www.testserver/thanks", "other_site"),
        ("https://shop.elsewhere.test/thanks", "other_site"),
        ("/next", "not_rendered"),
        ("http://testserver/next", "not_rendered"),
    ],
)
def test_a_redirect_to_another_host_says_so(location: str, cause: str) -> None:
    answer = RedirectResponse(location, 303)
    assert cause_of(answer, method="POST", asks={"accept": "text/html"}) == cause


@pytest.mark.parametrize(
    ("agent", "cause"),
    [
        ("StatusCheck/2.1", "no_browser"),
        ("Mozilla/5.0 (compatible; InHouseCheck/1.0)", "no_browser"),
        (BROWSER, "not_run"),
        ("Mozilla/5.0 (PlayStation; PlayStation 5/2.26) AppleWebKit/605.1.15", "not_run"),
        ("Mozilla/5.0 (compatible; MSIE 10.0; Windows NT 6.2; Trident/6.0)", "not_run"),
    ],
)
def test_a_program_that_asks_for_a_page_is_no_visitor_without_scripts(
    agent: str, cause: str
) -> None:
    assert cause_of(asks={"user-agent": agent}) == cause


def test_each_reason_of_the_gate_that_a_page_can_have_is_a_cause() -> None:
    words = set(inspect.__globals__["Verdict"].__doc__.replace(",", " ").replace(".", " ").split())
    told = {one for one in words if one in CAUSES["browser"]}
    assert told <= NO_TAG | {"csp"}
    assert {"encoded", "no_transform", "xhtml", "charset", "attachment", "signed"} <= told
