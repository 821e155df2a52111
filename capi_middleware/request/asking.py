"""Asking: what a page may cause later, when its script asks, and what shows that it was answered.

A page without event_ids carries a mark: the app itself answered this path, on this day, with a
status that counts for these events. Others may have got the same page, and anybody may know its
mark. So it brings no money, no dedupe_key and no match data of its route.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from capi_middleware.capture.limits import OFTEN
from capi_middleware.config.routes import EventRoute, Match
from capi_middleware.events import Event
from capi_middleware.signing import Minter, short_hash

#: How long a cache may keep a page whose script asks, in days.
MARK_DAYS = 31
_DAY = 86400
_MONEY = frozenset({"value", "currency", "predicted_ltv"})


class Mark(NamedTuple):
    """What a mark that is ours says: whether of this path, and which events may happen there."""

    is_here: bool
    names: frozenset[str]


class Asking:
    """What the pages of one site may cause by a question."""

    def __init__(self, minter: Minter, routes: Sequence[EventRoute]) -> None:
        self._minter = minter
        self._shared = {id(route): _shared(route) for route in routes}
        self.routes: list[EventRoute] = [one for one in self._shared.values() if one is not None]

    def share(
        self, matches: Iterable[Match], names: frozenset[str] | None
    ) -> tuple[list[Match], list[Match]]:
        """What may happen of `matches`, and those that need the app's own answer to the visitor.

        `names` are the events that a mark of this address shows, None where a script made it.
        """
        shared: list[Match] = []
        refused: list[Match] = []
        for match in matches:
            route = self._shared[id(match.route)]
            if names is None and 200 not in match.route.counted:
                continue
            if route is None:
                refused.append(match)
            elif names is None or route.event_name in names:
                shared.append(Match(route, match.parameters))
        return shared, refused if names is None else []

    def needing(self, matches: Iterable[Match]) -> list[Match]:
        """Those of `matches` that need the app's own answer to the visitor."""
        return [one for one in matches if self._shared[id(one.route)] is None]

    def mark(self, path: str, matches: Iterable[Match], now: float, *, page_view: bool) -> str:
        """The mark of a page that the app answers now: the same for all visitors of a day."""
        names = ["PageView"] if page_view else []
        names += [one.route.event_name for one in matches if self._shared[id(one.route)]]
        text = "\n".join([str(int(now // _DAY)), short_hash(path), *names])
        return f"{self._minter.mark(text)}\n{text}"

    def read(self, mark: str, path: str, now: float) -> Mark | None:
        """What a mark says, None when it is not ours or older than MARK_DAYS."""
        signature, _, text = mark.partition("\n")
        if not self._minter.marks(text, signature):
            return None
        day, page, *names = text.split("\n")
        if not 0 <= now // _DAY - int(day) <= MARK_DAYS:
            return None
        return Mark(page == short_hash(path), frozenset(names))


def _shared(route: EventRoute) -> EventRoute | None:
    """The route without what only the app's own answer may bring.

    None for an order and what else is one event wherever it is seen; what visitors do often goes
    without its money.
    """
    given = route.custom_data or {}
    has_money = not _MONEY.isdisjoint(given)
    if route.event_name == "Purchase" or route.dedupe_key is not None:
        return None
    if has_money and route.event_name not in OFTEN:
        return None
    if not has_money and route.user_data is None:
        return route
    harmless = {key: value for key, value in given.items() if key not in _MONEY}
    return replace(route, custom_data=harmless or None, user_data=None)


def without_prices(event: Event) -> None:
    """Take out what the contents of an event cost."""
    contents = event.custom_data.get("contents")
    if isinstance(contents, list):
        event.custom_data["contents"] = [
            {key: one[key] for key in one if key != "item_price"} for one in contents
        ]
