"""Skew: does our clock tell the same time as Meta's? Meta judges event_time by its own."""

import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime

from capi_middleware.events import Count

#: Clocks that differ by more are counted, in seconds: an answer may be ten seconds under way.
TOLERANCE = 60.0
#: How often the same pixel is counted at most, in seconds.
HOUR = 3600.0


class ClockCheck:
    """Holds the Date of Meta's answers against our clock. One per pixel and process."""

    def __init__(
        self,
        pixel_id: str,
        count: Callable[[Sequence[Count]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pixel_id = pixel_id
        self._count = count
        self._clock = clock
        self._told_at: float | None = None

    def __call__(self, date: str | None) -> None:
        """Count "skewed" if the header `date` of an answer that just came is not now."""
        ours = self._clock()
        try:
            ahead = ours - parsedate_to_datetime(date or "").timestamp()
        except (ValueError, OverflowError):
            return
        if abs(ahead) <= TOLERANCE:
            return
        # A clock that is set right moves in either direction.
        if self._told_at is not None and abs(ours - self._told_at) < HOUR:
            return
        self._told_at = ours
        reason = "ahead" if ahead > 0 else "behind"
        self._count([Count("skewed", reason, pixel_id=self._pixel_id)])
