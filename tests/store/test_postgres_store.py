"""PostgresStore as a citizen of its server: others' claims, lost connections, rights, forks."""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from capi_middleware.cli.tail import Watch
from capi_middleware.errors import StoreError
from capi_middleware.events import Count, Sighting
from capi_middleware.store.link import Link, Outage, Session
from capi_middleware.store.postgres import PostgresEngine
from capi_middleware.store.records import DUTY_SECONDS, LONGEST_TURN, Look, Settlement
from capi_middleware.store.store import Store
from tests.support.postgres import execute
from tests.support.servers import closed_port
from tests.support.stores import NOON, PIXEL, Clock, postgres_store, row, store_rows

KILL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'capi_middleware'"
)


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    store = postgres_store(postgres_url)
    yield store
    store.close()


def test_nothing_is_opened_before_the_first_use() -> None:
    store = postgres_store("postgresql://nobody:pa55word@127.0.0.1:1/none")
    store.close()


def test_closing_ends_in_time_while_somebody_uses_its_connections(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgresEngine, "close_seconds", 0.2)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with store._engine.transaction("read"), store._engine.group(object()):
            held.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    store.append([row()], wait=False)
    store.close()
    assert holder.is_alive()  # it was not waited for
    release.set()
    holder.join(60)

    assert store.flush(30)


def test_two_couriers_never_claim_the_same_event(store: Store, postgres_url: str) -> None:
    rows = [row(f"e{n}", event_time=time.time()) for n in range(400)]
    store_rows(store, *rows)
    stores = [postgres_store(postgres_url) for _ in range(4)]
    claimed: list[int] = []

    def claim(one: Store) -> None:
        while events := one.lease(PIXEL, limit=7, seconds=60).events:
            claimed.extend(event.key for event in events)

    threads = [threading.Thread(target=claim, args=(one,)) for one in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for one in stores:
        one.close()

    assert len(claimed) == len(set(claimed)) == 400


def test_the_leases_of_a_store_without_clock_are_by_the_clock_of_the_database(
    store: Store, postgres_url: str
) -> None:
    store_rows(store, row(event_time=time.time()))
    store.lease(PIXEL, limit=1, seconds=60)
    ((left,),) = execute(
        postgres_url,
        "SELECT until - extract(epoch FROM clock_timestamp())::float8 FROM capi_leases",
    )
    assert 50 < left <= 60


def test_a_connection_that_is_ended_is_opened_again(store: Store, postgres_url: str) -> None:
    store_rows(store, row("e1", event_time=time.time()))
    assert store.depth() == {"pending": 1}
    execute(postgres_url, KILL)

    assert store.depth() == {"pending": 1}
    store_rows(store, row("e2", event_time=time.time()))
    assert store.depth() == {"pending": 2}


def test_what_is_appended_while_the_connection_breaks_is_stored_and_counted_once(
    store: Store, postgres_url: str
) -> None:
    store.count([Count("error", "x")])
    store_rows(store, row("first", event_time=time.time()))
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.02):
            execute(postgres_url, KILL)

    killer = threading.Thread(target=kill)
    killer.start()
    for n in range(60):
        store.append([row(f"e{n}", event_time=time.time())], wait=False)
        store.count([Count("error", "x")])
        time.sleep(0.01)
    stop.set()
    killer.join()

    assert store.flush(30)
    assert store.depth() == {"pending": 61}
    counts = {one.reason: one.n for one in store.tallies(0, time.time() + 9999).counts}
    assert counts == {"x": 61}


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_commit_whose_answer_was_lost_is_not_made_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    store_rows(store, row("e1", event_time=time.time()))
    honest = psycopg.Connection.commit
    lost: list[int] = []
    assert isinstance(store._engine, PostgresEngine)
    link = store._engine.writing_link

    def commit(self: "psycopg.Connection[object]") -> None:
        honest(self)
        if (
            len(lost) < times
            and link._db is self
            and threading.current_thread().name == "capi-store-writer"
        ):
            lost.append(1)
            raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(psycopg.Connection, "commit", commit)
    store.count([Count("error", "x")])
    store_rows(store, row("e2", event_time=time.time()))

    assert lost == [1] * times
    assert store.flush(10)
    counts = {one.reason: one.n for one in store.tallies(0, time.time() + 9999).counts}
    assert (store.depth(), counts) == ({"pending": 2}, {"x": 1})


def test_a_server_that_comes_late_gets_what_waited(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = postgres_store(postgres_url)
    honest, tries = Session.connect, []

    def connect(*given: object, **more: object) -> object:
        tries.append(1)
        if len(tries) < 4:
            raise psycopg.OperationalError("connection refused")
        return honest(*given, **more)  # type: ignore[arg-type] # as the caller gave them

    monkeypatch.setattr(Session, "connect", connect)
    future = store.append([row(event_time=time.time())], wait=True)
    assert future is not None
    future.result(30)

    assert store.depth() == {"pending": 1}
    store.close()


def test_what_cannot_be_stored_fails_alone(store: Store) -> None:
    bad = row("nul\0", event_time=time.time())
    futures = [store.append([one], wait=True) for one in (row("e1"), bad, row("e2"))]
    results = [future.exception(30) for future in futures if future is not None]

    assert [type(one) for one in results] == [type(None), StoreError, type(None)]
    assert store.depth() == {"pending": 2}


def test_the_password_is_in_no_repr_error_or_log(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    refused = closed_port().replace("http://", "postgresql://someone:pa55word@") + "/shop"
    store = postgres_store(refused)
    with pytest.raises(StoreError) as caught:
        store.depth()
    assert "pa55word" not in f"{caught.value!r} {caught.value} {store!r} {caplog.text}"
    assert "127.0.0.1/shop" in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_newer_schema_is_refused(store: Store, postgres_url: str) -> None:
    store_rows(store, row())
    execute(postgres_url, "UPDATE capi_schema SET version = 999")
    other = postgres_store(postgres_url)
    with pytest.raises(StoreError, match="found schema 999, expected 1"):
        other.depth()
    other.close()


def test_missing_rights_are_one_clear_error(postgres_url: str) -> None:
    execute(postgres_url, "REVOKE ALL ON SCHEMA public FROM public")
    execute(postgres_url, f"CREATE ROLE reader_{os.getpid()} LOGIN PASSWORD 'x'")
    store = postgres_store(postgres_url.replace("//postgres:", f"//reader_{os.getpid()}:"))
    with pytest.raises(StoreError, match=r"the database refused a statement: \w+ \(\w{5}\)"):
        store.depth()
    store.close()
    execute(postgres_url, f"DROP ROLE reader_{os.getpid()}")


def test_eight_first_starts_at_once_make_one_schema(postgres_url: str) -> None:
    stores = [postgres_store(postgres_url) for _ in range(8)]
    errors: list[BaseException] = []

    def use(store: Store, n: int) -> None:
        try:
            store_rows(store, row(f"e{n}", event_time=time.time()))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=use, args=(one, n)) for n, one in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert errors == []
    assert stores[0].depth() == {"pending": 8}
    for store in stores:
        store.close()


def test_a_child_uses_connections_of_its_own_and_leaves_those_of_its_parent(
    store: Store,
) -> None:
    store_rows(store, row("e1", event_time=time.time()))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store_rows(store, row("e2", event_time=time.time()))
            code = 0 if store.depth() == {"pending": 2} else 2
            store.close()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert store.depth() == {"pending": 2}


def test_two_processes_that_count_and_sight_the_same_do_not_lock_each_other(
    store: Store, postgres_url: str
) -> None:
    other = postgres_store(postgres_url)
    rows = [row(f"e{n}", browser="not_run") for n in range(50)]
    store_rows(store, *rows)

    def work(one: Store, order: int) -> None:
        for _ in range(20):
            some = rows[::order]
            one.count([Count("error", f"r{n}") for n in range(10)][::order])
            one.sight([Sighting(r.event_id, r.event_name, PIXEL, "csp") for r in some])

    threads = [threading.Thread(target=work, args=(store, 1)),
               threading.Thread(target=work, args=(other, -1))]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert store.flush(30)
    assert other.flush(30)
    counts = {one.reason: one.n for one in store.tallies(0, 2 * NOON).counts if one.kind == "error"}
    assert counts == {f"r{n}": 40 for n in range(10)}
    other.close()


def test_late_words_about_a_lease_that_ran_out_are_ignored(store: Store, postgres_url: str) -> None:
    store_rows(store, row(event_time=time.time()))
    old = store.lease(PIXEL, limit=1, seconds=0.01)
    time.sleep(0.05)
    new = store.lease(PIXEL, limit=1, seconds=60)

    assert store.settle(old.lease_id, [Settlement(old.events[0].key, "dead")]) == 0
    assert store.settle(new.lease_id, [Settlement(new.events[0].key, "delivered")]) == 1


def test_tail_prints_what_another_process_commits_late(
    store: Store, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Watch(None, None, as_json=True)
    store_rows(store, row("before"))
    watch.begin(store)
    with psycopg.connect(postgres_url) as other:
        other.execute(
            b"INSERT INTO capi_events (event_id, event_name, pixel_id, event_time, created_at, "
            b"server, due_at, browser, match_keys) "
            b"VALUES ('late', 'Purchase', '1', 0, 0, 'unmapped', 0, 'sent', 0)"
        )
        store_rows(store, row("early"))
        watch.look(store)
    watch.look(store)
    watch.look(store)

    lines = map(json.loads, capsys.readouterr().out.splitlines())
    assert [one["event_id"] for one in lines] == ["before", "early", "late"]


def test_a_link_that_failed_waits_before_it_tries_again() -> None:
    url = closed_port().replace("http", "postgresql")
    link = Link(url, b"SELECT 1", b"SELECT 1", Outage(url))
    for _ in range(3):
        with pytest.raises(StoreError), link.transaction():
            pass
    assert link._failures == 1


def test_couriers_and_pages_that_meet_at_the_same_events_do_not_lock_each_other(
    store: Store, postgres_url: str
) -> None:
    rows = [row(f"e{n}", event_time=time.time(), browser="not_run") for n in range(1200)]
    store_rows(store, *rows)
    stores = [postgres_store(postgres_url) for _ in range(4)]
    errors: list[BaseException] = []

    def deliver(one: Store) -> None:
        try:
            for _ in range(25):
                leased = one.lease(PIXEL, limit=300, seconds=0.001)
                settled = [Settlement(event.key, "pending") for event in leased.events[::-1]]
                one.settle(leased.lease_id, settled)
        except StoreError as error:
            errors.append(error)

    def sight(one: Store) -> None:
        for _ in range(10):
            some = [Sighting(r.event_id, r.event_name, PIXEL, "csp") for r in rows[::-1]]
            errors.extend(filter(None, [one.sight(some).exception(30)]))

    threads = [threading.Thread(target=deliver, args=(one,)) for one in stores]
    threads.append(threading.Thread(target=sight, args=(stores[0],)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for one in stores:
        one.close()

    assert errors == []
    ((deadlocks,),) = execute(
        postgres_url,
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
    )
    assert deadlocks == 0


def test_processes_take_turns_to_look_and_one_of_them_is_on_duty(
    store: Store, postgres_url: str
) -> None:
    clock = Clock()
    stores = [postgres_store(postgres_url, clock=clock) for _ in range(3)]
    looks = [one.look([PIXEL, "2"], every=2.0) for one in stores]
    assert [one.seconds for one in looks] == [2.0, 4.0, 6.0]
    assert [one.on_duty for one in looks] == [True, False, False]
    assert stores[0].look(["2", PIXEL], every=2.0).seconds == 8.0  # the same pixels
    assert stores[0].look(["3"], every=2.0) == Look(set(), 2.0, True)  # others

    clock.now += DUTY_SECONDS
    assert stores[1].look([PIXEL, "2"], every=2.0) == Look(set(), 2.0, True)
    for one in stores:
        one.close()


def test_each_of_many_processes_looks_now_and_then_whoever_was_killed(postgres_url: str) -> None:
    store = postgres_store(postgres_url, clock=Clock())
    seconds = [store.look([PIXEL], every=2.0).seconds for _ in range(60)]
    store.close()

    assert seconds == [min(2.0 * turn, LONGEST_TURN) for turn in range(1, 61)]


def test_an_idle_look_is_one_query_and_no_claim(store: Store, postgres_url: str) -> None:
    store.look([PIXEL], every=2.0)
    asked: list[bytes] = []
    honest = psycopg.Cursor.execute

    def execute(self: object, query: bytes, *given: object, **more: object) -> object:
        asked.append(query)
        return honest(self, query, *given, **more)  # type: ignore[call-overload] # as given

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", execute)
        store.look([PIXEL], every=2.0)
    assert len(asked) == 1
    assert asked[0].startswith(b"WITH clock")


def test_what_is_read_in_one_moment_is_one_transaction(store: Store, postgres_url: str) -> None:
    store_rows(store, row("e1"))
    with store.moment():
        before = store.depth()
        other = postgres_store(postgres_url)
        store_rows(other, row("e2"))
        other.close()
        assert store.depth() == before == {"pending": 1}
    assert store.depth() == {"pending": 2}


def test_eight_couriers_have_a_batch_each_at_once(store: Store, postgres_url: str) -> None:
    store_rows(store, *(row(f"e{n}", event_time=time.time()) for n in range(800)))
    stores = [postgres_store(postgres_url) for _ in range(8)]
    leases = [one.lease(PIXEL, limit=100, seconds=60) for one in stores]  # Meta has not answered
    for one, lease in zip(stores, leases, strict=True):
        one.settle(lease.lease_id, [Settlement(event.key, "delivered") for event in lease.events])
        one.close()

    keys = [event.key for lease in leases for event in lease.events]
    assert [len(lease.events) for lease in leases] == [100] * 8
    assert len(set(keys)) == 800
    assert store.depth() == {"delivered": 800}
