"""Capture: what an app tracks while a test runs, with a store in memory and a clock that stands."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from capi_middleware.capi import living
from capi_middleware.events import Count, Event, EventName
from capi_middleware.meta.custom_data import clean, refused_by_meta
from capi_middleware.meta.event_object import FIELDS, standard_name
from capi_middleware.meta.user_data import UserData
from capi_middleware.request.issuing import Issuer
from capi_middleware.store.sqlite import Memory
from capi_middleware.store.store import Store

_NOTHING = "nothing"


class FrozenClock:
    """Unix time in seconds, for the `clock` of FakeMeta and MemoryStore.

    Call it for the time; set `now`, or move it on with `advance`.
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now: float = now

    def __call__(self) -> float:
        """The time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds


class MemoryStore(Store):
    """The store in this process's memory. Every call is done when it returns, commits as well.

    Args:
        queue_limit: the most rows of one call, as nothing waits for a disk.
        clock: Unix time in seconds.
    """

    def __init__(
        self, *, queue_limit: int = 100_000, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(Memory(clock), queue_limit=queue_limit, clock=clock)


class Captured:
    """What was tracked since the test began, or since `clear()`."""

    def __init__(self) -> None:
        self._kept: list[tuple[Event, Issuer]] = []
        #: What does not leave, because Meta would refuse it: a Purchase without value.
        self.refused: list[Event] = []
        #: Each (event_name, reason) of what was not tracked: no consent, a bot, a failed view.
        self.suppressed: list[tuple[str, str]] = []
        self._left_out: list[str] = []
        self._kept_back: list[str] = []

    @property
    def events(self) -> list[Event]:
        """The events that would leave, in order; user_data is hashed, as Meta would get it."""
        return [event for event, _ in self._kept]

    def clear(self) -> None:
        """Forget what was captured so far."""
        for found in (self._kept, self.refused, self.suppressed, self._left_out, self._kept_back):
            found.clear()

    def assert_tracked(
        self,
        event_name: EventName,
        *,
        times: int | None = None,
        user_data: UserData | None = None,
        dedupe_key: object = None,
        **custom_data: Any,
    ) -> list[Event]:
        """The events of this `event_name` that hold all that is given: some, or exactly `times`.

        `value`, `currency` and all else but `user_data`, `dedupe_key` and fields of Meta's event
        object (`action_source`, `opt_out` …) is custom_data, compared after the same cleaning as
        the app's. `user_data` is hashed before it is compared. 0 `times` means none.

        Raises AssertionError with what was tracked, and what is different in the nearest event.
        """
        __tracebackhide__ = True
        differences = [
            (_differences(event, issuer, user_data, dedupe_key, custom_data), event)
            for event, issuer in self._kept
            if event.event_name == event_name
        ]
        found = [event for different, event in differences if not different]
        meant = "" if differences else standard_name(event_name)
        if not meant and ((len(found) > 0) if times is None else (len(found) == times)):
            return found
        wanted = ", ".join([
            *(f"{key}={value!r}" for key, value in custom_data.items()),
            *([repr(user_data)] if user_data is not None else []),
            *([f"dedupe_key={dedupe_key!r}"] if dedupe_key is not None else []),
        ])  # fmt: skip
        expected = "at least once" if times is None else f"{times} times"
        lines = [f"{event_name}({wanted}): found it {len(found)} times, expected it {expected}"]
        lines += [f"did you mean {meant!r}?"] if meant else []
        if differences and not found:
            different, event = min(differences, key=lambda one: len(one[0]))
            lines += ["nearest:", f"  {_shown(event)}", *(f"    {one}" for one in different)]
        lines += [
            "tracked:" if self._kept else "tracked: nothing",
            *(f"  {_shown(event)}" for event in self.events),
            *(f"refused: {_shown(event)} needs value and currency" for event in self.refused),
            *(f"suppressed: {name} ({reason})" for name, reason in self.suppressed),
            *(f"consent {one}" for one in self._kept_back),
            *(f"left out: {what}, missing or unusable" for what in self._left_out),
        ]
        raise AssertionError("\n".join(lines))

    def issued(self, issuer: Issuer, events: Sequence[Event]) -> None:
        """Called with the `events` that an `issuer` sends on."""
        for event in events:
            if event.send != "browser" and refused_by_meta(event.event_name, event.custom_data):
                self.refused.append(event)
            elif event.pixel_ids:
                self._kept.append((event, issuer))

    def counted(self, counts: Sequence[Count]) -> None:
        """Called with the `counts` that go to the store."""
        for one in counts:  # one for each pixel
            what = (one.event_name, one.reason)
            if one.kind == "suppressed" and what not in self.suppressed:
                self.suppressed.append(what)
            elif one.kind == "consent" and one.reason.endswith((" denied", " held")):
                rule, _, answer = one.reason.rpartition(" ")
                self._kept_back.append(f"{answer} by: {rule}")
            elif one.kind == "left_out":
                self._left_out.append(".".join(filter(None, what)))


@contextmanager
def capture() -> Iterator[Captured]:
    """Let every CAPI of this process, present and to come, track into memory.

    Nothing is opened, stored or sent. Afterwards each goes on with its own store; one that was
    made meanwhile stays in memory.
    """
    captured, before = Captured(), Issuer.tap
    with ExitStack() as stack:
        for capi in list(living):
            stack.enter_context(capi.into(MemoryStore()))
        Issuer.tap = captured
        try:
            yield captured
        finally:
            Issuer.tap = before


def _differences(
    event: Event, issuer: Issuer, user_data: UserData | None, dedupe_key: object,
    custom_data: dict[str, Any],
) -> list[str]:  # fmt: skip
    """What in an event is not as expected, one line for each field."""
    cleaned, _ = clean(event.event_name, custom_data)
    rows = [
        (key, given, event.details.get(key))
        if key in FIELDS
        else (key, cleaned.get(key, given), event.custom_data.get(key))
        for key, given in custom_data.items()
    ]
    given = user_data if user_data is not None else UserData()
    hashed, unusable = given.hashed(issuer.config.default_region)
    for key, expected in hashed.items():
        found = event.user_data.get(key)
        if not (isinstance(expected, list) and set(expected) <= set(found or ())):
            rows.append((f"user_data.{key}", expected, found))
    if dedupe_key is not None:
        minted = issuer.mint(event.event_name, dedupe_key)
        rows.append(("event_id of the dedupe_key", minted, event.event_id))
    return [
        f"{what}: expected {expected!r}, found {_NOTHING if found is None else repr(found)}"
        for what, expected, found in rows
        if found != expected
    ] + [f"user_data.{key}: found a value that nobody can normalise" for key in unusable]


def _shown(event: Event) -> str:
    data = ", ".join(f"{key}={value!r}" for key, value in event.custom_data.items())
    keys = ", ".join(event.user_data)
    return f"{event.event_name}({data}) with user_data of {keys or _NOTHING}"
