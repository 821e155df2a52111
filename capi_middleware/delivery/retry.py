"""Retry: what to do after a request to the Graph API, decided by values alone."""

import random
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

#: Seconds before the second attempt, and the longest wait between two attempts.
FIRST_DELAY = 1.0
LONGEST_DELAY = 900.0
#: How long a pixel rests when Meta throttles it and names no time; and the longest rest.
THROTTLE_DELAY = 60.0
LONGEST_THROTTLE = 3600.0
#: How long a pixel rests after a token or permission error, before the next probe.
PROBE_DELAY = 60.0

#: error.code of the Graph API ("Handling Errors", "Rate Limits" pages).
THROTTLED = frozenset({4, 17, 32, 341, 368, 613, *range(80000, 80015)})
TRANSIENT = frozenset({1, 2, 5000})
ACCESS = frozenset({3, 10, 102, 104, 190, 452, *range(200, 300)})
#: error_subcode under code 100: the pixel does not exist or the token has no access to it.
NO_SUCH_PIXEL = 33


class Outcome(Struct, frozen=True):
    """What a request came to.

    `kind`: delivered; retry (nothing was accepted, or nobody knows); throttled and access (the
    whole pixel rests; no attempt of the events is used up); invalid (Meta refuses the request as
    it is, so at least one event in it is bad). `reason` is a code, never a text of Meta's.
    `delay`: seconds that Meta asked us to wait, None when it named none; after a delivery, the rest
    that a used-up quota wants. `uncertain`: nobody knows whether Meta took the events.
    """

    kind: Literal["delivered", "retry", "throttled", "access", "invalid"]
    reason: str = ""
    delay: float | None = None
    uncertain: bool = False


def judge_error(
    status: int,
    code: int | None,
    subcode: int | None,
    transient: bool,
    blamed: Sequence[str] = (),
) -> Outcome:
    """The outcome for an error answer: error.code and is_transient decide, then the status.

    `code` is None when the body is not Meta's JSON (a proxy's page). `blamed` are the fields that
    Meta names, see blame.py: they belong to the reason of a refusal.
    """
    reason = f"http {status}" if code is None else f"code {code}"
    if subcode:
        reason += f"/{subcode}"
    if code in THROTTLED or status == 429:
        return Outcome("throttled", reason)
    if code in ACCESS or (code == 100 and subcode == NO_SUCH_PIXEL):
        return Outcome("access", reason)
    if transient or code in TRANSIENT or status >= 500 or code is None:
        # A proxy's page does not tell what became of the request behind it.
        return Outcome("retry", reason, uncertain=code is None)
    return Outcome("invalid", " ".join((reason, *blamed)))


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
