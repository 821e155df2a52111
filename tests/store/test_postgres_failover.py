"""PostgreSQL that goes away, comes back, or is another server: nothing is lost, and it is told."""

import logging
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from capi_middleware.errors import ConfigError, StoreError
from capi_middleware.events import Count
from capi_middleware.shield import Shield
from capi_middleware.store import link
from capi_middleware.store.opening import open_store
from capi_middleware.store.store import Store
from capi_middleware.store.writer import AwayError
from tests.support.certificates import certified
from tests.support.postgres import execute
from tests.support.postgres_pair import PASSWORD, Pair, Server, address, at, lone, pair
from tests.support.processes import until
from tests.support.servers import closed_port
from tests.support.stores import postgres_store, row, store_rows
from tests.torture.failover import mend, play

KILL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name = 'capi_middleware'"
)


@pytest.fixture(scope="module")
def two_servers() -> Iterator[Pair]:
    with pair() as made:
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with lone() as made:
        yield made


@pytest.fixture
def url(server: Server) -> str:
    """A server without tables of ours."""
    execute(server.url, "DROP SCHEMA IF EXISTS public CASCADE")
    execute(server.url, "CREATE SCHEMA public")
    return server.url


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("take over", "both"),
        ("promoted before the old one ends", "both"),
        ("read-only for a while", "both"),
        ("tables away", "both"),
        ("not replicated, number used", "address"),
        ("pgbouncer dies often", "pool"),
        ("restart behind a paused pgbouncer", "pool"),
    ],
)
def test_a_failover_under_load_loses_nothing_and_counts_once(
    two_servers: Pair, name: str, way: str
) -> None:
    verdict = play(two_servers, name, way)

    assert verdict.holds, verdict
    assert verdict.accepted > 0


def test_an_outage_is_one_line_when_it_lasts_and_one_when_it_is_over(
    url: str,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    swallowed: list[BaseException],
) -> None:
    caplog.set_level(logging.INFO, "capi_middleware")
    store = postgres_store(url)
    shield = Shield(store.count)
    store_rows(store, row("before"))
    server.stop("immediate")
    commits = [store.append([row(f"e{n}")], wait=True) for n in range(20)]
    until("the word on it", lambda: caplog.messages)
    for _ in range(20):  # couriers, reports and pages that find it away
        with shield.guard("a page"):
            store.depth()
    server.start()
    for commit in commits:
        assert commit is not None
        commit.result(30)
    store.close()

    swallowed.clear()
    first, last = caplog.messages
    assert "127.0.0.1/postgres cannot be used: nothing listens at that port" in first
    assert "127.0.0.1/postgres could not be used for " in last


def elsewhere(url: str, database: str) -> str:
    return url.removesuffix("postgres") + database


def why(url: str) -> str:
    """What the log and callers are told of a store that cannot be opened."""
    store = postgres_store(url)
    with pytest.raises(AwayError) as caught:
        store.depth()
    store.close()
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


def test_why_nobody_can_connect_is_told_apart(url: str, server: Server) -> None:
    refused = closed_port().replace("http", "postgresql")

    assert "refuses the user or the password" in why(url.replace(PASSWORD, "wrong"))
    assert "refuses the user or the password" in why(url.replace("//postgres:", "//nobody:"))
    assert "has no such database" in why(elsewhere(url, "nowhere"))
    assert "nothing listens at that port" in why(f"{refused}/shop")
    assert "no such host is known" in why("postgresql://nowhere.invalid/shop")
    assert "TLS failed" in why(f"{url}?sslmode=require")


def test_what_a_pool_says_that_cannot_reach_its_server_is_in_words() -> None:
    said = "server login has been failing, try again later (server_login_retry)"
    words = link.words_of(psycopg.errors.ProtocolViolation(said))
    assert words == "the pool in front of it cannot reach it"


def test_each_of_several_hosts_is_told(url: str, server: Server) -> None:
    refused = closed_port().removeprefix("http://")
    both = url.replace("127.0.0.1", f"{refused},127.0.0.1").replace(PASSWORD, "wrong")

    told = why(both)
    assert "refuses the user or the password" in told
    assert "nothing listens at that port" in told


def test_a_certificate_of_another_host_is_refused_and_the_right_one_is_taken(
    url: str, server: Server, tmp_path: Path
) -> None:
    root, context = certified(tmp_path, "localhost")
    with address(server, context) as proxy:
        wanted = at(proxy.port, sslmode="verify-full", sslrootcert=root)

        assert "its certificate is not the expected one" in why(wanted)
        assert "its certificate is not the expected one" in why(
            at(proxy.port, sslmode="verify-full", sslrootcert=certified(tmp_path, "other")[0])
        )
        store = postgres_store(wanted.replace("127.0.0.1", "localhost"))
        store_rows(store, row("e1"))
        store.close()


def test_the_only_server_that_takes_writes_is_found_among_several(two_servers: Pair) -> None:
    for order in (
        (two_servers.standby, two_servers.primary),
        (two_servers.primary, two_servers.standby),
    ):
        addresses = ",".join(one.address for one in order)
        store = postgres_store(f"postgresql://postgres:{PASSWORD}@{addresses}/postgres")
        store_rows(store, row(order[0].address))
        store.close()


def test_what_a_url_says_goes_before_what_we_would() -> None:
    made = link.Link(
        "postgresql://a,b/shop?connect_timeout=1&target_session_attrs=primary", b"", b"",
        link.Outage(""),
    )  # fmt: skip
    assert made._options["connect_timeout"] == "1"
    assert made._options["target_session_attrs"] == "primary"


def test_a_url_that_libpq_cannot_read_is_refused_without_its_text() -> None:
    for bad in ("postgresql://u:pa55word%zz@h/d", "postgresql://u:pa55word@h/d?sslmod=x"):
        with pytest.raises(
            ConfigError, match="libpq cannot read, expected postgresql://"
        ) as caught:
            open_store(bad, queue_limit=10)
        assert "pa55word" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_text_is_refused(
    url: str, server: Server, encoding: str
) -> None:
    execute(url, f"CREATE DATABASE odd TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    store = postgres_store(elsewhere(url, "odd"))
    try:
        with pytest.raises(StoreError, match=f"found a database in the encoding {encoding}"):
            store.depth()
    finally:
        store.close()
        execute(url, "DROP DATABASE odd WITH (FORCE)")


def test_a_client_encoding_of_the_environment_changes_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    store = postgres_store(url)
    store_rows(store, row("e1", page="/łódź"))
    monkeypatch.delenv("PGCLIENTENCODING")
    found = execute(url, "SELECT page FROM capi_events")
    store.close()

    assert found == [("/łódź",)]


def test_a_user_without_create_works_on_the_tables_of_their_owner(url: str) -> None:
    owner = postgres_store(url)
    web = url.replace("//postgres:", "//web:")
    execute(url, f"CREATE ROLE web LOGIN PASSWORD '{PASSWORD}'")
    user = postgres_store(web)
    try:
        commit = user.append([row("early")], wait=True)  # before the owner was here
        assert "search_path names no schema" in why(web)
        execute(url, "GRANT USAGE ON SCHEMA public TO web")
        assert "its user lacks a right" in why(web)
        assert owner.depth() == {}
        assert "its user lacks a right" in why(web)
        execute(url, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO web")
        assert commit is not None
        commit.result(30)
        user.count([Count("error", "x")])
        lease = user.lease("1234567890", limit=10, seconds=5)
        user.settle(lease.lease_id, [])
        user.prune(0)
        assert user.flush(10)
        assert user.depth() == {"leased": 1}
    finally:
        user.close()
        owner.close()
        execute(url, "DROP OWNED BY web")
        execute(url, "DROP ROLE web")


def test_tables_live_where_the_search_path_says(url: str, caplog: pytest.LogCaptureFixture) -> None:
    execute(url, "CREATE SCHEMA shop")
    there = postgres_store(f"{url}?options=-csearch_path%3Dshop")
    store_rows(there, row("e1"))
    there.close()
    assert execute(url, "SELECT event_id FROM shop.capi_events") == [("e1",)]
    assert not caplog.messages
    here = postgres_store(url)
    assert here.depth() == {}
    here.close()
    execute(url, "DROP SCHEMA shop CASCADE")

    assert "made tables in the schema public, though shop has some" in caplog.text


def test_a_session_that_ended_while_nobody_used_it_is_no_error(url: str) -> None:
    store = postgres_store(url)
    assert store.depth() == {}
    execute(url, KILL)

    assert store.depth() == {}
    store.close()


def test_a_proxy_that_says_nothing_any_more_is_given_up(
    url: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "ANSWER_SECONDS", 0.5)
    with address(server) as proxy:
        store = postgres_store(at(proxy.port, connect_timeout=2))
        store_rows(store, row("e1"))
        proxy.forwards.clear()
        commit = store.append([row("e2")], wait=True)
        assert commit is not None
        until("the end of patience", commit.is_held_up)
        with pytest.raises(AwayError, match="no answer came in time"):
            store.depth()
        proxy.forwards.set()
        commit.result(30)
        found = execute(url, "SELECT event_id FROM capi_events ORDER BY 1")
        assert found == [("e1",), ("e2",)]
        store.close()


def test_a_full_disk_of_the_server_is_waited_for(
    url: str, server: Server, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    execute(url, f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    store = postgres_store(f"{url}?options=-cdefault_tablespace%3Dsmall")
    store_rows(store, row("e0"))
    execute(url, "CREATE TABLE filler (body text STORAGE EXTERNAL) TABLESPACE small")
    for rows in (50, 1):
        with suppress(psycopg.errors.DiskFull):
            while True:
                execute(
                    url,
                    "INSERT INTO filler SELECT repeat('x', 1900) FROM generate_series(1, %s)",
                    rows,
                )
    new = [row(f"e{n}", payload=bytes(3000)) for n in range(1, 200)]
    commit = store.append(new, wait=True)
    assert commit is not None
    until("the word on it", lambda: "its disk is full" in caplog.text)
    execute(url, "DROP TABLE filler")
    commit.result(30)

    assert store.depth() == {"pending": 200}
    store.close()
    execute(url, "DROP SCHEMA public CASCADE")
    execute(url, "DROP TABLESPACE small")


def test_a_commit_that_no_standby_confirmed_is_not_taken_for_stored(two_servers: Pair) -> None:
    execute(two_servers.primary.url, "DROP SCHEMA public CASCADE")
    execute(two_servers.primary.url, "CREATE SCHEMA public")
    two_servers.synchronous(True)
    store = postgres_store(two_servers.url)
    store_rows(store, row("e1"))
    two_servers.standby.stop()
    commit = store.append([row("e2")], wait=True)
    store.count([Count("error", "x")])
    assert commit is not None
    for _ in range(3):  # somebody tells it not to wait for the standby
        until("a wait for the standby", lambda: execute(two_servers.primary.url, CANCEL))
    assert not commit.done()
    two_servers.primary.kill()
    two_servers.standby.start()
    two_servers.standby.promote()
    two_servers.swap()
    two_servers.synchronous(False)
    commit.result(30)
    assert store.flush(30)

    found = execute(two_servers.primary.url, "SELECT event_id FROM capi_events ORDER BY 1")
    assert found == [("e1",), ("e2",)]
    counted = "SELECT SUM(n)::int FROM capi_counts WHERE reason = 'x'"
    assert execute(two_servers.primary.url, counted) == [(1,)]
    store.close()
    mend(two_servers)


CANCEL = (
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
    "WHERE wait_event = 'SyncRep' AND application_name = 'capi_middleware'"
)


def test_a_server_that_is_given_up_stops_what_it_does_for_us(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = postgres_store(url)
    store_rows(store, row("e1"))
    monkeypatch.setattr(link, "ANSWER_SECONDS", 0.2)
    most = 0
    with psycopg.connect(url) as other:
        other.execute(b"LOCK TABLE capi_events IN ACCESS EXCLUSIVE MODE")
        commit = store.append([row("e2")], wait=True)
        for _ in range(30):
            ((waiting,),) = execute(url, WAITING)
            most = max(most, waiting)
            time.sleep(0.1)
    assert commit is not None
    commit.result(30)
    store.close()

    assert most == 1


WAITING = (
    "SELECT COUNT(*) FROM pg_stat_activity "
    "WHERE wait_event_type = 'Lock' AND application_name = 'capi_middleware'"
)


@pytest.fixture
def small_disk(server: Server) -> Iterator[Path]:
    """A file system of 6 MB that the server may write."""
    folder = server.data.parent / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "small", folder], check=False
    )
    if mounted.returncode:
        pytest.skip("found no right to mount a file system")
    try:
        (folder / "here").mkdir()
        shutil.chown(folder / "here", server.user)
        yield folder / "here"
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # tables may be open there


@pytest.mark.parametrize("setting", ["serializable", "repeatable read"])
def test_the_isolation_of_the_database_is_not_ours(url: str, setting: str) -> None:
    execute(url, f"ALTER DATABASE postgres SET default_transaction_isolation = '{setting}'")
    store = postgres_store(url)
    try:
        with store._engine.transaction("write") as db:
            found = db._execute("depth", {}).connection.execute("SHOW transaction_isolation")
            assert found.fetchone() == ("read committed",)
    finally:
        store.close()
        execute(url, "ALTER DATABASE postgres RESET default_transaction_isolation")


def test_a_commit_is_on_disk_though_the_database_would_not_wait(url: str) -> None:
    execute(url, "ALTER DATABASE postgres SET synchronous_commit = off")
    store = postgres_store(url)
    try:
        with store._engine.group(object()) as db:
            assert db is not None
            found = db._execute("depth", {}).connection.execute("SHOW synchronous_commit")
            assert found.fetchone() == ("local",)
    finally:
        store.close()
        execute(url, "ALTER DATABASE postgres RESET synchronous_commit")


def test_a_row_that_a_trigger_of_the_host_refuses_fails_alone(url: str) -> None:
    store: Store = postgres_store(url)
    store_rows(store, row("e0"))
    execute(
        url,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF new.event_id = 'bad' THEN RAISE 'no'; END IF; RETURN new; END $$",
    )
    execute(
        url,
        "CREATE TRIGGER refuse BEFORE INSERT ON capi_events FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    commits = [store.append([row(one)], wait=True) for one in ("e1", "bad", "e2")]
    results = [commit.exception(30) for commit in commits if commit is not None]

    assert [type(one) for one in results] == [type(None), StoreError, type(None)]
    assert store.flush(10)
    assert store.depth() == {"pending": 3}
    store.close()


def test_marks_of_writers_that_are_gone_are_forgotten(url: str) -> None:
    old = postgres_store(url)
    old.count([Count("error", "x")])
    assert old.flush(10)
    old.close()
    execute(url, "UPDATE capi_marks SET at = at - 8 * 86400")
    new = postgres_store(url)
    for _ in range(3):
        new.count([Count("error", "x")])
        assert new.flush(10)
    new.close()

    ((marks, number),) = execute(url, "SELECT COUNT(*), MAX(number) FROM capi_marks")
    assert (marks, number) == (1, 3)
