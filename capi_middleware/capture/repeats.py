"""Repeats: events that look like one that the same visitor caused seconds ago."""

from collections import OrderedDict

#: How long two events of one visitor, name and value are taken for one, in seconds.
SECONDS = 60.0
_MOST = 10_000
#: What a visitor may well do twice in a minute: two cups in the cart are two events.
OFTEN = frozenset(
    {"PageView", "ViewContent", "Search", "AddToCart", "AddToWishlist", "CustomizeProduct",
     "FindLocation", "InitiateCheckout", "AddPaymentInfo"}
)  # fmt: skip


class Repeats:
    """Remembers at most 10,000 recent events, as hashes in memory. Not exact between threads."""

    def __init__(self) -> None:
        self._recent: OrderedDict[int, float] = OrderedDict()

    def seen(self, *event: object, now: float) -> bool:
        """Whether the same was seen within SECONDS; `now` is Unix time in seconds."""
        name = hash(event)
        before = self._recent.pop(name, None)
        self._recent[name] = now
        if len(self._recent) > _MOST:
            self._recent.popitem(last=False)
        return before is not None and abs(now - before) <= SECONDS
