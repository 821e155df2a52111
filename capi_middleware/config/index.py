"""Matching: which routes a request is mapped to, at a cost that does not grow with their number."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from capi_middleware.config.routes import EventRoute


class Match(Struct, frozen=True, eq=False):
    """A route that takes a request, with the parameters of its path."""

    route: EventRoute
    parameters: dict[str, Any]


class _Node:
    __slots__ = ("any", "here", "literal", "rest")

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.any: _Node | None = None
        self.here: list[tuple[int, EventRoute]] = []
        self.rest: list[tuple[int, EventRoute]] = []


class RouteIndex:
    """A tree of path segments: one dict look-up per segment, whatever the number of routes.

    `reserved` is the path of the endpoints, which are no route.
    """

    def __init__(self, routes: Sequence[EventRoute], reserved: str = "") -> None:
        self._root = _Node()
        #: The first segments of the paths of each method; None: any of them may be wanted.
        self._first: dict[str, frozenset[str] | None] = {"HEAD": None}
        for method in {"*", *(route.method for route in routes)}:
            self._first[method] = _first_segments(routes, method, reserved)
        self._first_of_any = self._first["*"]
        for place, route in enumerate(routes):
            node = self._root
            for segment in route.path.segments:
                if segment == "...":
                    node.rest.append((place, route))
                    break
                if segment is None:
                    if node.any is None:
                        node.any = _Node()
                    node = node.any
                else:
                    node = node.literal.setdefault(segment, _Node())
            else:
                node.here.append((place, route))

    def may_want(self, method: str, path: str) -> bool:
        """False for a request that no route takes and that is not below `reserved`.

        Most requests end at this one look-up. HEAD is no page, but speaks of one: always True.
        """
        first = self._first.get(method, self._first_of_any)
        return first is None or path[1:].partition("/")[0] in first

    def match(self, method: str, path: str) -> list[Match]:
        """The routes of `method` and `path` (below any mount), in order."""
        root = self._root
        if not root.literal and root.any is None and not root.rest:
            return []
        nodes = [root]
        found: list[tuple[int, EventRoute]] = []
        for segment in path[1:].split("/"):
            following: list[_Node] = []
            for node in nodes:
                if node.rest:
                    found += node.rest
                child = node.literal.get(segment)
                if child is not None:
                    following.append(child)
                if node.any is not None:
                    following.append(node.any)
            nodes = following
            if not nodes:
                break
        for node in nodes:
            found += node.here
        if len(found) > 1:
            found.sort(key=_place)
        matches = []
        for _, route in found:
            if route.method in (method, "*"):
                parameters = route.path.match(path)
                if parameters is not None:
                    matches.append(Match(route, parameters))
        return matches


def _first_segments(
    routes: Sequence[EventRoute], method: str, reserved: str
) -> frozenset[str] | None:
    first = {route.path.segments[0] for route in routes if route.method in (method, "*")}
    if None in first or "..." in first:
        return None
    return frozenset({*map(str, first), reserved[1:].partition("/")[0]})


def _place(candidate: tuple[int, EventRoute]) -> int:
    return candidate[0]
