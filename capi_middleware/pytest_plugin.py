"""The pytest plugin of users' tests. It imports what it needs only when a test asks for it."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from capi_middleware.testing import Captured, FakeMeta


def pytest_addoption(parser: pytest.Parser) -> None:
    """The setting `capi_delivery`."""
    parser.addini("capi_delivery", "let tests deliver events to Meta", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Tests, and the processes that they start, deliver to a fake Meta of this machine alone."""
    if not config.getini("capi_delivery"):
        os.environ.setdefault("CAPI_DELIVERY", "off")


def pytest_report_header(config: pytest.Config) -> str:
    """Whether events leave for Meta, said once."""
    is_off = os.environ.get("CAPI_DELIVERY") == "off"
    return f"capi_middleware: tests {'never post' if is_off else 'may post'} to Meta"


@pytest.fixture
def capi() -> "Iterator[Captured]":
    """What the app tracks in this test: `capi.events`, `capi.assert_tracked("Purchase", value=5)`.

    Nothing is stored or sent meanwhile, whichever Config the app has.
    """
    from capi_middleware.testing import capture

    with capture() as captured:
        yield captured


@pytest.fixture
def fake_meta() -> "Iterator[FakeMeta]":
    """A fake Meta on a port: Config(graph_url=fake_meta.url), then look at fake_meta.received."""
    from capi_middleware.testing import FakeMeta

    meta = FakeMeta()
    with meta.serve():
        yield meta
