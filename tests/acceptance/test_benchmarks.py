"""`make bench` runs: every row of the table, each for a moment."""

import subprocess
import sys

import pytest

from tests.benchmarks import revision
from tests.benchmarks.__main__ import GROUPS
from tests.support.processes import ROOT


@pytest.mark.timeout(300)
def test_every_row_of_the_table_can_be_measured() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--smoke"], cwd=ROOT, text=True, timeout=290,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) >= 2 + 3 * len(GROUPS)


@pytest.mark.timeout(120)
def test_another_revision_can_be_measured_beside_this_tree() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--smoke", "--against", "HEAD"],
        cwd=ROOT, text=True, timeout=110, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) >= 1 + len(revision.NAMES)
