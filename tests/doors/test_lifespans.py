"""A shutdown delivers what waits; one that follows each request (Mangum) keeps nobody waiting."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from mangum import Mangum

from capi_middleware import CAPI, EventRoute, asgi
from capi_middleware.testing import FakeMeta
from tests.doors.test_starts import HTML, PAGE, REQUEST, piece, start
from tests.support.configs import make_config
from tests.support.exchanges import TAG_START, nothing, scope_for
from tests.support.processes import until
from tests.support.servers import closed_port

ORDER = EventRoute("GET /orders/{n}", "Lead", dedupe_key="{path.n}")


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await send(start(HTML))
        await send(piece(PAGE))


class Site:
    """A door with its tracker, and how often that was closed."""

    def __init__(self, path: Any, graph_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.capi = CAPI(
            make_config(
                store=f"sqlite:///{path}/capi.db",
                delivery=True,
                graph_url=graph_url,
                routes=[ORDER],
            )
        )
        self.door = asgi.CAPIMiddleware(app, self.capi)
        self.closed = 0
        self.end = partial(self.capi.close, 1.0)
        monkeypatch.setattr(self.capi, "close", self._close)
        self._honest = self.capi.__class__.close

    def _close(self) -> None:
        self.closed += 1
        self._honest(self.capi)


def through_mangum(site: Site, path: str, lifespan: Any) -> dict[str, Any]:
    """What a Lambda function answers to the page at `path`."""
    event = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": dict(REQUEST["headers"]),
        "requestContext": {"http": {"method": "GET", "path": path, "sourceIp": "203.0.113.9"}},
        "isBase64Encoded": False,
    }
    answer: dict[str, Any] = Mangum(site.door, lifespan=lifespan)(event, object())  # type: ignore[arg-type]
    return answer


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Mangum takes the thread's."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    asyncio.set_event_loop(None)
    loop.close()


def threads() -> set[threading.Thread]:
    """Those of ours that live as long as a tracker: a courier ends when it has nothing to do."""
    lasting = ("capi-deliverer", "capi-housekeeping")
    return {one for one in threading.enumerate() if one.name in lasting}


@pytest.mark.parametrize("meta", ["refuses", "hangs", "answers"])
@pytest.mark.parametrize("lifespan", ["auto", "on", "off"])
def test_no_page_of_mangum_waits_for_meta_or_ends_what_the_next_one_needs(
    lifespan: str,
    meta: str,
    loop: Any,
    fake_meta: FakeMeta,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if meta == "hangs":
        fake_meta.fail_next(200, delay=30, times=None)
    url = closed_port() if meta == "refuses" else fake_meta.url
    site = Site(tmp_path, url, monkeypatch)
    others = threads()  # of earlier tests
    seen: list[set[threading.Thread]] = []
    for n in range(4):
        answer = through_mangum(site, f"/orders/{n}", lifespan)
        assert TAG_START in answer["body"].encode()
        assert any(one.startswith("_fbp=") for one in answer["cookies"])
        seen.append(threads() - others)
    assert site.closed == 0
    assert seen[0]
    assert all(one >= seen[0] for one in seen)
    if meta == "answers":  # without a request, as Lambda thaws for none
        until("all are delivered", lambda: len(fake_meta.received.server) >= 8)
    else:
        assert sum(site.capi.store.depth().values()) == 8
    site.end()


def test_what_no_page_waited_for_is_on_disk_when_mangum_answers(
    loop: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, closed_port(), monkeypatch)
    for n in range(3):
        through_mangum(site, "/", "auto")
        disk = sqlite3.connect(tmp_path / "capi.db")
        assert disk.execute("SELECT count(*) FROM events").fetchone() == (n + 1,)
        disk.close()
    site.end()


class Server:
    """Starts an app, asks it for pages and shuts it down, as ASGI has it."""

    def __init__(self, door: Any) -> None:
        self._door = door

    def run(self, orders: int, **more: Any) -> list[str]:
        """What the app said of its life, in order."""
        told: list[str] = []

        async def main() -> None:
            messages: asyncio.Queue[Any] = asyncio.Queue()

            async def send(message: Any) -> None:
                told.append(message["type"])
                started.set()

            started = asyncio.Event()
            life = asyncio.create_task(self._door({"type": "lifespan"}, messages.get, send))
            await messages.put({"type": "lifespan.startup"})
            await started.wait()
            for n in range(orders):
                scope = scope_for({**REQUEST, "path": f"/orders/{n}{id(told)}"}, **more)
                await self._door(scope, nothing, _ignore)
            await messages.put({"type": "lifespan.shutdown"})
            await life

        asyncio.run(main())
        return told


async def _ignore(message: Any) -> None:
    pass


@pytest.mark.parametrize("orders", [1, 2, 5])
def test_a_shutdown_delivers_before_the_server_hears_of_its_end(
    orders: int, fake_meta: FakeMeta, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, fake_meta.url, monkeypatch)
    when: list[int] = []
    door = site.door

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        async def watching(message: Any) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                when.append(len({one.key for one in fake_meta.received.server}))
            await send(message)

        await door(scope, receive, watching)

    Server(watched).run(orders)
    assert when == [2 * orders]


def test_a_server_that_starts_again_delivers_again(
    fake_meta: FakeMeta, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, fake_meta.url, monkeypatch)
    for runs in (1, 2, 3):
        Server(site.door).run(2)
        assert site.closed == runs
        assert len({one.key for one in fake_meta.received.server}) == 4 * runs


@pytest.mark.parametrize("between", [0, 1])
def test_an_unknown_server_that_shuts_down_after_each_request_waits_once(
    between: int, fake_meta: FakeMeta, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, closed_port(), monkeypatch)
    for orders in (1, 1, between, 1):
        Server(site.door).run(orders)
    assert site.closed == 1
    site.end()


def test_a_lambda_s_request_that_another_app_answered_waits_for_nobody(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, closed_port(), monkeypatch)
    for orders in (1, 0, 3, 0):
        Server(site.door).run(orders, **{"aws.event": {}})
    assert site.closed == 0
    site.end()
