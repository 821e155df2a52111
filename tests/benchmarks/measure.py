"""Measuring: two things in alternating rounds, their medians and spread."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table: `ours` beside `theirs`, each one piece of work without arguments.

    `reach` is the highest ratio ours ÷ theirs that is good enough.
    """

    what: str
    against: str
    reach: float
    ours: Callable[[], object]
    theirs: Callable[[], object]


@dataclass(frozen=True)
class Result:
    """Medians in seconds for one piece of work; `spread` is the middle half of the ratios."""

    row: Row
    ours: float
    theirs: float
    spread: tuple[float, float]

    @property
    def ratio(self) -> float:
        """Ours ÷ theirs."""
        return self.ours / self.theirs

    @property
    def reached(self) -> bool:
        """Whether the ratio is good enough."""
        return self.ratio <= self.row.reach


def measure(row: Row, *, rounds: int, seconds: float) -> Result:
    """Measure in `rounds` alternating rounds of about `seconds` for each side."""
    sides = (row.ours, row.theirs)
    often = [_often_enough(side, seconds) for side in sides]
    times: list[list[float]] = [[], []]
    for round_ in range(rounds):
        order = (0, 1) if round_ % 2 else (1, 0)
        for side in order:
            times[side].append(_time(sides[side], often[side]))
    ratios = sorted(one / other for one, other in zip(*times, strict=True))
    quarter = len(ratios) // 4
    return Result(
        row,
        statistics.median(times[0]),
        statistics.median(times[1]),
        (ratios[quarter], ratios[-1 - quarter]),
    )


def _often_enough(side: Callable[[], object], seconds: float) -> int:
    side()
    often = 1
    while True:
        taken = _time(side, often) * often
        if taken >= seconds / 4:
            return max(1, round(often * seconds / taken))
        often *= 4


def _time(side: Callable[[], object], often: int) -> float:
    start = time.perf_counter()
    for _ in range(often):
        side()
    return (time.perf_counter() - start) / often
