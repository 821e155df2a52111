"""A process that watches flags: the shop of a test, in other processes and at other times."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from capi_middleware import Config
from capi_middleware.alerts.rules import Alert
from capi_middleware.alerts.watch import Alerting
from capi_middleware.shield import Shield
from capi_middleware.store.opening import open_store
from capi_middleware.store.store import Store
from tests.support.configs import make_config
from tests.support.stores import PIXEL, Clock, row, store_rows

#: Browser copies that no server copy covers: critical from the first evaluation on.
UNCOVERED = 100


def plant(store: Store, now: float) -> None:
    """Events of today that only the browser sent."""
    store_rows(
        store,
        *(
            row(f"e{n}", event_time=now - 60, payload=None, server="unmapped", browser="sent")
            for n in range(UNCOVERED)
        ),
    )


def watcher(config: Config, store: Store, clock: Clock) -> Alerting:
    """The alerting of one process whose couriers run."""
    return Alerting(config, store, Shield(store.count), lambda: True, clock)


def main(arguments: str) -> None:
    """Check `checks` times, `step` seconds apart on a clock of its own, with every other process.

    Each alert that the callback gets is a line of the file `told`.
    """
    given: dict[str, Any] = json.loads(arguments)
    told = os.open(given["told"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def on_alert(alert: Alert) -> None:
        os.write(told, f"{alert.kind} {alert.flag.code} {alert.id}\n".encode())

    config = make_config(store=given["store"], alert_webhook=given["webhook"], on_alert=on_alert)
    store = open_store(config.store, queue_limit=100)
    clock = Clock(given["now"])
    watching = watcher(config, store, clock)
    for _ in range(given["checks"]):
        sys.stdin.readline()
        watching.check()
        clock.now += given["step"]
        print("checked", flush=True)
    store.close()


def lines(path: Path) -> list[str]:
    """What the callbacks of all processes were told, by kind and code."""
    text = path.read_text() if path.exists() else ""
    return [line.rpartition(" ")[0] for line in text.splitlines()]


__all__ = ["PIXEL", "lines", "main", "plant", "watcher"]

if __name__ == "__main__":
    main(sys.argv[1])
