"""The rules of a configuration: who may be tracked, and what is known of everybody."""

from collections.abc import Callable, Mapping
from typing import Any

from capi_middleware.capture.consent.cookies import READY_RULES
from capi_middleware.config.expressions import parse
from capi_middleware.config.loading import fail, kind_of
from capi_middleware.errors import ConfigError
from capi_middleware.meta.match_keys import MATCH_KEYS
from capi_middleware.meta.user_data import unknown_keys

#: What `user_data` and `consent` may be: a callable taking the request, or expressions.
Rule = Callable[[Any], Any] | Mapping[str, Any] | None
_READY_KEYS = frozenset({"rule", "requires", "cookie"})
_DECLARED_KEYS = frozenset({"value", "granted", "limited", "country", "state"})


def check_rules(user_data: Rule, consent: Rule | str) -> None:
    """Raises ConfigError for a `user_data` or `consent` that cannot work."""
    if isinstance(consent, str):
        consent = {"rule": consent}
    for name, rule in (("user_data", user_data), ("consent", consent)):
        if rule is None or callable(rule):
            continue
        if not isinstance(rule, Mapping):
            fail(name, kind_of(rule), "a callable taking the request or a mapping")
        try:
            parse(rule)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None
        if name == "consent":
            _check_consent(rule)
        elif unknown := unknown_keys(rule):
            fail("user_data", f"the unknown {unknown}", f"some of {[*MATCH_KEYS]}")


def _check_consent(rule: Mapping[str, Any]) -> None:
    known = _READY_KEYS if "rule" in rule else _DECLARED_KEYS
    if unknown := set(rule) - known:
        fail("consent", f"the unknown {sorted(unknown)}", f"some of {sorted(known)}")
    if "rule" not in rule:
        if "value" not in rule:
            fail("consent", sorted(rule), "the key rule; or value, granted and perhaps limited")
        return
    if rule["rule"] not in READY_RULES:
        fail("consent", repr(rule["rule"]), f"one of {list(READY_RULES)}")
    if isinstance(rule.get("requires"), str):
        fail("consent.requires", repr(rule["requires"]), "a list")
