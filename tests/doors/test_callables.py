"""The host's own callables run where the host's code runs, and no page waits long for one."""

import asyncio
import contextvars
import threading
from typing import Any

import pytest
from django.http import HttpResponse

from capi_middleware import CAPI, UserData, asgi, wsgi
from capi_middleware.request import visit
from tests.doors.test_django import PAGE as DJANGO_PAGE
from tests.doors.test_django import Site
from tests.doors.test_starts import HTML, PAGE, REQUEST, counts, piece, start
from tests.support.configs import make_config
from tests.support.exchanges import TAG_START, environ_for, nothing, scope_for
from tests.support.stores import states

where: contextvars.ContextVar[str] = contextvars.ContextVar("where", default="nowhere")


class Seen:
    """An asynchronous callable that notes what surrounds it."""

    def __init__(self) -> None:
        self.loops: list[Any] = []
        self.threads: list[int] = []
        self.variables: list[str] = []

    async def __call__(self, request: Any) -> Any:
        await asyncio.sleep(0)
        self.loops.append(asyncio.get_running_loop())
        self.threads.append(threading.get_ident())
        self.variables.append(where.get())
        return UserData(external_id="17")


def wsgi_page(environ: Any, start_response: Any) -> Any:
    where.set("in the app")
    start_response("200 OK", [HTML])
    return [PAGE]


def through_wsgi(capi: CAPI) -> bytes:
    return b"".join(wsgi.CAPIMiddleware(wsgi_page, capi)(environ_for(REQUEST), lambda *_: print))


def test_an_asynchronous_callable_of_an_asgi_site_runs_in_the_loop_of_its_request() -> None:
    seen = Seen()
    capi = CAPI(make_config(user_data=seen))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        where.set("in the app")
        await send(start(HTML))
        await send(piece(PAGE))

    async def send(message: Any) -> None:
        pass

    async def main() -> None:
        await asgi.CAPIMiddleware(app, capi)(scope_for(REQUEST), nothing, send)
        assert seen.loops == [asyncio.get_running_loop()]

    asyncio.run(main())
    assert seen.variables == ["in the app"]


def test_an_asynchronous_callable_of_a_wsgi_site_leaves_the_thread_s_loop_alone() -> None:
    seen = Seen()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        assert TAG_START in through_wsgi(CAPI(make_config(user_data=seen)))
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert seen.threads == [threading.get_ident()]
    assert seen.variables == ["in the app"]


def test_a_callable_that_never_answers_costs_its_deadline_and_no_more(
    monkeypatch: pytest.MonkeyPatch, swallowed: list[BaseException]
) -> None:
    async def never(request: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(visit, "HOST_SECONDS", 0.01)
    capi = CAPI(make_config(user_data=never))
    assert TAG_START in through_wsgi(capi)
    assert [type(error) for error in swallowed] == [TimeoutError]
    assert any(one.kind == "error" for one in counts(capi))
    swallowed.clear()


class User:
    """Who is logged in."""

    pk = 17


def knows_user(get_response: Any) -> Any:
    """As Django's AuthenticationMiddleware: request.auser() looks it up in a thread."""
    from asgiref.sync import sync_to_async

    def middleware(request: Any) -> Any:
        request.auser = sync_to_async(User)
        return get_response(request)

    return middleware


@pytest.mark.parametrize("asynchronous", [False, True])
def test_django_s_user_may_be_asked_for_by_an_asynchronous_callable(asynchronous: bool) -> None:
    seen: list[Any] = []

    async def known(request: Any) -> UserData:
        user = await request.auser()
        seen.append(asyncio.get_running_loop())
        return UserData(external_id=str(user.pk))

    answer = Site(asynchronous=asynchronous)(
        lambda _: HttpResponse(DJANGO_PAGE),
        config=make_config(user_data=known),
        inside=(f"{__name__}.knows_user",),
    )
    (state,) = states(answer.capi.store)
    assert state[4]
    assert b"data-c" in answer.body
    assert len(seen) == 1
