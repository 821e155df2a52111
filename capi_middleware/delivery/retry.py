"""Retry: what to do after a request to the Graph API, decided by values alone."""

import random

from capi_middleware.meta.codes import THROTTLE_DELAY, Outcome

#: Seconds before the second attempt, and the longest wait between two attempts.
FIRST_DELAY = 1.0
LONGEST_DELAY = 900.0
#: The longest rest of a pixel that Meta throttles.
LONGEST_THROTTLE = 3600.0
#: How long a pixel rests after a token or permission error, before the next probe.
PROBE_DELAY = 60.0


def backoff(attempts: int, chance: random.Random) -> float:
    """Seconds before attempt number `attempts` + 1: full jitter, doubling, capped."""
    ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempts, 20))
    return chance.uniform(FIRST_DELAY / 2, ceiling)


def pause(outcome: Outcome, attempts: int, chance: random.Random) -> float:
    """Seconds until an event is tried again: what Meta asked for, within reason, else backoff."""
    if outcome.delay:
        return min(LONGEST_THROTTLE, outcome.delay)
    return backoff(attempts, chance)


def rest(outcome: Outcome, failures: int) -> float:
    """Seconds that a pixel rests after a throttled or access outcome, `failures` in a row."""
    if outcome.kind == "access":
        return float(min(LONGEST_DELAY, PROBE_DELAY * 2.0 ** min(max(failures - 1, 0), 10)))
    wanted = THROTTLE_DELAY if outcome.delay is None else outcome.delay
    return min(LONGEST_THROTTLE, max(1.0, wanted))
