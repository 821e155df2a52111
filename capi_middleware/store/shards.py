"""Several databases as one store: a hash of its event_id says in which one an event lives.

Nothing is in two of them, so a database that is away holds up its own share of the events alone.
"""

import math
import time
from collections import ChainMap, Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from hashlib import blake2b
from itertools import chain
from operator import attrgetter, methodcaller
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import astuple

from capi_middleware.errors import StoreError
from capi_middleware.events import Count, Row, Sighting
from capi_middleware.store.commits import Commit, Holdup, Whole, together
from capi_middleware.store.orders import Question, first_key
from capi_middleware.store.records import (
    MOST_FOUND,
    Backlog,
    DeadLetter,
    Difference,
    Forgotten,
    Freshness,
    Known,
    Lease,
    Look,
    Pause,
    Remembered,
    Rest,
    Settlement,
    Slice,
    Tallies,
    Tally,
)
from capi_middleware.store.rollups import Facet
from capi_middleware.store.store import Store
from capi_middleware.store.writer import LockedError

#: A database that failed is asked again after so many times the time that this took, at most after
#: so many seconds: one that hangs takes a part of the others' time, not all of it.
_REST, _LONGEST_REST = 9.0, 60.0
#: How long all parts together wait at the end, in seconds.
_CLOSE_SECONDS = 5.0

T = TypeVar("T")
_Event = TypeVar("_Event", bound=Row | Sighting)
_Record = TypeVar("_Record", bound=Struct)


class Shards(Store):
    """See Store, of which it has the promises alone: other stores, its parts, keep them.

    What couriers need is asked of the parts that can be used just now, an error only where none
    can; what is about all events, such as a report, of all. What is of no event is in the first.
    `queue_limit`, the order of due events and that of new ones hold for each part by itself.

    Args:
        parts: in an order that never changes; the keys of the n-th of N are n, n + N, n + 2 N …
    """

    def __init__(self, parts: Sequence[Store]) -> None:
        self.on_commit: Callable[[Mapping[str, Set[str]]], None] | None = None
        self._parts = tuple(parts)
        #: Before when a part is not asked again, in seconds of time.monotonic(), and why.
        self._rests: dict[Store, tuple[float, str]] = dict.fromkeys(parts, (0.0, ""))
        #: What was settled while a part was away: nothing is leased there before it knows.
        self._late = {one: deque[tuple[str, Sequence[Settlement]]]() for one in parts}
        #: Which part was the first to be asked for events, by pixel.
        self._firsts: dict[str, int] = {}
        for one in parts:
            one.on_commit = self._told

    def __repr__(self) -> str:
        return f"Shards({', '.join(map(repr, self._parts))})"

    @property
    def parts(self) -> Sequence[Store]:
        """See Store.parts."""
        return self._parts

    def append(self, rows: Sequence[Row], *, wait: bool) -> Commit | None:
        """See Store.append."""
        return self._submit(rows, lambda part, some: part.append(some, wait=wait))

    def sight(self, sightings: Sequence[Sighting]) -> Commit:
        """See Store.sight."""
        commit = self._submit(sightings, lambda part, some: part.sight(some))
        assert commit is not None
        return commit

    @property
    def recall_seconds(self) -> float:
        """See Store.recall_seconds."""
        return self._parts[0].recall_seconds

    def recall(self, event_id: str) -> Question:
        """See Store.recall."""
        return self._parts[self._home(event_id)].recall(event_id)

    def expect_orders(self) -> None:
        """See Store.expect_orders."""
        for part in self._parts:
            part.expect_orders()

    def remembered(self, event_ids: Sequence[str]) -> Mapping[str, Remembered]:
        """See Store.remembered."""
        parts = self._split(event_ids, self._home)
        return dict(ChainMap(*[dict(part.remembered(some)) for part, some in parts]))

    def count(self, counts: Sequence[Count]) -> None:
        """See Store.count."""
        for part, some in self._split(counts, lambda one: self._home(one.reason)):
            part.count(some)

    def ended_before(self, commit: Commit, *, elsewhere: bool = False) -> bool:
        """See Store.ended_before: one of the parts that are waited for counts the answer."""
        counted = elsewhere
        for one in commit.parts if isinstance(commit, Whole) else (commit,):
            for row in one.rows[:1]:
                part = self._parts[self._home(row.event_id)]
                counted |= part.ended_before(one, elsewhere=counted)
        return counted

    def lease(
        self, pixel_id: str, *, limit: int, seconds: float, surely: float | None = math.inf
    ) -> Lease:
        """See Store.lease: what is due in one part, then in the next."""
        leases: dict[Store, Lease] = {}
        # Each part is the first in turn.
        first = self._firsts[pixel_id] = (self._firsts.get(pixel_id, -1) + 1) % len(self._parts)

        def claim(part: Store) -> None:
            with suppress(IndexError):
                while True:
                    self._settle(part, *self._late[part].popleft())
            room = limit - sum(len(one.events) for one in leases.values())
            if room > 0:
                leases[part] = part.lease(pixel_id, limit=room, seconds=seconds, surely=surely)

        list(self._usable(claim, (*self._parts[first:], *self._parts[:first])))
        events = [event for one in leases.values() for event in one.events]
        events.sort(key=lambda one: (not one.fresh, one.suspect <= 0, one.event_name == "PageView"))
        ids = (leases[one].lease_id if one in leases else "" for one in self._parts)
        return Lease(":".join(ids), events)

    def settle(self, lease_id: str, settlements: Sequence[Settlement]) -> int:
        """See Store.settle. A part that is away is told when it is back."""
        held, ids = 0, self._ids(lease_id)
        for part, some in self._split(settlements, lambda one: self._home_of(one.key)):
            with suppress(StoreError):
                held += self._settle(part, ids[part], some) if ids.get(part) else 0
        return held

    def _settle(self, part: Store, lease_id: str, settlements: Sequence[Settlement]) -> int:
        try:
            return self._ask(part, lambda one: one.settle(lease_id, settlements))
        except StoreError:
            self._late[part].append((lease_id, settlements))
            raise

    def release(self, lease_id: str, keys: Sequence[int]) -> None:
        """See Store.release. In a part that is away the lease runs out."""
        ids = self._ids(lease_id)
        for part, some in self._split(keys, self._home_of):
            with suppress(StoreError):
                self._ask(part, methodcaller("release", ids.get(part, ""), some))

    def _ids(self, lease_id: str) -> dict[Store, str]:
        return dict(zip(self._parts, lease_id.split(":"), strict=False))

    def next_due(self, pixel_id: str) -> float | None:
        """See Store.next_due."""
        found = self._usable(lambda part: part.next_due(pixel_id))
        return min((one for one in found if one is not None), default=None)

    def look(self, pixel_ids: Sequence[str] | None, *, every: float) -> Look:
        """See Store.look."""
        looks = list(self._usable(lambda part: part.look(pixel_ids, every=every)))
        due = frozenset[str]().union(*[one.due for one in looks])
        return Look(due, min(one.seconds for one in looks), looks[0].on_duty)

    def conversion_waits(self, pixel_id: str) -> bool:
        """See Store.conversion_waits."""
        return any(self._usable(lambda part: part.conversion_waits(pixel_id)))

    def pause(self, pixel_id: str, *, seconds: float, reason: str, token: str = "") -> None:
        """See Store.pause."""
        given: dict[str, Any] = {"seconds": seconds, "reason": reason, "token": token}
        list(self._usable(lambda part: part.pause(pixel_id, **given)))

    def resume(self, pixel_id: str, token: str = "") -> None:
        """See Store.resume."""
        list(self._usable(lambda part: part.resume(pixel_id, token)))

    def rest(self, pixel_id: str, token: str = "") -> Rest | None:
        """See Store.rest. A part that was away may not know of it, or of its end."""
        found = [one for one in self._usable(lambda part: part.rest(pixel_id, token)) if one]
        return max(found, key=attrgetter("seconds", "failures"), default=None)

    def try_now(self, pixel_id: str, token: str, *, seconds: float) -> bool:
        """See Store.try_now: whoever is the first in one part is so in the next."""
        return all(self._usable(lambda part: part.try_now(pixel_id, token, seconds=seconds)))

    def pauses(self) -> Sequence[Pause]:
        """See Store.pauses."""
        found = sorted(chain(*self._usable(lambda part: part.pauses())), key=attrgetter("until"))
        rests = {(one.pixel_id, one.token): one for one in found}
        return [rests[which] for which in sorted(rests)]

    def backlog(self) -> Sequence[Backlog]:
        """See Store.backlog."""
        found: dict[str, Backlog] = {}
        for one in chain.from_iterable(self._all(lambda part: part.backlog())):
            before = found.get(one.pixel_id, Backlog(one.pixel_id, 0, 0.0))
            waiting, oldest = before.waiting + one.waiting, max(before.oldest, one.oldest)
            found[one.pixel_id] = Backlog(one.pixel_id, waiting, oldest)
        return list(found.values())

    def dead_letters(self, *, limit: int, after: int = 0) -> Sequence[DeadLetter]:
        """See Store.dead_letters."""
        return _merged(self._all(lambda part: part.dead_letters(limit=limit, after=after)))[:limit]

    def requeue(self, keys: Sequence[int] | None = None) -> int:
        """See Store.requeue."""
        return self._each(keys, lambda part, some: part.requeue(some))

    def drop(self, keys: Sequence[int] | None = None) -> int:
        """See Store.drop."""
        return self._each(keys, lambda part, some: part.drop(some))

    def forget(self, is_meant: Callable[[bytes], bool]) -> Forgotten:
        """See Store.forget."""
        found = self._all(lambda part: part.forget(is_meant))
        return Forgotten(*map(sum, zip(*map(astuple, found), strict=True)))

    def _each(
        self, keys: Sequence[int] | None, act: Callable[[Store, Sequence[int] | None], int]
    ) -> int:
        if keys is None:
            return sum(self._all(lambda part: act(part, None)))
        return sum([act(part, some) for part, some in self._split(keys, self._home_of)])

    @contextmanager
    def moment(self) -> Iterator[None]:
        """See Store.moment: one for each part."""
        with ExitStack() as moments:
            for part in self._parts:
                moments.enter_context(part.moment())
            yield

    def tallies(self, start: float, end: float) -> Tallies:
        """See Store.tallies."""
        found = self._all(lambda part: part.tallies(start, end))
        return Tallies(
            _sums(Tally, [one.rows for one in found]),
            _sums(Freshness, [one.freshness for one in found]),
            _sums(Count, [one.counts for one in found]),
            _sums(Difference, [one.differences for one in found]),
            _sums(Slice, [one.money for one in found]),
        )

    def slices(self, facet: Facet, start: float, end: float) -> Sequence[Slice]:
        """See Store.slices."""
        return _sums(Slice, self._all(lambda part: part.slices(facet, start, end)))

    def find(self, event_ids: Sequence[str]) -> Sequence[Known]:
        """See Store.find."""
        if len(event_ids) > MOST_FOUND:
            return self._parts[0].find(event_ids)  # which refuses so many
        return _merged([part.find(some) for part, some in self._split(event_ids, self._home)])

    def recent(self, limit: int, after: int = 0) -> Sequence[Known]:
        """See Store.recent. Keys of one part say nothing of the age of others."""
        found = self._all(lambda part: part.recent(limit, after))
        if after:
            return _merged(found)[:limit]
        by_age = sorted(chain.from_iterable(found), key=attrgetter("event_time", "key"))
        return _merged([by_age[-limit:]])

    def newest(self, limit: int, event_name: str = "", owner: str = "") -> Sequence[Known]:
        """See Store.newest, and `recent` for the order."""
        found = chain.from_iterable(self._all(lambda part: part.newest(limit, event_name, owner)))
        return _merged([sorted(found, key=attrgetter("event_time", "key"))[-limit:]])

    def keep(self, name: str, body: bytes, *, instead_of: bytes | None) -> bool:
        """See Store.keep."""
        return self._parts[0].keep(name, body, instead_of=instead_of)

    def kept(self, name: str) -> bytes | None:
        """See Store.kept."""
        return self._parts[0].kept(name)

    def depth(self) -> dict[str, int]:
        """See Store.depth."""
        return dict(sum(map(Counter, self._all(lambda part: part.depth())), Counter[str]()))

    def prune(self, before: float) -> int:
        """See Store.prune."""
        return sum(self._all(lambda part: part.prune(before)))

    def forget_orders(self, before: float) -> None:
        """See Store.forget_orders."""
        self._all(lambda part: part.forget_orders(before))

    def flush(self, timeout: float) -> bool:
        """See Store.flush."""
        end = time.monotonic() + timeout
        return all(one.flush(max(0.0, end - time.monotonic())) for one in self._parts)

    def close(self, timeout: float | None = None) -> None:
        """See Store.close. While one that is away is waited for, all others commit."""
        end = time.monotonic() + (_CLOSE_SECONDS if timeout is None else timeout)
        for one in self._parts:
            one.close(max(0.1, end - time.monotonic()))

    # -- parts and their shares ------------------------------------------------------------------

    def _home(self, event_id: str) -> int:
        """Which part an event lives in: never another, or it would be delivered twice.

        An order lives where it did, whatever key signs its id by now.
        """
        order = first_key(event_id)
        text = event_id if order is None else str(order)
        digest = blake2b(text.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % len(self._parts)

    def _home_of(self, key: int) -> int:
        return (key - 1) % len(self._parts)

    def _split(self, items: Sequence[T], home: Callable[[T], int]) -> list[tuple[Store, list[T]]]:
        """Each part that has some of these, with its share; of nothing the first has it."""
        shares: dict[int, list[T]] = {}
        for one in items:
            shares.setdefault(home(one), []).append(one)
        return [(self._parts[at], some) for at, some in (shares or {0: []}).items()]

    def _submit(
        self, items: Sequence[_Event], put: Callable[[Store, Sequence[_Event]], Commit | None]
    ) -> Commit | None:
        commits: list[Commit] = []
        failure: StoreError | None = None
        for part, some in self._split(items, lambda one: self._home(one.event_id)):
            try:
                commit = put(part, some)
            except StoreError as error:
                failure = error
            else:
                commits += [commit] if commit is not None else []
        if failure is not None:
            if not commits:
                raise failure
            # Whoever waits does so for what the others took, and hears of it then.
            commits.append(Commit(Holdup(), failure, waiting=None))
        return together(commits) if commits else None

    def _ask(self, part: Store, do: Callable[[Store], T]) -> T:
        start = time.monotonic()
        until, why = self._rests[part]
        if start < until:
            raise LockedError(why)
        try:
            return do(part)
        except StoreError as error:
            now = time.monotonic()
            self._rests[part] = now + min(_REST * (now - start), _LONGEST_REST), str(error)
            raise

    def _usable(
        self, do: Callable[[Store], T], parts: Sequence[Store] = (), least: int = 1
    ) -> Iterator[T]:
        """What those answer that can be used; an error, in the end, where fewer can."""
        failure, answered = None, 0
        for part in parts or self._parts:
            try:
                answer = self._ask(part, do)
            except StoreError as error:
                failure = error
            else:
                answered += 1
                yield answer
        if failure is not None and answered < least:
            raise failure

    def _all(self, do: Callable[[Store], T]) -> list[T]:
        return list(self._usable(do, least=len(self._parts)))

    def _told(self, waiting: Mapping[str, Set[str]]) -> None:
        if self.on_commit is not None:
            self.on_commit(waiting)


def _merged(found: Iterable[Iterable[T]]) -> list[T]:
    return sorted(chain.from_iterable(found), key=attrgetter("key"))


def _sums(kind: type[_Record], found: Iterable[Iterable[_Record]]) -> list[_Record]:
    """What differs in `n` alone, the last of its fields, is one."""
    sums: Counter[tuple[Any, ...]] = Counter()
    for one in chain.from_iterable(found):
        *of, n = astuple(one)
        sums[tuple(of)] += n
    return [kind(*of, n) for of, n in sums.items()]
