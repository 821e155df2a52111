"""How processes live and end: recycled, reloaded, forked, spawned or left. Nothing is lost."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from celery import Celery

from capi_middleware import CAPI
from capi_middleware.testing import FakeMeta
from tests.delivery.test_background import site
from tests.support.configs import SECRET, make_config
from tests.support.processes import ROOT, free_port, running, until

AGENT = {"user-agent": "Mozilla/5.0"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "capi.db"


@pytest.fixture
def environment(meta: str, path: Path) -> dict[str, str]:
    return {"CAPI_META": meta, "CAPI_STORE": f"sqlite:///{path}", "CAPI_SECRET_KEY": SECRET}


def stored(path: Path) -> dict[str, int]:
    """Rows by the state of their server copy."""
    db = sqlite3.connect(path)
    found = dict(db.execute("SELECT server, COUNT(*) FROM events GROUP BY server").fetchall())
    db.close()
    return found


def delivered(fake: FakeMeta) -> int:
    return len({one.event["event_id"] for one in fake.received.server})


GUNICORN = "gunicorn {app} --bind 127.0.0.1:{port} --log-level error --workers 2 "


@pytest.mark.parametrize(
    "more",
    [
        "demo.flask_shop:create() --threads 4 --max-requests 10 --preload",
        "demo.shop:create() --worker-class uvicorn_worker.UvicornWorker --max-requests 10",
    ],
)
def test_workers_that_are_recycled_lose_nothing(
    more: str, environment: dict[str, str], path: Path, fake: FakeMeta
) -> None:
    port = free_port()
    app, _, options = more.partition(" ")
    arguments = (GUNICORN.format(app=app, port=port) + options).split()
    fake.fail_next(500, times=3)
    pages = 0
    with running(arguments, port, environment=environment, path="/_capi/s.js") as server:
        while pages < 60:
            # A worker that ends may end connections that it has not read from.
            try:
                answer = httpx.get(f"{server.url}/products/cup", headers=AGENT, timeout=20)
            except httpx.TransportError:
                continue
            assert answer.status_code == 200
            pages += 1
        until("all are delivered", lambda: stored(path).get("delivered", 0) >= 2 * pages, 60)
    assert stored(path).keys() == {"delivered"}
    assert delivered(fake) >= 2 * pages


def test_a_server_that_reloads_loses_nothing(
    environment: dict[str, str], path: Path, fake: FakeMeta, tmp_path: Path
) -> None:
    port, module = free_port(), tmp_path / "reloaded_shop.py"
    module.write_text("from demo.flask_shop import create\n")
    arguments = GUNICORN.format(app="reloaded_shop:create()", port=port).split()
    arguments += ["--reload", "--pythonpath", str(tmp_path)]
    pages = 0
    with running(arguments, port, environment=environment, path="/_capi/s.js") as server:
        for n in range(60):
            if n % 20 == 10:
                os.utime(module, (time.time(), time.time() + n))
            try:
                answer = httpx.get(f"{server.url}/products/cup", headers=AGENT, timeout=20)
            except httpx.TransportError:
                continue
            pages += answer.status_code == 200
        until("all are delivered", lambda: stored(path).get("delivered", 0) >= 2 * pages, 60)
    assert stored(path).keys() == {"delivered"}


def test_celery_processes_that_are_recycled_lose_nothing(
    environment: dict[str, str], path: Path, fake: FakeMeta, tmp_path: Path
) -> None:
    folder, kept = tmp_path / "jobs", list[object]()
    folder.mkdir()
    site(kept, CAPI(make_config())).get("/checkout")
    command = [sys.executable, "-m", "celery", "--app", "demo.celery_app", "worker",
               "--concurrency=2", "--max-tasks-per-child=3", "--loglevel=ERROR",
               "--without-mingle", "--without-gossip", "--without-heartbeat"]  # fmt: skip
    worker = subprocess.Popen(
        command, cwd=ROOT, start_new_session=True,
        env={**os.environ, **environment, "CAPI_JOBS": str(folder), "PYTHONDEVMODE": ""},
    )  # fmt: skip
    client = Celery(broker="filesystem://")
    client.conf.broker_transport_options = {
        "data_folder_in": str(folder), "data_folder_out": str(folder),
        "control_folder": str(folder / "control"),
    }  # fmt: skip
    try:
        for order in range(20):
            client.send_task("demo.celery_app.paid", [order, kept[0], "jane@example.com"])
        # What a process held that ended with its task goes out when its lease has run out.
        until("all are delivered", lambda: delivered(fake) == 20, 90)
        until("all are settled", lambda: stored(path) == {"delivered": 20})
    finally:
        client.close()
        worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


TRACKING = """
import multiprocessing, os, signal, sys, threading
from capi_middleware import CAPI, Config, UserData
from capi_middleware.delivery import courier
from demo.recipe import environment

courier.LEASE_SECONDS = 5.0  # what a killed process held comes back the sooner
CAPI_OF_ALL = CAPI(Config(**environment(), durability=os.environ.get("DURABILITY", "conversions")))

def track(times):
    for _ in range(times):
        CAPI_OF_ALL.track("Lead", user_data=UserData(em="jane@example.com"),
                          action_source="other")

def forked(then):
    if os.fork() == 0:
        track(1)
        then(0)

if __name__ == "__main__":
    {script}
"""


def run(script: str, environment: dict[str, str], folder: Path) -> int:
    """The exit code of a process that runs `script`."""
    program = folder / "program.py"
    program.write_text(TRACKING.replace("{script}", script.replace("\n", "\n    ")))
    environment = {**os.environ, **environment, "PYTHONPATH": str(ROOT), "PYTHONDEVMODE": ""}
    return subprocess.run([sys.executable, program], env=environment, timeout=90).returncode


def deliver_the_rest(environment: dict[str, str], folder: Path) -> None:
    """What a process that comes later does, once the leases of those before have run out."""
    assert run("CAPI_OF_ALL.start(); sys.exit(not CAPI_OF_ALL.flush(60))", environment, folder) == 0


@pytest.mark.parametrize(("end", "code"), [("pass", 0), ("sys.exit(3)", 3), ("raise KeyError", 1)])
def test_a_process_that_leaves_without_closing_gives_back_what_hangs(
    end: str, code: int, environment: dict[str, str], path: Path, fake: FakeMeta, tmp_path: Path
) -> None:
    fake.fail_next(200, delay=30, times=None)
    assert run(f"track(20); {end}", environment, tmp_path) == code
    assert stored(path) == {"pending": 20}
    db = sqlite3.connect(path)
    assert db.execute("SELECT COUNT(*) FROM leases").fetchone() == (0,)
    db.close()


@pytest.mark.parametrize(
    ("end", "code"),
    [("os._exit(0)", 0), ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM)],
)
def test_a_process_that_ends_at_once_loses_nothing(
    end: str, code: int, environment: dict[str, str], path: Path, fake: FakeMeta, tmp_path: Path
) -> None:
    assert run(f"track(20); {end}", environment, tmp_path) == code
    deliver_the_rest(environment, tmp_path)
    assert (stored(path), delivered(fake)) == ({"delivered": 20}, 20)


def test_what_nobody_waited_for_is_stored_at_the_exit(
    environment: dict[str, str], path: Path, tmp_path: Path
) -> None:
    assert run("track(500)", {**environment, "DURABILITY": "none"}, tmp_path) == 0
    assert sum(stored(path).values()) == 500


FORKS = {
    "fork and leave": "track(5)\nfor _ in range(5): forked(sys.exit)\nfor _ in range(5): os.wait()",
    "fork from threads": "track(1)\n"
    "threads = [threading.Thread(target=lambda: (track(1), forked(os._exit))) for _ in range(5)]\n"
    "threads[0].run()\n"
    "for one in threads[1:]: one.start()\n"
    "for one in threads[1:]: one.join()\n"
    "for _ in range(5): os.wait()",
    "multiprocessing by fork": "track(5)\nof = multiprocessing.get_context('fork').Process\n"
    "all = [of(target=track, args=(1,)) for _ in range(5)]\n"
    "for one in all: one.start()\nfor one in all: one.join()",
    "multiprocessing by spawn": "track(5)\nof = multiprocessing.get_context('spawn').Process\n"
    "all = [of(target=track, args=(1,)) for _ in range(5)]\n"
    "for one in all: one.start()\nfor one in all: one.join()",
}


@pytest.mark.parametrize("way", FORKS)
def test_children_of_a_process_that_delivers_lose_nothing(
    way: str, environment: dict[str, str], path: Path, fake: FakeMeta, tmp_path: Path
) -> None:
    tracked = 11 if way == "fork from threads" else 10
    assert run(FORKS[way], environment, tmp_path) == 0
    assert sum(stored(path).values()) == tracked
    deliver_the_rest(environment, tmp_path)
    assert (stored(path), delivered(fake)) == ({"delivered": tracked}, tracked)
