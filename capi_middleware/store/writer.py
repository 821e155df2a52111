"""Group commit: one daemon thread turns many small submissions into few transactions."""

import logging
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Literal
from weakref import WeakMethod

from msgspec import Struct
from msgspec.structs import replace

from capi_middleware.errors import StoreError, StoreFull
from capi_middleware.events import Count, Row
from capi_middleware.private import Private, start_apart
from capi_middleware.shield import about
from capi_middleware.store.commits import Commit, Holdup, end

logger: logging.Logger = logging.getLogger("capi_middleware.store")

#: A transaction takes submissions until it has this many rows (about 10 ms on a slow disk).
GROUP_ROWS = 1000
#: How long rows that nobody waits for wait for others, in seconds, and how many do not any more: a
#: row that is committed alone costs ten times what it costs among fifty.
COMPANY_SECONDS, CROWD_ROWS = 0.1, 200
#: One part in this many of a queue takes conversions only: page views and sightings go first.
CONVERSIONS_ONLY = 5
#: A lock that others hold for longer than this is worth a line in the log, in seconds.
LONG_LOCK = 1.0
#: Pause before a write is tried again that found the database locked, in seconds.
BUSY_PAUSE = 0.05
#: How often a fork is looked for that Python does not see, in seconds.
LOOK_SECONDS = 0.1
#: First and longest pause after an unexpected exception in the thread, in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0

#: What `n` of a counter belongs to: hour (Unix time // 3600), kind, reason, event_name, pixel_id.
CounterKey = tuple[int, str, str, str, str]
Counters = Counter[CounterKey]
#: "count" and "flush" have no items: counts wait apart, where equal ones are one number.
Kind = Literal["append", "sight", "count", "flush", "stop"]


class LockedError(StoreError):
    """Somebody else holds the database's lock: the same write may work later."""


class ForeignError(StoreError):
    """The file is somebody else's: nothing is written into it, or beside it."""


class AwayError(LockedError):
    """The server is away, or cannot be written just now: its engine tells the log of it."""

    told = True


class Submission(Private, Struct, eq=False, gc=False):
    """What one call hands to the writer, and the commit that it waits for."""

    kind: Kind
    items: Sequence[Any]
    commit: Commit | None


class Writer:
    """Commits submissions in order, many at a time, on a thread that starts with the first one.

    `submit` and `count` never block. All methods may be called from any thread, also from a
    logging handler, a finalizer or a signal handler that interrupted one of them, and wait for
    their commit there: a SimpleQueue takes what comes without a lock of Python's.

    `write` stores submissions and counters in one transaction. It raises LockedError when the same
    should be tried again, another StoreError when the database as a whole cannot be written, and
    anything else when something in the submissions cannot be stored. `on_commit` gets the
    submissions that were committed, `on_loss` what was lost in an hour, Unix time // 3600: whether
    somebody else counts it. With `inline` each call commits in its caller's thread, before
    it returns: for a database that nobody waits for.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Submission], Counters], None],
        *,
        queue_limit: int,
        clock: Callable[[], float],
        on_commit: Callable[[Sequence[Submission]], None],
        on_loss: Callable[[int, Sequence[Count]], bool] = lambda hour, counts: False,
        inline: bool = False,
    ) -> None:
        self._write = write
        self._inline = inline
        self._queue_limit = queue_limit
        self._room = room(queue_limit, ())
        self._clock = clock
        self._on_commit = on_commit
        self._on_loss = on_loss
        self._start_over()
        at_fork(after_in_child=self._start_over)

    def _start_over(self) -> None:
        # In a forked child: what the parent queued is the parent's to commit, and any lock may
        # be held by a thread that does not exist here.
        self._pid = os.getpid()
        self._look_at = 0.0
        self._starting = threading.RLock()
        self._queue: SimpleQueue[Submission] = new_queue()
        #: Hangs there while rows wait for company: whoever cannot wait rings it.
        self._bell: SimpleQueue[None] | None = None
        #: Rows that were submitted and are not committed.
        self._rows = 0
        #: Counts with their hour, Unix time // 3600.
        self._counted: deque[tuple[int, Sequence[Count]]] = deque()
        self._count_announced = False
        self._counters: Counters = Counter()
        self._thread: threading.Thread | None = None
        self._running = False
        self._in_trouble = False
        self._holdup = Holdup()

    def submit(self, kind: Kind, items: Sequence[Any], *, wait: bool) -> Commit | None:
        """Queue `items`; with `wait`, their commit.

        Raises StoreFull when more than `queue_limit` rows would wait. Dropped rows are counted.
        """
        self._look_for_fork(at_once=wait)
        items = tuple(items)
        queued = self._rows + len(items)
        if items and queued > self._room and queued > room(self._queue_limit, items):
            self.count(dropped(kind, items, "queue_full"))
            raise StoreFull(
                f"{len(items)} rows do not fit into the queue of {self._queue_limit} (queue_limit; "
                f"page views and sightings leave the last part of it to conversions)"
            )
        commit = None
        if wait:
            commit = Commit(self._holdup, rows=items if kind == "append" else ())
        self._rows += len(items)
        self._put(Submission(kind, items, commit))
        return commit

    def _put(self, submission: Submission) -> None:
        if self._inline:
            self._commit([submission])
            return
        self._queue.put(submission)
        # After the addition, both: a thread that lingers, or is just ending, either sees it or is
        # told, or replaced.
        bell = self._bell
        if bell is not None and (submission.commit is not None or self._rows >= CROWD_ROWS):
            bell.put(None)
        if not self._running:
            self._start_thread()

    def _look_for_fork(self, *, at_once: bool = False) -> None:
        """Python tells of its own forks (at_fork); others, such as uWSGI's, are looked for.

        Where nobody waits not each time: os.getpid() is a system call, in which a busy server was
        seen to spend 12 µs of each page.
        """
        now = time.monotonic()
        if self._inline or (now < self._look_at and not at_once):
            return
        if self._pid != os.getpid():
            # What the parent queued may be stored twice, and is one row. What was queued here
            # until now must not be forgotten.
            before = self._queue
            self._start_over()
            while not before.empty():
                one = before.get()
                self._rows += len(one.items)
                self._queue.put(one)
            self._start_thread()
        self._look_at = now + LOOK_SECONDS

    def count(self, counts: Sequence[Count]) -> None:
        """Add to the counters. Never full: equal counts are one number while they wait."""
        self._look_for_fork()
        self._counted.append((int(self._clock() // 3600), tuple(counts)))
        if counts and not self._count_announced:
            self._count_announced = True
            self._put(Submission("count", (), None))

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for all that was submitted; whether it was committed."""
        return self._finish("flush", timeout)

    def close(self, timeout: float) -> bool:
        """Like `flush`, and the thread ends. A later submission starts another one."""
        thread, deadline = self._thread, time.monotonic() + timeout
        done = self._finish("stop", timeout)
        if done and thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))
        if not done and self._rows:
            _log("closing: %s rows are not stored yet", str(self._rows), "unsaved")
        return done

    def _finish(self, kind: Literal["flush", "stop"], timeout: float) -> bool:
        if self._pid != os.getpid() or not self._running:
            return True
        if self._thread is threading.current_thread():
            return False  # called by on_commit or a logging handler: waiting would be for ever
        try:
            commit = self.submit(kind, (), wait=True)
            assert commit is not None
            commit.result(timeout)
        except (TimeoutError, StoreError):
            return False
        return True

    def _start_thread(self) -> None:
        with self._starting:
            running, self._running = self._running, True
        if running:
            return
        thread = threading.Thread(target=self._run, name="capi-store-writer", daemon=True)
        self._thread = thread
        try:
            start_apart(thread)
        except RuntimeError as error:
            self._running = False
            raise StoreError("the store's thread cannot start") from error

    def _run(self) -> None:
        failures, stopped = 0, False
        while not stopped:
            group = self._take()
            try:
                self._commit(group)
                failures = 0
            except BaseException as error:
                # Nothing may end this thread: the process would stop storing, silently.
                failures += 1
                self._failed("the store's thread failed: %s", error, "thread_failed")
                time.sleep(min(FIRST_PAUSE * 2 ** min(failures, 10), LONGEST_PAUSE))
            stopped = any(one.kind == "stop" for one in group)
            del group  # rows need not stay in memory until the next ones come
        self._running = False
        if not self._queue.empty():
            self._start_thread()  # somebody submitted more while this thread was ending

    def _commit(self, group: list[Submission]) -> None:
        self._holdup.writing = time.monotonic()
        try:
            self._commit_all(group)
        finally:
            self._holdup.writing = None

    def _commit_all(self, group: list[Submission]) -> None:
        try:
            self._count_announced = False
            self._fold()
            counters, self._counters = self._counters, Counter()
            stored = self._store(group, counters)
        except BaseException as error:
            reject(group, error)
            raise
        finally:
            self._rows -= sum([len(one.items) for one in group])
            end([one.commit for one in group if one.commit is not None])
        try:
            self._on_commit(stored)
        except Exception as error:
            self._failed("on_commit failed: %s", error, "wake_failed")

    def _take(self) -> list[Submission]:
        """The next group: what waits now, and its company where nobody waits for any of it."""
        if self._queue.empty():
            self._rows = 0  # an exception may have interrupted somebody who submitted
        group = [self._queue.get()]
        if not self._fill(group):
            self._bell = bell = new_queue()
            with suppress(Empty):
                if not self._fill(group):  # who came before the bell hung there did not ring
                    bell.get(timeout=COMPANY_SECONDS)
            self._bell = None
            self._fill(group)
        return group

    def _fill(self, group: list[Submission]) -> bool:
        """Add what waits; whether somebody waits for one of these, or they are company enough."""
        rows = sum([len(one.items) for one in group])
        with suppress(Empty):
            while rows < GROUP_ROWS:
                group.append(self._queue.get_nowait())
                rows += len(group[-1].items)
        return rows >= CROWD_ROWS or any(one.commit is not None for one in group)

    def _fold(self) -> None:
        while self._counted:
            hour, counts = self._counted.popleft()
            for c in counts:
                self._counters[hour, c.kind, c.reason, c.event_name, c.pixel_id] += c.n

    def _store(self, group: list[Submission], counters: Counters) -> list[Submission]:
        """Commit all together, or in ever smaller parts until what cannot be stored is alone.

        What was committed.
        """
        try:
            self._write_patiently(group, counters)
        except StoreError as error:
            self._complain(str(error))
            # Counters stay in memory until the database is well again: they take no room.
            self._counters.update(counters)
            self._lose(group, error)
        except Exception as error:
            if len(group) + len(counters) > 1:
                parts = _halves(group, counters)
                return [one for part, some in parts for one in self._store(part, some)]
            self._failed("something cannot be stored: %s", error, "lost")
            self._lose(group, error)
        else:
            return group
        return []

    def _write_patiently(self, group: list[Submission], counters: Counters) -> None:
        if not counters and not any(one.items for one in group):
            return
        while True:
            try:
                self._write(group, counters)
            except LockedError as error:
                now = time.monotonic()
                self._holdup.since = self._holdup.since or now
                if now - self._holdup.since > LONG_LOCK and not error.told:
                    self._complain(str(error))
                time.sleep(BUSY_PAUSE)
                self._fold()
            except BaseException:
                self._holdup.since = None
                raise
            else:
                self._in_trouble, self._holdup.since = False, None
                return

    def _complain(self, text: str) -> None:
        if not self._in_trouble:
            self._in_trouble = True
            _log("%s", text, "locked")

    def _failed(self, sentence: str, error: BaseException, action: str) -> None:
        kind = type(error).__name__
        _log(sentence, kind, action)
        self._counted.append((self._hour(), [Count("error", f"the store: {kind}")]))

    def _hour(self) -> int:
        return int(self._clock() // 3600)

    def _lose(self, group: list[Submission], error: Exception) -> None:
        reject(group, error)
        hour, lost = self._hour(), Counter[Count]()
        for one in group:
            lost.update(dropped(one.kind, one.items, "store_error"))
        counts = [replace(one, n=n) for one, n in lost.items()]
        if counts and (isinstance(error, ForeignError) or not self._on_loss(hour, counts)):
            self._counters.update(counters_of(hour, counts))


def new_queue() -> SimpleQueue[Any]:
    """A SimpleQueue that wakes real threads, whatever gevent patched."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or monkey.is_module_patched("threading"):
        return SimpleQueue()
    # patch_all(thread=False): gevent's own queue wakes no real thread.
    made: SimpleQueue[Any] = monkey.get_original("queue", "SimpleQueue")()
    return made


def room(queue_limit: int, items: Iterable[object]) -> int:
    """How many rows may wait when `items` come to them."""
    for one in items:
        if isinstance(one, Row) and one.event_name != "PageView":
            return queue_limit
    return queue_limit - queue_limit // CONVERSIONS_ONLY


def counters_of(hour: int, counts: Iterable[Count]) -> Counters:
    """Counts of an hour as counters."""
    counters: Counters = Counter()
    for one in counts:
        counters[hour, one.kind, one.reason, one.event_name, one.pixel_id] += one.n
    return counters


def dropped(kind: Kind, items: Sequence[Any], reason: str) -> list[Count]:
    """What is counted for rows that are lost."""
    if kind != "append":
        return []
    return [Count("dropped", reason, row.event_name, row.pixel_id) for row in items]


def reject(group: Sequence[Submission], error: BaseException) -> None:
    """Everybody who waits for one of `group` gets the error, as a StoreError."""
    failure = error
    if not isinstance(failure, StoreError):
        failure = StoreError(f"the rows cannot be stored: {type(error).__name__}")
        failure.__cause__ = error
    for submission in group:
        if submission.commit is not None:
            submission.commit.error = failure


def at_fork(**hooks: Callable[[], None]) -> None:
    """Call these bound methods around each fork, for as long as their object lives.

    By the names of os.register_at_fork. Python cannot unregister a hook, so what stays for ever is
    one small partial per method.
    """
    if hasattr(os, "register_at_fork"):
        for moment, hook in hooks.items():
            os.register_at_fork(**{moment: partial(_call, WeakMethod(hook))})


def _call(hook: WeakMethod[Callable[[], None]]) -> None:
    alive = hook()
    if alive is not None:
        alive()


def _halves(
    group: list[Submission], counters: Counters
) -> Iterator[tuple[list[Submission], Counters]]:
    """Smaller transactions, to find what in a group cannot be stored."""
    pairs = list(counters.items())
    rows, counts = len(group) // 2, len(pairs) // 2
    if group and pairs:
        rows, counts = len(group), 0
    yield group[:rows], Counter(dict(pairs[:counts]))
    yield group[rows:], Counter(dict(pairs[counts:]))


def _log(sentence: str, what: str, action: str) -> None:
    logger.error(sentence, what, extra=about(f"store_{action}"))
