"""Work beside requests: a real Celery worker, and plain threads."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextvars import copy_context
from hashlib import sha256
from pathlib import Path

import pytest
from celery import Celery
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from capi_middleware import (
    CAPI,
    CapiError,
    CAPIMiddleware,
    Visitor,
    current_visitor,
    track,
)
from capi_middleware.testing import Captured, FakeMeta
from tests.support.configs import SECRET, make_config
from tests.support.processes import ROOT, until

BROWSER = {"user-agent": "Mozilla/5.0 (a visitor)"}


def site(view: "list[object]", capi: CAPI) -> TestClient:
    """A client of a site whose only view appends what current_visitor() says."""

    async def checkout(request: Request) -> HTMLResponse:
        view.append(current_visitor().dumps())
        return HTMLResponse("ok")

    app = CAPIMiddleware(Starlette(routes=[Route("/checkout", checkout)]), capi)
    return TestClient(app, headers=BROWSER)


@pytest.fixture
def visitor() -> str:
    """What a checkout keeps with its order."""
    kept: list[object] = []
    site(kept, CAPI(make_config())).get("/checkout")
    return str(kept[0])


@pytest.fixture
def jobs(fake_meta: FakeMeta, tmp_path: Path) -> Iterator[Celery]:
    """A client of a running worker with two processes."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    environment = {
        "CAPI_META": fake_meta.url,
        "CAPI_STORE": f"sqlite:///{tmp_path / 'capi.db'}",
        "CAPI_SECRET_KEY": SECRET,
        "CAPI_JOBS": str(folder),
        "PYTHONDEVMODE": "",
    }
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "--app", "demo.celery_app", "worker", "--concurrency=2",
         "--loglevel=ERROR", "--without-mingle", "--without-gossip", "--without-heartbeat"],
        cwd=ROOT,
        env={**os.environ, **environment},
        start_new_session=True,
    )  # fmt: skip
    client = Celery(broker="filesystem://")
    client.conf.broker_transport_options = {
        "data_folder_in": str(folder),
        "data_folder_out": str(folder),
        "control_folder": str(folder / "control"),
    }
    yield client
    client.close()
    worker.send_signal(signal.SIGTERM)
    try:
        worker.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def test_a_celery_task_tracks_for_the_visitor_of_the_checkout(
    jobs: Celery, visitor: str, fake_meta: FakeMeta
) -> None:
    for order in [*range(1, 21), 1]:
        jobs.send_task("demo.celery_app.paid", [order, visitor, "jane@example.com"])
    until("all Purchases", lambda: len(fake_meta.received.server) >= 20, 60)
    events = [one.event for one in fake_meta.received.server]
    assert len({event["event_id"] for event in events}) == 20
    assert {event["user_data"]["client_user_agent"] for event in events} == {BROWSER["user-agent"]}
    assert {event["user_data"]["em"][0] for event in events} == {
        sha256(b"jane@example.com").hexdigest()
    }


def test_threads_track_for_the_visitor_of_the_checkout(visitor: str, tmp_path: Path) -> None:
    capi = CAPI(make_config(store=f"sqlite:///{tmp_path / 'capi.db'}"))

    def work(first: int) -> None:
        for order in range(first, first + 50):
            capi.track("Lead", visitor=Visitor.loads(visitor), dedupe_key=order)

    # Half of the orders are tracked by two threads: they are the same events.
    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 200, 25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert capi.store.depth() == {"pending": 225}
    capi.close()


def test_a_thread_of_a_view_needs_the_context_of_its_request(capi: Captured) -> None:
    said: list[str] = []

    def work() -> None:
        try:
            track("Lead")
            said.append("tracked")
        except CapiError as error:
            said.append(str(error))

    def view(request: Request) -> HTMLResponse:
        context = copy_context()
        for target, arguments in ((work, ()), (context.run, (work,))):
            thread = threading.Thread(target=target, args=arguments)
            thread.start()
            thread.join(10)
        return HTMLResponse("ok")

    app = CAPIMiddleware(Starlette(routes=[Route("/", view)]), make_config())
    TestClient(app, headers=BROWSER).get("/")
    assert "outside of a request use CAPI(config).track" in said[0]
    assert said[1] == "tracked"
    capi.assert_tracked("Lead", times=1)
