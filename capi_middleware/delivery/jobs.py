"""Jobs: what a process does at intervals while it delivers."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from capi_middleware.delivery.daemon import Daemon


class Job(NamedTuple):
    """Something to do at the start and every `seconds` after that.

    `run` should be brief: the other jobs wait for it. `give_up` makes a `run` in progress return
    soon; it is called from another thread.
    """

    name: str
    seconds: float
    run: Callable[[], None]
    give_up: Callable[[], None] | None = None


class Housekeeping(Daemon):
    """Runs `jobs` while events are delivered. `caught` takes the errors of those that fail."""

    def __init__(self, jobs: Sequence[Job], caught: Callable[[BaseException, str], None]) -> None:
        super().__init__("capi-housekeeping")
        self._jobs = jobs
        self._caught = caught

    def halt(self) -> None:
        """Ask the thread to end, giving up the job in progress."""
        super().halt()
        for job in self._jobs if self.running else ():
            if job.give_up is not None:
                job.give_up()

    def _work(self) -> None:
        due = [0.0] * len(self._jobs)
        while True:
            for place, job in enumerate(self._jobs):
                if self._stop.is_set():
                    return
                now = time.monotonic()
                if due[place] <= now:
                    due[place] = now + job.seconds
                    self._do(job)
            if self._stop.wait(max(0.0, min(due) - time.monotonic())):
                return

    def _do(self, job: Job) -> None:
        try:
            job.run()
        except Exception as error:
            # Nothing may end the thread: the job is tried again at its next time.
            self._caught(error, f"the job {job.name}")
