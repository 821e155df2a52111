"""What all tests of the command line share."""

import pytest

from capi_middleware.cli.terminal import console


@pytest.fixture(autouse=True)
def _width_of_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """How wide a terminal is, each run says: not the COLUMNS of when rich was imported."""
    monkeypatch.setattr(console, "_width", None)
