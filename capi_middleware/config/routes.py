"""Routes: which request is which event, found at a cost that does not grow with their number."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from http import HTTPMethod
from itertools import takewhile
from typing import Any, Literal

from msgspec import Struct

from capi_middleware.config.expressions import (
    Call,
    Expression,
    Template,
    body_fields,
    leaves,
    parse,
)
from capi_middleware.config.loading import fail
from capi_middleware.errors import ConfigError
from capi_middleware.events import EventName
from capi_middleware.meta.event_object import FIELDS, ActionSource, read_fields, standard_name
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
_PARAMETER = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)(?::([a-zA-Z_]+))?\}")
#: A host as browsers send it: in lower case, with its port if that is not the usual one.
HOST = r"([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:]+\])(:[1-9]\d{0,4})?"
_STATUS = re.compile(r"[1-5](?:xx|\d\d)\Z")


class PathTemplate:
    """A path template in Starlette's syntax: `{name}`, `{name:int}`, `{name:path}`.

    Raises ConfigError when it is not one.
    """

    __slots__ = ("_converters", "is_open", "pattern", "sample", "segments", "text")

    def __init__(self, text: str) -> None:
        bad = f"bad path {text!r}"
        if not text.startswith("/"):
            raise ConfigError(f"{bad}: expected a path that starts with '/'")
        if "?" in text or "#" in text:
            raise ConfigError(f"{bad}: expected a path without '?' or '#'; read the query with "
                              "an expression such as {query.x}")  # fmt: skip
        self.text: str = text
        self._converters: dict[str, Callable[[str], Any]] = {}
        *parts, tail = _PARAMETER.split(text)  # of each parameter: what is before, name, converter
        self.sample: str = ""
        pattern = ""
        for literal, name, converter in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            if (converter or "str") not in CONVERTERS:
                fail(bad, f"converter {converter!r}", f"one of {', '.join(CONVERTERS)}")
            if name in self._converters:
                fail(bad, f"{{{name}}} twice", "it once")
            regex, self._converters[name], sample = CONVERTERS[converter or "str"]
            pattern += f"{re.escape(literal)}(?P<{name}>{regex})"
            self.sample += literal + sample
        if re.search("[{}]", "".join([*parts[::3], tail])):
            fail(bad, "a brace that is no parameter", "{name} or {name:int|float|path|str|uuid}")
        self.pattern: re.Pattern[str] = re.compile(pattern + re.escape(tail) + r"\Z")
        self.sample += tail
        segments = text[1:].split("/")
        #: For the index: whether the path goes on for as long as it likes,
        self.is_open: bool = ":path}" in text
        #: and its segments up to there, None for any.
        self.segments: list[str | None] = [
            None if "{" in one else one
            for one in takewhile(lambda one: ":path}" not in one, segments)
        ]

    def match(self, path: str) -> dict[str, Any] | None:
        """The converted parameters of `path`, or None."""
        found = self.pattern.match(path)
        if found is None:
            return None
        parameters: dict[str, Any] = {}
        try:
            for name, convert in self._converters.items():  # a comprehension is one call more
                parameters[name] = convert(found[name])
        except ValueError:  # a number of thousands of digits
            return None
        return parameters


@dataclass(frozen=True)
class EventRoute:
    """Maps requests to an event.

    Args:
        match: method and path, "POST /cart" or "GET /products/{sku}"; "*" as method means any.
            GET covers HEAD never: a HEAD request shows no page. Before the path there may be the
            one host it is meant for, "GET https://www.shop.example/products/{sku}".
        event_name: a standard event of Meta or a custom name (1 to 50 characters).
        status: response statuses that count, comma separated: "2xx,3xx", "200". Without it those
            are 2xx and 3xx, but for a page (2xx with HTML) that answers a form: POST, PUT, PATCH or
            DELETE from a browser. It may be the form again, with errors.
        dedupe_key: what makes the event the same one wherever it is seen, e.g. an order number;
            an expression or a callable taking the request. The same dedupe_key and event_name
            give the same event_id.
        custom_data: Meta's custom_data; values may be expressions or callables.
        user_data: fields of UserData; values may be expressions or callables. One callable
            taking the request may return a UserData.
        pixels: ids of the pixels it goes to; all by default.
        send: which copies go out.
        action_source: where it happened, one of Meta's nine words; "website" by default. Others
            have no browser copy.
        event_time: when it happened, Unix seconds or an aware datetime; mostly an expression.
        event_source_url, referrer_url, opt_out, customer_segmentation, original_event_data,
            attribution_data, messaging_channel: fields of Meta's event object; values may be
            expressions or callables.

    Raises ConfigError when it cannot work.
    """

    match: str
    event_name: EventName
    _: KW_ONLY
    status: str | None = None
    dedupe_key: str | Callable[[Any], Any] | None = None
    custom_data: Mapping[str, Any] | None = None
    user_data: Mapping[str, Any] | Callable[[Any], Any] | None = None
    pixels: Sequence[str] | None = None
    send: Literal["both", "server", "browser"] = "both"
    action_source: ActionSource | None = None
    event_time: Any = None
    event_source_url: Any = None
    referrer_url: Any = None
    opt_out: Any = None
    customer_segmentation: Any = None
    original_event_data: Any = None
    attribution_data: Any = None
    messaging_channel: Any = None

    method: str = field(init=False, repr=False)
    #: The host whose requests it takes, as Host says it; "" for every one.
    host: str = field(init=False, repr=False, compare=False)
    path: PathTemplate = field(init=False, repr=False, compare=False)
    templates: dict[str, Template] = field(init=False, repr=False, compare=False)
    callables: tuple[Call, ...] = field(init=False, repr=False, compare=False)
    #: The statuses of a response that is the event.
    counted: frozenset[int] = field(init=False, repr=False, compare=False)
    constants: frozenset[str] = field(init=False, repr=False, compare=False)
    reads_body: bool = field(init=False, repr=False, compare=False)
    form_fields: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        where = f"route {self.match!r}"
        method, _, path = self.match.partition(" ") if isinstance(self.match, str) else ("", "", "")
        if method != "*" and method not in list(HTTPMethod):
            fail(where, f"method {method!r}", "'METHOD /path' with METHOD one of GET, POST, PUT, "
                 "PATCH, DELETE or *")  # fmt: skip
        host, path = _host_of(path.strip(), where)
        check_event_name(self.event_name, where)
        given = "2xx,3xx" if self.status is None else str(self.status)
        statuses = frozenset(part.strip().lower() for part in given.split(","))
        for status in statuses:
            if not _STATUS.match(status):
                fail(where, f"status {status!r}", "e.g. '2xx,3xx'")
        if self.send not in ("both", "server", "browser"):
            fail(where, f"send {self.send!r}", "'both', 'server' or 'browser'")
        for name in ("custom_data", "user_data"):
            value = getattr(self, name)
            may_be_asked = name == "user_data" and callable(value)
            if not (value is None or isinstance(value, Mapping) or may_be_asked):
                fail(where, f"{name} of type {type(value).__name__}",
                     "a mapping of names to values or expressions")  # fmt: skip
        if isinstance(self.user_data, Mapping) and (unknown := unknown_keys(self.user_data)):
            fail(where, f"the unknown user_data {unknown}", "keys of UserData")
        try:
            path_template = PathTemplate(path)
            templates = {
                name: parse(getattr(self, name), f"{name} of {self.match}")
                for name in ("dedupe_key", "custom_data", "user_data")
                if getattr(self, name) is not None
            }
            said = {
                name: parse(value, f"{name} of {self.match}")
                for name in ("event_time", *FIELDS)
                if (value := getattr(self, name, None)) is not None
            }
            if said:
                templates["said"] = said
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        known_now = {
            name: getattr(self, name)
            for name in said
            if name in FIELDS and _is_constant(said[name])
        }
        for name, why in read_fields(known_now)[1].items():
            raise ConfigError(f"{where}: {name}: {why}")
        send = self.send
        if self.action_source not in (None, "website") and send == "both":
            send = "server"
        every = list(leaves(templates))
        known = path_template.pattern.groupindex
        for leaf in every:
            for name in re.findall(r"\{path\.([^.}]+)", getattr(leaf, "text", "")):
                if name not in known:
                    fail(where, f"{{path.{name}}}",
                         f"one of its parameters: {', '.join(known) or 'it has none'}")  # fmt: skip
        reads_body, form_fields = body_fields(templates)
        vars(self).update(  # frozen for everybody else
            method=method,
            host=host,
            send=send,
            path=path_template,
            templates=templates,
            callables=tuple(leaf for leaf in every if isinstance(leaf, Call)),
            counted=frozenset(
                one for one in range(100, 600) if {str(one), f"{one // 100}xx"} & statuses
            ),
            constants=frozenset(
                name for name, template in templates.items() if _is_constant(template)
            ),
            reads_body=reads_body,
            form_fields=form_fields,
        )

    def covers(self, other: "EventRoute") -> bool:
        """Whether every request of `other` is taken by this route, so that `other` is dead."""
        return (
            self.event_name == other.event_name
            and self.method in ("*", other.method)
            and self.host in ("", other.host)
            and other.counted <= self.counted
            and self.path.match(other.path.sample) is not None
        )


def _host_of(path: str, where: str) -> tuple[str, str]:
    """The host that a route's path begins with, "" for none, and the rest."""
    scheme, separator, rest = path.partition("://")
    if not separator or "/" in scheme:
        return "", path
    netloc, slash, below = rest.partition("/")
    host = netloc.lower().removesuffix({"http": ":80", "https": ":443"}.get(scheme, " "))
    if scheme not in ("http", "https") or not slash or not re.fullmatch(HOST, host):
        fail(
            where, f"the address {path!r}", "one such as 'https://www.shop.example/products/{sku}'"
        )
    return host, f"/{below}"


def _is_constant(template: Template) -> bool:
    return not any(isinstance(leaf, Call | Expression) for leaf in leaves(template))


def event_name_of(name: object, where: str) -> str:
    """`name` without blanks around it. Raises ConfigError unless it can be an event_name."""
    plain = name.strip() if isinstance(name, str) else ""
    if not 1 <= len(plain) <= 50 or not plain.isprintable():
        fail(where, f"event_name {name!r}", "1 to 50 printable characters such as 'Purchase'")
    return plain


def check_event_name(name: object, where: str) -> None:
    """Raises ConfigError for an event_name that cannot be one, or is almost a standard event's."""
    plain = event_name_of(name, where)
    meant = standard_name(plain) or plain
    if meant != name:
        own = f"{meant!r}, or for an event of your own a name that is less like it"
        fail(where, f"event_name {name!r}", own)


class Match(Struct, frozen=True, eq=False):
    """A route that takes a request, with the parameters of its path."""

    route: EventRoute
    parameters: dict[str, Any]


class _Node:
    """Where the segments so far lead: to what follows each next one (None: any), and to routes."""

    __slots__ = ("children", "here", "rest")

    def __init__(self) -> None:
        self.children: dict[str | None, _Node] = {}
        self.here: list[tuple[int, EventRoute]] = []
        self.rest: list[tuple[int, EventRoute]] = []


class RouteIndex:
    """A tree of path segments: one dict look-up per segment, whatever the number of routes.

    `reserved` is the path of the endpoints, which are no route.
    """

    def __init__(self, routes: Sequence[EventRoute], reserved: str = "") -> None:
        self._root = _Node()
        #: Whether what matches depends on the host, see of_host().
        self.has_hosts: bool = any(route.host for route in routes)
        #: The first segments of the paths of each method; None: any of them may be wanted.
        self._first: dict[str, frozenset[str | None] | None] = {}
        for method in {"*", *(route.method for route in routes)}:
            paths = [route.path for route in routes if route.method in (method, "*")]
            first = {path.segments[0] if path.segments else None for path in paths}
            own = reserved[1:].partition("/")[0]
            self._first[method] = None if None in first else frozenset({own, *first})
        self._first["HEAD"] = None
        self._first_of_any = self._first["*"]
        for place, route in enumerate(routes):
            node = self._root
            for segment in route.path.segments:
                node = node.children.setdefault(segment, _Node())
            (node.rest if route.path.is_open else node.here).append((place, route))

    def may_want(self, method: str, path: str) -> bool:
        """False for a request that no route takes and that is not below `reserved`.

        Most requests end at this one look-up. HEAD is no page, but speaks of one: always True.
        """
        first = self._first.get(method, self._first_of_any)
        return first is None or path[1:].partition("/")[0] in first

    def of_host(self, matches: list[Match], host: str) -> list[Match]:
        """Those of the `matches` whose route takes requests of this host."""
        return [one for one in matches if one.route.host in ("", host)]

    def match(self, method: str, path: str) -> list[Match]:
        """The routes of `method` and `path` (below any mount), in order."""
        nodes = [self._root]
        if not self._root.children and not self._root.rest:
            return []
        found: list[tuple[int, EventRoute]] = []
        for segment in path[1:].split("/"):
            following: list[_Node] = []
            for node in nodes:
                if node.rest:
                    found += node.rest
                if segment in node.children:
                    following.append(node.children[segment])
                if None in node.children:
                    following.append(node.children[None])
            nodes = following
            if not nodes:
                break
        for node in nodes:
            found += node.here
        found.sort()
        matches = []
        for _, route in found:
            # What a browser asks (OPTIONS) before another origin's request is nobody's deed.
            if route.method == method or (route.method == "*" and method != "OPTIONS"):
                parameters = route.path.match(path)
                if parameters is not None:
                    matches.append(Match(route, parameters))
        return matches
