"""CAPI is one process's tracker: it puts the parts together, and track() gives events to them."""

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from functools import cached_property, partial
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from capi_middleware.alerts.watch import CHECK_SECONDS, Alerting
from capi_middleware.capture.carrying import brings
from capi_middleware.capture.client import headers_of, without_port
from capi_middleware.config.notices import kept_home
from capi_middleware.config.pixels import Pixel
from capi_middleware.config.routes import RouteIndex
from capi_middleware.config.settings import Config
from capi_middleware.delivery.before_send import BeforeSend
from capi_middleware.delivery.courier import Courier, TenantCourier
from capi_middleware.delivery.daemon import Housekeeping, Job, hindrance
from capi_middleware.delivery.deliverer import Deliverer
from capi_middleware.delivery.rounds import Way
from capi_middleware.delivery.telemetry import ClockCheck, passing
from capi_middleware.errors import CapiError, ConfigError, StoreError
from capi_middleware.events import STANDARD_EVENTS, Count, Event, EventName
from capi_middleware.insights.looking import CHECK_SECONDS as LOOKOUT_SECONDS
from capi_middleware.insights.looking import Lookout
from capi_middleware.meta.event_object import ActionSource, Moment, Send, page_wanted, told
from capi_middleware.meta.graph import GraphClient
from capi_middleware.meta.user_data import UserData
from capi_middleware.meta.visitor import Visitor
from capi_middleware.private import start_apart
from capi_middleware.report.marks import LONGEST, remember
from capi_middleware.report.model import Mark
from capi_middleware.report.window import iso
from capi_middleware.request.issuing import Issuer
from capi_middleware.store.opening import open_store
from capi_middleware.store.store import Store
from capi_middleware.store.writer import at_fork

if TYPE_CHECKING:
    from capi_middleware.endpoints.public import Endpoints
    from capi_middleware.request.exchange import Exchange

#: How long closing may take in seconds: servers kill a worker that takes longer to end.
DRAIN_SECONDS = 5.0
#: How long an answer waits for Meta at the most with Config(delivery="before_answer"), in seconds.
ANSWER_SECONDS = 1.0
#: How often settled events past their retention are deleted, in seconds.
PRUNE_SECONDS = 3600.0
_OUTSIDE = (
    "{what}: found no request that passes CAPIMiddleware, expected one; outside of a request use "
    "CAPI(config).track(…, visitor=…)"
)
#: Every CAPI of this process, for those who test with them.
living: "weakref.WeakSet[CAPI]" = weakref.WeakSet()


def expect_app(app: object, wrong: int, expected: str) -> None:
    """Refuse an app that is called with so many arguments: it is of the other kind."""
    kinds: list[object] = []
    with suppress(TypeError, ValueError):  # not everything tells
        kinds = [one.kind for one in signature(app).parameters.values()]  # type: ignore[arg-type]
    if kinds == [Parameter.POSITIONAL_OR_KEYWORD] * wrong:
        kind = type(app).__name__
        raise ConfigError(f"app: found a {kind} that takes {wrong} arguments, {expected}")


class CAPI:
    """The tracker of one process: events outside of requests, flushing and closing.

    The middleware makes one from its `config`; make it yourself to track in jobs and webhooks,
    and give the same object to the middleware. Raises ConfigError when the store cannot be used.
    """

    def __init__(self, config: Config) -> None:
        if not isinstance(config, Config):
            raise ConfigError(
                f"found a {type(config).__name__}, expected a Config, such as "
                'Config.load("capi.toml"), or a CAPI'
            )
        if Issuer.tap is not None:
            config = replace(config, store="memory:", delivery=False)
        stays = bool(config.delivery) and kept_home(config.graph_url)
        if stays:
            config = replace(config, delivery=False)
        self.config = config
        #: Unix time when `passing()` was 0.0, by the clock of now.
        self._began: float = time.time() - passing()
        self._own: Store = open_store(config.store, queue_limit=config.queue_limit)
        self.store: Store = self._own
        self.issuer: Issuer = Issuer(config, self.store)
        self._routes = RouteIndex(config.routes, reserved=config.prefix)
        #: See RouteIndex.may_want; `path` is below any mount.
        self.may_want: Callable[[str, str], bool] = self._routes.may_want
        self._prefix: str = config.prefix + "/"
        self._housekeeping = Housekeeping(self._jobs(), self.issuer.shield.caught)
        self._deliverer = Deliverer(
            self._own,
            [self._courier(pixel) for pixel in config.fixed_pixels] if config.delivery else [],
            self._housekeeping.on_duty,
            self._tenant_courier if config.delivery and config.tenant is not None else None,
        )
        self.store.on_commit = self._wake
        #: Whether answers wait for `send_now`.
        self.sends_first: bool = config.delivery == "before_answer"
        #: Whether it delivers in this process; the doors start it with the first request.
        self.started: bool = False
        self._off = False
        at_fork(after_in_child=self._forget)
        if stays:
            self.issuer.notices.say("kept_home")
        self.issuer.notices.about_store(config.stores[0])
        self.issuer.notices.about_freezing(config.delivery is True)
        living.add(self)
        # From now on: before what the host registered earlier takes away what `before_send` needs.
        atexit.register(_close, weakref.ref(self))

    def track(
        self,
        event_name: EventName,
        *,
        visitor: Visitor | None = None,
        user_data: UserData | None = None,
        dedupe_key: object = None,
        value: float | Decimal | str | None = None,
        currency: str | None = None,
        contents: Sequence[Any] | None = None,
        event_time: Moment | None = None,
        send: Send | None = None,
        pixels: Sequence[str] | None = None,
        action_source: ActionSource | None = None,
        tenant: str | None = None,
        **custom_data: Any,
    ) -> Event:
        """Queue the server copy of an event outside of a request: a webhook, a job.

        `visitor`: who it belongs to, from `current_visitor()` or `Visitor.loads()`; a denied
        consent is honoured and counted. The same `dedupe_key` and `event_name` give the same
        event_id as in the request. `action_source` says where it happened: it is "website" for a
        visitor's page, else it must be given here or in the Config. `tenant` is the key of whose
        event it is, with Config(tenant=…) only; one that nobody has is counted, and an error in
        debug. All other arguments (`user_data`, `value`, `currency`, `contents`, `event_time`,
        `send`, `pixels` and those that are not named, custom_data) are as in `track()`. Returns the
        Event after it is on disk (see Config.durability). Raises ConfigError for a bad event_name
        and for no tenant where there are some, ValueError for an event that does not say where it
        happened and for what Meta refuses of it, BadVisitor for a visitor that this site did not
        sign, StoreError when the commit failed, or where no thread can work, and what Config.tenant
        raises of a tenant who is not known yet.
        """
        if type(event_name) is not str or event_name not in STANDARD_EVENTS:
            event_name = self.issuer.named(event_name)
        if not self.start():
            raise StoreError("found a process where no thread can work, expected one: see the log")
        issuer = self.issuer
        if visitor is not None:
            visitor = issuer.checked(visitor)
        whose = issuer.tenant(event_name, tenant)
        event = issuer.new_event(event_name, dedupe_key, None, tenant=whose)
        given, said = told(
            {"value": value, "currency": currency, "contents": contents, "event_time": event_time,
             "send": send, "pixels": pixels, "action_source": action_source}, custom_data,
        )  # fmt: skip
        issuer.fill(event, given, user_data)
        if said.get("send") == "browser":
            raise ValueError("send: found 'browser' where no page is, expected 'server'")
        has_page = issuer.has_page(event, visitor, said.get("event_source_url"))
        if not has_page and said.get("action_source") in (None, "website"):
            where = said.get("action_source") or (visitor is None and self.config.action_source)
            if where == "website" or (visitor is None and not where):
                raise ValueError(page_wanted(f"CAPI.track({event.event_name!r})", where))
            if where:
                said["action_source"] = where
        if said:
            issuer.say(event, said, strict=True)
        if self.config.debug:
            issuer.check(event)
        if visitor is not None and visitor.consent == "denied":
            issuer.suppressed("consent", [(event.event_name, event.pixel_ids)])
            return event
        if event.event_id[0] == "k":
            question = self.store.recall(event.event_id)
            if issuer.is_repeated(event, question, self.store.recall_seconds):
                return event
        commit = issuer.issue([event], visitor, "not_rendered")
        if commit is not None:
            commit.result()
            self.send_now()
        return event

    def flush(self, timeout: float = DRAIN_SECONDS) -> bool:
        """Wait up to `timeout` seconds until everything queued is delivered; whether it is."""
        end = time.monotonic() + timeout
        if not self.store.flush(timeout):
            return False
        delivers = self.config.delivery and self.store is self._own
        if delivers:
            self._deliverer.wake({})
        while True:
            self._deliverer.hurry()
            depth = self.store.depth()
            if not depth.get("pending", 0) + depth.get("leased", 0):
                return True
            if not delivers or time.monotonic() >= end:
                return False
            time.sleep(0.02)

    def send_now(self) -> None:
        """Wait for what can be delivered within ANSWER_SECONDS, where Config.delivery says so."""
        if self.sends_first and self.store is self._own:
            with self.issuer.shield.guard("the delivery before an answer"):
                self._deliverer.deliver_now(ANSWER_SECONDS)

    def close(self, timeout: float = DRAIN_SECONDS) -> None:
        """Deliver what can be delivered within `timeout` seconds, then end all threads.

        It takes no longer, whatever others do with the database. Does nothing where nothing was
        started in this process, or when it was closed before.
        """
        if not self.started or self.store is not self._own:
            return
        self.started = False
        # Who waits for a lock of the database may do so for longer: it is left alone then.
        closing = threading.Thread(
            target=self._close, args=(timeout,), name="capi-closing", daemon=True
        )
        try:
            start_apart(closing)
        except RuntimeError:  # the interpreter is about to end
            self._close(timeout)
        else:
            closing.join(timeout)

    def _close(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        with self.issuer.shield.guard("closing"):
            with suppress(StoreError):  # its couriers and its writer say what is wrong with it
                self.flush(timeout * 0.5)
            self._housekeeping.stop(timeout * 0.1)
            with suppress(StoreError):
                # Giving back what is in flight takes its time, too.
                self._deliverer.stop(max(0.1, end - timeout * 0.2 - time.monotonic()))
            self.store.close(max(0.0, end - time.monotonic()))

    @contextmanager
    def into(self, store: Store) -> Iterator[None]:
        """Events go into another `store` and are not delivered, until the context ends.

        For tests: nothing is opened, started or closed meanwhile.
        """
        before = self.store, self.started
        self.store = self.issuer.store = store
        self.started = True
        try:
            yield
        finally:
            self.store, self.started = before
            self.issuer.store = self.store

    # -- for the doors ---------------------------------------------------------------------------

    @cached_property
    def endpoints(self) -> "Endpoints":
        """What answers under the prefix."""
        # starlette and more, 5 MB: not for a process that has no door.
        from capi_middleware.endpoints.elsewhere import OpenEndpoints
        from capi_middleware.endpoints.public import Endpoints

        kind = OpenEndpoints if self.config.origins else Endpoints
        return kind(self.issuer, self.open, self._is_delivering)

    def start(self) -> bool:
        """Start delivery in this process: lazily, and again after a fork.

        False where it cannot work in this process, of which the log is told once: requests must
        pass untouched then.
        """
        if self.started or self._off:
            return not self._off
        why = hindrance()
        if why is not None:
            # Nothing may begin a thread from now on, not even a count.
            self._off = True
            self.store = self.issuer.store = open_store("memory:", queue_limit=1)
            self.issuer.notices.say(why)
            return False
        self.started = True
        if any("dedupe_key" in route.templates for route in self.config.routes):
            self.store.expect_orders()
        self._deliverer.start()
        if self.config.delivery:
            self._housekeeping.start()
        return True

    def _wake(self, waiting: Mapping[str, Set[str]]) -> None:
        """After each commit, of events with these names by pixel.

        Begins anew after a fork that Python did not see (uWSGI's).
        """
        self._deliverer.wake(waiting)
        if self.started and self.config.delivery:
            self._housekeeping.start()

    def _forget(self) -> None:
        """In a forked child: the threads stayed with the parent."""
        self.started = False

    def open(
        self, scope: MutableMapping[str, Any], came: Mapping[str, Any] | None = None
    ) -> "Exchange":
        """The exchange of a request, `scope` as in ASGI's http.

        `came` has its path, root_path and raw_path as they came in: routers of the host change
        the scope.
        """
        at = came or scope
        try:
            mount, path = split_mount(at) if at.get("root_path") else ("", at["path"])
            matches = self._routes.match(scope["method"], path)
            if matches and self._routes.has_hosts:
                matches = self._routes.of_host(matches, self._host(scope))
            raw_path = at.get("raw_path") or at["path"].encode()
        except Exception as error:
            # The host's code may call track() in it all the same.
            self.issuer.shield.caught(error, "opening")
            mount, path, matches, raw_path = "", "/", [], b"/"
        return self._exchange(self.issuer, scope, path, mount, matches, raw_path)

    def take(self, scope: MutableMapping[str, Any]) -> "tuple[str | None, Exchange | None]":
        """What a request, its `scope` as in ASGI's http, is to us.

        The name of our endpoint that it is for, or its Exchange. Neither for one that matters
        only if its response turns out to be a page, or if the host's code calls track() in it.
        """
        method, path, mount = scope["method"], scope["path"], ""
        if scope.get("root_path"):
            mount, path = split_mount(scope)
        if self.may_want(method, path):
            if path.startswith(self._prefix):
                return path[len(self._prefix) :], None
            matches = self._routes.match(method, path)
            if matches and self._routes.has_hosts:
                matches = self._routes.of_host(matches, self._host(scope))
            if matches or method == "HEAD":
                raw_path = scope.get("raw_path") or scope["path"].encode()
                return None, self._exchange(self.issuer, scope, path, mount, matches, raw_path)
        if b"fbclid=" in scope.get("query_string", b"") or brings(scope["headers"]):
            return None, self.open(scope)
        return None, None

    def _host(self, scope: MutableMapping[str, Any]) -> str:
        return without_port(self.issuer.client(scope, headers_of(scope)).host)

    @cached_property
    def _exchange(self) -> "type[Exchange]":
        # All that a request takes: not for a process that has no door either.
        from capi_middleware.request.exchange import Exchange

        return Exchange

    def endpoint(self, scope: MutableMapping[str, Any]) -> str | None:
        """The name of our endpoint that a request (its `scope`) is for, None for the host's."""
        _, path = split_mount(scope)
        return path[len(self._prefix) :] if path.startswith(self._prefix) else None

    def _courier(self, pixel: Pixel) -> Courier:
        return Courier(self._own, pixel.id, *self._way(pixel, pixel.id))

    def _tenant_courier(self, pixel_id: str) -> Courier:
        tenants = self.issuer.tenants
        assert tenants is not None

        def find() -> Way | None:
            pixel = tenants.pixel(pixel_id)
            return None if pixel is None else self._way(pixel, pixel_id)

        return TenantCourier(self._own, pixel_id, find)

    def _way(self, pixel: Pixel, pixel_id: str) -> Way:
        """How events of a pixel, that we call `pixel_id`, get to Meta."""
        config = self.config
        clock = ClockCheck(pixel_id, self.store.count)

        code, until = config.test_event(pixel)

        def connect() -> Any:
            return GraphClient(
                config.graph_url, config.graph_version, pixel.id, pixel.access_token,
                app_secret=pixel.app_secret, test_code=code, test_until=until, check_date=clock,
            )  # fmt: skip

        region, count = config.default_region, self.store.count
        hook = config.before_send and BeforeSend(config.before_send, pixel_id, region, count)
        return Way(connect, config.mark_of(pixel), hook, clock.surely)

    def _jobs(self) -> list[Job]:
        shield = self.issuer.shield
        alerting = Alerting(self.config, self.store, shield, self._is_delivering)
        lookout = Lookout(self.config, self.store, shield.caught)
        compare = partial(self.issuer.notices.about_secrets, self.config.secrets, self.store)
        return [
            Job("prune", PRUNE_SECONDS, self._prune, shared=True),
            Job("secrets", PRUNE_SECONDS, compare),
            Job("release", PRUNE_SECONDS, self._mark_release),
            Job("alerts", CHECK_SECONDS, alerting.check, alerting.give_up, shared=True),
            Job("insights", LOOKOUT_SECONDS, lookout.tick, lookout.halt, shared=True),
        ]

    def _prune(self) -> None:
        # A clock that jumped ahead must not make all that is settled old.
        now = min(time.time(), self._began + passing())
        self.store.prune(now - self.config.retention_days * 86_400)
        self.store.forget_orders(now - self.config.remember_orders_days * 86_400)

    def _mark_release(self) -> None:
        release = self.config.release or os.environ.get("CAPI_RELEASE", "")
        if release:
            remember(self._own, Mark(iso(time.time()), "release", release[:LONGEST]))

    def _is_delivering(self) -> bool:
        return self._deliverer.alive


def track(
    event_name: EventName,
    *,
    user_data: UserData | None = None,
    dedupe_key: object = None,
    value: float | Decimal | str | None = None,
    currency: str | None = None,
    contents: Sequence[Any] | None = None,
    event_time: Moment | None = None,
    send: Send | None = None,
    pixels: Sequence[str] | None = None,
    action_source: ActionSource | None = None,
    **custom_data: Any,
) -> Event:
    """Add an event to the present request, or fill in the one that a route made of it.

    Args:
        event_name: a standard event of Meta or a custom name.
        user_data: customer information; hashed before anything is kept.
        dedupe_key: the same key and name give the same event_id everywhere, e.g. an order number.
        value, currency: the amount and its ISO 4217 code; Purchase needs both.
        contents: the items, each a mapping with at least "id".
        event_time: when it happened, Unix seconds or an aware datetime, now by default; Meta takes
            the last 7 days, of a "physical_store" 62.
        send: which copies go out, "both", "server" or "browser"; both by default.
        pixels: ids of the pixels it goes to; all that take it by default.
        action_source: where it happened, one of Meta's nine words; "website" by default. Others
            have no browser copy.
        custom_data: anything else. event_source_url, referrer_url, opt_out, customer_segmentation,
            original_event_data, attribution_data and messaging_channel are fields of Meta's event
            object; all other names go to Meta's custom_data. One that is almost the name of a
            parameter or match key is refused.

    Returns the Event with its event_id. Outside of a request that passes the middleware use
    `CAPI(config).track`: this one raises CapiError there with debug or where the process has no
    CAPI; else it sends nothing, which is counted and logged. Raises ConfigError for a bad
    event_name, and with debug ValueError for what is else left out and counted.
    """
    exchange = _present("track()")
    if exchange is None:
        return _unsent(event_name, dedupe_key)
    if type(event_name) is not str or event_name not in STANDARD_EVENTS:
        event_name = exchange.issuer.named(event_name)
    given, said = told(
        {"value": value, "currency": currency, "contents": contents, "event_time": event_time,
         "send": send, "pixels": pixels, "action_source": action_source}, custom_data,
    )  # fmt: skip
    return exchange.track(event_name, given, user_data, dedupe_key, said)


def current_visitor() -> Visitor:
    """Who the present request comes from: keep `.dumps()` with the order, use it in the webhook.

    An asynchronous `consent` callable cannot be asked here: its visitor counts as denied, and the
    webhook's event is suppressed and counted. Raises CapiError outside of a request.
    """
    exchange = _present("current_visitor()")
    if exchange is None:
        raise CapiError(_OUTSIDE.format(what="current_visitor()"))
    return exchange.visitor()


def _unsent(event_name: EventName, dedupe_key: object) -> Event:
    """The event of a track() that no request hears of: the host goes on, and its log says so.

    Raises CapiError where somebody develops: with debug, in a test, without any CAPI.
    """
    capis = [*living]
    if Issuer.tap is not None or not capis or any(capi.config.debug for capi in capis):
        raise CapiError(_OUTSIDE.format(what="track()"))
    issuer = capis[0].issuer
    issuer.count(Count("error", "track() outside of a request"))
    issuer.notices.say("outside")
    return issuer.new_event(issuer.named(event_name), dedupe_key, None)


def _present(what: str) -> "Exchange | None":
    # All that a request takes: a process without a door need not load it.
    from capi_middleware.request.exchange import current

    passage = current.get()
    if passage is None:
        return None
    exchange = passage.opened()
    if passage.over:
        exchange.outlived(what)
    return exchange


def split_mount(scope: Mapping[str, Any]) -> tuple[str, str]:
    """(mount, path below it): scope["path"] holds the mount in the present ASGI, not before."""
    mount, path = scope.get("root_path", "").rstrip("/"), scope["path"]
    if mount and path.startswith(mount + "/"):
        path = path[len(mount) :]
    return mount, path


def _close(reference: "weakref.ref[CAPI]") -> None:
    capi = reference()
    if capi is not None:
        with capi.issuer.shield.guard("closing"):
            capi.close()
