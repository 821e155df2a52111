"""Raw ASGI and WSGI exchanges, driven by hand so that every byte and message can be seen."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from capi_middleware import CAPI, asgi, wsgi
from tests.support.configs import make_config
from tests.support.injection_cases import decode_chunk

TAG_START = b'<script type="application/json" data-c>'
Pairs = list[tuple[str, str]]


class Answer(NamedTuple):
    """A response as the server would send it."""

    status: str
    headers: Pairs
    body: bytes
    messages: list[dict[str, Any]]


def chunks_of(response: dict[str, Any]) -> list[bytes]:
    """All chunks of a case's response."""
    return [decode_chunk(one, response.get("encoding", "utf-8")) for one in response["chunks"]]


def make_capi(case: dict[str, Any]) -> CAPI:
    """A tracker in memory with the case's settings."""
    return CAPI(make_config(exclude=case.get("config", {}).get("exclude", ())))


def headers_of(pairs: Iterable[Sequence[str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


def scope_for(request: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An ASGI http scope of a case's request."""
    headers = dict(request["headers"])
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request["method"],
        "scheme": request["scheme"],
        "path": request["path"],
        "raw_path": request["path"].encode(),
        "root_path": "",
        "query_string": request.get("query_string", "").encode(),
        "headers": headers_of(headers.items()),
        "client": ("203.0.113.9", 50000),
        "server": ("shop.example", 443),
        "extensions": {},
        **more,
    }


async def nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def through_asgi(capi: CAPI, scope: dict[str, Any], messages: Sequence[dict[str, Any]]) -> Answer:
    """Let an app send `messages` through the ASGI door."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            if "sleep" in message:
                await asyncio.sleep(message["sleep"])
            else:
                await send(message)

    async def send(message: Any) -> None:
        sent.append(dict(message))

    asyncio.run(asgi.CAPIMiddleware(app, capi)(scope, nothing, send))
    start = next(one for one in sent if one["type"] == "http.response.start")
    headers = [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]
    ]
    body = b"".join(one.get("body", b"") for one in sent if one["type"] == "http.response.body")
    return Answer(str(start["status"]), headers, body, sent)


def response_messages(
    status: int, headers: list[tuple[bytes, bytes]], chunks: Sequence[bytes]
) -> list[dict[str, Any]]:
    """A response as ASGI messages, one body message for each chunk."""
    start = {"type": "http.response.start", "status": status, "headers": headers}
    bodies = [
        {"type": "http.response.body", "body": chunk, "more_body": place < len(chunks) - 1}
        for place, chunk in enumerate(chunks or [b""])
    ]
    return [start, *bodies]


def environ_for(request: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A WSGI environ of a case's request."""
    environ = {
        "REQUEST_METHOD": request["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": request["path"],
        "QUERY_STRING": request.get("query_string", ""),
        "SERVER_NAME": "shop.example",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "203.0.113.9",
        "wsgi.url_scheme": request["scheme"],
        "wsgi.input": None,
        **more,
    }
    for name, value in dict(request["headers"]).items():
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    return environ


def through_wsgi(capi: CAPI, environ: dict[str, Any], app: Callable[..., Any]) -> Answer:
    """Let `app` answer through the WSGI door, as a server iterates it."""
    started: list[tuple[str, Pairs]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: Pairs, exc_info: Any = None) -> Callable[..., Any]:
        if exc_info is not None and written:
            raise exc_info[1]
        started[:] = [(status, list(headers))]
        return written.append

    result = wsgi.CAPIMiddleware(app, capi)(environ, start_response)
    try:
        for piece in result:
            if piece:
                assert started, "a body before the headers"
            written.append(piece)
    finally:
        close = getattr(result, "close", None)
        if close is not None:
            close()
    assert started, "no start_response"
    status, headers = started[0]
    return Answer(status, headers, b"".join(written), [])
