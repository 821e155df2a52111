"""Libraries of the front end as npm has them, kept beside the virtualenv once they were fetched."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

_KEPT = Path(sys.prefix) / "npm"


def source_of(package: str, version: str, path: str) -> str:
    """The text of a file of a package; `make test` installs npm."""
    folder = _KEPT / f"{package.replace('/', '+')}@{version}"
    file = folder / "package" / path
    if not file.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise AssertionError(
                f"found no npm, which brings {package}; install it: apt install npm"
            )
        folder.mkdir(parents=True, exist_ok=True)
        if not [*folder.glob("*.tgz")]:
            subprocess.run([npm, "pack", "--silent", f"{package}@{version}"], cwd=folder)
        archives = [*folder.glob("*.tgz")]
        if not archives:
            raise AssertionError(f"npm could not bring {package}@{version}")
        with tarfile.open(archives[0]) as archive:
            archive.extract(f"package/{path}", folder, filter="data")
    return file.read_text("utf-8")
