"""What a check found."""

from typing import Literal

from msgspec import Struct

Level = Literal["ok", "warning", "error"]


class Finding(Struct, frozen=True):
    """One thing that was looked at: what was found, and the fix where something is wrong."""

    part: str
    level: Level
    text: str
    fix: str = ""


def ok(part: str, text: str) -> Finding:
    """Something that is as it should be."""
    return Finding(part, "ok", text)


def warning(part: str, text: str, fix: str) -> Finding:
    """Something that may not be what was meant."""
    return Finding(part, "warning", text, fix)


def error(part: str, text: str, fix: str) -> Finding:
    """Something that cannot work."""
    return Finding(part, "error", text, fix)
