"""A scratch copy of the package: an idea is added to it as somebody would write it, and tried."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import capi_middleware
from tests.support.processes import ROOT

_PACKAGE = "capi_middleware"


class Scratch:
    """A copy of the package and the manual, to be changed. `touched` are the files that were."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.touched: set[str] = set()
        shutil.copytree(
            Path(capi_middleware.__file__).parent,
            root / _PACKAGE,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        (root / "demo").mkdir()
        shutil.copy(ROOT / "demo/README.md", root / "demo")

    def write(self, path: str, old: str, new: str) -> None:
        """Put `new` before the first `old` of a file; at its end where `old` is ""."""
        file = self._root / path
        text = file.read_text("utf-8") if file.exists() else ""
        assert old in text, (path, old)
        before, _, after = text.partition(old) if old else (text, "", "")
        file.write_text(before + new + old + after, "utf-8")
        self.touched.add(path)

    def put(self, new: str, before: str, suffix: str = ".py") -> None:
        """Put `new` before the one place of the package that reads `before`, wherever it stands."""
        places = [
            file.relative_to(self._root)
            for file in (self._root / _PACKAGE).rglob(f"*{suffix}")
            for _ in range(file.read_text("utf-8").count(before))
        ]
        assert len(places) == 1, f"found {before!r} in {places}, expected it in one place"
        self.write(str(places[0]), before, new)

    def ran(self, program: str, *arguments: str) -> Any:
        """What a program that has the copy prints as JSON; its argv[1] is the copy's folder."""
        environment = {**os.environ, "PYTHONPATH": f"{self._root}{os.pathsep}{ROOT}"}
        command = [sys.executable, "-P", "-c", program, str(self._root), *arguments]
        done = subprocess.run(
            command, env=environment, cwd=self._root, capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)
