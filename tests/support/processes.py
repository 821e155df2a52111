"""Real server processes for tests: started on a free port, waited for, and ended by their id."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx

ROOT = Path(__file__).parents[2]


class Server(NamedTuple):
    """A running server."""

    url: str
    process: "subprocess.Popen[bytes]"


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    arguments: list[str],
    port: int,
    *,
    environment: dict[str, str] | None = None,
    path: str = "/",
    program: Sequence[str] = (sys.executable, "-m"),
    folder: Path = ROOT,
) -> Iterator[Server]:
    """Run `program` with `arguments` until it answers, and end it when the context does."""
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [*program, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONDEVMODE": "", **(environment or {})},
        start_new_session=True,
    )
    try:
        _wait(url + path, process)
        yield Server(url, process)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ended(arguments: list[str], *, seconds: float = 300.0) -> tuple[int, str]:
    """Run `python -m <arguments>` to its end: its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONDEVMODE": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    return done.returncode, done.stdout


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(f"the server ended with {process.returncode}")
        try:
            httpx.get(url, timeout=5)
            return
        except httpx.HTTPError:
            time.sleep(0.05)
    raise AssertionError(f"no answer from {url}")


def until(what: str, condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until `condition()` is true; fails naming `what` when it never is."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)
