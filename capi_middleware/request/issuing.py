"""Issuing: an event becomes rows in the store, for requests and for jobs alike."""

import random
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from decimal import Decimal
from functools import lru_cache
from typing import Any, ClassVar, Protocol
from urllib.parse import quote

from msgspec.structs import replace

from capi_middleware.capture.agents import agent_of, device_of
from capi_middleware.capture.carrying import Carrier
from capi_middleware.capture.client import (
    AGENT_READ,
    Client,
    Hosts,
    Proxies,
    address_of,
    headers_of,
    read_client,
)
from capi_middleware.capture.consent import ConsentRule, InternalRule, Permission
from capi_middleware.capture.limits import OFTEN, Allowance, Repeats
from capi_middleware.capture.mirroring import KEY_SECONDS, Mirror
from capi_middleware.capture.urls import PATH_SAFE, URL_READ, scrub_url
from capi_middleware.config.expressions import Call, Template, body_fields, parse
from capi_middleware.config.notices import Notices
from capi_middleware.config.pixels import Tenant, is_key, own_id
from capi_middleware.config.routes import EventRoute, event_name_of
from capi_middleware.config.settings import Config
from capi_middleware.errors import BadVisitor, ConfigError, StoreError
from capi_middleware.events import (
    BETWEEN,
    OF_HOST,
    STANDARD_EVENTS,
    UNPAIRED,
    Count,
    Event,
    PageEvent,
    PageKey,
    Row,
    ServerState,
)
from capi_middleware.meta import payload
from capi_middleware.meta.custom_data import DOCUMENTED, clean, lacking, refused_by_meta, worth
from capi_middleware.meta.event_object import (
    FIELDS,
    MAX_AGE,
    max_age,
    meant_by,
    moment_of,
    read_fields,
    standard_name,
)
from capi_middleware.meta.match_keys import BITS
from capi_middleware.meta.personal import parts_of_path
from capi_middleware.meta.user_data import UserData, unknown_keys
from capi_middleware.meta.visitor import Visitor
from capi_middleware.page.tag import PixelEntry, TagMaker, page_key, pixel_entries
from capi_middleware.request.asking import Asking
from capi_middleware.request.tenants import Tenants
from capi_middleware.shield import Shield
from capi_middleware.signing import (
    CARRIED,
    HELD,
    VISITOR,
    WAITING,
    Minter,
    TextSigner,
    ValueDigest,
    equal,
    page_digest,
    signed_name,
    use_digest,
)
from capi_middleware.store.commits import Commit
from capi_middleware.store.orders import MOMENT, Question
from capi_middleware.store.store import Store

#: Pages that are told apart: anybody may ask for any number of paths.
_MOST_PAGES = 200
#: Of those that were not among them one visitor brings so many at once, and in an hour; all
#: visitors together twenty times as many.
_NEW_PAGES = 50.0
#: What templates, forms and databases write where there is no value.
_NO_KEYS = frozenset(
    {"", "none", "null", "nil", "nan", "undefined", "false", "true", "n/a", "-", "()", "[]", "{}",
     "b''", "[object object]", "00000000-0000-0000-0000-000000000000"}
)  # fmt: skip
#: How the user agent of a browser begins, and what agent_of() says of a program.
_BROWSERS = ("Mozilla/", "Opera/")
_NO_FAMILY = ("", "Other")
#: Longer addresses are not remembered.
_REMEMBERED = 400
#: Parts of a path that may name a person or a thing.
_PERSONAL = re.compile(r"[\d@]")


class Tap(Protocol):
    """Hears what leaves the issuers of a process: a test's."""

    def issued(self, issuer: "Issuer", events: Sequence[Event]) -> None:
        """These events are on their way to the store."""

    def counted(self, counts: Sequence[Count]) -> None:
        """This is on its way to the counters."""


class Issuer:
    """Mints, completes and stores events. One per process."""

    #: Of all issuers, present and to come.
    tap: ClassVar[Tap | None] = None

    def __init__(
        self, config: Config, store: Store, clock: Callable[[], float] = time.time
    ) -> None:
        self.config = config
        self.store = store
        self.shield: Shield = Shield(lambda counts: self.store.count(counts))
        self.notices: Notices = Notices(config.debug)
        self.minter: Minter = Minter(config.secrets)
        self._takes = {one.id: one.events for one in config.fixed_pixels}
        self.tenants: Tenants | None = None if config.tenant is None else Tenants(config.tenant)
        #: What tells the key of a request's tenant.
        self.tenant_rule: Call | None = (
            Call(config.pixels, "pixels") if callable(config.pixels) else None
        )
        #: The pixels of every page, as its script reads them.
        self.pixels: list[PixelEntry] = pixel_entries(self._takes)
        self._pixel_ids: dict[str, tuple[str, ...]] = {}
        #: What pages may cause that ask for their events.
        self.asking: Asking = Asking(self.minter, config.routes)
        self._route_pixel_ids = {
            id(route): config.pixel_ids(route.event_name, route.pixels)
            for route in [*config.routes, *self.asking.routes]
        }
        self._pages: OrderedDict[str, None] = OrderedDict()
        self._new_pages = Allowance(rate=_NEW_PAGES / 3600, burst=_NEW_PAGES, of_all=20.0)
        self._repeats = Repeats()
        self.mirror: Mirror = Mirror(config.mirror)
        self.carrier: Carrier = Carrier(TextSigner(config.secrets, CARRIED))
        #: For events of pages that were fetched ahead.
        self.waiting: Carrier = Carrier.waiting(TextSigner(config.secrets, WAITING))
        #: For events of pages whose visitor has not answered the banner.
        self.held: Carrier = Carrier.held(TextSigner(config.secrets, HELD), config.hold_minutes)
        self._visitors = TextSigner(config.secrets, VISITOR)
        #: digest(value, currency) of either copy of an event.
        self.digest: ValueDigest = ValueDigest(config.secrets)
        self._use_digest: Callable[[bytes], Any] = use_digest(config.secrets)
        #: Of a page's address, for its key.
        self.page_digest: Callable[[bytes], Any] = page_digest(config.secrets)
        gpc = config.privacy == "honor-gpc"
        self.consent: ConsentRule = ConsentRule(config.consent, gpc=gpc)
        rule = config.internal
        self.internal: InternalRule | None = None if rule is None else InternalRule(rule)
        #: See Config.excluded.
        self.excluded: tuple[str, ...] = config.excluded
        self.user_data: Template = parse(config.user_data, "user_data")
        #: What every event reads of a request's body.
        self.reads_body: bool
        self.form_fields: frozenset[str]
        self.reads_body, self.form_fields = body_fields(self.user_data)
        self.proxies: Proxies = Proxies.of(config.trusted_proxies)
        self.hosts: Hosts = Hosts.of(config.hosts, config.origins)
        #: Query parameters that never leave, in lower case.
        self.drop_parameters: frozenset[str] = frozenset(map(str.lower, config.drop_parameters))
        #: Those that the site says are harmless.
        self.keep_parameters: frozenset[str] = frozenset(map(str.lower, config.keep_parameters))
        #: Where an event happened that has no page.
        self._without_page: str = config.action_source or "other"
        self.tags: TagMaker = TagMaker(
            prefix=config.prefix, script_url=config.pixel_script_url, mirror=self.mirror.on,
            heard=(*self.consent.heard(), config.hold_minutes) if self._listens() else None,
        )  # fmt: skip
        #: Unix time in seconds.
        self.clock: Callable[[], float] = clock

    def _listens(self) -> bool:
        """Whether the script hears of consent in the page."""
        return self.config.hold_minutes > 0 and not self.consent.is_open

    # -- making events ---------------------------------------------------------------------------

    def mint(self, event_name: str, dedupe_key: object) -> str:
        """A signed event_id."""
        return self.minter.mint(event_name, self.clock(), dedupe_key)

    def opens(self, key: PageKey | None, seconds: float = KEY_SECONDS) -> bool:
        """Whether `key` shows that a page of ours, of the last `seconds`, is still open."""
        if key is None or not self.minter.verifies(key.event_id, key.event_name):
            return False
        minted = self.minter.minted_at(key.event_id)
        return minted is not None and abs(self.clock() - minted) <= seconds

    def new_event(
        self,
        event_name: str,
        dedupe_key: object,
        route: EventRoute | None,
        event_id: str = "",
        *,
        tenant: Tenant | None = None,
    ) -> Event:
        """An event that happens now, for the pixels of its route or all that take it.

        Its event_id is minted, unless the site's own `event_id` is given. With a `tenant` it is
        for the pixels of that one alone, and no order is that of another.
        """
        now = self.clock()
        if dedupe_key is not None and names_nothing(dedupe_key):
            self._refuse_key(event_name, dedupe_key, route)
            dedupe_key = None
        signed = event_name if tenant is None else signed_name(event_name, tenant.key)
        event_id = event_id or self.minter.mint(signed, now, dedupe_key)
        if route is not None:
            pixel_ids = self._route_pixel_ids[id(route)]
            if tenant is not None:
                pixel_ids = tenant.pixel_ids(event_name, route.pixels)
            return Event(event_id, event_name, now, pixel_ids, send=route.send, route=route.match)
        if tenant is not None:
            return Event(event_id, event_name, now, tenant.pixel_ids(event_name))
        known = self._pixel_ids.get(event_name)
        if known is None:
            known = self.config.pixel_ids(event_name)
            if event_name in STANDARD_EVENTS:
                self._pixel_ids[event_name] = known
        return Event(event_id, event_name, now, known)

    def tenant(self, event_name: str, key: str | None) -> Tenant | None:
        """Whose event a job tracks; may ask the site. None for a site without tenants.

        An event of a key that nobody has goes nowhere and is counted. Raises ConfigError for one
        that names no tenant, and in debug.
        """
        if self.tenants is None:
            if key is not None:
                raise ConfigError(f"tenant: found {key!r}, expected none without Config(tenant=…)")
            return None
        found = None if key is None else self.tenants.get(key)
        if found is None and (key is None or self.config.debug):
            raise ConfigError(
                f"tenant: found {key!r}, expected a key that Config(tenant=…) has a Tenant for"
            )
        if found is None:
            self.count(Count("dropped", "no_tenant", event_name))
            self.notices.about("no_tenant", repr(key))
        return found or Tenant(str(key) if is_key(key) else "-", ())

    def _refuse_key(self, event_name: str, dedupe_key: object, route: EventRoute | None) -> None:
        """A key that all orders without a number would share: an event without one, counted."""
        if self.config.debug:
            raise ValueError(
                f"{event_name}: found the dedupe_key {dedupe_key!r}, expected what names one "
                "order, such as its number; leave it out where there is none"
            )
        self.left_out(event_name, ["dedupe_key"])
        where, pixels = (route.match, route.pixels) if route is not None else ("", None)
        for pixel_id in self.config.pixel_ids(event_name, pixels):
            self.count(Count("reused", f"empty {where}".rstrip(), event_name, pixel_id))

    def custom_data(self, event_name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The usable custom_data; what is not usable is counted, or raised in debug."""
        if not DOCUMENTED.issuperset(given):
            given = self._own_properties(event_name, given)
        cleaned, wrong = clean(event_name, given)
        if not wrong:
            return cleaned
        given_wrong = [key for key in wrong if key in given]
        if given_wrong and self.config.debug:
            raise ValueError(
                f"{event_name}: found unusable custom_data {given_wrong}, expected finite numbers, "
                "an ISO 4217 currency beside a value, and contents with ids; what is about a "
                "person goes into user_data=UserData(…)"
            )
        self.left_out(event_name, given_wrong)
        return cleaned

    def _own_properties(self, event_name: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """`given` without what is almost a parameter or match key: it is no custom_data."""
        meant = {key: meant_by(key) for key in given if key not in DOCUMENTED and type(key) is str}
        refused = [key for key, other in meant.items() if other]
        if not refused:
            return given
        if self.config.debug:
            shown = ", ".join(f"{key!r} (expected {meant[key]})" for key in refused)
            raise ValueError(
                f"{event_name}: found custom_data {shown}; a property of your own needs a name "
                "that is less like it"
            )
        for key in refused:
            self.notices.about("keyword", key, expected=meant[key])
        self.left_out(event_name, refused)
        return {key: value for key, value in given.items() if key not in refused}

    def named(self, event_name: object) -> str:
        """An event_name of track(), without blanks around it. Raises ConfigError for a bad one."""
        name = event_name_of(event_name, "track")
        meant = standard_name(name) or name
        if meant != event_name:
            self.notices.about("event_name", repr(event_name), expected=repr(meant))
        return name

    def say(self, event: Event, said: Mapping[str, Any], *, strict: bool) -> None:
        """Give an event what its route or track() says of Meta's event object.

        `said` are event_time, send, pixels and FIELDS, by name. What Meta would refuse is left out
        and counted, or raises ValueError where `strict`.
        """
        found, wrong = read_fields({name: said[name] for name in said if name in FIELDS})
        for name in ("event_source_url", "referrer_url"):
            if name in found:
                found[name] = scrub_url(found[name], self.drop_parameters, self.keep_parameters)
        event.details = event.details | found
        by_message = event.details.get("action_source") == "business_messaging"
        if by_message and "messaging_channel" not in event.details:
            channels = FIELDS["messaging_channel"].expected
            wrong.setdefault("messaging_channel", f"found none, expected {channels}")
        if (moment := said.get("event_time")) is not None:
            at, source = moment_of(moment), event.details.get("action_source")
            oldest = event.event_time - max_age(source) + 3600
            # A clock that is a minute ahead is no error; Meta refuses more.
            if at is not None and oldest <= at <= event.event_time + 60:
                event.event_time = min(at, event.event_time)
            else:
                wrong["event_time"] = _bad_time(moment, at, source)
        if (send := said.get("send")) is not None:
            if send in ("both", "server", "browser"):
                event.send = send
            else:
                wrong["send"] = f"found {send!r}, expected 'both', 'server' or 'browser'"
        if event.details.get("action_source", "website") != "website" and event.send == "both":
            event.send = "server"
        if (pixels := said.get("pixels")) is not None:
            ids = [pixels] if isinstance(pixels, str | int) else pixels
            ids = tuple(map(str, ids))
            known = self.config.pixel_ids(event.event_name)
            if self.tenants is not None:
                known = event.pixel_ids
                if not known:  # of a tenant who is not known yet: see Exchange
                    ids = ()
            event.pixel_ids = tuple(one for one in known if one.partition("@")[0] in ids)
            if unknown := sorted({*ids} - {one.partition("@")[0] for one in known}):
                wrong["pixels"] = f"found {unknown}, expected some of {list(known)}"
        if not wrong:
            return
        if strict:
            raise ValueError("; ".join(f"{name}: {why}" for name, why in wrong.items()))
        for name, why in wrong.items():
            self.notices.about("field", name, expected=why)
        self.left_out(event.event_name, wrong)

    def fill(
        self, event: Event, custom_data: Mapping[str, Any], user_data: UserData | None
    ) -> None:
        """Add what a track() call gave to an event: it goes before what is there already."""
        event.custom_data |= self.custom_data(event.event_name, custom_data)
        if user_data is not None:
            event.user_data |= self.hashed(user_data)

    def check(self, event: Event) -> None:
        """For debug: raises ValueError for an event that Meta would refuse; else it is counted."""
        if refused_by_meta(event.event_name, event.custom_data):
            raise ValueError(
                f"{event.event_name}: found custom_data with {sorted(event.custom_data)}, expected "
                "value and currency together (a Purchase needs both)"
            )

    def hashed(self, user_data: UserData) -> dict[str, Any]:
        """The user_data object of the Graph API, hashed; what cannot be normalised is counted."""
        hashed, left = user_data.hashed(self.config.default_region)
        self.left_out("", [f"user_data.{key}" for key in left])
        return hashed

    def given_user_data(self, value: Any) -> dict[str, Any]:
        """The hashed user_data of what the host's rule gave: a UserData, a mapping, or nothing."""
        try:
            if isinstance(value, Mapping):
                unknown = unknown_keys(value)
                self.left_out("", [f"user_data.{key}" for key in unknown])
                value = UserData(**{key: value[key] for key in value if key not in unknown})
            return self.hashed(value) if isinstance(value, UserData) else {}
        except (TypeError, ConfigError) as error:
            self.shield.caught(error, f"{OF_HOST}user_data")
            return {}

    # -- tags ------------------------------------------------------------------------------------

    def new_key(self, path: str | None = None, tenant: str = "") -> PageKey:
        """The key of a page that has no event minted for it, see page_key()."""
        event = PageEvent("", self.mint(signed_name("", tenant), None), {}, ())
        key = page_key([event], path, self.page_digest, tenant)
        assert key is not None
        return key

    def shows(self, key: PageKey, path: str) -> bool:
        """Whether the app answered the page of this key, which is ours, at this path."""
        event = PageEvent(key.event_name, key.event_id, {}, ())
        wanted = page_key([event], path, self.page_digest)
        return wanted is not None and equal(key.page, wanted.page)

    def pixels_knowing(
        self, known: Sequence[Mapping[str, Any]], tenant: Tenant | None = None
    ) -> list[PixelEntry]:
        """The pixels of a page; with advanced_matching also what user_data is `known`."""
        takes = self._takes if tenant is None else {one.id: one.events for one in tenant.pixels}
        if not (self.config.advanced_matching and known):
            return self.pixels if tenant is None else pixel_entries(takes)
        matching: dict[str, Any] = {}
        for data in known:
            matching |= data
        return pixel_entries(takes, matching)

    # -- visitors --------------------------------------------------------------------------------

    def client(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Client:
        """Where an ASGI http scope comes from, and how the browser calls the site."""
        peer = (scope.get("client") or (None,))[0]
        return read_client(peer, scope.get("scheme", "http"), headers, self.proxies)

    def address(self, scope: Mapping[str, Any]) -> str:
        """The address that a scope comes from, be it a visitor's or of the site's own network."""
        peer = (scope.get("client") or (None,))[0]
        return str(address_of(peer, headers_of(scope), self.proxies) or "")

    def signed(self, visitor: Visitor) -> Visitor:
        """The same visitor, ready for dumps()."""
        visitor = replace(visitor, signed_at=int(self.clock()))
        return replace(visitor, signed=self._visitors.sign(visitor.encode()))

    def checked(self, visitor: Visitor) -> Visitor:
        """Raises BadVisitor unless this site signed it, as it is now."""
        if not visitor.signed or self._visitors.unsign(visitor.signed) is None:
            raise BadVisitor("found a visitor that this site did not sign, expected dumps() of it")
        if Visitor.loads(visitor.signed) != visitor:
            raise BadVisitor(
                "found a visitor that was changed after signing, expected loads() of it"
            )
        return visitor

    def decided(self, permission: Permission, headers: Mapping[str, str]) -> None:
        """Count what was decided about the visitor of a page: by which rule, and nobody's name."""
        self.consented("held" if self.holds(permission) else permission.consent, headers)

    def consented(self, what: str, headers: Mapping[str, str]) -> None:
        """Count what became of a page by consent: an answer, held, released or withdrawn.

        A held one that was "refused" is counted apart: that is an answer, too.
        """
        rule = "gpc" if self.consent.denies(headers) else self.consent.name
        if rule:
            is_no = what == "refused"
            self.count(Count("refused", rule) if is_no else Count("consent", f"{rule} {what}"))

    def holds(self, permission: Permission | None) -> bool:
        """Whether events wait in the page until its visitor answers."""
        return permission is not None and permission.waits and self.config.hold_minutes > 0

    # -- orders ----------------------------------------------------------------------------------

    def is_repeated(self, event: Event, question: Question, seconds: float = MOMENT) -> bool:
        """Whether no copy of an order may leave any more, and counts that. Waits so long for it.

        Meta would count it again. Where that cannot be found out in time it goes out, and that is
        counted too.
        """
        try:
            known = question.result(min(seconds, self.store.recall_seconds))
        except (TimeoutError, CancelledError):
            self.count(Count("error", "the memory of orders: TimeoutError"))
            return False
        except Exception as error:
            self.shield.caught(error, "the memory of orders")
            return False
        if known is None or not known.is_over(self.clock()):
            return False
        self.suppressed("repeated", [(event.event_name, event.pixel_ids)])
        return True

    # -- storing ---------------------------------------------------------------------------------

    def issue(
        self, events: Sequence[Event], visitor: Visitor | None, browser: str
    ) -> Commit | None:
        """Put events into the outbox; their commit when the response must wait for the disk.

        `browser` is the cause that stands until the browser says otherwise.
        """
        if self.tap is not None:
            self.tap.issued(self, events)
        rows = self._rows(events, visitor, browser)
        if not rows:
            return None
        durability = self.config.durability
        wait = durability == "all" or self.config.delivery == "before_answer"
        if durability == "conversions":
            for row in rows:
                if row.event_name != "PageView":
                    wait = True
        try:
            return self.store.append(rows, wait=wait)
        except StoreError as error:
            # The store has counted what it dropped.
            self.shield.caught(error, "the store")
            return None

    def rendered(self, events: Iterable[PageEvent], tenant: Tenant | None) -> None:
        """Events of an earlier request are in what the browser gets now."""
        rows = [
            Row(
                event.event_id,
                event.event_name,
                pixel_id if tenant is None else own_id(pixel_id, tenant.key),
                self.clock(),
                None,
                "unmapped",
                "not_run",
            )
            for event in events
            for pixel_id in event.pixel_ids
        ]
        with self.shield.guard("the store"):
            self.store.append(rows, wait=False)

    def _rows(self, events: Sequence[Event], visitor: Visitor | None, browser: str) -> list[Row]:
        page = segment = host = ""
        url: str | None = None
        known: dict[str, str] = {}
        is_program = False
        who: Sequence[str | None] = (None, None)
        if visitor is not None:
            url = visitor.event_source_url
            if url:
                named = _page_name_of if len(url) <= _REMEMBERED else _page_name_of.__wrapped__
                page = self._listed(named(url), visitor.client_ip_address)
                host = url.split("/", 3)[2].lower()
                if host in self._pages:
                    self._pages.move_to_end(host)
                else:
                    host = self._listed(host, visitor.client_ip_address)
            known = payload.known_of(visitor)
            says = (visitor.client_user_agent or "")[:AGENT_READ]
            agent = agent_of(says)
            segment = BETWEEN.join((agent, device_of(says), visitor.country, host))
            # Each browser says that it is Mozilla, and of those that add "compatible" one is left.
            is_program = agent in _NO_FAMILY and (
                not says.startswith(_BROWSERS) or ("compatible;" in says and "MSIE" not in says)
            )
            who = (visitor.fbp, f"{visitor.client_ip_address} {visitor.client_user_agent}")
        rows: list[Row] = []
        for event in events:
            name, given = event.event_name, event.custom_data
            value = given.get("value")
            if visitor is not None and name not in OFTEN:
                repeated, beside = self._repeats.look(event, visitor, page, event.event_time)
                for pixel_id in event.pixel_ids if repeated or beside else ():
                    if repeated:
                        self.count(Count("repeated", "", name, pixel_id))
                    if beside:
                        first, second = sorted((name, beside))
                        self.count(Count("beside", second, first, pixel_id))
            user_data = event.user_data
            for key, text in known.items():
                user_data.setdefault(key, text)
            match_keys = 0
            for key in user_data:
                match_keys |= BITS.get(key, 0)
            body: bytes | None = None
            state: ServerState = "unmapped"
            digest, cause, kept_at = "", browser, event.event_time
            currency, amount = worth(given) if value is not None else ("", 0)
            source = "website" if "client_user_agent" in user_data and url else self._without_page
            if event.details:
                source = self.source(event, visitor)
                if source == "physical_store":
                    # The store gives up an event after a week; Meta takes these for longer.
                    kept_at = min(self.clock(), kept_at + max_age(source) - MAX_AGE)
            alone = source != "website" or (event.send == "server" and not event.route)
            if alone and browser == "not_rendered":
                cause = UNPAIRED
            elif browser == "not_run" and is_program:
                cause = "no_browser"
            if event.send == "browser":
                pass
            elif (given or name == "Purchase") and refused_by_meta(name, given):
                state = "invalid"
                self._refused(event)
            else:
                body, state = payload.encode(event, visitor, source), "pending"
                if value is not None:
                    digest = self.digest(value, given.get("currency"))
            event_id, use = event.event_id, ""
            for said in who:  # as use() does, without a call for each event of each page
                known_by = f"{event_id} {said}".encode("utf-8", "surrogatepass")
                use += "--------" if said is None else self._use_digest(known_by).hexdigest()
            if event.told == "over":
                use = ""
            elif event_id[0] != "t" or event_id[20:21] != ".":
                use += self._order_of(event, visitor)
            for pixel_id in event.pixel_ids:
                rows.append(
                    Row(event.event_id, name, pixel_id, kept_at, body, state, cause,
                        match_keys, event.route, page, segment, digest, use,
                        currency, amount)
                )  # fmt: skip
        return rows

    def source(self, event: Event, visitor: Visitor | None) -> str:
        """Where an event happened: as was said, "website" with a page, else as the config has it.

        Meta wants the address of the page and a user agent with an event of a website.
        """
        said: str | None = event.details.get("action_source")
        if said is not None:
            return said
        has_page = self.has_page(event, visitor, event.details.get("event_source_url"))
        return "website" if has_page else self._without_page

    def has_page(self, event: Event, visitor: Visitor | None, url: str | None) -> bool:
        """Whether all is known of an event's page; its address may be given as `url`."""
        url = url or (visitor.event_source_url if visitor else None)
        known = "client_user_agent" in event.user_data
        return bool(url and (known or (visitor and visitor.client_user_agent)))

    def _order_of(self, event: Event, visitor: Visitor | None) -> str:
        """What an event is about whose event_id others may have: see Use in store/records.py."""
        event_id, order_id = event.event_id, event.custom_data.get("order_id")
        signed = event.event_name
        if self.tenants is not None and event.pixel_ids:
            signed = signed_name(signed, event.pixel_ids[0].partition("@")[2])
        if event_id[0] != "k" or not self.minter.verifies(event_id, signed):
            if event.told == "order" and visitor is not None:
                return "s" + self.use(event_id, [_without_query(visitor)])[:7]
            return f"u{random.getrandbits(28):07x}"
        if isinstance(order_id, str | int) and order_id:
            return "o" + self.use(event_id, [str(order_id)])[:7]
        url = _without_query(visitor) if visitor is not None else ""
        return "p" + self.use(event_id, [url])[:7] if url else "--------"

    def use(self, event_id: str, said: Sequence[str | None]) -> str:
        """Keyed hashes of what is said of a use of `event_id`, see Use in store/records.py."""
        use = ""
        for one in said:
            text = f"{event_id} {one}".encode("utf-8", "surrogatepass")
            use += "--------" if one is None else self._use_digest(text).hexdigest()
        return use

    def ended_before(self, commit: Commit) -> None:
        """An answer ends although its events are not on disk: it is told, and counted."""
        counted = self.store.ended_before(commit)
        self.shield.caught(commit.failure(), "the commit", is_counted=counted)

    def count(self, *counts: Count) -> None:
        """Add to the counters."""
        if counts:
            if self.tap is not None:
                self.tap.counted(counts)
            self.store.count(counts)

    def suppressed(self, reason: str, names: Iterable[tuple[str, Iterable[str]]]) -> None:
        """No copy of events of these (name, pixel ids) goes out: one anonymous count each."""
        self.count(
            *(Count("suppressed", reason, name, pixel) for name, ids in names for pixel in ids)
        )

    def dropped(self, reason: str, name: str, pixel_ids: Iterable[str]) -> None:
        """An event is lost: one count for each of its pixels."""
        self.count(*(Count("dropped", reason, name, pixel) for pixel in pixel_ids))

    def _refused(self, event: Event) -> None:
        """The server copy of an event lacks what Meta refuses it without: counted, and told."""
        name, missing = event.event_name, " and ".join(lacking(event.event_name, event.custom_data))
        self.dropped("invalid", name, event.pixel_ids)
        place = f"EventRoute({event.route!r})" if event.route else "track()"
        place = "mirror" if event.told else place
        self.notices.about("refused", f"{name} of {place}", missing=missing)

    def page_of(self, path: str, address: str | None) -> str:
        """A page for the counters: its path without what is personal; "" for one too many.

        `address` is the IP address of the visitor who brings it.
        """
        segments = quote(path[:URL_READ], safe=PATH_SAFE).split("/")
        return self._listed(_page_name("/".join(parts_of_path(segments))), address)

    def _listed(self, page: str, address: str | None) -> str:
        pages = self._pages  # what was used lately stays
        if page not in pages and not self._new_pages.take(address, self.clock()):
            return ""
        pages.pop(page, None)
        pages[page] = None
        if len(pages) > _MOST_PAGES:
            pages.popitem(last=False)
        return page

    def left_out(self, event_name: str, keys: Iterable[str]) -> None:
        """Count values that were missing or unusable."""
        self.count(*(Count("left_out", key, event_name) for key in keys))


def names_nothing(dedupe_key: object) -> bool:
    """Whether a dedupe_key is what code gives that has no order number; "0" may be one, 0 not."""
    if isinstance(dedupe_key, int | float | Decimal) and dedupe_key == 0:
        return True
    return str(dedupe_key).strip().casefold() in _NO_KEYS


def _without_query(visitor: Visitor) -> str:
    return (visitor.event_source_url or "").partition("?")[0]


def _bad_time(given: object, at: float | None, source: str | None) -> str:
    """What is wrong with an event_time, which is `at` where it is one."""
    found = repr(given) if isinstance(given, int | float) else f"a {type(given).__name__}"
    if at is None:
        return f"found {found}, expected Unix seconds or a datetime with a time zone"
    days = {MAX_AGE: "seven"}.get(max_age(source), "62")
    return (
        f"found {found}, expected Unix seconds or a datetime of the last {days} days, less an hour "
        "for the way to Meta"
    )


def _page_name(path: str) -> str:
    """The path without what is personal."""
    parts = path.split("/")
    personal = 0
    for n, part in enumerate(parts):
        if len(part) > 40 or part == "-" or _PERSONAL.search(part):
            personal += 1
            parts[n] = "{id}" if personal == 1 else f"{{id{personal}}}"
    return "/".join(parts)[:100]


@lru_cache(maxsize=1024)
def _page_name_of(url: str) -> str:
    """The same of an address that source_url() made."""
    return _page_name("/" + url.partition("?")[0].split("/", 3)[-1])
