"""A soak: `python -m tests.torture.soak [--seconds N] [--rate N]`, a shop under a steady load.

Meta flaps, a courier drains beside. What grows, what was refused and what the log says is counted.
Linux only: /proc knows what a process takes.
"""

import argparse
import http.client
import itertools
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from capi_middleware.store.opening import open_store
from capi_middleware.store.store import EARLY
from capi_middleware.testing import FakeMeta
from tests.support.processes import ROOT, free_port, until
from tests.support.servers import serve
from tests.torture.history import History, judge
from tests.torture.rounds import DRAIN_SECONDS, command, environment

CLIENTS = 8
#: The longest that a -wal may become: a checkpoint ends it at a quarter of that. In bytes.
WAL_LIMIT = 64 * 1024 * 1024
#: More threads or descriptors than after the first third are a leak; of memory, a fifth more.
SLACK, RSS_SLACK = 5, 0.2
_EVENT = re.compile(rb'"n":"Purchase","i":"([^"]+)"')


@dataclass(frozen=True)
class Look:
    """What a process takes: memory in bytes, open descriptors, threads."""

    rss: int
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Soaked:
    """What came of it; `looks` are those of each process by its name, in order of time.

    `early` answers ended before their commit, by the store's own count; `refused` are events that
    it counts as dropped; `errors` are lines of the log.
    """

    accepted: int
    delivered: int
    lost: int
    mutated: int
    early: int
    refused: int
    errors: list[str]
    wal: int
    looks: dict[str, list[Look]]

    def complaints(self, *, memory: bool) -> list[str]:
        """What broke a promise; memory only of a run that is long enough."""
        found = [f"{self.lost} lost, {self.early} counted as early"] * (self.lost > self.early)
        found += [f"{self.mutated} changed"] * bool(self.mutated)
        found += [f"log: {line}" for line in self.errors]
        found += [f"the -wal grew to {self.wal:,} bytes"] * (self.wal > WAL_LIMIT)
        for name, looks in self.looks.items():
            third = max(1, len(looks) // 3)
            for what, slack in (("descriptors", SLACK), ("threads", SLACK), ("rss", None)):
                first, last = (max(getattr(one, what) for one in some)
                               for some in (looks[:third], looks[-third:]))  # fmt: skip
                allowed = first * (1 + RSS_SLACK) if slack is None else first + slack
                if last > allowed and (memory or what != "rss"):
                    found.append(f"{name}: {what} grew from {first:,} to {last:,}")
        return found


def soak(folder: Path, *, seconds: float, rate: float, looks: int = 30) -> Soaked:
    """A shop and a courier under `rate` requests a second, for so many seconds."""
    path, history, fake = folder / "capi.db", History(), FakeMeta()
    store, stop = f"sqlite:///{path}", threading.Event()
    taken: dict[str, list[Look]] = {"server": [], "courier": []}
    wal = 0
    with serve(fake.app) as graph, _site(folder, store, graph) as (port, pids):
        people = [
            threading.Thread(target=_visit, args=(port, n, rate / CLIENTS, history, stop))
            for n in range(CLIENTS)
        ]
        people.append(threading.Thread(target=_flap, args=(fake, stop)))
        for one in people:
            one.start()
        for _ in range(looks):
            stop.wait(seconds / looks)
            for name, pid in pids.items():
                taken[name].append(look(pid))
            wal = max(wal, _size(Path(f"{path}-wal")))
        stop.set()
        for one in people:
            one.join(60)
    fake.clear_faults()
    with serve(fake.app) as graph:
        subprocess.run(command(store, graph, "drain"), cwd=ROOT, env=environment(),
                       timeout=DRAIN_SECONDS, check=True)  # fmt: skip
    verdict = judge(history, fake.received.server)
    opened = open_store(store, queue_limit=10)
    counts = opened.tallies(0, time.time()).counts
    opened.close()
    errors = [
        line for name in taken for line in (folder / f"{name}.log").read_text().splitlines()
        if line.startswith(("ERROR", "CRITICAL", "Traceback"))
    ]  # fmt: skip
    return Soaked(
        verdict.accepted, verdict.delivered, verdict.lost, verdict.mutated,
        sum(one.n for one in counts if (one.kind, one.reason) == EARLY),
        sum(one.n for one in counts if one.kind == "dropped"), errors, wal, taken,
    )  # fmt: skip


def look(pid: int) -> Look:
    """What a process takes now."""
    status = Path(f"/proc/{pid}/status").read_text()
    figures = {
        word: int(found[1])
        for word in ("VmRSS", "Threads")
        if (found := re.search(rf"{word}:\s+(\d+)", status))
    }
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Look(figures["VmRSS"] * 1024, descriptors, figures["Threads"])


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _site(folder: Path, store: str, graph: str) -> Iterator[tuple[int, dict[str, int]]]:
    """The port of a shop, and the ids of its processes."""
    port = free_port()
    given = {
        "server": ["uvicorn", "tests.torture.shop:asgi_app", "--port", str(port),
                   "--log-level", "error"],
        "courier": ["tests.torture.shop", "deliver"],
    }  # fmt: skip
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, arguments in given.items():
            with (folder / f"{name}.log").open("wb") as log:
                running[name] = subprocess.Popen(
                    [sys.executable, "-m", *arguments], cwd=ROOT, stdout=log, stderr=log,
                    env={**environment(), "STORE": store, "GRAPH": graph},
                )  # fmt: skip
        until("the site", lambda: _answers(port), 60)
        yield port, {name: one.pid for name, one in running.items()}
    finally:
        for one in running.values():
            one.terminate()
        for one in running.values():
            one.wait(30)


def _answers(port: int) -> bool:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        line.request("GET", "/")
        return line.getresponse().status == 200
    except OSError:
        return False
    finally:
        line.close()


def _visit(port: int, name: int, rate: float, history: History, stop: threading.Event) -> None:
    """Buy `rate` times a second; what was read to its end is accepted."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    start = time.monotonic()
    for number in itertools.count():
        if stop.wait(max(0.0, start + number / rate - time.monotonic())):
            break
        key = f"{name}-{number}"
        history.tried.add(key)
        line.request("GET", f"/thanks/{key}", headers={"User-Agent": "Mozilla/5.0"})
        answer = line.getresponse()
        event = _EVENT.search(answer.read())
        if answer.status == 200 and event is not None:
            history.accepted[key] = event[1].decode()
    line.close()


def _flap(fake: FakeMeta, stop: threading.Event) -> None:
    """Meta is away for a while, and there for a while."""
    chance = random.Random(1)
    while not stop.wait(chance.uniform(0.5, 2.0)):
        status = chance.choice([500, 503, 200])
        fake.fail_next(status, times=chance.randint(1, 4), delay=chance.choice([0.0, 0.5]))


def main() -> int:
    """Exit code 1 when something grew, was lost or was not counted."""
    options = argparse.ArgumentParser(prog="make soak")
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--rate", type=float, default=100)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soaked = soak(Path(folder), seconds=given.seconds, rate=given.rate)
    table = Table("process", "rss at first", "at last", "descriptors", "threads")
    for name, looks in soaked.looks.items():
        first, last = looks[len(looks) // 3], looks[-1]
        table.add_row(
            name, f"{first.rss >> 20} MB", f"{last.rss >> 20} MB",
            f"{first.descriptors} → {last.descriptors}", f"{first.threads} → {last.threads}",
        )  # fmt: skip
    complaints = soaked.complaints(memory=given.seconds >= 300)
    Console().print(
        table, f"{soaked.accepted:,} accepted, {soaked.delivered:,} delivered, {soaked.lost} lost, "
        f"{soaked.early} answers before their commit, {soaked.refused} dropped; "
        f"-wal up to {soaked.wal >> 20} MB", *complaints,
    )  # fmt: skip
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
