"""Tenants of a platform, each with a pixel and a token: what many of them cost one process.

`python -m tests.benchmarks.tenants STORE GRAPH_URL N HANGS` delivers an event of each.
"""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from capi_middleware import CAPI, Config, Pixel, Tenant
from capi_middleware.delivery.deliverer import MOST_THREADS
from capi_middleware.events import Row
from tests.benchmarks.measure import Trial, constant
from tests.benchmarks.sink import HANGING, sink
from tests.support.configs import SECRET
from tests.support.trees import ROOT

_TENANTS = 10_000
_LIMIT = 500
_DEAD = "dead"


@cache  # one run tells all three
def _run(share: float, *, hangs: bool = False) -> tuple[float, ...]:
    """Tenants a second, MB that they add, and threads that deliver at most at once."""
    with sink() as url, tempfile.TemporaryDirectory() as folder:
        n = max(20, int(_TENANTS * share))
        given = [f"sqlite:///{folder}/capi.db", url, str(n), str(int(hangs))]
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.tenants", *given],
            cwd=ROOT, text=True, check=True, stdout=subprocess.PIPE, timeout=_LIMIT + 60,
        )  # fmt: skip
        return tuple(map(float, done.stdout.split()))


def _figure(at: int, *, hangs: bool = False) -> Callable[[float], float]:
    return lambda share: _run(share, hangs=hangs)[at]


def rows() -> Iterator[Trial]:
    """What the table says about tenants."""
    yield Trial(
        f"an event each of {_TENANTS:,} tenants, one of whom Meta never answers",
        "it answers all", 0.9, _figure(0, hangs=True), _figure(0), unit="/s", rounds=1,
    )  # fmt: skip
    yield Trial(
        f"memory that {_TENANTS:,} tenants add, delivered", "50 MB", 1.0,
        _figure(1, hangs=True), constant(50.0), unit="MB", rounds=1,
    )  # fmt: skip
    yield Trial(
        f"threads that deliver for {_TENANTS:,} tenants", f"{MOST_THREADS} and who just ends",
        1.25,
        _figure(2, hangs=True), constant(float(MOST_THREADS)), rounds=1, unit="",
    )  # fmt: skip


def _look_up(key: str) -> Tenant:
    return Tenant(key, [Pixel(_pixel(key), access_token=f"token-of-{key}")])


def _pixel(key: str) -> str:
    return HANGING if key == _DEAD else f"1{key[1:]}"


def _row(key: str) -> Row:
    user = b'{"em":["' + b"a" * 64 + b'"]}'
    body = b'{"event_name":"Lead","event_time":%d,"action_source":"other","event_id":"%s",'
    body = body % (time.time(), key.encode()) + b'"user_data":' + user + b"}"
    pixel_id = f"{_pixel(key)}@{key}"
    return Row(key, "Lead", pixel_id, time.time(), body, "pending", "unpaired")


def _memory(kind: str) -> float:
    # Not getrusage: its figure starts with that of the process that started this one.
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.split(f"{kind}:")[1].split()[0]) / 1024


def main(store: str, url: str, n: int, hangs: bool) -> None:
    """Deliver, and print what _run() returns."""
    capi = CAPI(Config(SECRET, [], tenant=_look_up, store=store, graph_url=url))
    capi.start()
    most, end = 0, time.monotonic() + _LIMIT

    def deliver(keys: list[str], total: int) -> None:
        nonlocal most
        commit = capi.store.append([_row(key) for key in keys], wait=True)
        assert commit is not None
        commit.result()
        while capi.store.depth().get("delivered", 0) < total:
            names = [one.name for one in threading.enumerate()]
            most = max(most, sum(name.startswith("capi-courier") for name in names))
            if time.monotonic() > end:
                raise TimeoutError(f"found {capi.store.depth()} after {_LIMIT} s")
            time.sleep(0.05)

    if hangs:
        deliver([_DEAD], 0)
    deliver([f"w{one}" for one in range(MOST_THREADS)], MOST_THREADS)  # all that one takes, too
    before, start = _memory("VmRSS"), time.monotonic()
    deliver([f"t{one}" for one in range(n)], n + MOST_THREADS)
    taken = time.monotonic() - start
    print(n / taken, _memory("VmHWM") - before, most)
    capi.close(0.1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "1")
