"""init writes a file that loads, names every setting, and tells the defaults truly."""

import re
from dataclasses import MISSING, fields
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from capi_middleware import Config, EventRoute, Pixel
from capi_middleware.cli import main
from tests.support.configs import SECRET


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "capi.toml"
    done = CliRunner().invoke(main, ["--config", str(path), "init"])
    assert done.exit_code == 0
    assert re.search(r"CAPI_SECRET_KEY=[\w-]{43}\n", done.output)
    return path


def test_the_file_loads_with_its_environment(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPI_SECRET_KEY", SECRET)
    monkeypatch.setenv("CAPI_REPORT_TOKEN", "the-report-token")
    monkeypatch.setenv("CAPI_ACCESS_TOKEN", "access")
    config = Config.load(written)
    assert [route.event_name for route in config.routes] == ["ViewContent", "Purchase"]


def test_every_setting_is_in_it_with_its_default(written: Path) -> None:
    text = written.read_text()
    # Tables, and what only Python can say.
    elsewhere = ("pixels", "routes", "on_alert", "before_send", "tenant")
    head, *tables = re.split(r"^\[\[(?:pixels|routes)\]\]$", text, flags=re.MULTILINE)
    for kind, part in ((Config, head), (Pixel, tables[0]), (EventRoute, "".join(tables[1:]))):
        shown = dict(re.findall(r"^(?:# )?([a-z_]+) = (.+)$", part, flags=re.MULTILINE))
        for one in fields(kind):
            if not one.init or one.name == "_" or (kind is Config and one.name in elsewhere):
                continue
            assert one.name in shown, f"{kind.__name__}.{one.name}"
            default = None if one.default is MISSING else one.default
            if default is not None:
                value = msgspec.toml.decode(f"x = {shown[one.name]}")["x"]
                assert value == (list(default) if isinstance(default, tuple) else default), one.name


def test_what_is_commented_out_loads_as_well(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("SECRET_KEY", "REPORT_TOKEN", "ACCESS_TOKEN", "READ_TOKEN", "APP_SECRET")
    for name in names:
        monkeypatch.setenv(f"CAPI_{name}", SECRET)
    monkeypatch.setenv("GIT_COMMIT", "0123abcd")
    text = re.sub(r"^# ([a-z_]+ = )", r"\1", written.read_text(), flags=re.MULTILINE)
    written.write_text(text)
    assert Config.load(written).ad_account == "act_123"


def test_a_file_that_exists_is_replaced_by_force_alone(written: Path) -> None:
    written.write_text("mine")
    run = CliRunner().invoke
    refused = run(main, ["--config", str(written), "init"])
    assert (refused.exit_code, "--force" in refused.output) == (1, True)
    assert written.read_text() == "mine"
    assert run(main, ["--config", str(written), "init", "--force", "--json"]).exit_code == 0
    assert "[[pixels]]" in written.read_text()


@pytest.mark.parametrize("name", ["shop:config", "missing/capi.toml"])
def test_a_place_that_is_none_is_one_clear_line(tmp_path: Path, name: str) -> None:
    done = CliRunner().invoke(main, ["--config", str(tmp_path / name), "init"])
    assert done.exit_code in (1, 2)
    assert "Traceback" not in done.output
