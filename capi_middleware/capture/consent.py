"""Consent: the site's answer, and the browser's Global Privacy Control."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from capi_middleware.expressions import MISSING, Lookup, fill, parse

Consent = Literal["granted", "denied", "limited"]


class ConsentRule:
    """The `consent` setting: None, a callable, or {"value": …, "granted": [...], "limited": [...]}.

    `ask` is the callable, None for a rule that read() can answer.
    """

    def __init__(self, rule: Callable[..., Any] | Mapping[str, Any] | None, *, gpc: bool) -> None:
        self.ask = rule if callable(rule) else None
        self._declared = rule if isinstance(rule, Mapping) else None
        self._value = parse(rule["value"]) if isinstance(rule, Mapping) else None
        self._gpc = gpc

    def read(self, lookup: Lookup) -> Any:
        """The answer of a rule without a callable."""
        if self._declared is None:
            return True
        value = fill(self._value, lookup, {}, [])
        for answer in ("granted", "limited"):
            wanted = self._declared.get(answer, ())
            if value is not MISSING and value in ([wanted] if isinstance(wanted, str) else wanted):
                return answer
        return "denied"

    def decide(self, answer: Any, headers: Mapping[str, str]) -> Consent:
        """What may be done with this visitor's events.

        `answer`: True, False, "granted", "denied" or "limited"; anything else, None included, is
        denied: a rule that fails must not send. `Sec-GPC: 1`, where the site honours it, is
        denied too: Meta documents no mapping for it.
        """
        if self._gpc and headers.get("sec-gpc", "").strip() == "1":
            return "denied"
        if answer is True or answer == "granted":
            return "granted"
        return "limited" if answer == "limited" else "denied"
