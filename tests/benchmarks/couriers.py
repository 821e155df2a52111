"""Couriers, each a process, that share a backlog where Meta's latency is the limit.

`python -m tests.benchmarks.couriers STORE` is one of them: it begins with a line of its input.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from capi_middleware.delivery.courier import Courier
from capi_middleware.events import Row
from capi_middleware.meta.codes import Outcome
from capi_middleware.store.opening import open_store
from tests.benchmarks.measure import Trial
from tests.support.configs import PIXEL_ID
from tests.support.processes import ROOT
from tests.support.stores import sqlite_store

_BACKLOG = 200_000
_MANY = 8
#: What Meta needs for a request, in seconds.
_LATENCY = 0.3
_LIMIT = 300


class _Meta:
    """Takes everything in its own time, and tells what it took."""

    def __init__(self) -> None:
        self.took = 0

    def send(self, payloads: Sequence[bytes]) -> Outcome:
        time.sleep(_LATENCY)
        self.took += len(payloads)
        return Outcome("delivered")

    def hear(self) -> Outcome | None:
        return None

    def close(self) -> None:
        pass


def _events(amount: int) -> Iterator[list[Row]]:
    for start in range(0, amount, 1000):
        yield [
            Row(
                event_id=f"e{n}", event_name="Purchase", pixel_id=PIXEL_ID, event_time=time.time(),
                payload=b"x" * 600, page=f"/products/{n * 7919 % 1000}", route="/products",
            )
            for n in range(start, min(start + 1000, amount))
        ]  # fmt: skip


def _drained(couriers: int, share: float) -> float:
    """Events a second. Raises where one was sent twice."""
    amount = max(1, int(_BACKLOG * share))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "capi.db"
        store = sqlite_store(path, queue_limit=amount + 1000)
        for some in _events(amount):
            store.append(some, wait=False)
        store.flush(60)
        command = [sys.executable, "-m", "tests.benchmarks.couriers", str(path)]
        running = [
            subprocess.Popen(
                command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for _ in range(couriers)
        ]
        for one in running:
            assert one.stdout is not None
            one.stdout.readline()
        start = time.perf_counter()
        for one in running:
            assert one.stdin is not None
            one.stdin.write("begin\n")
            one.stdin.flush()
        while store.depth() != {"delivered": amount}:
            if time.perf_counter() > start + _LIMIT:
                raise TimeoutError(f"found {store.depth()} after {_LIMIT} s")
            time.sleep(0.05)
        taken = time.perf_counter() - start
        took = sum([int(one.communicate()[0]) for one in running])
        store.close()
    if took != amount:
        raise AssertionError(f"{took} events were sent, expected {amount}")
    return amount / taken


def rows() -> Iterator[Trial]:
    """What the table says about couriers beside each other."""
    yield Trial(
        f"{_MANY} couriers, a backlog of {_BACKLOG:,}, Meta answers after {_LATENCY} s",
        "one courier", 3.0, lambda share: _drained(_MANY, share),
        lambda share: _drained(1, share), unit="/s", rounds=1,
    )  # fmt: skip


def main(path: str) -> None:
    """Deliver until the input ends; print how many events were sent."""
    store, meta = open_store(f"sqlite:///{path}", queue_limit=1000), _Meta()
    courier = Courier(store, PIXEL_ID, lambda: meta)
    print("ready", flush=True)
    sys.stdin.readline()
    courier.start()
    sys.stdin.read()
    courier.stop(30)
    store.close()
    print(meta.took)


if __name__ == "__main__":
    main(*sys.argv[1:])
