"""The production demo: real processes, and files for containers that a linter has read."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT, free_port, running

FOLDER = ROOT / "demo" / "production"
SCRIPTS = Path(sys.prefix) / "bin"
SETTINGS = (
    "CAPI_SECRET_KEY", "CAPI_PIXEL", "CAPI_ACCESS_TOKEN", "CAPI_REPORT_TOKEN", "POSTGRES_PASSWORD",
)  # fmt: skip


def done(*command: str | Path, **environment: str) -> tuple[int, str]:
    told = subprocess.run(
        list(map(str, command)), cwd=FOLDER, env={**os.environ, "PYTHONDEVMODE": "", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
    )  # fmt: skip
    return told.returncode, told.stdout


def composed(how: str, environment: dict[str, str]) -> tuple[int, str]:
    command = SCRIPTS / "docker-compose"
    return done(command, "--file", "compose.yaml", "config", how, **environment)


@pytest.mark.browser
def test_what_is_bought_behind_nginx_and_four_processes_matches_and_is_healthy() -> None:
    code, printed = done(
        sys.executable, "-m", "demo.production", "--port", str(free_port()), "--visitors", "3",
        "--exit", PYTHONPATH=str(ROOT),
    )  # fmt: skip
    assert code == 0, printed
    assert "healthy" in printed
    row = next(line.split() for line in printed.splitlines() if " Purchase " in line)
    assert row[1:4] == ["3", "3", "3"]


@pytest.mark.browser
def test_all_of_it_ends_with_the_one_that_started_it() -> None:
    port = free_port()
    command = ["demo.production", "--port", str(port), "--visitors", "0"]
    with running(command, port, path="/health") as shop:
        shop.process.terminate()
        assert shop.process.wait(60) == 0
    with socket.create_server(("127.0.0.1", port)):
        pass  # nobody has it any more


def test_the_dockerfile_has_nothing_that_its_linter_minds() -> None:
    assert done(SCRIPTS / "hadolint", "Dockerfile") == (0, "")


def test_the_compose_file_is_one_that_docker_compose_reads() -> None:
    code, printed = composed("--services", dict.fromkeys(SETTINGS, "a"))
    assert code == 0, printed
    assert set(printed.split()) == {"migrate", "web", "courier", "db"}


@pytest.mark.parametrize("missing", SETTINGS)
def test_the_compose_file_asks_for_each_secret(missing: str) -> None:
    given = {name: "a" for name in SETTINGS if name != missing}
    _, printed = composed("--quiet", given)  # what pip brings of it ends with 0 always
    assert f"required variable {missing} is missing" in printed


def test_the_compose_file_has_nothing_grave_that_its_linter_minds() -> None:
    code, printed = done(SCRIPTS / "compose-lint", "check", "compose.yaml")
    assert code == 0, printed
