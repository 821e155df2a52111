"""What holds for every command: however the site is configured, whatever is wrong, in its help."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from capi_middleware.cli import main
from tests.support.configs import SECRET
from tests.support.processes import ROOT

#: Each command with what it needs, so that it comes to its end on a new store.
COMMANDS = {
    "init": ["--force"],
    "check": [],
    "report": [],
    "events": [],
    "tail": ["--once"],
    "insights": [],
    "reconcile": ["orders.csv"],
    "deliver": ["--once"],
    "health": [],
    "dead-letters list": [],
    "dead-letters show": ["1"],
    "dead-letters requeue": ["--all"],
    "dead-letters drop": ["--all"],
    "migrate": [],
    "prune": ["--days", "9"],
    "forget": ["--em", "jane@example.com"],
    "import": ["events.csv"],
}
OF_A_SITE = {name: given for name, given in COMMANDS.items() if name != "init"}
#: Commands that a new store has nothing for.
FINDING_NOTHING = {"insights", "dead-letters show"}
TOML = f"""
secret_key = "{SECRET}"
store = "STORE"
delivery = false
action_source = "physical_store"
graph_url = "http://127.0.0.1:9"
MORE
[[pixels]]
id = "4711"
access_token = "t"
"""
MODULE = """
from capi_middleware import CAPI, Config
from capi_middleware.flask import init_app
from flask import Flask
config = Config.load("capi.toml")
capi = CAPI(config)
def create_app():
    app = Flask("shop")
    init_app(app, config)
    return app
"""
SOURCES = {
    "a capi.toml": ("capi.toml", "after"),
    "a capi.toml before the command": ("capi.toml", "before"),
    "a capi.toml of the environment": ("capi.toml", "environment"),
    "a Config": ("configured:config", "before"),
    "a CAPI": ("configured:capi", "after"),
    "a Flask factory": ("configured:create_app()", "after"),
    "a Flask factory of the environment": ("configured:create_app", "environment"),
}
#: What is wrong, as the arguments that lead to it.
WRONG = {
    "a missing file": ["--config", "missing.toml"],
    "a folder": ["--config", "."],
    "no TOML": ["--config", "broken.toml"],
    "no UTF-8": ["--config", "latin.toml"],
    "an unknown setting": ["--config", "unknown.toml"],
    "a wrong type": ["--config", "wrong.toml"],
    "an unknown store": ["--config", "nowhere.toml"],
    "a store in no folder": ["--config", "folder.toml"],
    "a store that is no database": ["--config", "text.toml"],
    "a store that is away": ["--config", "away.toml"],
    "a missing module": ["--config", "no_such:config"],
    "a bad option": ["--no-such-option"],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a site, and with whatever may be wrong of one."""

    def write(name: str, store: str = "memory:", more: str = "") -> None:
        text = TOML.replace("STORE", store).replace("MORE", more)
        (tmp_path / name).write_text(text)

    write("capi.toml", f"sqlite:///{tmp_path}/capi.db")
    write("unknown.toml", more="exlude = ['/a']")
    write("wrong.toml", more="debug = 'yes'")
    write("nowhere.toml", "mysql://shop")
    write("folder.toml", f"sqlite:///{tmp_path}/none/capi.db")
    write("text.toml", f"sqlite:///{tmp_path}/text.db")
    write("away.toml", "postgresql://shop@127.0.0.1:9/shop")
    (tmp_path / "broken.toml").write_text("secret_key = \n")
    (tmp_path / "latin.toml").write_bytes("# Straße\n".encode("latin-1"))
    (tmp_path / "text.db").write_text("no database " * 999)
    (tmp_path / "configured.py").write_text(MODULE)
    (tmp_path / "orders.csv").write_text("id,total,currency,time,status\n1,5,EUR,2026-11-28,paid\n")
    (tmp_path / "events.csv").write_text(
        f"event_name,event_time,email\nLead,{int(time.time())},jane@example.com\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("DJANGO_SETTINGS_MODULE", "CAPI_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    yield tmp_path
    sys.modules.pop("configured", None)
    for number, handler in handlers.items():  # `deliver` has its own
        signal.signal(number, handler)


def _commands() -> Iterator[tuple[str, click.Command]]:
    for name, one in main.commands.items():
        if isinstance(one, click.Group):
            yield from ((f"{name} {below}", part) for below, part in one.commands.items())
        else:
            yield name, one


def test_every_command_is_tried_here() -> None:
    endless = {"mcp"}
    assert set(COMMANDS) | endless == {name for name, _ in _commands()}


@pytest.mark.parametrize("source", SOURCES)
def test_every_command_knows_the_site_by(source: str) -> None:
    found, place = SOURCES[source]
    option = ["--config", found]
    environment = {"CAPI_CONFIG": found if place == "environment" else "missing.toml"}
    for name, arguments in OF_A_SITE.items():
        words = [*name.split(), *arguments, "--json", *(option if place == "after" else [])]
        before = option if place == "before" else []
        done = CliRunner(env=environment).invoke(main, [*before, *words])
        assert done.exception is None or isinstance(done.exception, SystemExit), (name, done)
        assert done.exit_code != 4, (name, done.output)
        if name not in FINDING_NOTHING:
            assert '"error":' not in done.output, (name, done.output)


@pytest.mark.parametrize("named_by", ["--django", "DJANGO_SETTINGS_MODULE"])
def test_every_command_knows_django_by(named_by: str, folder: Path) -> None:
    (folder / "capi.toml").rename(folder / "settings.toml")
    (folder / "project.py").write_text(
        f"SECRET_KEY = {SECRET!r}\nINSTALLED_APPS = ['django.contrib.contenttypes']\n"
        "from capi_middleware import Config\nCAPI = Config.load('settings.toml')\n"
    )
    flag = ["--django"] if named_by == "--django" else []
    (folder / "manage.py").write_text(
        'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project")' if flag else ""
    )
    lines = [[*name.split(), *more, "--json", *flag] for name, more in OF_A_SITE.items()]
    script = (
        "from click.testing import CliRunner\nfrom capi_middleware.cli import main\n"
        f"for one in {lines!r}:\n    done = CliRunner().invoke(main, one)\n"
        "    print(done.exit_code, *one[:2], done.output.replace(chr(10), ' '))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDEVMODE": ""}
    environment |= {} if flag else {"DJANGO_SETTINGS_MODULE": "project"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120
    )
    said = done.stdout.splitlines()
    assert len(said) == len(lines), done
    assert [one for one in said if one[0] == "4" or "Traceback" in one] == []
    failed = [one.partition(" {")[0].removesuffix(" --json") for one in said if '"error":' in one]
    assert failed == ["3 insights", "1 dead-letters show"]


@pytest.mark.parametrize("wrong", WRONG)
def test_every_command_with_json_says_in_json_that_there_is(
    wrong: str, swallowed: list[BaseException]
) -> None:
    for name, arguments in (COMMANDS if wrong == "a bad option" else OF_A_SITE).items():
        done = CliRunner().invoke(main, [*name.split(), *arguments, "--json", *WRONG[wrong]])
        said = (name, done.exit_code, done.stdout, done.stderr)
        assert isinstance(done.exception, SystemExit), (*said, done.exception)
        assert done.exit_code in {1, 2, 4}, said
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert lines, said
        assert name == "check" or "error" in lines[0], said
    swallowed.clear()  # of a store that takes nothing


def test_all_help_fits_80_columns_and_every_summary_its_line() -> None:
    for name, _ in [("", main), *_commands(), ("dead-letters", main)]:
        told = CliRunner().invoke(main, [*name.split(), "--help"], terminal_width=80).output
        assert [line for line in told.splitlines() if len(line) > 80] == [], name
        assert [
            line for line in told.splitlines() if line.startswith("  ") and line.endswith("...")
        ] == [], name
