"""The command line in this process, on a folder with a capi.toml and a real SQLite file."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capi_middleware import CAPI, Config
from capi_middleware.cli import main
from capi_middleware.testing import FakeMeta
from tests.support.configs import PIXEL_ID, SECRET, TOKEN
from tests.support.servers import serve


class Site:
    """A folder with a capi.toml, its store, and a fake Meta on a port."""

    def __init__(self, folder: Path, meta: str, fake: FakeMeta) -> None:
        self.folder, self.meta, self.fake = folder, meta, fake
        self.path = folder / "capi.toml"
        self.configure()

    def configure(self, more: str = "", pixel: str = "", **settings: Any) -> None:
        """Write the capi.toml; `more` are tables after the pixel's, `pixel` more keys of it."""
        given = {
            "secret_key": "env:CAPI_SECRET_KEY",
            "report_token": "a-report-token-of-the-tests",
            "store": f"sqlite:///{self.folder / 'capi.db'}",
            "graph_url": self.meta,
            "delivery": False,
            "action_source": "system_generated",
            **settings,
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in given.items()]
        pixels = f'[[pixels]]\nid = "{PIXEL_ID}"\naccess_token = "{TOKEN}"\n{pixel}\n'
        self.path.write_text("\n".join([*lines, pixels, more]))

    def run(self, *arguments: str) -> Result:
        """One command; nothing but its own exit may end it."""
        runner = CliRunner(env={"COLUMNS": "250"})
        done = runner.invoke(main, ["--config", str(self.path), *arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert TOKEN not in done.output
        assert SECRET not in done.output
        return done

    def told(self, *arguments: str) -> Any:
        """What a command says with --json, whatever its exit code."""
        return json.loads(self.run(*arguments, "--json").stdout)

    @contextmanager
    def capi(self, **settings: Any) -> Iterator[CAPI]:
        """A CAPI on the same store."""
        capi = CAPI(Config.load(self.path))
        try:
            yield capi
        finally:
            capi.close()
            capi.store.close()


@contextmanager
def site(folder: Path, monkeypatch: pytest.MonkeyPatch, fake: FakeMeta) -> Iterator[Site]:
    monkeypatch.setenv("CAPI_SECRET_KEY", SECRET)
    with serve(fake.app) as meta:
        yield Site(folder, meta, fake)
