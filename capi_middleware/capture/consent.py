"""Consent: what a visitor allows, by the site's rule and Global Privacy Control; who is none."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from capi_middleware.capture.banners import ADDITIONAL, READY_RULES, has_provider, has_vendor
from capi_middleware.capture.client import Proxies
from capi_middleware.config.expressions import MISSING, Call, Lookup, fill, parse
from capi_middleware.meta.normalising import Address

_NO = frozenset({"", "0", "false", "no"})


def _jar(lookup: Lookup) -> dict[str, list[str]]:
    """All that a browser sends, by name: it may have one cookie for each domain and path."""
    header, jar = lookup("header", ("cookie",)), dict[str, list[str]]()
    for one in str(header).split(";") if header is not MISSING else ():
        name, _, value = one.strip().partition("=")
        jar.setdefault(name, []).append(value.strip('"'))
    return jar


_COOKIE = re.compile(r"\{cookie\.([^}]+)\}")
#: Data Processing Options for US Users: the codes of Meta's page. 0 lets Meta locate the visitor.
_LDU_STATES = {
    "CA": 1000, "CO": 1001, "CT": 1002, "FL": 1003, "OR": 1004, "TX": 1005, "MT": 1006,
    "DE": 1007, "NE": 1008, "NH": 1009, "NJ": 1010, "MN": 1011, "MD": 1012, "RI": 1013,
}  # fmt: skip
_LDU_COUNTRIES = {"US": 1}


#: The strictest first; and how many cookies of one name are looked at.
_STRICT, _MOST_ALIKE = ("denied", "limited", "granted", "unanswered"), 8


#: What a page's script says that its visitor answered.
Said = Literal["granted", "denied", "limited"]
#: The cookie in which we keep that, for half a year in seconds; a banner's own goes before it.
COOKIE, COOKIE_SECONDS = "capi_consent", 15_552_000


class Permission(NamedTuple):
    """The answer. `country` and `state` are Meta's codes for limited data use, 0 for "locate".

    `waits`: it is denied because nobody has answered yet.
    """

    consent: Said
    country: int = 0
    state: int = 0
    waits: bool = False


GRANTED, DENIED = Permission("granted"), Permission("denied")
WAITS = Permission("denied", waits=True)
UNANSWERED = "unanswered"


class ConsentRule:
    """The `consent` setting, see Config. `ask` is its callable, None where read() can answer."""

    def __init__(
        self, rule: Callable[..., Any] | Mapping[str, Any] | str | None, *, gpc: bool
    ) -> None:
        self.ask: Call | None = Call(rule, "consent") if callable(rule) else None
        if isinstance(rule, str):
            rule = {"rule": rule}
        self._declared: Mapping[str, Any] = rule if isinstance(rule, Mapping) else {}
        #: Without a rule all is granted.
        self.is_open: bool = rule is None
        self._rule: str = self._declared.get("rule", "")
        #: What the report calls it.
        self.name: str = self._rule or ("own" if self._declared else "")
        if self.ask is not None:
            self.name = "callable"
        self._templates = {key: parse(value, "consent") for key, value in self._declared.items()}
        #: Whether `Sec-GPC: 1` is a denial.
        self.gpc: bool = gpc

    @property
    def cookies(self) -> list[str]:
        """The names of the cookies that a rule without a callable reads."""
        declared = self._declared
        if not self._rule:
            return [*_COOKIE.findall(str(declared.get("value", ""))), COOKIE]
        rules = READY_RULES.values() if self._rule == "google" else [READY_RULES[self._rule]]
        names = [name for one in rules for name in (one.cookie, one.answered) if name]
        names = [declared["cookie"]] if "cookie" in declared else names
        by_provider = isinstance(declared.get("vendor"), str)
        return [*names, *([ADDITIONAL] if by_provider else []), COOKIE]

    def heard(self) -> tuple[dict[str, Sequence[Any]], Any]:
        """What the page's script listens to: what each banner must allow, by name; and a vendor.

        That is the banner of a ready rule, or whatever banner there is.
        """
        ready, declared = READY_RULES.get(self._rule), self._declared
        if ready is None or self._rule == "google":
            return {name: rule.requires for name, rule in READY_RULES.items()}, None
        return {self._rule: declared.get("requires", ready.requires)}, declared.get("vendor")

    def read(self, lookup: Lookup) -> Any:
        """The answer of a rule without a callable."""
        declared = self._declared
        if not declared:
            return True
        jar = _jar(lookup)
        if self._rule:
            return self._is_allowed(jar) or (False if self._is_answered(jar) else UNANSWERED)
        most = max(map(len, jar.values()), default=1)
        if most == 1:
            return self._answer(lookup)
        if most > _MOST_ALIKE:
            return "denied"

        def nth(n: int) -> Lookup:
            def look(root: str, names: tuple[str, ...]) -> Any:
                values = jar.get(".".join(names), []) if root == "cookie" else []
                return values[min(n, len(values) - 1)] if values else lookup(root, names)

            return look

        answers = [self._answer(nth(n)) for n in range(most)]
        return min(answers, key=lambda one: _STRICT.index(one[0] if type(one) is tuple else one))

    def _is_allowed(self, jar: Mapping[str, Sequence[str]]) -> bool:
        """What a ready rule says: all cookies of its name have to allow it."""
        declared, ready = self._declared, READY_RULES[self._rule]
        if self._rule == "google" and "cookie" not in declared:
            # Consent mode has no cookie; the banner that sets it has one of its own.
            said = [
                rule.allows(value, rule.requires)
                for rule in READY_RULES.values()
                for value in jar.get(rule.cookie, ())
            ]
            return bool(said) and all(said)
        values = jar.get(declared.get("cookie", ready.cookie), ())
        requires, vendor = declared.get("requires", ready.requires), declared.get("vendor")
        if not values or not all(ready.allows(one, requires) for one in values):
            return False
        if isinstance(vendor, str):
            told = jar.get(ADDITIONAL, ())
            return bool(told) and all(has_provider(one, vendor[3:]) for one in told)
        return vendor is None or all(has_vendor(one, vendor) for one in values)

    def _is_answered(self, jar: Mapping[str, Sequence[str]]) -> bool:
        """Whether the cookie of a ready rule shows an answer."""
        declared, ready = self._declared, READY_RULES[self._rule]
        if "cookie" in declared:
            return declared["cookie"] in jar
        if self._rule == "google":
            return any(rule.is_answered(jar) for rule in READY_RULES.values())
        return ready.is_answered(jar)

    def said(self, answer: Any, lookup: Lookup, said: Said | None) -> Any:
        """The `answer` of the rule; where it has none what the page's script `said`, now or before.

        Who says no on the page means it, whatever the rule knows yet.
        """
        if said == "denied":
            return said
        if answer != UNANSWERED or said is not None:
            return answer if answer != UNANSWERED else said
        kept = _jar(lookup).get(COOKIE, ())
        if not kept or not all(one in _STRICT for one in kept):
            return answer
        return min(kept, key=_STRICT.index)

    def _answer(self, lookup: Lookup) -> Any:
        declared = self._declared
        value, country, state = (
            fill(self._templates.get(key), lookup, {}, {}, [])
            for key in ("value", "country", "state")
        )
        for answer in ("granted", "limited"):
            wanted = declared.get(answer, ())
            if value is not MISSING and value in ([wanted] if isinstance(wanted, str) else wanted):
                return answer if answer == "granted" else (answer, country, state)
        denied = declared.get("denied")
        if denied is None or value in ([denied] if isinstance(denied, str) else denied):
            return "denied"
        return UNANSWERED

    def denies(self, headers: Mapping[str, str]) -> bool:
        """Whether Global Privacy Control denies, whatever the rule says."""
        return self.gpc and headers.get("sec-gpc", "").strip() == "1"

    def decide(self, answer: Any, headers: Mapping[str, str]) -> Permission:
        """What may be done with this visitor's events.

        `answer`: True, False, "granted", "denied", "limited", ("limited", country, state), or
        "unanswered", which is denied and may be answered yet; anything else, None included, is
        denied: a rule that fails must not send. `Sec-GPC: 1`, where the site honours it, is denied
        too: Meta documents no mapping for it.
        """
        if self.denies(headers):
            return DENIED
        given = answer if isinstance(answer, tuple | list) and len(answer) == 3 else (answer, 0, 0)
        answer, country, state = given
        if answer is True or answer == "granted":
            return GRANTED
        if answer == UNANSWERED:
            return WAITS
        if answer != "limited":
            return DENIED
        return Permission("limited", *_codes(country, state))


class InternalRule:
    """The `internal` setting, see Config. `ask` is its callable, None where read() can answer."""

    def __init__(self, rule: Callable[..., Any] | Mapping[str, Any]) -> None:
        self.ask: Call | None = Call(rule, "internal") if callable(rule) else None
        declared: Mapping[str, Any] = rule if isinstance(rule, Mapping) else {}
        self._networks = Proxies.of(declared.get("networks", ())).networks
        self._value = parse(declared.get("value"), "internal")
        self._is = declared.get("is")

    def read(self, lookup: Lookup, address: Callable[[], Address | None]) -> bool:
        """Whether a request is of the site itself, by a rule without a callable."""
        if self._networks:
            found = address()
            if found is not None and any(found in network for network in self._networks):
                return True
        value = fill(self._value, lookup, {}, {}, [])
        if value is MISSING or value is None:
            return False
        if self._is is not None:
            return str(value) in map(str, self._is)
        return str(value).strip().lower() not in _NO


def _codes(country: Any, state: Any) -> tuple[int, int]:
    """Meta's codes from codes or names; a state without its country would be ignored by Meta."""
    country, state = (
        one if type(one) is int else names.get(str(one).strip().upper(), 0)
        for one, names in ((country, _LDU_COUNTRIES), (state, _LDU_STATES))
    )
    if state not in _LDU_STATES.values():
        # A country without a state makes Meta locate the visitor anyway.
        return 0, 0
    return (country or 1, state) if country in (0, 1) else (0, 0)
