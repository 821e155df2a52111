"""Behind real servers an answer through a door is the answer without it, but for the tag."""

import http.client
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.doors.served import ASGI, PAGE, WSGI
from tests.support.processes import free_port, running

_ASGI, _WSGI = "tests.doors.served:app", "tests.doors.served:application"
_GUNICORN = f"gunicorn --no-control-socket --log-level critical -b 127.0.0.1:{{port}} {_WSGI}"
SERVERS = {
    "uvicorn": f"uvicorn --http h11 --log-level critical --port {{port}} {_ASGI}",
    "httptools": f"uvicorn --http httptools --log-level critical --port {{port}} {_ASGI}",
    "hypercorn": f"hypercorn --log-level critical -b 127.0.0.1:{{port}} {_ASGI}",
    "granian": f"granian --interface asgi --no-log --no-ws --port {{port}} {_ASGI}",
    "daphne": f"daphne -v 0 -p {{port}} {_ASGI}",
    "granian-wsgi": f"granian --interface wsgi --no-log --port {{port}} {_WSGI}",
    "hypercorn-wsgi": f"hypercorn --log-level critical -b 127.0.0.1:{{port}} wsgi:{_WSGI}",
    "gunicorn-sync": f"{_GUNICORN} -k sync",
    "gunicorn-gthread": f"{_GUNICORN} -k gthread --threads 4",
    "gunicorn-gevent": f"{_GUNICORN} -k gevent",
    "waitress": f"waitress --listen 127.0.0.1:{{port}} {_WSGI}",
    "uwsgi": "--http-socket 127.0.0.1:{port} --master --enable-threads --single-interpreter "
    f"--need-app --disable-logging --virtualenv {sys.prefix} --module {_WSGI}",
    "wsgiref": "tests.doors.served {port}",
}
#: Tried by `make test`; the others as well by `make test-doors`.
FEW = ("uvicorn", "granian-wsgi", "gunicorn-gthread", "wsgiref")
CHOSEN = tuple(SERVERS) if os.environ.get("CAPI_TEST_DOORS") == "all" else FEW

#: Servers that refuse what these apps do before our door hears of the answer.
_ASGI_SERVERS = ("uvicorn", "httptools", "hypercorn", "granian", "daphne")
_TAG = re.compile(
    rb'<script type="application/json" data-c.*?</script><script[^>]*></script>', re.S
)
_OURS = re.compile(r"_fb[pc]=|capi_next=")
_FOR_ONE = ("cache-control", "private")
#: What may change where a tag is in the body.
_CHANGED = frozenset(
    {"content-length", "transfer-encoding", "connection", "etag", "last-modified", "accept-ranges"}
)
#: What a server gets wrong without us: daphne reads the iterable of the headers twice, and wsgiref
#: waits for ever for the end of a body that does not come.
BROKEN = frozenset(
    {("daphne", "headers_as_generator")}
    | {("wsgiref", behaviour) for behaviour in WSGI if behaviour.startswith("form/")}
)
#: Pages without a tag: nobody reads a file that the server sends itself.
UNTAGGED = frozenset({"file_of_html", "path_sent"})


class Seen(NamedTuple):
    """An answer as the browser gets it: the status is 0 where the connection ends without one."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool


def ask(
    port: int, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str
) -> Seen:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    sent = {
        "Host": "shop.example", "User-Agent": "Mozilla/5.0 (X11) Firefox/140", "X-A": "1",
        "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", **headers,
    }  # fmt: skip
    try:
        connection.request(method, path, body, sent, encode_chunked="Transfer-Encoding" in headers)
        answer = connection.getresponse()
        given = sorted((k.lower(), v) for k, v in answer.getheaders() if k.lower() != "date")
        try:
            whole, read = True, answer.read()
        except http.client.IncompleteRead as error:
            whole, read = False, error.partial
    except (ConnectionError, TimeoutError, http.client.HTTPException):
        return Seen(0, "", [], b"", whole=False)
    finally:
        connection.close()
    return Seen(answer.status, answer.reason, given, read, whole)


def without_tag(seen: Seen) -> Seen:
    """The same answer as if our tag were not in it."""
    tagged = _TAG.search(seen.body) is not None
    headers = [
        (name, value)
        for name, value in seen.headers
        if not (tagged and name in _CHANGED)
        and not (name == "set-cookie" and _OURS.match(value))
        # What has an event_id, or sets our cookie, is for one visitor alone.
        and (name, value) != _FOR_ONE
    ]
    return seen._replace(headers=headers, body=_TAG.sub(b"", seen.body))


def differences(method: str, bare: Seen, ours: Seen) -> str:
    """What is not the same, "" for nothing. HEAD has the headers of the page that GET gives."""
    was, now = bare, without_tag(ours)
    if not (bare.whole or ours.whole):
        return ""  # how much of it gets out before the connection ends is a race in some servers
    if _TAG.search(ours.body) or (
        method == "HEAD" and ("content-type", "text/html; charset=utf-8") in was.headers
    ):
        was = was._replace(headers=[one for one in was.headers if one[0] not in _CHANGED])
        now = now._replace(headers=[one for one in now.headers if one[0] not in _CHANGED])
    return "; ".join(
        f"{name}: found {new!r:.400}, without us {old!r:.400}"
        for name, old, new in zip(Seen._fields, was, now, strict=True)
        if old != new
    )


@pytest.fixture(scope="module", params=CHOSEN)
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """A running server: its name and port."""
    name: str = request.param
    port = free_port()
    program = (sys.executable, "-m")
    if name == "uwsgi":
        program = (str(Path(sys.executable).parent / "uwsgi"),)  # type: ignore[assignment]
    arguments = SERVERS[name].format(port=port).split()
    with running(arguments, port, path="/bare/json", program=program):
        yield name, port


def test_every_answer_is_the_one_without_us(server: tuple[str, int]) -> None:
    name, port = server
    wrong: dict[str, str] = {}
    for behaviour in ASGI if name in _ASGI_SERVERS else WSGI:
        if (name, behaviour) in BROKEN:
            continue
        for method in ("GET", "HEAD"):
            bare = ask(port, f"/bare/{behaviour}?a=%C3%A9&b", method=method)
            ours = ask(port, f"/ours/{behaviour}?a=%C3%A9&b", method=method)
            bare = bare._replace(body=bare.body.replace(b"/bare", b"/ours"))
            found = differences(method, bare, ours)
            is_page = bare.body == PAGE and bare.status != 302 and behaviour not in UNTAGGED
            if is_page and not _TAG.search(ours.body):
                found += "; no tag"
            if found:
                wrong[f"{method} {behaviour}"] = found
    assert not wrong, "\n".join(f"{name} {what}: {how}" for what, how in wrong.items())


def test_half_a_body_that_is_refused_holds_nobody_up(server: tuple[str, int]) -> None:
    _, port = server
    half = b"Host: shop.example\r\nContent-Length: 99\r\n%b\r\n{"
    asked = [
        b"POST /ours/_capi/nothing-here HTTP/1.1\r\n" + half % b"",
        b"POST /ours/_capi/b HTTP/1.1\r\n" + half % b"Sec-Fetch-Site: cross-site\r\n",
    ]
    with ExitStack() as stack:
        for request in asked * 4:
            stalled = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            stalled.sendall(request)
        assert ask(port, "/ours/plain").status == 200
