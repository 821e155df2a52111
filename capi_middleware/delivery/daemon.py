"""Daemon: the base of our threads, and the one of them that does small jobs at intervals."""

import _thread
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from capi_middleware.private import start_apart

#: What makes locks, as it was when this was loaded: gevent and eventlet put their own in its place.
_ALLOCATE_LOCK = _thread.allocate_lock


def hindrance() -> Literal["patched_late", "threads_off"] | None:
    """Why threads of ours cannot work in this process: a topic of notices.toml."""
    if _thread.allocate_lock is not _ALLOCATE_LOCK:
        # A thread begun now is a greenlet, and any lock or queue made before stops all of them.
        return "patched_late"
    # uWSGI keeps the interpreter's lock between requests where threads are off.
    return None if getattr(sys.modules.get("uwsgi"), "has_threads", True) else "threads_off"


class Daemon(ABC):
    """Work on a thread that begins when it is needed, also in a forked process.

    `_work` runs there until `_stop` is set.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._stop = threading.Event()

    @abstractmethod
    def _work(self) -> None:
        """What the thread does."""

    def _forked(self) -> None:  # noqa: B027 - some have nothing to forget
        """Forget what belongs to the parent: neither its locks nor its connections are ours."""

    @property
    def running(self) -> bool:
        """Whether the thread lives, in this process."""
        thread = self._thread
        return thread is not None and self._pid == os.getpid() and thread.is_alive()

    def start(self) -> None:
        """Work from now on, also after stop() and in a forked process."""
        self._look_for_fork()
        self._stop.clear()
        if not self.running:
            self._start_thread()

    def _start_thread(self) -> None:
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        start_apart(self._thread)

    def _look_for_fork(self) -> None:
        if self._pid != os.getpid():
            self._pid, self._stop = os.getpid(), threading.Event()
            self._forked()
            self._thread = None

    def halt(self) -> None:
        """Ask the thread to end."""
        self._stop.set()

    def stop(self, timeout: float) -> bool:
        """End the thread, waiting up to `timeout` seconds; whether it has ended."""
        self.halt()
        thread = self._thread
        if not self.running or thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()


class Job(NamedTuple):
    """Something to do at the start and every `seconds` after that.

    `run` should be brief: the other jobs wait for it. `give_up` makes a `run` in progress return
    soon; it is called from another thread. A `shared` one is for all processes that use the store:
    it runs where `Housekeeping.on_duty` was called since.
    """

    name: str
    seconds: float
    run: Callable[[], None]
    give_up: Callable[[], None] | None = None
    shared: bool = False


class Housekeeping(Daemon):
    """Runs `jobs` while events are delivered. `caught` takes the errors of those that fail."""

    def __init__(self, jobs: Sequence[Job], caught: Callable[[BaseException, str], None]) -> None:
        super().__init__("capi-housekeeping")
        self._jobs = jobs
        self._caught = caught
        self._forked()

    def _forked(self) -> None:
        self._is_on_duty = False
        self._bell = threading.Event()

    def on_duty(self) -> None:
        """This process is the one of all that does now what they share."""
        self._is_on_duty = True
        self._bell.set()

    def halt(self) -> None:
        """Ask the thread to end, giving up the job in progress."""
        super().halt()
        self._bell.set()
        for job in self._jobs if self.running else ():
            if job.give_up is not None:
                job.give_up()

    def _work(self) -> None:
        due = [0.0] * len(self._jobs)
        while not self._stop.is_set():
            self._bell.clear()
            on_duty, self._is_on_duty = self._is_on_duty, False
            for place, job in enumerate(self._jobs):
                if self._stop.is_set():
                    return
                now = time.monotonic()
                if due[place] <= now and (on_duty or not job.shared):
                    due[place] = now + job.seconds
                    self._do(job)
            own = [at for at, job in zip(due, self._jobs, strict=True) if not job.shared]
            self._bell.wait(max(0.0, min(own) - time.monotonic()) if own else None)

    def _do(self, job: Job) -> None:
        try:
            job.run()
        except Exception as error:
            # Nothing may end the thread: the job is tried again at its next time.
            self._caught(error, f"the job {job.name}")
