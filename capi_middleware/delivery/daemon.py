"""Daemon: the base of our threads, which begin when they are needed, also in a forked process."""

import os
import threading


class Daemon:
    """Work on a thread of its own: `_work` runs there until `_stop` is set."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._stop = threading.Event()

    def _work(self) -> None:
        raise NotImplementedError

    def _forked(self) -> None:
        """Forget what belongs to the parent: neither its locks nor its connections are ours."""

    @property
    def running(self) -> bool:
        """Whether the thread lives, in this process."""
        thread = self._thread
        return thread is not None and self._pid == os.getpid() and thread.is_alive()

    def start(self) -> None:
        """Work from now on, also after stop() and in a forked process."""
        if self._pid != os.getpid():
            self._pid, self._stop = os.getpid(), threading.Event()
            self._forked()
            self._thread = None
        self._stop.clear()
        if not self.running:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()

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
