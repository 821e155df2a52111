"""The clear text behind a digest, which the package itself never keeps."""

from typing import Any

from capi_middleware.meta.normalising import PLACED_RULES, RULES, text_of


def normalize(
    key: str, value: Any, default_region: str = "US", country: str | None = None
) -> str | None:
    """What is hashed for `key`; None when `value` cannot be normalised."""
    text = text_of(value)
    if not text:
        return None
    if key in RULES:
        return RULES[key](text.lower()) or None
    return PLACED_RULES[key](text, default_region, country) or None
