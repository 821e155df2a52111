"""Every server that people use: events get out while it runs, and at its end nothing waits."""

import signal
import sqlite3
from pathlib import Path

import httpx
import pytest

from capi_middleware.testing import FakeMeta
from tests.support.configs import SECRET
from tests.support.processes import free_port, running, until

AGENT = {"user-agent": "Mozilla/5.0"}
SERVERS = {
    "uvicorn with workers": "uvicorn --factory demo.shop:create --port {port} --workers 2 "
    "--log-level warning",
    "hypercorn": "hypercorn demo.shop:create() --bind 127.0.0.1:{port} --log-level warning",
    "granian": "granian --interface asgi --factory demo.shop:create --port {port} --no-log",
    "gunicorn preloaded": "gunicorn demo.flask_shop:create() --bind 127.0.0.1:{port} --preload "
    "--workers 2 --threads 2 --log-level warning",
    "gunicorn with uvicorn's worker": "gunicorn demo.shop:create() --bind 127.0.0.1:{port} "
    "--worker-class uvicorn_worker.UvicornWorker --workers 2 --log-level warning",
    "waitress": "waitress --listen=127.0.0.1:{port} --call demo.flask_shop:create",
}

#: waitress does not handle SIGTERM: what was in flight waits for the end of its lease.
ENDED_BY_THE_SIGNAL = {"waitress"}


def waiting(store: Path) -> dict[str, int]:
    """Rows by state, read after every process has ended."""
    db = sqlite3.connect(store)
    found = dict(db.execute("SELECT server, COUNT(*) FROM events GROUP BY server").fetchall())
    db.close()
    return found


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_delivers_while_it_runs_and_leaves_nothing_leased_when_it_ends(
    name: str, meta: str, fake: FakeMeta, tmp_path: Path
) -> None:
    port, store = free_port(), tmp_path / "capi.db"
    environment = {
        "CAPI_META": meta, "CAPI_STORE": f"sqlite:///{store}", "CAPI_SECRET_KEY": SECRET,
    }  # fmt: skip
    arguments = SERVERS[name].format(port=port).split()
    with (
        running(arguments, port, environment=environment, path="/_capi/s.js") as server,
        httpx.Client(base_url=server.url, headers=AGENT, timeout=10) as client,
    ):
        for _ in range(10):
            assert "_capi/s.js" in client.get("/products/cup").text
        until("20 events", lambda: waiting(store) == {"delivered": 20})
        # Meta hangs while the server is told to end.
        fake.fail_next(200, delay=30, times=None)
        for _ in range(3):
            client.get("/products/cup")
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(40)
    found = waiting(store)
    assert found["delivered"] == 20
    assert sum(found.values()) == 26
    if name not in ENDED_BY_THE_SIGNAL:
        assert found == {"delivered": 20, "pending": 6}
