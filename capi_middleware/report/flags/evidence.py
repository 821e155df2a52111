"""Evidence: how sure a share is, and how numbers are written in sentences."""

from collections.abc import Iterable
from math import sqrt

from capi_middleware.report.model import EventReport, Flag, Severity

#: Fewer events than these prove nothing.
MIN_EVENTS = 5
_Z = 1.96  # both sides of a 95 % interval
_SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")


def wilson_upper(part: int, whole: int) -> float:
    """The upper end of the 95 % interval of the share `part` ÷ `whole`, for a share below 1.

    Wilson's score interval with continuity correction (Newcombe 1998, method 4). Without the
    correction two events of which none is covered would pass for proof of a share under 0.66.
    """
    p = part / whole
    root = sqrt(_Z**2 + 2 - 1 / whole + 4 * p * (whole * (1 - p) - 1))
    return (2 * part + _Z**2 + 1 + _Z * root) / (2 * (whole + _Z**2))


def surely_below(part: int, whole: int, target: float) -> bool:
    """Whether the share `part` ÷ `whole` is less than `target` and not by chance."""
    if whole < MIN_EVENTS or part >= whole:
        return False
    return wilson_upper(part, whole) < target


def surely_above(part: int, whole: int, limit: float) -> bool:
    """Whether the share `part` ÷ `whole` is more than `limit` and not by chance."""
    return surely_below(whole - part, whole, 1 - limit)


def percent(share: float) -> str:
    """`share` (0 to 1, or a ratio) in percent with one decimal."""
    return f"{share * 100:.1f} %"


def goal(target: float) -> str:
    """`target` (0 to 1) in percent, with the decimals it was set with."""
    return f"{target * 100:g} %"


def flag(
    code: str,
    severity: Severity,
    *,
    event: EventReport | None = None,
    event_name: str = "",
    pixel_id: str = "",
    value: float,
    target: float,
    explanation: str,
    fix: str,
) -> Flag:
    """A Flag about `event`; one that is about no single event or pixel has "" there."""
    if event is not None:
        event_name, pixel_id = event.event_name, event.pixel_id
    return Flag(
        code=code,
        severity=severity,
        event_name=event_name,
        pixel_id=pixel_id,
        value=value,
        target=target,
        explanation=explanation,
        fix=fix,
    )


def gravest_first(flags: Iterable[Flag]) -> list[Flag]:
    """`flags` by severity; the order within one severity stays."""
    return sorted(flags, key=lambda one: _SEVERITIES.index(one.severity))
