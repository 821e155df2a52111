"""Submissions: what is handed to the writer, and how a group of them is rejected or halved."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from msgspec import Struct

from capi_middleware.errors import StoreError
from capi_middleware.private import Private
from capi_middleware.store.commits import Commit

#: What `n` of a counter belongs to: hour (Unix time // 3600), kind, reason, event_name, pixel_id.
CounterKey = tuple[int, str, str, str, str]
Counters = dict[CounterKey, int]


class LockedError(StoreError):
    """Somebody else holds the database's lock: the same write may work later."""


class OwnLockError(LockedError):
    """Another thread of this process holds the lock: it is about to let go."""


class Submission(Private, Struct, eq=False):
    """What one call hands to the writer, and the commit that it waits for."""

    kind: Literal["append", "sight", "flush", "stop"]
    items: Sequence[Any]
    commit: Commit | None


def reject(group: list[Submission], error: BaseException) -> None:
    """Everybody who waits for one of `group` gets the error, as a StoreError."""
    failure = error
    if not isinstance(failure, StoreError):
        failure = StoreError(f"the rows cannot be stored: {type(error).__name__}")
        failure.__cause__ = error
    for submission in group:
        if submission.commit is not None:
            submission.commit.error = failure


def halves(
    group: list[Submission], counters: Counters
) -> Iterator[tuple[list[Submission], Counters]]:
    """Smaller transactions, to find what in a group cannot be stored."""
    if group and counters:
        yield group, {}
        yield [], counters
    elif group:
        middle = len(group) // 2
        yield group[:middle], {}
        yield group[middle:], {}
    else:
        pairs = list(counters.items())
        middle = len(pairs) // 2
        yield [], dict(pairs[:middle])
        yield [], dict(pairs[middle:])
