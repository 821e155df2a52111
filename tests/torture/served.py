"""A served round: real servers under load, killed at random, with a courier and prune beside.

Accepted is what a client has read to the end, see judge. Linux only: /proc names the workers.
"""

import http.client
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from capi_middleware.events import Row
from capi_middleware.store.opening import open_store
from capi_middleware.store.store import EARLY
from capi_middleware.testing import FakeMeta
from tests.support.configs import PIXEL_ID
from tests.support.processes import ROOT, free_port, until
from tests.support.servers import serve
from tests.torture.history import History, Verdict, judge
from tests.torture.rounds import DRAIN_SECONDS, command, environment, trouble

_WSGI, _ASGI = "tests.torture.shop:wsgi_app", "tests.torture.shop:asgi_app"
#: Each takes the port last.
SERVERS = {
    "gunicorn sync": ["gunicorn", _WSGI, "-w", "4", "--bind"],
    "gunicorn threads": ["gunicorn", _WSGI, "-w", "2", "--threads", "4", "--preload", "--bind"],
    "uvicorn workers": ["uvicorn", _ASGI, "--workers", "2", "--port"],
    "uvicorn": ["uvicorn", _ASGI, "--port"],
    "waitress": ["waitress", "--threads", "8", "--listen"],
}
CLIENTS = 8
#: Events that wait at the beginning, so that the courier beside has something to drain.
BACKLOG = 2000
_EVENT = re.compile(rb'"n":"Purchase","i":"([^"]+)"')


def play(store: str, seed: int, *, server: str, kills: int = 12) -> Verdict:
    """Play a round on the store of this URL; the same seed draws the same faults and victims."""
    chance, history, fake = random.Random(seed), History(), FakeMeta()
    _fill(store, seed, history)
    with serve(fake.app) as graph:
        site = _Site(server, store, graph)
        stop = threading.Event()
        clients = [
            threading.Thread(target=_visit, args=(site.port, f"{seed}-{n}", history, stop))
            for n in range(CLIENTS)
        ]
        try:
            until("the site", site.answers)
            for client in clients:
                client.start()
            for _ in range(kills):
                trouble(fake, chance)
                time.sleep(chance.uniform(0.2, 0.8))
                history.kills += site.kill(chance)
            time.sleep(0.5)
        finally:
            site.end()
            stop.set()
            for client in clients:
                client.join(30)
        fake.clear_faults()
        subprocess.run(command(store, graph, "drain"), cwd=ROOT, env=environment(),
                       timeout=DRAIN_SECONDS, check=True)  # fmt: skip
        hasty = _hasty(store)
    return judge(history, fake.received.server, hasty=hasty)


def _fill(url: str, seed: int, history: History) -> None:
    now, store = time.time(), open_store(url, queue_limit=10 * BACKLOG)
    body = (
        '{"event_name":"Lead","event_time":%d,"event_id":"%s","action_source":"system_generated",'
        '"user_data":{"external_id":["%064x"]}}'
    )
    rows = [
        Row(f"b-{seed}-{n}", "Lead", PIXEL_ID, now, (body % (now, f"b-{seed}-{n}", n)).encode())
        for n in range(BACKLOG)
    ]
    commit = store.append(rows, wait=True)
    assert commit is not None
    commit.result(30)
    store.close()
    history.tried |= {row.event_id for row in rows}
    history.accepted |= {row.event_id: row.event_id for row in rows}


def _hasty(url: str) -> int:
    """Answers that ended before their commit, by the counter that outlives a kill."""
    store = open_store(url, queue_limit=10)
    counts = store.tallies(0, time.time()).counts
    store.close()
    return sum(one.n for one in counts if (one.kind, one.reason) == EARLY)


def _visit(port: int, name: str, history: History, stop: threading.Event) -> None:
    """Buy until told to stop; what was read to its end is accepted."""
    for number in itertools.count():
        if stop.is_set():
            return
        key = f"{name}-{number}"
        history.tried.add(key)
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            line.request("GET", f"/thanks/{key}", headers={"User-Agent": "Mozilla/5.0"})
            answer = line.getresponse()
            event = _EVENT.search(answer.read())  # raises where the body is cut off
            if answer.status == 200 and event is not None:
                history.accepted[key] = event[1].decode()
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)
        finally:
            line.close()


class _Site:
    """A server, a courier and a process that prunes; who was killed is started again."""

    def __init__(self, server: str, store: str, graph: str) -> None:
        self.port = free_port()
        at = f"127.0.0.1:{self.port}"
        arguments = list(SERVERS[server])
        arguments.append(str(self.port) if "--port" in arguments else at)
        if server == "waitress":
            arguments.append(_WSGI)
        self._arguments = {
            "server": arguments,
            "courier": ["tests.torture.shop", "deliver"],
            "prune": ["tests.torture.shop", "prune"],
        }
        self._environment = {**environment(), "STORE": store, "GRAPH": graph}
        self._running = {name: self._start(name) for name in self._arguments}

    def _start(self, name: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", *self._arguments[name]],
            cwd=ROOT, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def answers(self) -> bool:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            line.request("GET", "/")
            return line.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            line.close()

    def kill(self, chance: random.Random) -> int:
        """SIGKILL one worker of the server, which its parent replaces, or all of one."""
        workers = _workers(self._running["server"].pid)
        name = chance.choice(["worker"] * 6 + ["courier"] * 2 + ["prune", "server"])
        if name == "worker" and workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
            return 1
        name = "server" if name == "worker" else name
        self._end(name)
        self._running[name] = self._start(name)
        return 1

    def end(self) -> None:
        """SIGKILL everybody."""
        for name in self._running:
            self._end(name)

    def _end(self, name: str) -> None:
        process = self._running[name]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _workers(pid: int) -> list[int]:
    """The processes that the server's first one has started, less what helps Python start them."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in children if b"resource_tracker" not in _command_of(one)]


def _command_of(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b"resource_tracker"  # it is gone
