"""`make shape`: how far five trips travel through the package, and how big it is.

Counted with sys.setprofile through public names only, so the figures are the same on every machine.
"""

import asyncio
import json
import re
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import capi_middleware
from capi_middleware import CAPI, CAPIMiddleware, Config, EventRoute, Pixel, UserData, track
from capi_middleware.testing import FakeMeta

PACKAGE = Path(capi_middleware.__file__).parent
_HERE = f"{PACKAGE}/"

#: Most of each figure that there may be: now, with a margin; and what issue 17 wants in the end.
LIMITS: dict[str, tuple[int, int | None]] = {
    "mapped page: calls": (75, 75),
    "mapped page: files": (20, 20),
    "mapped page: moves": (40, 40),
    "page whose view calls track(): calls": (85, 85),
    "JSON answer without a route: calls": (6, 6),
    "beacon: calls": (51, None),
    "courier round of one event: calls": (206, None),
    # 17,359 when the house was done; what came after it brought its own, lately erasure, who is
    # internal, delivery before the answer, what strangers tell, four more consent banners, and the
    # whole event object with events beyond the page, delivery before an answer and match keys;
    # and doors that tell a newcomer which of them an app needs, and what compresses an app.
    # What became of held pages.
    "lines": (30_740, None),
    # A courier is two files: its thread, and its rounds; the banners of consent have one, too;
    # and when copies that stop are no chance.
    "files": (148, None),
    "modules at the root": (12, 12),
    # Queues of writers, the journal, salvage, several databases and the memory of orders came after
    # the house was done.
    "Python files in store": (15, None),
    "layers": (12, 12),
}

_HTML = (
    b"<!doctype html><html><head><meta charset=utf-8><title>x</title></head><body>"
    + b"<p>text</p>" * 900
    + b"</body></html>"
)
_HEADERS = [
    (b"host", b"shop.example"),
    (
        b"user-agent",
        b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        b"Chrome/140.0.0.0 Safari/537.36",
    ),
    (b"accept", b"text/html,application/xhtml+xml"),
    (b"cookie", b"_fbp=fb.1.1700000000000.123456789; session=abc"),
    (b"sec-fetch-dest", b"document"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-site", b"same-origin"),
]


class Trip(NamedTuple):
    """What of the package ran: `moves` from one file to another, `depth` in its own frames."""

    calls: int
    files: int
    moves: int
    depth: int


class _Watch:
    """Notes each call of a function of the package, by the thread that makes it."""

    def __init__(self) -> None:
        self.on = False
        self._seen: dict[int, list[tuple[str, int]]] = {}

    def __call__(self, frame: FrameType, kind: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if self.on and kind == "call" and file.startswith(_HERE):
            depth, up = 0, frame.f_back
            while up is not None:
                depth += up.f_code.co_filename.startswith(_HERE)
                up = up.f_back
            self._seen.setdefault(threading.get_ident(), []).append((file, depth))

    @contextmanager
    def watching(self) -> Iterator[None]:
        self._seen.clear()
        self.on = True
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            self.on = False

    def trip(self, through: str = "") -> Trip:
        """The trip of the calling thread, or of the one that came `through` a folder."""
        seen = self._seen.get(threading.get_ident(), [])
        if through:
            ways = self._seen.values()
            folder = f"{_HERE}{through}/"
            seen = max(ways, key=lambda way: sum(file.startswith(folder) for file, _ in way))
        files = [file for file, _ in seen]
        moves = sum(one != other for one, other in zip(["", *files], files, strict=False))
        return Trip(len(seen), len(set(files)), moves, max((d for _, d in seen), default=0))


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"].startswith("/tracked"):
        track("Lead", value=3, currency="EUR")
    is_json = scope["path"].startswith("/api")
    body = b"{}" if is_json else _HTML
    kind = b"application/json" if is_json else b"text/html; charset=utf-8"
    length = b"%d" % len(body)
    headers = [(b"content-type", kind), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _config(folder: str, **more: Any) -> Config:
    return Config(
        secret_key="a-secret-for-shapes-of-more-than-32-characters",
        pixels=[Pixel("1234567890", access_token="token")],
        store=f"sqlite:///{folder}/capi.db",
        routes=[
            EventRoute(
                "GET /products/{sku}",
                "ViewContent",
                custom_data={"content_ids": ["{path.sku}"], "content_type": "product"},
            )
        ],
        **more,
    )


def _requests(loop: asyncio.AbstractEventLoop, capi: CAPI) -> Callable[..., bytes]:
    """A function that sends a request through the ASGI door; it returns the answer's body."""
    wrapped = CAPIMiddleware(_app, capi)

    def request(path: str, body: bytes = b"") -> bytes:
        out: list[bytes] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            out.append(message.get("body", b""))

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1",
            "method": "POST" if body else "GET", "path": path, "raw_path": path.encode(),
            "query_string": b"", "headers": list(_HEADERS), "scheme": "https",
            "client": ("93.184.216.34", 1), "root_path": "", "state": {},
        }  # fmt: skip
        loop.run_until_complete(wrapped(scope, receive, send))
        return b"".join(out)

    return request


def trips() -> dict[str, Trip]:
    """The five trips, each when everything is warm."""
    watch = _Watch()
    found: dict[str, Trip] = {}
    with tempfile.TemporaryDirectory() as folder:
        loop = asyncio.new_event_loop()
        capi = CAPI(_config(folder, delivery=False))
        request = _requests(loop, capi)
        for name, path in (
            ("mapped page", "/products/s{}"),
            ("page with PageView alone", "/about/{}"),
            ("page whose view calls track()", "/tracked/{}"),
            ("JSON answer without a route", "/api/{}"),
        ):
            for n in range(5):
                page = request(path.format(n))
            if name == "mapped page":
                block = re.search(rb"data-c>(.*?)</script>", page)
                assert block is not None
                pages = [json.loads(block[1])["e"]]
            ways = []
            for n in range(5, 17):
                with watch.watching():
                    request(path.format(n))
                ways.append(watch.trip())
            found[name] = min(ways)  # a look after a slow commit is no part of the way
        events = [[one["i"], one["n"], one["p"][0], "sent"] for one in pages[0]]
        ways = []
        for outcome in ("left_early", "script_blocked", "sent") * 3:
            told = [[*one[:3], outcome] for one in events]
            with watch.watching():
                request("/_capi/b", json.dumps({"e": told}).encode())
            ways.append(watch.trip())
        found["beacon"] = min(ways[1:])
        capi.close()
        loop.close()
    found["courier round of one event"] = _round(watch)
    return found


def _round(watch: _Watch) -> Trip:
    meta = FakeMeta()
    # Python 3.11 cannot set the profile of a thread that runs: new ones take it along.
    threading.setprofile(watch)
    try:
        with tempfile.TemporaryDirectory() as folder, meta.serve():
            capi = CAPI(_config(folder, graph_url=meta.url, durability="all"))
            ways = []
            for n in range(8):
                with watch.watching():
                    known = UserData(external_id=str(n))
                    capi.track("Lead", user_data=known, action_source="other")
                    assert capi.flush(10)
                    time.sleep(0.1)  # until the courier knows that there is no more
                ways.append(watch.trip(through="delivery"))
            assert len(meta.received.server) == 8
            capi.close()
    finally:
        threading.setprofile(None)
    return min(ways[2:])  # under load it looks about more often


def size() -> dict[str, int]:
    """How much there is of the package, and in how many layers its imports go."""
    files = [path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts]
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    return {
        "lines": sum(len(path.read_text().splitlines()) for path in files),
        "files": len(files),
        "modules at the root": sum(path.parent == PACKAGE for path in files),
        "Python files in store": sum(path.parent.name == "store" for path in files),
        "layers": next(len(one["layers"]) for one in contracts if one["type"] == "layers"),
    }


def figures() -> dict[str, int]:
    """Every figure by its name: "trip: what" for the trips."""
    found = {
        f"{name}: {what}": number
        for name, trip in trips().items()
        for what, number in trip._asdict().items()
    }
    return found | size()


def main() -> None:
    found = figures()
    for name in found:
        trip, _, what = name.partition(": ")
        if what == "calls":
            told = (f"{found[f'{trip}: {one}']:4} {one}" for one in Trip._fields)
            print(f"{trip:34}", " ".join(told))
        elif not what:
            print(f"{name:34} {found[name]:7,}")
    print("\nlimits, and what they shall be:")
    for name, (limit, goal) in LIMITS.items():
        over = "" if found[name] <= limit else "  TOO MUCH"
        wanted = "" if goal is None else f"{goal:,}"
        print(f"{name:40} {found[name]:7,} {limit:7,} {wanted:>7}{over}")


if __name__ == "__main__":
    main()
