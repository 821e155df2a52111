"""One attack on one server: what it is asked, and what must not have happened."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from random import Random

from capi_middleware.alerts.watch import Alerting
from capi_middleware.shield import Shield
from capi_middleware.store.opening import open_store
from capi_middleware.testing import FakeMeta
from tests.attack.fuzzing import Asked, Fuzzer
from tests.attack.planted import Planted
from tests.attack.site import TOKEN, answer_to
from tests.attack.stores import Attacked, Rows
from tests.support.configs import SECRET, make_config
from tests.support.configs import TOKEN as GRAPH_TOKEN
from tests.support.stores import Clock

ROOT = Path(__file__).parents[2]
SERVERS = {
    "uvicorn": ["-m", "uvicorn", "tests.attack.site:asgi_app", "--log-level", "error",
                "--no-access-log", "--fd", "{fd}"],
    "gunicorn": ["-m", "gunicorn", "tests.attack.site:wsgi_app", "--worker-class", "gthread",
                 "--threads", "4", "--limit-request-line", "8190",
                "--limit-request-field_size", "16000", "--log-level", "error", "--bind", "fd://{fd}"],
}  # fmt: skip
#: Requests in a row that must change nothing, and others between them.
_ROW = 40
_TAG = re.compile(
    rb'<script type="application/json" data-c>(.*?)</script>'
    rb'(?:<script src="[^"]*" async></script>)?',
    re.DOTALL,
)
_EVENT = re.compile(rb'\["(\w{1,40})","(t[\w.-]+)"')
_ALERT_HOURS = 3
#: Where half a body is sent to, and how often: the server has four threads.
_STALLED = ("b", "t", "nothing-here", "parity")
_STALLS = 3


def ask(address: tuple[str, int], data: bytes) -> bytes:
    """The whole answer; b"" where the server says nothing."""
    answer = b""
    with closing(socket.create_connection(address, timeout=60)) as connection:
        with suppress(ConnectionError):  # it has answered before it had read all
            connection.sendall(data)
        with suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
    return answer


def status_of(answer: bytes) -> int:
    """The status, 0 without one."""
    line = answer.partition(b"\r\n")[0].split()
    return int(line[1]) if len(line) > 1 and line[1].isdigit() else 0


@contextmanager
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: what is looked at is no disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@contextmanager
def serving(server: str, store: str, folder: Path, graph: str) -> Iterator[tuple[str, int]]:
    """The site behind a real server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.set_inheritable(listener.fileno(), True)
        environ = {**os.environ, "STORE": store, "GRAPH": graph, "FOLDER": str(folder)}
        command = [one.format(fd=listener.fileno()) for one in SERVERS[server]]
        with (folder / "server.txt").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=environ, stdout=log, stderr=log,
                pass_fds=[listener.fileno()],
            )  # fmt: skip
        try:
            yield listener.getsockname()[:2]
        finally:
            process.terminate()
            process.wait(60)


class Attack:
    """An attack on a server and its store, in a `folder`. `wrong` says what went wrong."""

    def __init__(self, server: str, store: Attacked, folder: Path, seed: int) -> None:
        self._server, self._store, self._folder = server, store, folder
        random = Random(seed)
        self.planted = Planted(random)
        self._fuzzer = Fuzzer(random, self.planted)
        self._random = random
        self.wrong: list[str] = []
        self.asked = 0
        self._answers: list[bytes] = []

    def run(self, seconds: float) -> None:
        """Attack, and look what is left of it."""
        meta = FakeMeta()
        with meta.serve() as graph:
            with serving(self._server, self._store.url, self._folder, graph) as address:
                self._ask(address, Asked("GET", "/"))
                end = time.monotonic() + seconds
                while time.monotonic() < end and len(self.wrong) < 9:
                    for _ in range(_ROW):
                        self._page(address)
                    for _ in range(_ROW // 2):
                        self._ask(address, self._fuzzer.near())
                    self._refused(address)
                self._stall(address)
                self._settle(self._store.waiting)
                for name in ("parity", "parity.json", "parity.csv", "metrics"):
                    headers = {"Authorization": f"Bearer {TOKEN}"}
                    status, _ = self._ask(address, Asked("GET", f"/_capi/{name}", headers))
                    if status != 200:
                        self.wrong.append(f"{name} answers {status}")
            self._alert()
        self._look_for_leaks(meta)

    # -- what is asked ---------------------------------------------------------------------------

    def _ask(self, address: tuple[str, int], asked: Asked) -> tuple[int, bytes]:
        """The status and the whole answer."""
        self.asked += 1
        answer = ask(address, asked.wire())
        status = status_of(answer)
        if status == 503:  # a machine that had no time for a commit within two seconds
            time.sleep(1)
            answer = ask(address, asked.wire())
            status = status_of(answer)
        self._answers.append(answer)
        if status >= 500 or not answer:
            self.wrong.append(f"{status} for {asked!r:.600}")
        return status, answer

    def _page(self, address: tuple[str, int]) -> None:
        """The host's own answer comes to the byte, but for the tag."""
        asked = self._fuzzer.page()
        status, answer = self._ask(address, asked)
        head, _, body = answer.partition(b"\r\n\r\n")
        if status in (400, 414, 431):
            return  # the server took it for no request
        if b"transfer-encoding: chunked" in head.lower():
            body = unchunked(body)
        for found in _TAG.finditer(body):
            self._fuzzer.known += [(n.decode(), i.decode()) for n, i in _EVENT.findall(found[1])]
            del self._fuzzer.known[:-50]
        path = asked.target.partition("?")[0]
        if status != answer_to(path)[0] or _TAG.sub(b"", body) != answer_to(path)[1]:
            self.wrong.append(f"another answer, {answer[:300]!r}, for {asked!r:.600}")

    def _refused(self, address: tuple[str, int]) -> None:
        """What must change nothing changes nothing."""
        # Ends after its commit, and what came before is in it.
        self._ask(address, Asked("GET", f"/thanks/{self.asked}?amount=1"))
        before = self._settle(self._store.state)
        asked = [self._fuzzer.refused() for _ in range(_ROW)]
        for one in asked:
            self._ask(address, one)
        after = self._settle(self._store.state)
        if before != after:
            self.wrong.append(f"{before} became {after} by one of {asked!r:.600}")

    def _stall(self, address: tuple[str, int]) -> None:
        """Half a body to all that might read one: nobody else waits for the rest of it."""
        half, length = b'{"e":', "Content-Length: 60000"
        with ExitStack() as stalled:
            for where in _STALLED * _STALLS:
                asked = Asked("POST", f"/_capi/{where}", {"Content-Type": "text/plain"}, half)
                data = asked.wire().replace(b"Content-Length: 5", length.encode())
                connection = stalled.enter_context(socket.create_connection(address, timeout=60))
                connection.sendall(data)
            try:
                self._ask(address, Asked("GET", "/"))
            except TimeoutError:
                self.wrong.append("a page waits for bodies that do not come")

    # -- what is looked at -----------------------------------------------------------------------

    def _settle(self, look: Callable[[], Rows]) -> Rows:
        """What is there when nothing changes any more: page views wait for company."""
        last, same = look(), 0
        end = time.monotonic() + 20
        while same < 3 and time.monotonic() < end:
            time.sleep(0.1)
            now = look()
            same, last = (same + 1 if now == last else 0), now
        return last

    def _alert(self) -> None:
        """Tell all that there is to tell: what a webhook gets is an alert as JSON."""
        config = make_config(store=self._store.url, on_alert=self._told)
        store = open_store(config.store, queue_limit=100)
        for hours in range(_ALERT_HOURS):
            now = time.time() + hours * 3600
            Alerting(config, store, Shield(store.count), lambda: True, Clock(now)).check()
        errors = self._store.errors()
        if errors:
            self.wrong.append(f"errors of ours: {errors}")
        store.close()

    def _told(self, alert: object) -> None:
        self._answers.append(repr(alert).encode())

    def _look_for_leaks(self, meta: FakeMeta) -> None:
        places = {one.name: one.read_bytes() for one in self._folder.iterdir() if one.is_file()}
        places |= self._store.left()
        places["answers"] = b"\n".join(self._answers)
        places["Meta"] = repr([one.event for one in meta.received.server]).encode()
        secrets = (SECRET, GRAPH_TOKEN, TOKEN)
        for name, data in places.items():
            self.wrong += [f"{one} in {name}" for one in self.planted.found(data)]
            self.wrong += [f"a secret is in {name}" for one in secrets if one.encode() in data]
        if not meta.received.server:
            self.wrong.append("nothing was delivered")


def unchunked(body: bytes) -> bytes:
    """A body that came in chunks."""
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        n = int(size or b"0", 16)
        whole, body = whole + rest[:n], rest[n + 2 :]
    return whole
