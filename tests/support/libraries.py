"""Libraries of the front end as npm has them, kept beside the virtualenv once they were fetched."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import mkdtemp

_KEPT = Path(sys.prefix) / "npm"


def source_of(package: str, version: str, path: str) -> str:
    """The text of a file of a package; `make test` installs npm."""
    return (_folder_of(package, version, path) / path).read_text("utf-8")


def sources_of(package: str, version: str, path: str) -> dict[str, str]:
    """The texts of all scripts in a folder of a package, by their paths in it."""
    folder = _folder_of(package, version, path) / path
    return {str(one.relative_to(folder)): one.read_text("utf-8") for one in folder.glob("**/*.js")}


def _folder_of(package: str, version: str, path: str) -> Path:
    folder = _KEPT / f"{package.replace('/', '+')}@{version}"
    if not (folder / "package" / path).exists():
        npm = shutil.which("npm")
        if npm is None:
            raise AssertionError(
                f"found no npm, which brings {package}; install it: apt install npm"
            )
        _KEPT.mkdir(exist_ok=True)
        fetched = Path(mkdtemp(dir=_KEPT))
        done = subprocess.run(
            [npm, "pack", "--silent", f"{package}@{version}"], cwd=fetched, capture_output=True
        )
        archives = [*fetched.glob("*.tgz")]
        if done.returncode or not archives:
            raise AssertionError(f"npm could not bring {package}@{version}: {done.stderr.decode()}")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(fetched, filter="data")
        try:
            fetched.rename(folder)
        except OSError:  # another process was faster
            folder = fetched
    return folder / "package"
