"""The rule: what may be done with the events of a visitor."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from capi_middleware.capture.consent.cookies import READY_RULES, ReadyRule
from capi_middleware.config.expressions import MISSING, Call, Lookup, fill, parse

#: Data Processing Options for US Users: the codes of Meta's page. 0 lets Meta locate the visitor.
LDU_STATES = {
    "CA": 1000, "CO": 1001, "CT": 1002, "FL": 1003, "OR": 1004, "TX": 1005, "MT": 1006,
    "DE": 1007, "NE": 1008, "NH": 1009, "NJ": 1010, "MN": 1011, "MD": 1012, "RI": 1013,
}  # fmt: skip
_LDU_COUNTRIES = {"US": 1}


class Permission(NamedTuple):
    """The answer. `country` and `state` are Meta's codes for limited data use, 0 for "locate"."""

    consent: Literal["granted", "denied", "limited"]
    country: int = 0
    state: int = 0


GRANTED, DENIED = Permission("granted"), Permission("denied")


class ConsentRule:
    """The `consent` setting, see Config. `ask` is its callable, None where read() can answer."""

    def __init__(
        self, rule: Callable[..., Any] | Mapping[str, Any] | str | None, *, gpc: bool
    ) -> None:
        self.ask: Call | None = Call(rule) if callable(rule) else None
        if isinstance(rule, str):
            rule = {"rule": rule}
        self._declared: Mapping[str, Any] = rule if isinstance(rule, Mapping) else {}
        #: Without a rule all is granted.
        self.is_open: bool = rule is None
        self._ready: ReadyRule | None = READY_RULES.get(self._declared.get("rule", ""))
        self._value = parse(self._declared.get("value"))
        self._country = parse(self._declared.get("country"))
        self._state = parse(self._declared.get("state"))
        #: Whether `Sec-GPC: 1` is a denial.
        self.gpc: bool = gpc

    def read(self, lookup: Lookup) -> Any:
        """The answer of a rule without a callable."""
        declared = self._declared
        if not declared:
            return True
        if self._ready is not None:
            cookie = lookup("cookie", (declared.get("cookie", self._ready.cookie),))
            if cookie is MISSING:
                return False
            return self._ready.allows(str(cookie), declared.get("requires", self._ready.requires))
        value = fill(self._value, lookup, {}, {}, [])
        for answer in ("granted", "limited"):
            wanted = declared.get(answer, ())
            if value is not MISSING and value in ([wanted] if isinstance(wanted, str) else wanted):
                if answer == "granted":
                    return answer
                country = fill(self._country, lookup, {}, {}, [])
                return answer, country, fill(self._state, lookup, {}, {}, [])
        return "denied"

    def decide(self, answer: Any, headers: Mapping[str, str]) -> Permission:
        """What may be done with this visitor's events.

        `answer`: True, False, "granted", "denied", "limited", or ("limited", country, state);
        anything else, None included, is denied: a rule that fails must not send. `Sec-GPC: 1`,
        where the site honours it, is denied too: Meta documents no mapping for it.
        """
        if self.gpc and headers.get("sec-gpc", "").strip() == "1":
            return DENIED
        country: Any = 0
        state: Any = 0
        if isinstance(answer, tuple | list) and len(answer) == 3:
            answer, country, state = answer
        if answer is True or answer == "granted":
            return GRANTED
        if answer != "limited":
            return DENIED
        return Permission("limited", *_codes(country, state))


def _codes(country: Any, state: Any) -> tuple[int, int]:
    """Meta's codes from codes or names; a state without its country would be ignored by Meta."""
    country, state = (
        one if type(one) is int else names.get(str(one).strip().upper(), 0)
        for one, names in ((country, _LDU_COUNTRIES), (state, LDU_STATES))
    )
    if state not in LDU_STATES.values():
        # A country without a state makes Meta locate the visitor anyway.
        return 0, 0
    return (country or 1, state) if country in (0, 1) else (0, 0)
