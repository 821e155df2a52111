"""Drives exchanges through the capi_middleware that PYTHONPATH names; writes what came of them.

It stands alone and knows public names only: it runs on revisions that are older than itself.
"""

import asyncio
import base64
import io
import json
import logging
import random
import re
import sqlite3
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import closing
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch

Message = MutableMapping[str, Any]
#: Unix time of exchange 0; each exchange happens a second after the one before.
BEGIN = 1_790_000_000


class Clock:
    """The time of the whole process: it stands still while an exchange lasts."""

    now = float(BEGIN)

    def time(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return int(self.now * 1_000_000_000)


CLOCK = Clock()
# Before the package is imported: it takes time.time as the default of its clocks.
patch.object(time, "time", CLOCK.time).start()
patch.object(time, "time_ns", CLOCK.time_ns).start()

import capi_middleware.wsgi  # noqa: E402
from capi_middleware import (  # noqa: E402
    CAPI,
    CAPIMiddleware,
    Config,
    EventRoute,
    Pixel,
    UserData,
    Visitor,
    current_visitor,
    track,
)

_BLOCK = re.compile(r'<script type="application/json" data-c>(.*?)</script>', re.DOTALL)


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock moves only when an app says so: no timer depends on the machine."""

    moved = 1000.0

    def time(self) -> float:
        return self.moved


# -- what the configurations call --------------------------------------------------------------


def _person(request: Any) -> UserData | None:
    mail = request.cookies.get("mail")
    return UserData(em=mail, external_id=request.cookies.get("id")) if mail else None


async def _person_later(request: Any) -> UserData | None:
    await asyncio.sleep(0)
    return _person(request)


def _mapping(request: Any) -> dict[str, Any]:
    return {"em": request.cookies.get("mail"), "nonsense": 1}


def _fails(request: Any) -> Any:
    raise LookupError("the host's own mistake")


def _agreed(request: Any) -> Any:
    answer = request.cookies.get("agreed", "")
    if answer.startswith("limited"):
        return ("limited", *(answer.split("-")[1:] or ["US", "CA"]))
    return {"yes": True, "no": False}.get(answer, answer)


async def _agreed_later(request: Any) -> Any:
    await asyncio.sleep(0)
    return _agreed(request)


def _query_x(request: Any) -> Any:
    return request.query_params.get("x")


CALLABLES: dict[str, Callable[[Any], Any]] = {
    "person": _person,
    "person_later": _person_later,
    "mapping": _mapping,
    "fails": _fails,
    "agreed": _agreed,
    "agreed_later": _agreed_later,
    "query_x": _query_x,
}


def _resolved(given: Any) -> Any:
    """Plain data with {"call": name} and {"decimal": text} made what they stand for."""
    if isinstance(given, dict):
        if "call" in given:
            return CALLABLES[given["call"]]
        if "decimal" in given:
            return Decimal(given["decimal"])
        if "float" in given:
            return float(given["float"])
        return {key: _resolved(value) for key, value in given.items()}
    return [_resolved(one) for one in given] if isinstance(given, list) else given


# -- the host's apps -----------------------------------------------------------------------------


class Plan:
    """What the host's app does in one exchange, and what it saw."""

    def __init__(self, exchange: dict[str, Any], capi: CAPI) -> None:
        self.steps: list[list[Any]] = exchange["app"]
        self.mode: str = exchange.get("mode", "list")
        self.capi = capi
        self.saw: list[Any] = []

    def do(self, step: list[Any]) -> None:
        """A step that no interface matters to."""
        kind, *given = step
        if kind == "track":
            self.saw.append(self._tracked(track, given[0]))
        elif kind == "job":
            told = dict(given[0])
            if told.pop("visitor", False):
                told["visitor"] = Visitor.loads(current_visitor().dumps())
            if "ago" in told:
                told["event_time"] = CLOCK.now - told.pop("ago")
            self.saw.append(self._tracked(self.capi.track, told))
        elif kind == "visitor":
            try:
                visitor = current_visitor()
                self.saw.append(["visitor", visitor.consent, visitor.dumps()])
            except Exception as error:
                self.saw.append(_error(error))
        elif kind == "raise":
            raise {"value": ValueError, "exit": SystemExit, "os": OSError}[given[0]]("of the app")
        else:
            raise AssertionError(f"an unknown step {kind}")

    def _tracked(self, how: Callable[..., Any], given: dict[str, Any]) -> Any:
        told = _resolved(given)
        name = told.pop("event_name")
        if "user_data" in told:
            told["user_data"] = UserData(**told["user_data"])
        try:
            event = how(name, **told)
        except Exception as error:
            return _error(error)
        return ["tracked", event.event_name, event.event_id, list(event.pixel_ids), event.send,
                repr(sorted(event.custom_data.items())), sorted(event.user_data)]  # fmt: skip


def _error(error: BaseException) -> list[str]:
    return ["error", type(error).__name__, str(error)]


def _raw(pairs: list[list[str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


def _chunk(text: str) -> bytes:
    return base64.b64decode(text)


async def _asgi_app(plan: Plan, scope: Any, receive: Any, send: Any, loop: Loop) -> None:
    plan.saw.append(["scope", scope["path"], scope.get("root_path", ""), len(scope["headers"])])
    for step in plan.steps:
        kind, *given = step
        if kind == "read":
            body = b""
            while True:
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
            plan.saw.append(["read", len(body), hash_of(body)])
        elif kind == "start":
            headers: Any = _raw(given[1])
            start = {"type": "http.response.start", "status": given[0], "headers": headers}
            if plan.mode == "generator":
                start["headers"] = (pair for pair in headers)
            await send(start)
        elif kind == "body":
            message = {"type": "http.response.body", "body": _chunk(given[0])}
            await send(message | ({"more_body": True} if given[1] else {}))
        elif kind == "sleep":
            loop.moved += given[0]
            for _ in range(4):
                await asyncio.sleep(0)
        elif kind == "send":
            await send(given[0] | {"headers": []} if "hint" in given[0]["type"] else given[0])
        elif kind == "thread":
            await asyncio.to_thread(plan.do, given[0])
        elif kind != "write":
            plan.do(step)


def _wsgi_body(plan: Plan, environ: Any, start_response: Any) -> Iterator[bytes | None]:
    """The chunks; None right after start_response."""
    write: Any = None
    for step in plan.steps:
        kind, *given = step
        if kind == "read":
            body = environ["wsgi.input"].read()
            plan.saw.append(["read", len(body), hash_of(body)])
        elif kind == "start":
            pairs = [(name, value) for name, value in given[1]]
            try:
                if len(given) > 2:
                    raise ValueError("of the app")
            except ValueError:
                write = start_response(f"{given[0]} Told", pairs, sys.exc_info())
            else:
                write = start_response(f"{given[0]} Told", pairs)
            yield None
        elif kind == "write":
            write(_chunk(given[0]))
        elif kind == "body":
            yield _chunk(given[0])
        elif kind == "thread":
            plan.do(given[0])
        elif kind not in ("sleep", "send"):
            plan.do(step)


class FileWrapper:
    """A server's file_wrapper."""

    def __init__(self, file: io.BytesIO, size: int = 8192) -> None:
        self._file, self._size = file, size

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._file.read(self._size):
            yield chunk


class _Closing:
    """An iterable with close(), as frameworks return it."""

    def __init__(self, chunks: Iterator[bytes | None], plan: Plan) -> None:
        self._chunks, self._plan = chunks, plan

    def __iter__(self) -> Iterator[bytes]:
        return (chunk for chunk in self._chunks if chunk is not None)

    def close(self) -> None:
        self._plan.saw.append(["closed"])


def _wsgi_result(plan: Plan, environ: Any, start_response: Any) -> Any:
    plan.saw.append(["environ", environ["PATH_INFO"], environ["SCRIPT_NAME"]])
    chunks = _wsgi_body(plan, environ, start_response)
    if plan.mode == "generator":
        return (chunk for chunk in chunks if chunk is not None)
    if plan.mode == "early":
        next(chunks)
        return _Closing(chunks, plan)
    told = [chunk for chunk in chunks if chunk is not None]
    if plan.mode == "file":
        return environ["wsgi.file_wrapper"](io.BytesIO(b"".join(told)))
    return tuple(told) if plan.mode == "tuple" else told


def hash_of(body: bytes) -> int:
    """A number that tells bodies apart."""
    import zlib

    return zlib.crc32(body)


# -- a Meta that takes everything ------------------------------------------------------------------


class Graph(ThreadingHTTPServer):
    """Takes every event and keeps it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.took: list[Any] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Taking(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        events = json.loads(body)["data"]
        assert isinstance(self.server, Graph)
        self.server.took += [[self.path.split("?")[0], event] for event in events]
        answer = json.dumps({"events_received": len(events), "fbtrace_id": "A"}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *given: Any) -> None:
        pass


# -- the two doors ---------------------------------------------------------------------------------


class Site:
    """One configuration behind one door, with a store of its own."""

    def __init__(self, name: str, settings: dict[str, Any], door: str, folder: Path) -> None:
        self.name, self.door = name, door
        told = _resolved(settings)
        told["pixels"] = [Pixel(**one) for one in told["pixels"]]
        told["routes"] = [EventRoute(**one) for one in told.get("routes", [])]
        self.file = folder / f"{name}-{door}.db"
        self.delivers = told.pop("delivery")
        self.settings = {**told, "store": f"sqlite:///{self.file}"}
        if "action_source" in Config.__dataclass_fields__:  # not in every revision
            self.settings["action_source"] = "system_generated"
        self.capi = CAPI(Config(**self.settings, delivery=False))
        self.prefix: str = told.get("prefix", "/_capi")
        self.plan: Plan
        self.loop: Loop
        self.asgi = CAPIMiddleware(self._through_asgi, self.capi)
        self.wsgi = capi_middleware.wsgi.CAPIMiddleware(self._through_wsgi, self.capi)
        #: What a browser would have kept: see _filled().
        self.kept: dict[str, str] = {}

    async def _through_asgi(self, scope: Any, receive: Any, send: Any) -> None:
        await _asgi_app(self.plan, scope, receive, send, self.loop)

    def _through_wsgi(self, environ: Any, start_response: Any) -> Any:
        return _wsgi_result(self.plan, environ, start_response)

    def drive(self, exchange: dict[str, Any], loop: Loop) -> dict[str, Any]:
        """What came of one exchange."""
        self.plan, self.loop = Plan(exchange, self.capi), loop
        request = self._filled(exchange["request"])
        body = request.get("body", "").encode("latin-1")
        if self.door == "asgi":
            found = loop.run_until_complete(self._drive_asgi(request, body, exchange))
        else:
            found = self._drive_wsgi(request, body)
        self._keep(found)
        return {**found, "saw": self.plan.saw}

    async def _drive_asgi(
        self, request: dict[str, Any], body: bytes, exchange: dict[str, Any]
    ) -> dict[str, Any]:
        root = request.get("root", "")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1",
            "method": request["method"], "scheme": request.get("scheme", "https"),
            "path": root + request["path"], "raw_path": (root + request["path"]).encode(),
            "root_path": root, "query_string": request.get("query", "").encode("latin-1"),
            "headers": _raw(request["headers"]), "client": (request.get("ip", "203.0.113.9"), 5000),
            "server": ("shop.example", 443), "extensions": {"http.response.pathsend": {}},
        }  # fmt: skip
        half = len(body) // 2
        parts = [(body[:half], True), (body[half:], False)] if half else [(body, False)]
        sent: list[dict[str, Any]] = []
        gone = exchange.get("gone")

        async def receive() -> Message:
            if not parts:
                return {"type": "http.disconnect"}
            part, more = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": more}

        async def send(message: Message) -> None:
            if gone is not None and len(sent) >= gone:
                raise OSError("the client is gone")
            sent.append({**message, "headers": list(message.get("headers", ()))})

        error = await _survived(self.asgi(scope, receive, send))
        starts = [one for one in sent if one["type"] == "http.response.start"]
        bodies = [one for one in sent if one["type"] == "http.response.body"]
        return {
            "error": error,
            "status": [one["status"] for one in starts],
            "headers": [
                [bytes(name).decode("latin-1"), bytes(value).decode("latin-1")]
                for one in starts
                for name, value in one["headers"]
            ],
            "body": b"".join(bytes(one.get("body", b"")) for one in bodies).decode("latin-1"),
            "ended": [bool(one.get("more_body")) for one in bodies][-1:],
            "others": [
                [one["type"], str(one.get("path", ""))]
                for one in sent
                if one["type"] not in ("http.response.start", "http.response.body")
            ],
        }

    def _drive_wsgi(self, request: dict[str, Any], body: bytes) -> dict[str, Any]:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request["method"], "SCRIPT_NAME": request.get("root", ""),
            "PATH_INFO": request["path"], "QUERY_STRING": request.get("query", ""),
            "SERVER_NAME": "shop.example", "SERVER_PORT": "443", "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": request.get("ip", "203.0.113.9"), "CONTENT_LENGTH": str(len(body)),
            "wsgi.version": (1, 0), "wsgi.url_scheme": request.get("scheme", "https"),
            "wsgi.input": io.BytesIO(body), "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
        }  # fmt: skip
        for name, value in request["headers"]:
            key = name.upper().replace("-", "_")
            environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
        started: list[Any] = []
        out: list[bytes] = []
        error = None
        kind = ""

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            if exc_info is not None and any(out):
                raise exc_info[1].with_traceback(exc_info[2])
            started[:] = [status, [list(one) for one in headers]]
            return out.append

        try:
            result = self.wsgi(environ, start_response)
            kind = "file" if isinstance(result, FileWrapper) else ""
            try:
                out += result
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        except BaseException as caught:
            error = _error(caught)
        return {
            "error": error, "status": started[:1], "headers": started[1] if started else [],
            "body": b"".join(out).decode("latin-1"), "ended": [kind], "others": [],
        }  # fmt: skip

    def _filled(self, request: dict[str, Any]) -> dict[str, Any]:
        """The request with what earlier answers gave in place of @NAMES@."""
        text = json.dumps(request)
        for name, value in self.kept.items():
            text = text.replace(f"@{name}@", json.dumps(value)[1:-1])
        filled: dict[str, Any] = json.loads(re.sub(r"@[A-Z]+\d?@", "none", text))
        return filled

    def _keep(self, found: dict[str, Any]) -> None:
        told = {}
        for name, value in found["headers"]:
            if name.lower() == "set-cookie":
                cookie, _, rest = value.partition("=")
                self.kept[cookie.strip("_").replace("capi_", "").upper()] = rest.partition(";")[0]
            if name.lower() == "x-capi-events":
                told = {"e": json.loads(value)}
        block = _BLOCK.search(found["body"])
        if block or found["body"].startswith('{"e":'):
            told = json.loads(block[1] if block else found["body"])
        if not isinstance(told.get("e"), list):  # the app's own JSON may begin alike
            return
        for place, event in enumerate(told["e"][:4]):
            self.kept |= {
                f"ID{place}": event["i"], f"NAME{place}": event["n"], f"PIXEL{place}": event["p"][0]
            }  # fmt: skip
        if "k" in told:
            self.kept |= {"KEYNAME": told["k"][0], "KEYID": told["k"][1]}

    def _deliver(self) -> list[Any]:
        """What Meta gets: all at once and at the end, so that times are the same."""
        graph = Graph()
        capi = CAPI(Config(**self.settings, delivery=True, graph_url=graph.url))
        capi.track("Contact", dedupe_key="the last")  # it starts delivery
        capi.flush(60.0)
        capi.close()
        graph.shutdown()
        return graph.took

    def result(self, loop: Loop) -> dict[str, Any]:
        """What is in the store, and what the report says of it."""
        self.capi.flush(5.0)
        took = self._deliver() if self.delivers else []
        window = "from=2026-09-20T00:00:00Z&to=2026-09-23T00:00:00Z"
        reports = {}
        for name in ("parity.json", "parity.csv", "parity", "metrics"):
            request = {
                "method": "GET", "path": f"{self.prefix}/{name}", "query": window,
                "headers": [["host", "shop.example"], ["authorization", "Bearer the-report-token"]],
            }  # fmt: skip
            found = self.drive({"request": request, "app": []}, loop)
            reports[name] = [found["status"], found["headers"], found["body"]]
        self.capi.close()
        rows = _table(self.file, {"event_id", "pixel_id", "browser"})
        if rows and "payload" not in rows[0]:  # it has a table of its own
            payloads = {one["key"]: one["payload"] for one in _table(self.file, {"key", "payload"})}
            rows = [{**row, "payload": payloads.get(row["key"])} for row in rows]
        counts = _table(self.file, {"kind", "reason", "n"})
        return {"rows": rows, "counts": counts, "reports": reports,
                "took": took}  # fmt: skip


async def _survived(call: Awaitable[Any]) -> list[str] | None:
    try:
        await call
    except BaseException as error:
        return _error(error)
    return None


def _table(file: Path, wanted: set[str]) -> list[dict[str, Any]]:
    """All rows of the table that has these columns, wherever the revision keeps it."""
    with closing(sqlite3.connect(file)) as db:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            cursor = db.execute(f'SELECT * FROM "{name}" ORDER BY 1')
            columns = [one[0] for one in cursor.description]
            if wanted <= set(columns):
                return [
                    {key: _shown(value) for key, value in zip(columns, row, strict=True)}
                    for row in cursor
                ]
    return []


def _shown(value: Any) -> Any:
    return bytes(value).decode("utf-8", "replace") if isinstance(value, bytes) else value


class Logged(logging.Handler):
    """What the package logged: the second, the level and the action."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[list[Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        about = getattr(record, "capi", {})
        told = [record.levelname, about.get("action", ""), about.get("error", "")]
        self.lines.append([CLOCK.now - BEGIN, *told])


def main(tree: Path, exchanges: Path, folder: Path) -> dict[str, Any]:
    """All that came of the exchanges in the file `exchanges`."""
    home = Path(capi_middleware.__file__).resolve()
    assert home.is_relative_to(tree.resolve()), f"found {home}, expected it in {tree}"
    given = json.loads(exchanges.read_text())
    logged = Logged()
    logging.getLogger("capi_middleware").addHandler(logged)
    logging.getLogger("capi_middleware").propagate = False
    loop = Loop()
    asyncio.set_event_loop(loop)
    sites: dict[tuple[str, str], Site] = {}
    found = []
    for exchange in given["exchanges"]:
        CLOCK.now = BEGIN + exchange["n"]
        random.seed(exchange["n"])
        name, door = exchange["site"], exchange["door"]
        if (name, door) not in sites:
            sites[name, door] = Site(name, given["sites"][name], door, folder)
        found.append(sites[name, door].drive(exchange, loop))
    CLOCK.now = BEGIN + given["exchanges"][-1]["n"] + 1
    results = {f"{name}-{door}": site.result(loop) for (name, door), site in sites.items()}
    loop.close()
    return {"begin": BEGIN, "exchanges": found, "sites": results, "log": logged.lines}


if __name__ == "__main__":
    out = main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
    (Path(sys.argv[3]) / "found.json").write_text(json.dumps(out))
