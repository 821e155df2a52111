"""One round: processes on one store, killed at random, with a Meta that fails at random."""

import os
import random
import subprocess
import sys
import threading
import time

from capi_middleware.testing import FakeMeta
from tests.support.processes import ROOT, until
from tests.support.servers import serve
from tests.torture import PLAYER
from tests.torture.history import History, Verdict, judge

#: How long the last process may take to deliver what is left, in seconds.
DRAIN_SECONDS = 60.0
#: How long Meta asks to be left alone; and how long what was sent before that answer came may still
#: arrive, as a loaded machine takes a second for a request. In seconds.
REST, IN_FLIGHT = 4, 1.5


def play(store: str, seed: int, *, processes: int = 2, kills: int = 4) -> Verdict:
    """Play a round on the store of this URL. The same seed draws the same faults and moments."""
    chance = random.Random(seed)
    fake, history = FakeMeta(), History()
    with serve(fake.app) as graph:
        running = [_Victim(store, graph, f"{seed}-{n}", history) for n in range(processes)]
        # A loaded machine may take longer to start Python than the first kill waits.
        until("an event that was accepted", lambda: history.accepted, DRAIN_SECONDS)
        quiet = [_throttle(fake)] if chance.random() < 0.3 else []
        for number in range(kills):
            trouble(fake, chance)
            time.sleep(chance.uniform(0.05, 0.4))
            place = chance.randrange(processes)
            running[place].kill()
            history.kills += 1
            running[place] = _Victim(store, graph, f"{seed}-{processes + number}", history)
        time.sleep(chance.uniform(0.1, 0.3))
        for victim in running:
            victim.kill()
        fake.clear_faults()
        subprocess.run(command(store, graph, "drain"), cwd=ROOT, env=environment(),
                       timeout=DRAIN_SECONDS, check=True)  # fmt: skip
    return judge(history, fake.received.server, quiet)


def _throttle(fake: FakeMeta) -> tuple[float, float]:
    """Meta asks for some seconds of rest; the time in which every process must have heard it."""
    fake.fail_next(429, headers={"Retry-After": str(REST)})
    until("a request that is throttled", lambda: not fake.faults_left)
    now = time.time()
    time.sleep(REST)
    return now + IN_FLIGHT, now + REST - 0.1


def trouble(fake: FakeMeta, chance: random.Random) -> None:
    """Let Meta fail in one of its ways, or not."""
    kind = chance.choice(["none", "http", "lost answer", "slow", "nonsense"])
    if kind == "http":
        fake.fail_next(chance.choice([500, 502, 503]), times=chance.randint(1, 3))
    elif kind == "lost answer":
        fake.fail_next(drop="after", times=chance.randint(1, 3))
    elif kind == "slow":
        fake.fail_next(200, delay=0.3)
    elif kind == "nonsense":
        fake.fail_next(200, "<html>", times=2)


class _Victim:
    """A running process, and a thread that hears what it says."""

    def __init__(self, store: str, graph: str, name: str, history: History) -> None:
        self._process = subprocess.Popen(
            command(store, graph, name), cwd=ROOT, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        out = self._process.stdout
        assert out is not None
        self._ear = threading.Thread(target=lambda: history.hear(out), daemon=True)
        self._ear.start()

    def kill(self) -> None:
        """SIGKILL, after which everything it said was heard."""
        self._process.kill()
        self._process.wait()
        self._ear.join(10)
        if self._process.stdout is not None:
            self._process.stdout.close()


def command(store: str, graph: str, name: str) -> list[str]:
    """What runs a victim."""
    return [sys.executable, "-m", "tests.torture.victim", store, graph, name]


def environment() -> dict[str, str]:
    """That of this process, with the tests in the path; what has it ends with this process."""
    player = {PLAYER: str(os.getpid())}
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDEVMODE": "", **player}
