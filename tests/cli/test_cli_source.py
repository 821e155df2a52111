"""What a site is configured by: the command line finds it however it is."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Response

from capi_middleware.cli import main
from capi_middleware.cli.source import config_of
from capi_middleware.errors import ConfigError
from tests.support.configs import SECRET
from tests.support.processes import ROOT

CONFIG = f"""
from capi_middleware import CAPI, CAPIMiddleware, Config, Pixel
from capi_middleware import wsgi
config = Config({SECRET!r}, [Pixel("4711", access_token="t")], store="memory:", delivery=False)
"""
APPS = {
    "a Config": ("", "config"),
    "a CAPI": ("capi = CAPI(config)", "capi"),
    "a wrapped ASGI app": ("app = CAPIMiddleware(print, config)", "app"),
    "a wrapped WSGI app": ("app = wsgi.CAPIMiddleware(print, config)", "app"),
    "a Starlette app": (
        "from starlette.applications import Starlette\n"
        "app = Starlette()\napp.add_middleware(CAPIMiddleware, config=config)",
        "app",
    ),
    "a FastAPI app": (
        "from fastapi import FastAPI\n"
        "app = FastAPI()\napp.add_middleware(CAPIMiddleware, CAPI(config))",
        "app",
    ),
    "a Flask app": (
        "from flask import Flask\nfrom capi_middleware.flask import init_app\n"
        "app = Flask('shop')\ninit_app(app, config)",
        "app",
    ),
    "a Flask factory": (
        "from flask import Flask\nfrom capi_middleware.flask import init_app\n"
        "def create_app():\n    app = Flask('shop')\n    init_app(app, config)\n    return app",
        "create_app()",
    ),
    "a Quart app": (
        "from quart import Quart\n"
        "app = Quart('shop')\napp.asgi_app = CAPIMiddleware(app.asgi_app, config)",
        "app",
    ),
    "an app in a compressor": (
        "from starlette.middleware.gzip import GZipMiddleware\n"
        "app = GZipMiddleware(CAPIMiddleware(print, config))",
        "app",
    ),
    "a factory's name": ("def create():\n    return config", "create"),
}
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module and gives its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(text: str) -> str:
        name = f"shop_{tmp_path.name}"
        (tmp_path / f"{name}.py").write_text(CONFIG + text)
        return name

    return write


@pytest.mark.parametrize("app", APPS)
def test_a_module_s_config_is_found_in(app: str, write: Write) -> None:
    text, name = APPS[app]
    assert [one.id for one in config_of(f"{write(text)}:{name}").fixed_pixels] == ["4711"]


@pytest.mark.parametrize(
    ("text", "name", "told"),
    [
        ("", "nothing", "found no .*:nothing .*AttributeError.*expected module:name"),
        ("app = 7", "app", "found a int at .*:app, expected a Config, a CAPI, an app that is wrap"),
        ("def create():\n    1 / 0", "create", "ZeroDivisionError"),
        ("import no_such_module", "config", "ModuleNotFoundError"),
    ],
)
def test_what_names_no_config_is_one_clear_line(
    text: str, name: str, told: str, write: Write
) -> None:
    with pytest.raises(ConfigError, match=told):
        config_of(f"{write(text)}:{name}")


class Compressor:
    """Of starlette-compress by its name: br and zstd need packages that are not here."""

    __module__ = "starlette_compress"

    def __init__(self, app: object) -> None:
        self.app = app

    def after_request(self, response: Response) -> Response:
        return response


class GzipAlone(Compressor):
    """A Flask-Compress that was told COMPRESS_ALGORITHM = ["gzip"]."""

    __module__ = "flask_compress.flask_compress"
    enabled_algorithms = ("gzip",)


IN_STARLETTE = """
from starlette.applications import Starlette
from starlette.middleware import Middleware
from tests.cli.test_cli_source import Compressor
door, other = Middleware(CAPIMiddleware, config=config), Middleware(Compressor)
"""
IN_FLASK = """
from flask import Flask
from capi_middleware.flask import init_app
from tests.cli.test_cli_source import Compressor, GzipAlone
app = Flask("shop")
init_app(app, config)
"""
COMPRESSED = {
    "outside in the list": (f"{IN_STARLETTE}app = Starlette(middleware=[other, door])", [True]),
    "inside in the list": (f"{IN_STARLETTE}app = Starlette(middleware=[door, other])", [False]),
    "outside around it": (f"{IN_STARLETTE}app = Compressor(CAPIMiddleware(print, config))", [True]),
    "inside around the app": (
        f"{IN_STARLETTE}app = CAPIMiddleware(Compressor(print), config)",
        [False],
    ),
    "in Flask's hooks": (f"{IN_FLASK}app.after_request(Compressor(app).after_request)", [False]),
    "gzip alone": (f"{IN_FLASK}app.after_request(GzipAlone(app).after_request)", []),
    "in no app": (f"{IN_STARLETTE}app = config", []),
}


@pytest.mark.parametrize("app", COMPRESSED)
def test_a_compressor_is_found_by_its_name(app: str, write: Write) -> None:
    text, outside = COMPRESSED[app]
    done = CliRunner().invoke(main, ["check", "--json", "--config", f"{write(text)}:app"])
    found = [one for one in json.loads(done.output)["findings"] if one["part"] == "compressor"]
    assert [one["level"] == "ok" for one in found] == outside
    assert all("starlette_compress.Compressor stands " in one["text"] for one in found)


@pytest.mark.parametrize("place", ["before", "after", "both", "environment"])
def test_config_may_stand_before_the_command_and_after_it(place: str, write: Write) -> None:
    right, wrong = ["--config", f"{write('')}:config"], ["--config", "no.toml"]
    before = {"before": right, "both": wrong}.get(place, [])
    after = {"after": right, "both": right}.get(place, [])
    variables = {"CAPI_CONFIG": right[1] if place == "environment" else "no.toml"}
    done = CliRunner().invoke(main, [*before, "check", *after, "--json"], env=variables)
    assert json.loads(done.output)["findings"][0]["level"] == "ok", done.output


def test_a_command_below_a_command_takes_it_too(write: Write) -> None:
    name = f"{write('')}:config"
    done = CliRunner().invoke(main, ["dead-letters", "list", "--config", name, "--json"])
    assert (done.exit_code, done.output) == (0, ""), done.output


@pytest.mark.parametrize(
    "named_by", ["manage.py", "manage.py alone", "environment", "environment alone"]
)
def test_django_is_set_up_and_its_settings_are_read(named_by: str, tmp_path: Path) -> None:
    (tmp_path / "project.py").write_text(
        f"{CONFIG}SECRET_KEY = {SECRET!r}\nINSTALLED_APPS = ['django.contrib.auth', "
        "'django.contrib.contenttypes']\nCAPI = config\n"
        "MIDDLEWARE = ['capi_middleware.django.CAPIMiddleware', "
        "'compression_middleware.middleware.CompressionMiddleware']\n"
    )
    manage = 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project")\n'
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDEVMODE": ""}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    if named_by.startswith("manage.py"):
        (tmp_path / "manage.py").write_text(manage)
    else:
        environment["DJANGO_SETTINGS_MODULE"] = "project"
    flag = [] if named_by.endswith("alone") else ["--django"]
    done = subprocess.run(
        [sys.executable, "-m", "capi_middleware.cli", "check", "--json", *flag],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    found = [one["text"] for one in json.loads(done.stdout)["findings"]]
    assert "4711 takes all events" in found, done
    assert [one for one in found if "CompressionMiddleware stands inside of" in one]


def test_django_without_a_project_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    done = CliRunner(env={"COLUMNS": "250"}).invoke(main, ["check", "--django"])
    assert "found no DJANGO_SETTINGS_MODULE in the environment and none in manage.py" in done.output


def test_a_site_that_is_configured_elsewhere_is_told_how_to_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    done = CliRunner(env={"COLUMNS": "300"}).invoke(main, ["report"])
    assert f"found no capi.toml in {tmp_path}" in done.output
    assert "--config module:name (tracking:config), or --django" in done.output
