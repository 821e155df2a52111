"""What all databases share: rows, sightings and counts go through the group commit of a Writer."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

from capi_middleware.events import Count, Row, Sighting
from capi_middleware.store.commits import Commit
from capi_middleware.store.queueing import waits_for_delivery
from capi_middleware.store.submissions import Counters, Submission
from capi_middleware.store.writer import Writer


class GroupedStore:
    """The half of Store that only hands things to the writer's thread."""

    def __init__(self, *, queue_limit: int, clock: Callable[[], float]) -> None:
        self.on_commit: Callable[[], None] | None = None
        self._writer = Writer(
            self._write, queue_limit=queue_limit, clock=clock, on_commit=self._committed
        )

    @abstractmethod
    def _write(self, submissions: Sequence[Submission], counters: Counters) -> None:
        """Store all in one transaction; see Writer."""

    def append(self, rows: Sequence[Row], *, wait: bool) -> Commit | None:
        """See Store.append."""
        return self._writer.submit("append", rows, wait=wait)

    def sight(self, sightings: Sequence[Sighting]) -> Commit:
        """See Store.sight."""
        commit = self._writer.submit("sight", sightings, wait=True)
        assert commit is not None
        return commit

    def count(self, counts: Sequence[Count]) -> None:
        """See Store.count."""
        self._writer.count(counts)

    def flush(self, timeout: float) -> bool:
        """See Store.flush."""
        return self._writer.flush(timeout)

    def _committed(self, submissions: Sequence[Submission]) -> None:
        if self.on_commit is not None and any(
            submission.kind == "append" and waits_for_delivery(submission.items)
            for submission in submissions
        ):
            self.on_commit()
