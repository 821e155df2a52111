"""EventRoute: which request is which event."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from capi_middleware.config.expressions import Call, Expression, Template, leaves, parse, roots_of
from capi_middleware.errors import ConfigError
from capi_middleware.events import EventName
from capi_middleware.meta.user_data import unknown_keys

#: The converters of Starlette's path templates: pattern, Python value, a value that matches.
CONVERTERS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "str": ("[^/]+", str, "z~"),
    "path": (".*", str, "z~/z~"),
    "int": ("[0-9]+", int, "7"),
    "float": (r"[0-9]+(?:\.[0-9]+)?", float, "7.5"),
    "uuid": (
        "[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}",
        str,
        "0190f5c2-0000-7000-8000-000000000000",
    ),
}
METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)
_PARAMETER = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)(?::([a-zA-Z_]+))?\}")
_STATUS = re.compile(r"[1-5](?:xx|\d\d)\Z")


class PathTemplate:
    """A path template in Starlette's syntax: `{name}`, `{name:int}`, `{name:path}`.

    Raises ConfigError when it is not one.
    """

    __slots__ = ("_converters", "pattern", "sample", "segments", "text")

    def __init__(self, text: str) -> None:
        if not text.startswith("/"):
            raise ConfigError(f"bad path {text!r}: expected a path that starts with '/'")
        if "?" in text or "#" in text:
            raise ConfigError(
                f"bad path {text!r}: expected a path without '?' or '#'; read the query with "
                "an expression such as {query.x}"
            )
        self.text: str = text
        self._converters: dict[str, Callable[[str], Any]] = {}
        self.sample: str = ""
        pattern, end = "", 0
        for found in _PARAMETER.finditer(text):
            name, converter = found[1], found[2] or "str"
            if converter not in CONVERTERS:
                raise ConfigError(
                    f"bad path {text!r}: found converter {converter!r}, expected one of "
                    + ", ".join(CONVERTERS)
                )
            if name in self._converters:
                raise ConfigError(f"bad path {text!r}: found {{{name}}} twice, expected it once")
            regex, convert, sample = CONVERTERS[converter]
            literal = text[end : found.start()]
            pattern += f"{re.escape(literal)}(?P<{name}>{regex})"
            self.sample += literal + sample
            self._converters[name] = convert
            end = found.end()
        tail = text[end:]
        literals = _PARAMETER.sub("", text)
        if "{" in literals or "}" in literals:
            raise ConfigError(
                f"bad path {text!r}: found a brace that is no parameter, expected {{name}} or "
                "{name:int|float|path|str|uuid}"
            )
        self.pattern: re.Pattern[str] = re.compile(pattern + re.escape(tail) + r"\Z")
        self.sample += tail
        #: For the index: literal segments, None for "one segment", ... for "the rest".
        self.segments: list[str | Literal["..."] | None] = []
        for segment in text[1:].split("/"):
            if ":path}" in segment:
                self.segments.append("...")
                break
            self.segments.append(None if "{" in segment else segment)

    @property
    def names(self) -> list[str]:
        """The names of its parameters."""
        return list(self._converters)

    def match(self, path: str) -> dict[str, Any] | None:
        """The converted parameters of `path`, or None."""
        found = self.pattern.match(path)
        if found is None:
            return None
        return {name: convert(found[name]) for name, convert in self._converters.items()}


@dataclass(frozen=True)
class EventRoute:
    """Maps requests to an event.

    Args:
        match: method and path, "POST /cart" or "GET /products/{sku}"; "*" as method means any.
            GET covers HEAD never: a HEAD request shows no page.
        event_name: a standard event of Meta or a custom name (1 to 50 characters).
        status: response statuses that count, comma separated: "2xx,3xx", "200".
        dedupe_key: what makes the event the same one wherever it is seen, e.g. an order number;
            an expression or a callable taking the request. The same dedupe_key and event_name
            give the same event_id.
        custom_data: Meta's custom_data; values may be expressions or callables.
        user_data: fields of UserData; values may be expressions or callables. One callable
            taking the request may return a UserData.
        pixels: ids of the pixels it goes to; all by default.
        send: which copies go out.

    Raises ConfigError when it cannot work.
    """

    match: str
    event_name: EventName
    status: str = field(default="2xx,3xx", kw_only=True)
    dedupe_key: str | Callable[[Any], Any] | None = field(default=None, kw_only=True)
    custom_data: Mapping[str, Any] | None = field(default=None, kw_only=True)
    user_data: Mapping[str, Any] | Callable[[Any], Any] | None = field(default=None, kw_only=True)
    pixels: Sequence[str] | None = field(default=None, kw_only=True)
    send: Literal["both", "server", "browser"] = field(default="both", kw_only=True)

    method: str = field(init=False, repr=False)
    path: PathTemplate = field(init=False, repr=False, compare=False)
    templates: dict[str, Template] = field(init=False, repr=False, compare=False)
    statuses: frozenset[str] = field(init=False, repr=False)
    callables: tuple[Call, ...] = field(init=False, repr=False, compare=False)
    #: The statuses of a response that is the event.
    counted: frozenset[int] = field(init=False, repr=False, compare=False)
    constants: frozenset[str] = field(init=False, repr=False, compare=False)
    reads_body: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        method, _, path = self.match.partition(" ") if isinstance(self.match, str) else ("", "", "")
        if method != "*" and method not in METHODS:
            raise ConfigError(
                f"route {self.match!r}: found method {method!r}, expected 'METHOD /path' with "
                "METHOD one of GET, POST, PUT, PATCH, DELETE or *"
            )
        check_event_name(self.event_name, f"route {self.match!r}")
        statuses = frozenset(part.strip().lower() for part in str(self.status).split(","))
        for status in statuses:
            if not _STATUS.match(status):
                raise ConfigError(
                    f"route {self.match!r}: found status {status!r}, expected e.g. '2xx,3xx'"
                )
        if self.send not in ("both", "server", "browser"):
            raise ConfigError(
                f"route {self.match!r}: found send {self.send!r}, expected 'both', 'server' or "
                "'browser'"
            )
        for name in ("custom_data", "user_data"):
            value = getattr(self, name)
            if (
                value is not None
                and not isinstance(value, Mapping)
                and not (name == "user_data" and callable(value))
            ):
                raise ConfigError(
                    f"route {self.match!r}: found {name} of type {type(value).__name__}, expected "
                    "a mapping of names to values or expressions"
                )
        if isinstance(self.user_data, Mapping) and (unknown := unknown_keys(self.user_data)):
            raise ConfigError(
                f"route {self.match!r}: found the unknown user_data {unknown}, expected keys of "
                "UserData"
            )
        set_ = object.__setattr__
        try:
            template = PathTemplate(path.strip())
            templates = {
                name: parse(getattr(self, name))
                for name in ("dedupe_key", "custom_data", "user_data")
                if getattr(self, name) is not None
            }
        except ConfigError as error:
            raise ConfigError(f"route {self.match!r}: {error}") from None
        for leaf in leaves(list(templates.values())):
            self._check_parameters(leaf, template)
        set_(self, "method", method)
        set_(self, "path", template)
        set_(self, "templates", templates)
        set_(self, "statuses", statuses)
        set_(self, "counted", frozenset(filter(self._is_counted, range(100, 600))))
        every = list(templates.values())
        set_(self, "callables", tuple(leaf for leaf in leaves(every) if isinstance(leaf, Call)))
        constants = (
            name
            for name, template in templates.items()
            if not any(isinstance(leaf, Call | Expression) for leaf in leaves(template))
        )
        set_(self, "constants", frozenset(constants))
        set_(self, "reads_body", bool({"form", "json"} & roots_of(every)))

    def _check_parameters(self, leaf: Any, template: PathTemplate) -> None:
        for name in re.findall(r"\{path\.([^.}]+)", getattr(leaf, "text", "")):
            if name not in template.names:
                raise ConfigError(
                    f"route {self.match!r}: found {{path.{name}}}, expected one of its "
                    f"parameters: {', '.join(template.names) or 'it has none'}"
                )

    def covers(self, other: "EventRoute") -> bool:
        """Whether every request of `other` is taken by this route, so that `other` is dead."""
        return (
            self.event_name == other.event_name
            and self.method in ("*", other.method)
            and all(any(_wider(mine, one) for mine in self.statuses) for one in other.statuses)
            and self.path.match(other.path.sample) is not None
        )

    def _is_counted(self, status: int) -> bool:
        return f"{status // 100}xx" in self.statuses or str(status) in self.statuses


def _wider(mine: str, other: str) -> bool:
    return mine == other or (mine[1:] == "xx" and mine[0] == other[0])


def check_event_name(name: object, where: str) -> None:
    """Raises ConfigError unless `name` can be an event_name: 1 to 50 printable characters."""
    if not isinstance(name, str) or not 1 <= len(name) <= 50 or not name.isprintable():
        raise ConfigError(
            f"{where}: found event_name {name!r}, expected 1 to 50 printable characters such as "
            "'Purchase'"
        )
