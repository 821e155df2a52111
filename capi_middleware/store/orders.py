"""Orders: what is remembered of events with a dedupe_key, for longer than their rows are kept.

Whoever makes a page asks, on a thread of its own: no event loop waits for a database.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue

from capi_middleware.events import Row
from capi_middleware.private import start_apart
from capi_middleware.signing import ORDER_SIGNED, order_of
from capi_middleware.store.records import Remembered
from capi_middleware.store.writer import at_fork, new_queue

#: Moments are whole seconds since 2020 that fit in 4 bytes until 2088.
_BEGIN, _MOST = 1_577_836_800, 2**31 - 1
#: How many orders one look is for, and how long its thread waits for more of them, in seconds.
_TOGETHER, _IDLE = 100, 10.0
#: How long an event loop may be held up where it must, in seconds. A read that takes longer hangs:
#: nobody waits for it.
MOMENT = 0.05

#: (key, moment) of orders.
Found = Sequence[tuple[int, int]]


def moment(at: float) -> int:
    """A Unix time in seconds as it is kept."""
    return max(-_MOST, min(_MOST, int(at) - _BEGIN))


def orders_in(rows: Sequence[Row]) -> Found:
    """What to remember of these rows, each order once."""
    orders: dict[int, int] = {}
    for row in rows:
        key = order_of(row.event_id)
        if key is not None:
            orders.setdefault(key, moment(row.event_time))
    return sorted(orders.items())


def first_key(event_id: str) -> int | None:
    """The lowest key that its order may have; None for an event without a dedupe_key."""
    key = order_of(event_id)
    return None if key is None else key >> ORDER_SIGNED << ORDER_SIGNED


def remembered(event_ids: Sequence[str], found: Found) -> Mapping[str, Remembered]:
    """What was found about these events, by event_id."""
    firsts: dict[int, tuple[int, int]] = {}
    for key, at in found:
        order = key >> ORDER_SIGNED
        firsts[order] = min(firsts.get(order, (at, key)), (at, key))
    known: dict[str, Remembered] = {}
    for event_id in event_ids:
        own = order_of(event_id)
        if own is not None and (first := firsts.get(own >> ORDER_SIGNED)):
            known[event_id] = Remembered(float(first[0] + _BEGIN), first[1] == own)
    return known


class Question(Future["Remembered | None"]):
    """What one event waits for."""

    def __init__(self, event_id: str) -> None:
        super().__init__()
        self.event_id: str = event_id


class Recalling:
    """Answers questions on a thread that starts with the first one; `read` may take long.

    With `inline` each is answered at once. Never blocks, raises nothing: errors are answers.
    """

    def __init__(
        self, read: Callable[[Sequence[str]], Mapping[str, Remembered]], *, inline: bool
    ) -> None:
        self._read, self._inline = read, inline
        self._start_over()
        at_fork(after_in_child=self._start_over)

    def _start_over(self) -> None:
        self._pid = os.getpid()
        self._starting = threading.RLock()
        self._queue: SimpleQueue[Question | None] = new_queue()
        self._thread: threading.Thread | None = None
        self._running = False
        #: Since when the database is read, as time.monotonic().
        self._reading: float | None = None

    def ask(self, event_id: str) -> Question:
        """What is remembered of an order; a TimeoutError where an earlier read hangs."""
        question = Question(event_id)
        if self._inline:
            self._answer([question])
            return question
        if self._pid != os.getpid():  # a fork that Python did not see
            self._start_over()
        reading = self._reading
        if reading is not None and time.monotonic() - reading > MOMENT:
            question.set_exception(TimeoutError("the database takes too long"))
            return question
        self._queue.put(question)
        if not self._running:
            self._start()
        return question

    def start(self) -> None:
        """Begin now to read what is needed for the first question."""
        self.ask("")

    def stop(self, timeout: float) -> None:
        """End the thread. A later question starts another one."""
        thread = self._thread
        if self._pid == os.getpid() and self._running and thread is not None:
            self._queue.put(None)
            thread.join(timeout)

    def _start(self) -> None:
        with self._starting:
            running, self._running = self._running, True
        if running:
            return
        self._thread = threading.Thread(target=self._run, name="capi-store-orders", daemon=True)
        try:
            start_apart(self._thread)
        except RuntimeError as error:  # the interpreter is about to end
            self._running = False
            with suppress(Empty):
                while (question := self._queue.get_nowait()) is not None:
                    if question.set_running_or_notify_cancel():
                        question.set_exception(error)

    def _run(self) -> None:
        going = True
        while going:
            questions: list[Question] = []
            with suppress(Empty):
                one = self._queue.get(timeout=_IDLE)
                while one is not None:
                    questions.append(one)
                    if len(questions) == _TOGETHER:
                        break
                    one = self._queue.get_nowait()
                else:
                    going = False
            going = going and bool(questions)
            self._answer(questions)
        self._running = False
        if not self._queue.empty():
            self._start()  # somebody asked while this thread was ending

    def _answer(self, questions: Sequence[Question]) -> None:
        asked = [one for one in questions if one.set_running_or_notify_cancel()]
        if not asked:
            return
        self._reading = time.monotonic()
        try:
            known = self._read([one.event_id for one in asked])
        except Exception as error:
            for one in asked:
                one.set_exception(error)
        else:
            for one in asked:
                one.set_result(known.get(one.event_id))
        finally:
            self._reading = None
