"""The site that real servers serve in a served round, and what runs beside them.

`python -m tests.torture.shop deliver` drains, `… prune` makes old events and prunes them, both
until killed. STORE and GRAPH name the store and Meta.
"""

import logging
import os
import sys
import time
from collections.abc import Iterable, MutableMapping
from typing import Any

from capi_middleware import CAPI, CAPIMiddleware, EventRoute, wsgi
from capi_middleware.cli import main as command
from capi_middleware.delivery import courier as worker
from capi_middleware.events import Row
from tests.support.configs import PIXEL_ID, make_config

logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s %(message)s")
worker.LEASE_SECONDS = 1.0  # as in victim.py
worker.POLL_SECONDS = 0.2

PAGE = b"<!doctype html><html><head><title>x</title></head><body>thanks</body></html>"
_LINES = [("Content-Type", "text/html"), ("Content-Length", str(len(PAGE)))]
#: Old events that are pruned at once.
_OLD = 500

capi = CAPI(
    make_config(
        store=os.environ.get("STORE", "memory:"),
        graph_url=os.environ.get("GRAPH", "http://127.0.0.1:1"),
        delivery=sys.argv[-1] == "deliver",
        page_view=False,
        routes=[
            EventRoute(
                "GET /thanks/{key}", "Purchase", dedupe_key="{path.key}",
                custom_data={"value": 1, "currency": "EUR"},
            )
        ],
    )
)  # fmt: skip


def _wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", _LINES)
    return [PAGE]


async def _asgi_app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    headers = [(name.lower().encode(), value.encode()) for name, value in _LINES]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": PAGE})


wsgi_app = wsgi.CAPIMiddleware(_wsgi_app, capi)
asgi_app = CAPIMiddleware(_asgi_app, capi)


def prune() -> None:
    """Make old events and prune them, until killed."""
    while True:
        old = time.time() - 40 * 86_400
        capi.store.append(
            [
                Row(f"old-{old}-{n}", "Lead", PIXEL_ID, old, None, "delivered", page=f"/{n % 99}")
                for n in range(_OLD)
            ],
            wait=False,
        )
        capi.store.flush(10)
        capi.store.prune(time.time() - 35 * 86_400)


if __name__ == "__main__":
    if sys.argv[1] == "prune":
        prune()
    command(["--config", "tests.torture.shop:capi", "deliver"])
