"""SIGKILL right after a response ended: the conversion is on disk and is delivered."""

import os
import signal
from pathlib import Path

import httpx
import pytest

from capi_middleware.testing import FakeMeta
from tests.acceptance.conftest import Shop
from tests.support.processes import until

AGENT = {"user-agent": "Mozilla/5.0"}


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_killed_process_loses_no_conversion(
    kind: str, meta: str, fake: FakeMeta, tmp_path: Path
) -> None:
    # Meta is down while the process lives, so that only the store can know the event.
    fake.fail_next(503, times=None)
    shop = Shop(kind, meta, tmp_path / "capi.db")
    with shop.run() as server, httpx.Client(base_url=server.url, headers=AGENT) as client:
        cart = {"cookie": "cart=cup"}
        answer = client.post("/checkout", data={"email": "jane@example.com"}, headers=cart)
        page = client.get(answer.headers["location"]).text
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait(15)
    event_id = page.split('"n":"Purchase","i":"')[1].split('"')[0]
    assert fake.received.server == []
    fake.clear_faults()
    with shop.run():
        # The killed process may have held a lease, which has to run out first.
        until("it", lambda: event_id in [one.key[2] for one in fake.received.server], 60)
    found = [one for one in fake.received.server if one.key[1] == "Purchase"]
    assert [one.key[2] for one in found] == [event_id]
    assert found[0].event["event_time"] <= found[0].arrived
