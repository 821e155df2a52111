"""Blame: the fields that Meta names when it refuses an event, never their values."""

import json
import re
from collections.abc import Iterator

#: What a field may look like: anything else could be a value or a text.
_FIELD = re.compile(r"[a-z_][a-z0-9_.\[\]]{0,59}")
#: The place of the event in the request says nothing: it was alone there.
_PLACE = re.compile(r"data(\[\d+\]|\.\d+)?(\.|(?=\[)|\Z)")
_IN_BRACKETS = re.compile(r"\[([a-z_]+)\]")
#: How many fields are named.
MOST_FIELDS = 3


def blamed_fields(error_data: object) -> list[str]:
    """The fields in `blame_field_specs` of an error's `error_data`, without repetitions.

    `error_data` is an object or a JSON string ("Handling Errors"); the specs are lists of parts or
    whole names: [["custom_data", "currency"]], [["data[0][custom_data][currency]"]] and
    ["custom_data.currency"] all give "custom_data.currency". What does not look like the name of a
    field, 1 to 60 characters of [a-z0-9_.] with brackets, is left out.
    """
    if isinstance(error_data, str):
        try:
            error_data = json.loads(error_data)
        except (ValueError, RecursionError):
            return []
    specs = error_data.get("blame_field_specs") if isinstance(error_data, dict) else None
    found = dict.fromkeys(_fields(specs if isinstance(specs, list) else []))
    return list(found)[:MOST_FIELDS]


def _fields(specs: list[object]) -> Iterator[str]:
    for spec in specs:
        parts = spec if isinstance(spec, list) else [spec]
        if not all(isinstance(part, str | int) for part in parts):
            continue
        name = _IN_BRACKETS.sub(r".\1", ".".join(map(str, parts)))
        name = _PLACE.sub("", name, count=1) if _PLACE.match(name) else name
        name = name.lstrip(".")
        if _FIELD.fullmatch(name):
            yield name
