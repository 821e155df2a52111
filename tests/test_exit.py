"""At the exit of a process what is queued is delivered, before what the host set up is gone."""

import subprocess
import sys

from capi_middleware.testing import FakeMeta
from tests.support.configs import PIXEL_ID, SECRET, TOKEN
from tests.support.processes import ROOT

PROCESS = """
import atexit, sys
from capi_middleware import CAPI, Config, Pixel, UserData
atexit.register(print, "the host's end")
secret, pixel, token, url = sys.argv[1:]
capi = CAPI(Config(secret, [Pixel(pixel, token)], store="memory:", graph_url=url))
capi.track("Lead", user_data=UserData(em="jane@example.com"), action_source="other")
close = capi.close
capi.close = lambda: print("closing") or close()
"""


def test_what_is_queued_leaves_at_the_exit_before_the_host_s_own_end() -> None:
    meta = FakeMeta(tokens={PIXEL_ID: TOKEN})
    with meta.serve() as url:
        done = subprocess.run(
            [sys.executable, "-c", PROCESS, SECRET, PIXEL_ID, TOKEN, url],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.stdout.splitlines() == ["closing", "the host's end"], done.stderr
    assert [one.event["event_name"] for one in meta.received.server] == ["Lead"]
