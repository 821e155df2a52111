"""What apps do at their doors: each behaviour bare below /bare and behind our door below /ours.

`application` is for WSGI servers, `app` for ASGI servers; test_servers.py compares the two.
"""

import asyncio
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import flask

from capi_middleware import CAPI, CapiError, Config, EventRoute, Pixel, asgi, track, wsgi

PAGE = (
    b"<!doctype html><html><head><title>x</title></head><body>" + b"<p>text</p>" * 99 + b"</body>"
)
HTML = ("Content-Type", "text/html; charset=utf-8")
LENGTH = ("Content-Length", str(len(PAGE)))
JSON = ("Content-Type", "application/json")
_MARK = b"</title>"
FIRST, REST = PAGE[: PAGE.index(_MARK)], PAGE[PAGE.index(_MARK) :]

capi = CAPI(
    Config(
        secret_key="a-secret-for-doors-of-more-than-32-characters",
        pixels=[Pixel("1234567890", access_token="token")],
        store="memory:",
        delivery=False,
        routes=[
            EventRoute("GET /plain", "ViewContent"),
            EventRoute("POST /form", "Lead", custom_data={"content_name": "{form.name}"}),
        ],
    )
)
closed: list[str] = []
_FILE = Path(tempfile.mkdtemp()) / "page.html"
_FILE.write_bytes(PAGE)


def _tracks() -> None:
    """As a host's code does it; without the middleware there is nothing to call."""
    with suppress(CapiError):
        track("Lead")


def _raises(text: str = "theirs") -> Any:
    raise RuntimeError(text)


class _Closing:
    """An iterable of the app's own whose end is noted."""

    def __init__(self, name: str, pieces: Iterator[bytes]) -> None:
        self._name = name
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        closed.append(self._name)


# -- WSGI --------------------------------------------------------------------------------------

WSGI: dict[str, Callable[[Any, Any], Any]] = {}


def _wsgi(app: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    WSGI[app.__name__.removeprefix("w_")] = app
    return app


def _simple(name: str, status: str, headers: list[tuple[str, str]], *pieces: bytes) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, list(headers))
        return list(pieces)

    WSGI[name] = app


_simple("plain", "200 OK", [HTML, LENGTH], PAGE)
_simple("without_length", "200 OK", [HTML], PAGE)
_simple("two_pieces", "200 OK", [HTML, LENGTH], FIRST, REST)
_simple("etag", "200 OK", [HTML, LENGTH, ("ETag", '"1"'), ("X-A", "1"), ("X-A", "2")], PAGE)
_simple("not_found", "404 Not Found", [HTML, LENGTH], PAGE)
_simple("gone", "410 Is Gone For Good", [JSON], b"{}")
_simple("failed", "500 Internal Server Error", [HTML, LENGTH], PAGE)
_simple(
    "redirect",
    "302 Found",
    [("Location", "/x"), HTML, ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2; Path=/"), LENGTH],
    PAGE,
)
_simple("no_content", "204 No Content", [("X-A", "1")])
_simple("not_modified", "304 Not Modified", [("ETag", '"1"')])
_simple("json", "200 OK", [JSON, ("Content-Length", "2")], b"{}")
_simple("nothing", "200 OK", [HTML, ("Content-Length", "0")])
_simple("fragment", "200 OK", [HTML], b"<p>a fragment</p>")
_simple("latin", "200 OK", [HTML, LENGTH, ("X-Name", "caf\xe9")], PAGE)
_simple("offloaded", "200 OK", [HTML, ("X-Accel-Redirect", "/x"), ("Content-Length", "0")], b"")
_simple("big", "200 OK", [("Content-Type", "image/png")], b"x" * 3_000_000, b"y" * 3_000_000)


@_wsgi
def w_generator(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [HTML])
    return iter([FIRST, REST])


@_wsgi
def w_empty_first(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [HTML])
    return iter([b"", FIRST, b"", REST])


@_wsgi
def w_empty_first_with_length(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [HTML, LENGTH])
    return iter([b"", FIRST, b"", REST])


@_wsgi
def w_empty_first_404(environ: Any, start_response: Any) -> Any:
    start_response("404 Not Found", [HTML, ("Set-Cookie", "a=1")])
    return iter([b"", PAGE])


@_wsgi
def w_lazy(environ: Any, start_response: Any) -> Any:
    start_response("404 Not Found", [HTML, ("X-A", "1")])
    yield b""
    yield PAGE


@_wsgi
def w_imperative(environ: Any, start_response: Any) -> Any:
    write = start_response("200 OK", [HTML])
    write(FIRST)
    write(REST)
    return []


@_wsgi
def w_imperative_then_pieces(environ: Any, start_response: Any) -> Any:
    write = start_response("200 OK", [HTML])
    write(FIRST)
    return [REST]


@_wsgi
def w_error_before_start(environ: Any, start_response: Any) -> Any:
    return _raises()


@_wsgi
def w_error_after_start(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [HTML, LENGTH])
    return _raises()


@_wsgi
def w_error_in_first_piece(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [HTML, ("X-A", "1")])
    return (_raises() for _ in "1")


@_wsgi
def w_error_in_the_middle(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [HTML])
    return (one or _raises() for one in (FIRST, b""))


@_wsgi
def w_error_page(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [HTML, ("X-A", "1")])
    try:
        _raises()
    except RuntimeError:
        start_response("503 Service Unavailable", [HTML, ("X-B", "2")], sys.exc_info())
    return [PAGE]


@_wsgi
def w_started_twice(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [HTML])
    start_response("404 Not Found", [HTML])
    return [PAGE]


@_wsgi
def w_event_stream(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    for n in range(3):
        _tracks()
        yield b"data: %d\n\n" % n


@_wsgi
def w_json_stream(environ: Any, start_response: Any) -> Any:
    def pieces() -> Iterator[bytes]:
        yield b"["
        _tracks()
        yield b"1]"

    start_response("200 OK", [JSON])
    return pieces()


@_wsgi
def w_page_stream(environ: Any, start_response: Any) -> Any:
    def pieces() -> Iterator[bytes]:
        _tracks()
        yield FIRST
        _tracks()
        yield REST
        _tracks()

    start_response("200 OK", [HTML])
    return pieces()


@_wsgi
def w_file_of_html(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [HTML, LENGTH])
    return environ.get("wsgi.file_wrapper", FileWrapper)(io.BytesIO(PAGE))


@_wsgi
def w_file(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Type", "image/png")])
    return environ.get("wsgi.file_wrapper", FileWrapper)(io.BytesIO(b"png" * 99))


@_wsgi
def w_closing(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [HTML])
    return _Closing(environ["SCRIPT_NAME"], iter([PAGE]))


@_wsgi
def w_closed(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [JSON])
    return [b"%d" % closed.count(environ["SCRIPT_NAME"])]


@_wsgi
def w_arguments(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Type", "text/plain")])
    names = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "HTTP_X_A")
    return [repr([environ.get(name) for name in names]).encode()]


def _input(read: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def app(environ: Any, start_response: Any) -> Any:
        try:
            found = repr(read(environ["wsgi.input"]))
        except Exception as error:
            found = type(error).__name__
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [found.encode()]

    return app


def _readinto(stream: Any) -> Any:
    space = bytearray(9)
    return stream.readinto(space), bytes(space)


_READS: dict[str, Callable[[Any], Any]] = {
    "read": lambda stream: stream.read(9),
    "next": lambda stream: next(stream),
    "for": lambda stream: next(iter(stream)),
    "readinto": _readinto,
    "read1": lambda stream: stream.read1(9),
    "readline": lambda stream: stream.readline(),
    "readlines": lambda stream: stream.readlines(9),
    "text": lambda stream: io.TextIOWrapper(stream).read(9),
    "asked": lambda stream: [hasattr(stream, one) for one in ("readable", "fileno", "peek")],
}
# Their routes read the form too: below /form/.
WSGI |= {f"form/{name}": _input(read) for name, read in _READS.items()}


shop = flask.Flask(__name__)


@shop.get("/<path:door>/flask_stream")
def _flask_stream(door: str) -> Any:
    template = shop.jinja_env.from_string("{{ first }}{{ rest }}")
    return flask.stream_template(template, first="", rest=PAGE.decode())


@shop.get("/<path:door>/flask_missing")
def _flask_missing(door: str) -> Any:
    flask.abort(404)


@shop.post("/<path:door>/flask_form")
def _flask_form(door: str) -> Any:
    flask.session.get("x")
    return flask.jsonify(flask.request.form.to_dict())


@shop.get("/<path:door>/flask_cookies")
def _flask_cookies(door: str) -> Any:
    answer = flask.make_response(PAGE)
    answer.set_cookie("a", "1")
    answer.set_cookie("b", "2", httponly=True)
    return answer, 201


for _name in ("flask_stream", "flask_missing", "flask_form", "flask_cookies"):
    WSGI[_name] = shop.wsgi_app


def _wsgi_behaviour(environ: Any, start_response: Any) -> Any:
    name = environ["PATH_INFO"].lstrip("/")
    return WSGI[name](environ, start_response)


_WSGI_DOORS: dict[str, Callable[[Any, Any], Any]] = {
    "bare": _wsgi_behaviour,
    "ours": wsgi.CAPIMiddleware(_wsgi_behaviour, capi),
}


def application(environ: Any, start_response: Any) -> Any:
    """The app for WSGI servers."""
    _, door, path = environ["PATH_INFO"].split("/", 2)
    return _WSGI_DOORS[door](
        {**environ, "SCRIPT_NAME": f"/{door}", "PATH_INFO": f"/{path}"}, start_response
    )


# -- ASGI --------------------------------------------------------------------------------------

ASGI: dict[str, Callable[[Any, Any, Any], Any]] = {}
Lines = list[tuple[bytes, bytes]]


def _asgi(app: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    ASGI[app.__name__.removeprefix("a_")] = app
    return app


def _lines(*headers: tuple[str, str]) -> Lines:
    return [(name.lower().encode(), text.encode("latin-1")) for name, text in headers]


def _start(status: int, *headers: tuple[str, str]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": _lines(*headers)}


def _piece(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def _messages(name: str, *messages: dict[str, Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)  # the very same objects for each request: as a cached response

    ASGI[name] = app


_messages("plain", _start(200, HTML, LENGTH), _piece(PAGE))
_messages("without_length", _start(200, HTML), _piece(PAGE))
_messages("two_pieces", _start(200, HTML, LENGTH), _piece(FIRST, True), _piece(REST))
_messages("end_apart", _start(200, HTML), _piece(PAGE, True), _piece(b""))
_messages("empty_first", _start(200, HTML), _piece(b"", True), _piece(PAGE))
_messages("etag", _start(200, HTML, LENGTH, ("ETag", '"1"'), ("X-A", "1")), _piece(PAGE))
_messages("not_found", _start(404, HTML, LENGTH, ("Set-Cookie", "a=1")), _piece(PAGE))
_messages("failed", _start(500, HTML, LENGTH), _piece(PAGE))
_messages("redirect", _start(302, ("Location", "/x"), HTML, ("Set-Cookie", "a=1")), _piece(b""))
_messages("no_content", _start(204, ("X-A", "1")), _piece(b""))
_messages("not_modified", _start(304, ("ETag", '"1"')), _piece(b""))
_messages("json", _start(200, JSON, ("Content-Length", "2")), _piece(b"{}"))
_messages("nothing", _start(200, HTML, ("Content-Length", "0")), _piece(b""))
_messages("fragment", _start(200, HTML), _piece(b"<p>a fragment</p>"))
_messages("latin", _start(200, HTML, LENGTH, ("X-Name", "caf\xe9")), _piece(PAGE))
_messages("big", _start(200, ("Content-Type", "image/png")), _piece(b"x" * 6_000_000))
_messages("body_without_start", _piece(PAGE))
_messages("started_twice", _start(200, HTML), _start(404, HTML), _piece(PAGE))
_messages("only_a_start", _start(200, HTML))
_messages("body_after_the_end", _start(200, HTML, LENGTH), _piece(PAGE), _piece(b"more"))
_messages("unknown", _start(200, HTML), {"type": "http.response.unheard"}, _piece(PAGE))
_messages("start_without_headers", {"type": "http.response.start", "status": 200}, _piece(b"x"))


def _with_headers(name: str, make: Callable[[Lines], Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = make(_lines(HTML, LENGTH, ("X-A", "1")))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send(_piece(PAGE))

    ASGI[name] = app


_with_headers("headers_as_tuple", tuple)
_with_headers("headers_as_generator", lambda lines: (line for line in lines))
_with_headers("headers_as_lists", lambda lines: [list(line) for line in lines])


@_asgi
async def a_error_before_start(scope: Any, receive: Any, send: Any) -> None:
    _raises()


@_asgi
async def a_error_after_start(scope: Any, receive: Any, send: Any) -> None:
    await send(_start(200, HTML, ("X-A", "1")))
    _raises()


@_asgi
async def a_error_after_start_with_length(scope: Any, receive: Any, send: Any) -> None:
    await send(_start(200, HTML, LENGTH))
    _raises()


@_asgi
async def a_error_in_the_middle(scope: Any, receive: Any, send: Any) -> None:
    await send(_start(200, HTML))
    await send(_piece(FIRST, True))
    _raises()


@_asgi
async def a_page_stream(scope: Any, receive: Any, send: Any) -> None:
    _tracks()
    await send(_start(200, HTML))
    _tracks()
    await send(_piece(FIRST, True))
    _tracks()
    await send(_piece(REST, True))
    _tracks()
    await send(_piece(b""))
    _tracks()


@_asgi
async def a_late_page(scope: Any, receive: Any, send: Any) -> None:
    await send(_start(200, HTML))
    await asyncio.sleep(0.05)
    await send(_piece(PAGE))


@_asgi
async def a_event_stream(scope: Any, receive: Any, send: Any) -> None:
    await send(_start(200, ("Content-Type", "text/event-stream")))
    for n in range(3):
        _tracks()
        await send(_piece(b"data: %d\n\n" % n, True))
    await send(_piece(b""))


@_asgi
async def a_form(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send(_start(200, ("Content-Type", "text/plain")))
    await send(_piece(body))


@_asgi
async def a_extensions(scope: Any, receive: Any, send: Any) -> None:
    told = repr(sorted(scope.get("extensions") or {})).encode()
    await send(_start(200, ("Content-Type", "text/plain")))
    await send(_piece(told))


@_asgi
async def a_place(scope: Any, receive: Any, send: Any) -> None:
    told = repr([scope["method"], scope["path"], scope["root_path"], scope["query_string"]])
    await send(_start(200, ("Content-Type", "text/plain")))
    await send(_piece(told.encode()))


@_asgi
async def a_early_hints(scope: Any, receive: Any, send: Any) -> None:
    if "http.response.early_hint" in (scope.get("extensions") or {}):
        await send({"type": "http.response.early_hint", "links": [b"</s.css>; rel=preload"]})
    await send(_start(200, HTML, LENGTH))
    await send(_piece(PAGE))


@_asgi
async def a_trailers(scope: Any, receive: Any, send: Any) -> None:
    with_trailers = "http.response.trailers" in (scope.get("extensions") or {})
    await send({**_start(200, HTML), "trailers": with_trailers})
    await send(_piece(PAGE))
    if with_trailers:
        await send({"type": "http.response.trailers", "headers": [(b"x-end", b"1")]})


@_asgi
async def a_path_sent(scope: Any, receive: Any, send: Any) -> None:
    file = _FILE
    await send(_start(200, HTML, ("Content-Length", str(file.stat().st_size))))
    if "http.response.pathsend" in (scope.get("extensions") or {}):
        await send({"type": "http.response.pathsend", "path": str(file)})
    else:
        await send(_piece(file.read_bytes()))


async def _asgi_behaviour(scope: Any, receive: Any, send: Any) -> None:
    name = scope["path"].removeprefix(scope["root_path"]).lstrip("/")
    await ASGI[name](scope, receive, send)


_ASGI_DOORS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "bare": _asgi_behaviour,
    "ours": asgi.CAPIMiddleware(_asgi_behaviour, capi),
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The app for ASGI servers."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    door = scope["path"].split("/", 2)[1]
    await _ASGI_DOORS[door]({**scope, "root_path": f"/{door}"}, receive, send)


if __name__ == "__main__":
    from wsgiref.simple_server import make_server

    make_server("127.0.0.1", int(sys.argv[1]), application).serve_forever()
