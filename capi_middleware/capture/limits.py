"""Limits: what is remembered of visitors for a short time, in a bounded part of the memory.

Nothing here is exact between threads: a limit may be a little off, and costs no lock.
"""

from collections import Counter, OrderedDict
from ipaddress import ip_address
from typing import TypeVar

from capi_middleware.events import Event
from capi_middleware.meta.visitor import Visitor

T = TypeVar("T")

#: Visitors and events that are remembered, 350 bytes each; what was quiet longest is forgotten.
_MOST = 3_000
#: How long two events of one visitor, name and value are taken for one, in seconds.
REPEAT_SECONDS = 60.0
#: How long two conversions of one visitor on one page are taken for one that has two names.
BESIDE_SECONDS = 5.0
#: What a visitor may well do twice in a minute: two cups in the cart are two events.
OFTEN = frozenset(
    {"PageView", "ViewContent", "Search", "AddToCart", "AddToWishlist", "CustomizeProduct",
     "FindLocation", "InitiateCheckout", "AddPaymentInfo"}
)  # fmt: skip


class Repeats:
    """Conversions that look like one that the same visitor caused seconds ago, as hashes."""

    def __init__(self) -> None:
        self._recent: OrderedDict[int, float] = OrderedDict()
        #: By visitor and page: the last event_name, and when.
        self._last: OrderedDict[int, tuple[str, float]] = OrderedDict()

    def look(self, event: Event, visitor: Visitor, page: str, now: float) -> tuple[bool, str]:
        """Whether the same value came within REPEAT_SECONDS without a dedupe_key to tell.

        And the name of another conversion of the same visitor on the same page within
        BESIDE_SECONDS, "" without one. `now` is Unix time in seconds.
        """
        # Behind an unnamed proxy all who have the same browser are alike: they have no address.
        address = visitor.client_ip_address
        who = visitor.fbp or (address and (address, visitor.client_user_agent))
        if not who:
            return False, ""
        name, other = event.event_name, ""
        if page:
            before = self._last.pop(place := hash((who, page)), None)
            self._last[place] = name, now
            if len(self._last) > _MOST:
                self._last.popitem(last=False)
            if before is not None and before[0] != name and abs(now - before[1]) <= BESIDE_SECONDS:
                other = before[0]
        value = event.custom_data.get("value")
        if value is None or event.event_id[0] != "t":
            return False, other
        same = hash((who, name, value, event.custom_data.get("currency")))
        at = self._recent.pop(same, None)
        self._recent[same] = now
        if len(self._recent) > _MOST:
            self._recent.popitem(last=False)
        return at is not None and abs(now - at) <= REPEAT_SECONDS, other


class Allowance:
    """Token buckets by visitor under one for all: `rate` a second after a burst of `burst`.

    An address that is not public is a proxy's, behind which are all visitors: only the bucket for
    all counts then.
    """

    def __init__(self, *, rate: float, burst: float, of_all: float) -> None:
        self._one = (rate, burst)
        self._together = (rate * of_all, burst * of_all)
        self._all = (self._together[1], 0.0)
        self._visitors: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str | None, now: float, n: int = 1) -> bool:
        """Whether `n` more are allowed for a visitor of this IP address; `now` in seconds."""
        together = _filled(self._all, now, *self._together)
        name = _network(address)
        if name is None:
            self._all = (together - n if together >= n else together, now)
            return together >= n
        mine = _filled(self._visitors.pop(name, (self._one[1], now)), now, *self._one)
        allowed = mine >= n and together >= n
        self._visitors[name] = (mine - n if allowed else mine, now)
        self._all = (together - n if allowed else together, now)
        if len(self._visitors) > _MOST:
            self._visitors.popitem(last=False)
        return allowed

    def is_spent(self, address: str | None, now: float) -> bool:
        """Whether nothing is left for a visitor, or for all who are not told apart."""
        name = _network(address)
        if name is None:
            return _filled(self._all, now, *self._together) < 1
        mine = self._visitors.get(name)
        return mine is not None and _filled(mine, now, *self._one) < 1


class Pages:
    """What open pages have brought so far, by the event_id of their key: each has a budget.

    It is for what no signature proves: `events` they ask for or tell of, `alike` of one name that
    they tell of, `sightings` of ids that are not ours, and `names` of events that no rule names, of
    which all pages together bring `new_names` at once and as many an hour.
    """

    def __init__(
        self, *, events: int, alike: int, sightings: int, names: int, new_names: int
    ) -> None:
        self._most = (events, alike, sightings)
        self._names = names
        self._new_names = new_names
        self._new = (float(new_names), 0.0)
        self._pages: OrderedDict[str, _Brought] = OrderedDict()
        self._heard: OrderedDict[str, None] = OrderedDict()

    def takes_events(self, key: str, n: int) -> bool:
        """Whether a page may cause `n` events more."""
        page = self._page(key)
        page.events += n
        return page.events <= self._most[0]

    def takes_sighting(self, key: str) -> bool:
        """Whether a page may tell of one more event whose id is not ours."""
        page = self._page(key)
        page.sightings += 1
        return page.sightings <= self._most[2]

    def takes_alike(self, key: str, event_name: str) -> bool:
        """Whether one event more of this name, which a page tells of, is part of coverage."""
        told = self._page(key).told
        told[event_name] += 1
        return told[event_name] <= self._most[1]

    def hears(self, key: str, event_name: str, now: float) -> bool:
        """Whether a page may use a name that no rule names; `now` in seconds."""
        names = self._page(key).names
        if event_name not in names:
            if len(names) >= self._names or not self._knows(event_name, now):
                return False
            names.add(event_name)
        return True

    def _knows(self, event_name: str, now: float) -> bool:
        if event_name not in self._heard:
            left = _filled(self._new, now, self._new_names / 3600, self._new_names)
            self._new = (left - 1 if left >= 1 else left, now)
            if left < 1:
                return False
        _use(self._heard, event_name, None, self._new_names)
        return True

    def _page(self, key: str) -> "_Brought":
        page = self._pages.get(key) or _Brought()
        _use(self._pages, key, page, _MOST)
        return page


class _Brought:
    """What one page brought."""

    __slots__ = ("events", "names", "sightings", "told")

    def __init__(self) -> None:
        self.events = self.sightings = 0
        self.names: set[str] = set()
        self.told: Counter[str] = Counter()


def _use(known: OrderedDict[str, T], name: str, value: T, most: int) -> None:
    """What was not used for longest is forgotten."""
    known.pop(name, None)
    known[name] = value
    if len(known) > most:
        known.popitem(last=False)


def _filled(bucket: tuple[float, float], now: float, rate: float, burst: float) -> float:
    left, at = bucket
    return min(burst, left + max(0.0, now - at) * rate)


def is_told_apart(address: str | None) -> bool:
    """Whether it is a visitor's: not that of a proxy, nor none."""
    return _network(address) is not None


def _network(address: str | None) -> str | None:
    """An IPv6 visitor has a whole /64 to draw addresses from."""
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return None
    if not parsed.is_global:
        return None
    return str(parsed) if parsed.version == 4 else str(int(parsed) >> 64)
