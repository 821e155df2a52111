"""The history of a round, and whether it is one that was promised (as Jepsen checks one)."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from capi_middleware.testing.received import ServerEvent


@dataclass
class History:
    """What processes said they did, and what reached Meta."""

    tried: set[str] = field(default_factory=set)
    #: event_id by the key of what was accepted.
    accepted: dict[str, str] = field(default_factory=dict)
    kills: int = 0

    def hear(self, lines: Iterable[str]) -> None:
        """Read what a process said; its last line may be cut off."""
        for line in lines:
            word, *rest = line.rstrip("\n").split(" ")
            if word == "try" and len(rest) == 1 and line.endswith("\n"):
                self.tried.add(rest[0])
            elif word == "ok" and len(rest) == 2 and line.endswith("\n"):
                self.accepted[rest[1]] = rest[0]


@dataclass(frozen=True)
class Verdict:
    """Counts; all but `accepted`, `delivered`, `duplicates` and `kills` must be 0."""

    accepted: int
    delivered: int
    duplicates: int
    lost: int
    phantom: int
    mutated: int
    early: int
    stale: int
    hasty: int = 0
    kills: int = 0

    @property
    def holds(self) -> bool:
        """Whether every promise was kept."""
        broken = (self.lost, self.phantom, self.mutated, self.early, self.stale, self.hasty)
        return not any(broken)


def judge(
    history: History,
    received: Sequence[ServerEvent],
    quiet: Sequence[tuple[float, float]] = (),
    *,
    hasty: int = 0,
) -> Verdict:
    """Lost: accepted and never received. Phantom: received and never tried. Mutated: one id, two
    bodies. Early: received within a window of `quiet`, in which Meta wanted to be left alone (Unix
    time). Stale: older than Meta takes. Hasty: answers that ended before their commit, of which
    each could be lost."""
    bodies: defaultdict[str, set[str]] = defaultdict(set)
    stale = 0
    for one in received:
        bodies[one.event["event_id"]].add(json.dumps(one.event, sort_keys=True))
        stale += one.arrived - one.event["event_time"] > 7 * 86_400
    accepted = set(history.accepted.values())
    # What was tried and not answered may or may not have been stored: one for each key at most.
    unanswered = len(history.tried - set(history.accepted))
    return Verdict(
        accepted=len(accepted),
        delivered=len(bodies),
        duplicates=len(received) - len(bodies),
        lost=len(accepted - set(bodies)),
        phantom=max(0, len(set(bodies) - accepted) - unanswered),
        mutated=sum(len(different) > 1 for different in bodies.values()),
        early=sum(start < one.arrived < end for one in received for start, end in quiet),
        stale=stale,
        hasty=hasty,
        kills=history.kills,
    )
