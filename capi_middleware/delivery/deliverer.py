"""Deliverer: all couriers of a process, and the one look at the store that tells them of work."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set

from capi_middleware.delivery import courier as couriers
from capi_middleware.delivery.courier import Courier, Threads
from capi_middleware.delivery.daemon import Daemon
from capi_middleware.shield import Shield
from capi_middleware.store.store import Store

#: Most threads that deliver at once: a process has many pixels, and Meta one at a time to answer.
MOST_THREADS = 16


class Deliverer(Daemon):
    """All couriers of a process.

    What this process commits wakes the courier that it is for. For all else, the events of other
    processes and what becomes due, its thread looks at the store, for all pixels at once and in
    turn with all other processes that deliver the same pixels: however many there are, somebody
    looks each courier.POLL_SECONDS. `on_duty` is called when it is this one's turn to do what all
    processes share.
    """

    def __init__(
        self, store: Store, found: Sequence[Courier], on_duty: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__("capi-deliverer")
        self._store = store
        self._couriers = {one.pixel_id: one for one in found}
        self._on_duty = on_duty
        self._shield = Shield(store.count)
        threads = Threads(MOST_THREADS)
        for one in found:
            one.threads = threads
        self._forked()

    def _forked(self) -> None:
        self._bell = threading.Event()

    def start(self) -> None:
        """Deliver from now on, also after stop()."""
        if not self._couriers:
            return
        for courier in self._couriers.values():
            courier.allow()
        super().start()

    def wake(self, waiting: Mapping[str, Set[str]]) -> None:
        """There may be something to deliver: names of events by their pixel, see Courier.wake.

        Without any it looks what there is.
        """
        if self._stop.is_set() or not self._couriers:
            return
        if not self.running:
            super().start()
        for pixel_id, names in waiting.items():
            courier = self._couriers.get(pixel_id)
            if courier is not None:
                courier.wake(names)
        if not waiting:
            self._bell.set()

    def deliver_now(self, seconds: float) -> bool:
        """Deliver what can be delivered within so many seconds; whether it took no longer."""
        if self._stop.is_set():
            return False
        end = time.monotonic() + seconds
        for courier in self._couriers.values():
            courier.wake()
            courier.hurry()
        idle = [one.is_idle(max(0.0, end - time.monotonic())) for one in self._couriers.values()]
        return all(idle)

    def hurry(self) -> None:
        """Deliver what is there without waiting for more."""
        for courier in self._couriers.values():
            courier.hurry()

    def halt(self) -> None:
        """Ask all threads to end."""
        super().halt()
        self._bell.set()
        for courier in self._couriers.values():
            courier.halt()

    @property
    def alive(self) -> bool:
        """Whether every thread that should run does."""
        needed = self._couriers and self._thread is not None and not self._stop.is_set()
        return (self.running or not needed) and all(one.alive for one in self._couriers.values())

    def stop(self, timeout: float) -> bool:
        """End all threads within `timeout` seconds; what is unsent stays pending."""
        end = time.monotonic() + timeout
        self.halt()
        ended = [one.stop(max(0.0, end - time.monotonic())) for one in self._couriers.values()]
        return super().stop(max(0.0, end - time.monotonic())) and all(ended)

    def _work(self) -> None:
        while not self._stop.is_set():
            self._bell.clear()
            seconds = couriers.POLL_SECONDS
            with self._shield.guard("the look for what is due"):
                look = self._store.look([*self._couriers], every=seconds)
                seconds = look.seconds
                for pixel_id in look.due:
                    courier = self._couriers[pixel_id]
                    courier.hurry()  # others committed it: it has waited
                    courier.wake()
                if look.on_duty:
                    self._on_duty()
            self._bell.wait(seconds)
