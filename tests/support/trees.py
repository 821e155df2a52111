"""Trees: the package as another revision has it, beside this one."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

#: Of the project, with the package that is worked on.
ROOT = Path(__file__).parents[2]


def tree_of(revision: str) -> Path:
    """The folder with the package of a git `revision`; made once, under build/."""
    name = _git("rev-parse", "--verify", "--short=12", f"{revision}^{{commit}}").decode().strip()
    folder = ROOT / "build" / "trees" / name
    if not (folder / "capi_middleware" / "__init__.py").exists():
        archive = _git("archive", "--format=tar", name, "capi_middleware")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
    return folder


def environment(tree: Path) -> dict[str, str]:
    """For a process that uses the package of this tree, whichever is installed."""
    return {**os.environ, "PYTHONPATH": str(tree), "PYTHONHASHSEED": "0", "TZ": "UTC"}


def run(tree: Path, *arguments: str, timeout: float = 600) -> None:
    """A Python process that uses the package of `tree`. Raises when it fails."""
    subprocess.run(
        [sys.executable, "-P", *arguments],
        env=environment(tree), cwd=tree, check=True, timeout=timeout,
    )  # fmt: skip


def _git(*arguments: str) -> bytes:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], check=True, stdout=subprocess.PIPE
    ).stdout
