"""A platform's tenants bring pixels and tokens of their own: jobs, couriers and what they keep."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from capi_middleware import CAPI, Config, ConfigError, Pixel, Tenant, UserData
from capi_middleware.delivery import deliverer
from capi_middleware.delivery.courier import Courier, TenantCourier
from capi_middleware.delivery.deliverer import MOST_IDLE, MOST_THREADS, Deliverer
from capi_middleware.delivery.rounds import Way
from capi_middleware.report.read import read_report
from capi_middleware.report.window import parse_window
from capi_middleware.request.tenants import (
    MOST_TENANTS,
    NOBODY_SECONDS,
    TENANT_SECONDS,
    Tenants,
)
from capi_middleware.store.records import OLDEST_EVENT
from capi_middleware.store.store import Store
from capi_middleware.testing import FakeMeta, MemoryStore
from tests.delivery.test_deliverer import Meta
from tests.support.configs import SECRET, make_config
from tests.support.processes import until
from tests.support.stores import row, sqlite_store, store_rows

FIRST = Tenant("first", [Pixel("111", access_token="token-of-first")])
SECOND = Tenant("second", [Pixel("222", access_token="token-of-second")])
#: Has a pixel with the number of the first one's.
COPIER = Tenant("copier", [Pixel("111", access_token="token-of-copier")])
WHO = UserData(em="jane@example.com")
TENANTS = {one.key: one for one in (FIRST, SECOND, COPIER)}


def config_of(**settings: Any) -> Config:
    return make_config(**{"pixels": [], "tenant": TENANTS.get, **settings})


@pytest.fixture(scope="module")
def meta() -> Iterator[FakeMeta]:
    fake = FakeMeta(tokens={"111": "token-of-first", "222": "token-of-second"})
    with fake.serve():
        yield fake


@pytest.fixture
def capi(meta: FakeMeta) -> Iterator[CAPI]:
    made = CAPI(config_of(delivery=True, graph_url=meta.url))
    yield made
    made.close(0.5)
    meta.received.server.clear()


def test_a_job_sends_each_tenants_events_with_its_own_token(capi: CAPI, meta: FakeMeta) -> None:
    for key in ("first", "second"):
        capi.track("Lead", tenant=key, user_data=WHO)
    assert capi.flush(20)
    assert sorted(one.pixel_id for one in meta.received.server) == ["111", "222"]


def test_a_tenant_that_names_anothers_pixel_needs_its_own_token_for_it(
    capi: CAPI, meta: FakeMeta
) -> None:
    capi.track("Lead", tenant="copier", user_data=WHO)
    capi.track("Lead", tenant="first", user_data=WHO)
    until("a rest of one", lambda: capi.store.pauses())
    until("the other's delivery", lambda: capi.store.depth().get("delivered") == 1)
    assert [one.pixel_id for one in capi.store.pauses()] == ["111@copier"]
    assert len(meta.received.server) == 1


def test_two_tenants_may_have_an_order_of_the_same_number(capi: CAPI) -> None:
    one, other, again = (
        capi.track("Purchase", tenant=key, dedupe_key=1001, value=5, currency="EUR", user_data=WHO)
        for key in ("first", "second", "first")
    )
    assert one.event_id == again.event_id != other.event_id
    assert sum(capi.store.depth().values()) == 2


@pytest.mark.parametrize("key", [None, "nobody", "no key"])
def test_a_job_needs_a_tenant_that_there_is(key: str | None) -> None:
    with pytest.raises(ConfigError, match="tenant: found"):
        CAPI(config_of(debug=True)).track("Lead", tenant=key)
    with pytest.raises(ConfigError, match="tenant: found None"):
        CAPI(config_of()).track("Lead")


@pytest.mark.parametrize("key", ["nobody", "no key"])
def test_a_job_for_a_customer_who_left_goes_on_and_its_event_is_counted(
    key: str, caplog: pytest.LogCaptureFixture
) -> None:
    capi = CAPI(config_of())
    for n in range(2):
        event = capi.track("Lead", tenant=key, user_data=WHO, dedupe_key=n + 1, pixels=["111"])
        assert event.pixel_ids == ()
    assert capi.store.depth() == {}
    counts = capi.store.tallies(0.0, 1e12).counts
    assert [(one.kind, one.reason, one.event_name, one.n) for one in counts] == [
        ("dropped", "no_tenant", "Lead", 2)
    ]
    (flag,) = read_report(capi.store, capi.config, parse_window({}, time.time())).flags
    assert (flag.event_name, "tenant" in flag.fix) == ("Lead", True)
    told = [one for one in caplog.records if one.name == "capi_middleware"]
    assert [one.getMessage().count(repr(key)) for one in told] == [1]


def test_a_site_without_tenants_takes_none() -> None:
    with pytest.raises(ConfigError, match="without Config"):
        CAPI(make_config()).track("Lead", tenant="first")


def test_pixels_may_be_chosen_by_metas_number() -> None:
    two = Tenant("two", [Pixel("1", access_token="a"), Pixel("2", access_token="b")])
    capi = CAPI(config_of(tenant={"two": two}.get))
    assert capi.track("Lead", tenant="two", pixels=["2"]).pixel_ids == ("2@two",)
    with pytest.raises(ValueError, match="pixels: found"):
        capi.track("Lead", tenant="two", pixels=["3"])


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"tenant": 5}, "tenant: found"),
        ({"tenant": None, "pixels": lambda _: "first"}, "tenant: found none"),
        ({"pixels": [Pixel("1", access_token="a")]}, "pixels: found a list beside tenant"),
        ({"ad_account": "1"}, "ad_account: found one beside tenant"),
    ],
    ids=["no function", "no look-up", "both", "an account"],
)
def test_a_config_that_cannot_work_says_why(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        config_of(**settings)


@pytest.mark.parametrize("key", ["", "a b", "a@b", "x" * 65, "ä"])
def test_a_tenants_key_is_a_short_name(key: str) -> None:
    with pytest.raises(ConfigError, match=r"Tenant\.key"):
        Tenant(key, [])


def test_no_token_shows() -> None:
    tenant = Tenant("a", [Pixel("1", access_token="secret-one")], report_token="secret-two-secret")
    assert "secret" not in repr(tenant) + repr(config_of(tenant={"a": tenant}.get))


def test_no_token_is_in_the_store(tmp_path: Path) -> None:
    capi = CAPI(config_of(store=f"sqlite:///{tmp_path}/capi.db"))
    capi.track("Lead", tenant="first")
    capi.close()
    found = b"".join(one.read_bytes() for one in tmp_path.iterdir())
    assert b"111@first" in found
    assert b"token-of-first" not in found


# -- what is remembered ----------------------------------------------------------------------


class Site:
    """Looks tenants up and knows how often; `fails` as its database would."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails = False
        self.now = 1000.0
        self.tenants = Tenants(self.look_up, lambda: self.now)

    def look_up(self, key: str) -> Tenant | None:
        self.asked.append(key)
        if self.fails:
            raise OSError
        return TENANTS.get(key)


def test_a_tenant_is_looked_up_once_in_some_minutes() -> None:
    site = Site()
    assert [site.tenants.get("first") for _ in range(3)] == [FIRST] * 3
    assert site.asked == ["first"]
    site.now += TENANT_SECONDS
    site.tenants.get("first")
    assert site.asked == ["first"] * 2


def test_a_new_customer_is_found_sooner() -> None:
    site = Site()
    assert site.tenants.get("nobody") is None
    assert site.tenants.get("nobody") is None
    site.now += NOBODY_SECONDS
    site.tenants.get("nobody")
    assert site.asked == ["nobody"] * 2


def test_what_was_known_stands_while_the_sites_database_is_away() -> None:
    site = Site()
    site.tenants.get("first")
    site.fails, site.now = True, site.now + TENANT_SECONDS
    assert site.tenants.get("first") is FIRST
    assert site.tenants.get("first") is FIRST
    assert site.asked == ["first"] * 2  # it is away, and not asked by each page
    with pytest.raises(OSError):
        site.tenants.get("second")
    site.fails, site.now = False, site.now + NOBODY_SECONDS
    assert site.tenants.get("first") is FIRST
    assert site.asked[3:] == ["first"]


def test_a_customer_who_left_is_nobody() -> None:
    here = dict(TENANTS)
    tenants, now = Tenants(here.get, lambda: now), 0.0
    assert tenants.get("first") is FIRST
    del here["first"]
    now = TENANT_SECONDS
    assert tenants.get("first") is None
    assert tenants.known("first") is None


def test_others_go_by_what_was_known_while_one_asks_again() -> None:
    calls: list[Tenant | None] = []

    def look_up(key: str) -> Tenant:
        if now:
            calls.append(tenants.get(key))  # as another thread would, meanwhile
        return FIRST

    tenants, now = Tenants(look_up, lambda: now), 0.0
    tenants.get("first")
    now = TENANT_SECONDS
    assert tenants.get("first") is FIRST
    assert calls == [FIRST]


def test_hosts_that_strangers_make_up_push_out_no_tenant() -> None:
    site = Site()
    site.tenants.get("first")
    for n in range(MOST_TENANTS + 5):
        site.tenants.get(f"made-up-{n}")
    assert site.tenants.known("first") is FIRST
    assert len(site.tenants._nobodys) == MOST_TENANTS


def test_strangers_make_us_ask_for_so_many_only_and_a_tenant_is_always_known() -> None:
    site = Site()
    site.tenants.get("first")
    for n in range(1000):
        if site.tenants.may_ask(f"made-up-{n}", "8.8.8.8"):
            site.tenants.get(f"made-up-{n}")
    assert len(site.asked) < 200
    assert site.tenants.may_ask("first", "8.8.8.8")
    assert site.tenants.may_ask("made-up-0", "8.8.8.8")
    assert not site.tenants.may_ask("second", "8.8.8.8")
    assert site.tenants.may_ask("second", "9.9.9.9")


def test_only_so_many_are_remembered() -> None:
    tenants = Tenants(lambda key: Tenant(key, []))
    for n in range(MOST_TENANTS + 5):
        tenants.get(str(n))
    assert len(tenants._known) == MOST_TENANTS


def test_the_look_up_may_be_asynchronous_wherever_it_is_asked() -> None:
    async def look_up(key: str) -> Tenant | None:
        return TENANTS.get(key)

    async def ask() -> Tenant | None:
        return Tenants(look_up).get("second")

    assert Tenants(look_up).get("first") is FIRST
    assert asyncio.run(ask()) is SECOND


def test_a_look_up_that_gives_another_tenant_is_refused() -> None:
    with pytest.raises(ConfigError, match="the tenant 'first'"):
        Tenants(lambda _: FIRST).get("second")


# -- couriers ----------------------------------------------------------------------


def on_demand(store: Store, meta: Meta) -> Deliverer:
    """A deliverer for whichever pixels have events."""
    return delivering(store, lambda one: TenantCourier(store, one, lambda: Way(lambda: meta)))


def delivering(store: Store, make: Callable[[str], Courier]) -> Deliverer:
    made = Deliverer(store, [], make=make)
    store.on_commit = made.wake
    made.start()
    return made


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_many_tenants_share_few_threads_and_leave_nothing_behind(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capi_middleware.delivery.courier.POLL_SECONDS", 0.05)
    meta, n = Meta(), 300
    made = on_demand(store, meta)
    store_rows(store, *(row(f"e{one}", pixel_id=f"1@t{one}") for one in range(n)))
    until("all of them", lambda: store.depth() == {"delivered": n})
    assert meta.most <= MOST_THREADS
    until("few couriers", lambda: len(made._couriers) <= MOST_IDLE)
    assert made.stop(30)


def test_a_dead_tenant_holds_up_nobody(store: MemoryStore) -> None:
    meta, hanging = Meta(), Meta()
    hanging.answers.clear()

    def make(pixel_id: str) -> TenantCourier:
        way = Way(lambda: hanging if pixel_id == "1@dead" else meta)
        return TenantCourier(store, pixel_id, lambda: way)

    made = delivering(store, make)
    store_rows(store, row("e0", pixel_id="1@dead"))
    store_rows(store, *(row(f"e{one}", pixel_id=f"1@t{one}") for one in range(1, 51)))
    until("the others", lambda: store.depth().get("delivered") == 50)
    hanging.answers.set()
    assert made.stop(30)


def test_a_look_up_that_hangs_holds_up_nobody(store: MemoryStore) -> None:
    meta, gate = Meta(), threading.Event()

    def make(pixel_id: str) -> TenantCourier:
        def find() -> Way:
            if pixel_id == "1@slow":
                gate.wait(60)
            return Way(lambda: meta)

        return TenantCourier(store, pixel_id, find)

    made = delivering(store, make)
    store_rows(store, row("e0", pixel_id="1@slow"), row("e1", pixel_id="1@quick"))
    until("the quick one", lambda: store.depth().get("delivered") == 1)
    gate.set()
    until("the slow one", lambda: store.depth() == {"delivered": 2})
    assert made.stop(30)


def test_events_of_nobody_wait_until_the_site_knows_the_tenant(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capi_middleware.delivery.courier.POLL_SECONDS", 0.05)
    meta, known, asked = Meta(), threading.Event(), threading.Event()

    def find() -> Way | None:
        asked.set()
        return Way(lambda: meta) if known.is_set() else None

    made = delivering(store, lambda one: TenantCourier(store, one, find))
    store_rows(store, row("e0", pixel_id="1@new"))
    assert asked.wait(60)
    until("its rest", store.pauses)
    assert [one.reason for one in store.pauses()] == ["no_tenant"]
    assert store.depth() == {"pending": 1}
    known.set()
    until("its delivery", lambda: store.depth() == {"delivered": 1}, 60)
    assert made.stop(30)


def test_events_of_a_customer_who_left_expire_and_are_counted_as_such(store: MemoryStore) -> None:
    made = delivering(store, lambda one: TenantCourier(store, one, lambda: None))
    old = time.time() - OLDEST_EVENT - 60
    store_rows(store, row("e0", pixel_id="1@left", event_time=old), row("e1", pixel_id="1@left"))
    until("its end", lambda: store.depth().get("expired"), 60)
    until("a rest for the other", store.pauses, 60)
    assert store.depth() == {"expired": 1, "pending": 1}
    assert made.stop(30)


def test_who_waits_for_all_to_be_delivered_waits_for_tenants_that_nobody_woke_yet(
    store: MemoryStore,
) -> None:
    meta = Meta()
    made = Deliverer(
        store, [], make=lambda one: TenantCourier(store, one, lambda: Way(lambda: meta))
    )
    store_rows(store, row("e0", pixel_id="1@a"), row("e1", pixel_id="1@b"))
    assert made.deliver_now(60)
    assert store.depth() == {"delivered": 2}
    assert made.stop(30)


def test_what_another_process_commits_is_found_whoever_it_is_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capi_middleware.delivery.courier.POLL_SECONDS", 0.05)
    here, there = (sqlite_store(tmp_path / "capi.db") for _ in range(2))
    made = on_demand(here, Meta())
    store_rows(there, *(row(f"e{one}", pixel_id=f"1@t{one}") for one in range(3)))
    until("their delivery", lambda: here.depth() == {"delivered": 3})
    assert made.stop(30)
    here.close()
    there.close()


def test_a_courier_is_dropped_in_time_to_learn_of_a_new_token(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capi_middleware.delivery.courier.POLL_SECONDS", 0.05)
    monkeypatch.setattr(deliverer, "IDLE_SECONDS", 0.0)
    made = on_demand(store, Meta())
    store_rows(store, row("e0", pixel_id="1@t"))
    until("its delivery", lambda: store.depth() == {"delivered": 1})
    until("its end", lambda: not made._couriers)
    store_rows(store, row("e1", pixel_id="1@t"))
    until("another one", lambda: store.depth() == {"delivered": 2})
    assert made.stop(30)


FORKING = """
import os, sys
from capi_middleware import CAPI, Config, Pixel, Tenant, UserData

secret, store, meta = sys.argv[1:]
asked = []

def tenant(key):
    asked.append((os.getpid(), key))
    number = {"first": "111", "second": "222"}[key]
    return Tenant(key, [Pixel(number, access_token="token-of-" + key)])

def lead(key):
    capi.track("Lead", tenant=key, user_data=UserData(em="jane@example.com"))

capi = CAPI(Config(secret, [], tenant=tenant, store=store, graph_url=meta, action_source="other"))
lead("first")
children = []
for _ in range(2):
    children.append(os.fork())
    if children[-1] == 0:
        lead("first")
        lead("second")
        ok = capi.flush(60) and (os.getpid(), "second") in asked
        capi.close()
        os._exit(not ok)
ended = [os.waitpid(child, 0)[1] for child in children]
assert ended == [0, 0], ended
assert capi.flush(60)
capi.close()
"""


def test_forked_workers_deliver_for_tenants_that_they_look_up_themselves(
    tmp_path: Path, meta: FakeMeta
) -> None:
    command = [sys.executable, "-c", FORKING, SECRET, f"sqlite:///{tmp_path / 'capi.db'}", meta.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert sorted(one.pixel_id for one in meta.received.server) == ["111"] * 3 + ["222"] * 2
    meta.received.server.clear()
