"""Messages in any order, legal or not: the server and the app are told what they are without us."""

import asyncio
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from capi_middleware import CAPI, CapiError, EventRoute, asgi, track, wsgi
from tests.doors.test_starts import REQUEST
from tests.support.configs import make_config
from tests.support.exchanges import environ_for, nothing, scope_for

_TAG = re.compile(
    rb'<script type="application/json" data-c.*?</script><script[^>]*></script>', re.S
)
_OURS = re.compile(r"_fb[pc]=|capi_next=")
#: What may change where a page is.
_CHANGED = ("content-length", "etag", "accept-ranges", "last-modified", "cache-control", "vary")
capi = CAPI(make_config(routes=[EventRoute("GET /landing", "ViewContent")]))

bodies = st.lists(
    st.one_of(
        st.sampled_from(
            [b"", b"<!doctype html>", b"<html><head>", b"<title>x</title></head><body>hi",
             b"</body></html>", b"<p>text</p>" * 40, b"\xff\xfe", b"<he", b"ad>"]
        ),
        st.binary(max_size=9),
    ),
    max_size=5,
)  # fmt: skip
types = st.sampled_from(["text/html", "text/html; charset=utf-8", "application/json", None])
statuses = st.sampled_from([200, 200, 200, 204, 304, 302, 404, 500])
lengths = st.sampled_from(["none", "none", "right", "longer", "shorter", "0", "x", "9" * 30])


GONE_NEVER = 99
gone = st.sampled_from([GONE_NEVER, GONE_NEVER, GONE_NEVER, 0, 1, 2])


class Outcome(NamedTuple):
    """What came of a response for the visitor, the app and the server."""

    status: Any
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool
    other: list[Any]
    error: str
    closed: int


def without_us(outcome: Outcome) -> Outcome:
    """The same without our tag."""
    body = _TAG.sub(b"", outcome.body)
    headers = [
        (name, text)
        for name, text in outcome.headers
        if name not in _CHANGED and not (name == "set-cookie" and _OURS.match(text))
    ]
    return outcome._replace(headers=headers, body=body)


def compare(bare: Outcome, ours: Outcome, *, gone: bool) -> None:
    """Fails where the two differ in more than the tag.

    Where the client is `gone` in the middle it is a matter of pieces, which are not the same, how
    much of it still leaves and who hears that it does not.
    """
    was, now = without_us(bare), without_us(ours)
    if gone:
        assert now.closed == was.closed
        assert None in (was.status, now.status) or (now.status, now.headers) == was[:2]
        assert was.body.startswith(now.body) or now.body.startswith(was.body)
        assert now.error == was.error or "OSError" in now.error + was.error
        return
    if not bare.whole:
        # Bytes that were held back are lost with the connection, as others on their way are.
        assert was.body.startswith(now.body)
        now = now._replace(body=was.body)
    assert now == was
    if ours.body == bare.body and not any("_fb" in text for _, text in ours.headers):
        return
    said = [dict(one.headers).get("content-length") for one in (bare, ours)]
    if bare.whole and said[0] == str(len(bare.body)):
        assert said[1] in (None, str(len(ours.body)))


def length_of(kind: str, pieces: list[bytes]) -> list[tuple[str, str]]:
    """A Content-Length, be it true or not."""
    n = sum(map(len, pieces))
    text = {"none": "", "right": str(n), "longer": str(n + 3), "shorter": str(max(0, n - 3))}
    value = text.get(kind, kind)
    return [("content-length", value)] if value else []


# -- ASGI ----------------------------------------------------------------------------------------


class AsgiServer:
    """As strict as uvicorn: what comes in the wrong order is an error in the app's send()."""

    def __init__(self, gone_after: int) -> None:
        self.start: Any = None
        self.body = b""
        self.complete = False
        self.other: list[Any] = []
        self._left = gone_after

    async def send(self, message: Any) -> None:
        kind = message["type"]
        await asyncio.sleep(0)
        if kind == "http.response.start":
            if self.start is not None:
                raise RuntimeError("found a second start")
            status, headers = (
                message["status"],
                [(bytes(name), bytes(text)) for name, text in message.get("headers", [])],
            )
            self.start = status, headers
        elif kind == "http.response.body":
            if self.start is None or self.complete:
                raise RuntimeError("found a body in the wrong place")
            piece = bytes(message.get("body", b""))
            if self._left <= 0:
                raise OSError("the client is gone")
            self._left -= bool(piece)
            self.body += piece
            self.complete = not message.get("more_body", False)
        elif kind == "http.response.debug":
            self.other.append((self.start is not None, message))
        else:
            raise RuntimeError("found a message that nobody knows")


Step = tuple[str, Any]
steps = st.one_of(
    st.tuples(st.just("start"), st.tuples(statuses, types, lengths)),
    st.tuples(st.just("pieces"), bodies),
    st.tuples(st.just("last"), st.sampled_from([b"", b"</body></html>", b"x"])),
    st.tuples(st.sampled_from(["debug", "unknown", "raise", "sleep", "read", "track"]), st.none()),
    st.tuples(st.just("bare"), st.none()),
)


def asgi_app(given_steps: list[Step], patient: bool) -> Callable[..., Any]:
    """An app that does these steps; `patient`: it goes on after an error of its server."""

    async def step(kind: str, what: Any, receive: Any, send: Any) -> None:
        if kind == "start":
            status, content_type, length = what
            pieces = [piece for name, some in given_steps if name == "pieces" for piece in some]
            pieces += [some for name, some in given_steps if name == "last"]
            headers = [("x-a", "1"), *length_of(length, pieces)]
            headers += [("content-type", content_type)] if content_type else []
            raw = [(name.encode(), text.encode()) for name, text in headers]
            await send({"type": "http.response.start", "status": status, "headers": raw})
        elif kind == "pieces":
            for piece in what:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        elif kind == "last":
            await send({"type": "http.response.body", "body": what})
        elif kind == "bare":
            await send({"type": "http.response.body"})
        elif kind == "read":
            await receive()
        elif kind == "sleep":
            await asyncio.sleep(0.006)
        elif kind == "track":
            _track()
        elif kind == "raise":
            raise LookupError("theirs")
        else:
            await send({"type": f"http.response.{kind}"})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for kind, what in given_steps:
            try:
                await step(kind, what, receive, send)
            except (RuntimeError, OSError):
                if not patient:
                    raise

    return app


def _track() -> None:
    with suppress(CapiError):  # without us there is no request to track
        track("Lead")


def through_asgi(app: Any, gone_after: int) -> Outcome:
    server, error = AsgiServer(gone_after), ""
    try:
        asyncio.run(app(scope_for(REQUEST), nothing, server.send))
    except Exception as problem:
        error = repr(problem)
    status, headers = server.start or (None, [])
    lines = [(name.decode().lower(), text.decode()) for name, text in headers]
    return Outcome(status, lines, server.body, server.complete, server.other, error, 0)


@example([("start", (200, None, "none")), ("start", (200, "text/html", "none"))], True, GONE_NEVER)
@settings(max_examples=300)
@given(st.lists(steps, max_size=7), st.booleans(), gone)
def test_any_asgi_messages_have_the_outcome_that_they_have_without_us(
    given_steps: list[Step], patient: bool, gone_after: int
) -> None:
    app = asgi_app(given_steps, patient)
    bare = through_asgi(app, gone_after)
    ours = through_asgi(asgi.CAPIMiddleware(app, capi), gone_after)
    compare(bare, ours, gone=gone_after < GONE_NEVER)


# -- WSGI ----------------------------------------------------------------------------------------


class WsgiServer:
    """As strict as wsgiref; it ends after `most` pieces that are not empty."""

    def __init__(self, most: int) -> None:
        self.status: Any = None
        self.headers: list[tuple[str, str]] = []
        self.sent: Any = None
        self.body = b""
        self._most = most

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        if exc_info:
            if self.sent is not None:
                raise exc_info[1].with_traceback(exc_info[2])
        elif self.status is not None:
            raise AssertionError("found a second start")
        self.status, self.headers = status, list(headers)
        return self.write

    def write(self, piece: bytes) -> None:
        if self.status is None:
            raise AssertionError("found a body before the start")
        if self.sent is None:
            self.sent = self.status, self.headers
        self.body += piece

    def run(self, app: Any) -> Outcome:
        error, whole = "", False
        try:
            result = app(environ_for(REQUEST), self.start_response)
            try:
                for piece in result:
                    self._most -= bool(piece)
                    if self._most < 0:
                        break
                    self.write(piece)
                else:
                    whole = True
                    self.write(b"")
            finally:
                if hasattr(result, "close"):
                    result.close()
        except Exception as problem:
            error = repr(problem)
        status, headers = self.sent or (None, [])
        lines = [(name.lower(), text) for name, text in headers]
        return Outcome(status, lines, self.body, whole and not error, [], error, 0)


class Closing:
    """An iterable that counts its ends; one of them may fail."""

    def __init__(self, pieces: Iterator[bytes], closed: list[int], *, fails: bool) -> None:
        self._pieces, self._closed, self._fails = pieces, closed, fails

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self._closed.append(1)
        if self._fails:
            raise LookupError("close() of theirs")


PAGE_START = (200, "text/html", "none", False)
starts = st.tuples(statuses, types, lengths, st.booleans())
wsgi_steps = st.lists(
    st.one_of(
        st.tuples(st.just("start"), starts),
        st.tuples(st.just("write"), bodies),
        st.tuples(st.sampled_from(["raise", "track"]), st.none()),
    ),
    max_size=4,
)
body_steps = st.lists(
    st.one_of(
        st.tuples(st.just("pieces"), bodies),
        st.tuples(st.just("start"), starts),
        st.tuples(st.sampled_from(["raise", "track"]), st.none()),
    ),
    max_size=4,
)
kinds = st.sampled_from(["list", "tuple", "generator", "closing", "failing close", "lazy"])


def wsgi_app(first: list[Step], then: list[Step], kind: str, closed: list[int]) -> Any:
    """An app that does the first steps when it is called, and the others while it is iterated."""
    pieces = [one for name, some in [*first, *then] if name in ("write", "pieces") for one in some]

    def step(name: str, what: Any, start_response: Any, write: Any) -> Any:
        if name == "start":
            status, content_type, length, with_error = what
            headers = [("X-A", "1"), *length_of(length, pieces)]
            headers += [("Content-Type", content_type)] if content_type else []
            if not with_error:
                return start_response(f"{status} Any", headers)
            try:
                raise KeyError("theirs, told to the server")
            except KeyError:
                return start_response(f"{status} Any", headers, sys.exc_info())
        if name == "raise":
            raise LookupError("theirs")
        if name == "track":
            _track()
        elif write is not None:
            for piece in what:
                write(piece)
        return write

    def made(start_response: Any) -> Iterator[bytes]:
        for name, what in then:
            if name == "pieces":
                yield from what
            else:
                step(name, what, start_response, None)

    def app(environ: Any, start_response: Any) -> Any:
        write = None
        for name, what in first:
            write = step(name, what, start_response, write)
        if kind in ("list", "tuple"):
            return list(made(start_response)) if kind == "list" else tuple(made(start_response))
        if kind == "generator":
            return made(start_response)
        return Closing(made(start_response), closed, fails=kind == "failing close")

    def lazy(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield from app(environ, start_response)

    return lazy if kind == "lazy" else app


@example([("start", PAGE_START), ("write", [b""]), ("raise", None)], [], "list", GONE_NEVER)
@settings(max_examples=300)
@given(wsgi_steps, body_steps, kinds, gone)
def test_any_wsgi_calls_have_the_outcome_that_they_have_without_us(
    first: list[Step], then: list[Step], kind: str, most: int
) -> None:
    outcomes: list[Outcome] = []
    for ours in (False, True):
        closed: list[int] = []
        app = wsgi_app(first, then, kind, closed)
        outcome = WsgiServer(most).run(wsgi.CAPIMiddleware(app, capi) if ours else app)
        outcomes.append(outcome._replace(closed=len(closed)))
    compare(*outcomes, gone=most < GONE_NEVER)
