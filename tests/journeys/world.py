"""A shop whose processes, store and Meta live by one clock that tests move."""

import json
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from capi_middleware import CAPI, CAPIMiddleware, EventRoute, UserData
from capi_middleware.store.records import Settlement
from capi_middleware.testing import FakeMeta
from capi_middleware.testing.received import ServerEvent
from tests.support.configs import PIXEL_ID, make_config

HOUR = 3600.0
ORDER = "1001"
THANKS = f"/orders/{ORDER}/thanks"
MONEY = {"value": "9.5", "currency": "EUR"}
ROUTES = [
    EventRoute("GET /orders/{id}/thanks", "Purchase", dedupe_key="{path.id}", custom_data=MONEY)
]
#: Each rotation puts one more of them before the others.
SECRETS = [f"secret-{n}-of-a-shop-that-rotates-its-secrets" for n in range(9)]


class World:
    """One store, the processes on it, and the Meta that their copies come to.

    `now` is Unix time in seconds for all of them. The last of `processes` has the newest secrets.
    """

    def __init__(self, meta: FakeMeta, now: float, **settings: Any) -> None:
        self.meta = meta
        self.now = now
        self.cache = "no-store"
        self._settings = settings
        self.processes: list[CAPI] = []
        self.apps: list[CAPIMiddleware] = []
        self.deploy()

    def deploy(self, rotations: int = 0) -> None:
        """Start one more process, with so many newer secrets than the last one."""
        n = rotations + (len(self.processes[-1].config.secrets) if self.processes else 1)
        secrets: Sequence[str] = list(reversed(SECRETS[:n]))
        capi = CAPI(make_config(secret_key=secrets, routes=ROUTES, **self._settings))
        capi.issuer.clock = lambda: self.now
        capi.store._engine.recall_seconds = 30.0  # a busy machine is no slow store
        self.processes.append(capi)
        app = Starlette(routes=[Route("/{path:path}", self._page)])
        self.apps.append(CAPIMiddleware(app, capi))

    async def _page(self, request: Request) -> Response:
        text = f"<!doctype html><html><head><title>{request.url.path}</title></head></html>"
        return HTMLResponse(text, headers={"cache-control": self.cache})

    def webhook(self, process: int = -1) -> None:
        """The payment provider says that the order was paid."""
        self.processes[process].track(
            "Purchase", dedupe_key=ORDER, user_data=UserData(em="jane@example.com"),
            value=MONEY["value"], currency=MONEY["currency"],
        )  # fmt: skip

    def deliver(self) -> None:
        """What waits in the store comes to Meta now."""
        store = self.processes[-1].store
        while (lease := store.lease(PIXEL_ID, limit=100, seconds=60)).events:
            self.meta.received.server += [
                ServerEvent(PIXEL_ID, json.loads(one.payload), self.now) for one in lease.events
            ]
            store.settle(lease.lease_id, [Settlement(one.key, "delivered") for one in lease.events])

    def prune(self) -> None:
        """All rows that are settled leave the store."""
        self.deliver()
        self.processes[-1].store.prune(1e12)

    def counted(self) -> int:
        """How many Purchases Meta counts."""
        return [one.key[1] for one in self.meta.received.counted()].count("Purchase")

    def copies(self) -> tuple[int, int]:
        """(server copies, browser copies) of Purchases at Meta."""
        received = self.meta.received
        names = [one.key[1] for one in received.server], [one.ev for one in received.browser]
        return names[0].count("Purchase"), names[1].count("Purchase")

    def close(self) -> None:
        for capi in self.processes:
            capi.close()
