"""End to end: requests per second of real servers, loaded by wrk (Debian's package)."""

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator

from tests.benchmarks import requests
from tests.benchmarks.measure import Trial
from tests.support.processes import free_port, running

_CONNECTIONS = 32
_UVICORN = (
    "uvicorn", "tests.benchmarks.served:app", "--loop", "uvloop", "--http", "httptools",
    "--log-level", "error", "--no-access-log", "--port",
)  # fmt: skip
_GUNICORN = (
    "gunicorn", "tests.benchmarks.served:flask", "--worker-class", "gthread", "--threads", "8",
    "--workers", "1", "--log-level", "error", "--bind",
)  # fmt: skip
_HEADERS = [f"-H{name}: {value}" for name, value in requests.BROWSER.items() if name != "host"]
_RATE = re.compile(r"Requests/sec:\s*([\d.]+)")
_FAILED = re.compile(r"(Socket errors|Non-2xx).*")


def wrk() -> str:
    """The path of wrk. Raises RuntimeError where it is missing."""
    found = shutil.which("wrk")
    if found is None:
        raise RuntimeError("found no wrk, expected Debian's package of this name (make bench)")
    return found


@contextlib.contextmanager
def _served(command: tuple[str, ...], layer: str) -> Iterator[str]:
    port = free_port()
    address = f"127.0.0.1:{port}" if command is _GUNICORN else str(port)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(
            [*command, address], port, path="/other",
            environment={"LAYER": layer, "STORE": f"sqlite:///{folder}/capi.db"},
        ) as server,
    ):  # fmt: skip
        yield server.url


def _rate(url: str) -> Callable[[float], float]:
    def side(share: float) -> float:
        said = subprocess.run(
            [wrk(), "-t1", f"-c{_CONNECTIONS}", "-d1s", *_HEADERS, url],
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout  # fmt: skip
        found, failed = _RATE.search(said), _FAILED.search(said)
        if found is None or failed is not None:
            raise AssertionError(f"wrk says: {failed[0] if failed else said}")
        return float(found[1])

    return side


def _seconds(url: str) -> Callable[[float], float]:
    rate = _rate(url)
    return lambda share: 1 / rate(share)


def rows() -> Iterator[Trial]:
    """What the table says about servers."""
    with contextlib.ExitStack() as servers:

        def up(layer: str, command: tuple[str, ...] = _UVICORN) -> str:
            return servers.enter_context(_served(command, layer))

        bare, noop, sentry = up("bare"), up("noop"), up("sentry")
        none, every = up("ours:none"), up("ours:all")
        uvicorn = f"uvicorn, {_CONNECTIONS} connections"
        yield Trial(
            f"unmatched route, {uvicorn}", "a no-op middleware", 0.97,
            _rate(f"{none}/other"), _rate(f"{noop}/other"), unit="/s",
        )  # fmt: skip
        yield Trial(
            f"matched page of 10 KB, {uvicorn}, durability=none, added time",
            "sentry-sdk ASGI, nothing sampled", 0.40, _seconds(f"{none}/matched"),
            _seconds(f"{sentry}/matched"), _seconds(f"{bare}/matched"),
        )  # fmt: skip
        for durability, url, reach in (("all", every, 0.60), ("none", none, 0.75)):
            yield Trial(
                f"matched page of 10 KB, {uvicorn}, durability={durability}", "the bare app",
                reach, _rate(f"{url}/matched"), _rate(f"{bare}/matched"), unit="/s",
            )  # fmt: skip
    with contextlib.ExitStack() as servers:
        bare, sentry, none = (up(one, _GUNICORN) for one in ("bare", "sentry", "ours:none"))
        gunicorn = "Flask, gunicorn gthread"
        yield Trial(
            f"unmatched route, {gunicorn}", "the bare app", 0.97,
            _rate(f"{none}/other"), _rate(f"{bare}/other"), unit="/s",
        )  # fmt: skip
        yield Trial(
            f"matched page of 10 KB, {gunicorn}, durability=none, added time",
            "sentry-sdk WSGI, nothing sampled", 0.30, _seconds(f"{none}/matched"),
            _seconds(f"{sentry}/matched"), _seconds(f"{bare}/matched"),
        )  # fmt: skip
