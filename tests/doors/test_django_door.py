"""Django's entry, held to the table that the ASGI and WSGI doors are held to."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpResponse, StreamingHttpResponse
from django.test import override_settings

from capi_middleware.django import CAPIMiddleware, get_capi
from tests.doors.test_doors import BOTH, check_body, check_cookies, check_headers
from tests.support.configs import make_config
from tests.support.django_project import ENTRY
from tests.support.exchanges import Answer, chunks_of, environ_for, scope_for

KINDS = ("whole", "stream", "whole in async", "stream in async")
#: What Django cannot say: a header twice, one that is no text, or a cookie that it reads otherwise.
CASES = [
    case
    for case in BOTH
    if case["interface"] in ("both", "wsgi")
    and len({name.lower() for name, _ in case["response"]["headers"]})
    == len(case["response"]["headers"])
]


def made(case: dict[str, Any], chunks: list[bytes], kind: str) -> Any:
    """The view's response."""

    async def parts() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    response: Any
    if kind.startswith("whole"):
        response = HttpResponse(b"".join(chunks))
    elif kind == "stream":
        response = StreamingHttpResponse(iter(chunks))
    else:
        response = StreamingHttpResponse(parts())
    response.status_code = case["response"]["status"]
    del response["Content-Type"]
    for name, value in case["response"]["headers"]:
        if name.lower() == "set-cookie":
            response.cookies.load(value)
        else:
            response[name] = value
    return response


def answer_of(response: Any, body: bytes) -> Answer:
    """What Django's handlers make of a response."""
    headers = [*response.items()]
    headers += [("set-cookie", cookie.OutputString()) for cookie in response.cookies.values()]
    return Answer(str(response.status_code), headers, body, [])


def ask(case: dict[str, Any], chunks: list[bytes], kind: str) -> Answer:
    """Send the view's response through the entry."""

    def view(request: Any) -> Any:
        return made(case, chunks, kind)

    async def asynchronous() -> Answer:
        async def get_response(request: Any) -> Any:
            return view(request)

        middleware = CAPIMiddleware(get_response)
        response = await middleware(ASGIRequest(scope_for(case["request"]), io.BytesIO()))
        if not response.streaming:
            return answer_of(response, response.content)
        return answer_of(response, b"".join([part async for part in response]))

    config = make_config(exclude=case.get("config", {}).get("exclude", ()))
    with override_settings(CAPI=config, MIDDLEWARE=[ENTRY]):
        try:
            if kind.endswith("async"):
                return asyncio.run(asynchronous())
            environ = environ_for(case["request"], **{"wsgi.input": io.BytesIO()})
            response = CAPIMiddleware(view)(WSGIRequest(environ))
            return answer_of(response, b"".join(response))
        finally:
            get_capi().close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_response_comes_out_as_the_table_says(case: dict[str, Any], kind: str) -> None:
    chunks = chunks_of(case["response"])
    answer = ask(case, chunks, kind)
    check_body(case, answer, b"".join(chunks))
    check_headers(case, answer)
    check_cookies(case, answer)
