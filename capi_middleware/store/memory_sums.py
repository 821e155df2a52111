"""The rows of MemoryStore and their sums, kept as they change."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct

from capi_middleware.private import Private
from capi_middleware.store.records import DEDUPE_WINDOW, OLDEST_EVENT, Facet, Known
from capi_middleware.store.rollups import HOUR, OF_TALLIES, Key, Place, State, Sum, Window, folded


class Record(Private, Struct):
    """A row, as a database has it."""

    key: int
    event_id: str
    event_name: str
    pixel_id: str
    event_time: float
    due_at: float
    payload: bytes | None = None
    server: str = "unknown"
    browser: str = "not_rendered"
    match_keys: int = 0
    attempts: int = 0
    lease_id: str = ""
    lease_until: float = 0.0
    delivered_at: float = 0.0
    uncertain: bool = False
    reason: str = ""
    route: str = ""
    page: str = ""
    agent: str = ""
    digest: str = ""
    browser_digest: str = ""

    def state(self, n: int) -> State:
        """What the sums know of it."""
        delivered = self.server == "delivered"
        return State(
            hour=int(self.event_time // 3600),
            pixel_id=self.pixel_id,
            event_name=self.event_name,
            server="pending" if self.server == "leased" else self.server,
            browser=self.browser,
            match_keys=self.match_keys,
            tenths=(
                int(max(0.0, self.delivered_at - self.event_time) * 10 + 0.5) if delivered else -1
            ),
            route=self.route,
            page=self.page,
            agent=self.agent,
            differs=int(
                delivered
                and self.browser == "sent"
                and self.digest != ""
                and self.browser_digest not in ("", self.digest)
            ),
            n=n,
            rows=0,
        )

    def known(self) -> Known:
        """What `find` and `recent` tell of it."""
        return Known(
            self.key, self.event_id, self.event_name, self.pixel_id, self.event_time, self.server,
            self.browser, self.reason, self.attempts,
        )  # fmt: skip

    def is_too_old(self, now: float) -> bool:
        """Whether Meta would refuse the event, or might count it twice."""
        twice = self.uncertain or self.browser == "sent"
        return self.event_time < now - (DEDUPE_WINDOW if twice else OLDEST_EVENT)


class Sums:
    """The sums by hour of all rows, also of those that were pruned."""

    def __init__(self) -> None:
        self._sums: Counter[Place] = Counter()

    @contextmanager
    def changing(self, record: Record) -> Iterator[None]:
        """Whatever happens to `record` meanwhile is in the sums afterwards."""
        before = record.state(-1)
        yield
        self.add(before, record.state(1))

    def add(self, *states: State) -> None:
        """Add new rows, or take away those with n = -1."""
        for place, n in folded(states).items():
            if place[0] == HOUR:
                self._sums[place] += n
                if not self._sums[place]:
                    del self._sums[place]

    def of_window(self, window: Window) -> list[Sum]:
        """What `tallies_of` takes."""
        sums = Counter[Key]()
        for (_, hour, key), n in self._sums.items():
            if key.facet in OF_TALLIES and window.start <= hour < window.end:
                sums[key] += n
        return [(*key, n) for key, n in sums.items()]

    def by_facet(self, facet: Facet, window: Window) -> list[Sum]:
        """What `slices_of` takes."""
        sums = Counter[Key]()
        for (_, hour, key), n in self._sums.items():
            if key.facet == facet and window.start <= hour < window.end:
                value = str(hour * 3600) if facet == "hour" else key.value
                sums[key._replace(value=value)] += n
        return [(*key, n) for key, n in sums.items()]

    def prune(self, oldest: int) -> None:
        """Forget the hours before `oldest`; their totals live on in hour 0."""
        for place in [place for place in self._sums if 0 < place[1] < oldest]:
            n = self._sums.pop(place)
            if place[2].facet == "match_keys":
                self._sums[HOUR, 0, place[2]] += n
