"""A body that is refused is not read, and one that does not come is not waited for."""

import asyncio
import io
import socket
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from capi_middleware import CAPI, asgi, wsgi
from capi_middleware.endpoints import bodies
from tests.support.configs import make_config
from tests.support.exchanges import environ_for, scope_for

HOST = [("host", "shop.example")]
ASKED = {"method": "POST", "scheme": "https", "path": "/_capi/b", "headers": HOST}
#: What needs no body to be refused: the path below the prefix, method, headers, status.
REFUSED = [
    ("nothing-here", "POST", {}, 404),
    ("b", "PUT", {}, 405),
    ("s.js", "POST", {}, 405),
    ("b", "POST", {"sec-fetch-site": "cross-site"}, 403),
    ("t", "POST", {"sec-fetch-site": "same-site"}, 403),
    ("b", "POST", {"origin": "https://evil.example"}, 403),
    ("t", "POST", {"content-encoding": "gzip"}, 415),
    ("b", "POST", {"content-length": "65537"}, 413),
    ("parity", "POST", {"content-length": "9" * 5000}, 413),
]


class Line(NamedTuple):
    """A connection: our end, theirs, and what a server reads from ours."""

    ours: socket.socket
    theirs: socket.socket
    stream: io.BufferedReader


class Unread(io.RawIOBase):
    """A body that nobody may ask for."""

    def read(self, size: int = -1) -> bytes:
        raise AssertionError("found a look at the body, expected none")


def request(name: str, method: str, headers: dict[str, str]) -> dict[str, Any]:
    path = f"/_capi/{name}"
    return {**ASKED, "method": method, "path": path, "headers": [*HOST, *headers.items()]}


async def asked(capi: CAPI, scope: dict[str, Any], receive: Any) -> int:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await asgi.CAPIMiddleware(lambda *_: asyncio.sleep(0), capi)(scope, receive, send)
    return int(sent[0]["status"])


def answered(capi: CAPI, environ: dict[str, Any]) -> int:
    statuses: list[str] = []
    door = wsgi.CAPIMiddleware(lambda *_: [], capi)

    def start(status: str, *_: Any) -> Any:
        statuses.append(status)

    door(environ, start)
    return int(statuses[0][:3])


@pytest.mark.parametrize(("name", "method", "headers", "status"), REFUSED)
def test_what_is_refused_is_refused_before_its_body_is_read(
    name: str, method: str, headers: dict[str, str], status: int
) -> None:
    async def receive() -> Any:
        raise AssertionError("found a look at the body, expected none")

    case = request(name, method, {"content-length": "10", **headers})
    capi = CAPI(make_config())
    assert asyncio.run(asked(capi, scope_for(case), receive)) == status
    assert answered(capi, {**environ_for(case), "wsgi.input": Unread()}) == status


@pytest.fixture
def line() -> Iterator[Line]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with ours, theirs, ours.makefile("rb") as stream:
        yield Line(ours, theirs, stream)


@pytest.mark.parametrize("where", ["gunicorn.socket", "werkzeug.socket", ""])
@pytest.mark.parametrize("drips", [False, True])
def test_a_body_that_does_not_end_is_given_up_and_its_connection_heard_no_more(
    line: Line,
    where: str,
    drips: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.05)
    over = threading.Event()
    line.theirs.sendall(b'{"e":')

    def drip() -> None:
        while not over.wait(0.005):
            line.theirs.send(b" ")

    dripping = threading.Thread(target=drip) if drips else None
    environ = {
        **environ_for(ASKED),
        "CONTENT_LENGTH": "60000",
        "wsgi.input": line.stream,
    }
    if where:
        environ[where] = line.ours
    capi = CAPI(make_config())
    if dripping:
        dripping.start()
    try:
        assert answered(capi, environ) == 408
    finally:
        over.set()
        if dripping:
            dripping.join()
    line.ours.setblocking(False)
    while line.ours.recv(4096):  # never blocks again
        pass
    counts = capi.store.tallies(0, 1e12).counts
    assert [(one.kind, one.reason) for one in counts] == [("beacon", "too_slow")]


def test_a_body_that_does_not_end_is_given_up_in_asgi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.05)
    given = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Any:
        if given:
            return given.pop()
        return await asyncio.Event().wait()

    assert asyncio.run(asked(CAPI(make_config()), scope_for(ASKED), receive)) == 408


def test_a_whole_body_keeps_its_connection(line: Line) -> None:
    line.theirs.sendall(b"{}")
    environ = {"CONTENT_LENGTH": "2", "wsgi.input": line.stream, "gunicorn.socket": line.ours}
    assert bodies.read_body(environ) == b"{}"
    line.theirs.sendall(b"more")
    assert line.ours.recv(4) == b"more"


def test_bodies_that_do_not_come_hold_one_thread_for_an_address(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 600.0)
    monkeypatch.setattr(bodies, "SECOND_BODY_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    capi, given = CAPI(make_config()), {"CONTENT_LENGTH": "9", "REMOTE_ADDR": "192.0.2.1"}
    with theirs, ours, ours.makefile("rb") as stream:
        environ = {**environ_for(ASKED), **given, "wsgi.input": stream, "gunicorn.socket": ours}
        with bodies.Patience({**given, "gunicorn.socket": line.ours}):
            assert answered(capi, environ) == 408  # while the first is still waited for
        line.theirs.sendall(b'{"e":[1]}')
        environ = {**environ_for(ASKED), **given, "wsgi.input": line.stream}
        assert answered(capi, environ) == 400  # whole, and no beacon
