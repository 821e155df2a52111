"""Versions of Meta's API: when each came, and when it ends.

From Meta's changelog and its page of available versions as of November 2026. For the Conversions
API a version works for two years at least; where Meta names an earlier day for the Marketing API,
that one is taken.
"""

from datetime import UTC, date, datetime, timedelta

from msgspec import Struct

#: Version: the day it came, and the day it ends where Meta named one.
_DAYS: dict[str, tuple[date, date | None]] = {
    "v24.0": (date(2025, 10, 8), date(2026, 11, 10)),
    "v25.0": (date(2026, 2, 18), date(2027, 2, 23)),
    "v26.0": (date(2026, 7, 29), None),
    "v27.0": (date(2026, 11, 4), None),
}
#: The newest that is known here, which Config.graph_version is by default.
NEWEST = "v27.0"
#: Days before the end of a version from which somebody should look.
LAST_DAYS = 90
_TWO_YEARS = timedelta(days=730)


class GraphVersion(Struct, frozen=True):
    """A version of Meta's API: its age, and the days until it ends (below 0: it has ended).

    None is not known: of versions that are newer, or long gone. `ends` is a day in ISO 8601.
    """

    version: str
    age_days: int | None = None
    ends: str | None = None
    days_left: int | None = None


def version_at(version: str, now: float) -> GraphVersion:
    """What is known of a version at `now`, Unix time in seconds."""
    today = datetime.fromtimestamp(now, UTC).date()
    came, ends = _DAYS.get(version, (None, None))
    if came is None and _number(version) < min(map(_number, _DAYS)):
        ends = min(end for _, end in _DAYS.values() if end)
    elif came is not None:
        ends = ends or came + _TWO_YEARS
    return GraphVersion(
        version,
        (today - came).days if came else None,
        ends.isoformat() if ends else None,
        (ends - today).days if ends else None,
    )


def versions_at(used: str, now: float) -> list[GraphVersion]:
    """The version that is used, and the newest where that is another."""
    return [version_at(one, now) for one in dict.fromkeys((used, NEWEST))]


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.removeprefix("v").split(".")))
