"""The shield: an error of ours is counted and logged, and the host never sees it."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from capi_middleware.events import Count

logger: logging.Logger = logging.getLogger("capi_middleware")


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

    @contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """An error of ours ends what is inside, and nothing else."""
        try:
            yield
        except Exception as error:
            self.caught(error, where)

    def caught(self, error: BaseException, where: str) -> None:
        """Count and log an error of ours by its type and place alone."""
        kind = type(error).__name__
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        line = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
        extra = about("swallow", where=where, error=kind, line=line)
        logger.error("%s failed (%s at %s); the host goes on", where, kind, line, extra=extra)
        try:
            self._count([Count("error", f"{where}: {kind}")])
        except Exception:
            logger.error("the store takes no counts", extra=about("swallow", where="counting"))
