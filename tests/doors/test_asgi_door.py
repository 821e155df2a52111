"""The ASGI door, message by message: what it does not know passes, in place and untouched."""

import asyncio
import contextvars
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import pytest

from capi_middleware import CAPIMiddleware, asgi, track
from capi_middleware.store.commits import Commit, Holdup, end
from tests.support.exchanges import (
    TAG_START,
    headers_of,
    make_capi,
    nothing,
    scope_for,
    through_asgi,
)
from tests.support.injection_cases import CASES

ASGI = {case["id"]: case for case in CASES if case["group"] == "asgi"}
PAGE = b"<!doctype html><html><head><title>x</title></head><body>hi</body></html>"


def messages_of(case: dict[str, Any]) -> list[dict[str, Any]]:
    messages = []
    types = list(case["asgi"].get("body_types", ()))
    for given in case["asgi"]["messages"]:
        message = dict(given)
        if message.get("headers") == "$GENERATOR":
            message["headers"] = (pair for pair in headers_of([("content-type", "text/html")]))
        elif "headers" in message:
            message["headers"] = headers_of(message["headers"])
        if "body" in message:
            body = message["body"].encode()
            kind = types.pop(0) if types else "bytes"
            message["body"] = {"memoryview": memoryview, "bytearray": bytearray, "bytes": bytes}[
                kind
            ](body)
        messages.append(message)
    if "then_body" in case["asgi"]:
        messages.append({"type": "http.response.body", "body": case["asgi"]["then_body"].encode()})
    return messages


def scope_of(case: dict[str, Any]) -> dict[str, Any]:
    scope = scope_for(case["request"], extensions=case["asgi"].get("extensions", {}))
    if "root_path" in case["asgi"]:
        scope |= {"root_path": case["asgi"]["root_path"], "path": case["asgi"]["path"]}
    return scope


@pytest.mark.parametrize(
    "case_id", sorted(set(ASGI) - {"G20", "G21", "G25", "G26", "G28", "G36", "G24"})
)
def test_the_messages_come_out_as_the_table_says(case_id: str) -> None:
    case = ASGI[case_id]
    expect = case["expect"]
    answer = through_asgi(make_capi(case), scope_of(case), messages_of(case))
    types = [message["type"] for message in answer.messages]
    body = b"".join(bytes(one["body"]) for one in messages_of(case) if one.get("body") is not None)
    if expect.get("injected"):
        place = expect["insert_at"]
        tag = answer.body[place : place + len(answer.body) - len(body)]
        assert tag.startswith(TAG_START)
        assert answer.body == body[:place] + tag + body[place:]
        assert expect.get("snippet_src_prefix", "") + "/_capi/s.js" in tag.decode()
    elif expect.get("injected") is False:
        assert answer.body == body
    if expect.get("messages_identical"):
        assert answer.messages == messages_of(case)
    for kept in expect.get("keep_messages", ()):
        assert types.count(kept) == 1
    if "order" in expect:
        assert [one for one in types if one in expect["order"]] == expect["order"]
    if "start_keeps" in expect:
        start = answer.messages[types.index("http.response.start")]
        assert {key: start[key] for key in expect["start_keeps"]} == expect["start_keeps"]
    if expect.get("header_values_survive"):
        assert ("content-type", "text/html") in answer.headers
    if "sent_count" in expect:
        assert len(answer.messages) == expect["sent_count"]
        assert dict(answer.headers)["content-length"] == str(len(answer.body))
    if "forwarded_count" in expect:
        assert len(answer.messages) >= expect["forwarded_count"]
        assert answer.body.endswith(b"late")


def html_messages(*bodies: bytes) -> list[dict[str, Any]]:
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": headers_of([("content-type", "text/html")]),
    }
    parts = [
        {"type": "http.response.body", "body": body, "more_body": place < len(bodies) - 1}
        for place, body in enumerate(bodies)
    ]
    return [start, *parts]


@pytest.mark.parametrize("case_id", ["G20", "G21"])
def test_a_websocket_passes_untouched(case_id: str) -> None:
    sent: list[Any] = []
    seen: list[Any] = []
    scope = {**scope_of(ASGI[case_id]), "type": "websocket"}

    async def app(inner: Any, receive: Any, send: Any) -> None:
        seen.extend([inner, receive, send])
        for message in messages_of(ASGI[case_id]):
            await send(message)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(CAPIMiddleware(app, make_capi({}))(scope, nothing, send))
    assert sent == messages_of(ASGI[case_id])
    assert seen[0] is scope
    assert seen[1] is nothing
    assert seen[2] is send


def test_an_unknown_scope_passes_untouched() -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    scope = {"type": "mqtt"}
    asyncio.run(CAPIMiddleware(app, make_capi({}))(scope, nothing, nothing))  # type: ignore[arg-type]
    assert scopes == [{"type": "mqtt"}]


def test_the_app_sees_that_the_client_is_gone() -> None:
    reached: list[int] = []
    parts = html_messages(PAGE[:20], PAGE[20:], b"more", b"end")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for place, message in enumerate(parts):
            reached.append(place)
            await send(message)

    async def gone(message: Any) -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        asyncio.run(
            CAPIMiddleware(app, make_capi({}))(scope_for(CASES[0]["request"]), nothing, gone)
        )
    assert reached[-1] == 1


def test_the_app_runs_in_the_same_task_with_the_same_receive_and_contextvars_come_back() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        variable.set(7)
        seen.extend([asyncio.current_task(), receive])
        for message in html_messages(PAGE):
            await send(message)

    async def send(message: Any) -> None:
        seen.append(len(asyncio.all_tasks()))

    async def outer() -> int:
        scope = scope_for(CASES[0]["request"])
        before, extensions = set(scope), scope["extensions"]
        await CAPIMiddleware(app, make_capi({}))(scope, nothing, send)
        assert seen[0] is asyncio.current_task()
        assert len(set(scope) - before) <= 1
        assert scope["extensions"] is extensions
        return variable.get()

    assert asyncio.run(outer()) == 7
    assert seen[1] is nothing
    assert set(seen[2:]) == {1}, "tasks were created"


def test_a_streaming_start_leaves_before_the_first_chunk_exists() -> None:
    order: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        start, body = html_messages(PAGE)
        await send(start)
        while not order:
            await asyncio.sleep(0.001)
        order.append("first chunk made")
        await send(body)

    async def send(message: Any) -> None:
        order.append(message["type"])

    asyncio.run(CAPIMiddleware(app, make_capi({}))(scope_for(CASES[0]["request"]), nothing, send))
    assert order[:2] == ["http.response.start", "first chunk made"]


def test_a_chunk_leaves_before_the_app_goes_on() -> None:
    progress: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in html_messages(PAGE[:43], PAGE[43:60], PAGE[60:]):
            await send(message)
            progress.append("app")

    async def send(message: Any) -> None:
        progress.append("out")

    asyncio.run(CAPIMiddleware(app, make_capi({}))(scope_for(CASES[0]["request"]), nothing, send))
    assert progress == ["app", "out", "out", "app", "out", "app", "out", "app"]


def test_a_middleware_installed_twice_injects_once() -> None:
    capi = make_capi({})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in html_messages(PAGE):
            await send(message)

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    twice = CAPIMiddleware(CAPIMiddleware(app, capi), capi)
    asyncio.run(twice(scope_for(CASES[0]["request"]), nothing, send))
    body = b"".join(message.get("body", b"") for message in sent)
    assert body.count(TAG_START) == 1
    assert capi.store.depth() == {"pending": 1}


def test_an_exception_of_the_app_stays_its_own() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("theirs")

    with pytest.raises(LookupError, match="theirs"):
        asyncio.run(
            asgi.CAPIMiddleware(app, make_capi({}))(
                scope_for(CASES[0]["request"]),
                nothing,
                nothing,  # type: ignore[arg-type]
            )
        )


def test_the_shutdown_of_the_app_delivers_before_it_is_complete() -> None:
    capi = make_capi({})
    order: list[str] = []
    capi.close = lambda timeout=5.0: order.append("closed")  # type: ignore[method-assign]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    async def send(message: Any) -> None:
        order.append(message["type"])

    asyncio.run(CAPIMiddleware(app, capi)({"type": "lifespan"}, nothing, send))
    assert order == ["lifespan.startup.complete", "closed", "lifespan.shutdown.complete"]


def test_a_start_without_a_body_is_not_kept() -> None:
    sent: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(html_messages(PAGE)[0])

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(CAPIMiddleware(app, make_capi({}))(scope_for(CASES[0]["request"]), nothing, send))
    assert sent == ["http.response.start"]


def test_a_close_that_fails_does_not_stop_the_shutdown(swallowed: list[BaseException]) -> None:
    capi = make_capi({})
    sent: list[str] = []

    def broken() -> None:
        raise RuntimeError("ours")

    capi.close = broken  # type: ignore[method-assign,assignment]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.shutdown.complete"})

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(CAPIMiddleware(app, capi)({"type": "lifespan"}, nothing, send))
    assert sent == ["lifespan.shutdown.complete"]
    assert len(swallowed) == 1
    swallowed.clear()


def test_nothing_is_sent_after_an_app_that_was_cancelled_at_its_last_byte() -> None:
    sent: list[str] = []
    capi = make_capi({})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        track("Lead")
        await send({"type": "http.response.body", "body": PAGE})

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def main() -> None:
        task = asyncio.ensure_future(
            asgi.CAPIMiddleware(app, capi)(scope_for(CASES[0]["request"]), nothing, send)
        )

        def never(rows: Any, *, wait: bool) -> Commit:
            asyncio.get_running_loop().call_soon(task.cancel)
            return Commit(Holdup(since=0.0))

        with patch.object(capi.store, "append", never), pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)

    with suppress(TimeoutError):
        asyncio.run(main())
    assert sent == []


def test_a_page_whose_commit_takes_its_time_still_gives_its_cookies() -> None:
    capi = make_capi({})
    headers: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        start = [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": 200, "headers": start})
        track("Lead")
        await send({"type": "http.response.body", "body": PAGE})

    async def send(message: Any) -> None:
        headers.extend(message.get("headers", ()))

    def slowly(rows: Any, *, wait: bool) -> Commit:
        commit = Commit(Holdup())
        asyncio.get_running_loop().call_later(0.03, end, [commit])
        return commit

    with patch.object(capi.store, "append", slowly):
        door = asgi.CAPIMiddleware(app, capi)
        asyncio.run(door(scope_for(CASES[0]["request"]), nothing, send))
    assert any(text.startswith(b"_fbp=") for name, text in headers if name == b"set-cookie")


def test_what_answers_under_the_prefix_is_loaded_before_its_first_request() -> None:
    capi = make_capi({})
    asgi.CAPIMiddleware(lambda *_: asyncio.sleep(0), capi)
    assert "endpoints" in vars(capi)


def test_a_content_length_of_endless_digits_raises_nothing() -> None:
    length = ("content-length", "9" * 5000)
    headers = headers_of([("content-type", "text/html"), length])
    messages: list[dict[str, Any]] = [
        {"type": "http.response.start", "status": 200, "headers": headers},
        {"type": "http.response.body", "body": PAGE},
    ]
    answer = through_asgi(make_capi({}), scope_for(CASES[0]["request"]), messages)
    assert answer.body == PAGE
