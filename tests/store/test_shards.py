"""Several PostgreSQL databases as one store: what holds across them, and while one is away."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from capi_middleware import CAPI, CAPIMiddleware, track
from capi_middleware.delivery.courier import Courier
from capi_middleware.errors import ConfigError, StoreError, StoreFull
from capi_middleware.events import Count, Sighting
from capi_middleware.meta.codes import Outcome
from capi_middleware.store.opening import open_store
from capi_middleware.store.records import Pause, Settlement
from capi_middleware.store.shards import Shards
from capi_middleware.store.store import Store
from capi_middleware.testing import FakeMeta
from tests.support.commands import site
from tests.support.configs import PIXEL_ID, make_config
from tests.support.postgres import execute
from tests.support.postgres_pair import Server, lone
from tests.support.processes import until
from tests.support.servers import serve
from tests.support.stores import NOON, PIXEL, Clock, row, store_rows

_numbers = count(1)
ROWS = [row(f"e{n}") for n in range(40)]


@pytest.fixture
def store(postgres_urls: list[str], clock: Clock) -> Iterator[Store]:
    opened = open_store(postgres_urls, queue_limit=1000, clock=clock)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One that can be stopped."""
    with lone() as made:
        yield made


@pytest.fixture
def two_servers(postgres_url: str, server: Server) -> list[str]:
    """Databases of two servers, of which the second can be stopped."""
    if not server.pid:
        server.start()
    name = f"shard_{next(_numbers)}"
    execute(server.url, f"CREATE DATABASE {name}")
    return [postgres_url, server.url.removesuffix("postgres") + name]


def there(url: str) -> set[str]:
    return {event_id for (event_id,) in execute(url, "SELECT event_id FROM capi_events")}


def settle_all(store: Store, lease_id: str, keys: Sequence[int]) -> int:
    return store.settle(lease_id, [Settlement(key, "delivered") for key in keys])


def test_every_promise_of_a_store_is_kept_by_its_parts() -> None:
    promises = {name for name, one in vars(Store).items() if name[0] != "_"}

    assert promises <= vars(Shards).keys()


# where events live


def test_events_are_divided_and_live_in_one_database_for_ever(
    postgres_urls: list[str], store: Store
) -> None:
    store_rows(store, *ROWS)
    again = open_store(postgres_urls, queue_limit=1000)
    store_rows(again, *ROWS)
    again.sight([Sighting(one.event_id, "Purchase", PIXEL, "sent") for one in ROWS]).result(30)
    again.close()

    one, other = map(there, postgres_urls)
    assert one | other == {row.event_id for row in ROWS}
    assert not one & other
    assert min(len(one), len(other)) > 5
    assert sum(tally.n for tally in store.tallies(0, 2 * NOON).rows) == 40


def test_what_events_of_several_databases_are_worth_is_summed(store: Store) -> None:
    store_rows(store, *(row(f"m{n}", currency="EUR", amount=100 + n) for n in range(40)))

    told = store.tallies(0, 2 * NOON).money
    assert {(one.value, one.n) for one in told} == {("EUR", 40 * 100 + sum(range(40)))}
    assert store.slices("money", 0, 2 * NOON) == told


@pytest.mark.parametrize("change", ["swapped", "one less", "one more", "one alone", "from one"])
def test_another_list_is_refused_by_each_database_that_it_moves(
    postgres_urls: list[str], postgres_url: str, change: str
) -> None:
    one, other = postgres_urls
    before = one if change == "from one" else [one, other]
    found = "1 of 1" if change == "from one" else "1 of 2|2 of 2"
    first = open_store(before, queue_limit=10)
    first.depth()
    first.close()
    changed: dict[str, str | list[str]] = {
        "swapped": [other, one],
        "one less": [other],
        "one more": [one, other, postgres_url],
        "one alone": one,
        "from one": [one, other],
    }

    store = open_store(changed[change], queue_limit=10)

    with pytest.raises(StoreError, match=f"found database ({found}), expected . of .*list") as told:
        store.depth()
    assert "pa55word" not in str(told.value)
    store.close()


def test_another_address_of_the_same_database_is_the_same_list(postgres_urls: list[str]) -> None:
    first = open_store(postgres_urls, queue_limit=100)
    store_rows(first, *ROWS)
    first.close()

    moved = [f"{url}&application_name=moved" for url in postgres_urls]

    store = open_store(moved, queue_limit=100)
    assert store.depth() == {"pending": 40}
    store.close()


@pytest.mark.parametrize(
    ("urls", "found"),
    [
        (["postgresql://a/x", "sqlite:///capi.db"], "a list with a URL of another kind"),
        (["postgresql://a/x", "postgresql://a/x"], "a list with one URL twice"),
        ([], "an empty list"),
        (["postgresql://a/x", "mysql://b/x"], "'mysql'"),
        (["postgresql://a/x", 7], "7"),
    ],
)
def test_a_list_that_cannot_work_is_refused_at_once(urls: Any, found: str) -> None:
    with pytest.raises(ConfigError, match=f"store: found {found}, expected"):
        make_config(store=urls)


# what holds across databases


def test_a_commit_ends_when_both_databases_have_its_rows_with_the_error_of_one(
    postgres_urls: list[str], store: Store
) -> None:
    store_rows(store, *ROWS)
    here, other = (sorted(there(url)) for url in postgres_urls)

    both = store.append([row(here[0], pixel_id="2"), row(other[0], pixel_id="2")], wait=True)
    bad = store.append(
        [row(here[0], pixel_id="3", payload=None), row(other[0], pixel_id="3")], wait=True
    )

    assert both is not None
    assert bad is not None
    both.result(30)
    assert len(store.lease("2", limit=9, seconds=60).events) == 2
    assert isinstance(bad.exception(30), StoreError)
    assert [one.event_id for one in store.lease("3", limit=9, seconds=60).events] == [other[0]]


def test_batches_are_full_and_every_event_is_leased_once(store: Store) -> None:
    store_rows(store, *ROWS)
    seen: list[str] = []
    for size in (15, 15, 10):
        lease = store.lease(PIXEL, limit=15, seconds=60)
        assert len(lease.events) == size
        seen += [one.event_id for one in lease.events]
        assert settle_all(store, lease.lease_id, [one.key for one in lease.events]) == size

    assert sorted(seen) == sorted(one.event_id for one in ROWS)
    assert store.depth() == {"delivered": 40}


def test_dead_letters_and_rows_are_paged_through_by_key_each_once(store: Store) -> None:
    store_rows(store, *ROWS)
    lease = store.lease(PIXEL, limit=40, seconds=60)
    store.settle(lease.lease_id, [Settlement(one.key, "dead", "code 100") for one in lease.events])

    letters, rows = [0], [0]
    while page := store.dead_letters(limit=7, after=letters[-1]):
        letters += [one.key for one in page]
    while found := store.recent(7, after=rows[-1] or -1):
        rows += [one.key for one in found]

    assert letters == rows == [0, *sorted(set(letters[1:]))]
    assert len(letters) == 41
    (one,) = store.dead_letters(limit=1, after=letters[20] - 1)
    assert one.key == letters[20]
    assert store.requeue([one.key]) == 1
    assert store.drop() == 39


def test_events_are_found_wherever_they_live(store: Store) -> None:
    store_rows(store, *ROWS)

    found = store.find([one.event_id for one in ROWS[:9]] + ["none"])

    assert sorted(one.event_id for one in found) == [f"e{n}" for n in range(9)]
    assert [one.key for one in found] == sorted(one.key for one in found)


def test_the_newest_rows_are_those_of_the_latest_events_whatever_their_keys(
    postgres_urls: list[str], store: Store
) -> None:
    store_rows(store, *ROWS)
    name = "pg_get_serial_sequence('capi_events', 'key')"
    execute(postgres_urls[0], f"SELECT setval({name}, 100001)")
    later = [row(f"n{n}", event_time=NOON + 1) for n in range(8)]
    store_rows(store, *later)

    assert {one.event_id for one in store.recent(8)} == {one.event_id for one in later}


def test_a_queue_that_is_full_is_so_for_its_share_and_counted(postgres_urls: list[str]) -> None:
    store = open_store(postgres_urls, queue_limit=20)
    here = [one for one in ROWS if store._home(one.event_id) == 0]  # type: ignore[attr-defined]
    other = next(one for one in ROWS if one not in here)
    assert len(here) > 10

    with pytest.raises(StoreFull):
        store.append([*here, other], wait=False)
    waits = store.append([*here, other], wait=True)

    assert waits is not None
    assert isinstance(waits.exception(30), StoreFull)
    store_rows(store, other)
    assert store.depth() == {"pending": 1}
    assert store.flush(30)  # what was dropped is counted by the database that nobody waited for
    counts = store.tallies(0, 2e10).counts
    assert [one for one in counts if one.kind == "dropped"] == [
        Count("dropped", "queue_full", "Purchase", PIXEL, 2 * len(here))
    ]
    store.close()


def test_one_bad_event_among_those_of_two_databases_is_found_in_few_requests(
    store: Store, clock: Clock
) -> None:
    rows = [row(f"e{n}", payload=b"%d" % n) for n in range(400)]
    store_rows(store, *rows)
    requests: list[Sequence[bytes]] = []

    class Client:
        def send(self, payloads: Sequence[bytes]) -> Outcome:
            requests.append(payloads)
            bad = b"123" in payloads
            return Outcome("invalid", "code 100/2804010") if bad else Outcome("delivered")

        def hear(self) -> Outcome | None:
            return None

        def close(self) -> None:
            pass

    courier = Courier(store, PIXEL, Client)
    while store.depth().get("pending"):
        courier._step()

    assert store.depth() == {"delivered": 399, "dead": 1}
    assert len(requests) <= 21


def test_the_commands_are_about_all_databases(
    postgres_urls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site(tmp_path, monkeypatch, FakeMeta()) as shop:
        shop.configure(store=postgres_urls)
        assert shop.run("migrate").exit_code == 0
        assert all(there(url) == set() for url in postgres_urls)
        rows = [row(f"e{n}", event_time=time.time() - n, pixel_id=PIXEL_ID) for n in range(40)]
        with shop.capi() as capi:
            store_rows(capi.store, *rows)
            lease = capi.store.lease(PIXEL_ID, limit=30, seconds=60)
            dead = [Settlement(one.key, "dead", "code 100") for one in lease.events]
            capi.store.settle(lease.lease_id, dead)

        assert shop.told("migrate") == {"events": 40}
        assert shop.told("health")["health"]["outbox"] == {"dead": 30, "pending": 10}
        assert len(shop.run("dead-letters", "list", "--json").stdout.splitlines()) == 30
        (event,) = shop.told("report")["events"]
        assert (event["event_name"], event["pending"]) == ("Purchase", 10)
        newest = [
            json.loads(line)
            for line in shop.run("tail", "--once", "--json").stdout.split("\n")
            if line
        ]
        assert {one["event_id"] for one in newest} >= {"e0", "e1", "e2"}
        assert "postgresql" in shop.run("check").stdout

        shop.configure(store=postgres_urls[::-1])
        refused = shop.run("migrate")
        assert refused.exit_code == 1
        assert "found database 1 of 2, expected 2 of 2" in refused.output


# one that is away


def test_a_server_that_is_down_harms_its_share_alone_and_loses_nothing(
    two_servers: list[str], server: Server, swallowed: list[BaseException]
) -> None:
    async def view(request: Request) -> HTMLResponse:
        track("Purchase", value=1, currency="EUR", dedupe_key=request.query_params["n"])
        return HTMLResponse("<html><head></head></html>")

    fake = FakeMeta()
    with serve(fake.app) as meta:
        capi = CAPI(make_config(store=two_servers, graph_url=meta, delivery=True, page_view=False))
        app = CAPIMiddleware(Starlette(routes=[Route("/", view)]), capi)
        client = TestClient(app, headers={"user-agent": "Mozilla/5.0"})

        def ask(first: int, end: int) -> list[str]:
            return [client.get("/", params={"n": n}).text for n in range(first, end)]

        def received() -> int:
            return len({one.key for one in fake.received.server})

        ask(0, 10)
        until("the first events", lambda: received() == 10)
        elsewhere = there(two_servers[1])
        server.stop()
        pages = ask(10, 50)
        until("the other share", lambda: received() == len(there(two_servers[0]) | elsewhere) > 10)
        before = received()
        server.start()
        until("all events", lambda: received() == 50, 60)
        until("the ledger", lambda: capi.store.depth() == {"delivered": 50}, 60)
        capi.close()

    assert all("_capi" in page for page in pages)
    assert before < 50
    assert not any("lost" in str(error) for error in swallowed)
    swallowed.clear()


def test_what_was_delivered_while_its_database_was_away_is_not_sent_again(
    two_servers: list[str], server: Server
) -> None:
    store = open_store(two_servers, queue_limit=100)
    store_rows(store, *ROWS)
    mine = len(there(two_servers[0]))
    lease = store.lease(PIXEL, limit=99, seconds=60)
    server.stop()

    held = settle_all(store, lease.lease_id, [one.key for one in lease.events])
    with pytest.raises(StoreError):
        store.depth()
    assert store.lease(PIXEL, limit=99, seconds=60).events == []
    server.start()

    def all_is_known() -> bool:
        assert store.lease(PIXEL, limit=99, seconds=60).events == []
        with suppress(StoreError):
            return store.depth() == {"delivered": 40}
        return False

    until("its return", all_is_known)
    assert held == mine
    store.close()


def test_couriers_do_without_a_database_that_is_away_and_reports_do_not(
    two_servers: list[str], server: Server
) -> None:
    store = open_store(two_servers, queue_limit=100)
    store_rows(store, *ROWS)
    mine = there(two_servers[0])
    server.stop()

    store.pause(PIXEL, seconds=60, reason="code 4")
    assert [one.reason for one in store.pauses()] == ["code 4"]
    store.resume(PIXEL)
    assert list(store.pauses()) == []
    assert store.conversion_waits(PIXEL)
    assert store.next_due(PIXEL) == 0.0
    assert list(store.look([PIXEL], every=2.0).due) == [PIXEL]
    assert {one.event_id for one in store.lease(PIXEL, limit=99, seconds=60).events} == mine
    for ask in (store.depth, store.backlog, lambda: store.tallies(0, NOON), lambda: store.prune(0)):
        with pytest.raises(StoreError, match="cannot be used: nothing listens at that port"):
            ask()
    store.close()


def test_a_database_that_hangs_is_not_asked_again_for_nine_times_as_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    well, ill = (open_store("memory:", queue_limit=9) for _ in range(2))
    store, now, asked = Shards([well, ill]), [0.0], 0

    def hang() -> Sequence[Pause]:
        nonlocal asked
        asked += 1
        now[0] += 5.0
        raise StoreError("it hangs")

    monkeypatch.setattr(ill, "pauses", hang)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    for at in (0.0, 6.0, 49.0, 51.0):
        now[0] = max(now[0], at)
        assert list(store.pauses()) == []

    assert asked == 2
    assert now[0] == 56.0
