"""The store: where events live from mint to report, in whatever database an engine opens."""

import logging
import math
import re
import secrets
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib.resources import files
from itertools import chain, groupby, starmap
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

from msgspec.structs import astuple, replace

from capi_middleware.errors import StoreError
from capi_middleware.events import (
    BROWSER_ONLY,
    UNSEEN_BROWSER_CAUSES,
    VAGUE_BROWSER_CAUSES,
    Count,
    Row,
    Sighting,
)
from capi_middleware.shield import about
from capi_middleware.signing import ORDER_SIGNED, is_unique
from capi_middleware.store import rollups
from capi_middleware.store.commits import Commit
from capi_middleware.store.journal import Journal, Journals
from capi_middleware.store.orders import (
    Found,
    Question,
    Recalling,
    first_key,
    moment,
    orders_in,
    remembered,
)
from capi_middleware.store.records import (
    CLOCK_SLACK,
    DEDUPE_WINDOW,
    DUTY_SECONDS,
    FRESH,
    LONGEST_LEASE,
    LONGEST_TURN,
    LONGEST_WAIT,
    MOST_FOUND,
    OLDEST_EVENT,
    REPLAYED,
    Backlog,
    DeadLetter,
    Forgotten,
    Known,
    Lease,
    LeasedEvent,
    Look,
    Pause,
    Remembered,
    Rest,
    Settlement,
    Slice,
    Tallies,
    Use,
)
from capi_middleware.store.rollups import Facet
from capi_middleware.store.writer import Counters, Submission, Writer, counters_of

logger: logging.Logger = logging.getLogger("capi_middleware.store")

#: Rows that this process changes before it folds what they changed into the sums: more cost less
#: each, and a report reads up to so many of each process.
FOLD_EVERY = 2000
#: Changes that any engine folds in one transaction at least, where there are so many.
FOLD_STEP = 500
#: Rows that one transaction of `prune`, `requeue` and `drop` touches: others wait for milliseconds.
STEP_ROWS = 250

#: Among how many of the newest rows those of one name or owner are looked for: an index would cost
#: each event that is stored a fifth more, for a question that people ask now and then.
NAMED_AMONG = 200_000

#: How often the journals of killed processes are looked for, in seconds.
LOOK_SECONDS = 2.0
#: The counter, by kind and reason, of answers that ended before their commit.
EARLY = ("error", "the commit: TimeoutError")

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)
_MANY = re.compile(r"WITH new MANY \(([^)]*)\)")
#: What stands in braces.
_CONSTANTS = {
    "state": ", ".join(rollups.SHARED),
    "waiting": ", ".join(rollups.WAITING.get(one, one) for one in rollups.SHARED),
    "dedupe": str(DEDUPE_WINDOW),
    "oldest": str(OLDEST_EVENT),
    "longest": str(LONGEST_LEASE),
    "wait": str(LONGEST_WAIT),
    "slack": str(CLOCK_SLACK),
    "turn": str(LONGEST_TURN),
    "duty": str(DUTY_SECONDS),
    "fresh": str(FRESH),
    "among": str(NAMED_AMONG),
    "signed": str((1 << ORDER_SIGNED) - 1),
    "browser_only": ", ".join(f"'{state}'" for state in BROWSER_ONLY),
    "vague": ", ".join(f"'{cause}'" for cause in VAGUE_BROWSER_CAUSES),
    "unseen": ", ".join(f"'{cause}'" for cause in UNSEEN_BROWSER_CAUSES),
}


class Query(NamedTuple):
    """A query of a .sql file.

    `columns` are the (name, type) of the rows that it takes at once, from {new} in its text.
    """

    text: str
    columns: Sequence[tuple[str, str]]


def named(*names: str) -> Mapping[str, Query]:
    """The queries of these files beside this module, by name."""
    found: dict[str, Query] = {}
    for name in names:
        script = files("capi_middleware.store").joinpath(name).read_text("utf-8")
        for constant, value in _CONSTANTS.items():
            script = script.replace(f"{{{constant}}}", value)
        _, *parts = _NAME.split(script)
        for query, text in zip(parts[::2], parts[1::2], strict=True):
            many = _MANY.search(text)
            columns = [one.split() for one in many.group(1).split(",")] if many else []
            text = _MANY.sub("{new}", _COMMENT.sub("", text)).strip()
            found[query] = Query(text, [(name, kind) for name, kind in columns])
    return found


#: The columns of what is submitted, as its query takes them.
_COLUMNS = {
    name: attrgetter(*[column for column, _ in query.columns])
    for name, query in named("queries.sql").items()
    if name in ("append", "append_payloads", "sight")
}


def schema(name: str) -> list[str]:
    """The statements of a file of schema/."""
    script = files("capi_middleware.store").joinpath("schema", name).read_text("utf-8")
    return [one for one in script.split(";\n") if one.strip()]


class Transaction(ABC):
    """A running transaction; `now` is Unix time in seconds. Queries are named, see queries.sql."""

    now: float

    def read(self, query: str, **given: Any) -> list[tuple[Any, ...]]:
        """What a query finds."""
        found: list[tuple[Any, ...]] = self._execute(query, given).fetchall()
        return found

    def run(self, query: str, **given: Any) -> int:
        """How many rows a query changed."""
        changed: int = self._execute(query, given).rowcount
        return changed

    def many(self, query: str, rows: Sequence[Sequence[Any]], **given: Any) -> int:
        """How many rows a query changed that takes many rows at once."""
        return sum([one.rowcount for one in self._execute_many(query, rows, given)])

    def read_many(self, query: str, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """What a query finds for many rows at once."""
        return list(chain.from_iterable(self._execute_many(query, rows, {})))

    def alone(self) -> bool:
        """Whether nobody else folds or prunes sums until the end of this transaction."""
        return True

    def is_wanted(self) -> bool:
        """Whether somebody may wait for the end of this transaction."""
        return True

    def give_way(self) -> None:  # noqa: B027 - nobody waits
        """Commit what was done and go on behind them, where others wait for the end."""

    @abstractmethod
    def settle(self, lease_id: str, outcomes: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
        """How many events got an outcome: (state, what settle_<state> takes); ends their leases."""

    @abstractmethod
    def take_changes(self) -> tuple[list[rollups.State], bool]:
        """Changes that are not in the sums yet, which forgets them; whether there may be more."""

    @abstractmethod
    def _execute(self, query: str, given: dict[str, Any]) -> Any:
        """The driver's cursor."""

    @abstractmethod
    def _execute_many(
        self, query: str, rows: Sequence[Sequence[Any]], given: Mapping[str, Any]
    ) -> Iterator[Any]:
        """The driver's cursors, of which each takes some of the rows."""


#: What a transaction is for: "group" and "write" are committed at their end; "read" sees one moment
#: (keep it short); "idle" is of no hurry, LockedError where it would hold up others.
Access = Literal["group", "write", "read", "idle"]


class Engine(ABC):
    """A database that many threads and processes may use at once, opened at its first use."""

    #: For people, without a password.
    name: str
    #: Whether each call is committed in the caller's thread: a database that nobody waits for.
    immediate: bool
    #: Where its processes may leave files, see Journals; None for one that ends with the process.
    beside: Path | None = None
    #: How long Store.close waits for what others do, in seconds.
    close_seconds: float = 5.0
    #: How long a page may wait for Store.recall, in seconds.
    recall_seconds: float = 1.0

    def __init__(self) -> None:
        #: The time of this process's last claim, by pixel.
        self._claimed: dict[str, float] = {}

    @abstractmethod
    def transaction(self, access: Access) -> AbstractContextManager[Transaction]:
        """A transaction.

        Raises LockedError when the same may work later, StoreError when the database as a whole
        cannot be used; what the data are the cause of comes through as it is.
        """

    @abstractmethod
    def group(self, of: object) -> AbstractContextManager[Transaction | None]:
        """A transaction for a group commit; None where the same group was committed before."""

    @abstractmethod
    def claim(
        self, pixel_id: str, lease_id: str, *, limit: int, seconds: float, surely: float | None
    ) -> tuple[list[LeasedEvent], bool]:
        """Lease due events; whether some were too old, and expired instead. See Store.lease."""

    def _longest_wait(self, pixel_id: str, now: float) -> float:
        """What is due later than this from `now` was put off before the clock went back."""
        before = self._claimed.get(pixel_id, now)
        self._claimed[pixel_id] = now
        return 0.0 if now < before - CLOCK_SLACK else LONGEST_WAIT

    def _put_off(self, pixel_ids: Sequence[str], now: float) -> set[str]:
        """Those of which a claim will find that the clock went back: what waits may be due."""
        back = {one for one in pixel_ids if now < self._claimed.get(one, now) - CLOCK_SLACK}
        self._claimed.update((one, now) for one in pixel_ids if one not in back)
        return back

    @abstractmethod
    def look(self, pixel_ids: Sequence[str] | None, every: float) -> Look:
        """See Store.look."""

    def recall(self, first: Sequence[int]) -> Found:
        """Orders whose keys are in the ranges that begin with these, see orders.first_key."""
        with self.transaction("read") as db:
            return [(key, at) for key, at in db.read("recall", first=[*first])]

    @abstractmethod
    def shrink(self) -> bool:
        """Give a little of what is free back to the file system; whether there is more."""

    @abstractmethod
    def tidy(self) -> None:
        """Do what is due after some commits, when nobody waits for it."""

    @abstractmethod
    def close(self, timeout: float) -> None:
        """Close what nobody uses after `timeout` seconds. A later use opens others."""


class Store:
    """One store per process. All methods may be called from any thread, also after a fork.

    A forked child has nothing of what its parent had not committed yet: that is the parent's.
    Rows that are lost after all are counted by the store, as "dropped" with the reason
    "queue_full" or "store_error".

    Args:
        engine: opens the database.
        queue_limit: how many rows may wait in memory for their commit.
        clock: Unix time in seconds, for the hour of counters.
    """

    def __init__(
        self, engine: Engine, *, queue_limit: int = 100_000, clock: Callable[[], float] = time.time
    ) -> None:
        #: Called (from any thread) after rows with server "pending" were committed, with the names
        #: of their events by pixel; none where these are not known.
        self.on_commit: Callable[[Mapping[str, Set[str]]], None] | None = None
        self._engine = engine
        self._changed = 0
        self._journals = Journals(engine.beside) if engine.beside is not None else None
        #: When to look again for the journals of those that were killed, as time.monotonic().
        self._look_at = 0.0
        self._writer = Writer(
            self._write, queue_limit=queue_limit, clock=clock, on_commit=self._committed,
            on_loss=self._lost, inline=engine.immediate,
        )  # fmt: skip
        self._recalling = Recalling(self.remembered, inline=engine.immediate)

    def __repr__(self) -> str:
        return f"Store({self._engine.name!r})"

    @property
    def parts(self) -> Sequence["Store"]:
        """The stores that it is made of, of which each has keys in an order of their own."""
        return (self,)

    def append(self, rows: Sequence[Row], *, wait: bool) -> Commit | None:
        """Keep new events, without blocking. With `wait`, their commit.

        A row that exists already (event_id, event_name, pixel_id) is kept as it was, except that
        a row made by an early sighting (server "unknown") takes over the new server copy, and
        browser that is one of UNSEEN_BROWSER_CAUSES becomes the new row's cause. Raises StoreFull
        when the queue in front of the store is full. The commit raises StoreError when it failed;
        while others keep the database locked it waits.
        """
        return self._writer.submit("append", rows, wait=wait)

    @property
    def recall_seconds(self) -> float:
        """How long to wait for an answer to `recall`, in seconds."""
        return self._engine.recall_seconds

    def recall(self, event_id: str) -> Question:
        """What is remembered of the order that this event is of, without blocking.

        Its result is None for an order that was not tracked yet; an error where the database cannot
        be read. Orders are those of events with a dedupe_key.
        """
        return self._recalling.ask(event_id)

    def expect_orders(self) -> None:
        """Open what the first `recall` needs, where that takes long. Blocks nobody."""
        if self._engine.recall_seconds < 1.0:
            self._recalling.start()

    def remembered(self, event_ids: Sequence[str]) -> Mapping[str, Remembered]:
        """What is remembered of these orders, by event_id; as `recall`, but it waits."""
        keys = [key for key in map(first_key, event_ids) if key is not None]
        return remembered(event_ids, self._engine.recall(keys))

    def sight(self, sightings: Sequence[Sighting]) -> Commit:
        """Record what browsers said. Idempotent and monotone.

        "sent" replaces every cause and is never replaced; another outcome replaces only
        VAGUE_BROWSER_CAUSES. An unknown event becomes a row with its `server`. Raises
        StoreFull and StoreError like `append`. A sighting that changes nothing is counted as
        REPLAYED.
        """
        commit = self._writer.submit("sight", sightings, wait=True)
        assert commit is not None
        return commit

    def count(self, counts: Sequence[Count]) -> None:
        """Add to the hourly counters, without blocking. Never raises StoreFull."""
        self._writer.count(counts)

    def ended_before(self, commit: Commit, *, elsewhere: bool = False) -> bool:
        """Count an answer that ends before `commit` as an error of the commit, even if killed now.

        If this process is killed, and the events with it, whoever opens the database next counts
        them as "dropped" with the reason "killed". False where that cannot be promised: the caller
        counts. What is counted `elsewhere`, by another store, is not counted as an answer here.
        """
        if self._journals is None or commit.done():
            return False
        return self._journals.add(commit, elsewhere=elsewhere)

    def _lost(self, hour: int, counts: Sequence[Count]) -> bool:
        """Whether these, of an hour, are counted later, whoever is killed before."""
        return self._journals is not None and self._journals.lose(hour, list(counts))

    def _look(self) -> None:
        """Count what the journals of killed processes hold, at intervals."""
        now = time.monotonic()
        if self._journals is not None and now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            with suppress(StoreError):  # another time, while the database is locked
                for one in self._journals.left():
                    self._count_journal(one)

    def _account(self) -> None:
        """Count what journals hold, each once."""
        self._look()
        if self._journals is not None:
            with self._journals.counting, suppress(StoreError):  # another time
                if own := self._journals.own():
                    self._count_journal(own)

    def _count_journal(self, journal: Journal) -> None:
        try:
            rows: list[Row] = []
            with self._engine.transaction("idle") as db:
                # Counted already, if somebody was killed before it was deleted.
                is_new = db.run("keep", name=journal.name, body=b"") > 0
                if is_new:
                    hour = int(db.now // 3600)
                    counts = Counters({(hour, *EARLY, "", ""): journal.answers})
                    for entry in journal.entries:
                        counts += counters_of(entry.hour, entry.counts)
                    if journal.lost:
                        rows = _missing(db, [row for one in journal.entries for row in one.rows])
                        db.many("append", list(map(_COLUMNS["append"], rows)), now=db.now)
                        rows = [row for row in rows if row.server == "dropped"]
                        for row in rows:
                            counts[hour, "dropped", "killed", row.event_name, row.pixel_id] += 1
                    db.many("count", sorted([(*key, n) for key, n in counts.items() if n]))
        except BaseException:
            if journal.lost:
                journal.leave()
            raise
        journal.delete()
        if is_new and (journal.answers or rows):
            logger.warning(
                "%d answers ended before their commit, %d events of them are lost with a process",
                journal.answers, len(rows),
                extra=about("ended_early", answers=journal.answers, lost=len(rows)),
            )  # fmt: skip
        with self._engine.transaction("idle") as db:
            db.run("forget", name=journal.name)

    def lease(
        self, pixel_id: str, *, limit: int, seconds: float, surely: float | None = math.inf
    ) -> Lease:
        """Claim up to `limit` due events of a pixel for `seconds`, and some that it suspects.

        First come FRESH conversions (`fresh`), the newest where there are more; then, whatever the
        limit, those that Meta refused together; then other conversions and last page views, each
        those due longest first.

        Events whose lease ran out are due again. Never hands one event to two living leases.
        Due events older than OLDEST_EVENT become "expired" instead, as do those older than
        DEDUPE_WINDOW that Meta may have counted: an attempt was uncertain (since it was stored,
        whenever it happened), or the browser copy is known to be sent. `seconds` is at most
        LONGEST_LEASE. An event that is due later than LONGEST_WAIT from now is due, and all that
        waits is once the clock went back.

        `surely` is a time, in Unix seconds, that has come by another clock: what is too old by ours
        alone is leased and not expired. None where the other is not known yet: it is left alone.
        """
        lease_id, expired = secrets.token_hex(16), True
        events: list[LeasedEvent] = []
        # Whole batches of expired events go one transaction at a time.
        while expired and not events:
            events, expired = self._engine.claim(
                pixel_id, lease_id, limit=limit, seconds=seconds, surely=surely
            )
        return Lease(lease_id, events)

    def settle(self, lease_id: str, settlements: Sequence[Settlement]) -> int:
        """Record outcomes; how many were still held by this lease (others are ignored)."""
        alike: dict[tuple[Any, ...], list[int]] = {}
        for one in settlements:
            key, *outcome = astuple(one)
            alike.setdefault(tuple(outcome), []).append(key)
        outcomes = [
            (
                state,
                {"keys": keys, "reason": reason, "delay": float(delay),
                 "attempted": int(attempted), "uncertain": int(uncertain), "suspect": suspect,
                 "trace": trace},
            )
            for (state, reason, delay, attempted, uncertain, suspect, trace), keys in alike.items()
        ]  # fmt: skip
        with self._engine.transaction("write") as db:
            held = db.settle(lease_id, outcomes)
        self._keep_up(held)
        return held

    def release(self, lease_id: str, keys: Sequence[int]) -> None:
        """Give back leased events of which nothing became: they are due as before."""
        with self._engine.transaction("write") as db:
            db.run("end_lease", lease_id=lease_id, keys=list(keys))

    def next_due(self, pixel_id: str) -> float | None:
        """Seconds until the next event of this pixel is due (0.0 = now); None without any."""
        with self._engine.transaction("read") as db:
            [(seconds,)] = db.read("next_due", pixel_id=pixel_id, now=db.now)
        return None if seconds is None else float(seconds)

    def look(self, pixel_ids: Sequence[str] | None, *, every: float) -> Look:
        """Which of these pixels have something due, and when this process should look again.

        None for whichever pixels there are.

        All processes that look for the same pixels share their looks: `every` seconds one of them
        does, however many they are, and each of them within LONGEST_TURN.
        """
        return self._engine.look(pixel_ids, every)

    def conversion_waits(self, pixel_id: str) -> bool:
        """Whether anything but page views of this pixel is due."""
        with self._engine.transaction("read") as db:
            [(waits,)] = db.read("conversion_waits", pixel_id=pixel_id, now=db.now)
        return bool(waits)

    def pause(self, pixel_id: str, *, seconds: float, reason: str, token: str = "") -> None:
        """Let a pixel rest from now on, for as long as this or an earlier call wants. See Pause."""
        with self._engine.transaction("write") as db:
            given = {"reason": reason, "token": token, "seconds": seconds}
            db.run("pause", pixel_id=pixel_id, now=db.now, **given)

    def resume(self, pixel_id: str, token: str = "") -> None:
        """End the rest of a pixel for those with this token: not what another one's refusal is."""
        with self._engine.transaction("write") as db:
            db.run("resume", pixel_id=pixel_id, token=token)

    def rest(self, pixel_id: str, token: str = "") -> Rest | None:
        """The rest of a pixel as the holder of a token sees it, until `resume`."""
        with self._engine.transaction("read") as db:
            [(n, failures, seconds)] = db.read("rest", pixel_id=pixel_id, token=token, now=db.now)
        return Rest(float(seconds), failures) if n else None

    def try_now(self, pixel_id: str, token: str, *, seconds: float) -> bool:
        """Whether the caller may try as the first after a rest; others wait so many seconds."""
        with self._engine.transaction("write") as db:
            given = {"pixel_id": pixel_id, "token": token, "now": db.now}
            [(n, _, _)] = db.read("rest", **given)
            return bool(db.run("try", seconds=seconds, **given) == n)

    def pauses(self) -> Sequence[Pause]:
        """The rests of now, by pixel."""
        with self._engine.transaction("read") as db:
            return list(starmap(Pause, db.read("pauses", now=db.now)))

    def backlog(self) -> Sequence[Backlog]:
        """What waits, by pixel."""
        with self._engine.transaction("read") as db:
            return list(starmap(Backlog, db.read("backlog", now=db.now)))

    def dead_letters(self, *, limit: int, after: int = 0) -> Sequence[DeadLetter]:
        """Dead letters with a key > `after`, in the order of their keys."""
        with self._engine.transaction("read") as db:
            return list(starmap(DeadLetter, db.read("dead", after=after, limit=limit)))

    def requeue(self, keys: Sequence[int] | None = None) -> int:
        """Dead letters become pending again, with no attempts; all without `keys`; how many."""
        done = 0
        for some in self._dead(keys):
            with self._engine.transaction("write") as db:
                done += db.run("requeue", keys=some, now=db.now)
        if done and self.on_commit is not None:
            self.on_commit({})
        return done

    def drop(self, keys: Sequence[int] | None = None) -> int:
        """Dead letters become "dropped" without payload and are counted; all without `keys`."""
        done = 0
        for some in self._dead(keys):
            with self._engine.transaction("write") as db:
                _count_given_up(db, some, ["dead"], "dropped", "dead_letter")
                done += db.run("drop", keys=some)
                db.run("forget_payloads", keys=some)
        return done

    def forget(self, is_meant: Callable[[bytes], bool]) -> Forgotten:
        """Stop what waits and every dead letter whose payload `is_meant`; the payload is deleted.

        Each is counted as suppressed, "forgotten". What a courier sends just now is left to it.
        """
        found, after = Counter[str](), 0
        while True:
            with self._engine.transaction("read") as db:
                page = db.read("payloads", after=after, limit=STEP_ROWS)
            if not page:
                return Forgotten(found["pending"], found["dead"], found["held"])
            after = page[-1][0]
            meant = [key for key, payload in page if is_meant(payload)]
            if not meant:
                continue
            with self._engine.transaction("write") as db:
                ours = [key for (key,) in db.read("lock_waiting", keys=meant)]
                states = dict(db.read("unleased", keys=ours))
                keys = [*states]
                _count_given_up(db, keys, ["pending", "dead"], "suppressed", "forgotten")
                db.run("forget_event", keys=keys)
                db.run("forget_payloads", keys=keys)
            found.update(states.values())
            found["held"] += len(meant) - len(keys)

    def _dead(self, keys: Sequence[int] | None) -> Iterator[list[int]]:
        """Keys of dead letters, in small steps."""
        if keys is not None:
            for start in range(0, len(keys), STEP_ROWS):
                yield list(keys[start : start + STEP_ROWS])
            return
        after = 0
        while some := [one.key for one in self.dead_letters(limit=STEP_ROWS, after=after)]:
            yield some
            after = some[-1]

    @contextmanager
    def moment(self) -> Iterator[None]:
        """What is read within is of one moment and one transaction, where the engine can that."""
        self._look()
        with self._engine.transaction("read"):
            yield

    def tallies(self, start: float, end: float) -> Tallies:
        """Everything in the window of Unix seconds, aggregated; see `slices` for the window.

        The sums of rows outlive them: what was pruned is still counted.
        """
        self._look()
        with self._engine.transaction("read") as db:
            return rollups.read_tallies(db, start, end)

    def slices(self, facet: Facet, start: float, end: float) -> Sequence[Slice]:
        """The rows of a window by hour, route, page or browser family; of money, their sums.

        The window is whole hours: `start` is rounded down, `end` (not part of it) up. Rows of
        which the route, page or family is not known are in no slice: what `tallies` has more.
        """
        with self._engine.transaction("read") as db:
            return rollups.read_slices(db, facet, start, end)

    def find(self, event_ids: Sequence[str]) -> Sequence[Known]:
        """The rows of these events, at every pixel and of every name, by key.

        Raises ValueError for more than MOST_FOUND.
        """
        if len(event_ids) > MOST_FOUND:
            raise ValueError(
                f"find: found {len(event_ids):,} event_ids, expected at most {MOST_FOUND:,} a call"
            )
        self._look()
        with self._engine.transaction("read") as db:
            return list(starmap(Known, db.read("find", event_ids=list(event_ids))))

    def recent(self, limit: int, after: int = 0) -> Sequence[Known]:
        """The first `limit` rows with a key > `after`; without it the newest. Always by key."""
        with self._engine.transaction("read") as db:
            found = (
                db.read("recent", after=after, limit=limit)
                if after
                else db.read("newest", limit=limit)
            )
        return list(starmap(Known, found))

    def newest(self, limit: int, event_name: str = "", owner: str = "") -> Sequence[Known]:
        """The newest `limit` rows by key, of those among the newest NAMED_AMONG.

        Of one `event_name`, or of pixels whose id ends with `owner`, where these are given.
        """
        with self._engine.transaction("read") as db:
            found = db.read("newest_of", name=event_name, owner=owner, limit=limit)
        return list(starmap(Known, found))

    def keep(self, name: str, body: bytes, *, instead_of: bytes | None) -> bool:
        """Keep `body` under `name`, for all processes, if `instead_of` is what is kept now.

        `instead_of` is None where nothing is kept. False, and nothing is changed, when another
        process was first.
        """
        with self._engine.transaction("write") as db:
            if instead_of is None:
                return db.run("keep", name=name, body=body) == 1
            return db.run("keep_instead", name=name, body=body, instead_of=instead_of) == 1

    def kept(self, name: str) -> bytes | None:
        """What `keep` kept last; None without any."""
        with self._engine.transaction("read") as db:
            found = db.read("kept", name=name)
        return found[0][0] if found else None

    def depth(self) -> dict[str, int]:
        """How many rows are in each server state."""
        self._look()
        with self._engine.transaction("read") as db:
            return rollups.read_depth(db)

    def prune(self, before: float) -> int:
        """Delete settled rows with event_time < `before`, in small steps; how many.

        Rows that wait for delivery stay. Their sums and the counters stay for 400 days from now,
        so that a report on a window that is over says the same for as long.
        """
        self._look()
        pruned, deleted = 0, STEP_ROWS
        while deleted == STEP_ROWS:
            with self._engine.transaction("write") as db:
                deleted = db.run("prune", before=before, limit=STEP_ROWS)
            pruned += deleted
            self._keep_up(deleted)
        more = True
        while more:
            with self._engine.transaction("write") as db:
                more = rollups.fold(db)
        with self._engine.transaction("write") as db:
            rollups.prune_sums(db)
        more = True
        while more:
            more = self._engine.shrink()
        return pruned

    def forget_orders(self, before: float) -> None:
        """Forget orders that were tracked before this Unix time in seconds, in small steps."""
        given = {"before": moment(before)}
        while True:
            with self._engine.transaction("read") as db:
                found = [key for (key,) in db.read("old_orders", limit=STEP_ROWS, **given)]
            if not found:
                return
            with self._engine.transaction("write") as db:
                db.run("forget_orders", keys=found, **given)

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until all that was appended is committed."""
        return self._writer.flush(timeout)

    def close(self, timeout: float | None = None) -> None:
        """Flush and end the store's threads and connections. A later use starts them again.

        `timeout` in seconds; without it the engine's close_seconds.
        """
        timeout = self._engine.close_seconds if timeout is None else timeout
        deadline = time.monotonic() + timeout
        if self._writer.close(timeout):
            self._account()
        self._recalling.stop(max(0.0, deadline - time.monotonic()))
        self._engine.close(max(0.0, deadline - time.monotonic()))

    def _write(self, submissions: Sequence[Submission], counters: Counters) -> None:
        """Store all in one transaction; see Writer."""
        with self._engine.group(submissions) as db:
            if db is None:
                return
            replayed, counters, hour = 0, counters.copy(), int(db.now // 3600)
            appended: list[Row] = []
            for kind, some in groupby(submissions, key=attrgetter("kind")):
                items = [item for one in some for item in one.items]
                if not items:
                    continue
                if kind == "append":
                    beaten: list[int] = []
                    items = list(_joined(db, items, hour, counters, beaten))
                    if beaten:
                        db.run("set_aside", keys=beaten)
                        db.run("unsend", keys=beaten)
                        db.run("unlease", keys=beaten)
                changed = db.many(kind, list(map(_COLUMNS[kind], items)), now=db.now)
                if kind == "sight":
                    replayed += len(items) - changed
                    if changed < len(items):
                        _count_replays(db, items, hour, counters)
                else:
                    waiting = [one for one in items if one.server == "pending"]
                    payloads = list(map(_COLUMNS["append_payloads"], waiting))
                    db.many("append_payloads", payloads, now=db.now)
                    appended += items
            db.many("remember", orders_in(appended))
            if replayed:
                key = (hour, REPLAYED.kind, REPLAYED.reason, "", "")
                counters[key] += replayed
            # In one order everywhere: two processes that count the same must not lock each other.
            db.many("count", sorted([(*key, n) for key, n in counters.items()]))

    def _committed(self, submissions: Sequence[Submission]) -> None:
        waiting: dict[str, set[str]] = {}
        for one in submissions:
            for row in one.items if one.kind == "append" else ():
                if row.server == "pending":
                    waiting.setdefault(row.pixel_id, set()).add(row.event_name)
        if waiting and self.on_commit is not None:
            self.on_commit(waiting)
        if submissions:
            self._account()
        self._keep_up(sum([len(one.items) for one in submissions]))

    def _keep_up(self, changed: int) -> None:
        """Fold when enough has changed, after the commit that pages wait for."""
        self._changed += changed
        if self._changed >= FOLD_EVERY:
            # Another time, or another process, where it would hold up others.
            with suppress(StoreError), self._engine.transaction("idle") as db:
                # In steps, to which pages come between; each may fold more than one changes.
                for _ in range(2 + 2 * changed // FOLD_STEP):
                    if not rollups.fold(db):
                        self._changed = 0
                        break
                    db.give_way()
        with suppress(StoreError):  # who cannot tidy up cannot commit either, which is told
            self._engine.tidy()


def _count_given_up(
    db: Transaction, keys: Sequence[int], servers: Sequence[str], kind: str, reason: str
) -> None:
    """Count those of these events that are in such a state."""
    hour, those = int(db.now // 3600), {"keys": [*keys], "servers": [*servers]}
    db.run("count_given_up", hour=hour, kind=kind, reason=reason, **those)


def _joined(
    db: Transaction, rows: Sequence[Row], hour: int, counters: Counters, beaten: list[int]
) -> Sequence[Row]:
    """`rows` with all uses of their event_ids; those of several events are counted as reused.

    An id that is unique by itself is looked up only where a page's own code names it. `beaten` gets
    the keys of those in the ledger whose place one of `rows` takes.
    """
    asked = {
        row.event_id
        for row in rows
        if row.uses and (row.server == "unmapped" or not is_unique(row.event_id))
    }
    if not asked:
        return rows
    known = _used(db, asked)
    joined: list[Row] = []
    for row in rows:
        if row.event_id in asked:
            name, pixel_id = row.event_name, row.pixel_id
            uses = known.setdefault(row.event_id, {})
            before = uses.get((name, pixel_id))
            said = Use(row.uses, row.digest, row.route or row.page, row.server)
            others = [
                other
                for (other, pixel), use in uses.items()
                if pixel == pixel_id and other != name and use.server != "unsigned"
            ]
            why, is_new = "", before is None or before.server in BROWSER_ONLY
            if before is not None and before.yields_to(said):
                beaten.append(before.key)
                identity = row.event_id, name, pixel_id
                joined = [
                    one
                    for one in joined
                    if (one.event_id, one.event_name, one.pixel_id) != identity
                ]
                why = "" if is_new else f"told {said.place}".rstrip()
            elif before is None or is_new:
                why = f"name {min(others)}" if others else ""
            elif not is_unique(row.event_id):
                why, said = before.joined(said)
                why = why and f"{why} {said.place}".rstrip()
            uses[name, pixel_id] = said
            row = replace(row, uses=said.uses)
            if why:
                counters[hour, "reused", why, name, pixel_id] += 1
        joined.append(row)
    return joined


def _count_replays(
    db: Transaction, sightings: Sequence[Sighting], hour: int, counters: Counters
) -> None:
    """Count what other browsers say than those that the pages were made for: a cache's work."""
    known = _used(db, {one.event_id for one in sightings if one.uses})
    for one in sightings:
        name, pixel_id = one.event_name, one.pixel_id
        use = known.get(one.event_id, {}).get((name, pixel_id))
        if use is None or use.server in BROWSER_ONLY or one.server in BROWSER_ONLY[1:]:
            continue  # of an id that is not ours anybody may tell
        if use.is_replayed_by(one.uses):
            counters[hour, "reused", f"replay {use.place}".rstrip(), name, pixel_id] += 1


def _used(db: Transaction, event_ids: Set[str]) -> dict[str, dict[tuple[str, str], Use]]:
    """What is known of these, by event_name and pixel."""
    found: dict[str, dict[tuple[str, str], Use]] = {}
    if event_ids:
        for event_id, name, pixel_id, *known in db.read("used", event_ids=sorted(event_ids)):
            found.setdefault(event_id, {})[name, pixel_id] = Use(*known)
    return found


def _missing(db: Transaction, rows: Sequence[Row]) -> list[Row]:
    """Those of `rows` that the ledger does not have, each once."""
    found = db.read("find", event_ids=list({row.event_id for row in rows}))
    there = {columns[1:4] for columns in found if columns[5] not in BROWSER_ONLY}
    missing = {(row.event_id, row.event_name, row.pixel_id): row for row in rows}
    return [row for identity, row in missing.items() if identity not in there]
