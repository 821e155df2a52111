"""The registry: what a flag may look at, which functions look, and what is said then. Pure."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from importlib.resources import files

import msgspec

from capi_middleware.config.pixels import Pixel
from capi_middleware.config.settings import Config
from capi_middleware.events import Count
from capi_middleware.report.causes import NOTHING, Cause
from capi_middleware.report.model import (
    TARGET,
    EventReport,
    Flag,
    Health,
    PixelHealth,
    Place,
    Severity,
    Side,
)
from capi_middleware.store.records import Slice


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All that a flag may look at, put together once for each report.

    `events` are their numbers; `undelivered` all server copies that the Graph API has not
    accepted, by cause, also those that no browser copy belongs to and those that left no row;
    `refusals` Meta's reasons for those that are dead letters now. `counts` are of the whole
    window. `hours` reach back further than it: `upto` (Unix seconds) ends the last whole hour.
    `pages` are the paths that were seen, and how often. `health` is that of delivery now. What
    the config and the site lack shows only in the `whole` report: one of a single event or pixel
    has no other in it. `target` is the share of browser events that the server should cover.
    """

    events: Sequence[EventReport] = ()
    undelivered: Mapping[Place, Mapping[str, int]] = {}
    refusals: Mapping[Place, Mapping[str, int]] = {}
    counts: Sequence[Count] = ()
    hours: Sequence[Slice] = ()
    upto: float = 0.0
    pages: Mapping[str, int] = {}
    health: Health | None = None
    config: Config | None = None
    whole: bool = True
    target: float = TARGET

    def wanting(self, side: Side) -> Iterator[EventReport]:
        """The events of which the site wants this copy: their routes may send the other alone."""
        routes = self.config.routes if self.config is not None else ()
        for event in self.events:
            sends = {one.send for one in routes if one.event_name == event.event_name}
            if not sends or sends & {side, "both"}:
                yield event

    def counted(self, kind: str) -> Mapping[Place, Counter[str]]:
        """How often a kind was counted of each event, by reason."""
        found: defaultdict[Place, Counter[str]] = defaultdict(Counter)
        for one in self.counts:
            if one.kind == kind:
                found[one.event_name, one.pixel_id][one.reason] += one.n
        return found

    @property
    def pixels(self) -> Sequence[PixelHealth]:
        """How delivery gets on, by pixel."""
        return self.health.pixels if self.health is not None else ()

    @property
    def configured(self) -> Sequence[Pixel]:
        """The pixels of the config."""
        return self.config.fixed_pixels if self.config is not None else ()


class Texts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a flag says: templates of str.format, by default a sentence that its check gives.

    `title` and `plain` are for those who run the ads, the others for developers: `line` is the
    exact line to write or run. `cause` is what the flag shares with others, by default its code.
    `words` are what a template says of each kind of thing that the flag may be about.
    """

    title: str
    plain: str
    explanation: str = "{explanation}"
    fix: str = "{fix}"
    line: str = ""
    cause: str = ""
    words: dict[str, dict[str, str]] = {}


#: By the flag's code.
TEXTS: dict[str, Texts] = msgspec.toml.decode(
    files("capi_middleware.report.flags").joinpath("texts.toml").read_bytes(), type=dict[str, Texts]
)


_NO_TEXTS = Texts("Something to look at", "")

#: A flag that wants its code, and with that its texts.
Found = Callable[[str], Flag]
Flags = Iterator[Found]
Check = Callable[[Facts], Flags]

#: One function for each flag, by the flag's code, which is the name of its check.
CHECKS: dict[str, Callable[[Facts], Iterator[Flag]]] = {}


def check(judge: Check) -> Check:
    """Registers `judge`, which yields the flag that has its name where somebody should look."""
    code = judge.__name__
    CHECKS[code] = lambda facts: (found(code) for found in judge(facts))
    return judge


def with_config(judge: Check) -> Check:
    """A check that says nothing where no config is known."""
    return wraps(judge)(lambda facts: judge(facts) if facts.config is not None else iter(()))


def flag(
    severity: Severity,
    place: Place = ("", ""),
    *,
    value: float,
    target: float = 0,
    by: Cause | None = None,
    since: str | None = None,
    **told: object,
) -> Found:
    """What a check yields: `place` has "" where it is about no single event, or pixel.

    What is given fills the texts. Where copies are missing `by` a cause, that one
    has the title, the plain words and the line.
    """

    def found(code: str) -> Flag:
        texts, filling = (
            TEXTS.get(code, _NO_TEXTS),
            {**told, "value": value, "target": target, "cause": by, "since": since},
        )
        fix = texts.fix.format_map(filling)
        return Flag(
            code=code,
            # What nobody has to mend is no warning.
            severity="info" if severity == "warning" and fix.startswith(NOTHING) else severity,
            event_name=place[0],
            pixel_id=place[1],
            value=value,
            target=target,
            explanation=texts.explanation.format_map(filling),
            fix=fix,
            title=by.title if by else texts.title.format_map(filling),
            plain=by.plain if by else texts.plain.format_map(filling),
            line=by.line if by else texts.line.format_map(filling),
            cause=by.word if by else texts.cause or code,
            since=since,
        )

    return found
