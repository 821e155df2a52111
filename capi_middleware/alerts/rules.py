"""Alerts: which flags opened, closed or became critical, decided by values alone."""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Literal, NamedTuple
from urllib.parse import urlencode

from msgspec import Struct
from msgspec.structs import replace

from capi_middleware.report.model import EventReport, Flag, ReportWindow, Severity
from capi_middleware.report.window import iso

#: Evaluations in a row with a flag before it opens, and without it before it closes.
OPENS_AFTER, CLOSES_AFTER = 2, 3
#: Seconds from one evaluation to the next.
EVERY = 60.0
#: The most flags that are watched, and messages that wait for the webhook.
MOST = 200
#: So many of them may be about single events: visitors bring names, and the site has its own flags.
MOST_NAMED = 150
#: How long a message waits for a webhook that does not answer, in seconds.
KEPT_SECONDS = 86_400.0
#: How long a process may take with the messages before another one takes them over, in seconds.
LEASE_SECONDS = 120.0
#: Seconds before the webhook is tried again, doubling, and the longest wait.
FIRST_WAIT, LONGEST_WAIT = 30.0, 3600.0

#: Causes of a missing server copy for which a browser's word is all that there is.
_BROWSERS_WORD = frozenset({"unmapped", "unknown"})

Kind = Literal["opened", "raised", "closed"]


class Alert(Struct, frozen=True, kw_only=True):
    """A flag opened, was raised to critical, or closed: what log, callback and webhook are told.

    `kind` says which. `id` stays the same when a message is sent again. `at` is ISO 8601 in UTC.
    `flag` is the flag as it was seen last, `window` what was looked at, `report` the path of the
    report on it.
    """

    id: str
    kind: Kind
    at: str
    flag: Flag
    window: ReportWindow
    report: str


class Change(NamedTuple):
    """What became of a flag."""

    kind: Kind
    flag: Flag


class Watched(Struct, frozen=True):
    """A flag that was seen: evaluations in a row with it, or without it, and what was told.

    `told` is the gravest severity that was told; "" while the flag is not open.
    """

    flag: Flag
    seen: int = 0
    missed: int = 0
    told: Severity | Literal[""] = ""


class Waiting(Struct, frozen=True):
    """A message that the webhook has not taken; it is given up at `until` (Unix seconds)."""

    alert: Alert
    until: float


class State(Struct, frozen=True):
    """What all processes know together. Times are Unix seconds.

    `due`: the next evaluation. `waiting`: messages in order; `free_at`: when they may be sent,
    after a failure or because another process has them; `failures` in a row.
    """

    due: float = 0.0
    watched: Sequence[Watched] = ()
    waiting: Sequence[Waiting] = ()
    free_at: float = 0.0
    failures: int = 0


def decide(state: State, flags: Iterable[Flag], now: float) -> tuple[State, list[Change]]:
    """The state after one evaluation that found `flags`, and what changed.

    A flag is the same as long as code, event_name and pixel_id are. It opens when it was seen in
    two evaluations in a row, and closes after three without it; while it is open, its first
    evaluation as critical is told once more. Flags of severity info count as absent.
    """
    present: dict[tuple[str, str, str], Flag] = {}
    for flag in sorted(flags, key=lambda one: one.severity != "critical"):
        if flag.severity != "info":
            present.setdefault(_key(flag), flag)
    changes: list[Change] = []
    watched: list[Watched] = []
    for known in state.watched:
        seen = present.pop(_key(known.flag), None)
        after, kind = _missed(known) if seen is None else _seen(known, seen)
        if kind is not None:
            changes.append(Change(kind, after.flag))
        if after.told or after.seen:
            watched.append(after)
    watched += [Watched(flag, seen=1) for flag in present.values()]
    # What is open must be closed one day: new flags are what finds no room.
    watched.sort(key=lambda one: not one.told)
    named = [one for one in watched if one.flag.event_name][:MOST_NAMED]
    watched = [one for one in watched if not one.flag.event_name] + named
    return replace(state, watched=watched[:MOST]), changes


def told_of(
    flags: Iterable[Flag], events: Iterable[EventReport], names: frozenset[str]
) -> list[Flag]:
    """The `flags` that are worth an alert: what only visitors' browsers name is none.

    `names` are those that the site has written down, and Meta's; of the other `events` those are
    its own that have a server copy.
    """
    own = {
        one.event_name
        for one in events
        if one.server + one.unpaired + one.pending
        or not one.missing_server.keys() <= _BROWSERS_WORD
    }
    return [
        flag
        for flag in flags
        if not flag.event_name
        or flag.event_name in names
        or flag.event_name in own
        or flag.code.startswith("delivery_")
    ]


def _seen(known: Watched, flag: Flag) -> tuple[Watched, Kind | None]:
    seen = known.seen + 1
    if not known.told and seen >= OPENS_AFTER:
        return Watched(flag, seen, told=flag.severity), "opened"
    if known.told == "warning" and flag.severity == "critical":
        return Watched(flag, seen, told="critical"), "raised"
    return Watched(flag, seen, told=known.told), None


def _missed(known: Watched) -> tuple[Watched, Kind | None]:
    missed = known.missed + 1
    if known.told and missed >= CLOSES_AFTER:
        return Watched(known.flag), "closed"
    return Watched(known.flag, missed=missed, told=known.told), None


def _key(flag: Flag) -> tuple[str, str, str]:
    return flag.code, flag.event_name, flag.pixel_id


def alert_of(change: Change, now: float, start: float, end: float, prefix: str) -> Alert:
    """What is told of a change at `now` in the window [start, end); `prefix` as in Config."""
    flag, window = change.flag, ReportWindow(iso(start), iso(end))
    query = {"from": window.start, "to": window.end}
    query |= {"event": flag.event_name} if flag.event_name else {}
    query |= {"pixel": flag.pixel_id} if flag.pixel_id else {}
    mark = "\0".join((change.kind, *_key(flag), repr(now)))
    return Alert(
        id=sha256(mark.encode("utf-8", "replace")).hexdigest()[:32],
        kind=change.kind,
        at=iso(now),
        flag=flag,
        window=window,
        report=f"{prefix}/parity?{urlencode(query)}",
    )


# -- turns: only one process evaluates, only one sends ---------------------------------------------


def evaluating(state: State, now: float) -> State | None:
    """The state in which this process has the evaluation; None when it is not due."""
    if _is_ahead(state.due, now, EVERY):
        return None
    return replace(state, due=now + EVERY)


def sending(state: State, now: float) -> State | None:
    """The state in which this process has the messages; None when it may not send any."""
    if not state.waiting or _is_ahead(state.free_at, now, LONGEST_WAIT):
        return None
    return replace(state, free_at=now + LEASE_SECONDS)


def _is_ahead(moment: float, now: float, longest: float) -> bool:
    # Further ahead than it can have been set: the clock went back.
    return now < moment <= now + longest


def queued(state: State, alerts: Sequence[Alert], now: float) -> tuple[State, int]:
    """The state with `alerts` behind the messages that wait, and how many had to be given up."""
    kept = [one for one in state.waiting if one.until > now]
    kept += [Waiting(alert, now + KEPT_SECONDS) for alert in alerts]
    lost = len(state.waiting) + len(alerts) - len(kept) + len(kept[:-MOST])
    return replace(state, waiting=kept[-MOST:]), lost


def sent(state: State, alert_id: str) -> State:
    """The state after the webhook took a message."""
    left = [one for one in state.waiting if one.alert.id != alert_id]
    return replace(state, waiting=left, failures=0)


def failed(state: State, now: float) -> State:
    """The state after the webhook did not take a message: all wait, so that the order stays."""
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(state.failures, 20))
    return replace(state, free_at=now + wait, failures=state.failures + 1)


def released(state: State) -> State:
    """The state after a process that had the messages is done with them."""
    return replace(state, free_at=0.0)
