"""Configuration from a file: values of the environment, tables, and errors that name the key."""

import os
import re
from dataclasses import fields
from datetime import datetime
from difflib import get_close_matches
from typing import Any, NoReturn

from capi_middleware.errors import ConfigError


def fail(key: str, found: object, expected: str) -> NoReturn:
    """Raises ConfigError: one sentence about one key."""
    raise ConfigError(f"{key}: found {found}, expected {expected}")


def kind_of(value: object) -> str:
    """What a value is without showing it: it may be a secret."""
    if value is None or value == "":
        return "nothing"
    return "an empty list" if value == [] or value == () else f"a {type(value).__name__}"


def from_environment(value: Any, key: str) -> Any:
    """`value` with every "env:NAME" inside replaced. Raises ConfigError for an unset NAME."""
    if isinstance(value, dict):
        return {
            name: from_environment(item, f"{key}.{name}" if key else name)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [from_environment(item, f"{key}[{place}]") for place, item in enumerate(value)]
    if isinstance(value, str) and value.startswith("env:"):
        name = value[4:]
        if name not in os.environ:
            fail(key, f"'env:{name}' but no environment variable {name}", "it to be set")
        return os.environ[name]
    return value


def read_no_environment(key: str, value: object) -> None:
    """Raises ConfigError for an "env:NAME" that would be the value itself, in Python."""
    if isinstance(value, str) and value.startswith("env:"):
        expected = f"os.environ[{value[4:]!r}] in Python; only files and mappings read it so"
        fail(key, f"the text {value!r}", expected)


def moment(key: str, given: object) -> datetime | None:
    """A setting that ends something: an aware datetime, or the same as ISO 8601 text.

    Raises ConfigError for one that names no moment.
    """
    found = given
    if isinstance(given, str):
        try:
            found = datetime.fromisoformat(given)
        except ValueError:
            found = None
    if given is not None and (not isinstance(found, datetime) or found.tzinfo is None):
        expected = "a moment with its time zone, such as 2030-01-31T18:00:00Z"
        fail(key, repr(given), expected)
    return found if isinstance(found, datetime) else None


def tables(kind: type[Any], given: Any, key: str) -> list[Any]:
    """One `kind` for each [[key]] table. Raises ConfigError naming the table and its key."""
    if not isinstance(given, list | tuple):
        fail(key, kind_of(given), f"[[{key}]] tables")
    return [
        table if isinstance(table, kind) else make(kind, table, f"{key}[{place}]")
        for place, table in enumerate(given)
    ]


def make(kind: type[Any], table: Any, key: str) -> Any:
    """A `kind` from the keys of `table`. Raises ConfigError for unknown and missing keys."""
    if not isinstance(table, dict):
        fail(key, kind_of(table), "a table")
    known = {one.name: one for one in fields(kind) if one.init and one.name != "_"}
    for name in table:
        if name not in known:
            at = f"{key}.{name}" if key else name
            close = get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            fail(at, "an unknown key", f"one of {', '.join(sorted(known))}{hint}")
    try:
        return kind(**table)
    except TypeError as error:
        lacking = ", ".join(re.findall(r"'(\w+)'", str(error)) if "missing" in str(error) else ())
        found = f"no {lacking}, expected it" if lacking else f"a value of a wrong type ({error})"
        raise ConfigError(f"{key or 'the file'}: found {found}") from None
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}" if key else str(error)) from None
