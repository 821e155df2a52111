"""Web processes that only queue, couriers apart from them, one PostgreSQL between."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from capi_middleware import CAPI, UserData
from capi_middleware.testing import FakeMeta
from tests.support.configs import PIXEL_ID, SECRET, TOKEN, make_config
from tests.support.processes import ROOT, until
from tests.support.servers import serve


def courier(folder: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDEVMODE": ""}
    command = [sys.executable, "-m", "capi_middleware.cli", "deliver"]
    return subprocess.Popen(command, cwd=folder, env=environment)


def test_couriers_share_the_work_and_one_of_them_may_be_killed(
    tmp_path: Path, postgres_url: str
) -> None:
    fake = FakeMeta()
    with serve(fake.app) as meta:
        (tmp_path / "capi.toml").write_text(
            f"""
            secret_key = "{SECRET}"
            store = "{postgres_url}"
            graph_url = "{meta}"
            [[pixels]]
            id = "{PIXEL_ID}"
            access_token = "{TOKEN}"
            """
        )
        web = [CAPI(make_config(store=postgres_url)) for _ in range(2)]
        couriers = [courier(tmp_path) for _ in range(2)]
        try:
            wanted = []
            for n in range(300):
                capi, user = web[n % 2], UserData(external_id=n)
                event = capi.track("Lead", user_data=user, dedupe_key=n)
                wanted.append(event.event_id)
                if n == 150:
                    couriers[0].send_signal(signal.SIGKILL)
            until("all events", lambda: len({one.key for one in fake.received.server}) == 300, 60)
            until("the ledger", lambda: web[0].store.depth() == {"delivered": 300}, 60)
            couriers[1].send_signal(signal.SIGTERM)
            assert couriers[1].wait(20) == 0
        finally:
            for process in couriers:
                process.kill()
                process.wait()
            for capi in web:
                capi.close()
    received = [one.event for one in fake.received.server]
    assert {one["event_id"] for one in received} == set(wanted)
    bodies = {one["event_id"]: one for one in received}
    assert all(one == bodies[one["event_id"]] for one in received)
