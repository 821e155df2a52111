"""Expressions such as `{path.sku}`: parsed once at start-up, evaluated per request."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import UNSET, Struct

from capi_middleware.errors import ConfigError

_FIELD = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"(path|query|form|json|cookie|header|state)((?:\.[^.{}\s]+)+)\Z")


#: What an expression gives whose value is not in the request. Never sent, always counted.
MISSING: Final = UNSET

#: Reads one value: (root, names) -> value or MISSING.
Lookup = Callable[[str, tuple[str, ...]], Any]


class Expression:
    """One string with `{root.name}` fields. A lone field keeps the type of its value.

    Raises ConfigError for a field that is not `{path|query|form|json|cookie|header|state.name}`.
    """

    __slots__ = ("_parts", "text")

    def __init__(self, text: str) -> None:
        self.text: str = text
        self._parts: list[str | tuple[str, tuple[str, ...]]] = []
        for place, part in enumerate(_FIELD.split(text)):
            name = _NAME.match(part) if place % 2 else None
            if name is not None:
                self._parts.append((name[1], tuple(name[2][1:].split("."))))
            elif place % 2 or "{" in part or "}" in part:
                found = f"{{{part}}}" if place % 2 else "an unmatched brace"
                raise ConfigError(
                    f"bad expression {text!r}: found {found}, expected {{path.x}}, {{query.x}}, "
                    "{form.x}, {json.a.b}, {cookie.x}, {header.x} or {state.a.b}"
                )
            elif part:
                self._parts.append(part)

    @property
    def roots(self) -> set[str]:
        """Which parts of the request it reads, e.g. {"form"}."""
        return {part[0] for part in self._parts if not isinstance(part, str)}

    def names(self, root: str) -> set[str]:
        """The dotted names that it reads of one part, e.g. {"price"} of "form"."""
        parts = (part for part in self._parts if not isinstance(part, str))
        return {".".join(names) for one, names in parts if one == root}

    def evaluate(self, lookup: Lookup, parameters: Mapping[str, Any]) -> Any:
        """The value; MISSING when any field of it is missing or empty.

        `parameters` are those of the path; `lookup` finds what is in the rest of the request.
        """
        values: list[Any] = []
        for part in self._parts:
            value: Any = part
            if type(part) is tuple:
                root, names = part
                in_path = root == "path"
                value = parameters.get(names[0], MISSING) if in_path else lookup(root, names)
            if value is MISSING or value is None or value == "":
                return MISSING
            values.append(value)
        return values[0] if len(values) == 1 else "".join(map(str, values))


class Call(Struct, frozen=True, eq=False):
    """A callable of the host's in a configured value, `setting`; it is asked with the request."""

    rule: Callable[..., Any]
    setting: str


#: What parse() makes of a configured value.
Template = Any
#: What the host answered, for each Call of a template.
Called = Mapping[Call, Any]


def parse(value: Any, setting: str) -> Template:
    """Turn the strings with braces inside a (nested) configured value into Expressions.

    A callable becomes a Call, which knows its `setting`; other values stay as they are. Raises
    ConfigError for a bad expression.
    """
    if isinstance(value, str):
        return Expression(value) if "{" in value or "}" in value else value
    if isinstance(value, Mapping):
        return {str(key): parse(item, f"{key} in {setting}") for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [parse(item, setting) for item in value]
    return Call(value, setting) if callable(value) else value


def leaves(template: Template) -> Iterator[Any]:
    """Every Expression, Call or literal inside a parsed template."""
    if isinstance(template, dict | list):
        for item in template.values() if isinstance(template, dict) else template:
            yield from leaves(item)
    else:
        yield template


def body_fields(template: Template) -> tuple[bool, frozenset[str]]:
    """Whether a parsed template reads the body of a request, and the form fields it names."""
    every = [leaf for leaf in leaves(template) if isinstance(leaf, Expression)]
    fields = frozenset(name for leaf in every for name in leaf.names("form"))
    return bool(fields) or any("json" in leaf.roots for leaf in every), fields


def fill(
    template: Template,
    lookup: Lookup,
    parameters: Mapping[str, Any],
    called: Called,
    missing: list[str],
    at: str = "",
) -> Any:
    """Evaluate a parsed template; the dotted names of what is missing go to `missing`.

    `parameters` are those of the path, see Expression.evaluate. Missing members of mappings and
    lists are left out; a missing lone value is MISSING.
    """
    kind = type(template)
    if kind is Expression:
        value = template.evaluate(lookup, parameters)
        if value is MISSING:
            missing.append(at or template.text)
        return value
    if kind is dict:
        filled = {}
        for key, item in template.items():
            if type(item) is not str:
                where = f"{at}.{key}" if at else key
                item = fill(item, lookup, parameters, called, missing, where)
            if item is not MISSING:
                filled[key] = item
        return filled
    if kind is list:
        items = []
        for item in template:
            if type(item) is not str:
                item = fill(item, lookup, parameters, called, missing, at)
            if item is not MISSING:
                items.append(item)
        return items
    if kind is Call:
        value = called.get(template)
        if value is None or value == "":
            missing.append(at or "callable")
            return MISSING
        return value
    return template
