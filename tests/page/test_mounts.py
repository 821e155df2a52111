"""A mount is what the visitor asked for: in the tag it is a path, never markup."""

import asyncio
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware import CAPI, asgi, wsgi
from tests.support.configs import make_config
from tests.support.exchanges import environ_for, nothing, scope_for

PAGE = b"<!doctype html><html><head><title>x</title></head><body>hi</body></html>"
REQUEST: dict[str, Any] = {
    "method": "GET",
    "path": "/p",
    "scheme": "https",
    "headers": [("host", "shop.example"), ("user-agent", "Mozilla/5.0 (X11) Firefox/140")],
}
TAG = re.compile(
    rb'<script type="application/json" data-c>[^<]*</script>'
    rb'<script src="/(?!/)[A-Za-z0-9/%:@!$()*+,;=~._-]*/_capi/s\.js\?v=[\w-]+" async></script>'
)
MOUNTS = [
    '/"onload="alert(1)" x="', "/'><script>alert(1)</script>", "/</script><img src=x>", "/a&lt;b",
    "/caf\xe9", "/\u6f22\u5b57", "/a b", "/%22", "/\x00\n\x1b", "//evil.example",
    "///evil.example/x", "/\\evil.example",
]  # fmt: skip


def through_asgi(capi: CAPI, mount: str) -> bytes:
    sent: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": PAGE})

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    scope = scope_for(REQUEST, root_path=mount, path=f"{mount}/p", raw_path=b"/p")
    asyncio.run(asgi.CAPIMiddleware(app, capi)(scope, nothing, send))
    return b"".join(sent)


def through_wsgi(capi: CAPI, mount: str) -> bytes:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/html")])
        return [PAGE]

    environ = environ_for(REQUEST, SCRIPT_NAME=mount.encode("utf-8", "replace").decode("latin-1"))
    return b"".join(wsgi.CAPIMiddleware(app, capi)(environ, lambda *_: print))


def tag_of(page: bytes) -> bytes:
    """What is in the page beside the page."""
    assert page.startswith(PAGE[:43])
    assert page.endswith(PAGE[43:])
    return page[43 : len(page) - len(PAGE[43:])]


@pytest.mark.parametrize("mount", MOUNTS, ids=ascii)
@pytest.mark.parametrize("through", [through_asgi, through_wsgi])
def test_a_mount_of_any_characters_gets_one_tag_and_no_markup(through: Any, mount: str) -> None:
    assert TAG.fullmatch(tag_of(through(CAPI(make_config()), mount)))


@given(st.text(min_size=1, max_size=40))
def test_no_mount_opens_anything(mount: str) -> None:
    page = through_asgi(CAPI(make_config()), f"/{mount.strip('/')}x")
    assert TAG.fullmatch(tag_of(page))


@pytest.mark.parametrize("mount", ["//evil.example", "/\\evil.example", "///evil.example"])
def test_the_login_posts_its_token_to_this_host(mount: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    capi = CAPI(make_config())
    scope = scope_for(REQUEST, root_path=mount, path=f"{mount}/_capi/parity", raw_path=b"/p")
    asyncio.run(asgi.CAPIMiddleware(app, capi)(scope, nothing, send))
    (action,) = re.findall(rb'action="([^"]*)"', b"".join(sent))
    assert re.match(rb"/[^/\\]", action)
