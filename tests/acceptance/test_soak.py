"""A shop under a steady load while Meta flaps; `make soak` does it for ten minutes."""

import sys
from pathlib import Path

import pytest

from tests.torture.soak import soak


@pytest.mark.skipif(sys.platform != "linux", reason="/proc knows what a process takes")
def test_a_shop_under_load_loses_nothing_grows_nowhere_and_says_no_error(tmp_path: Path) -> None:
    soaked = soak(tmp_path, seconds=9, rate=40, looks=9)

    assert soaked.complaints(memory=False) == []
    assert soaked.accepted > 0
    assert soaked.delivered >= soaked.accepted - soaked.early
