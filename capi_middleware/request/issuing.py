"""Issuing: an event becomes rows in the store, for requests and for jobs alike."""

import re
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import lru_cache
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from capi_middleware.capture.agents import agent_of
from capi_middleware.capture.carrying import Carrier
from capi_middleware.capture.client import Client, Proxies, read_client
from capi_middleware.capture.consent import ConsentRule
from capi_middleware.capture.digesting import ValueDigest
from capi_middleware.capture.identity import identify, set_cookie_header
from capi_middleware.capture.mirroring import KEY_SECONDS, Mirror
from capi_middleware.capture.repeats import OFTEN, Repeats
from capi_middleware.capture.urls import scrub_url, source_url, urlsplit_safely
from capi_middleware.config.expressions import Template, parse
from capi_middleware.config.notices import Notices
from capi_middleware.config.routes import EventRoute
from capi_middleware.config.settings import Config
from capi_middleware.errors import BadVisitor, StoreError
from capi_middleware.events import Count, Event, Row, match_key_mask
from capi_middleware.meta import payload
from capi_middleware.meta.custom_data import clean, refused_by_meta
from capi_middleware.meta.user_data import UserData
from capi_middleware.meta.visitor import Visitor
from capi_middleware.page.tag import pixel_entries
from capi_middleware.private import Private
from capi_middleware.shield import Shield
from capi_middleware.signing import Minter, TextSigner
from capi_middleware.store.commits import Commit
from capi_middleware.store.store import Store

#: Pages that are told apart: anybody may ask for any number of paths.
_MOST_PAGES = 200
#: Parts of a path that may name a person or a thing.
_PERSONAL = re.compile(r"[\d@]")


class RequestIdentity(Private, Struct, frozen=True):
    """What a request says about its visitor; `new_cookies` are (name, Set-Cookie value)."""

    fbp: str | None
    fbc: str | None
    event_source_url: str | None
    referrer_url: str | None
    new_cookies: Sequence[tuple[str, bytes]]


class Issuer:
    """Mints, completes and stores events. One per process."""

    def __init__(
        self, config: Config, store: Store, clock: Callable[[], float] = time.time
    ) -> None:
        self.config = config
        self.store = store
        self.shield: Shield = Shield(store.count)
        self.notices: Notices = Notices(config.debug)
        self.minter: Minter = Minter(config.secrets)
        #: The pixels of every page, see pixel_entries().
        self.pixels: list[dict[str, Any]] = pixel_entries(
            {one.id: one.events for one in config.pixels}
        )
        self._route_pixel_ids = {
            id(route): config.pixel_ids(route.event_name, route.pixels) for route in config.routes
        }
        self._pages: set[str] = set()
        self._repeats = Repeats()
        self.mirror: Mirror = Mirror(config.mirror)
        self.carrier: Carrier = Carrier(TextSigner(config.secrets, "carried"))
        self._visitors = TextSigner(config.secrets, "visitor")
        #: digest(value, currency) of either copy of an event.
        self.digest: ValueDigest = ValueDigest(config.secrets)
        gpc = config.privacy == "honor-gpc"
        self.consent: ConsentRule = ConsentRule(config.consent, gpc=gpc)
        self.user_data: Template = parse(config.user_data)
        self._proxies = Proxies.of(config.trusted_proxies)
        self._drop = frozenset(name.lower() for name in config.drop_parameters)
        self._clock = clock

    # -- making events ---------------------------------------------------------------------------

    def mint(self, event_name: str, dedupe_key: object) -> str:
        """A signed event_id."""
        return self.minter.mint(event_name, self._clock(), dedupe_key)

    def opens(self, key: tuple[str, str] | None) -> bool:
        """Whether `key`, an (event_name, event_id), shows that a page of ours is still open."""
        if key is None or not self.minter.verifies(key[1], key[0]):
            return False
        minted = self.minter.minted_at(key[1])
        return minted is not None and abs(self._clock() - minted) <= KEY_SECONDS

    def new_event(self, event_name: str, event_id: str, route: EventRoute | None) -> Event:
        """An event that happens now, for the pixels of its route or all that take it."""
        if route is None:
            pixel_ids = self.config.pixel_ids(event_name)
            return Event(event_id, event_name, self._clock(), pixel_ids)
        pixel_ids = self._route_pixel_ids[id(route)]
        return Event(
            event_id, event_name, self._clock(), pixel_ids, send=route.send, route=route.match
        )

    def custom_data(self, event_name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The usable custom_data; what is not usable is counted, or raised in debug."""
        cleaned, wrong = clean(event_name, given)
        if not wrong:
            return cleaned
        given_wrong = [key for key in wrong if key in given]
        if given_wrong and self.config.debug:
            raise ValueError(
                f"{event_name}: found unusable custom_data {given_wrong}, expected finite numbers, "
                "an ISO 4217 currency beside a value, and contents with ids"
            )
        self.left_out(event_name, given_wrong)
        return cleaned

    def check(self, event: Event) -> None:
        """In debug, raises ValueError for an event that Meta would refuse; else it is counted."""
        if self.config.debug and refused_by_meta(event.event_name, event.custom_data):
            raise ValueError(
                f"{event.event_name}: found custom_data with {sorted(event.custom_data)}, expected "
                "value and currency together (a Purchase needs both)"
            )

    def hashed(self, user_data: UserData) -> dict[str, Any]:
        """The user_data object of the Graph API, hashed; what cannot be normalised is counted."""
        hashed, left = user_data.hashed(self.config.default_region)
        self.left_out("", [f"user_data.{key}" for key in left])
        return dict(hashed)

    # -- visitors --------------------------------------------------------------------------------

    def client(self, scope: MutableMapping[str, Any], headers: Mapping[str, str]) -> Client:
        """Where an ASGI http scope comes from, and how the browser calls the site."""
        peer = (scope.get("client") or (None,))[0]
        return read_client(peer, scope.get("scheme", "http"), headers, self._proxies)

    def identify(
        self, scope: MutableMapping[str, Any], headers: Mapping[str, str], client: Client
    ) -> RequestIdentity:
        """fbp and fbc (read or new) and the URLs of an ASGI http scope."""
        scheme, host = client.scheme, client.host
        query, referer = scope.get("query_string", b""), headers.get("referer")
        found = identify(
            cookie_header=headers.get("cookie", ""),
            query=query.decode("latin-1"),
            referer=referer,
            host=host,
            now_ms=int(self._clock() * 1000),
        )
        raw_path = scope.get("raw_path") or scope["path"].encode()
        return RequestIdentity(
            found.fbp,
            found.fbc,
            event_source_url=source_url(scheme, host, raw_path, query, self._drop),
            referrer_url=scrub_url(referer, self._drop) if referer else None,
            new_cookies=[
                (name, set_cookie_header(name, value, found.domain, secure=scheme == "https"))
                for name, value in found.new_cookies
            ],
        )

    def signed(self, visitor: Visitor) -> Visitor:
        """The same visitor, ready for dumps()."""
        return replace(visitor, signed=self._visitors.sign(visitor.encode()))

    def checked(self, visitor: Visitor) -> Visitor:
        """Raises BadVisitor unless this site signed it."""
        if not visitor.signed or self._visitors.unsign(visitor.signed) is None:
            raise BadVisitor("found a visitor that this site did not sign, expected dumps() of it")
        return visitor

    # -- storing ---------------------------------------------------------------------------------

    def issue(
        self, events: Sequence[Event], visitor: Visitor | None, browser: str
    ) -> Commit | None:
        """Put events into the outbox; their commit when the response must wait for the disk.

        `browser` is the cause that stands until the browser says otherwise.
        """
        if visitor is not None:
            self._count_repeats(events, visitor)
        rows: list[Row] = []
        for event in events:
            rows += self._rows(event, visitor, browser)
        if not rows:
            return None
        durability = self.config.durability
        wait = durability == "all" or (
            durability == "conversions" and [row for row in rows if row.event_name != "PageView"]
        )
        try:
            return self.store.append(rows, wait=bool(wait))
        except StoreError as error:
            # The store has counted what it dropped.
            self.shield.caught(error, "the store")
            return None

    def _count_repeats(self, events: Sequence[Event], visitor: Visitor) -> None:
        """An order that is counted twice, because nothing says that it is the same one."""
        who = visitor.fbp or (
            visitor.client_ip_address and (visitor.client_ip_address, visitor.client_user_agent)
        )
        if not who:
            return  # behind an unnamed proxy, all who have the same browser are alike
        for event in events:
            value = event.custom_data.get("value")
            random = event.event_id.startswith("t")
            if value is None or not random or event.event_name in OFTEN:
                continue
            currency = event.custom_data.get("currency")
            if self._repeats.seen(who, event.event_name, value, currency, now=self._clock()):
                self.count(*(Count("repeated", "", event.event_name, p) for p in event.pixel_ids))

    def rendered(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Events of an earlier request are in what the browser gets now (pixel.page_events())."""
        rows = [
            Row(
                event_id=event["i"], event_name=event["n"], pixel_id=pixel_id,
                event_time=self._clock(), payload=None, server="unmapped", browser="not_run",
                match_keys=0,
            )
            for event in events
            for pixel_id in event["p"]
        ]  # fmt: skip
        try:
            self.store.append(rows, wait=False)
        except StoreError as error:
            self.shield.caught(error, "the store")

    def now(self) -> float:
        """Unix time in seconds."""
        return self._clock()

    def _rows(self, event: Event, visitor: Visitor | None, browser: str) -> Iterable[Row]:
        if visitor is not None:
            payload.complete(event.user_data, visitor)
        match_keys = match_key_mask(event.user_data)
        ours = event.send != "browser"
        refused = ours and refused_by_meta(event.event_name, event.custom_data)
        body = payload.encode(event, visitor) if ours and not refused else None
        state = "pending" if body is not None else "dropped" if refused else "unmapped"
        given = event.custom_data
        digest = self.digest(given.get("value"), given.get("currency")) if body else ""
        url = visitor.event_source_url if visitor is not None else None
        page = self.page_of(_path_of(url)) if url else ""
        agent = agent_of(visitor.client_user_agent) if visitor is not None else ""
        for pixel_id in event.pixel_ids:
            yield Row(
                event.event_id, event.event_name, pixel_id, event.event_time, body,
                state,  # type: ignore[arg-type] # one of the three literals above
                browser, match_keys, route=event.route, page=page, agent=agent, digest=digest,
            )  # fmt: skip
            if refused:
                self.count(Count("dropped", "invalid", event.event_name, pixel_id))

    def count(self, *counts: Count) -> None:
        """Add to the counters."""
        if counts:
            self.store.count(counts)

    def suppressed(self, reason: str, event: Event) -> None:
        """No copy of this event goes out: one anonymous count for each pixel."""
        names = [(event.event_name, pixel_id) for pixel_id in event.pixel_ids]
        self.count(*(Count("suppressed", reason, name, pixel) for name, pixel in names))

    def page_of(self, path: str) -> str:
        """A page for the counters: its path without what is personal, at most 200 of them."""
        page = _page_name(path)
        if page not in self._pages and len(self._pages) < _MOST_PAGES:
            self._pages.add(page)
        return page if page in self._pages else ""

    def left_out(self, event_name: str, keys: Iterable[str]) -> None:
        """Count values that were missing or unusable."""
        for key in keys:
            self.count(Count("left_out", key, event_name))


@lru_cache(maxsize=1024)
def _path_of(url: str) -> str:
    path: str = urlsplit_safely(url).path
    return path or "/"


@lru_cache(maxsize=1024)
def _page_name(path: str) -> str:
    """The path without what is personal."""
    parts = path.split("/")
    personal = [n for n, part in enumerate(parts) if len(part) > 40 or _PERSONAL.search(part)]
    for count, n in enumerate(personal):
        parts[n] = f"{{id{count + 1}}}" if count else "{id}"
    return "/".join(parts)[:100]
