"""Couriers: each delivers the events of one pixel, on a thread of its own while some wait."""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Set

from capi_middleware.delivery.before_send import BeforeSend
from capi_middleware.delivery.daemon import Daemon
from capi_middleware.delivery.retry import gathering, lingering
from capi_middleware.delivery.rounds import Client, Rounds, Way
from capi_middleware.errors import StoreError
from capi_middleware.shield import Shield
from capi_middleware.store.store import Store

#: How long a courier holds events, in seconds: twice what a request may take (graph.DEADLINE),
#: and no longer, because the events of a killed process wait for the end of its lease.
LEASE_SECONDS = 20.0
#: How often somebody looks for events of other processes, in seconds, and how long the thread of a
#: courier waits for more when nothing is due.
POLL_SECONDS = 2.0
_VIEWS = {"PageView"}


class Courier(Daemon):
    """Delivers the events of one pixel; a slow or dead pixel holds up nobody else."""

    def __init__(
        self,
        store: Store,
        pixel_id: str,
        make_client: Callable[[], Client],
        token: str = "",
        before_send: BeforeSend | None = None,
        surely: Callable[[], float | None] = lambda: math.inf,
    ) -> None:
        super().__init__(f"capi-courier-{pixel_id}")
        #: Where many share few threads: see Threads.
        self.threads: Threads | None = None
        self._store = store
        self._pixel_id = pixel_id
        self._shield = Shield(store.count)
        self._rounds = Rounds(
            store, pixel_id, Way(make_client, token, before_send, surely),
            lease_seconds=LEASE_SECONDS, now=lambda: self._now(), stops=lambda: self._stop.is_set(),
        )  # fmt: skip
        #: When it last asked the store for events, in seconds of time.monotonic().
        self._looked = 0.0
        self._forked()

    def _forked(self) -> None:
        self._wake = threading.Event()
        #: Whether a thread runs, or waits in line; decided with the lock held.
        self._is_called = False
        self._calling = threading.RLock()
        #: Nothing that it was woken for can be delivered just now; decided as above.
        self._idle = threading.Event()
        self._idle.set()
        #: Somebody waits for all to be delivered: gathering is over.
        self._hurry = threading.Event()
        #: Something else than page views waits.
        self._soon = threading.Event()
        self._rounds.forget()

    @property
    def is_done(self) -> bool:
        """Whether no thread of it runs or waits in line, and nothing is left to write down."""
        return not (self._is_called or self._rounds.is_unsettled)

    @property
    def pixel_id(self) -> str:
        """Whose events it delivers."""
        return self._pixel_id

    @property
    def alive(self) -> bool:
        """Whether a thread delivers in this process, or none is needed now."""
        here = self._thread is not None and self._pid == os.getpid()
        return self.running or self._stop.is_set() or not here

    def start(self) -> None:
        """Deliver from now on, also after stop() and in a forked process."""
        self.allow()
        self.wake()

    def allow(self) -> None:
        """It may deliver again when it is woken, after stop() and in a forked process."""
        self._look_for_fork()
        self._stop.clear()

    def wake(self, names: Set[str] = frozenset()) -> None:
        """There may be something to deliver. Starts the thread, again after a fork.

        `names` are those of the events, where they are known.
        """
        if self._stop.is_set():
            return
        self._look_for_fork()
        if names != _VIEWS:
            self._soon.set()
        with self._calling:
            self._wake.set()
            self._idle.clear()
            is_called, self._is_called = self._is_called, True
        if not is_called:
            self._call()

    def _call(self) -> None:
        if self.threads is None:
            self._start_thread()
        else:
            self.threads.begin(self)

    def enter(self) -> bool:
        """Start the thread that was called for, unless it was stopped meanwhile."""
        if self._stop.is_set():
            self._is_called = False
            return False
        self._start_thread()
        return True

    def hurry(self) -> None:
        """Deliver what is there without waiting for more."""
        self._hurry.set()
        self._soon.set()

    def is_idle(self, seconds: float) -> bool:
        """Whether within so many seconds nothing is left that could be delivered just now."""
        return self._idle.wait(seconds)

    def halt(self) -> None:
        """Ask the thread to end after the request in flight."""
        super().halt()
        self.hurry()
        self._wake.set()

    def stop(self, timeout: float) -> bool:
        """End the thread after the request in flight, waiting up to `timeout` seconds.

        A request that takes longer is given up: its events are due at once for whoever comes next.
        """
        ended = super().stop(timeout)
        if not ended:
            self._rounds.give_back()
        elif not self._is_called:
            self._rounds.close()
        return ended

    def _work(self) -> None:
        again = False
        try:
            while not self._stop.is_set():
                self._wake.clear()
                try:
                    seconds = self._round()
                except Exception as error:
                    # Nothing may end the thread: the lease runs out, the events go out later.
                    self._shield.caught(error, f"the courier of pixel {self._pixel_id}")
                    seconds = POLL_SECONDS
                # With others in line it asks for another turn instead of waiting.
                wanted = self._is_in_the_way
                if seconds and not wanted:
                    self._rest()
                woken = self._wake.wait(0.0 if wanted else min(seconds, POLL_SECONDS))
                if wanted or not (woken or self._rounds.is_unsettled or seconds < POLL_SECONDS):
                    again = seconds < POLL_SECONDS or woken
                    break
                # Asked to end while a round began, which forgot that somebody is in a hurry.
                if seconds and (woken or seconds < POLL_SECONDS) and not self._stop.is_set():
                    self._gather(woken)
        finally:
            self._leave(again)

    def _rest(self) -> None:
        with self._calling:
            if not self._wake.is_set():
                self._idle.set()

    def _leave(self, again: bool) -> None:
        """The thread ends; another one begins if somebody called meanwhile."""
        stops = self._stop.is_set()
        if stops:
            self._rounds.close()
        with self._calling:
            again = (again or self._wake.is_set()) and not stops
            self._is_called = again
            if not stops:
                self._thread = None
        if self.threads is not None:
            self.threads.end()
        if again:
            self._call()

    def _gather(self, woken: bool) -> None:
        """Wait for company. Only of this process's own events (`woken`) are the names known.

        Other processes commit too: never longer than POLL_SECONDS without a look at the store.
        """
        rate = self._rounds.pace.rate(self._now())
        if self._wait(self._hurry, gathering(rate)) or self._soon.is_set() or not woken:
            return
        end = self._now() + lingering(rate)
        while (left := end - self._now()) > 0 and not self._conversion_waits():
            self._looked = self._now()
            if self._wait(self._soon, left):
                self._wait(self._hurry, gathering(rate))
                return

    def _wait(self, event: threading.Event, seconds: float) -> bool:
        """Whether `event` came within `seconds`, or before the next look at the store is due."""
        return self._sleep(event, max(0.0, min(seconds, self._looked + POLL_SECONDS - self._now())))

    def _conversion_waits(self) -> bool:
        try:
            return self._store.conversion_waits(self._pixel_id)
        except StoreError:
            return True  # the round that follows finds out what is wrong, and says so

    def _sleep(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)

    def _now(self) -> float:
        return time.monotonic()

    def _round(self) -> float:
        """Deliver all that is due, or one batch where others wait for the thread.

        Seconds until there may be more.
        """
        while True:
            seconds = self._step()
            if seconds or self._stop.is_set() or self._is_in_the_way:
                return seconds

    @property
    def _is_in_the_way(self) -> bool:
        return self.threads is not None and self.threads.are_wanted

    def _step(self) -> float:
        """Deliver one batch; seconds until there may be more."""
        seconds = self._rounds.held_up()
        if seconds == 0.0:
            self._hurry.clear()
            self._soon.clear()
            self._looked = self._now()
            seconds = self._rounds.deliver(self._looked)
        return POLL_SECONDS if seconds is None else seconds


def _nowhere() -> Client:
    raise StoreError("found no way to Meta, expected one")


class TenantCourier(Courier):
    """Delivers the events of a tenant's pixel by the way that `find` knows when they are due.

    `find` may take long: it is asked on the courier's thread. None where the tenant has no such
    pixel (any more): its events wait until they are too old.
    """

    def __init__(self, store: Store, pixel_id: str, find: Callable[[], Way | None]) -> None:
        super().__init__(store, pixel_id, _nowhere)
        self._find = find
        self._has_way = False

    def _leave(self, again: bool) -> None:
        if not again and self._is_in_the_way:
            self._rounds.close()  # thousands may have their turn before it is this one's again
        super()._leave(again)

    def _step(self) -> float:
        if not self._has_way:
            way = self._find()
            if way is None:
                seconds = self._rounds.without_way()
                return POLL_SECONDS if seconds is None else seconds
            self._rounds.go(way)
            self._has_way = True
        return super()._step()


class Threads:
    """Few threads for many couriers: whoever finds none waits in line, and each has its turn."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._start_over()

    def _start_over(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._running = 0
        self._line: deque[Courier] = deque()

    @property
    def are_wanted(self) -> bool:
        """Whether somebody waits in line."""
        return bool(self._line)

    def begin(self, courier: Courier) -> None:
        """Start the thread of a courier as soon as there may be one more."""
        if self._pid != os.getpid():
            self._start_over()
        with self._lock:
            self._line.append(courier)
        self._admit()

    def end(self) -> None:
        """A thread ends: the next one in line gets its place."""
        with self._lock:
            self._running -= 1
        self._admit()

    def _admit(self) -> None:
        while True:
            with self._lock:
                if not self._line or self._running >= self._most:
                    return
                courier = self._line.popleft()
                self._running += 1
            if not courier.enter():
                with self._lock:
                    self._running -= 1
