"""Running: the fake Meta in a process of its own, the shop in this one."""

import asyncio
import contextlib
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Collection, Iterator
from os import environ

import httpx
import uvicorn
from starlette.applications import Starlette

from capi_middleware import CAPI, CAPIMiddleware
from demo.faults import spoiled_config, spoiled_routes
from demo.shop import TOKEN, settings
from demo.visitors import Proxy


@contextlib.asynccontextmanager
async def fake_meta(port: int) -> AsyncIterator[str]:
    """A fake Meta on 127.0.0.1:`port`; yields its address. Exits when it does not start."""
    process = subprocess.Popen(  # noqa: ASYNC220 - starting takes no time
        [sys.executable, "-m", "uvicorn", "--factory", "capi_middleware.testing:create_app",
         "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"],
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(timeout=2) as client:
            for _ in range(400):
                with contextlib.suppress(httpx.HTTPError):
                    await client.get(f"{url}/received")
                    break
                if process.poll() is not None:
                    sys.exit("the fake Meta did not start: is its port taken? See --meta-port")
                await asyncio.sleep(0.05)
            else:
                sys.exit(f"found no answer from {url} within 20 seconds")
        yield url
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 10)


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
        """Serve from now on, until stop(). Exits when the port is taken."""
        config = settings(self._meta, self._store, self._secret, access_token)
        self.capi = CAPI(spoiled_config(config, self._faults))
        self.proxy.app = CAPIMiddleware(Starlette(routes=spoiled_routes(self._faults)), self.capi)
        self._server = _Server(
            uvicorn.Config(self.proxy, host="127.0.0.1", port=self._port, log_level="warning")
        )
        self._serving = asyncio.create_task(self._server.serve())
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
                sys.exit("the shop did not start: is its port taken? See --port")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """End it, after what it is doing."""
        self._server.should_exit = True
        await self._serving
