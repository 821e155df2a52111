"""What tests of Meta's own view share: a fake Meta on a port, and a look at it."""

from collections.abc import Iterable, Sequence
from typing import Any

from capi_middleware import Config, Pixel
from capi_middleware.insights.model import Insights
from capi_middleware.store.records import Slice
from tests.support.configs import PIXEL_ID, TOKEN, make_config

READ = "read-token-of-the-tests"


class Shelf:
    """The part of a store that Meta's view needs: what is kept, and counts by hour."""

    def __init__(self, slices: Sequence[Slice] = ()) -> None:
        self.bodies: dict[str, bytes] = {}
        self._slices = slices

    def kept(self, name: str) -> bytes | None:
        return self.bodies.get(name)

    def keep(self, name: str, body: bytes, *, instead_of: bytes | None) -> bool:
        if self.bodies.get(name) != instead_of:
            return False
        self.bodies[name] = body
        return True

    def slices(self, facet: str, start: float, end: float) -> Iterable[Slice]:
        assert facet == "hour"
        return [one for one in self._slices if start <= int(one.value) < end]


def reading_config(meta: str, **settings: Any) -> Config:
    """One pixel with a read token, and an ad account, at the fake Meta."""
    pixel = Pixel(PIXEL_ID, access_token=TOKEN, read_token=READ)
    return make_config(**{"pixels": [pixel], "graph_url": meta, "ad_account": "7", **settings})


def slice_of(hour: int, name: str, server: str, browser: str, n: int) -> Slice:
    return Slice(str(hour), PIXEL_ID, name, server, browser, n)


def insights_of(*pixels: Any, **fields: Any) -> Insights:
    given: dict[str, Any] = {"fetched_at": "2026-06-08T00:00:00Z", **fields}
    return Insights(pixels=list(pixels), **given)
