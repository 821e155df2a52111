"""The clear text behind a digest, which the package itself never keeps."""

from typing import Any

from capi_middleware.meta.match_keys import MATCH_KEYS
from capi_middleware.meta.normalising import text_of


def normalize(
    key: str, value: Any, default_region: str = "US", country: str | None = None
) -> str | None:
    """What is hashed for `key`; None when `value` cannot be normalised."""
    text = text_of(value)
    if not text:
        return None
    rule = MATCH_KEYS[key]
    if rule.lower is not None:
        return rule.lower(text.lower()) or None
    assert rule.placed is not None
    return rule.placed(text, default_region, country) or None
