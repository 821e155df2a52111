"""Housekeeping: one daemon thread of a process that runs small jobs at intervals."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Job(NamedTuple):
    """Something to do at the start and every `seconds` after that.

    `run` should be brief: the other jobs wait for it. `give_up` makes a `run` in progress return
    soon; it is called from another thread.
    """

    name: str
    seconds: float
    run: Callable[[], None]
    give_up: Callable[[], None] | None = None


class Housekeeping:
    """Runs `jobs` while events are delivered. `caught` takes the errors of those that fail."""

    def __init__(self, jobs: Sequence[Job], caught: Callable[[BaseException, str], None]) -> None:
        self._jobs = jobs
        self._caught = caught
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._pid = 0

    def start(self) -> None:
        """Run the jobs from now on, also after stop() and in a forked process."""
        if self._alive() and not self._stop.is_set():
            return
        # Each thread has its own end: one that stops late must not see the next one's beginning.
        self._stop = threading.Event()
        self._pid = os.getpid()
        self._thread = threading.Thread(
            target=self._run, args=(self._stop,), name="capi-housekeeping", daemon=True
        )
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End the thread, giving up the job in progress, waiting up to `timeout` seconds."""
        thread = self._thread
        if thread is None or not self._alive():
            return
        self._stop.set()
        for job in self._jobs:
            if job.give_up is not None:
                job.give_up()
        if thread is not threading.current_thread():
            thread.join(timeout)

    def _alive(self) -> bool:
        thread = self._thread
        return thread is not None and self._pid == os.getpid() and thread.is_alive()

    def _run(self, stop: threading.Event) -> None:
        due = [0.0] * len(self._jobs)
        while True:
            for place, job in enumerate(self._jobs):
                if stop.is_set():
                    return
                now = time.monotonic()
                if due[place] <= now:
                    due[place] = now + job.seconds
                    self._do(job)
            if stop.wait(max(0.0, min(due) - time.monotonic())):
                return

    def _do(self, job: Job) -> None:
        try:
            job.run()
        except Exception as error:
            # Nothing may end the thread: the job is tried again at its next time.
            self._caught(error, f"the job {job.name}")
