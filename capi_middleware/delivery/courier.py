"""Couriers: each leases, sends and settles the events of one pixel, on a thread while some wait."""

import logging
import math
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence, Set
from typing import Any, Protocol

from capi_middleware.delivery.before_send import BeforeSend
from capi_middleware.delivery.daemon import Daemon
from capi_middleware.delivery.retry import (
    BATCH,
    LONGEST_DELAY,
    Pace,
    asks_to_wait,
    backoff,
    gathering,
    lingering,
    rest,
)
from capi_middleware.delivery.telemetry import Attempt, measure
from capi_middleware.errors import StoreError
from capi_middleware.events import Count
from capi_middleware.meta.codes import FAILURES, Outcome, meaning_of
from capi_middleware.shield import Shield, about
from capi_middleware.store.records import Lease, LeasedEvent, Settlement
from capi_middleware.store.store import Store

logger: logging.Logger = logging.getLogger("capi_middleware.delivery")

#: How long a courier holds a batch, in seconds: twice what a request may take (graph.DEADLINE),
#: and no longer, because the events of a killed process wait for the end of its lease.
LEASE_SECONDS = 20.0
#: How often somebody looks for events of other processes, in seconds, and how long the thread of a
#: courier waits for more when nothing is due.
POLL_SECONDS = 2.0
#: How often the log says that a pixel rests for the same reason, in seconds.
TELL_SECONDS = 900.0
_VIEWS = {"PageView"}


class Client(Protocol):
    """What a courier needs of the Graph API."""

    def send(self, payloads: Sequence[bytes]) -> Outcome:
        """Post a batch."""

    def hear(self) -> Outcome | None:
        """Let Meta's clock be heard; what came in between, None for nothing."""

    def close(self) -> None:
        """Close the connection."""


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
        self._make_client = make_client
        self._token = token
        self._before_send = before_send
        #: Unix time by another clock than the store's, see Store.lease.
        self._surely = surely
        self._shield = Shield(store.count)
        self._chance = random.Random()  # noqa: S311 - jitter, not a secret
        #: How often the pixel had to rest since it last delivered, in all processes.
        self._failures = 0
        #: The reason to rest that the log told last, and when, in seconds of time.monotonic().
        self._told: tuple[str, float] | None = None
        self._pace = Pace()
        #: When it last asked the store for events, in seconds of time.monotonic().
        self._looked = 0.0
        self._forked()

    def _forked(self) -> None:
        self._wake = threading.Event()
        #: Whether a thread runs, or waits in line; decided with the lock held.
        self._is_called = False
        self._calling = threading.RLock()
        #: Somebody waits for all to be delivered: gathering is over.
        self._hurry = threading.Event()
        #: Something else than page views waits.
        self._soon = threading.Event()
        self._client: Client | None = None
        #: The lease of the batch that is being delivered, its events without an outcome by key, and
        #: those of them that are in the request being answered.
        self._lease_id = ""
        self._held: dict[int, LeasedEvent] = {}
        self._flying: list[LeasedEvent] = []
        #: Outcomes that the store could not take (a full disk): kept, so that nothing that was
        #: delivered goes out again.
        self._unsettled: list[tuple[str, list[Settlement]]] = []

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
            self._give_back()
        elif not self._is_called:
            self._close_client()
        return ended

    def _close_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _give_back(self) -> None:
        """What has no outcome need not wait for the lease to run out."""
        flying = {event.key for event in self._flying}
        left = [
            Settlement(key, "pending", attempted=key in flying, uncertain=key in flying)
            for key in list(self._held)
        ]
        if left:
            self._store.settle(self._lease_id, left)

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
                wanted = self.threads is not None and self.threads.are_wanted
                woken = self._wake.wait(0.0 if wanted else min(seconds, POLL_SECONDS))
                if wanted or not (woken or self._unsettled or seconds < POLL_SECONDS):
                    again = seconds < POLL_SECONDS or woken
                    break
                if seconds and (woken or seconds < POLL_SECONDS):
                    self._gather(woken)
        finally:
            self._leave(again)

    def _leave(self, again: bool) -> None:
        """The thread ends; another one begins if somebody called meanwhile."""
        stops = self._stop.is_set()
        if stops:
            self._close_client()
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
        rate = self._pace.rate(self._now())
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
        """Deliver one batch; seconds until there may be more."""
        while self._unsettled:
            self._store.settle(*self._unsettled[0])
            self._unsettled.pop(0)
        held = self._held_up()
        if held:
            return held
        self._hurry.clear()
        self._soon.clear()
        self._looked = self._now()
        surely = self._surely()
        lease = self._store.lease(self._pixel_id, limit=BATCH, seconds=LEASE_SECONDS, surely=surely)
        if not lease.events:
            due = self._until_due()
            return self._hear() if due <= 0.01 and surely is None else due
        self._pace.add(len(lease.events), self._now())
        self._lease_id, self._held = lease.lease_id, {one.key: one for one in lease.events}
        try:
            self._deliver(lease)
        finally:
            left = bool(self._held)
            self._give_back()
            self._held = {}
        return 0.0 if left or len(lease.events) == BATCH else self._until_due()

    def _hear(self) -> float:
        """What seems too old is not given up before Meta's clock was heard; seconds until then."""
        problem = self._connected().hear()
        if problem is not None:
            return self._rest(problem)
        self._recovered()
        return 0.0

    def _connected(self) -> Client:
        if self._client is None:
            self._client = self._make_client()
        return self._client

    def _until_due(self) -> float:
        due = self._store.next_due(self._pixel_id)
        return POLL_SECONDS if due is None else max(due, 0.01)

    def _held_up(self) -> float:
        """Seconds until this courier may send: 0.0 unless some process found that it must not.

        After a rest one of all couriers tries; the others wait for what becomes of that.
        """
        standing = self._store.rest(self._pixel_id, self._token)
        self._failures = standing.failures if standing is not None else 0
        if standing is None or standing.seconds > 0:
            return standing.seconds if standing is not None else 0.0
        if self._store.next_due(self._pixel_id) != 0.0:
            return self._until_due()
        may = self._store.try_now(self._pixel_id, self._token, seconds=LEASE_SECONDS)
        return 0.0 if may else POLL_SECONDS

    def _rest(self, outcome: Outcome) -> float:
        """Let the pixel rest in all processes that have the cause in common; for how long."""
        seconds = rest(outcome, self._failures + 1)
        token = self._token if outcome.kind == "access" else ""
        self._store.pause(self._pixel_id, seconds=seconds, reason=outcome.reason, token=token)
        self._store.count([Count("rested", outcome.reason, pixel_id=self._pixel_id)])
        now = self._now()
        if self._told is None or self._told[0] != outcome.reason or now > self._told[1]:
            self._told = outcome.reason, now + TELL_SECONDS
            told = outcome.reason
            if outcome.reason in FAILURES:
                told = "{}: {}. {}".format(told, *meaning_of(told))
            logger.warning(
                "pixel %s rests for %.0f s: %s", self._pixel_id, seconds, told,
                extra=about("rest", pixel_id=self._pixel_id, reason=outcome.reason,
                            seconds=seconds),
            )  # fmt: skip
        return seconds

    def _recovered(self) -> None:
        """Meta took events: no process has to wait any more."""
        if self._failures:
            self._failures = 0
            self._store.resume(self._pixel_id, self._token)
        if self._told is not None:
            extra = about("resume", pixel_id=self._pixel_id, reason=self._told[0])
            self._told = None
            logger.warning("pixel %s: Meta takes events again", self._pixel_id, extra=extra)

    def _deliver(self, lease: Lease) -> None:
        """Send all events of a lease, halving the batch around an event that Meta refuses."""
        whole = list(lease.events)
        if self._before_send is not None:
            whole, stopped = self._before_send(whole)
            if stopped:
                settled = [Settlement(key, "stopped", "before_send") for key in stopped]
                self._record(lease, settled)
        waiting = [whole] if whole else []
        half_time = time.monotonic() + LEASE_SECONDS / 2
        while waiting and not self._stop.is_set() and time.monotonic() < half_time:
            batch = waiting.pop()
            self._flying = batch
            outcome = self._send(batch, is_part=batch is not whole)
            self._flying = []
            match outcome.kind:
                case "delivered":
                    self._settle(lease, batch, "delivered")
                    self._recovered()
                    if outcome.delay is not None:
                        self._rest(outcome)
                        return
                case "invalid" if len(batch) > 1:
                    middle = len(batch) // 2
                    waiting += [batch[middle:], batch[:middle]]
                case "invalid":
                    self._settle(lease, batch, "dead", outcome.reason)
                case "throttled" | "access":
                    self._rest(outcome)
                    return
                case "retry":
                    self._retry(lease, batch, outcome, self._rest(outcome))
                    return

    def _send(self, batch: list[LeasedEvent], *, is_part: bool) -> Outcome:
        attempt: Attempt = "first"
        if is_part:
            attempt = "split"
        elif any(event.attempts for event in batch):
            attempt = "repeat"
        payloads = [event.payload for event in batch]
        client = self._connected()
        return measure()(lambda: client.send(payloads), self._pixel_id, len(batch), attempt)

    def _retry(
        self, lease: Lease, batch: list[LeasedEvent], outcome: Outcome, seconds: float
    ) -> None:
        """What nobody knows the outcome of is sent again, in other company: one may be to blame.

        How often does not matter: Meta's own seven days are the end of it.
        """
        waits, uncertain = asks_to_wait(outcome), outcome.uncertain
        self._record(lease, [
            Settlement(
                event.key, "pending", outcome.reason,
                min(seconds, LONGEST_DELAY) if waits else backoff(event.attempts, self._chance),
                attempted=not waits, uncertain=uncertain,
            )
            for event in batch
        ])  # fmt: skip

    def _settle(self, lease: Lease, batch: list[LeasedEvent], state: Any, reason: str = "") -> None:
        self._record(lease, [Settlement(event.key, state, reason) for event in batch])

    def _record(self, lease: Lease, settlements: list[Settlement]) -> None:
        for one in settlements:
            self._held.pop(one.key, None)
        try:
            self._store.settle(lease.lease_id, settlements)
        except StoreError:
            self._unsettled.append((lease.lease_id, settlements))
            raise


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
