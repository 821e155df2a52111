"""The inspector: single events with both copies, the same for the page and for the terminal."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from msgspec import Struct

from capi_middleware.config.pixels import own_id
from capi_middleware.config.settings import Config, named_events
from capi_middleware.events import SENT, STANDARD_EVENTS
from capi_middleware.meta.codes import meaning_of
from capi_middleware.meta.match_keys import match_keys_of
from capi_middleware.report.causes import cause_of, server_cause
from capi_middleware.report.html import filled
from capi_middleware.report.model import Side
from capi_middleware.report.window import iso
from capi_middleware.signing import Minter, signed_name
from capi_middleware.store.records import MOST_FOUND, Known
from capi_middleware.store.store import Store

#: How many events are shown at once.
MOST_SHOWN = 50
#: No event_id and no number of an order is longer, in characters.
_LONGEST = 200


class Sought(Struct, frozen=True):
    """Which events are asked for: all with "" everywhere.

    `of` is an event_id, or what the site gave as dedupe_key: the number of an order. `tenant` is
    the key of the tenant whose events they are.
    """

    event: str = ""
    of: str = ""
    tenant: str = ""


class ServerCopy(Struct, frozen=True):
    """What became of the copy that the server sends.

    `state` is one of events.ServerState; times are ISO 8601 in UTC: `at` of Meta's answer,
    `next_attempt` while it waits. `trace_id` is Meta's of the last request (fbtrace_id), for its
    support. `because` and `fix` say why it has not arrived, "" where it has.
    """

    state: str
    at: str | None
    attempts: int
    next_attempt: str | None
    trace_id: str
    because: str
    fix: str


class BrowserCopy(Struct, frozen=True):
    """What became of the copy that the browser sends; fields as in ServerCopy."""

    state: str
    at: str | None
    because: str
    fix: str


class InspectedEvent(Struct, frozen=True):
    """One event at one pixel: nothing in it is about a person.

    `match_keys` are the names of those that the server copy carries. `route` and `page` say where
    it happened, "" where that is not known.
    """

    event_id: str
    event_name: str
    pixel_id: str
    event_time: str
    route: str
    page: str
    match_keys: Sequence[str]
    server: ServerCopy
    browser: BrowserCopy


def parse_sought(params: Mapping[str, str], tenant: str = "") -> Sought:
    """What `?event= &id=` ask for."""
    event, of = (
        "".join(filter(str.isprintable, params.get(name, "")[:_LONGEST])).strip()
        for name in ("event", "id")
    )
    return Sought(event, of, tenant)


def read_events(store: Store, config: Config, sought: Sought) -> list[InspectedEvent]:
    """The newest events that are sought, at most MOST_SHOWN, the newest first.

    Reads the store: may take long. Those of one event_id or order are found among all that are
    stored; others among the newest NAMED_AMONG of the store. Raises StoreError when the store
    cannot be read.
    """
    store.flush(1.0)
    owner = own_id("", sought.tenant) if sought.tenant else ""
    if not sought.of:
        found = store.newest(MOST_SHOWN, sought.event, owner)
    else:
        found = [
            one
            for one in store.find(_ids(config, sought))
            if sought.event in ("", one.event_name) and one.pixel_id.endswith(owner)
        ][-MOST_SHOWN:]
    return [_inspected(one) for one in reversed(found)]


def _ids(config: Config, sought: Sought) -> list[str]:
    """The event_ids that may be meant: an order's follows from its number and the event's name.

    Each key of the site that still verifies may have signed it.
    """
    names = [sought.event] if sought.event else [*sorted(named_events(config)), *STANDARD_EVENTS]
    minted = [
        Minter([secret]).mint(signed_name(name, sought.tenant), 0.0, sought.of)
        for secret in config.secrets
        for name in dict.fromkeys(names)
    ]
    return [sought.of, *minted][:MOST_FOUND]


def _inspected(one: Known) -> InspectedEvent:
    waits = one.server in ("pending", "leased")
    because, fix = _why("server", server_cause(one.server), one.server == "delivered")
    if one.reason and (waits or one.server == "dead"):
        because, fix = meaning_of(one.reason)
        because = f"{because} ({one.reason})"
    return InspectedEvent(
        event_id=one.event_id,
        event_name=one.event_name,
        pixel_id=one.pixel_id,
        event_time=iso(int(one.event_time)),
        route=one.route,
        page=one.page,
        match_keys=match_keys_of(one.match_keys),
        server=ServerCopy(
            "pending" if waits else one.server,
            _moment(one.delivered_at),
            one.attempts,
            _moment(one.due_at) if one.server == "pending" else None,
            one.trace,
            because,
            fix,
        ),
        browser=BrowserCopy(
            one.browser, _moment(one.browser_at), *_why("browser", one.browser, one.browser == SENT)
        ),
    )


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else iso(int(seconds))


def _why(side: Side, word: str, arrived: bool) -> tuple[str, str]:
    if arrived:
        return "", ""
    cause = cause_of(side, word)
    return cause.because, cause.fix


def to_html(
    events: Sequence[InspectedEvent],
    sought: Sought,
    *,
    names: Mapping[str, str],
    path: str,
    nonce: str,
) -> str:
    """The page of these events.

    Args:
        events: what `read_events` gave for `sought`.
        sought: what was asked for.
        names: how pixels are called, by their numbers.
        path: where the report is served.
        nonce: of the Content-Security-Policy, for the one style element and the one script.
    """
    asked = {"event": sought.event, "id": sought.of, "tenant": sought.tenant}
    kept = {name: asked[name] for name in ("event", "tenant") if asked[name]}
    return filled(
        "events.html.jinja",
        events=events,
        sought=sought,
        names=names,
        most=MOST_SHOWN,
        path=path,
        json_url=f"{path}/events.json?{urlencode({k: v for k, v in asked.items() if v})}",
        report_url=f"{path}?{urlencode(kept)}" if kept else path,
        nonce=nonce,
    )
