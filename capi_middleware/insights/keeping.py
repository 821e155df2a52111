"""Keeping: the last look lives in the store, for all processes, and when the next is due."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing

import msgspec

from capi_middleware.config.settings import Config
from capi_middleware.delivery.daemon import Daemon
from capi_middleware.insights.looking import look
from capi_middleware.insights.model import Insights, problems
from capi_middleware.insights.reading import GivenUp, Reader
from capi_middleware.store.records import Slice
from capi_middleware.store.store import Store

NAME, DUE = "insights", "insights-due"
#: When a look comes that follows one to which Meta told not all; in seconds.
AGAIN_SECONDS = 3600.0
#: How often a process asks the store whether a look is due, in seconds.
CHECK_SECONDS = 60.0
#: How long a process may take for a look before another one takes it over, in seconds.
CLAIM_SECONDS = 300.0


def kept_insights(store: Store) -> Insights | None:
    """The last look, None before the first. Raises StoreError when the store cannot be read."""
    return _decoded(store.kept(NAME))


def _decoded(body: bytes | None) -> Insights | None:
    if body is None:
        return None
    try:
        return msgspec.json.decode(body, type=Insights)
    except msgspec.DecodeError:
        # Of another version: the next look replaces it.
        return None


def refresh(config: Config, store: Store, reader: Reader | None = None) -> Insights:
    """Look now and keep it; may take up to reading.ROUND_SECONDS.

    Where another process kept one meanwhile, that one stays and is returned. Raises StoreError
    when the store cannot be used, and reading.GivenUp when the `reader` is closed meanwhile: then
    nothing is kept.
    """
    if reader is None:
        with closing(Reader(config.graph_url, config.graph_version)) as reader:
            return refresh(config, store, reader)
    before = store.kept(NAME)

    def our_hours(start: float, end: float) -> Sequence[Slice]:
        return store.slices("hour", start, end)

    found = look(reader, config, our_hours, _decoded(before), time.time())
    reader.check()
    if store.keep(NAME, msgspec.json.encode(found), instead_of=before):
        return found
    return kept_insights(store) or found


def hasten(store: Store, due: float) -> None:
    """The next look comes at Unix time `due`, unless some process changed that meanwhile."""
    store.keep(DUE, repr(due).encode(), instead_of=store.kept(DUE))


def claim(store: Store, now: float, seconds: float) -> bool:
    """Whether a look is due and it is ours to take: one process of all gets True."""
    kept = store.kept(DUE)
    try:
        due = float(kept or 0)
    except ValueError:
        due = 0.0
    if now < due <= now + seconds:  # later than that: the clock went back, or the setting changed
        return False
    # Who ends in the middle of a look has not looked: somebody else may soon.
    return store.keep(DUE, repr(now + min(CLAIM_SECONDS, seconds)).encode(), instead_of=kept)


class Lookout(Daemon):
    """Looks on a schedule while events are delivered, on a thread of its own.

    `caught` takes what goes wrong: nothing of this may touch delivery.
    """

    def __init__(
        self, config: Config, store: Store, caught: Callable[[BaseException, str], None]
    ) -> None:
        super().__init__("capi-insights")
        wanted = config.ad_account is not None or any(one.read_token for one in config.pixels)
        self._seconds = config.insights_hours * 3600.0 if wanted else 0.0
        self._config, self._store, self._caught = config, store, caught
        self._forked()

    def _forked(self) -> None:
        self._reader: Reader | None = None

    def tick(self) -> None:
        """Start a look if one is due. Returns at once; never raises."""
        if not self._seconds or self.running:
            return
        try:
            if claim(self._store, time.time(), self._seconds):
                self.start()
        except Exception as error:
            self._caught(error, "insights")

    def halt(self) -> None:
        """Give a look in progress up, without waiting for its thread: nothing is kept any more."""
        super().halt()  # before the reader is read: there may be none yet
        reader = self._reader
        if reader is not None and self.running:
            reader.close()

    def _work(self) -> None:
        try:
            self._reader = Reader(self._config.graph_url, self._config.graph_version)
            with closing(self._reader):
                if self._stop.is_set():
                    return
                found = refresh(self._config, self._store, self._reader)
            again = self._seconds
            if any(problem.state != "no_permission" for _, problem in problems(found)):
                again = min(AGAIN_SECONDS, again)
            hasten(self._store, time.time() + again)
        except GivenUp:
            return
        except Exception as error:
            self._caught(error, "insights")
