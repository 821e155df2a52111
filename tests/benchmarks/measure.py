"""Measuring: two things in alternating rounds, their medians and spread."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


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
    unit: Literal["s"] = "s"


@dataclass(frozen=True)
class Trial:
    """A line whose sides prepare something first and tell their own figure, in `unit`.

    Each takes how much to do, as a share of a full trial.
    """

    what: str
    against: str
    reach: float
    ours: Callable[[float], float]
    theirs: Callable[[float], float]
    unit: Literal["s", "MB"] = "s"
    rounds: int = 9


@dataclass(frozen=True)
class Result:
    """Medians for one piece of work; `spread` is the middle half of the ratios."""

    row: Row | Trial
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


def measure(row: Row | Trial, *, smoke: bool) -> Result:
    """Measure in alternating rounds; `smoke` does each thing once and little of it."""
    if isinstance(row, Trial):
        sides = (row.ours, row.theirs)
        rounds, amounts = (1, (0.01, 0.01)) if smoke else (row.rounds, (1.0, 1.0))
        return _alternate(row, rounds, lambda side: sides[side](amounts[side]))
    works = (row.ours, row.theirs)
    rounds, seconds = (1, 0.01) if smoke else (11, 0.25)
    often = [_often_enough(work, seconds) for work in works]
    return _alternate(row, rounds, lambda side: _time(works[side], often[side]))


def _alternate(row: Row | Trial, rounds: int, figure: Callable[[int], float]) -> Result:
    figures: list[list[float]] = [[], []]
    for round_ in range(rounds):
        for side in (0, 1) if round_ % 2 else (1, 0):
            figures[side].append(figure(side))
    ratios = sorted(one / other for one, other in zip(*figures, strict=True))
    quarter = len(ratios) // 4
    return Result(
        row,
        statistics.median(figures[0]),
        statistics.median(figures[1]),
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
