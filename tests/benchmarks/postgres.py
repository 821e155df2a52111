"""The outbox in PostgreSQL: enqueueing beside a raw COPY, claiming beside the bare statement."""

import concurrent.futures
import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg

from capi_middleware.store.store import Store
from tests.benchmarks import outbox
from tests.benchmarks.measure import Trial
from tests.support.configs import PIXEL_ID
from tests.support.postgres import database, execute, server
from tests.support.stores import postgres_store

_EVENTS = 10_000
_GROUP = 500
_COURIERS = 4
_LIMIT = 1000
_RAW = """
CREATE TABLE raw (key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event_id text,
                  event_name text, pixel_id text, event_time float8, payload bytea);
"""
_CLAIM = """
UPDATE raw_queue SET taken = true WHERE key IN (
    SELECT key FROM raw_queue WHERE NOT taken ORDER BY key LIMIT %s FOR UPDATE SKIP LOCKED
) RETURNING key, event_id, event_name, event_time, payload
"""


def _enqueue(store: Store) -> Callable[[float], float]:
    """Events per second into the store, duplicates looked for."""

    def side(share: float) -> float:
        groups = max(1, int(_EVENTS * share) // _GROUP)
        rows = [[outbox.event() for _ in range(_GROUP)] for _ in range(groups)]
        start = time.perf_counter()
        for group in rows:
            store.append(group, wait=False)
        if not store.flush(120):
            raise TimeoutError("the events were not stored within 120 s")
        return groups * _GROUP / (time.perf_counter() - start)

    return side


def _copy(url: str) -> Callable[[float], float]:
    """Events per second with COPY and a commit for each group, nothing looked for."""
    execute(url, _RAW)

    def side(share: float) -> float:
        groups = max(1, int(_EVENTS * share) // _GROUP)
        rows = [[outbox.event() for _ in range(_GROUP)] for _ in range(groups)]
        with psycopg.connect(url) as db:
            start = time.perf_counter()
            for group in rows:
                with db.cursor().copy(
                    "COPY raw (event_id, event_name, pixel_id, event_time, payload) FROM STDIN"
                ) as copy:
                    for row in group:
                        copy.write_row(
                            (row.event_id, row.event_name, row.pixel_id, row.event_time,
                             row.payload)
                        )  # fmt: skip
                db.commit()
            return groups * _GROUP / (time.perf_counter() - start)

    return side


def _by_couriers(claims: Sequence[Callable[[], list[int]]], amount: int) -> float:
    """Events per second that four couriers claim at once. Raises where one is claimed twice."""

    def courier(claim: Callable[[], list[int]]) -> list[int]:
        claimed: list[int] = []
        while some := claim():
            claimed += some
        return claimed

    with concurrent.futures.ThreadPoolExecutor(_COURIERS) as couriers:
        start = time.perf_counter()
        claimed = [
            key
            for done in [couriers.submit(courier, claim) for claim in claims]
            for key in done.result()
        ]
        taken = time.perf_counter() - start
    if len(claimed) != len(set(claimed)) or len(claimed) < amount:
        raise AssertionError(f"{len(claimed)} claims of {len(set(claimed))} events of {amount}")
    return len(claimed) / taken


def _claim(store: Store) -> list[int]:
    lease = store.lease(PIXEL_ID, limit=_LIMIT, seconds=60.0)
    return [event.key for event in lease.events]


def _bare_claim(db: "psycopg.Connection[Any]") -> list[int]:
    return [row[0] for row in db.execute(_CLAIM, (_LIMIT,)).fetchall()]


def _claims(url: str) -> Callable[[float], float]:
    def side(share: float) -> float:
        amount = max(_GROUP, int(_EVENTS * share))
        with contextlib.ExitStack() as ends:
            fresh = ends.enter_context(database(url))
            stores = [postgres_store(fresh) for _ in range(_COURIERS)]
            for store in stores:
                ends.callback(store.close)
            for _ in range(amount // _GROUP):
                stores[0].append([outbox.event() for _ in range(_GROUP)], wait=False)
            stores[0].flush(60)
            for store in stores:
                store.backlog()  # connected before the clock starts
            claims = [functools.partial(_claim, store) for store in stores]
            return _by_couriers(claims, amount // _GROUP * _GROUP)

    return side


def _bare_claims(url: str) -> Callable[[float], float]:
    def side(share: float) -> float:
        amount = max(_GROUP, int(_EVENTS * share)) // _GROUP * _GROUP
        with contextlib.ExitStack() as ends:
            fresh = ends.enter_context(database(url))
            execute(fresh, _RAW.replace("raw", "raw_queue").replace("bytea", "bytea, taken bool"))
            rows = [outbox.event() for _ in range(amount)]
            with psycopg.connect(fresh) as db:
                db.cursor().executemany(
                    "INSERT INTO raw_queue (event_id, event_name, pixel_id, event_time, payload, "
                    "taken) VALUES (%s, %s, %s, %s, %s, false)",
                    [(r.event_id, r.event_name, r.pixel_id, r.event_time, r.payload) for r in rows],
                )
            links = [
                ends.enter_context(psycopg.connect(fresh, autocommit=True))
                for _ in range(_COURIERS)
            ]
            return _by_couriers([functools.partial(_bare_claim, link) for link in links], amount)

    return side


def rows() -> Iterator[Trial]:
    """What the table says about PostgreSQL."""
    with server() as url, database(url) as ours, database(url) as theirs:
        store = postgres_store(ours)
        yield Trial(
            f"PostgreSQL: enqueue with dedupe, groups of {_GROUP}", "raw COPY", 0.7,
            _enqueue(store), _copy(theirs), unit="/s",
        )  # fmt: skip
        store.close()
        yield Trial(
            f"PostgreSQL: claims by {_COURIERS} couriers, none twice", "the bare SKIP LOCKED claim",
            0.8, _claims(url), _bare_claims(url), unit="/s", rounds=5,
        )  # fmt: skip
