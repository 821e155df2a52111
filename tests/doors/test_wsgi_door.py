"""The WSGI door: PEP 3333 to the letter."""

import io
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from capi_middleware import track, wsgi
from tests.support.configs import make_config
from tests.support.exchanges import (
    TAG_START,
    environ_for,
    make_capi,
    through_wsgi,
)
from tests.support.injection_cases import CASES, decode_chunk

WSGI = {case["id"]: case for case in CASES if case["group"] == "wsgi" and case["executable"]}
PAGE = b"<!doctype html><html><head><title>x</title></head><body>hi</body></html>"
REQUEST = CASES[0]["request"]


class Closable:
    """An iterable that counts its close() calls."""

    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks, self.closed, self.nexts = iter(chunks), 0, 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.nexts += 1
        return next(self.chunks)

    def close(self) -> None:
        self.closed += 1


class Falsy(Closable):
    def __len__(self) -> int:
        return 0


class FileWrapper(Closable):
    pass


def app_of(case: dict[str, Any], made: list[Any]) -> Any:
    given = case["wsgi"]
    chunks = [decode_chunk(chunk) for chunk in given["chunks"]]
    headers = [tuple(pair) for pair in given["headers"]]
    status = given.get("status", "200 OK")

    def app(environ: Any, start_response: Any) -> Any:
        kind = given["kind"]
        if kind == "generator_app":

            def generate() -> Iterator[bytes]:
                start_response(status, headers)
                yield from chunks

            return generate()
        if kind == "no_start_response":
            return chunks
        if kind == "exc_info_before_body":
            start_response("200 OK", [("content-type", "text/html"), ("etag", '"1"')])
            try:
                raise RuntimeError("theirs")
            except RuntimeError:
                start_response("500 Internal Server Error", headers, sys.exc_info())
            return chunks
        write = start_response(status, headers)
        if kind == "write_then_iter":
            write(chunks[0])
            return chunks[1:]
        if kind == "list":
            return chunks
        cls = {"falsy_closable": Falsy, "file_wrapper": FileWrapper}.get(kind, Closable)
        made.append(cls(chunks))
        return made[-1]

    return app


@pytest.mark.parametrize("case_id", sorted(set(WSGI) - {"W20", "W13", "W26"}))
def test_an_app_of_every_kind_comes_out_as_the_table_says(case_id: str) -> None:
    case = WSGI[case_id]
    expect, made = case["expect"], list[Any]()
    request = {**REQUEST, **case["wsgi"].get("request", {})}
    environ = environ_for(request, **case["wsgi"].get("environ", {}))
    environ["wsgi.file_wrapper"] = FileWrapper
    capi = make_capi(case)
    body = b"".join(decode_chunk(chunk) for chunk in case["wsgi"]["chunks"])
    given = [tuple(pair) for pair in case["wsgi"]["headers"]]
    for _ in range(case["wsgi"].get("repeat", 1)):
        answer = through_wsgi(capi, dict(environ), app_of(case, made))
        if expect.get("injected"):
            place = expect["insert_at"]
            tag = answer.body[place : place + len(answer.body) - len(body)]
            assert tag.startswith(TAG_START)
            assert answer.body == body[:place] + tag + body[place:]
            assert f'"{expect.get("snippet_src_prefix", "")}/_capi/s.js' in tag.decode()
        elif expect.get("injected") is False:
            assert answer.body == body
    if "status" in expect:
        assert answer.status == expect["status"]
    if "body" in expect:
        assert answer.body == expect["body"].encode()
    if "close_calls" in expect:
        assert made[0].closed == expect["close_calls"]
    if expect.get("app_objects_unmodified"):
        assert given == [tuple(pair) for pair in case["wsgi"]["headers"]]


@pytest.mark.parametrize("content_type", ["image/png", "text/html"])
def test_a_file_wrapper_is_returned_as_it_is(content_type: str) -> None:
    made = FileWrapper([PAGE])

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-type", content_type)])
        return made

    environ = environ_for(REQUEST, **{"wsgi.file_wrapper": FileWrapper})
    door = wsgi.CAPIMiddleware(app, make_capi({}))
    assert door(environ, lambda status, headers: lambda data: None) is made


def test_a_body_that_needs_nothing_is_the_apps_own_object() -> None:
    body = [b"{}"]

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-type", "application/json")])
        return body

    door = wsgi.CAPIMiddleware(app, make_capi({}))
    assert door(environ_for(REQUEST), lambda status, headers: lambda data: None) is body


def test_an_app_that_never_calls_start_response_gets_the_servers_own_error() -> None:
    with pytest.raises(AssertionError, match="a body before the headers"):
        through_wsgi(make_capi({}), environ_for(REQUEST), lambda environ, start: [PAGE])


def test_one_piece_is_read_for_one_piece() -> None:
    made = Closable([PAGE[:40], PAGE[40:60], PAGE[60:]])

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-type", "text/html")])
        return made

    door = wsgi.CAPIMiddleware(app, make_capi({}))
    result = iter(door(environ_for(REQUEST), lambda status, headers: lambda data: None))
    for wanted in (1, 2, 3):
        next(result)
        assert made.nexts == wanted


def test_iteration_may_move_between_threads() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-type", "text/html")])
        return iter([PAGE[:40], PAGE[40:]])

    door = wsgi.CAPIMiddleware(app, make_capi({}))
    result = iter(door(environ_for(REQUEST), lambda status, headers: lambda data: None))
    pieces: list[bytes] = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: pieces.append(next(result)))
        thread.start()
        thread.join()
    assert TAG_START in b"".join(pieces)


def test_an_error_while_iterating_stays_the_apps_own_and_close_is_called() -> None:
    class Broken(Closable):
        def __next__(self) -> bytes:
            raise LookupError("theirs")

    made = Broken([])

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-type", "text/html")])
        return made

    with pytest.raises(LookupError, match="theirs"):
        through_wsgi(make_capi({}), environ_for(REQUEST), app)
    assert made.closed == 1


def test_exc_info_after_the_headers_raises_the_apps_error() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [("content-type", "text/plain")])
        write(b"sent")
        try:
            raise LookupError("theirs")
        except LookupError:
            start_response("500 X", [("content-type", "text/plain")], sys.exc_info())
        return []

    with pytest.raises(LookupError, match="theirs"):
        through_wsgi(make_capi({}), environ_for(REQUEST), app)


def test_a_middleware_installed_twice_injects_once() -> None:
    capi = make_capi({})

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-type", "text/html")])
        return [PAGE]

    answer = through_wsgi(capi, environ_for(REQUEST), wsgi.CAPIMiddleware(app, capi))
    assert answer.body.count(TAG_START) == 1
    assert capi.store.depth() == {"pending": 1}


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize("path", ["/", "/_capi/s.js", "/_capi/none", "/_capi/b"])
def test_the_validator_of_the_standard_library_finds_nothing(method: str, path: str) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        environ["wsgi.input"].read(0)
        start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", "72")])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else PAGE]

    environ: dict[str, Any] = {"QUERY_STRING": ""}
    setup_testing_defaults(environ)
    environ |= {"REQUEST_METHOD": method, "PATH_INFO": path}

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        return lambda data: None

    result: Any = validator(wsgi.CAPIMiddleware(validator(app), make_capi({})))(
        environ, start_response
    )
    list(result)
    result.close()


def _into(stream: Any) -> bytes:
    buffer = bytearray(100)
    return bytes(buffer[: stream.readinto(buffer)])


@pytest.mark.parametrize(
    "read",
    [
        lambda stream: stream.read(),
        lambda stream: stream.read1(100),
        lambda stream: stream.readline(),
        lambda stream: b"".join(stream.readlines()),
        lambda stream: b"".join(stream),
        lambda stream: next(stream),
        _into,
        lambda stream: io.TextIOWrapper(stream).read().encode(),
    ],
    ids=["read", "read1", "readline", "readlines", "iteration", "next", "readinto", "text"],
)
def test_a_body_is_seen_however_the_app_reads_it(read: Callable[[Any], bytes]) -> None:
    seen: list[bytes] = []
    assert read(wsgi.Tee(io.BytesIO(b"name=value"), seen.append)) == b"name=value"
    assert b"".join(seen) == b"name=value"


@pytest.mark.parametrize("before", [True, False])
def test_a_generator_may_track_after_an_answer_that_is_no_page(before: bool) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        if not before:
            track("Lead")
        start_response("200 OK", [("Content-Type", "application/json")])
        if before:
            track("Lead")

        def pieces() -> Iterator[bytes]:
            yield b"["
            track("Contact")
            yield b"]"

        return pieces()

    capi = make_capi({})
    environ = environ_for(REQUEST)
    result = wsgi.CAPIMiddleware(app, capi)(environ, lambda *_: lambda data: None)
    assert b"".join(result) == b"[]"
    result.close()  # type: ignore[attr-defined] # as servers do
    assert capi.store.flush(30)
    assert {row.event_name for row in capi.store.recent(9)} == {"Lead", "Contact"}


def test_callables_of_the_host_find_the_headers_in_the_scope() -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        return [PAGE]

    config = make_config(user_data=lambda request: seen.append(request.scope.get("headers")))
    environ = environ_for(REQUEST)
    b"".join(wsgi.CAPIMiddleware(app, config)(environ, lambda *_: lambda data: None))
    assert (b"host", b"shop.example") in seen[0]
