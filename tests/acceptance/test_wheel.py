"""The sdist, the wheel that is made of it, and what a machine has that installs nothing else."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import pytest

from tests.support.manual import URLS
from tests.support.processes import ROOT

PAGE = """
import asyncio, json
from capi_middleware import CAPIMiddleware, Config, Pixel

async def app(scope, receive, send):
    headers = [(b"content-type", b"text/html")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"<!doctype html><head></head>"})

async def receive():
    return {"type": "http.request"}

bodies = {}

async def send(message):
    bodies[path] = bodies.get(path, "") + message.get("body", b"").decode()

config = Config("a-key-of-32-letters-for-a-test-!", [Pixel("123", access_token="t")], store="sqlite:///capi.db",
                delivery=False, report_token="the-report-token")
wrapped = CAPIMiddleware(app, config)
headers = [(b"host", b"shop.example"), (b"user-agent", b"Mozilla/5.0")]

for path, more in (
    ("/", []),
    ("/_capi/s.js", []),
    ("/_capi/parity", [(b"authorization", b"Bearer the-report-token")]),
):
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"",
             "scheme": "https", "headers": [*headers, *more], "client": ("203.0.113.9", 1)}
    asyncio.run(wrapped(scope, receive, send))

print(json.dumps(list(bodies.values())))
wrapped.capi.close()
"""


#: A test of a host's, which knows nothing of ours but the fixture.
TEST = """
from starlette.testclient import TestClient
from capi_middleware import CAPIMiddleware, Config, Pixel
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

def ask_for_a_page(store):
    site = Starlette(routes=[Route("/", lambda request: HTMLResponse("<head></head>"))])
    pixel = Pixel("123", access_token="t")
    config = Config("a-key-of-32-letters-for-a-test-!", [pixel], store=store)
    # No lifespan: nobody ever closes it.
    TestClient(CAPIMiddleware(site, config), headers={"user-agent": "Mozilla/5.0"}).get("/")

def test_a_page_is_a_page_view(capi):
    ask_for_a_page("memory:")
    assert [event.event_name for event in capi.events] == ["PageView"]

def test_a_page_is_stored(tmp_path):
    ask_for_a_page(f"sqlite:///{tmp_path}/capi.db")
"""
#: What a host's tests may make errors of.
WARNINGS = [
    f"-Werror::{name}" for name in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
]
UV = str(Path(sys.executable).with_name("uv"))
_CLASSIFIER = "Programming Language :: Python :: "
#: The Pythons that the classifiers promise.
_PROMISED: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "classifiers"
]
OTHERS = sorted(
    version
    for one in _PROMISED
    if (version := one.removeprefix(_CLASSIFIER)) not in (one, "3 :: Only")
    and version != f"3.{sys.version_info.minor}"
)


class Machine(NamedTuple):
    """A fresh environment with the wheel and what it depends on, and an empty folder."""

    python: Path
    folder: Path

    def run(
        self, *arguments: str, environment: dict[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program of the environment in the folder."""
        program, *rest = arguments
        command = [str(self.python.with_name(program)), *rest]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60
        )

    def fails(self, code: str) -> str:
        """What is said last when this code fails."""
        ended = self.run("python", "-c", code)
        assert ended.returncode != 0
        return ended.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist"]
    command += ["--directory", str(folder)]
    subprocess.run(command, check=True, timeout=120, cwd=ROOT)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(sdist)]
    subprocess.run(command, check=True, timeout=120)
    (built,) = folder.iterdir()
    return built


def installed(wheel: Path, home: Path, interpreter: str, extras: str = "") -> Machine:
    python = home / "venv" / "bin" / "python"
    subprocess.run([UV, "venv", "--quiet", "--python", interpreter, home / "venv"], check=True)
    into = [UV, "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([*into, f"capi-middleware{extras} @ {wheel.as_uri()}"], check=True)
    folder = home / "empty"
    folder.mkdir()
    return Machine(python, folder)


@pytest.fixture(scope="module")
def machine(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return installed(wheel, tmp_path_factory.mktemp("machine"), sys.executable)


@pytest.fixture(scope="module")
def equipped(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """With the command line and what tests need."""
    home = tmp_path_factory.mktemp("equipped")
    return installed(wheel, home, sys.executable, "[cli,testing]")


def test_the_sdist_holds_what_the_tests_and_the_demo_need_and_nothing_hidden(sdist: Path) -> None:
    with tarfile.open(sdist) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    wanted = {"README.md", "Makefile", "pyproject.toml", "demo/README.md", "demo/report.png"}
    assert wanted | {"tests/acceptance/test_wheel.py"} <= names
    hidden = {name for name in names if name.startswith(".") or "__pycache__" in name}
    assert hidden <= {".gitignore"}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    source = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "capi_middleware").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    kinds = {name.rpartition(".")[2] for name in source}
    assert kinds == {"py", "js", "sql", "jinja", "toml", "txt", "typed"}
    about = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info/"
    with ZipFile(wheel) as opened:
        names = set(opened.namelist())
        metadata = opened.read(about + "METADATA").decode()
    texts = ("METADATA", "WHEEL", "entry_points.txt", "RECORD", "licenses/LICENSE")
    assert names == source | {about + text for text in texts}
    assert "Meta's Conversions API for any Python web app" in metadata
    assert "Description-Content-Type: text/markdown\n" in metadata
    for label, address in URLS.items():
        assert f"Project-URL: {label}, {address}\n" in metadata


def test_a_page_is_served_with_the_core_dependencies_alone(machine: Machine) -> None:
    ended = machine.run("python", "-W", "error", "-c", PAGE)
    assert ended.returncode == 0, ended.stderr
    page, script, report = json.loads(ended.stdout)
    assert page.startswith('<!doctype html><head><script type="application/json" data-c>')
    assert "fbevents" in script
    assert "<title>" in report
    assert (machine.folder / "capi.db").exists()


def test_the_core_brings_no_server_no_command_line_and_no_test_tool(machine: Machine) -> None:
    code = (
        "import importlib.util as u; print([n for n in ('click', 'rich', 'psycopg', 'pytest', "
        "'uvicorn', 'django', 'flask') if u.find_spec(n)])"
    )
    assert machine.run("python", "-c", code).stdout.strip() == "[]"


def test_the_command_line_says_which_extra_it_needs(machine: Machine) -> None:
    ended = machine.run("capi-middleware", "--help")
    assert ended.returncode == 1
    assert "pip install 'capi-middleware[cli]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_postgresql_says_which_extra_it_needs(machine: Machine) -> None:
    said = machine.fails(
        "from capi_middleware import *; CAPI(Config('a-key-of-32-letters-for-a-test-!', "
        "[Pixel('1', 't')], store='postgresql://u:secret@h/d'))"
    )
    assert "pip install 'capi-middleware[postgres]'" in said
    assert "secret" not in said


def test_the_fake_meta_says_which_extra_its_server_needs(machine: Machine) -> None:
    said = machine.fails(
        "from capi_middleware.testing import FakeMeta; FakeMeta().serve().__enter__()"
    )
    assert "pip install 'capi-middleware[testing]'" in said


def test_the_command_line_runs_from_the_wheel(equipped: Machine) -> None:
    said = equipped.run("capi-middleware", "init").stdout
    given = {
        **os.environ,
        "CAPI_ACCESS_TOKEN": "t",
        **dict(re.findall(r"(CAPI_\w+)=(\S{16,})", said)),
    }
    for arguments, code in (("check", 0), ("report", 0), ("deliver --once", 0)):
        ended = equipped.run("capi-middleware", *arguments.split(), environment=given)
        assert ended.returncode == code, (arguments, ended)
    assert (equipped.folder / "capi.db").exists()


@pytest.mark.parametrize("version", OTHERS)
def test_each_python_that_is_promised_serves_pages_and_tests(
    version: str, wheel: Path, tmp_path: Path
) -> None:
    # pyenv's shims find a version that is not the one of this folder only when told so.
    environment = {**os.environ, "PYENV_VERSION": version}
    found = subprocess.run(
        [UV, "python", "find", version], env=environment, capture_output=True, text=True
    )
    if found.returncode:
        pytest.skip(f"found no Python {version}")
    machine = installed(wheel, tmp_path, found.stdout.strip(), "[testing]")
    (machine.folder / "test_page.py").write_text(TEST)
    ended = machine.run("python", "-X", "dev", "-m", "pytest", "-q", *WARNINGS)
    assert (ended.returncode, "2 passed" in ended.stdout) == (0, True), ended
