"""Group commit: one daemon thread turns many small submissions into few transactions."""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

from capi_middleware.errors import StoreError, StoreFull
from capi_middleware.events import Count, Row
from capi_middleware.shield import about
from capi_middleware.store.commits import Batch, Commit
from capi_middleware.store.forks import at_fork
from capi_middleware.store.gathering import Gathering
from capi_middleware.store.queueing import room
from capi_middleware.store.submissions import (
    CounterKey,
    Counters,
    LockedError,
    OwnLockError,
    Submission,
    halves,
    reject,
)

logger: logging.Logger = logging.getLogger("capi_middleware.store")

#: A lock that others hold for longer than this is worth a line in the log, in seconds.
LONG_LOCK = 1.0
#: Pause before a write is tried again that found the database locked, in seconds.
BUSY_PAUSE = 0.05
#: How often a fork is looked for that Python does not see, in seconds.
LOOK_SECONDS = 0.1
#: First and longest pause after an unexpected exception in the thread, in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0


class Writer:
    """Commits submissions in order, many at a time, on a thread that starts with the first one.

    `submit` and `count` never block. All methods may be called from any thread, also from a
    logging handler, a finalizer or a signal handler that interrupted one of them, and wait for
    their commit there: groups take what comes without a lock.

    `write` stores submissions and counters in one transaction. It raises LockedError when the same
    should be tried again, another StoreError when the database as a whole cannot be written, and
    anything else when something in the submissions cannot be stored. `on_commit` gets the
    submissions that were committed.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Submission], Counters], None],
        *,
        queue_limit: int,
        clock: Callable[[], float],
        on_commit: Callable[[Sequence[Submission]], None],
    ) -> None:
        self._write = write
        self._queue_limit = queue_limit
        self._room = room(queue_limit, ())
        self._clock = clock
        self._on_commit = on_commit
        self._start_over()
        at_fork(after_in_child=self._start_over)

    def _start_over(self) -> None:
        # In a forked child: what the parent queued is the parent's to commit, and any lock may
        # be held by a thread that does not exist here.
        self._pid = os.getpid()
        self._look_at = 0.0
        self._starting = threading.RLock()
        self._gathering = Gathering(self.is_held_up)
        #: Rows of the transaction that is going on.
        self._committing = 0
        self._counted: deque[tuple[CounterKey, int]] = deque()
        self._count_announced = False
        self._counters: Counters = {}
        self._thread: threading.Thread | None = None
        self._running = False
        self._in_trouble = False
        self._locked_since: float | None = None

    def is_held_up(self) -> bool:
        """Whether others keep the database locked just now."""
        return self._locked_since is not None

    def submit(
        self, kind: Literal["append", "sight", "flush", "stop"], items: Sequence[Any], *, wait: bool
    ) -> Commit | None:
        """Queue `items`; with `wait`, their commit.

        Raises StoreFull when more than `queue_limit` rows would wait. Dropped rows are counted.
        """
        self._look_for_fork(at_once=wait)
        items = tuple(items)
        queued = self._committing + self._gathering.rows() + len(items)
        if items and queued > self._room and queued > room(self._queue_limit, items):
            if kind == "append":
                self.count(
                    [Count("dropped", "queue_full", row.event_name, row.pixel_id) for row in items]
                )
            raise StoreFull(
                f"{len(items)} rows do not fit into the queue of {self._queue_limit} (queue_limit; "
                f"page views and sightings leave the last part of it to conversions)"
            )
        submission = Submission(kind, items, None)
        self._gathering.add(submission, wait=wait)
        # After the addition: a thread that is just ending either sees it or is replaced.
        if not self._running:
            self._start_thread()
        return submission.commit

    def _look_for_fork(self, *, at_once: bool = False) -> None:
        """Python tells of its own forks (at_fork); others, such as uWSGI's, are looked for.

        Where nobody waits not each time: os.getpid() is a system call, in which a busy server was
        seen to spend 12 µs of each page.
        """
        now = time.monotonic()
        if now < self._look_at and not at_once:
            return
        if self._pid != os.getpid():
            # What the parent queued may be stored twice, and is one row. What was queued here
            # until now must not be forgotten.
            before = self._gathering
            self._start_over()
            self._gathering.take_over(before)
            self._start_thread()
        self._look_at = now + LOOK_SECONDS

    def count(self, counts: Sequence[Count]) -> None:
        """Add to the counters. Never full: equal counts are one number while they wait."""
        self._look_for_fork()
        hour = int(self._clock() // 3600)
        self._counted.extend(
            [((hour, c.kind, c.reason, c.event_name, c.pixel_id), c.n) for c in counts]
        )
        if not self._count_announced:
            self._count_announced = True
            self._gathering.knock()
            if not self._running:
                self._start_thread()

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for all that was submitted; whether it was committed."""
        return self._finish("flush", timeout)

    def close(self, timeout: float) -> bool:
        """Like `flush`, and the thread ends. A later submission starts another one."""
        thread = self._thread
        done = self._finish("stop", timeout)
        if done and thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
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
            thread.start()
        except RuntimeError as error:
            self._running = False
            raise StoreError("the store's thread cannot start") from error

    def _run(self) -> None:
        failures = 0
        while True:
            batch, submissions = self._gathering.take()
            try:
                self._commit(batch, submissions)
                failures = 0
            except BaseException as error:
                # Nothing may end this thread: the process would stop storing, silently.
                failures += 1
                _log("the store's thread failed: %s", type(error).__name__, "thread_failed")
                if not batch.done:
                    reject(submissions, error)
                    self._let_go(batch)
                time.sleep(min(FIRST_PAUSE * 2 ** min(failures, 10), LONGEST_PAUSE))
            stopped = any(submission.kind == "stop" for submission in submissions)
            del batch, submissions  # rows need not stay in memory until the next ones come
            if stopped:
                break
        self._running = False
        if self._gathering:
            self._start_thread()  # somebody submitted more while this thread was ending

    def _commit(self, batch: Batch, submissions: list[Submission]) -> None:
        self._committing = sum(len(submission.items) for submission in submissions)
        self._count_announced = False
        self._fold()
        counters, self._counters = self._counters, {}
        committed = self._store(submissions, counters)
        self._let_go(batch)
        try:
            self._on_commit(committed)
        except Exception as error:
            _log("on_commit failed: %s", type(error).__name__, "wake_failed")

    def _let_go(self, batch: Batch) -> None:
        """There is room for others, and those who wait go on."""
        self._committing = 0
        batch.end()

    def _fold(self) -> None:
        while self._counted:
            key, n = self._counted.popleft()
            self._counters[key] = self._counters.get(key, 0) + n

    def _store(self, group: list[Submission], counters: Counters) -> list[Submission]:
        """Commit all together, or in ever smaller parts until what cannot be stored is alone.

        What was committed.
        """
        try:
            self._write_patiently(group, counters)
        except StoreError as error:
            self._complain(str(error))
            # Counters stay in memory until the database is well again: they take no room.
            for key, n in counters.items():
                self._counters[key] = self._counters.get(key, 0) + n
            self._lose(group, error)
        except Exception as error:
            if len(group) + len(counters) > 1:
                parts = halves(group, counters)
                return [one for part, some in parts for one in self._store(part, some)]
            _log("something cannot be stored: %s", type(error).__name__, "lost")
            self._lose(group, error)
        else:
            return group
        return []

    def _write_patiently(self, group: list[Submission], counters: Counters) -> None:
        if not counters and not any(submission.items for submission in group):
            return
        while True:
            try:
                self._write(group, counters)
            except OwnLockError:
                # A courier of ours settles a batch: pages may wait for that as for any commit.
                self._fold()
            except LockedError as error:
                now = time.monotonic()
                self._locked_since = self._locked_since or now
                if now - self._locked_since > LONG_LOCK:
                    self._complain(str(error))
                time.sleep(BUSY_PAUSE)
                self._fold()
            except BaseException:
                self._locked_since = None
                raise
            else:
                self._in_trouble, self._locked_since = False, None
                return

    def _complain(self, text: str) -> None:
        if not self._in_trouble:
            self._in_trouble = True
            _log("%s", text, "locked")

    def _lose(self, group: list[Submission], error: Exception) -> None:
        reject(group, error)
        hour = int(self._clock() // 3600)
        for submission in group:
            for row in submission.items:
                if isinstance(row, Row):
                    key = (hour, "dropped", "store_error", row.event_name, row.pixel_id)
                    self._counters[key] = self._counters.get(key, 0) + 1


def _log(sentence: str, what: str, action: str) -> None:
    logger.error(sentence, what, extra=about(f"store_{action}"))
