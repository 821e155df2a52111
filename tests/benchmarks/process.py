"""What a process pays: the import, and memory with a running sender."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

from tests.benchmarks.measure import Trial
from tests.benchmarks.sink import sink
from tests.support.configs import PIXEL_ID, TOKEN
from tests.support.processes import ROOT

_EVENT_REQUEST = "facebook_business.adobjects.serverside.event_request"
_TIMED = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
#: Not getrusage: its figure starts with that of the process that started this one.
_RESIDENT = (
    "status = open('/proc/self/status').read()\n"
    "print(int(status.split('VmRSS:')[1].split()[0]) / 1024)\n"
)
_OURS = """
import time
from capi_middleware import CAPI, Config, Pixel
pixels = [Pixel({pixel!r}, access_token={token!r})]
store = "sqlite:///{folder}/capi.db"
capi = CAPI(Config("a-key-of-32-letters-for-a-test-!", pixels, store=store, graph_url={url!r}))
capi.start()
capi.track("Lead", value=1, currency="EUR", action_source="system_generated")
assert capi.flush(20)
"""
_THEIRS = """
import time
from facebook_business.adobjects.serverside.action_source import ActionSource
from facebook_business.adobjects.serverside.custom_data import CustomData
from facebook_business.adobjects.serverside.event import Event
from facebook_business.adobjects.serverside.event_request import EventRequest
from facebook_business.adobjects.serverside.user_data import UserData
from facebook_business.api import FacebookAdsApi
from facebook_business.session import FacebookSession
FacebookSession.GRAPH = {url!r}
FacebookAdsApi.init(access_token={token!r})
event = Event(
    event_name="Lead", event_time=int(time.time()), user_data=UserData(email="a@example.com"),
    custom_data=CustomData(value=1.0, currency="EUR"), action_source=ActionSource.WEBSITE,
    event_id="1",
)
EventRequest(pixel_id={pixel!r}, events=[event]).execute()
"""


def _python(program: str) -> float:
    # What pip installs has its bytecode, theirs here as well: ours must not be compiled each time.
    environment = {key: v for key, v in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return float(
        subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True,
            timeout=60, env=environment,
        ).stdout
    )  # fmt: skip


def _import(module: str) -> Callable[[float], float]:
    return lambda share: _python(_TIMED.format(module))


def _resident(program: str) -> Callable[[float], float]:
    def side(share: float) -> float:
        with sink() as url, tempfile.TemporaryDirectory() as folder:
            given = program.format(url=url, folder=folder, pixel=PIXEL_ID, token=TOKEN)
            return _python(given + _RESIDENT)

    return side


def rows() -> Iterator[Trial]:
    """What the table says about a process."""
    _resident(_OURS)(1)  # bytecode is written
    _import(_EVENT_REQUEST)(1)
    yield Trial(
        "import capi_middleware", f"import {_EVENT_REQUEST}", 0.5,
        _import("capi_middleware"), _import(_EVENT_REQUEST),
    )  # fmt: skip
    yield Trial(
        "resident memory after an event was delivered, added to bare Python",
        "facebook-business, after an event was delivered", 1.0,
        _resident(_OURS), _resident(_THEIRS), _resident(""), unit="MB", rounds=5,
    )  # fmt: skip
