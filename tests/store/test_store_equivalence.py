"""A file that is closed and opened, and memory, answer every sequence of calls in the same way."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from capi_middleware.events import BROWSER_CAUSES, SENT, Count, Row, Sighting
from capi_middleware.store.records import Lease, Settlement
from capi_middleware.store.store import Store
from capi_middleware.testing import MemoryStore
from tests.support.stores import NOON, Clock, sqlite_store, states

EVENT_IDS = st.sampled_from(["e1", "e2", "e3", "e4"])
PIXELS = st.sampled_from(["1", "2"])
OUTCOMES = st.sampled_from([SENT, *BROWSER_CAUSES])
#: Seconds that matter: parts of a lease, lease limits, an hour, Meta's seven days.
STEPS = st.sampled_from([-7200.0, -601.0, -0.26, 0.1, 30.0, 60.0, 601.0, 3600.0, 601_201.0])
AGES = st.sampled_from([0.0, 0.33, 5.0, 3600.0, 601_199.0, 601_201.0, -60.0])
ROWS: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    event_id=EVENT_IDS,
    event_name=st.sampled_from(["Purchase", "Lead"]),
    pixel_id=PIXELS,
    age=AGES,
    server=st.sampled_from(["pending", "pending", "consent", "unmapped", "unknown"]),
    browser=OUTCOMES,
    match_keys=st.integers(0, 3),
    currency=st.sampled_from(["", "EUR", "KWD"]),
    amount=st.integers(-3, 10**12),
)


class TwoStores(RuleBasedStateMachine):
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.directory = tempfile.TemporaryDirectory()
        self.sqlite = sqlite_store(Path(self.directory.name) / "capi.db", clock=self.clock)
        self.memory = MemoryStore(clock=self.clock)
        self.stores: tuple[Store, Store] = (self.sqlite, self.memory)

    def teardown(self) -> None:
        self.sqlite.close()
        self.directory.cleanup()

    @rule(rows=st.lists(ROWS, min_size=1, max_size=3))
    def append(self, rows: list[dict[str, Any]]) -> None:
        made = [
            Row(
                event_time=self.clock() - row["age"],
                payload=b"{}" if row["server"] == "pending" else None,
                **{name: value for name, value in row.items() if name != "age"},
            )
            for row in rows
        ]
        for store in self.stores:
            future = store.append(made, wait=True)
            assert future is not None
            future.result(30)

    @rule(event_id=EVENT_IDS, pixel_id=PIXELS, outcome=OUTCOMES)
    def sight(self, event_id: str, pixel_id: str, outcome: str) -> None:
        for store in self.stores:
            store.sight([Sighting(event_id, "Purchase", pixel_id, outcome)]).result(30)

    @rule(reason=st.sampled_from(["a", "b"]), n=st.integers(1, 3))
    def count(self, reason: str, n: int) -> None:
        for store in self.stores:
            store.count([Count("skipped", reason, n=n)])
            assert store.flush(30)

    @rule(
        target=leases,
        pixel_id=PIXELS,
        limit=st.integers(1, 4),
        seconds=st.sampled_from([10.0, 60.0, 600.0]),
    )
    def lease(self, pixel_id: str, limit: int, seconds: float) -> Any:
        ours, theirs = (
            store.lease(pixel_id, limit=limit, seconds=seconds) for store in self.stores
        )
        assert [
            (e.event_id, e.event_name, e.event_time, e.payload, e.attempts) for e in ours.events
        ] == [
            (e.event_id, e.event_name, e.event_time, e.payload, e.attempts) for e in theirs.events
        ]
        return (ours, theirs) if ours.events else multiple()

    @rule(
        pair=leases,
        some=st.integers(1, 4),
        state=st.sampled_from(["delivered", "dead", "stopped", "pending"]),
        delay=st.sampled_from([0.0, 30.0, 3600.0]),
        attempted=st.booleans(),
    )
    def settle(
        self, pair: tuple[Lease, Lease], some: int, state: Any, delay: float, attempted: bool
    ) -> None:
        ours, theirs = (
            store.settle(
                lease.lease_id,
                [
                    Settlement(event.key, state, "code 1", delay, attempted)
                    for event in lease.events[:some]
                ],
            )
            for store, lease in zip(self.stores, pair, strict=True)
        )
        assert ours == theirs

    @rule(seconds=STEPS)
    def step(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(age=AGES)
    def prune(self, age: float) -> None:
        ours, theirs = (store.prune(self.clock() - age) for store in self.stores)
        assert ours == theirs

    @rule()
    def reopen(self) -> None:
        self.sqlite.close()

    @invariant()
    def they_say_the_same(self) -> None:
        assert states(self.sqlite) == states(self.memory)
        assert self.sqlite.depth() == self.memory.depth()
        for pixel_id in ("1", "2"):
            assert self.sqlite.next_due(pixel_id) == self.memory.next_due(pixel_id)
        for window in ((0.0, 2 * NOON), (self.clock() - 10, self.clock() + 10)):
            ours, theirs = (store.tallies(*window) for store in self.stores)
            assert sorted(ours.freshness, key=repr) == sorted(theirs.freshness, key=repr)
            assert sorted(ours.counts, key=repr) == sorted(theirs.counts, key=repr)
            sums, others = (store.slices("money", *window) for store in self.stores)
            assert sorted(sums, key=repr) == sorted(others, key=repr)


TwoStores.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, derandomize=True
)
TestTwoStores = TwoStores.TestCase
