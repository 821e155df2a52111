"""Running: the fake Meta in a process of its own, the shop in this one."""

import asyncio
import contextlib
import json
import secrets
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator
from http.cookies import SimpleCookie
from os import environ

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from capi_middleware import CAPI, CAPIMiddleware
from demo.faults import spoiled_config, spoiled_routes
from demo.shop import TOKEN, settings


def check_free(port: int, what: str, variable: str) -> None:
    """Exit naming another port of 127.0.0.1 where something answers on this one already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            sys.exit(
                f"found 127.0.0.1:{port} in use ({error.strerror}), expected it free for {what}: "
                f"end what uses it, or make demo {variable}={port + 10}"
            )


@contextlib.asynccontextmanager
async def fake_meta(port: int) -> AsyncIterator[str]:
    """A fake Meta on 127.0.0.1:`port`; yields its address. Exits when it does not start."""
    process = subprocess.Popen(  # noqa: ASYNC220 - starting takes no time
        [sys.executable, "-m", "demo.meta", str(port)], stdin=subprocess.PIPE
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(timeout=2) as client:
            for _ in range(400):
                with contextlib.suppress(httpx.HTTPError):
                    await client.get(f"{url}/received")
                    break
                if process.poll() is not None:
                    sys.exit(f"the fake Meta ended with {process.returncode}")
                await asyncio.sleep(0.05)
            else:
                sys.exit(f"found no answer from {url} within 20 seconds")
        yield url
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 10)


class Proxy:
    """Stands before the shop: names each visitor's own address, and hears what the pixels told."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        #: The event_ids that the pages of a visitor told of, by the visitor's number.
        self.told: defaultdict[str, set[str]] = defaultdict(set)
        #: Set, and replaced by another one, whenever somebody told something.
        self.heard_more = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        cookie = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
        name = cookie["visitor"].value if "visitor" in cookie else ""
        if scope["type"] != "http" or not name.isdecimal():
            await self.app(scope, receive, send)
            return
        number = int(name)
        # 198.18.0.0/15 is for tests between networks: nobody's, and public like a visitor's.
        address = f"198.18.{number // 250}.{number % 250 + 1}".encode()
        scope = {**scope, "headers": [*scope["headers"], (b"x-forwarded-for", address)]}
        body = bytearray()

        async def heard() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        await self.app(scope, heard, send)
        if scope["path"] == "/_capi/b":
            self.told[name] |= {word[0] for word in json.loads(bytes(body))["e"]}
            heard_more, self.heard_more = self.heard_more, asyncio.Event()
            heard_more.set()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ctrl-C ends the demo, and the demo its server."""
        yield


class Shop:
    """The shop with these `faults` on 127.0.0.1:`port`; `meta` and `store` are addresses."""

    def __init__(self, faults: Collection[str], meta: str, store: str, port: int) -> None:
        self._faults, self._meta, self._store, self._port = faults, meta, store, port
        self._secret = environ.get("CAPI_SECRET_KEY") or secrets.token_urlsafe(32)
        self.url = f"http://127.0.0.1:{port}"
        self.proxy = Proxy(Starlette())
        self.capi: CAPI

    async def start(self, access_token: str = TOKEN) -> None:
        """Serve from now on, until stop()."""
        config = settings(self._meta, self._store, self._secret, access_token)
        self.capi = CAPI(spoiled_config(config, self._faults))
        self.proxy.app = CAPIMiddleware(Starlette(routes=spoiled_routes(self._faults)), self.capi)
        self._server = _Server(
            uvicorn.Config(self.proxy, host="127.0.0.1", port=self._port, log_level="warning")
        )
        self._serving = asyncio.create_task(self._server.serve())
        while not self._server.started:
            if self._serving.done():
                sys.exit("the shop did not start")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """End it, after what it is doing."""
        self._server.should_exit = True
        await self._serving
