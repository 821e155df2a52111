"""Greenlets, uWSGI and trio: events are recorded, or pages pass untouched and the log says why."""

import _thread
import asyncio
import json
import subprocess
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from capi_middleware import CAPI, asgi, current_visitor, track, wsgi
from capi_middleware.errors import StoreError
from capi_middleware.request.exchange import current
from capi_middleware.testing import FakeMeta
from tests.doors.greenlets import PAGE
from tests.doors.test_django import Site
from tests.doors.test_servers import ask
from tests.doors.test_starts import HTML, REQUEST, piece, start
from tests.support.configs import make_config
from tests.support.exchanges import TAG_START, environ_for, nothing, scope_for
from tests.support.processes import ROOT, free_port, running, until

_APP = "tests.doors.greenlets:application"
_GUNICORN = (
    f"gunicorn --no-control-socket --log-level critical -k gevent -b 127.0.0.1:{{port}} {_APP}"
)
_UWSGI = (
    f"--http-socket 127.0.0.1:{{port}} --need-app --disable-logging --virtualenv {sys.prefix} "
    f"--module {_APP} --gevent 50 --die-on-term"
)
_PROGRAM = Path(sys.executable).parent / "uwsgi"
_PYWSGI = "tests.doors.greenlets {port}"
WORKING = {
    "gunicorn": _GUNICORN,
    "pywsgi": f"{_PYWSGI} early",
    "pywsgi-half-patched": f"{_PYWSGI} half",
    "pywsgi-unpatched": f"{_PYWSGI} never",
    "uwsgi": f"{_UWSGI} --gevent-early-monkey-patch",
}
LATE = {
    "gunicorn": f"{_GUNICORN} --preload",
    "pywsgi": f"{_PYWSGI} late",
    "uwsgi": f"{_UWSGI} --gevent-monkey-patch",
}


@pytest.fixture(autouse=True)
def own_context() -> Iterator[None]:
    """A hindered door leaves its passage to the thread: not to the next test."""
    yield
    current.set(None)


def _there(servers: dict[str, str]) -> list[str]:
    """Those that are installed: `make test-doors` builds uWSGI."""
    return [name for name in servers if name != "uwsgi" or _PROGRAM.exists()]


def served(arguments: str, folder: Path, graph: str = "") -> Any:
    """A running server with its store and its log in `folder`."""
    port = free_port()
    program: Sequence[str] = (sys.executable, "-m")
    if arguments.startswith("--"):
        program = (str(_PROGRAM),)
    return port, running(
        arguments.format(port=port).split(),
        port,
        path="/ready",
        program=program,
        environment={
            "CAPI_TEST_STORE": f"sqlite:///{folder}/capi.db",
            "CAPI_TEST_LOG": f"{folder}/log",
            "CAPI_TEST_GRAPH": graph or "http://127.0.0.1:9",
        },
    )


def at_once(port: int, paths: Sequence[str]) -> list[Any]:
    with ThreadPoolExecutor(len(paths)) as pool:
        return list(pool.map(lambda path: ask(port, path), paths))


@pytest.mark.parametrize("server", _there(WORKING))
def test_greenlets_record_every_event_of_eight_pages_at_once(
    server: str, tmp_path: Path, fake_meta: FakeMeta
) -> None:
    port, running_server = served(WORKING[server], tmp_path, fake_meta.url)
    orders = [f"/orders/{n}" for n in range(8)]
    with running_server:
        answers = at_once(port, [*orders, *(f"/streams/{n}" for n in range(4))])
        assert all(TAG_START in answer.body for answer in answers)
        data = answers[0].body.split(TAG_START)[1].split(b"</script>")[0]
        event = json.loads(data)["e"][0]
        told = json.dumps({"e": [[event["i"], event["n"], event["p"][0], "sent"]]}).encode()
        beacon = ask(
            port, "/_capi/b", method="POST", body=told, Origin="http://shop.example",
            **{"Sec-Fetch-Site": "same-origin"},
        )  # fmt: skip
        assert beacon.status == 204
        until("all are delivered", lambda: len(delivered(fake_meta)) == 8 + 8 + 4 + 1)
    leads = [one for one in delivered(fake_meta) if one["event_name"] == "Lead"]
    assert len({one["user_data"]["external_id"][0] for one in leads}) == 8
    assert not (tmp_path / "log").read_text()


def delivered(fake_meta: FakeMeta) -> list[dict[str, Any]]:
    """Each distinct event that Meta has."""
    return list({one.key: one.event for one in fake_meta.received.server}.values())


@pytest.mark.parametrize("server", _there(LATE))
def test_greenlets_that_come_too_late_leave_every_page_alone_and_say_so_once(
    server: str, tmp_path: Path
) -> None:
    port, running_server = served(LATE[server], tmp_path)
    with running_server:
        answers = at_once(
            port, [f"/{kind}/{n}" for kind in ("orders", "streams") for n in range(8)]
        )
        assert {(answer.status, answer.body) for answer in answers} == {(200, PAGE)}
        assert not any(name == "set-cookie" for answer in answers for name, _ in answer.headers)
        assert ask(port, "/_capi/s.js").body == PAGE  # the app's answer to what it does not know
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert "patched after" in line


# -- in this process, as if it were so -----------------------------------------------------------


@pytest.fixture(params=["patched after", "without threads"])
def hindered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What the log says of a process in which no thread of ours works; none may begin."""
    if request.param == "patched after":
        monkeypatch.setattr(_thread, "allocate_lock", partial(_thread.allocate_lock))
    else:
        monkeypatch.setitem(sys.modules, "uwsgi", types.SimpleNamespace(has_threads=0))
    before = threads()
    yield request.param
    assert threads() <= before


@pytest.fixture
def capi(tmp_path: Path) -> CAPI:
    return CAPI(make_config(store=f"sqlite:///{tmp_path}/capi.db", delivery=True))


def threads() -> set[int | None]:
    """Ours."""
    return {one.ident for one in threading.enumerate() if one.name.startswith("capi-")}


#: Of the visitors that pages have asked for.
consents: list[str | None] = []


def tracking(environ: Any, start_response: Any) -> Iterator[bytes]:
    track("Lead")
    start_response("200 OK", [HTML])
    yield PAGE[:30]
    track("Contact")
    consents.append(current_visitor().consent)
    yield PAGE[30:]


async def tracking_too(scope: Any, receive: Any, send: Any) -> None:
    track("Lead")
    await send(start(HTML))
    await send(piece(PAGE[:30], more=True))
    track("Contact")
    consents.append(current_visitor().consent)
    await send(piece(PAGE[30:]))


def test_a_wsgi_page_passes_untouched_where_no_thread_works(
    hindered: str, capi: CAPI, caplog: pytest.LogCaptureFixture
) -> None:
    door = wsgi.CAPIMiddleware(tracking, capi)
    started: list[Any] = []

    def start_response(*given: Any) -> Any:
        started.append(given)
        return print

    for _ in range(3):
        body = door(environ_for(REQUEST), start_response)
        assert b"".join(body) == PAGE
    assert started == [("200 OK", [HTML])] * 3
    assert [hindered in record.getMessage() for record in caplog.records] == [True]


def test_an_asgi_page_passes_untouched_where_no_thread_works(
    hindered: str, capi: CAPI, caplog: pytest.LogCaptureFixture
) -> None:
    door, sent = asgi.CAPIMiddleware(tracking_too, capi), []

    async def send(message: Any) -> None:
        sent.append(message)

    for _ in range(3):
        sent.clear()
        asyncio.run(door(scope_for(REQUEST), nothing, send))
        assert sent == [start(HTML), piece(PAGE[:30], more=True), piece(PAGE[30:])]
    assert [hindered in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_django_page_passes_untouched_where_no_thread_works(
    hindered: str, asynchronous: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from django.http import HttpResponse

    def view(request: Any) -> Any:
        track("Lead")
        return HttpResponse(PAGE)

    config = make_config(store=f"sqlite:///{tmp_path}/capi.db", delivery=True)
    answer = Site(asynchronous=asynchronous)(view, config=config)
    assert answer.body == PAGE
    assert not answer.cookies
    assert [hindered in record.getMessage() for record in caplog.records] == [True]


def test_a_job_is_told_where_no_thread_works(hindered: str, capi: CAPI) -> None:
    with pytest.raises(StoreError, match="no thread can work"):
        capi.track("Lead")
    assert capi.flush(0.1)
    capi.close()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_view_tracks_in_vain_but_unharmed_where_the_door_itself_failed(
    asynchronous: bool, monkeypatch: pytest.MonkeyPatch, swallowed: list[BaseException]
) -> None:
    from django.http import HttpResponse

    def failing(self: CAPI, scope: Any) -> Any:
        raise LookupError("ours")

    def view(request: Any) -> Any:
        track("Lead")
        return HttpResponse(PAGE)

    monkeypatch.setattr(CAPI, "endpoint", failing)
    answer = Site(asynchronous=asynchronous)(view)
    assert answer.body == PAGE
    assert [type(error) for error in swallowed] == [LookupError]
    counts = answer.capi.store.tallies(0, 1e12).counts
    assert [one.event_name for one in counts if one.kind == "dropped"] == ["Lead"]
    swallowed.clear()


def test_a_callable_stays_in_its_thread_where_gevent_is_loaded_and_not_used() -> None:
    gevent: Any = import_module("gevent")
    seen: list[int] = []

    async def known(request: Any) -> None:
        await asyncio.sleep(0)
        seen.append(threading.get_ident())

    door = wsgi.CAPIMiddleware(tracking, CAPI(make_config(user_data=known)))
    assert TAG_START in b"".join(door(environ_for(REQUEST), lambda *_: print))
    assert seen == [threading.get_ident()]
    job = gevent.spawn(lambda: b"".join(door(environ_for(REQUEST), lambda *_: print)))
    assert TAG_START in job.get()
    assert seen[1] != threading.get_ident()


# -- trio ----------------------------------------------------------------------------------------


def test_hypercorn_on_trio_ends_at_its_start_with_one_clear_error(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "hypercorn", "-k", "trio", "-b", f"127.0.0.1:{free_port()}",
         "tests.doors.test_hindrances:site"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "expected asyncio or uvloop" in ended.stderr


def test_trio_without_lifespan_passes_untouched_and_says_so_once(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    arguments = (
        f"hypercorn -k trio -b 127.0.0.1:{port} tests.doors.test_hindrances:without_lifespan"
    )
    with running(arguments.split(), port, environment={"CAPI_TEST_LOG": str(log)}):
        answers = at_once(port, ["/"] * 8)
        assert {(answer.status, answer.body) for answer in answers} == {(200, PAGE)}
        assert not any(name == "set-cookie" for answer in answers for name, _ in answer.headers)
    said = [line for line in log.read_text().splitlines() if "capi_middleware" in line]
    assert len(said) == 1
    assert "not asyncio's" in said[0]


def test_an_app_that_ran_on_asyncio_before_may_answer_on_trio(
    capi: CAPI, caplog: pytest.LogCaptureFixture
) -> None:
    trio: Any = import_module("trio")
    door, sent = asgi.CAPIMiddleware(tracking_too, capi), []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(door(scope_for(REQUEST), nothing, send))
    assert TAG_START in b"".join(one.get("body", b"") for one in sent)
    sent.clear()
    trio.run(door, scope_for(REQUEST), nothing, send)
    assert sent == [start(HTML), piece(PAGE[:30], more=True), piece(PAGE[30:])]
    sent.clear()
    asyncio.run(door(scope_for(REQUEST), nothing, send))
    assert TAG_START in b"".join(one.get("body", b"") for one in sent)
    capi.close()


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    else:
        track("Lead")
        await send(start(HTML))
        await send(piece(PAGE))


site = asgi.CAPIMiddleware(_app, make_config(delivery=False))


async def without_lifespan(scope: Any, receive: Any, send: Any) -> None:
    """As a server or an outer app that keeps lifespan to itself."""
    if scope["type"] == "lifespan":
        raise RuntimeError("none here")
    await site(scope, receive, send)
