"""Measuring: two things in alternating rounds, their medians and spread."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Unit = Literal["s", "/s", "MB", "KB", "B", "MB/s", ""]
#: Units of which more is better: `reach` is the lowest ratio that is good enough.
MORE_IS_BETTER = frozenset({"/s", "MB/s"})


@dataclass(frozen=True)
class Row:
    """One line of the table: `ours` beside `theirs`, each one piece of work of this thread.

    `reach` is the highest ratio ours ÷ theirs that is good enough; None for a line that is only
    shown beside another one. With a `floor` both sides count only what they add to it.
    """

    what: str
    against: str
    reach: float | None
    ours: Callable[[], object]
    theirs: Callable[[], object]
    floor: Callable[[], object] | None = None
    unit: Unit = "s"
    rounds: int = 9


@dataclass(frozen=True)
class Trial:
    """A line whose sides prepare something first and tell their own figure, in `unit`.

    Each takes how much to do, as a share of a full trial. `reach` and `floor` as in Row.
    """

    what: str
    against: str
    reach: float | None
    ours: Callable[[float], float]
    theirs: Callable[[float], float]
    floor: Callable[[float], float] | None = None
    unit: Unit = "s"
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
        return self.ours / self.theirs if self.theirs else float("inf")

    @property
    def reached(self) -> bool | None:
        """Whether the ratio is good enough; None where nothing is asked of it."""
        if self.row.reach is None:
            return None
        if self.row.unit in MORE_IS_BETTER:
            return self.ratio >= self.row.reach
        return self.ratio <= self.row.reach


def constant(value: float) -> Callable[[float], float]:
    """A side that is a given figure."""
    return lambda _: value


def measure(row: Row | Trial, *, smoke: bool) -> Result:
    """Measure in alternating rounds; `smoke` does each thing once and little of it."""
    rounds = 1 if smoke else row.rounds
    figures: list[Callable[[], float]]
    if isinstance(row, Trial):
        share = 0.01 if smoke else 1.0
        sides = [row.ours, row.theirs] + ([row.floor] if row.floor else [])
        figures = [lambda side=side: side(share) for side in sides]  # type: ignore[misc]
    else:
        # Short rounds where there are many: noise that comes and goes hits all sides alike.
        seconds = 0.01 if smoke else 2.75 / row.rounds
        works = [row.ours, row.theirs] + ([row.floor] if row.floor else [])
        figures = [_timed(work, seconds) for work in works]
    return _alternate(row, rounds, figures)


def _alternate(row: Row | Trial, rounds: int, figures: list[Callable[[], float]]) -> Result:
    told: list[list[float]] = [[] for _ in figures]
    for round_ in range(rounds):
        for side in range(len(figures))[:: 1 if round_ % 2 else -1]:
            told[side].append(figures[side]())
    floors = told[2] if len(told) > 2 else [0.0] * rounds
    added = [[one - floor for one, floor in zip(side, floors, strict=True)] for side in told[:2]]
    ratios = sorted(
        one / other if other else float("inf") for one, other in zip(*added, strict=True)
    )
    quarter = len(ratios) // 4
    return Result(
        row,
        statistics.median(added[0]),
        statistics.median(added[1]),
        (ratios[quarter], ratios[-1 - quarter]),
    )


def _timed(work: Callable[[], object], seconds: float) -> Callable[[], float]:
    work()
    often = 1
    while True:
        taken = _time(work, often) * often
        if taken >= seconds / 4:
            break
        often *= 4
    often = max(1, round(often * seconds / taken))
    return lambda: _time(work, often)


def _time(side: Callable[[], object], often: int) -> float:
    # The thread's own time: what others do on the machine meanwhile is not part of it.
    start = time.thread_time()
    for _ in range(often):
        side()
    return (time.thread_time() - start) / often
