"""A page that says something of itself: a policy, a base, a tag put in by hand, who may keep it."""

import gzip
import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from capi_middleware import EventRoute, track
from tests.request.test_events import Site

MONEY = {"value": "9.5", "currency": "EUR"}
ROUTES = [EventRoute("GET /thanks", "Purchase", custom_data=MONEY)]
SCRIPT = '<script src="/_capi/s.js?v=1" async></script>'
BLOCK = '<script type="application/json" data-c>{"e":[]}</script>'


def policy(text: str) -> str:
    return f'<meta http-equiv="Content-Security-Policy" content="{text}">'


def site_of(head: str, how: str = "whole", **headers: str) -> Site:
    page = f"<!doctype html><html><head>{head}<title>x</title></head><body>hi</body></html>"

    async def view(request: Request) -> Response:
        if how == "stream":
            pieces = [page[:30], *page[30:]]
            return StreamingResponse(iter(pieces), media_type="text/html", headers=headers)
        if how == "gzip":
            body = gzip.compress(page.encode())
            given = {**headers, "content-encoding": "gzip"}
            return Response(body, media_type="text/html", headers=given)
        return HTMLResponse(page, headers=headers)

    return Site(view, routes=ROUTES)


def browser_copies(site: Site) -> dict[str, str]:
    return {row.event_name: row.browser for row in site.capi.store.tallies(0, 1e12).rows}


def block_of(text: str) -> Any:
    return json.loads(text.rsplit("data-c>")[-1].split("</script>")[0])


@pytest.mark.parametrize("how", ["whole", "stream", "gzip"])
def test_a_policy_in_the_page_that_forbids_the_tag_is_obeyed_and_the_cause_is_csp(how: str) -> None:
    site = site_of(policy("script-src https://cdn.example"), how)
    answer = site.client.get("/thanks")
    assert "s.js" not in answer.text
    assert answer.text.endswith("<title>x</title></head><body>hi</body></html>")
    assert browser_copies(site) == {"Purchase": "csp"}
    assert site.counts("skipped") == {("", "csp"): 1}


def test_a_policy_in_a_header_that_forbids_the_tag_is_the_same_cause() -> None:
    site = site_of("", **{"content-security-policy": "default-src 'none'"})
    site.client.get("/thanks")
    assert browser_copies(site) == {"Purchase": "csp"}


def test_both_policies_have_to_allow_the_tag() -> None:
    site = site_of(policy("script-src 'self'"), **{"content-security-policy": "script-src *"})
    assert SCRIPT.split("?")[0] in site.client.get("/thanks").text
    site = site_of(
        policy("script-src 'nonce-a'"), **{"content-security-policy": "script-src 'nonce-b'"}
    )
    assert "s.js" not in site.client.get("/thanks").text


@pytest.mark.parametrize("how", ["whole", "stream", "gzip"])
def test_the_nonce_of_a_policy_in_the_page_is_used(how: str) -> None:
    site = site_of(policy("script-src 'nonce-abc' 'strict-dynamic'"), how)
    assert ' async nonce="abc"></script>' in site.client.get("/thanks").text


def test_what_a_policy_in_the_page_blocks_besides_is_counted() -> None:
    site = site_of(policy("script-src 'self'; img-src 'self'; connect-src 'none'"))
    site.client.get("/thanks")
    assert set(site.counts("csp")) == {("", "script-src"), ("", "img-src"), ("", "connect-src")}


@pytest.mark.parametrize(
    ("text", "way"),
    [
        ("connect-src 'self' https://www.facebook.com", None),
        ("connect-src 'self'", 1),
        ("img-src 'self'", 1),
        ("connect-src 'none'", 2),
    ],
)
def test_the_script_is_told_what_the_policy_keeps_it_from(text: str, way: int | None) -> None:
    for site in (site_of(policy(text)), site_of("", **{"content-security-policy": text})):
        assert block_of(site.client.get("/thanks").text).get("c") == way


@pytest.mark.parametrize("how", ["whole", "stream"])
def test_a_script_put_in_by_hand_gets_its_block_and_is_not_doubled(how: str) -> None:
    site = site_of(SCRIPT, how)
    text = site.client.get("/thanks").text
    assert (text.count("/s.js"), text.count("data-c>")) == (1, 1)
    assert {one["n"] for one in block_of(text)["e"]} == {"PageView", "Purchase"}


def test_a_whole_tag_that_is_there_is_left_alone_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = site_of(BLOCK + SCRIPT)
    text = site.client.get("/thanks").text
    assert (text.count("/s.js"), text.count("data-c>")) == (1, 1)
    assert site.counts("skipped") == {("", "tagged"): 1}
    assert browser_copies(site) == {"Purchase": "tagged"}
    assert "has a tag of ours already" in caplog.text


@pytest.mark.parametrize(
    ("base", "source"),
    [
        ("https://cdn.example/x/", "http://testserver/_capi/s.js?v="),
        ("/shop/", "/_capi/s.js?v="),
    ],
)
def test_the_script_is_loaded_from_the_pages_own_origin_whatever_its_base(
    base: str, source: str
) -> None:
    site = site_of(f'<base href="{base}">')
    assert f'<script src="{source}' in site.client.get("/thanks").text


def test_behind_an_untrusted_proxy_with_tls_the_scripts_address_has_tls_too() -> None:
    site = site_of('<base href="https://cdn.example/x/">')
    headers = {"host": "shop.example", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert 'src="https://shop.example/_capi/' in site.client.get("/thanks", headers=headers).text


def test_two_equal_lengths_are_one_and_the_answer_has_one() -> None:
    page = b"<!doctype html><title>x</title><p>hi"

    async def view(request: Request) -> Response:
        response = Response(page, media_type="text/html")
        response.raw_headers.append((b"content-length", b"%d" % len(page)))
        return response

    answer = Site(view).client.get("/")
    assert "s.js" in answer.text
    assert answer.headers.get_list("content-length") == [str(len(answer.content))]


COOKIE = {"cookie": "_fbp=fb.1.1700000000000.123456789"}


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ({}, "private"),
        ({"cache-control": "must-revalidate"}, "must-revalidate, private"),
        ({"expires": "Thu, 01 Jan 2099 00:00:00 GMT"}, "private"),
        ({"cache-control": "no-cache"}, "no-cache"),
        ({"cache-control": "max-age=0"}, "max-age=0, private"),
        ({"cache-control": "Private"}, "Private"),
        ({"cache-control": "No-Store"}, "No-Store"),
        ({"cache-control": 'private="set-cookie"'}, 'private="set-cookie", private'),
        ({"last-modified": "Thu, 01 Jan 2026 00:00:00 GMT"}, "private"),
        # RFC 9111 lets a cache keep it; a rule of its own (Varnish) may drop the cookie.
        ({"set-cookie": "a=1"}, "private"),
    ],
)
@pytest.mark.parametrize("how", ["whole", "gzip"])
def test_a_page_with_event_ids_is_private_where_it_does_not_say_who_may_keep_it(
    headers: dict[str, str], kept: str | None, how: str
) -> None:
    answer = site_of("", how, **headers).client.get("/thanks", headers=COOKIE)
    assert answer.headers.get("cache-control") == kept


def test_a_page_whose_visitor_is_new_is_private_too() -> None:
    assert site_of("").client.get("/thanks").headers["cache-control"] == "private"


def test_what_hands_an_event_to_a_script_or_sends_it_on_is_private() -> None:
    async def view(request: Request) -> Response:
        track("Lead")
        status = int(request.query_params["status"])
        return Response("{}", status, {"location": "/x"}, "application/json")

    client = Site(view).client
    for status, script in ((200, {"sec-fetch-dest": "empty"}), (303, {}), (301, {})):
        answer = client.get("/", params={"status": status}, headers=script, follow_redirects=False)
        assert answer.headers["cache-control"] == "private"
    assert "cache-control" not in client.get("/?status=200").headers


def test_a_page_that_a_crawler_gets_keeps_its_headers() -> None:
    answer = site_of("").client.get("/thanks", headers=COOKIE | {"user-agent": "Googlebot/2.1"})
    assert "cache-control" not in answer.headers
