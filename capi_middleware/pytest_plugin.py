"""The pytest plugin of users' tests. It imports what it needs only when a test asks for it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from capi_middleware.testing import Captured, FakeMeta


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
