"""With delivery="before_answer" an answer ends after its events are delivered, or its deadline."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client, override_settings
from django.urls import re_path
from mangum import Mangum
from starlette.testclient import TestClient

from capi_middleware import CAPI, EventRoute, UserData, asgi
from capi_middleware import capi as root
from capi_middleware.delivery.deliverer import Deliverer
from capi_middleware.django import get_capi
from capi_middleware.testing import FakeMeta
from tests.doors.test_starts import HTML, PAGE, REQUEST, piece, start
from tests.support.blocks import question
from tests.support.configs import make_config
from tests.support.django_project import ENTRY
from tests.support.exchanges import environ_for, through_wsgi
from tests.support.servers import closed_port

ORDER = EventRoute("GET /orders/{n}", "Lead", dedupe_key="{path.n}")
PUBLIC = ("cache-control", "public, max-age=60")
Make = Callable[..., CAPI]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """So long that no busy machine reaches it."""
    monkeypatch.setattr(root, "ANSWER_SECONDS", 60.0)


@pytest.fixture
def make(fake_meta: FakeMeta, tmp_path: Any) -> Iterator[Make]:
    """Makes a tracker that delivers before the answer."""
    made: list[CAPI] = []

    def make(**settings: Any) -> CAPI:
        given = {"graph_url": fake_meta.url, "delivery": "before_answer", **settings}
        config = make_config(store=f"sqlite:///{tmp_path}/capi.db", routes=[ORDER], **given)
        made.append(CAPI(config))
        return made[-1]

    yield make
    for one in made:
        one.close(1.0)
        one.store.close()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each wait whether it took no longer than its deadline."""
    told: list[bool] = []
    honest = Deliverer.deliver_now

    def deliver_now(self: Any, seconds: float) -> bool:
        told.append(honest(self, seconds))
        return told[-1]

    monkeypatch.setattr(Deliverer, "deliver_now", deliver_now)
    return told


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send(start(HTML, *[PUBLIC] * (scope["path"] == "/public")))
    if scope["path"] == "/stream":
        await send(piece(PAGE[:9], more=True))
        await send(piece(PAGE[9:]))
    else:
        await send(piece(PAGE))


def through_mangum(door: Any, path: str, lifespan: Any) -> None:
    """A page as a Lambda function answers it, on a loop of its own."""
    event = {
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
        "headers": dict(REQUEST["headers"]), "isBase64Encoded": False,
        "requestContext": {"http": {"method": "GET", "path": path, "sourceIp": "203.0.113.9"}},
    }  # fmt: skip
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        Mangum(door, lifespan=lifespan)(event, object())  # type: ignore[arg-type]
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def arrived(fake_meta: FakeMeta) -> int:
    return len({one.key for one in fake_meta.received.server})


@pytest.mark.parametrize("lifespan", ["auto", "on", "off"])
def test_all_of_a_page_is_with_meta_when_lambda_has_its_answer(
    lifespan: str, make: Make, fake_meta: FakeMeta
) -> None:
    door = asgi.CAPIMiddleware(app, make())
    for path, n in (("/orders/1", 2), ("/", 3), ("/orders/2", 5), ("/stream", 6)):
        through_mangum(door, path, lifespan)
        assert arrived(fake_meta) == n


@pytest.mark.parametrize("lifespan", ["auto", "on", "off"])
def test_where_meta_refuses_no_page_waits_for_its_deadline(
    lifespan: str, make: Make, told: list[bool]
) -> None:
    capi = make(graph_url=closed_port())
    door = asgi.CAPIMiddleware(app, capi)
    for n in range(3):
        through_mangum(door, f"/orders/{n}", lifespan)
    assert told == [True] * 3
    assert sum(capi.store.depth().values()) == 6


@pytest.mark.parametrize("lifespan", ["auto", "on", "off"])
def test_where_meta_hangs_a_page_waits_for_its_deadline_and_no_longer(
    lifespan: str,
    make: Make,
    fake_meta: FakeMeta,
    told: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(root, "ANSWER_SECONDS", 0.1)
    fake_meta.fail_next(200, delay=30, times=None)
    door = asgi.CAPIMiddleware(app, make())
    for n in range(2):
        through_mangum(door, f"/orders/{n}", lifespan)
    assert told == [False] * 2


def test_the_events_of_a_page_that_asks_for_them_are_with_meta_when_it_is_told(
    make: Make, fake_meta: FakeMeta
) -> None:
    client = TestClient(asgi.CAPIMiddleware(app, make()), headers=dict(REQUEST["headers"]))
    asked = question(client.get("/public").text, "http://testserver/public")
    assert arrived(fake_meta) == 0
    assert client.post("/_capi/t", json=asked, headers={"host": "testserver"}).json()["e"]
    assert arrived(fake_meta) == 1


def test_the_wsgi_door_waits_too(make: Make, fake_meta: FakeMeta) -> None:
    def page(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("content-type", "text/html")])
        return [PAGE]

    through_wsgi(make(), environ_for({**REQUEST, "path": "/orders/1"}), page)
    assert arrived(fake_meta) == 2


def test_django_s_door_waits_too(fake_meta: FakeMeta, tmp_path: Any) -> None:
    config = make_config(
        store=f"sqlite:///{tmp_path}/capi.db", graph_url=fake_meta.url, delivery="before_answer"
    )
    urls = (re_path("", lambda request: HttpResponse(PAGE)),)
    with override_settings(CAPI=config, MIDDLEWARE=[ENTRY], ROOT_URLCONF=urls):
        Client().get("/", headers={"user-agent": "Mozilla/5.0"})
        assert arrived(fake_meta) == 1
        get_capi().close(1.0)
        get_capi().store.close()


def test_what_a_job_tracks_is_with_meta_when_track_returns(make: Make, fake_meta: FakeMeta) -> None:
    capi = make()
    for n in (1, 2, 3):
        capi.track("Lead", user_data=UserData(external_id=str(n)))
        assert arrived(fake_meta) == n


def test_without_it_nobody_waits(make: Make, told: list[bool]) -> None:
    capi = make(delivery=True)
    capi.track("Lead")
    through_mangum(asgi.CAPIMiddleware(app, capi), "/orders/1", "auto")
    assert told == []
