"""Consent: the site's answer, and the browser's Global Privacy Control."""

from collections.abc import Mapping
from typing import Any, Literal

Consent = Literal["granted", "denied", "limited"]


def decide(answer: Any, *, gpc: bool) -> Consent:
    """What may be done with this visitor's events.

    `answer` is what the consent rule said: True, False, "granted", "denied", "limited"; anything
    else, None included, is denied: a rule that fails must not send. `gpc`: the request carries
    `Sec-GPC: 1` and the site honours it; Meta documents no mapping, so it is denied.
    """
    if gpc:
        return "denied"
    if answer is True or answer == "granted":
        return "granted"
    return "limited" if answer == "limited" else "denied"


def by_value(rule: Mapping[str, Any], value: Any) -> Consent:
    """The answer of a declarative rule {"value": …, "granted": [...], "limited": [...]}."""
    for answer in ("granted", "limited"):
        wanted = rule.get(answer, ())
        if value is not None and value in ([wanted] if isinstance(wanted, str) else wanted):
            return "granted" if answer == "granted" else "limited"
    return "denied"
