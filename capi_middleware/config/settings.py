"""Config: everything the owner of a site decides, checked once at start-up."""

import math
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from datetime import datetime
from inspect import iscoroutinefunction
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec

from capi_middleware.capture.banners import READY_RULES, is_vendor
from capi_middleware.capture.identity import cookie_domain
from capi_middleware.config.expressions import parse
from capi_middleware.config.loading import (
    fail,
    from_environment,
    kind_of,
    make,
    moment,
    read_no_environment,
    tables,
)
from capi_middleware.config.pixels import Pixel, Tenant
from capi_middleware.config.routes import HOST, EventRoute, check_event_name
from capi_middleware.errors import ConfigError
from capi_middleware.events import Event
from capi_middleware.meta.event_object import ACTION_SOURCES, ActionSource
from capi_middleware.meta.match_keys import MATCH_KEYS
from capi_middleware.meta.user_data import unknown_keys
from capi_middleware.meta.versions import NEWEST
from capi_middleware.private import frameless
from capi_middleware.signing import token_mark
from capi_middleware.store.opening import check_urls

#: What `user_data` and `consent` may be: a callable taking the request, or expressions.
Rule = Callable[[Any], Any] | Mapping[str, Any] | None
#: What `exclude` is where nobody says it.
USUAL_EXCLUDE = (
    "/admin/", "/docs", "/redoc", "/redocs", "/swagger", "/apidocs", "/openapi.json",
    "/__debug__/", "/_debug_toolbar/",
)  # fmt: skip
_SECRET_LENGTH = 32
_TOKEN_LENGTH = 16
_PLACEHOLDER = re.compile(r"change.?me|replace.?me|placeholder|your.?(secret|key)|insecure", re.I)
_HOST = re.compile(r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:]+\]")
_ORIGIN = re.compile(f"https?://{HOST}")
_STORES = re.compile(r"(sqlite:///.+|postgres(ql)?://.+|memory:)\Z", re.DOTALL)
_STORE_HINT = (
    "sqlite:///capi.db, sqlite:////absolute/path.db, postgresql://… (or a list of these) or memory:"
)
_MAPPING = 'a mapping with the keys of Config: in Django settings.CAPI, in Flask app.config["CAPI"]'
_MAKE_ONE = "make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
_SECRET_HINT = f"a secret of at least {_SECRET_LENGTH} characters; {_MAKE_ONE}"
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True, repr=False)
class Config:
    """All settings. Raises ConfigError naming key, found and expected when one cannot work.

    Args:
        secret_key: at least 32 characters drawn by lot; a list: the first signs, all verify.
        pixels: where events go; for a platform whose customers bring pixels of their own a
            callable that takes the request and returns the key of its tenant (or None).
        routes: which requests are events.
        store: "sqlite:///capi.db", "sqlite:////absolute/path.db", "postgresql://…" or "memory:"; a
            list of postgresql:// URLs, always the same, divides the events among these databases.
        prefix: where our endpoints live; neutral, so that ad blockers do not know it.
        report_token: opens the report, at least 16 characters; without it the report is not
            served (unless debug).
        page_view: PageView on every HTML page.
        user_data: customer information for every event: a callable taking the request and
            returning a UserData (or a mapping, or None), or a mapping of expressions. The request
            is Starlette's Request; Django's and Flask's own behind their doors.
        consent: a ready rule for the cookie of a consent banner ("tcf" or another of the list in
            demo/README.md; or {"rule": "onetrust", "requires": ["C0004"], "cookie": ...}); a
            mapping {"value": "{cookie.consent}", "granted": [...], "limited": [...],
            "state": "CA"}; or a callable taking the request and returning "granted", "denied",
            "limited" or ("limited", "US", "CA"), or a bool; or "unanswered", which a mapping means
            where it has "denied": [...] and the value is none of all these. All are granted by
            default.
        hold_minutes: how long an open page keeps its events until its visitor answers the banner,
            or capi.consent("granted") says so; 0: pages before an answer have no tag.
        privacy: "honor-gpc" treats `Sec-GPC: 1` as denied; "ignore-gpc" does not.
        default_region: reads national phone numbers, ISO 3166-1 alpha-2.
        trusted_proxies: networks (CIDR) whose X-Forwarded-* and Forwarded headers are believed;
            "unix" believes what comes through a Unix socket.
        hosts: the site's own, "shop.example", or ".shop.example" with all below it. Requests under
            another Host are no visits, what their pages fetch from each other and frame are. By
            default every host that the app answers under.
        origins: those of pages that this app does not answer, "https://www.shop.example", and that
            load {prefix}/s.js themselves: their browsers may ask for the events of their addresses.
        cookie_domain: the domain of _fbp, _fbc and of events that go on to another host, where the
            registrable domain is too wide ("eu.shop.example"); hosts outside keep theirs.
        drop_parameters: query parameters, beside those named like secrets and personal data,
            that must not be part of the addresses that Meta gets.
        keep_parameters: query parameters that are harmless although their name or value looks
            like a secret or a person's.
        exclude: paths that are never touched, with all below them. By default
            admin, API docs and debug toolbars, wherever Django, FastAPI and Litestar have them,
            but what a route is below, and the pages of `origins`.
        internal: who is no visitor but of the site itself, whose events are left out on both sides
            and counted: a callable taking the request (True for such); or a mapping with any of
            "networks" (CIDR) and "value" (an expression such as "{cookie.staff}"), which says so
            unless it is 0, false or no, or with "is" (a list) only where it is one of these.
        mirror: also send the server copy of events that the page's own pixel code fires.
        advanced_matching: hand hashed user_data to the pixel.
        durability: which responses end only after their events are on disk: "conversions" (all
            but PageView), "all", "none".
        delivery: False where `capi-middleware deliver` runs in another process. "before_answer":
            a response with events ends after they are delivered, or after a second, and
            CAPI.track() returns then: for processes that are frozen between requests.
        queue_limit: events that may wait in memory for the disk.
        retention_days: how long settled events stay in the store.
        remember_orders_days: how long it is known that an event with a dedupe_key was tracked; no
            copy of it leaves after the 48 hours in which Meta removes duplicates.
        action_source: where events happen that have no page, one of Meta's nine words: of jobs
            and webhooks without a visitor, which must say it themselves without this.
        tenant: returns the Tenant of a key (or None), also an asynchronous function; asked when a
            tenant was not asked for lately, in any thread, and again after some minutes.
        test_event_code: for all pixels that name none.
        test_event_until: when that ends, an aware datetime or ISO 8601 text; never by default.
        ad_account: whose opportunity score and recommendations are read, "act_123" or "123".
        insights_hours: how often Meta's own numbers are read while events are delivered; 0 for
            never. Without a read_token the access_token asks: one made in Events Manager reads
            the quality, no counts.
        alert_webhook: the https address that is told of flags that open and close; never shown.
        on_alert: called with each Alert, on a thread of ours, in one process of all.
        before_send: called with each Event and pixel just before it is sent to Meta, on a thread of
            ours, again when it is sent again; it should be quick. Returns the Event to send (its
            event_time, user_data and custom_data may be changed; raw customer information is
            hashed) or None to stop the server copy. The pixel's own copy is out by then.
        graph_url, graph_version, pixel_script_url: Meta's addresses.
        release: what runs here, "2026-11-28" or a commit: the timeline of the report shows when it
            was first seen. The variable CAPI_RELEASE does the same.
        debug: the report without a token, errors raised instead of swallowed in `track`.
    """

    secret_key: str | Sequence[str]
    pixels: Sequence[Pixel] | Callable[[Any], str | None]
    routes: Sequence[EventRoute] = ()
    _: KW_ONLY
    store: str | Sequence[str] = "sqlite:///capi.db"
    prefix: str = "/_capi"
    report_token: str | None = None
    page_view: bool = True
    user_data: Rule = None
    consent: Rule | str = None
    hold_minutes: int = 30
    privacy: Literal["honor-gpc", "ignore-gpc"] = "honor-gpc"
    default_region: str = "US"
    trusted_proxies: Sequence[str] = ()
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    cookie_domain: str = ""
    drop_parameters: Sequence[str] = ()
    keep_parameters: Sequence[str] = ()
    exclude: Sequence[str] = USUAL_EXCLUDE
    internal: Rule = None
    mirror: bool | Sequence[str] = False
    advanced_matching: bool = False
    durability: Literal["conversions", "all", "none"] = "conversions"
    delivery: bool | Literal["before_answer"] = True
    queue_limit: int = 100_000
    retention_days: int = 35
    remember_orders_days: int = 761
    action_source: ActionSource | None = None
    tenant: Callable[[str], Tenant | Awaitable[Tenant | None] | None] | None = None
    test_event_code: str | None = None
    test_event_until: datetime | str | None = None
    ad_account: str | None = None
    insights_hours: int = 6
    alert_webhook: str | None = None
    on_alert: Callable[..., object] | None = None
    before_send: Callable[[Event], Event | None] | None = None
    graph_url: str = "https://graph.facebook.com"
    graph_version: str = NEWEST
    pixel_script_url: str = "https://connect.facebook.net/en_US/fbevents.js"
    release: str | None = None
    debug: bool = False

    def __post_init__(self) -> None:
        self._check_secrets()
        self._check_pixels()
        self._check_routes()
        self._check_types()
        self._check_addresses()
        self._check_webhook()
        self._check_rules()

    def __repr__(self) -> str:
        ids = ", ".join(pixel.id for pixel in self.fixed_pixels)
        return f"Config(pixels=[{ids}], routes={len(self.routes)}, prefix={self.prefix!r})"

    @property
    def fixed_pixels(self) -> Sequence[Pixel]:
        """The pixels of every request; none where each tenant has its own."""
        return () if callable(self.pixels) else self.pixels

    @property
    def pixel_names(self) -> dict[str, str]:
        """How the report calls pixels, by their numbers."""
        return {one.id: one.name for one in self.fixed_pixels if one.name}

    def mark_of(self, pixel: Pixel) -> str:
        """What tells one way to post to a pixel from others, without telling its access token."""
        what = f"{self.graph_version} {pixel.access_token} {pixel.app_secret or ''}"
        return token_mark(self.secrets[0], what)

    def test_event(self, pixel: Pixel) -> tuple[str | None, float]:
        """The test_event_code of a pixel, and the Unix time in seconds when it ends (or inf)."""
        own = pixel if pixel.test_event_code else self
        until = own.test_event_until
        return own.test_event_code, until.timestamp() if isinstance(until, datetime) else math.inf

    @property
    def secrets(self) -> tuple[str, ...]:
        """The key ring: the first signs, all verify."""
        return (self.secret_key,) if isinstance(self.secret_key, str) else tuple(self.secret_key)

    @property
    def stores(self) -> tuple[str, ...]:
        """The URLs of the store's databases, in an order that never changes."""
        return (self.store,) if isinstance(self.store, str) else tuple(self.store)

    @property
    def excludes_usual(self) -> bool:
        """Whether `exclude` is what it is where nobody says it."""
        return tuple(self.exclude) == USUAL_EXCLUDE

    @property
    def excluded(self) -> tuple[str, ...]:
        """The paths of `exclude` with a slash at their end; of the usual ones no route is below."""
        paths = [f"{path.rstrip('/')}/" for path in self.exclude]
        if self.excludes_usual:
            mapped = [f"{route.path.text}/" for route in self.routes]
            paths = [path for path in paths if not any(one.startswith(path) for one in mapped)]
        return tuple(paths)

    def pixel_ids(self, event_name: str, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
        """The pixels that an event of this `event_name` goes to, or only the `wanted` of them."""
        return tuple(
            pixel.id
            for pixel in self.fixed_pixels
            if pixel.takes(event_name) and (wanted is None or pixel.id in wanted)
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Config":
        """Read a capi.toml at `path`: the same keys; "env:NAME" reads the environment.

        Raises ConfigError naming file, key, what was found and what was expected.
        """
        file = Path(path)
        try:
            return cls.from_mapping(msgspec.toml.decode(file.read_bytes()))
        except OSError as error:
            why = f"found no readable file ({error.strerror})"
        except (msgspec.DecodeError, UnicodeError) as error:
            why = f"found no valid TOML ({error})"
        except ConfigError as error:
            why = str(error)
        raise ConfigError(f"{file}: {why}")

    @classmethod
    @frameless
    def from_mapping(cls, given: Mapping[str, Any]) -> "Config":
        """A Config from plain data, as Django's settings.CAPI and Flask's app.config["CAPI"] are.

        The keys `given` are those of Config; pixels and routes are mappings, or Pixel and
        EventRoute; "env:NAME" takes a value from the environment. Raises ConfigError naming key,
        what was found and what was expected.
        """
        if not isinstance(given, Mapping):
            fail("the configuration", kind_of(given), _MAPPING)
        data = from_environment(dict(given), "")
        if not callable(data.get("pixels")):
            data["pixels"] = tables(Pixel, data.get("pixels", []), "pixels")
        data["routes"] = tables(EventRoute, data.get("routes", []), "routes")
        made: Config = make(cls, data, "")
        return made

    def _check_secrets(self) -> None:
        for name in ("report_token", "alert_webhook", "store"):
            read_no_environment(name, getattr(self, name))
        for key in self.secrets or ("",):
            read_no_environment("secret_key", key)
            if not isinstance(key, str) or len(key) < _SECRET_LENGTH:
                found = f"{len(key)} characters" if isinstance(key, str) else kind_of(key)
                fail("secret_key", found if key else "nothing", _SECRET_HINT)
            if not _is_drawn(key):
                fail("secret_key", "a text that can be guessed", f"one drawn by lot; {_MAKE_ONE}")
        token = self.report_token
        if token is not None and not (isinstance(token, str) and len(token) >= _TOKEN_LENGTH):
            found = f"{len(token)} characters" if isinstance(token, str) else kind_of(token)
            expected = f"at least {_TOKEN_LENGTH}, or leave it out; {_MAKE_ONE}"
            fail("report_token", found, expected)

    def _check_pixels(self) -> None:
        if self.tenant is not None:
            self._check_tenants()
            return
        if callable(self.pixels):
            fail("tenant", "none beside a callable for pixels", "a function of a tenant's key")
        if isinstance(self.pixels, Pixel) or not self.pixels:
            fail("pixels", kind_of(self.pixels), "a list with at least one Pixel")
        for pixel in self.pixels:
            if not isinstance(pixel, Pixel):
                fail("pixels", kind_of(pixel), "Pixel objects")
        ids = [pixel.id for pixel in self.pixels]
        if len(set(ids)) < len(ids):
            fail("pixels", f"an id twice in {ids}", "each pixel once")

    def _check_tenants(self) -> None:
        if not callable(self.tenant):
            fail("tenant", kind_of(self.tenant), "a function that takes the key of a tenant")
        if self.fixed_pixels:
            fail("pixels", "a list beside tenant", "a callable taking the request, or no pixels")
        is_async = iscoroutinefunction(self.pixels) or iscoroutinefunction(
            getattr(self.pixels, "__call__", None)  # noqa: B004 - its own, which may be async
        )
        if is_async:
            fail("pixels", "an async function", "a function; Config(tenant=...) may be async")
        if self.ad_account is not None:
            fail("ad_account", "one beside tenant", "none: tenants have accounts of their own")

    def _check_routes(self) -> None:
        ids = {pixel.id for pixel in self.fixed_pixels}
        for place, route in enumerate(self.routes):
            if not isinstance(route, EventRoute):
                fail("routes", kind_of(route), "EventRoute objects")
            at, name = f"route {route.match!r}", route.event_name
            if strange := set(map(str, route.pixels or ())) - ids:
                fail(f"{at}: pixels", sorted(strange), f"some of {sorted(ids)}")
            if self.tenant is None and not self.pixel_ids(name, route.pixels):
                one = "one; see Pixel(events=...) and EventRoute(pixels=...)"
                fail(at, f"no pixel that takes {name!r}", one)
            if f"{route.path.text}/".startswith(f"{self.prefix}/"):
                never = "a path of the app: this route can never match"
                fail(at, f"a path under our own prefix {self.prefix!r}", never)
            for earlier in self.routes[:place]:
                if earlier.covers(route):
                    why = f"that the earlier {earlier.match!r} takes all its requests for {name!r}"
                    fail(at, why, "the special route before the general one")

    def _check_types(self) -> None:
        for one in fields(self):
            name, kind, value = one.name, one.type, getattr(self, one.name)
            if kind is bool and not isinstance(value, bool):
                fail(name, kind_of(value), "true or false")
            if get_origin(kind) is Literal and value not in get_args(kind):
                fail(name, repr(value), " or ".join(map(repr, get_args(kind))))
            least = 0 if name in ("insights_hours", "hold_minutes") else 1
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            if kind is int and not (is_whole and value >= least):
                fail(name, repr(value), f"a whole number of at least {least}")
            if kind == Sequence[str] and isinstance(value, str):
                fail(name, repr(value), "a list")
        until = moment("test_event_until", self.test_event_until)
        object.__setattr__(self, "test_event_until", until)
        if self.action_source not in (None, *ACTION_SOURCES):
            fail("action_source", repr(self.action_source), f"one of {', '.join(ACTION_SOURCES)}")
        if not isinstance(self.delivery, bool) and self.delivery != "before_answer":
            fail("delivery", repr(self.delivery), "true, false or 'before_answer'")
        if not re.fullmatch(r"[A-Z]{2}", str(self.default_region)):
            fail("default_region", repr(self.default_region), "an ISO country code such as 'US'")
        for host in self.hosts:
            if not isinstance(host, str) or not _HOST.fullmatch(host):
                fail("hosts", repr(host), "names such as 'shop.example' or '.shop.example'")
        for origin in self.origins:
            usual = ("http:", ":80"), ("https:", ":443")  # browsers leave them out
            if (
                not isinstance(origin, str)
                or not _ORIGIN.fullmatch(origin)
                or any(
                    origin.startswith(scheme) and origin.endswith(port) for scheme, port in usual
                )
            ):
                expected = "what browsers send as Origin, each named: 'https://www.shop.example'"
                fail("origins", repr(origin), expected)
        domain = self.cookie_domain
        if domain and not (
            isinstance(domain, str) and _HOST.fullmatch(domain) and cookie_domain(domain)
        ):
            fail("cookie_domain", repr(domain), "a domain of yours such as 'eu.shop.example'")
        for name in () if isinstance(self.mirror, bool) else self.mirror:
            check_event_name(name, "mirror")
        for path in self.exclude:
            if not isinstance(path, str) or not path.startswith("/"):
                fail("exclude", repr(path), "paths that start with '/'")
        for name, takes in (("on_alert", "Alert"), ("before_send", "Event")):
            given = getattr(self, name)
            is_async = iscoroutinefunction(given) or iscoroutinefunction(
                getattr(given, "__call__", None)  # noqa: B004 - its own, which may be async
            )
            if given is not None and (not callable(given) or is_async):
                found = "an async function" if callable(given) else kind_of(given)
                fail(name, found, f"a function that takes an {takes}")

    def _check_webhook(self) -> None:
        if self.alert_webhook is None:
            return
        # The address is often a secret itself, so it is not shown.
        try:
            parts = urlsplit(self.alert_webhook)
            scheme, host, _ = parts.scheme, parts.hostname, parts.port
        except (ValueError, AttributeError, TypeError):
            fail("alert_webhook", kind_of(self.alert_webhook), "an https:// address")
        if not host or not (scheme == "https" or (scheme == "http" and host in _LOOPBACK)):
            found = f"the scheme {scheme!r} and {'a' if host else 'no'} host"
            fail("alert_webhook", found, "an https:// address (http:// on this machine)")

    def _check_addresses(self) -> None:
        if not isinstance(self.store, str | list | tuple):
            fail("store", kind_of(self.store), _STORE_HINT)
        for url in self.stores:
            if not isinstance(url, str) or not _STORES.match(url):
                found = url.partition(":")[0] if isinstance(url, str) else url
                fail("store", f"{found!r}", _STORE_HINT)
        check_urls(self.stores)
        if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", str(self.prefix)):
            fail("prefix", repr(self.prefix), "a path such as '/_capi' without '/' at its end")
        for name in ("graph_url", "pixel_script_url"):
            parts = urlsplit(str(getattr(self, name)))
            if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
                fail(name, repr(getattr(self, name)), "an https:// address")
            if not parts.hostname or parts.query or parts.username:
                fail(name, "a query, a user or no host", "a plain https:// address")
        if self.ad_account is not None:
            account = re.fullmatch(r"(?:act_)?([1-9][0-9]{0,25})", str(self.ad_account))
            if account is None:
                fail("ad_account", repr(self.ad_account), "its number, 'act_123' or '123'")
            object.__setattr__(self, "ad_account", f"act_{account[1]}")
        if not re.fullmatch(r"v\d{1,3}\.\d{1,2}", str(self.graph_version)):
            fail("graph_version", repr(self.graph_version), f"e.g. '{NEWEST}'")
        for network in self.trusted_proxies:
            expected = "networks such as '10.0.0.0/8', or 'unix'"
            try:
                everybody = network != "unix" and not ip_network(network, strict=False).prefixlen
            except ValueError:
                fail("trusted_proxies", repr(network), expected)
            if everybody:
                fail("trusted_proxies", f"{network!r}, which is everybody", expected)

    def _check_rules(self) -> None:
        consent = {"rule": self.consent} if isinstance(self.consent, str) else self.consent
        rules = (("user_data", self.user_data), ("consent", consent), ("internal", self.internal))
        for name, rule in rules:
            if rule is None or callable(rule):
                continue
            if not isinstance(rule, Mapping):
                fail(name, kind_of(rule), "a callable taking the request or a mapping")
            try:
                parse(rule, name)
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from None
            if name == "consent":
                _check_consent(rule)
            elif name == "internal":
                _check_internal(rule)
            elif unknown := unknown_keys(rule):
                fail("user_data", f"the unknown {unknown}", f"some of {[*MATCH_KEYS]}")


Config.__init__ = frameless(Config.__init__)  # type: ignore[method-assign]


def _is_drawn(secret: str) -> bool:
    """Whether it may have been drawn by lot: it repeats nothing, and neither counts nor asks."""
    pairs = {*pairwise(secret)}
    steps = {ord(second) - ord(first) for first, second in pairs}
    return len(pairs) >= 16 and len(steps) >= 8 and _PLACEHOLDER.search(secret) is None


def _check_consent(rule: Mapping[str, Any]) -> None:
    ready = "rule" in rule
    own = {"value", "granted", "limited", "denied", "country", "state"}
    known = {"rule", "requires", "cookie", "vendor"} if ready else own
    if unknown := set(rule) - known:
        fail("consent", f"the unknown {sorted(unknown)}", f"some of {sorted(known)}")
    if not ready and "value" not in rule:
        fail("consent", sorted(rule), "the key rule; or value, granted and perhaps limited")
    if ready and rule["rule"] not in READY_RULES:
        fail("consent", repr(rule["rule"]), f"one of {list(READY_RULES)}")
    if "vendor" in rule and not (rule.get("rule") == "tcf" and is_vendor(rule["vendor"])):
        expected = "with the rule tcf a number of the IAB's list, or 'ac:89' of Google's"
        fail("consent.vendor", repr(rule["vendor"]), expected)
    if rule.get("rule") == "google" and "requires" in rule and "cookie" not in rule:
        fail("consent.requires", "it without cookie", "the cookie that holds the consent mode")
    if isinstance(rule.get("requires"), str):
        fail("consent.requires", repr(rule["requires"]), "a list")


def _check_internal(rule: Mapping[str, Any]) -> None:
    known = {"networks", "value", "is"}
    if unknown := set(rule) - known:
        fail("internal", f"the unknown {sorted(unknown)}", f"some of {sorted(known)}")
    if not {"networks", "value"} & rule.keys():
        fail("internal", sorted(rule), "networks, or a value and perhaps what it is")
    for name in ("networks", "is"):
        if isinstance(rule.get(name), str):
            fail(f"internal.{name}", repr(rule[name]), "a list")
    for network in rule.get("networks", ()):
        try:
            ip_network(network, strict=False)
        except ValueError:
            fail("internal.networks", repr(network), "networks such as '10.0.0.0/8'")


def named_events(config: Config) -> frozenset[str]:
    """The event names that the site itself has written down, in routes, pixels and mirror."""
    mirror = () if isinstance(config.mirror, bool) else config.mirror
    return frozenset(
        [
            *mirror,
            *(route.event_name for route in config.routes),
            *(name for pixel in config.fixed_pixels for name in pixel.events or ()),
        ]
    )
