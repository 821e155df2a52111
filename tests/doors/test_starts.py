"""When a response starts, and how it fails: the server hears what it hears without us."""

import asyncio
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from capi_middleware import CAPI, EventRoute, UserData, asgi, track, wsgi
from capi_middleware.events import Count, Row
from tests.support.configs import make_config
from tests.support.exchanges import TAG_START, environ_for, headers_of, nothing, scope_for
from tests.support.stores import states

PAGE = b"<!doctype html><html><head><title>x</title></head><body>hi</body></html>"
HTML = ("content-type", "text/html")
REQUEST: dict[str, Any] = {
    "method": "GET",
    "path": "/landing",
    "scheme": "https",
    "query_string": "fbclid=IwAR1234567890",
    "headers": [
        ("host", "shop.example"),
        ("user-agent", "Mozilla/5.0 (X11) Firefox/140"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ],
}


def start(*headers: tuple[str, str], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers_of(headers)}


def piece(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def answered(
    capi: CAPI, messages: Sequence[Any], request: dict[str, Any] = REQUEST, **more: Any
) -> list[dict[str, Any]]:
    """What leaves when an app sends `messages`; a number is a wait of so many seconds."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            if isinstance(message, float):
                await asyncio.sleep(message)
            else:
                await send(message)

    async def send(message: Any) -> None:
        sent.append(dict(message))

    await asgi.CAPIMiddleware(app, capi)(scope_for(request, **more), nothing, send)
    return sent


def cookies(sent: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Set-Cookie by name."""
    lines = [text.decode() for name, text in sent[0]["headers"] if name == b"set-cookie"]
    return {name: text for name, _, text in (line.partition("=") for line in lines)}


def counts(capi: CAPI) -> Sequence[Count]:
    """What leaves no row."""
    return capi.store.tallies(0, 1e12).counts


def rows(capi: CAPI) -> list[Row]:
    """What is issued from now on."""
    kept: list[Row] = []
    append = capi.store.append

    def noted(rows: Sequence[Row], *, wait: bool) -> Any:
        kept.extend(rows)
        return append(rows, wait=wait)

    capi.store.append = noted  # type: ignore[method-assign]
    return kept


@pytest.mark.parametrize("late", [0.0, 0.02, 0.3])
def test_meta_and_the_browser_are_told_the_same_ids_however_late_a_page_comes(late: float) -> None:
    capi = CAPI(make_config())
    kept = rows(capi)
    sent = asyncio.run(answered(capi, [start(HTML), late, piece(PAGE)]))
    given = cookies(sent)
    (row,) = kept
    assert row.payload is not None
    told = row.payload.decode()
    assert TAG_START in b"".join(one.get("body", b"") for one in sent)
    assert given["_fbp"].split(";")[0] in told
    assert given["_fbc"].split(";")[0] in told


def test_two_hundred_pages_without_a_length_all_get_their_cookie() -> None:
    capi = CAPI(make_config())

    async def many() -> list[list[dict[str, Any]]]:
        return [await answered(capi, [start(HTML), piece(PAGE)]) for _ in range(200)]

    assert all("_fbp" in cookies(sent) for sent in asyncio.run(many()))


def test_what_was_sent_to_a_late_page_is_over_with_it() -> None:
    capi = CAPI(make_config(routes=[EventRoute("POST /order", "Lead", status="303")]))
    order = {**REQUEST, "method": "POST", "path": "/order", "query_string": ""}
    redirected = asyncio.run(
        answered(capi, [start(("location", "/x"), status=303), piece(b"")], order)
    )
    given = {name: line.split(";")[0] for name, line in cookies(redirected).items()}
    brought = f"_fbp={given['_fbp']}; capi_next={given['capi_next']}"
    headers = [*REQUEST["headers"], ("cookie", brought)]
    page = {**REQUEST, "headers": headers, "query_string": ""}
    sent = asyncio.run(answered(capi, [start(HTML), 0.05, piece(PAGE)], page))
    assert b"Lead" in b"".join(one.get("body", b"") for one in sent)
    assert cookies(sent)["capi_next"].startswith(";")


@pytest.mark.parametrize("length", [[], [("content-length", str(len(PAGE)))]])
def test_an_error_after_a_start_that_is_held_leaves_the_start_to_the_server(length: Any) -> None:
    capi = CAPI(make_config(routes=[EventRoute("GET /landing", "Purchase")]))
    given = start(HTML, *length)
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(given)
        raise LookupError("theirs")

    async def send(message: Any) -> None:
        sent.append(message)

    door = asgi.CAPIMiddleware(app, capi)
    with pytest.raises(LookupError, match="theirs"):
        asyncio.run(door(scope_for(REQUEST), nothing, send))
    assert sent == [given]
    assert states(capi.store) == []
    assert {one.reason for one in counts(capi) if one.kind == "suppressed"} == {"error_status"}


def test_a_server_that_is_gone_does_not_hide_the_error_of_the_app() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(HTML))
        raise LookupError("theirs")

    async def gone(message: Any) -> None:
        raise OSError("the connection is closed")

    with pytest.raises(LookupError, match="theirs"):
        asyncio.run(
            asgi.CAPIMiddleware(app, CAPI(make_config()))(scope_for(REQUEST), nothing, gone)
        )


def test_messages_that_an_app_uses_again_are_never_changed() -> None:
    capi = CAPI(make_config())
    messages = [start(HTML, ("etag", '"1"'), ("content-length", str(len(PAGE)))), piece(PAGE)]
    before = repr(messages)
    first = asyncio.run(answered(capi, messages))
    second = asyncio.run(answered(capi, messages))
    assert repr(messages) == before
    assert [len(cookies(sent)) for sent in (first, second)] == [2, 2]


# -- where a page is ---------------------------------------------------------------------------


def placed(capi: CAPI, change: dict[str, Any], **more: Any) -> tuple[str, bytes]:
    """The event_source_url of a page whose app changes its scope in place, and the page."""
    kept = rows(capi)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope.update(change)
        await send(start(HTML))
        await send(piece(PAGE))

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(asgi.CAPIMiddleware(app, capi)(scope_for(REQUEST, **more), nothing, send))
    (row,) = kept
    assert row.payload is not None
    told: str = json.loads(row.payload)["event_source_url"]
    return told, b"".join(one.get("body", b"") for one in sent)


@pytest.mark.parametrize("routes", [(), (EventRoute("GET /en/landing", "ViewContent"),)])
def test_an_inner_router_that_cuts_the_path_does_not_change_the_address(routes: Any) -> None:
    capi = CAPI(make_config(routes=routes, page_view=not routes))
    change = {"path": "/landing", "raw_path": b"/landing"}
    found, _ = placed(capi, change, path="/en/landing", raw_path=b"/en/landing")
    assert found.startswith("https://shop.example/en/landing")


def test_a_mount_below_the_door_is_part_of_the_address_once() -> None:
    change = {"root_path": "/shop", "app_root_path": ""}
    more = {"path": "/shop/landing", "raw_path": b"/shop/landing"}
    found, page = placed(CAPI(make_config()), change, **more)
    assert found.startswith("https://shop.example/shop/landing")
    assert b'"/shop/_capi/s.js' not in page
    assert b"/_capi/s.js" in page


@pytest.mark.parametrize("known", ["before", "after"])
def test_the_path_that_a_proxy_cuts_off_is_in_the_address_and_in_the_script_s(known: str) -> None:
    change = {"root_path": "/api"} if known == "after" else {}
    more = {"root_path": "/api"} if known == "before" else {}
    found, page = placed(CAPI(make_config()), change, **more)
    assert found.startswith("https://shop.example/api/landing")
    assert b"/api/_capi/s.js" in page


# -- WSGI --------------------------------------------------------------------------------------


def through(capi: CAPI, app: Any) -> tuple[list[Any], Any]:
    """What start_response got until the app's iterable was returned, and the iterable."""
    started: list[Any] = []

    def start_response(*given: Any) -> Any:
        started.append(given)
        return lambda data: None

    return started, wsgi.CAPIMiddleware(app, capi)(environ_for(REQUEST), start_response)


@pytest.mark.parametrize("pieces", [[PAGE], [b"", PAGE], [PAGE[:40], PAGE[40:]], []])
@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_the_response_has_started_when_the_iterable_is_returned(pieces: Any, kind: Any) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("404 Not Found", [HTML, ("Set-Cookie", "a=1")])
        return kind(pieces)

    started, body = through(CAPI(make_config()), app)
    ((status, headers, *_),) = started
    assert status == "404 Not Found"
    assert ("Set-Cookie", "a=1") in headers
    assert b"hi</body>" in b"".join(body) or not pieces


def test_a_generator_that_fails_before_its_first_piece_fails_there_and_counts_nothing() -> None:
    capi = CAPI(make_config(routes=[EventRoute("GET /landing", "Purchase")]))

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [HTML, ("X-A", "1")])
        return (1 / 0 for _ in "1")

    started, body = through(capi, app)
    assert started == [("200 OK", [HTML, ("X-A", "1")])]
    with pytest.raises(ZeroDivisionError):
        next(iter(body))
    body.close()
    assert states(capi.store) == []


@pytest.mark.parametrize("content_type", ["text/event-stream", "text/html", "application/json"])
@pytest.mark.parametrize("door", ["wsgi", "asgi"])
def test_a_body_may_track_while_it_streams(door: str, content_type: str) -> None:
    capi = CAPI(make_config(page_view=False))
    if door == "wsgi":

        def app(environ: Any, start_response: Any) -> Any:
            def pieces() -> Iterator[bytes]:
                yield PAGE[:20]
                track("Lead")
                yield PAGE[20:]

            start_response("200 OK", [("Content-Type", content_type)])
            return pieces()

        _, body = through(capi, app)
        whole = b"".join(body)
        body.close()
    else:

        async def asynchronous(scope: Any, receive: Any, send: Any) -> None:
            await send(start(("content-type", content_type)))
            await send(piece(PAGE[:20], more=True))
            track("Lead")
            await send(piece(PAGE[20:]))

        out: list[Any] = []

        async def send(message: Any) -> None:
            out.append(message.get("body", b""))

        asyncio.run(asgi.CAPIMiddleware(asynchronous, capi)(scope_for(REQUEST), nothing, send))
        whole = b"".join(out)
    assert whole.startswith(PAGE[:20])
    assert whole.endswith(PAGE[-20:])
    assert [state[1] for state in states(capi.store)] == ["Lead"]


def test_what_is_tracked_after_the_start_has_the_user_data_of_all_events() -> None:
    capi = CAPI(make_config(user_data=lambda request: UserData(external_id="17")))
    kept = rows(capi)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [HTML])
        track("Lead")
        return [PAGE]

    _, body = through(capi, app)
    assert TAG_START in b"".join(body)
    assert {row.event_name for row in kept} == {"Lead", "PageView"}
    assert all(b"external_id" in (row.payload or b"") for row in kept)


def test_a_start_that_is_given_twice_is_for_the_server_to_refuse() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [HTML])
        start_response("404 Not Found", [HTML])
        return [PAGE]

    started, _ = through(CAPI(make_config()), app)
    assert [one[0] for one in started] == ["200 OK", "404 Not Found"]


def test_a_file_that_the_server_sends_is_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    capi = CAPI(make_config())

    class Wrapper:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __iter__(self) -> Iterator[bytes]:
            return iter(self.file)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [HTML])
        return Wrapper(io.BytesIO(PAGE))

    def start_response(*_: Any) -> Any:
        return print

    environ = {**environ_for(REQUEST), "wsgi.file_wrapper": Wrapper}
    body = wsgi.CAPIMiddleware(app, capi)(environ, start_response)
    assert type(body) is Wrapper
    assert "a file" in caplog.text


@pytest.mark.parametrize("said", [True, False])
def test_a_beacon_may_come_in_chunks(said: bool) -> None:
    capi = CAPI(make_config())
    seen: list[Any] = []

    def start_response(status: str, headers: Any, *_: Any) -> Any:
        seen.append(status)
        return print

    beacon = {**REQUEST, "method": "POST", "path": "/_capi/b", "query_string": ""}
    given = b'{"e": [["made-up", "Lead", "1234567890", "sent"]]}'
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": said}
    for more in ({"CONTENT_LENGTH": str(len(given))}, chunked):
        environ = environ_for(beacon, HTTP_ORIGIN="https://shop.example", **more)
        body: Any = io.BytesIO(given)
        environ["wsgi.input"] = io.BufferedReader(body) if said else body
        list(wsgi.CAPIMiddleware(lambda *_: [], capi)(environ, start_response))
    assert seen[0] == seen[1]
    assert seen[0][0] == "2"


READS: dict[str, Callable[[Any], Any]] = {
    "next": lambda stream: next(stream),
    "read": lambda stream: stream.read(99),
    "read1": lambda stream: stream.read1(99),
    "readline": lambda stream: stream.readline(),
    "readlines": lambda stream: stream.readlines(),
    "readinto": lambda stream: stream.readinto(bytearray(99)),
    "text": lambda stream: io.TextIOWrapper(stream).read(),
    "for": list,
}


@pytest.mark.parametrize("how", READS)
def test_a_form_is_seen_however_it_is_read(how: str) -> None:
    route = EventRoute("POST /lead", "Lead", custom_data={"content_name": "{form.name}"})
    capi = CAPI(make_config(routes=[route], page_view=False))
    kept = rows(capi)

    def app(environ: Any, start_response: Any) -> Any:
        READS[how](environ["wsgi.input"])
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b"{}"]

    body = b"name=chair"
    form = {**REQUEST, "method": "POST", "path": "/lead", "query_string": ""}
    environ = environ_for(form, CONTENT_TYPE="application/x-www-form-urlencoded")
    environ |= {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
    list(wsgi.CAPIMiddleware(app, capi)(environ, lambda *_: print))
    (row,) = kept
    assert row.payload is not None
    assert b"chair" in row.payload
