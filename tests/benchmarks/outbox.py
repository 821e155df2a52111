"""The outbox in SQLite: enqueueing beside raw SQLite, delivering beside bare httpx, memory."""

import asyncio
import contextlib
import itertools
import json
import queue
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import httpx

from capi_middleware.delivery.courier import Courier
from capi_middleware.events import Row as Event
from capi_middleware.meta.codes import Outcome
from capi_middleware.meta.graph import GraphClient
from capi_middleware.store.commits import committed
from capi_middleware.store.store import Store
from tests.benchmarks import purchase
from tests.benchmarks.measure import Trial, constant
from tests.benchmarks.sink import sink
from tests.support.configs import PIXEL_ID, TOKEN
from tests.support.processes import ROOT
from tests.support.stores import sqlite_store

_ENQUEUED = 20_000
_BACKLOG = 20_000
_SINGLE = 400
_WAITING = 1_000_000
_numbers = itertools.count()
_BODY = purchase.stored()


def _payload(event_id: str) -> bytes:
    return _BODY.replace(purchase.EVENT_ID.encode(), event_id.encode())


def event(payload: bytes = b"") -> Event:
    event_id = f"e{next(_numbers)}"
    return Event(
        event_id=event_id, event_name="Purchase", pixel_id=PIXEL_ID, event_time=time.time(),
        payload=payload or _payload(event_id),
    )  # fmt: skip


async def _enqueue(waiters: int, amount: int, one: Callable[[], Awaitable[None]]) -> float:
    async def waiter() -> None:
        for _ in range(amount // waiters):
            await one()

    start = time.perf_counter()
    await asyncio.gather(*(waiter() for _ in range(waiters)))
    return (time.perf_counter() - start) / (amount // waiters * waiters)


async def _appended(store: Store) -> None:
    commit = store.append([event(_BODY)], wait=True)
    assert commit is not None
    await committed(commit)


def _enqueue_ours(waiters: int, share: float) -> float:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ends:
        store = sqlite_store(Path(folder) / "capi.db")
        ends.callback(store.close)

        return asyncio.run(
            _enqueue(waiters, max(waiters, int(_ENQUEUED * share)), lambda: _appended(store))
        )


_RAW_TABLE = """
PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
CREATE TABLE events (key INTEGER PRIMARY KEY, event_id TEXT, event_name TEXT, pixel_id TEXT,
                     event_time REAL, payload BLOB, UNIQUE (event_id, event_name, pixel_id));
"""
_RAW_INSERT = "INSERT INTO events VALUES (NULL, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"


def _enqueue_raw(waiters: int, share: float) -> float:
    """Awaiters and one thread that commits what has gathered: nothing checked or counted."""
    handed: queue.SimpleQueue[tuple[tuple[object, ...], asyncio.Future[None]] | None]
    handed = queue.SimpleQueue()

    def answer(futures: "list[asyncio.Future[None]]") -> None:
        for future in futures:
            future.set_result(None)

    def commit(db: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        while (first := handed.get()) is not None:
            group = [first]
            with contextlib.suppress(queue.Empty):
                while len(group) < 1000:
                    group.append(handed.get_nowait() or first)
            with db:
                db.executemany(_RAW_INSERT, [row for row, _ in group])
            loop.call_soon_threadsafe(answer, [future for _, future in group])

    async def main() -> float:
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=commit, args=(db, loop))
        thread.start()

        async def one() -> None:
            future: asyncio.Future[None] = loop.create_future()
            row = (f"e{next(_numbers)}", "Purchase", PIXEL_ID, time.time(), _BODY)
            handed.put((row, future))
            await future

        try:
            return await _enqueue(waiters, max(waiters, int(_ENQUEUED * share)), one)
        finally:
            handed.put(None)
            await asyncio.to_thread(thread.join)

    with tempfile.TemporaryDirectory() as folder:
        db = sqlite3.connect(Path(folder) / "raw.db", check_same_thread=False)
        db.executescript(_RAW_TABLE)
        try:
            return asyncio.run(main())
        finally:
            db.close()


def _fill(store: Store, amount: int) -> None:
    for start in range(0, amount, 1000):
        store.append([event() for _ in range(start, min(start + 1000, amount))], wait=False)
        store.flush(60)


def _drain(share: float) -> float:
    """Claim, post and settle a backlog with one courier; seconds for each event."""
    amount = max(1, int(_BACKLOG * share))
    with sink() as url, tempfile.TemporaryDirectory() as folder:
        store = sqlite_store(Path(folder) / "capi.db")
        _fill(store, amount)
        sent = 0
        all_sent = threading.Event()

        class Client(GraphClient):
            def send(self, payloads: Sequence[bytes]) -> Outcome:
                nonlocal sent
                outcome = super().send(payloads)
                if outcome.kind == "delivered":
                    sent += len(payloads)
                if sent >= amount:
                    all_sent.set()
                return outcome

        courier = Courier(store, PIXEL_ID, lambda: Client(url, "v26.0", PIXEL_ID, TOKEN))
        start = time.perf_counter()
        courier.start()
        if not all_sent.wait(120):
            raise TimeoutError("the backlog was not delivered within 120 s")
        courier.stop(60)  # after the last batch is settled
        taken = time.perf_counter() - start
        depth = store.depth()
        store.close()
    if depth != {"delivered": amount}:
        raise AssertionError(f"found {depth}, expected {amount} delivered")
    return taken / amount


def _drained_a_second(share: float) -> float:
    return 1 / _drain(share)


def _post_singly(share: float) -> float:
    """Bare httpx: one request for each event, the connection kept."""
    amount = max(1, int(_SINGLE * share))
    return _post([[event().payload or b""] for _ in range(amount)]) / amount


def _post(batches: list[list[bytes]]) -> float:
    with sink() as url, httpx.Client() as client:
        start = time.perf_counter()
        for batch in batches:
            body = b'{"data":[' + b",".join(batch) + b"]}"
            answer = client.post(f"{url}/v26.0/{PIXEL_ID}/events", content=body)
            if answer.json()["events_received"] != len(batch):
                raise AssertionError("the sink counts something else")
        return time.perf_counter() - start


def _memory(path: Path, amount: int) -> float:
    """Peak memory in MB of a process that delivers while `amount` events wait in its file."""
    if not path.exists():
        store = sqlite_store(path)
        _fill(store, amount)
        store.close()
    with sink() as url:
        said = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.resident", str(path), url],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
        ).stdout  # fmt: skip
    figure: float = json.loads(said)
    return figure


def _enqueue_alone(share: float) -> float:
    """Seconds from the enqueueing of one event to its acknowledgement, nothing else going on."""
    amount = max(1, int(200 * share))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ends:
        store = sqlite_store(Path(folder) / "capi.db")
        ends.callback(store.close)

        async def main() -> float:
            taken = []
            for _ in range(amount):
                start = time.perf_counter()
                await _appended(store)
                taken.append(time.perf_counter() - start)
            return statistics.median(taken)

        return asyncio.run(main())


def _unawaited(share: float) -> float:
    """Seconds on the request's thread for an event that nobody waits for."""
    amount = max(1, int(2000 * share))
    with tempfile.TemporaryDirectory() as folder:
        store = sqlite_store(Path(folder) / "capi.db")
        rows = [[event(_BODY)] for _ in range(amount)]
        start = time.thread_time()
        for row in rows:
            store.append(row, wait=False)
        taken = time.thread_time() - start
        store.close()
    return taken / amount


def rows() -> Iterator[Trial]:
    """What the table says about the outbox."""
    for waiters in (64, 256):
        yield Trial(
            f"durable enqueue, {waiters} requests at once, for each event",
            "awaiters and a thread on raw sqlite3, synchronous=FULL",
            1 / 0.85,
            lambda share, n=waiters: _enqueue_ours(n, share),  # type: ignore[misc]
            lambda share, n=waiters: _enqueue_raw(n, share),  # type: ignore[misc]
        )
    yield Trial(
        "durable enqueue of one event on an idle machine, median", "0.5 ms", 1.0, _enqueue_alone,
        constant(0.0005),
    )  # fmt: skip
    yield Trial(
        "enqueue that nobody waits for, on the request path", "2 µs", 1.0, _unawaited,
        constant(2e-6),
    )  # fmt: skip
    what = "backlog drain (claim, post, settle)"
    yield Trial(what, "25,000 events/s", 1.0, _drained_a_second, constant(25_000.0), unit="/s",
                rounds=5)  # fmt: skip
    yield Trial(f"{what}, for each event", "bare httpx, one event a request", 1 / 30, _drain,
                _post_singly, rounds=5)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:

        def few(share: float) -> float:
            return _memory(Path(folder) / "few.db", 1000)

        yield Trial(
            "memory with 1,000,000 events waiting, added to 1,000 waiting", "50 MB", 1.0,
            lambda share: _memory(Path(folder) / "many.db", int(_WAITING * share)) - few(share),
            constant(50.0), unit="MB", rounds=3,
        )  # fmt: skip
