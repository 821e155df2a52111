"""What lives longer than a response is about nobody's visit."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest

from capi_middleware import CAPI, CapiError, asgi, current_visitor, track, wsgi
from tests.doors.test_starts import HTML, PAGE, REQUEST, counts, piece, rows, start
from tests.support.configs import make_config
from tests.support.exchanges import environ_for, nothing, scope_for

VISITORS = ("203.0.113.1", "203.0.113.2", "203.0.113.3")
COOKIE = ("cookie", "_fbp=fb.1.1700000000000.111111111")


def of(address: str, asked: list[Any]) -> dict[str, Any]:
    """A request of a visitor who has an fbp."""
    return {**REQUEST, "headers": [*REQUEST["headers"], COOKIE], "client": (address, 1)}


async def served(capi: CAPI, ask: Callable[[], Any]) -> list[Any]:
    """What a worker task answers that the first request starts and that the others use too."""
    jobs: asyncio.Queue[Any] = asyncio.Queue()
    answers: list[Any] = []
    workers: list[asyncio.Task[None]] = []

    async def work() -> None:
        while True:
            done = await jobs.get()
            try:
                answers.append(ask())
            except Exception as error:
                answers.append(error)
            done.set_result(None)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not workers:
            workers.append(asyncio.create_task(work()))
        else:
            done = asyncio.get_running_loop().create_future()
            await jobs.put(done)
            await done
        await send(start(HTML))
        await send(piece(PAGE))

    async def send(message: Any) -> None:
        pass

    door = asgi.CAPIMiddleware(app, capi)
    for address in VISITORS:
        request = of(address, [])
        await door(scope_for(request, client=(address, 1)), nothing, send)
    workers[0].cancel()
    return answers


def test_a_worker_of_the_first_request_tracks_without_that_visitor_s_identity(
    caplog: pytest.LogCaptureFixture,
) -> None:
    capi = CAPI(make_config(page_view=False))
    kept = rows(capi)
    answers = asyncio.run(served(capi, lambda: track("Lead", value=1, currency="EUR")))
    assert [event.event_name for event in answers] == ["Lead", "Lead"]
    for row in kept:
        told = row.payload or b""
        assert not any(one in told for one in (b"203.0.113", b"111111111", b"Firefox", b"landing"))
    assert any(one.reason == "track() after the response" for one in counts(capi))
    assert "lives longer than the response" in caplog.text


def test_in_debug_a_worker_of_the_first_request_is_told_what_to_call() -> None:
    capi = CAPI(make_config(debug=True))
    answers = asyncio.run(served(capi, lambda: track("Lead")))
    assert [type(one) for one in answers] == [CapiError] * 2
    assert "CAPI(config).track" in str(answers[0])


def test_a_visitor_that_is_asked_for_after_the_response_is_nobody_and_agreed_to_nothing() -> None:
    answers = asyncio.run(served(CAPI(make_config()), current_visitor))
    assert {(one.fbp, one.client_ip_address, one.consent) for one in answers} == {
        (None, None, "denied")
    }


def test_a_task_of_a_request_in_progress_is_about_its_visitor() -> None:
    capi = CAPI(make_config(page_view=False))
    kept = rows(capi)

    async def later() -> None:
        track("Lead")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.create_task(later())
        await send(start(HTML))
        await send(piece(PAGE))

    async def send(message: Any) -> None:
        pass

    asyncio.run(asgi.CAPIMiddleware(app, capi)(scope_for(of("", [])), nothing, send))
    assert b"111111111" in (kept[0].payload or b"")


@pytest.mark.parametrize("kind", [list, iter])
def test_a_thread_that_a_wsgi_request_left_behind_tracks_without_identity(kind: Any) -> None:
    import contextvars

    capi = CAPI(make_config(page_view=False))
    kept = rows(capi)
    jobs: queue.Queue[Any] = queue.Queue()

    def app(environ: Any, start_response: Any) -> Any:
        context = contextvars.copy_context()  # as threads of 3.14 without the GIL have it
        jobs.put(threading.Thread(target=context.run, args=(track, "Lead")))
        start_response("200 OK", [("Content-Type", "application/json")])
        return kind([b"{}"])

    body = wsgi.CAPIMiddleware(app, capi)(environ_for(of("", [])), lambda *_: print)
    list(body)
    if hasattr(body, "close"):
        body.close()
    thread = jobs.get()
    thread.start()
    thread.join(10)
    assert b"111111111" not in (kept[0].payload or b"")


@pytest.fixture(autouse=True)
def _warned(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "capi_middleware")
