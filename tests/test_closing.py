"""Closing: it takes as long as promised and no longer, whatever holds the database."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from capi_middleware import CAPI, Pixel
from capi_middleware.store import sqlite
from capi_middleware.testing import FakeMeta
from tests.support.configs import make_config
from tests.support.processes import until

PIXELS = [Pixel(str(n), access_token="t") for n in range(1, 6)]


@contextmanager
def sending(fake: FakeMeta, store: str) -> Iterator[CAPI]:
    """A process of which each of five couriers waits for Meta's answer."""
    fake.fail_next(200, delay=4, times=None)
    others = threads()  # of earlier tests
    capi = CAPI(make_config(store=store, pixels=PIXELS, delivery=True, graph_url=fake.url))
    capi.track("Lead")
    until("all are leased", lambda: capi.store.depth() == {"leased": len(PIXELS)})
    yield capi
    until("all threads have ended", lambda: threads() <= others)
    capi.store.close()  # what the last of them opened


def threads() -> set[threading.Thread]:
    """Ours."""
    return {one for one in threading.enumerate() if one.name.startswith("capi-")}


def close_while(capi: CAPI) -> bool:
    """Whether closing ended though others hold the database."""
    closing = threading.Thread(target=capi.close, args=(1.0,), daemon=True)
    closing.start()
    closing.join(20)
    return not closing.is_alive()


@pytest.mark.parametrize("lock", ["IMMEDIATE", "EXCLUSIVE"])
def test_closing_ends_in_time_while_a_stranger_holds_the_file(
    lock: str, fake_meta: FakeMeta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "capi.db"
    # Whoever waits for the lock does so for longer than this test.
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 60.0)
    with sending(fake_meta, f"sqlite:///{path}") as capi:
        stranger = sqlite3.connect(path, isolation_level=None)
        stranger.execute(f"BEGIN {lock}")
        assert close_while(capi)
        stranger.execute("ROLLBACK")
        stranger.close()


def test_closing_ends_in_time_while_a_stranger_holds_the_tables(
    fake_meta: FakeMeta, postgres_url: str
) -> None:
    with sending(fake_meta, postgres_url) as capi, psycopg.connect(postgres_url) as stranger:
        stranger.execute("LOCK TABLE capi_events, capi_leases")
        assert close_while(capi)


def test_what_closing_could_not_store_is_told(
    fake_meta: FakeMeta, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "capi.db"
    capi = CAPI(make_config(store=f"sqlite:///{path}", graph_url=fake_meta.url, durability="none"))
    capi.track("Lead")
    assert capi.store.flush(20)
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    capi.track("Lead")
    capi.close(0.3)
    until("it is told", lambda: "1 rows are not stored yet" in caplog.text)
    stranger.execute("ROLLBACK")
    stranger.close()
    until("it is stored all the same", lambda: sum(capi.store.depth().values()) == 2)
