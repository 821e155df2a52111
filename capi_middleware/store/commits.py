"""Commits: what a store promises for what was appended, and how loops and threads wait for it."""

import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct, field

from capi_middleware.events import Row

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

    #: What is told of the end of a commit.
    Waiter: TypeAlias = "threading.Event | Future[None] | Whole"

#: How long a response waits for the disk before it ends all the same, in seconds.
COMMIT_PATIENCE = 2.0
#: How long it waits while the store is held up: nothing a visitor can feel.
BUSY_PATIENCE = 0.05


class Holdup(Struct):
    """Since when others keep a database locked, and since when a write is under way.

    As time.monotonic(), None where it is not so. What was appended is kept in memory then, and
    committed when the lock is gone.
    """

    since: float | None = None
    writing: float | None = None

    def lasts(self) -> bool:
        """Whether waiting is of no use: somebody has the lock, or a write hangs for too long."""
        if self.since is not None:
            return True
        writing = self.writing
        return writing is not None and time.monotonic() - writing > COMMIT_PATIENCE


class Commit(Struct, eq=False, gc=False):
    """What was submitted is on disk when it has ended, unless there is an `error`.

    Many live while the disk is slow: what holds no circle for long is no work for the collector.
    """

    holdup: Holdup
    error: Exception | None = None
    #: Since when somebody on a loop waits, in the loop's seconds.
    since: float = 0.0
    #: None when it has ended.
    waiting: "list[Waiter] | None" = field(default_factory=list)
    #: What it is about, where that are new events.
    rows: Sequence[Row] = ()

    def done(self) -> bool:
        """Whether waiting would end at once."""
        return self.waiting is None

    def fail(self, error: Exception | None) -> None:
        """It is not on disk, because of this error."""
        self.error = error

    def is_held_up(self) -> bool:
        """Whether nothing is committed just now: see Holdup."""
        return self.holdup.lasts()

    def failure(self) -> Exception:
        """Its error; a TimeoutError where it has not ended yet. It may still come then."""
        return self.error or TimeoutError("the commit takes too long")

    def exception(self, timeout: float | None = None) -> Exception | None:
        """The error, after up to `timeout` seconds. Raises TimeoutError; it may still come."""
        waiting = self.waiting
        if waiting is not None:
            told = threading.Event()
            waiting.append(told)
            # Looked at again: it may have ended before we were listed.
            if self.waiting is not None and not told.wait(timeout):
                raise TimeoutError("the commit takes too long")
        return self.error

    def result(self, timeout: float | None = None) -> None:
        """Wait like `exception`, and raise the error."""
        error = self.exception(timeout)
        if error is not None:
            raise error


class Whole(Commit, eq=False, gc=False):
    """Several commits as one: it ends when all of them have, with the error of one that has one."""

    parts: Sequence[Commit] = ()

    def is_held_up(self) -> bool:
        """Whether one of those that are left is."""
        return any(one.is_held_up() for one in self.parts if not one.done())

    def is_over(self) -> bool:
        """Whether all have ended."""
        over = all(one.done() for one in self.parts)
        self.fail(next((one.error for one in self.parts if one.error), None))
        return over


def together(parts: Sequence[Commit]) -> Commit:
    """One commit for all of these."""
    if len(parts) == 1:
        return parts[0]
    whole = Whole(parts[0].holdup, parts=parts)
    for one in parts:
        waiting = one.waiting
        if waiting is not None:
            waiting.append(whole)
    # Looked at again: they may have ended before it was listed.
    if whole.is_over():
        end([whole])
    return whole


def end(commits: Iterable[Commit]) -> None:
    """End these and tell all who wait; each event loop is woken once. From any thread."""
    loops: dict[AbstractEventLoop, list[Future[None]]] = {}
    wholes: list[Whole] = []
    for commit in commits:
        # First this: who comes from now on does not wait, and all others are listed.
        waiting, commit.waiting = commit.waiting, None
        commit.rows = ()  # they need not stay in memory
        for one in waiting or ():
            if isinstance(one, threading.Event):
                one.set()
            elif isinstance(one, Whole):
                wholes.append(one)
            else:
                loops.setdefault(one.get_loop(), []).append(one)
    for loop, futures in loops.items():
        # A loop that was closed has nobody who waits, and must not keep others waiting.
        with suppress(Exception):
            loop.call_soon_threadsafe(_end, futures)
    # Two threads may find the same one over: who waits is told twice, which is as good as once.
    if over := [one for one in wholes if one.is_over()]:
        end(over)


def arrival(commit: Commit, waiting: "list[Waiter]") -> "Future[None]":
    """What to await on an event loop until a commit ended, or patience did: see Commit.failure.

    `waiting` is the commit's, which has not ended.
    """
    import asyncio  # whoever calls this has it; a WSGI app never loads it

    loop = asyncio.get_running_loop()
    here: _Loop | None = getattr(_local, "loop", None)
    if here is None or here.loop is not loop:
        here = _local.loop = _Loop(loop)
    return here.join(commit, waiting)


async def committed(commit: Commit) -> None:
    """Wait for a commit on an event loop. Raises its failure()."""
    waiting = commit.waiting
    if waiting is not None:
        await arrival(commit, waiting)
    if commit.error is not None or commit.waiting is not None:
        raise commit.failure()


def wait_for(commit: Commit) -> None:
    """Wait for a commit in this thread, like `committed`."""
    waiting = commit.waiting
    if waiting is not None:
        told, end = threading.Event(), time.monotonic() + BUSY_PATIENCE + COMMIT_PATIENCE
        waiting.append(told)
        while commit.waiting is not None and not told.wait(BUSY_PATIENCE):
            if commit.is_held_up() or time.monotonic() > end:
                break
    if commit.error is not None or commit.waiting is not None:
        raise commit.failure()


_local = threading.local()


class _Loop:
    """All who wait on one event loop: one timer for all."""

    def __init__(self, loop: "AbstractEventLoop") -> None:
        self.loop = loop
        self._commits: list[Commit] = []
        self._is_looking = False

    def join(self, commit: Commit, waiting: "list[Waiter]") -> "Future[None]":
        """Ends with the commit, or when patience does."""
        future = self.loop.create_future()
        waiting.append(future)
        if commit.waiting is None:
            _end([future])  # it ended before we were listed
            return future
        commit.since = self.loop.time()
        self._commits.append(commit)
        if not self._is_looking:
            self._is_looking = True
            self.loop.call_later(BUSY_PATIENCE, self._look)
        return future

    def _look(self) -> None:
        now, still = self.loop.time(), []
        for commit in self._commits:
            patience = BUSY_PATIENCE if commit.is_held_up() else BUSY_PATIENCE + COMMIT_PATIENCE
            waiting = commit.waiting
            if waiting is None:
                continue
            if commit.since + patience > now:
                still.append(commit)
            else:
                _end([one for one in waiting if not isinstance(one, threading.Event | Whole)])
        self._commits, self._is_looking = still, bool(still)
        if still:
            self.loop.call_later(BUSY_PATIENCE, self._look)


def _end(futures: "list[Future[None]]") -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
