"""Gathering: what is submitted waits in groups for the transaction that stores it."""

from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from msgspec import Struct, field

from capi_middleware.private import Private
from capi_middleware.store.commits import Batch, Commit
from capi_middleware.store.submissions import Submission

#: A transaction takes submissions until it has this many rows (about 10 ms on a slow disk).
GROUP_ROWS = 1000
_TAKEN = object()


class Group(Private, Struct):
    """What one transaction stores, in order. Any thread may add; one closes it."""

    batch: Batch
    rows: int = 0
    announced: bool = False
    closed: bool = False
    _pending: dict[Submission, None] = field(default_factory=dict)

    def add(self, submission: Submission) -> bool:
        """Whether it is in; a group that is closed meanwhile may have to be left."""
        self._pending[submission] = None
        # Closed before it was looked at: it is ours again, unless who closes has it by now.
        if self.closed and self._pending.pop(submission, _TAKEN) is None:
            return False
        self.rows += len(submission.items)
        return True

    def close(self) -> list[Submission]:
        """All that is in, for good."""
        self.closed = True
        return [one for one in list(self._pending) if self._pending.pop(one, _TAKEN) is None]


class Gathering:
    """Groups without a lock: only single steps of C are relied on.

    Whoever is interrupted in here, by a signal handler or a finalizer that adds something and waits
    for it, holds up neither that one nor the thread that stores.
    """

    def __init__(self, is_held_up: Callable[[], bool]) -> None:
        self._is_held_up = is_held_up
        #: The last one is open; each is announced at least once.
        self._groups: deque[Group] = deque()
        self._announced: SimpleQueue[None] = SimpleQueue()

    def __bool__(self) -> bool:
        return bool(self._groups)

    def rows(self) -> int:
        """How many rows wait."""
        return sum([group.rows for group in self._groups.copy()])

    def add(self, submission: Submission, *, wait: bool) -> None:
        """Put it into the open group; with `wait` it gets its commit."""
        while True:
            group = self._open()
            submission.commit = Commit(group.batch) if wait else None
            if group.add(submission):
                break
        self._announce(group)

    def knock(self) -> None:
        """Let there be a transaction, also without rows."""
        self._announce(self._open())

    def take(self) -> tuple[Batch, list[Submission]]:
        """The oldest group, which gets nothing more; waits for one."""
        while True:
            self._announced.get()
            try:
                group = self._groups.popleft()
            except IndexError:
                continue  # announced twice
            return group.batch, group.close()

    def take_over(self, other: "Gathering") -> None:
        """Take the groups of another one whose thread is gone."""
        for group in other._groups:
            group.announced = False
            self._groups.append(group)
            self._announce(group)

    def _open(self) -> Group:
        try:
            group = self._groups[-1]
        except IndexError:
            pass
        else:
            if group.rows < GROUP_ROWS and not group.closed:
                return group
        group = Group(Batch(self._is_held_up))
        self._groups.append(group)
        return group

    def _announce(self, group: Group) -> None:
        # Rather twice than never: an exception may interrupt us between any two steps.
        if not group.announced:
            self._announced.put(None)
            group.announced = True
