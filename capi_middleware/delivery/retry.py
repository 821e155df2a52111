"""Retry: when to ask the Graph API, the first time and again, decided by values alone."""

import math
import random

from capi_middleware.delivery.batches import BATCH
from capi_middleware.meta.codes import FAILURES, THROTTLE_DELAY, Outcome

#: How long a new event waits for company, in seconds: alone, and where many come. Meta wants events
#: in real time, and the way there takes its part of two seconds.
SHORTEST_GATHERING, LONGEST_GATHERING = 0.05, 1.5
#: How long page views may wait beyond that, in seconds: with all else less than ten.
LONGEST_LINGERING = 6.5
#: What counts as lately, in seconds.
LATELY = 10.0
#: Seconds before the second attempt, and the longest wait between two attempts: of an event, and of
#: a pixel while Meta is not reached.
FIRST_DELAY = 1.0
LONGEST_DELAY = 300.0
LONGEST_OUTAGE = 60.0
#: The longest rest of a pixel that Meta throttles.
LONGEST_THROTTLE = 3600.0
#: How long a pixel rests after an error that is no event's fault, before the next probe, and at
#: most.
PROBE_DELAY, LONGEST_PROBE = 60.0, 900.0


def backoff(attempts: int, chance: random.Random) -> float:
    """Seconds before attempt number `attempts` + 1: full jitter, doubling, capped."""
    ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempts, 20))
    return chance.uniform(FIRST_DELAY / 2, ceiling)


def rest(outcome: Outcome, failures: int) -> float:
    """Seconds that a pixel rests after its request failed as a whole, `failures` in a row.

    What Meta asks for is done to the second, up to LONGEST_THROTTLE.
    """
    doubled = 2.0 ** min(max(failures - 1, 0), 10)
    asked = min(LONGEST_THROTTLE, max(1.0, outcome.delay or 0.0))
    if outcome.kind in ("access", "blocked", "large", "unsure"):
        return max(asked, min(LONGEST_PROBE, PROBE_DELAY * doubled))
    if outcome.delay is not None:
        return asked
    if outcome.kind == "retry":
        return min(LONGEST_OUTAGE, FIRST_DELAY * doubled)
    return THROTTLE_DELAY


def asks_to_wait(outcome: Outcome) -> bool:
    """Whether an outcome has nothing to do with the events: it is no attempt of theirs."""
    return outcome.delay is not None or outcome.reason in (*FAILURES, "http 429", "http 503")


def gathering(rate: float) -> float:
    """Seconds that a new event waits for company, when `rate` events a second came lately.

    A request for each event would cost the process more than its pages do. A lonely event goes at
    once; the more come, the longer it pays to wait, but never for more than a batch holds.
    """
    wanted = min(rate, 1.0) * LONGEST_GATHERING
    return max(SHORTEST_GATHERING, min(wanted, BATCH / max(rate, 1.0)))


def lingering(rate: float) -> float:
    """Seconds that page views wait after that for more, as nothing is optimised for them."""
    return min(min(rate / 5, 1.0) * LONGEST_LINGERING, BATCH / max(rate, 1.0))


class Pace:
    """How many events a second came lately: those of the last seconds count most."""

    def __init__(self) -> None:
        self._events = 0.0
        self._at = 0.0

    def add(self, events: int, now: float) -> None:
        """`events` more came by `now`, in seconds of any clock that only goes forward."""
        self._events, self._at = self.rate(now) * LATELY + events, now

    def rate(self, now: float) -> float:
        """Events a second as of `now`."""
        return self._events / LATELY * math.exp(min(0.0, self._at - now) / LATELY)
