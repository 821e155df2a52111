"""Cards: the flags by cause, each cause once with all events and pixels that have it. Pure."""

from collections.abc import Iterable

from capi_middleware.report.model import Card, Flag, Named


def cards_of(flags: Iterable[Flag]) -> list[Card]:
    """One card for each cause, in the order of `flags`, which is the gravest first."""
    causes: dict[str, list[Flag]] = {}
    for one in flags:
        causes.setdefault(one.cause, []).append(one)
    return [_card(cause, found) for cause, found in causes.items()]


def _card(cause: str, flags: list[Flag]) -> Card:
    gravest = flags[0]
    over = [one.resolved for one in flags if one.resolved is not None]
    places = dict.fromkeys((one.event_name, one.pixel_id) for one in flags)
    return Card(
        cause=cause,
        severity=gravest.severity,
        title=gravest.title,
        plain=gravest.plain,
        codes=_once(one.code for one in flags),
        about=[Named(*place) for place in places if any(place)],
        explanations=_once(_told(one) for one in flags),
        fixes=_once(one.fix for one in flags),
        lines=_once(one.line for one in flags),
        since=min((one.since for one in flags if one.since), default=None),
        last_seen=max((one.last_seen for one in flags if one.last_seen), default=None),
        resolved=max(over) if len(over) == len(flags) else None,
    )


def _told(flag: Flag) -> str:
    """The explanation, with the event that it is about."""
    of = f"{flag.event_name}: " if flag.event_name else ""
    return f"{of}{flag.explanation}"


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))
