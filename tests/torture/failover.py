"""Scenes of a PostgreSQL that fails over, under load: all that was accepted is stored, once."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

import psycopg

from capi_middleware.errors import StoreError
from capi_middleware.events import Count
from capi_middleware.store.commits import Commit, wait_for
from capi_middleware.store.records import MOST_FOUND, Settlement
from capi_middleware.store.store import Store
from tests.support.pgbouncer import Bouncer, pool
from tests.support.postgres import execute
from tests.support.postgres_pair import Address, Pair, Server, address, at, burn
from tests.support.processes import until
from tests.support.stores import PIXEL, postgres_store, row

#: How long all may take to be stored when the trouble is over, in seconds.
AFTERWARDS = 60.0
#: What only the commit of a group with counters asks, and the answer that it waits for.
A_GROUP = b"INSERT INTO capi_counts", b"COMMIT\0"


class Verdict(NamedTuple):
    """Counts; `lost`, `twice`, `refused` and `dropped` must be 0, `lines` few."""

    accepted: int
    lost: int
    #: Counters that were added to more or less often than they were counted.
    twice: int
    #: Rows whose commit ended with an error.
    refused: int
    #: Counted as lost by the store.
    dropped: int
    #: Lines of the log; more than a few would be one for each page.
    lines: int
    #: The longest that a page waited, in seconds.
    longest: float
    log: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.twice or self.refused or self.dropped)


class _Ear(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@dataclass
class Load:
    """Pages of two web processes and a courier on one store URL, until `judge`."""

    url: str
    accepted: list[str] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    longest: float = 0.0

    def __post_init__(self) -> None:
        self._stores = [postgres_store(self.url) for _ in range(3)]
        self._stop = threading.Event()
        self._numbers = count()
        self._lock = threading.Lock()
        self._ear = _Ear()
        logging.getLogger("capi_middleware").addHandler(self._ear)
        self._threads = [
            threading.Thread(target=self._page, args=(store,))
            for store in self._stores[:2]
            for _ in range(2)
        ]
        self._threads.append(threading.Thread(target=self._deliver, args=(self._stores[2],)))
        for thread in self._threads:
            thread.start()

    def _page(self, store: Store) -> None:
        while not self._stop.wait(0.01):
            with self._lock:
                event_id = f"e{next(self._numbers)}"
            commit = store.append([row(event_id, event_time=time.time())], wait=True)
            store.count([Count("error", "scene")])
            assert commit is not None
            with self._lock:
                self.accepted.append(event_id)
                self.commits.append(commit)
            start = time.monotonic()
            with suppress(StoreError, TimeoutError):
                wait_for(commit)
            with self._lock:
                self.longest = max(self.longest, time.monotonic() - start)

    def _deliver(self, store: Store) -> None:
        while not self._stop.wait(0.05):
            with suppress(StoreError):
                lease = store.lease(PIXEL, limit=50, seconds=5)
                done = [Settlement(one.key, "delivered") for one in lease.events]
                store.settle(lease.lease_id, done)

    def runs(self, more: int = 20) -> None:
        """Wait until so many more events are committed."""
        wanted = self._done() + more
        until("pages that are stored", lambda: self._done() >= wanted, AFTERWARDS)

    def _done(self) -> int:
        with self._lock:
            return sum(one.done() and one.error is None for one in self.commits)

    def judge(self) -> Verdict:
        """End, wait for what waits, and look."""
        self._stop.set()
        for thread in self._threads:
            thread.join(AFTERWARDS)
        store = self._stores[0]
        for one in self._stores:
            one.flush(AFTERWARDS)
        logging.getLogger("capi_middleware").removeHandler(self._ear)
        found: set[str] = set()
        for start in range(0, len(self.accepted), MOST_FOUND):
            some = store.find(self.accepted[start : start + MOST_FOUND])
            found |= {
                one.event_id for one in some if one.server in ("pending", "leased", "delivered")
            }
        counts = store.tallies(0, time.time() + 9999).counts
        scenes = sum(one.n for one in counts if one.kind == "error" and one.reason == "scene")
        verdict = Verdict(
            accepted=len(self.accepted),
            lost=len(set(self.accepted) - found),
            twice=abs(scenes - len(self.accepted)),
            refused=sum(one.error is not None for one in self.commits),
            dropped=sum(one.n for one in counts if one.kind == "dropped"),
            lines=len(self._ear.lines),
            longest=round(self.longest, 2),
            log=tuple(self._ear.lines),
        )
        for one in self._stores:
            one.close()
        return verdict


class Stage(NamedTuple):
    """What a scene has: the servers, the load, and the address or the pool where there is one."""

    pair: Pair
    load: Load
    address: Address | None
    pool: Bouncer | None = None

    def caught_up(self) -> None:
        """Without a synchronous standby a failover loses what was not sent yet: wait for it."""
        pair = self.pair
        until("the standby", lambda: pair.standby.has_caught_up(pair.primary))

    def fail_over(self) -> None:
        """The standby is the primary now; clients are not told."""
        self.pair.standby.promote()
        self.pair.swap()
        self.pair.synchronous(False)  # it has no standby yet

    def move(self) -> None:
        """The address is that of the new primary; its connections are ended."""
        if self.address is not None:
            self.address.target = self.pair.primary.port
            self.address.cut()


def restart(stage: Stage, mode: str) -> None:
    stage.pair.primary.stop(mode)
    time.sleep(1.0)
    stage.pair.primary.start()


def crash(stage: Stage) -> None:
    stage.pair.primary.kill()
    stage.pair.primary.start()


def crash_of_a_session(stage: Stage) -> None:
    """The postmaster ends all sessions and recovers."""
    with psycopg.connect(stage.pair.primary.url) as db:
        os.kill(db.info.backend_pid, signal.SIGKILL)
        until("recovery", lambda: _answers(stage.pair.primary))


def _answers(server: Server) -> bool:
    try:
        execute(server.url, "SELECT 1")
    except psycopg.Error:
        return False
    return True


def take_over(stage: Stage) -> None:
    stage.caught_up()
    stage.pair.primary.kill()
    stage.fail_over()
    stage.move()


def switch_over(stage: Stage) -> None:
    """Planned: the old primary ends in order and becomes a standby of the new one."""
    stage.pair.primary.stop()
    stage.fail_over()
    stage.move()
    stage.pair.standby.follow(stage.pair.primary)


def there_and_back(stage: Stage) -> None:
    switch_over(stage)
    stage.load.runs()
    until("the standby", lambda: stage.pair.standby.has_caught_up(stage.pair.primary))
    switch_over(stage)


def promote_first(stage: Stage) -> None:
    """The old primary takes no more writes, keeps its sessions, and goes later."""
    old = stage.pair.primary
    old.set("default_transaction_read_only", "on")
    time.sleep(0.3)
    stage.caught_up()
    stage.fail_over()
    time.sleep(1.0)
    stage.move()
    stage.load.runs()
    old.stop("immediate")


def read_only(stage: Stage) -> None:
    stage.pair.primary.set("default_transaction_read_only", "on")
    time.sleep(2.0)
    # This session, too, may not write unless it says so.
    with psycopg.connect(stage.pair.primary.url, autocommit=True) as db:
        db.execute(b"SET transaction_read_only = off")
        db.execute(b"ALTER SYSTEM RESET default_transaction_read_only")
        db.execute(b"SELECT pg_reload_conf()")


def killed_sessions(stage: Stage) -> None:
    with _owner(stage) as db:
        for _ in range(20):
            _end(db)
            time.sleep(0.05)


@contextmanager
def _owner(stage: Stage) -> Iterator["psycopg.Connection[object]"]:
    with psycopg.connect(stage.pair.primary.url, autocommit=True) as db:
        yield db


def exhausted(stage: Stage) -> None:
    """Others take every connection that there is, ours as well."""
    with ExitStack() as stack, _owner(stage) as db:
        for _ in range(2):
            with suppress(psycopg.OperationalError):
                while True:
                    stack.enter_context(psycopg.connect(stage.pair.primary.url))
            _end(db)
        time.sleep(2.0)


def password_rotated(stage: Stage) -> None:
    with _owner(stage) as db:
        db.execute(b"ALTER ROLE postgres PASSWORD 'another'")
        _end(db)
        time.sleep(2.0)
        db.execute(b"ALTER ROLE postgres PASSWORD 'pa55word'")


def _end(db: "psycopg.Connection[object]") -> None:
    db.execute(
        b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        b"WHERE application_name = 'capi_middleware'"
    )


def tables_away(stage: Stage) -> None:
    with _owner(stage) as db:
        db.execute(b"ALTER TABLE capi_events RENAME TO elsewhere")
        time.sleep(1.5)
        db.execute(b"ALTER TABLE elsewhere RENAME TO capi_events")


def table_locked(stage: Stage) -> None:
    with psycopg.connect(stage.pair.primary.url) as db:
        db.execute(b"LOCK TABLE capi_events IN ACCESS EXCLUSIVE MODE")
        time.sleep(2.5)


def impatient_server(stage: Stage) -> None:
    """Time limits of the server's own: sessions and transactions end whenever they like."""
    limits = ("idle_session_timeout", "transaction_timeout", "statement_timeout")
    patient = "%20".join(f"-c%20{name}%3D0" for name in limits)
    ours = f"{stage.pair.primary.url}?options={patient}"
    for name in limits:
        execute(ours, f"ALTER SYSTEM SET {name} = '50ms'")
    execute(ours, "SELECT pg_reload_conf()")
    time.sleep(2.0)
    for name in limits:
        execute(ours, f"ALTER SYSTEM RESET {name}")
    execute(ours, "SELECT pg_reload_conf()")


def standby_away(stage: Stage) -> None:
    """A COMMIT waits for a standby that does not answer, and the standby comes back."""
    stage.pair.synchronous(True)
    stage.pair.standby.signal(signal.SIGSTOP)
    time.sleep(2.5)
    stage.pair.standby.signal(signal.SIGCONT)
    stage.load.runs()
    stage.pair.synchronous(False)


def hangs(stage: Stage) -> None:
    stage.pair.primary.signal(signal.SIGSTOP)
    time.sleep(3.0)
    stage.pair.primary.signal(signal.SIGCONT)


def stops_forwarding(stage: Stage) -> None:
    assert stage.address is not None
    stage.address.forwards.clear()
    time.sleep(3.0)
    stage.address.forwards.set()


def forgets_connections(stage: Stage) -> None:
    """The proxy ends what it has, again and again."""
    assert stage.address is not None
    for _ in range(20):
        stage.address.cut()
        time.sleep(0.05)


def answer_lost(stage: Stage) -> None:
    """A COMMIT is done and its answer lost; the server stays."""
    assert stage.address is not None
    for _ in range(5):
        _lose_an_answer(stage.address)
        stage.load.runs(5)


def _lose_an_answer(where: Address) -> None:
    where.lost.clear()
    where.loses = A_GROUP
    assert where.lost.wait(AFTERWARDS)


def answer_lost_and_failover(stage: Stage, used: int = 0) -> None:
    """In doubt over a failover; others have `used` so many numbers of transactions meanwhile."""
    assert stage.address is not None
    stage.address.forwards.set()
    _lose_an_answer(stage.address)
    stage.address.forwards.clear()  # nobody asks the old one
    stage.address.cut()
    stage.caught_up()
    ((number,),) = execute(stage.pair.primary.url, "SELECT pg_current_xact_id()::text")
    stage.pair.primary.kill()
    stage.fail_over()
    if used:
        burn(stage.pair.primary.url, int(number) + used)
    stage.move()
    stage.address.forwards.set()


def not_replicated(stage: Stage, used: int = 0) -> None:
    """A COMMIT that no standby has heard of is in doubt; its number is used on the new timeline."""
    assert stage.address is not None
    stage.pair.synchronous(True)
    stage.address.forwards.clear()
    stage.address.cut()
    time.sleep(0.3)  # what was under way has ended
    stage.pair.standby.stop()
    stage.address.forwards.set()
    time.sleep(0.5)  # commits hang: none is answered any more
    stage.address.forwards.clear()
    ((number,),) = execute(
        stage.pair.primary.url, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"
    )
    stage.pair.primary.kill()
    stage.pair.standby.start()
    stage.fail_over()
    if used:
        burn(stage.pair.primary.url, int(number) + used)
    stage.move()
    stage.address.forwards.set()


def demoted_in_place(stage: Stage, pause: float = 0.5) -> None:
    """Behind the same address: first the demoted one answers, as a standby, then the new one."""
    assert stage.address is not None
    stage.caught_up()
    stage.pair.primary.stop("immediate")
    stage.fail_over()
    stage.pair.standby.follow(stage.pair.primary)
    stage.address.target = stage.pair.standby.port
    time.sleep(pause)
    stage.move()


def pool_restarts(stage: Stage, number: int = signal.SIGTERM, pause: float = 1.0) -> None:
    assert stage.pool is not None
    stage.pool.end(number)
    time.sleep(pause)
    stage.pool.start()


def pool_dies_often(stage: Stage) -> None:
    for _ in range(5):
        pool_restarts(stage, signal.SIGKILL, 0.1)
        stage.load.runs(5)


def pool_pauses(stage: Stage) -> None:
    """PAUSE, which lets all clients wait without an error, and RESUME, as an operator does."""
    assert stage.pool is not None
    stage.pool.tell(b"PAUSE")
    time.sleep(3.0)
    stage.pool.tell(b"RESUME")


def server_restarts_behind_pause(stage: Stage) -> None:
    assert stage.pool is not None
    stage.pool.tell(b"PAUSE")
    restart(stage, "fast")
    stage.pool.tell(b"RESUME")


#: What happens, by name; those of the second list need an address that moves, those of the third a
#: pgbouncer.
ANYWHERE: Mapping[str, Callable[[Stage], None]] = {
    "restart": lambda stage: restart(stage, "fast"),
    "restart at once": lambda stage: restart(stage, "immediate"),
    "crash": crash,
    "crash of one session": crash_of_a_session,
    "take over": take_over,
    "switch over": switch_over,
    "there and back": there_and_back,
    "promoted before the old one ends": promote_first,
    "read-only for a while": read_only,
    "killed sessions": killed_sessions,
    "no connection left": exhausted,
    "password rotated": password_rotated,
    "tables away": tables_away,
    "table locked": table_locked,
    "impatient server": impatient_server,
    "synchronous standby away": standby_away,
    "hangs": hangs,
}
ADDRESS: Mapping[str, Callable[[Stage], None]] = {
    "stops forwarding": stops_forwarding,
    "forgets connections": forgets_connections,
    "answer lost": answer_lost,
    "answer lost, failover": answer_lost_and_failover,
    "answer lost, failover, number used": lambda stage: answer_lost_and_failover(stage, 50),
    "not replicated": not_replicated,
    "not replicated, number used": lambda stage: not_replicated(stage, 50),
    "demoted in place": demoted_in_place,
    "demoted in place for long": lambda stage: demoted_in_place(stage, 3.0),
}
POOL: Mapping[str, Callable[[Stage], None]] = {
    "pgbouncer restarts": pool_restarts,
    "pgbouncer dies often": pool_dies_often,
    "pgbouncer pauses": pool_pauses,
    "restart behind a paused pgbouncer": server_restarts_behind_pause,
    "restart behind pgbouncer": lambda stage: restart(stage, "fast"),
    "crash behind pgbouncer": crash,
}
#: (what happens, how the store is reached): by the URL of both, by an address, with a synchronous
#: standby, through a pool.
SCENES: tuple[tuple[str, str], ...] = (
    *((name, "both") for name in ANYWHERE),
    *((name, "address") for name in (*ANYWHERE, *ADDRESS)),
    *((name, "synchronous") for name in ANYWHERE),
    *((name, "pool") for name in POOL),
)


def play(pair: Pair, name: str, way: str) -> Verdict:
    """Play a scene on fresh tables of `pair`, which has both servers at its end."""
    happens = {**ANYWHERE, **ADDRESS, **POOL}[name]
    execute(pair.primary.url, "DROP SCHEMA public CASCADE")
    execute(pair.primary.url, "CREATE SCHEMA public")
    if way == "synchronous":
        pair.synchronous(True)
    with ExitStack() as stack:
        where = stack.enter_context(address(pair.primary)) if way == "address" else None
        # Fewer connections than the load has.
        pooling = stack.enter_context(pool(pair.primary.url, size=4)) if way == "pool" else None
        url = pooling.url if pooling is not None else pair.url
        load = Load(at(where.port) if where is not None else url)
        try:
            load.runs()
            happens(Stage(pair, load, where, pooling))
            if way == "synchronous":  # its standby is gone, or has another name
                pair.synchronous(False)
            load.runs()
        finally:
            verdict = load.judge()
    mend(pair)
    return verdict


def mend(pair: Pair) -> None:
    """Both servers are there again."""
    pair.synchronous(False)
    if not pair.standby.pid:
        pair.standby.start() if (pair.standby.data / "standby.signal").exists() else _rejoin(pair)


def _rejoin(pair: Pair) -> None:
    # pg_rewind wants a server that ended in order.
    pair.standby.start()
    pair.standby.stop()
    pair.standby.follow(pair.primary)
