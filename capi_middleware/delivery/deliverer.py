"""Deliverer: all couriers of a process, and the one look at the store that tells them of work."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set

from capi_middleware.delivery import courier as couriers
from capi_middleware.delivery.courier import Courier, Threads
from capi_middleware.delivery.daemon import Daemon
from capi_middleware.shield import Shield
from capi_middleware.store.store import Store

#: Couriers of tenants that keep their connection while there is nothing to do, and how long.
MOST_IDLE = 100
IDLE_SECONDS = 300.0
#: Most threads that deliver at once: a process has many pixels, and Meta one at a time to answer.
MOST_THREADS = 16


class Deliverer(Daemon):
    """All couriers of a process.

    What this process commits wakes the courier that it is for. For all else, the events of other
    processes and what becomes due, its thread looks at the store, for all pixels at once and in
    turn with all other processes that deliver the same pixels: however many there are, somebody
    looks each courier.POLL_SECONDS. `on_duty` is called when it is this one's turn to do what all
    processes share. `make` makes the courier of any other pixel, whichever has events: it must not
    take long. Without it the pixels are those of `found`.
    """

    def __init__(
        self,
        store: Store,
        found: Sequence[Courier],
        on_duty: Callable[[], None] = lambda: None,
        make: Callable[[str], Courier] | None = None,
    ) -> None:
        super().__init__("capi-deliverer")
        self._store = store
        self._couriers = {one.pixel_id: one for one in found}
        self._on_duty = on_duty
        self._make = make
        #: When those that were made on demand were made, by time.monotonic(), the oldest first.
        self._made: dict[str, float] = {}
        self._shield = Shield(store.count)
        self._threads = Threads(MOST_THREADS)
        for one in found:
            one.threads = self._threads
        self._forked()

    def _forked(self) -> None:
        self._bell = threading.Event()
        #: Held while couriers are made, woken and dropped.
        self._lock = threading.RLock()
        for pixel_id in self._made:
            self._couriers.pop(pixel_id, None)
        self._made.clear()

    def start(self) -> None:
        """Deliver from now on, also after stop()."""
        if not self._delivers:
            return
        self._look_for_fork()
        for courier in self._present():
            courier.allow()
        super().start()

    def wake(self, waiting: Mapping[str, Set[str]]) -> None:
        """There may be something to deliver: names of events by their pixel, see Courier.wake.

        Without any it looks what there is.
        """
        if self._stop.is_set() or not self._delivers:
            return
        if not self.running:
            super().start()
        for pixel_id, names in waiting.items():
            self._wake(pixel_id, names)
        if not waiting:
            self._bell.set()

    def deliver_now(self, seconds: float) -> bool:
        """Deliver what can be delivered within so many seconds; whether it took no longer."""
        if self._stop.is_set():
            return False
        end = time.monotonic() + seconds
        if self._make is not None:
            with self._shield.guard("the look for what waits"):
                for one in self._store.backlog():
                    self._wake(one.pixel_id)
        present = self._present()
        for courier in present:
            courier.wake()
            courier.hurry()
        idle = [one.is_idle(max(0.0, end - time.monotonic())) for one in present]
        return all(idle)

    def hurry(self) -> None:
        """Deliver what is there without waiting for more."""
        for courier in self._present():
            courier.hurry()

    def halt(self) -> None:
        """Ask all threads to end."""
        super().halt()
        self._bell.set()
        for courier in self._present():
            courier.halt()

    @property
    def alive(self) -> bool:
        """Whether every thread that should run does."""
        needed = self._delivers and self._thread is not None and not self._stop.is_set()
        return (self.running or not needed) and all(one.alive for one in self._present())

    def stop(self, timeout: float) -> bool:
        """End all threads within `timeout` seconds; what is unsent stays pending."""
        end = time.monotonic() + timeout
        self.halt()
        ended = [one.stop(max(0.0, end - time.monotonic())) for one in self._present()]
        return super().stop(max(0.0, end - time.monotonic())) and all(ended)

    def _work(self) -> None:
        while not self._stop.is_set():
            self._bell.clear()
            seconds = couriers.POLL_SECONDS
            with self._shield.guard("the look for what is due"):
                wanted = None if self._make is not None else [*self._couriers]
                look = self._store.look(wanted, every=seconds)
                seconds = look.seconds
                for pixel_id in look.due:
                    self._wake(pixel_id, in_hurry=True)  # others committed it: it has waited
                self._drop_idle()
                if look.on_duty:
                    self._on_duty()
            self._bell.wait(seconds)

    @property
    def _delivers(self) -> bool:
        return bool(self._couriers) or self._make is not None

    def _present(self) -> list[Courier]:
        with self._lock:
            return [*self._couriers.values()]

    def _wake(
        self, pixel_id: str, names: Set[str] = frozenset(), *, in_hurry: bool = False
    ) -> None:
        with self._lock:
            courier = self._couriers.get(pixel_id)
            if courier is None and self._make is not None:
                courier = self._couriers[pixel_id] = self._make(pixel_id)
                courier.threads = self._threads
                self._made[pixel_id] = time.monotonic()
            if courier is not None:
                if in_hurry:
                    courier.hurry()
                courier.wake(names)

    def _drop_idle(self) -> None:
        """Forget couriers that were made on demand: their connections, and their tokens."""
        with self._lock:
            idle = [one for one in self._made if self._couriers[one].is_done]
            latest = time.monotonic() - IDLE_SECONDS
            for place, pixel_id in enumerate(idle):
                if len(idle) - place > MOST_IDLE or self._made[pixel_id] < latest:
                    self._couriers.pop(pixel_id).stop(0.0)
                    del self._made[pixel_id]
