"""`python side.py`: one side of a comparison of revisions, in a process of its own.

It uses the capi_middleware of PYTHONPATH through public names only, so that it runs on older ones.
Each line of standard input is [work, share, {settings}]; the answer is one figure on a line.
"""

import asyncio
import gc
import json
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import capi_middleware.wsgi
from capi_middleware import CAPI, CAPIMiddleware, Config, EventRoute, Pixel, track

_PAGE = (
    b"<!doctype html><html><head><meta charset=utf-8><title>A kettle</title></head><body>"
    + b"<p>A good kettle for good tea.</p>" * 310
    + b"</body></html>"
)
_BROWSER = {
    "host": "shop.example.com",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/142.0.0.0 Safari/537.36",
    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "accept-language": "en-GB,en;q=0.9",
    "cookie": "_fbp=fb.1.1700000000000.1234567890; session=0123456789abcdef",
    "referer": "https://shop.example.com/",
    "sec-fetch-dest": "document",
    "sec-fetch-mode": "navigate",
    "sec-fetch-site": "same-origin",
}
_HEADERS = [(name.encode(), value.encode()) for name, value in _BROWSER.items()]
_REQUESTS = 300
_AT_ONCE = 32
App = Callable[[Any, Any, Any], Awaitable[None]]


async def _app(scope: Any, receive: Any, send: Any) -> None:
    path = scope["path"]
    if path == "/tracked":
        track("Lead", value=3, currency="EUR")
    body, kind = (b"{}", b"application/json") if path == "/other" else (_PAGE, b"text/html")
    if "wait" in scope["state"]:
        await asyncio.sleep(0)
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _wsgi_app(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("content-type", "text/html"), ("content-length", str(len(_PAGE)))])
    return [_PAGE]


class Side:
    """One revision: what one piece of work takes in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._made: dict[str, CAPI] = {}

    def _capi(self, **settings: Any) -> CAPI:
        name = json.dumps(settings, sort_keys=True)
        if name not in self._made:
            routes = [
                EventRoute(f"GET /shop{n}/products/{{sku}}", "ViewContent", custom_data={"n": n})
                for n in range(19)
            ]
            first = EventRoute(
                "GET /matched", "ViewContent", custom_data={"content_name": "Kettle"}
            )
            given: dict[str, Any] = {"delivery": False, "durability": "none", **settings}
            self._made[name] = CAPI(
                Config(
                    secret_key="a-secret-for-benchmarks-of-32-characters",
                    pixels=[Pixel("1234567890", access_token="token")],
                    routes=[first, *routes],
                    store=f"sqlite:///{self._folder}/{len(self._made)}.db",
                    **given,
                )
            )
        return self._made[name]

    def _scope(self, path: str, **more: Any) -> dict[str, Any]:
        return {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
            "scheme": "https", "path": path, "raw_path": path.encode(), "root_path": "",
            "query_string": b"", "client": ("203.0.113.9", 50000), "server": ("127.0.0.1", 8000),
            "headers": list(_HEADERS), "state": {}, **more,
        }  # fmt: skip

    def asgi(self, share: float, path: str, bare: bool = False, **settings: Any) -> float:
        """CPU seconds of the thread for one request."""
        app: App = _app if bare else CAPIMiddleware(_app, self._capi(**settings))

        async def many(amount: int) -> float:
            start = time.thread_time()
            for _ in range(amount):
                await app(self._scope(path), _receive, _send)
            return (time.thread_time() - start) / amount

        return self._loop.run_until_complete(many(max(1, int(_REQUESTS * share))))

    def wsgi(self, share: float, path: str, bare: bool = False) -> float:
        """The same through the WSGI door."""
        app: Any = _wsgi_app
        if not bare:
            app = capi_middleware.wsgi.CAPIMiddleware(_wsgi_app, self._capi())
        environ = {
            "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "",
            "SERVER_NAME": "shop.example.com", "SERVER_PORT": "443", "REMOTE_ADDR": "203.0.113.9",
            "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "https", "wsgi.input": None,
            **{"HTTP_" + name.upper().replace("-", "_"): one for name, one in _BROWSER.items()},
        }  # fmt: skip
        amount = max(1, int(_REQUESTS * share))
        start = time.thread_time()
        for _ in range(amount):
            body = app(dict(environ), _start_response)
            b"".join(body)
            close = getattr(body, "close", None)
            if close is not None:
                close()
        return (time.thread_time() - start) / amount

    def beacon(self, share: float) -> float:
        """CPU seconds of the thread for one beacon that says something new."""
        app = CAPIMiddleware(_app, self._capi())
        amount = max(1, int(_REQUESTS * share))
        bodies = self._loop.run_until_complete(self._beacons(app, amount))

        async def many() -> float:
            start = time.thread_time()
            for n, body in enumerate(bodies):
                # A visitor may send only so many.
                scope = self._scope("/_capi/b", method="POST", client=(f"203.0.{n % 250}.9", 1))
                await app(scope, _receiving(body), _send)
            return (time.thread_time() - start) / amount

        return self._loop.run_until_complete(many())

    async def _beacons(self, app: App, amount: int) -> list[bytes]:
        bodies = []
        for _ in range(amount):
            out: list[bytes] = []

            async def send(message: Any, out: list[bytes] = out) -> None:
                out.append(message.get("body", b""))

            await app(self._scope("/matched"), _receive, send)
            found = re.search(rb"data-c>(.*?)</script>", b"".join(out))
            assert found is not None
            events = json.loads(found[1])["e"]
            said = [[one["i"], one["n"], one["p"][0], "sent"] for one in events]
            bodies.append(json.dumps({"e": said}).encode())
        return bodies

    def collections(self, share: float, generation: int) -> float:
        """Garbage collections of a generation (0: young, 2: full) for 1,000 pages, 32 at once."""
        app = CAPIMiddleware(_app, self._capi(durability="conversions"))

        async def one(amount: int) -> None:
            for _ in range(amount):
                await app(self._scope("/matched", state={"wait": 1}), _receive, _send)

        async def many(amount: int) -> None:
            await asyncio.gather(*(one(amount) for _ in range(_AT_ONCE)))

        amount = max(1, int(320 * share))
        self._loop.run_until_complete(many(2))
        gc.collect()
        before = gc.get_stats()[generation]["collections"]
        self._loop.run_until_complete(many(amount))
        after = gc.get_stats()[generation]["collections"]
        return float(after - before) * 1000 / (amount * _AT_ONCE)

    def price(
        self, share: float, rate: float, seconds: float, url: str, bare: bool = False
    ) -> float:
        """CPU seconds of the whole process for one event, from its request until it is settled.

        `rate` events a second, a PageView and a ViewContent a page, for `seconds`.
        """
        app: App = _app
        if not bare:
            capi = self._capi(delivery=True, durability="conversions", graph_url=url)
            app = CAPIMiddleware(_app, capi)
        pages = max(1, int(rate / 2 * seconds * share))

        async def visits() -> None:
            begin, tasks = time.monotonic(), set()
            for n in range(pages):
                await asyncio.sleep(max(0.0, begin + n * 2 / rate - time.monotonic()))
                task = asyncio.ensure_future(app(self._scope("/matched"), _receive, _send))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)

        start = time.process_time()
        self._loop.run_until_complete(visits())
        if not bare:
            assert capi.flush(60), "events are not settled after a minute"
        return (time.process_time() - start) / (2 * pages)

    def close(self) -> None:
        for capi in self._made.values():
            capi.close()
        self._loop.close()


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def _receiving(body: bytes) -> Callable[[], Awaitable[dict[str, Any]]]:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _send(message: Any) -> None:
    pass


def _start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
    return None


def main() -> None:
    """Answer until standard input ends."""
    with tempfile.TemporaryDirectory() as folder:
        side = Side(Path(folder))
        for line in sys.stdin:
            work, share, settings = json.loads(line)
            print(getattr(side, work)(share, **settings), flush=True)
        side.close()


if __name__ == "__main__":
    main()
