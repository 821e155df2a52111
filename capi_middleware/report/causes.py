"""Causes: what each means to the people who run the site, and what they can do about it."""

from importlib.resources import files

import msgspec
from msgspec.structs import replace

from capi_middleware.report.model import Severity, Side


class Cause(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why one copy of an event is missing, in two voices.

    `title` and `plain` are for those who run the ads: no jargon. For the developer `because` ends
    the sentence "they are missing because ...", `fix` is what to do, and `line` the exact line to
    write or run, "" where it depends. `severity` is "info" where the site cannot do anything or
    need not, and the other copy covers the event; `is_blocked` where a tool of the visitor did it.
    `word` is what flags of this cause share, by default the cause's own.
    """

    title: str
    plain: str
    because: str
    fix: str
    line: str = ""
    severity: Severity = "info"
    is_blocked: bool = False
    word: str = ""


#: How a fix begins where there is nothing to do.
NOTHING = "Nothing to fix"
#: One table for why a copy is missing. A new cause stands there and where it is found out.
CAUSES: dict[Side, dict[str, Cause]] = {
    side: {word: replace(cause, word=cause.word or word) for word, cause in causes.items()}
    for side, causes in msgspec.toml.decode(
        files("capi_middleware.report").joinpath("causes.toml").read_bytes(),
        type=dict[Side, dict[str, Cause]],
    ).items()
}


def cause_of(side: Side, word: str) -> Cause:
    """The meaning of a cause; one that nobody knows is "unknown"."""
    return CAUSES[side].get(word, CAUSES[side]["unknown"])


def server_cause(state: str) -> str:
    """The cause that a state of the server copy stands for, which is not "delivered"."""
    return {"leased": "pending", "dead": "rejected"}.get(state, state)
