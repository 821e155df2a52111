"""The checklist of a new installation: what has worked so far, and what to do next. Pure."""

from collections.abc import Mapping
from importlib.resources import files

import msgspec

from capi_middleware.events import BEACON_OUTCOMES, NO_TAG, SENT, UNSEEN_BROWSER_CAUSES
from capi_middleware.meta.codes import meaning_of
from capi_middleware.report.causes import NOTHING, cause_of
from capi_middleware.report.model import FirstStep, Health
from capi_middleware.report.numbers import totals
from capi_middleware.store.records import Tallies

#: A site with more events than these is none that begins.
FEW = 100
#: A step that is open for longer, in seconds, shows its fix.
_PATIENCE = 60.0


class StepTexts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a step says: `todo` while it is open, `fix` and the exact `line` when that lasts."""

    title: str
    todo: str
    fix: str
    line: str


TEXTS: dict[str, StepTexts] = msgspec.toml.decode(
    files("capi_middleware.report").joinpath("checklist.toml").read_bytes(),
    type=dict[str, StepTexts],
)


def checklist(tallies: Tallies, health: Health | None, *, waited: float | None) -> list[FirstStep]:
    """The steps in their order; none where both copies of an event arrived, or of many events none.

    Args:
        tallies: what the store has of the window.
        health: the state of delivery.
        waited: seconds since the first event; None where there is none yet.
    """
    done = _done(tallies)
    if done["match"] or sum(row.n for row in tallies.rows) > FEW:
        return []
    steps = []
    for word, texts in TEXTS.items():
        # Nobody knows since when a site waits for its first page; the others come after it.
        waits = word == "tag" if waited is None else waited > _PATIENCE
        lasts = waits and not done[word]
        fix, line = _mended(word, tallies, health) if lasts else ("", "")
        steps.append(
            FirstStep(
                step=word, done=done[word], title=texts.title, todo=texts.todo, fix=fix, line=line
            )
        )
    return steps


def _done(tallies: Tallies) -> Mapping[str, bool]:
    heard = {row.browser for row in tallies.rows}
    beacon = not heard.isdisjoint(BEACON_OUTCOMES - {"csp"})
    script = beacon or any(one.kind == "script" for one in tallies.counts)
    return {
        "tag": script or not heard <= {*UNSEEN_BROWSER_CAUSES, "csp"},
        "script": script,
        "beacon": beacon,
        "meta": any(row.server == "delivered" for row in tallies.rows),
        "match": any(row.server == "delivered" and row.browser == SENT for row in tallies.rows),
    }


def _mended(word: str, tallies: Tallies, health: Health | None) -> tuple[str, str]:
    """The fix of a step and its line, by what is known of why it is open."""
    if word == "tag":
        kept_out = totals((one.reason, one.n) for one in tallies.counts if one.kind == "skipped")
        for reason in kept_out:
            if reason in NO_TAG or reason == "csp":
                cause = cause_of("browser", reason)
                return cause.fix, cause.line
        left = totals((one.reason, one.n) for one in tallies.counts if one.kind == "suppressed")
        for reason in left.keys() & {"consent", "bot"}:
            return cause_of("server", reason).fix, ""
    if word == "meta":
        for pixel in health.pixels if health is not None else ():
            if pixel.paused_because is not None:
                return meaning_of(pixel.paused_because)[1], "capi-middleware check --send"
        if any(row.server == "dead" for row in tallies.rows):
            cause = cause_of("server", "rejected")
            return cause.fix, cause.line
    if word == "match":
        outcomes = totals(
            (row.browser, row.n) for row in tallies.rows if row.browser in BEACON_OUTCOMES - {SENT}
        )
        for cause in (cause_of("browser", reason) for reason in outcomes):
            if not cause.fix.startswith(NOTHING):
                return cause.fix, cause.line
    return TEXTS[word].fix, TEXTS[word].line
