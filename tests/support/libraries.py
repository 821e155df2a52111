"""Libraries of the front end as npm has them, kept beside the virtualenv once they were fetched."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

_KEPT = Path(sys.prefix) / "npm"


def source_of(package: str, version: str, path: str) -> str:
    """The text of a file of a package; the test is skipped where there is no npm."""
    folder = _KEPT / f"{package.replace('/', '+')}@{version}"
    file = folder / "package" / path
    if not file.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip(f"found no npm, which brings {package}")
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [npm, "pack", "--silent", f"{package}@{version}"], cwd=folder, capture_output=True
        )
        archives = [*folder.glob("*.tgz")]
        if done.returncode or not archives:
            pytest.skip(f"npm could not bring {package}@{version}")
        with tarfile.open(archives[0]) as archive:
            archive.extract(f"package/{path}", folder, filter="data")
    return file.read_text("utf-8")
