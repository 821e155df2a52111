"""A store that others keep locked: pages go out, and what they made is stored afterwards."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from capi_middleware import CAPI, CAPIMiddleware, track
from tests.support.configs import make_config
from tests.support.exchanges import environ_for, through_wsgi

PAGE = "<!doctype html><html><head><title>x</title></head><body>hi</body></html>"
AGENT = {"user-agent": "Mozilla/5.0"}


def through_the_asgi_door(capi: CAPI) -> Callable[[], str]:
    async def view(request: Request) -> HTMLResponse:
        track("Purchase", value=1, currency="EUR")
        return HTMLResponse(PAGE)

    client = TestClient(CAPIMiddleware(Starlette(routes=[Route("/", view)]), capi), headers=AGENT)
    return lambda: client.get("/").text


def through_the_wsgi_door(capi: CAPI) -> Callable[[], str]:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        track("Purchase", value=1, currency="EUR")
        start_response("200 OK", [("Content-Type", "text/html")])
        return [PAGE.encode()]

    request = {"method": "GET", "path": "/", "scheme": "https", "headers": AGENT}
    return lambda: through_wsgi(capi, environ_for(request), app).body.decode()


@pytest.mark.parametrize("door", [through_the_asgi_door, through_the_wsgi_door])
def test_a_locked_database_holds_up_no_page_and_loses_nothing(
    door: Callable[[CAPI], Callable[[], str]],
    tmp_path: Path,
    swallowed: list[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "capi.db"
    capi = CAPI(make_config(store=f"sqlite:///{path}"))
    ask = door(capi)
    ask()
    assert capi.store.flush(10)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    # Whoever waits for the disk now waits for ever.
    monkeypatch.setattr("capi_middleware.store.commits.COMMIT_PATIENCE", 1e6)
    pages = [ask() for _ in range(10)]
    other.execute("ROLLBACK")
    other.close()
    assert all("_capi" in page for page in pages)
    assert capi.store.flush(10)
    assert capi.store.depth() == {"pending": 22}
    assert {type(error) for error in swallowed} == {TimeoutError}
    swallowed.clear()
    capi.close()


def test_a_job_waits_for_the_lock_and_then_has_its_event_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "capi.db"
    capi = CAPI(make_config(store=f"sqlite:///{path}"))
    capi.track("Lead")
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    threading.Timer(0.4, other.rollback).start()
    capi.track("Purchase", value=1, currency="EUR")
    assert capi.store.depth() == {"pending": 2}
    other.close()
    capi.close()
