"""Reading: one report from the store and the config, the same for page, data, metrics and CLI."""

from capi_middleware.config import Config
from capi_middleware.parity import coverage
from capi_middleware.parity.health import health_of
from capi_middleware.parity.model import Report
from capi_middleware.parity.window import Window
from capi_middleware.store.protocol import Store


def read_report(store: Store, config: Config, window: Window, *, delivering: bool = True) -> Report:
    """The report on `window`. Reads the store: may take long.

    `delivering` is False when a thread of this process that should deliver has ended. Raises
    StoreError when the store cannot be read.
    """
    store.flush(1.0)
    health = health_of(
        store.depth(),
        store.backlog(),
        store.pauses(),
        pixel_ids=[one.id for one in config.pixels],
        delivering=delivering,
    )
    return coverage.build(
        store.tallies(window.start, window.end),
        health=health,
        start=window.start,
        end=window.end,
        event=window.event,
        pixel=window.pixel,
    )
