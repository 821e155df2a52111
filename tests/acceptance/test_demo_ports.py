"""make demo takes its two ports or says what to do, and gives them back whatever ends it."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.support.processes import ROOT, free_port, running, until


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("variable", ["PORT", "META_PORT"])
def test_a_port_that_is_taken_is_one_line_with_another_one(taken: int, variable: str) -> None:
    ports = {"PORT": free_port(), "META_PORT": free_port(), variable: taken}
    command = ["demo", "--port", str(ports["PORT"]), "--meta-port", str(ports["META_PORT"])]
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"found 127.0.0.1:{taken} in use" in done.stderr
    assert f"make demo {variable}={taken + 10}" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_both_ports_are_free_when_it_ended(how: signal.Signals) -> None:
    ports = free_port(), free_port()
    command = ["demo", "--port", str(ports[0]), "--meta-port", str(ports[1])]
    with running(command, ports[0]) as shop:
        httpx.get(f"http://127.0.0.1:{ports[1]}/received", timeout=10).raise_for_status()
        shop.process.send_signal(how)
        shop.process.wait(60)
        until("free ports", lambda: all(map(is_free, ports)), 60)
