"""The shield: an error of ours is counted and logged, and the host never sees it."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from capi_middleware.events import Count

logger: logging.Logger = logging.getLogger("capi_middleware")

#: How often the same error of the same place is a line in the log at most, in seconds: it may come
#: with each page.
REPEAT_SECONDS = 60.0


def about(action: str, **fields: str | int | float) -> Mapping[str, object]:
    """The `extra` of a log call: `record.capi` is {"action": ..., **fields}.

    `action` is a verb that names what happened, the same in every version. Fields are codes, ids
    of pixels, names of events and numbers: never a value, a message or anything about a person.
    """
    return {"capi": {"action": action, **fields}}


class Shield:
    """Where swallowed errors go. Messages and values stay out: they may be personal data."""

    def __init__(self, count: Callable[[Sequence[Count]], None]) -> None:
        self._count = count
        #: When an error was told last, by its place, and how often it came since.
        self._told: dict[tuple[str, str, str], tuple[float, int]] = {}

    @contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """An error of ours ends what is inside, and nothing else."""
        try:
            yield
        except Exception as error:
            self.caught(error, where)

    def caught(self, error: BaseException, where: str, *, is_counted: bool = False) -> None:
        """Count and log an error of ours by its type and place alone; `is_counted` if it is."""
        kind = type(error).__name__
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        line = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
        if not getattr(error, "told", False):
            self._tell(where, kind, line)
        if is_counted:
            return
        try:
            self._count([Count("error", f"{where}: {kind}")])
        except Exception:
            logger.error("the store takes no counts", extra=about("swallow", where="counting"))

    def _tell(self, where: str, kind: str, line: str) -> None:
        now = time.monotonic()
        at, more = self._told.get((where, kind, line), (0.0, 0))
        if at and now - at < REPEAT_SECONDS:
            self._told[where, kind, line] = at, more + 1
            return
        self._told[where, kind, line] = now, 0
        again = f", as {more} times since it was told last" if more else ""
        extra = about(
            "swallow", where=where, error=kind, line=line, **({"more": more} if more else {})
        )
        text = "%s failed (%s at %s)%s; the host goes on"
        logger.error(text, where, kind, line, again, extra=extra)
