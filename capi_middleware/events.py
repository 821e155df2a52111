"""The words everybody uses: events, their rows, sightings of browser copies, and causes."""

from typing import Any, Literal, NamedTuple, get_args

from msgspec import Struct, field

from capi_middleware.private import Private

#: Meta's standard events (Meta Pixel Reference) plus PageView. Any other name is a custom event.
StandardEvent = Literal[
    "PageView", "AddPaymentInfo", "AddToCart", "AddToWishlist", "CompleteRegistration", "Contact",
    "CustomizeProduct", "Donate", "FindLocation", "InitiateCheckout", "Lead", "Purchase",
    "Schedule", "Search", "StartTrial", "SubmitApplication", "Subscribe", "ViewContent",
]  # fmt: skip
STANDARD_EVENTS: frozenset[str] = frozenset(get_args(StandardEvent))
#: What an event may be called: editors offer the standard ones, and any text is allowed.
EventName = StandardEvent | str

#: How an error is counted that the host's own code raised: this and its setting.
OF_HOST = "the setting "

#: The outcome of a browser copy that is known to have left.
SENT = "sent"

#: Stands between the parts of a segment, see Row.
BETWEEN = "\t"

#: What has no twin by nature: an event beyond the page, or one that only the server shall send.
UNPAIRED = "unpaired"

#: Why a page got no tag, by the words of page/gate.py and page/injector.py.
NO_TAG = frozenset(
    {"encoded", "no_transform", "xhtml", "fragment", "no_place", "tag_failed", "amp", "charset",
     "attachment", "offloaded", "content_length", "ambiguous_type", "signed", "integrity_trailer",
     "tagged"}
)  # fmt: skip
#: Why no page could carry the event so far: the next one may.
UNSEEN_BROWSER_CAUSES = (
    "not_rendered", UNPAIRED, "other_origin", "other_site", *sorted(NO_TAG),
)  # fmt: skip
#: Those that a better answer may replace.
VAGUE_BROWSER_CAUSES = (
    *UNSEEN_BROWSER_CAUSES, "not_run", "no_browser", "unknown", "left_early",
)  # fmt: skip

#: What the pixel script may report in a beacon.
BEACON_OUTCOMES = frozenset(
    {SENT, "unknown", "left_early", "script_blocked", "script_replaced", "config_blocked", "csp",
     "request_blocked", "request_replaced", "consent", "bot"}
)  # fmt: skip

#: Why a browser copy is missing. The report alone finds "other_name", which two copies show.
BROWSER_CAUSES = tuple(
    dict.fromkeys(
        [*VAGUE_BROWSER_CAUSES, *sorted(BEACON_OUTCOMES - {SENT}), "replay", "other_name"]
    )
)

#: States of a server copy. `leased` is shown as pending, `dead` as rejected; `invalid` is one that
#: Meta would refuse and that never waited; `stopped` one that the host's before_send stopped, or
#: that was forgotten. `unsigned` is none that a browser told of under an event_id that is not ours:
#: it stays apart from coverage.
ServerState = Literal[
    "pending", "leased", "delivered", "dead", "expired", "dropped", "invalid", "stopped",
    "consent", "bot", "unmapped", "unknown", "unsigned",
]  # fmt: skip
#: Those of an event that only a browser told of: its server copy may come yet.
BROWSER_ONLY: tuple[ServerState, ...] = ("unknown", "unsigned")


#: What shows of an event that only a page's own code knows: the page that tells of it is one whose
#: address names the event_id, and the app answered it ("order"); a page of ours tells of it
#: ("call"), or told of too many before ("over"). "" for events that the server made.
Told = Literal["", "over", "call", "order"]


class PageKey(NamedTuple):
    """What shows that a page of ours was open: an event that was minted for it.

    `page` is its keyed hash with the address of which the app answered that page, "" where nothing
    shows that.
    """

    event_name: str
    event_id: str
    page: str = ""


class Event(Private, Struct):
    """One conversion: the two copies share its `event_id` and `event_name`.

    `event_time` is Unix time in seconds (float; Meta gets whole seconds). `user_data` holds
    only hashed values and the keys that Meta wants unhashed. `custom_data` is what both copies
    carry. `pixel_ids` are the pixels it goes to. `send` names the copies that go out. `route` is
    the match of the EventRoute that made it, "" for other events. `told` is what shows of one that
    a page's own code made, see Told. `details` are other fields of Meta's event object that were
    given, by their names: action_source, opt_out …
    """

    event_id: str
    event_name: str
    event_time: float
    pixel_ids: tuple[str, ...]
    custom_data: dict[str, Any] = field(default_factory=dict)
    user_data: dict[str, Any] = field(default_factory=dict)
    send: Literal["both", "server", "browser"] = "both"
    route: str = ""
    told: Told = ""
    details: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Event({self.event_name!r}, event_id={self.event_id!r})"


class PageEvent(
    Private,
    Struct,
    omit_defaults=True,
    rename={
        "event_name": "n", "event_id": "i", "custom_data": "d", "pixel_ids": "p",
        "is_custom": "c", "once": "o", "send": "s",
    },
):  # fmt: skip
    """An event as the pixel script reads it, in a tag, a cookie or a header.

    `is_custom` is 1 for a name that is none of Meta's; `once` is 1 for an event that was carried
    here and may be fired once in this browser. `send` as in Event, said only of one that is signed
    and held until its visitor consents.
    """

    event_name: str
    event_id: str
    custom_data: dict[str, Any]
    pixel_ids: tuple[str, ...]
    is_custom: int = 0
    once: int = 0
    send: Literal["both", "server", "browser"] = "both"


class Row(Private, Struct, frozen=True):
    """One event for one pixel, as the store keeps it from mint to report.

    `event_time` is Unix time in seconds. `payload` is the event object of the Graph API as JSON
    bytes, ready to be joined into a request; None when no server copy goes out. `browser` is
    "sent" or one of BROWSER_CAUSES. `match_keys` is a mask, see meta/match_keys.py. `route` as in
    Event; `page` is the path of the page without what is personal, `segment` what else the
    report splits by: the browser's family, the device (capture/agents.py), the country and the
    host of the page, with BETWEEN between them; `digest` a keyed hash of the server copy's value
    and currency, `uses` what tells this use of the event_id from others (Use in
    store/records.py); each is "" where it is not known. `amount` is what it is worth, in the
    smallest unit of `currency` ("" when unknown).
    """

    event_id: str
    event_name: str
    pixel_id: str
    event_time: float
    payload: bytes | None
    server: ServerState = "pending"
    browser: str = "not_rendered"
    match_keys: int = 0
    route: str = ""
    page: str = ""
    segment: str = ""
    digest: str = ""
    uses: str = ""
    currency: str = ""
    amount: int = 0


class Sighting(Struct, frozen=True):
    """The browser's word about one event for one pixel. `outcome`: "sent" or a cause.

    `digest` is the keyed hash of the browser copy's value and currency where the page's own code
    set them, else "". `uses` is whose browser it was, as in Row. `server` is what stands for the
    server copy until there is one.
    """

    event_id: str
    event_name: str
    pixel_id: str
    outcome: str
    digest: str = ""
    uses: str = ""
    server: Literal["unknown", "unsigned"] = "unknown"


class Count(Struct, frozen=True):
    """`n` more of something that leaves no row. Never holds anything about a person.

    `kind` is one of: suppressed (by consent, bot...), dropped (lost knowingly), left_out (a value
    that could not be used), skipped (a page without tag), beacon (refused), error (swallowed by
    the shield), unmapped (only the page's own pixel code fires it; `reason` is the page's path
    without what is personal), no_event_id (a call of the page's own pixel code that goes out
    bare), csp (a page whose policy blocks something; `reason` is the directive), repeated (looks
    like an event of the same visitor seconds before), rested (a pixel has to wait, by Meta's
    code), skewed (our clock is ahead of Meta's or behind), damaged (what became of a damaged file:
    saved, settled or sums that could not be read; what waited is dropped), reused (one event_id
    for several events, see Use in store/records.py), beside (with another conversion of the visitor
    on the page; `reason` is its name), unsigned (only a beacon told of it, under an event_id that
    is not ours), consent (a page was shown; `reason` is the rule that decided and what, such as
    "tcf granted", "tcf held"), refused (a held page's visitor said no; `reason` is the rule),
    ip_family (of a page whose browser knows its address; `reason` is how it and the server see it,
    such as "IPv6 IPv4"), script (a browser loaded ours). `reason` says why, `event_name` and
    `pixel_id` are "" where they do not apply.
    """

    kind: Literal[
        "suppressed", "dropped", "left_out", "skipped", "beacon", "error", "unmapped",
        "no_event_id", "csp", "repeated", "rested", "skewed", "damaged", "reused",
        "beside", "unsigned", "consent", "refused", "ip_family", "script",
    ]  # fmt: skip
    reason: str
    event_name: str = ""
    pixel_id: str = ""
    n: int = 1
