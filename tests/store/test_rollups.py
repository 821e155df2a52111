"""Every number of a report can be recomputed from the raw rows, in every store."""

import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from math import ceil, floor
from typing import Any, NamedTuple

import pytest

from capi_middleware.events import SENT, UNPAIRED, Row, Sighting
from capi_middleware.store import postgres
from capi_middleware.store import store as stores
from capi_middleware.store.records import Lease, Settlement
from capi_middleware.store.rollups import SEGMENT, Facet
from capi_middleware.store.sqlite import Memory
from capi_middleware.store.store import Store
from tests.support.postgres import execute
from tests.support.stores import NOON, Clock, store_rows

FACETS: tuple[Facet, ...] = ("hour", "route", "page", *SEGMENT)
PLACE = ("pixel_id", "event_name", "state", "browser")
COLUMNS = (
    "event_time, event_name, pixel_id, CASE WHEN key IN (SELECT key FROM {}leases) THEN 'leased' "
    "ELSE server END, browser, match_keys, delivered_at, route, page, segment, digest, "
    "browser_digest, currency, amount"
)


class Raw(NamedTuple):
    """A row as the store has it."""

    event_time: float
    event_name: str
    pixel_id: str
    server: str
    browser: str
    match_keys: int
    delivered_at: float | None
    route: str
    page: str
    segment: str
    digest: str
    browser_digest: str
    currency: str
    amount: int

    @property
    def state(self) -> str:
        return "pending" if self.server == "leased" else self.server


def raw_rows(store: Store, url: str | list[str]) -> list[Raw]:
    if isinstance(url, list):
        return [row for one in url for row in raw_rows(store, one)]
    if url == "memory:":
        assert isinstance(store._engine, Memory)
        with store._engine.transaction("read") as reading:
            found = reading.db.execute(f"SELECT {COLUMNS.format('')} FROM events").fetchall()
    elif url.startswith("sqlite"):
        db = sqlite3.connect(url.removeprefix("sqlite:///"))
        found = db.execute(f"SELECT {COLUMNS.format('')} FROM events").fetchall()
        db.close()
    else:
        found = execute(url, f"SELECT {COLUMNS.format('capi_')} FROM capi_events")
    return [Raw(*columns) for columns in found]


def two_digits(seconds: float) -> float:
    tenths = floor(seconds * 10 + 0.5)
    return tenths / 10 if tenths < 100 else float(f"{tenths / 10:.1e}")


def counted(rows: Iterable[Raw], what: Callable[[Raw], Any]) -> dict[Any, int]:
    return dict(Counter(key for row in rows if (key := what(row)) is not None))


def freshness_of(row: Raw) -> Any:
    if row.server != "delivered" or row.browser == "unpaired":
        return None
    taken = max(0.0, (row.delivered_at or 0.0) - row.event_time)
    return (row.pixel_id, row.event_name, two_digits(taken))


def difference_of(row: Raw) -> Any:
    both = row.server == "delivered" and row.browser == "sent"
    known = row.digest and row.browser_digest and row.digest != row.browser_digest
    return (row.pixel_id, row.event_name) if both and known else None


def slice_of(facet: Facet, row: Raw) -> Any:
    if facet == "hour":
        value = str(int(row.event_time // 3600 * 3600))
    elif facet in SEGMENT:
        value = (row.segment.split("\t") + [""] * 4)[SEGMENT.index(facet)]
    else:
        value = getattr(row, facet)
    return (value, row.pixel_id, row.event_name, row.state, row.browser) if value else None


def check(store: Store, rows: Iterable[Raw], start: float, end: float) -> None:
    """All that the store says of a window, beside the rows counted one by one."""
    first, last = floor(start / 3600) * 3600, ceil(end / 3600) * 3600
    inside = [row for row in rows if first <= row.event_time < last]
    tallies = store.tallies(start, end)
    assert {
        (t.pixel_id, t.event_name, t.server, t.browser, t.match_keys): t.n for t in tallies.rows
    } == counted(
        inside, lambda r: (r.pixel_id, r.event_name, r.state, r.browser, r.match_keys)
    )  # fmt: skip
    assert {
        (f.pixel_id, f.event_name, f.seconds): f.n for f in tallies.freshness
    } == counted(inside, freshness_of)  # fmt: skip
    assert {
        (d.pixel_id, d.event_name): d.n for d in tallies.differences
    } == counted(inside, difference_of)  # fmt: skip
    for facet in FACETS:
        slices = store.slices(facet, start, end)
        assert {
            (s.value, s.pixel_id, s.event_name, s.server, s.browser): s.n for s in slices
        } == counted(inside, partial(slice_of, facet))  # fmt: skip
    worth = Counter[tuple[str, ...]]()
    for row in inside:
        worth[row.currency, *(str(getattr(row, name)) for name in PLACE)] += row.amount
    assert {
        (s.value, s.pixel_id, s.event_name, s.server, s.browser): s.n
        for s in store.slices("money", start, end)
    } == {key: n for key, n in worth.items() if n and key[0]}


class Operations:
    """Random calls of everything that changes rows."""

    def __init__(self, store: Store, clock: Clock, seed: int) -> None:
        self.store, self.clock = store, clock
        self.random = random.Random(seed)
        self.money = random.Random(seed)  # apart: the others are draws that come to all states
        self.leases: list[Lease] = []

    def step(self) -> None:
        self.random.choice(
            [self.append, self.append, self.sight, self.sight, self.lease, self.lease,
             self.settle, self.settle, self.settle, self.dead_letters, self.wait]
        )()  # fmt: skip

    def some(self) -> dict[str, Any]:
        choice = self.random.choice
        return {
            "event_id": f"e{self.random.randrange(150)}",
            "event_name": choice(["Purchase", "Lead"]),
            "pixel_id": choice(["1", "2"]),
        }

    def append(self) -> None:
        choice, rows = self.random.choice, []
        for _ in range(self.random.randrange(1, 6)):
            server = choice(["pending", "pending", "pending", "consent", "unmapped"])
            rows.append(
                Row(
                    **self.some(),
                    event_time=self.clock()
                    - choice([0.0, 0.4, 12.3, 3600.0, 90_000.0, 400_000.0, 610_000.0]),
                    payload=b"{}" if server == "pending" else None,
                    server=server,  # type: ignore[arg-type] # one of the above
                    browser=choice(["not_rendered", UNPAIRED, "not_run", "csp"]),
                    match_keys=self.random.randrange(3),
                    route=choice(["", "GET /a", "GET /b"]),
                    page=choice(["", "/a"]),
                    segment=choice(["", "Chrome\tphone\tDE\ta.example", "Safari\t\t\ta.example"]),
                    digest=choice(["", "a", "b", "b"]),
                    currency=(currency := self.money.choice(["", "EUR", "JPY"])),
                    amount=self.money.choice([1, 999]) if currency else 0,
                )
            )
        store_rows(self.store, *rows)

    def sight(self) -> None:
        choice = self.random.choice
        sightings = [
            Sighting(
                **self.some(), outcome=choice([SENT, SENT, "csp"]), digest=choice(["", "a", "a"])
            )
            for _ in range(self.random.randrange(1, 4))
        ]
        self.store.sight(sightings).result(30)

    def lease(self) -> None:
        lease = self.store.lease(self.random.choice(["1", "2"]), limit=5, seconds=60)
        if lease.events:
            self.leases.append(lease)

    def settle(self) -> None:
        if self.leases:
            lease = self.leases.pop(self.random.randrange(len(self.leases)))
            states = ("delivered", "stopped", "dead", "pending")
            settlements = [
                Settlement(one.key, self.random.choice(states))  # type: ignore[arg-type] # as above
                for one in lease.events
            ]
            self.store.settle(lease.lease_id, settlements)

    def dead_letters(self) -> None:
        keys = [one.key for one in self.store.dead_letters(limit=1)]
        self.random.choice([self.store.requeue, self.store.drop])(keys)

    def wait(self) -> None:
        self.clock.now += self.random.choice([0.3, 5.0, 61.0, 3600.0, 40_000.0])

    def window(self) -> tuple[float, float]:
        start = NOON - 6 * 86400 + self.random.randrange(12 * 86400)
        return start, start + self.random.choice([1, 3600, 20_000, 86_400, 300_000, 600_000])


@pytest.fixture(params=[1, 7, 100_000], ids=["folded at once", "folded often", "not folded"])
def folds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many changes are folded together."""
    monkeypatch.setattr(postgres, "FOLD_ROWS", request.param)
    monkeypatch.setattr(stores, "FOLD_EVERY", request.param)


@pytest.mark.usefixtures("folds")
@pytest.mark.parametrize("seed", [4, 5])
def test_whatever_happens_to_rows_the_sums_are_those_of_the_rows(
    store: Store, store_url: str | list[str], clock: Clock, seed: int
) -> None:
    operations = Operations(store, clock, seed)
    for _ in range(12):
        for _ in range(30):
            operations.step()
        rows = raw_rows(store, store_url)
        check(store, rows, 0, 2 * NOON)
        check(store, rows, *operations.window())
        assert store.depth() == counted(rows, lambda row: row.server)

    rows = raw_rows(store, store_url)
    assert {row.server for row in rows} >= {"delivered", "dead", "dropped", "expired", "unknown"}
    # With several databases other events are leased, and these seeds happen to make none.
    assert isinstance(store_url, list) or any(difference_of(row) for row in rows)
    assert store.prune(clock() - 86_400) > 0
    check(store, rows, 0, 2 * NOON)
    for _ in range(20):
        check(store, rows, *operations.window())
    left = raw_rows(store, store_url)
    assert len(left) < len(rows)
    assert store.depth() == counted(left, lambda row: row.server)
