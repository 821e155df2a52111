"""What is wrong with a whole request rests the pixel and kills no event: over a real connection."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from capi_middleware.delivery.courier import Courier
from capi_middleware.meta import graph
from capi_middleware.meta.codes import Outcome
from capi_middleware.meta.graph import GraphClient
from capi_middleware.testing import FakeMeta, MemoryStore
from tests.delivery.test_delivery import EVENT
from tests.support.servers import serve
from tests.support.stores import NOON, PIXEL, Clock, row, store_rows

#: From the field: each of these once killed a whole outbox, at full speed.
CODES = [
    0, 5, 6, 7, 9, 11, 12, 21, 100, 101, 110, 300, 459, 464, 467, 506, 803, 960, 2500, 2635, 21009,
    80015, 80023, 1487390, 4711, -1,
]  # fmt: skip
PAGE = b"<html><body>Blocked by the firewall</body></html>"


class Counting(GraphClient):
    """A client that knows how many requests it made."""

    requests = 0

    def send(self, payloads: Sequence[bytes]) -> Outcome:
        self.requests += 1
        return super().send(payloads)


@pytest.fixture
def fake() -> FakeMeta:
    return FakeMeta(tokens={PIXEL: "secret-token"}, clock=lambda: NOON)


@pytest.fixture
def client(fake: FakeMeta) -> Iterator[Counting]:
    with serve(fake.app) as url:
        client = Counting(url, "v27.0", PIXEL, "secret-token")
        yield client
        client.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    store = MemoryStore(clock=clock)
    store_rows(store, *(row(f"e{n}", payload=EVENT % NOON) for n in range(40)))
    return store


@pytest.fixture
def courier(store: MemoryStore, client: Counting) -> Courier:
    return Courier(store, PIXEL, lambda: client)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        *((400, {"error": {"code": code, "message": "no"}}) for code in CODES),
        (400, {"error": {"code": 100, "message": "Invalid appsecret_proof provided"}}),
        (400, {"error": {"code": 100, "message": "(#100) Missing Permission"}}),
        (400, {"error": {"code": 100, "error_subcode": 33, "message": "Unsupported post request"}}),
        (401, {"error": {"code": 190, "error_subcode": 463}}),
        (403, {"error": {"code": 200, "message": "Requires ads_management"}}),
        (429, PAGE), (429, b""), (400, {"error": "forbidden"}),
        *((status, PAGE) for status in (302, 307, 400, 401, 403, 404, 405, 407, 451)),
    ],
    ids=str,
)  # fmt: skip
def test_an_outage_of_any_kind_costs_few_requests_and_no_event(
    courier: Courier, store: MemoryStore, fake: FakeMeta, client: Counting, clock: Clock,
    status: int, body: Any,
) -> None:  # fmt: skip
    fake.fail_next(status, body, times=None, headers={"location": "https://evil.example/"})
    for _ in range(10):
        courier._round()
        clock.now += 60
    assert client.requests <= 22  # three at first, then two a minute at most
    assert store.depth() == {"pending": 40}
    fake.clear_faults()
    clock.now += 3600
    courier._round()
    assert store.depth() == {"delivered": 40}
    assert len(fake.received.server) == 40


def test_a_firewall_that_takes_no_large_bodies_gets_small_ones(
    store: MemoryStore, clock: Clock
) -> None:
    async def firewall(scope: Any, receive: Any, send: Any) -> None:
        length = int(dict(scope.get("headers", ())).get(b"content-length", b"0"))
        if length <= 5000:
            await meta.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 413, "headers": []})
        await send({"type": "http.response.body", "body": PAGE})

    meta = FakeMeta(clock=lambda: NOON)
    with serve(firewall) as url:
        client = Counting(url, "v27.0", PIXEL, "secret-token")
        Courier(store, PIXEL, lambda: client)._round()
        client.close()
    assert store.depth() == {"delivered": 40}
    assert client.requests <= 15


def test_an_answer_that_does_not_come_in_time_is_told_apart(
    client: Counting, fake: FakeMeta, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "DEADLINE", 0.3)
    fake.fail_next(200, delay=5.0)
    assert client.send([EVENT % NOON]).late
    fake.fail_next(drop="before")
    assert not client.send([EVENT % NOON]).late
