"""Match keys: which missing one would be worth most, and where the app could supply it. Pure.

These are shares of presence, not Meta's score: Meta publishes no formula for event match quality.
"""

from collections.abc import Collection, Iterable

from capi_middleware.meta.match_keys import MATCH_KEYS, Priority
from capi_middleware.report.model import EventReport, MatchKeyAdvice

_WEIGHTS: dict[Priority, int] = {"high": 3, "medium": 2, "low": 1}
#: Meta's order of priority.
PRIORITIES: dict[str, Priority] = {
    name: priority
    for priority in _WEIGHTS
    for name, key in MATCH_KEYS.items()
    if key.priority == priority
}
#: A share from which a key counts as covered.
ENOUGH = 0.9
FORMS = frozenset(
    {"CompleteRegistration", "Contact", "Donate", "Lead", "Schedule", "StartTrial",
     "SubmitApplication", "Subscribe"}
)  # fmt: skip
ORDERS = frozenset({"AddPaymentInfo", "InitiateCheckout", "Purchase"})
#: Where a page's visitor could be known from, for the keys that no customer tells.
_OF_PAGES = {
    "client_ip_address": "The app sees the address of a proxy instead of the visitor's: name the "
    'proxies in Config(trusted_proxies=["10.0.0.0/8"]), or "unix" for a socket.',
    "fbp": "The _fbp cookie goes out with every page that carries the pixel tag: let events happen "
    "on such pages, and let caches in front of the app keep Set-Cookie.",
}
_KEEP_THE_VISITOR = (
    "These events come from a webhook or job that does not know the visitor: keep "
    "current_visitor().dumps() with the order at checkout, and give it back with "
    "CAPI.track(..., visitor=Visitor.loads(text))."
)


def advice_on(events: Iterable[EventReport]) -> list[MatchKeyAdvice]:
    """What each event should carry besides, the advice that is worth most first."""
    found = [one for one in map(advise, events) if one is not None]
    return sorted(found, key=lambda one: -one.worth)


def advise(
    event: EventReport, priorities: Collection[Priority] = tuple(_WEIGHTS)
) -> MatchKeyAdvice | None:
    """The missing key that would be worth most to one event; None when nothing is missing.

    Only keys to which Meta gives one of these `priorities`.
    """
    best = None
    for key, priority in PRIORITIES.items():
        share = event.match_keys.get(key, 0.0)
        is_asked_for = priority in priorities and MATCH_KEYS[key].what
        if not is_asked_for or share >= ENOUGH or not event.server:
            continue
        worth = round(_WEIGHTS[priority] * (1 - share) * event.server, 1)
        if best is None or worth > best.worth:
            best = MatchKeyAdvice(
                event_name=event.event_name,
                pixel_id=event.pixel_id,
                key=key,
                priority=priority,
                share=share,
                events=event.server,
                worth=worth,
                fix=_fix(key, event),
            )
    return best


def _fix(key: str, event: EventReport) -> str:
    name, origins = event.event_name, event.match_keys_by_origin
    # Of a request without a page the user agent is known, of a webhook or job it is not.
    seen = origins.server_only.keys.get("client_user_agent", 0.0)
    apart = origins.server_only.events > origins.browser.events and seen < 0.5
    if key in _OF_PAGES:
        return _KEEP_THE_VISITOR if apart else _OF_PAGES[key]
    what, field = MATCH_KEYS[key].what, MATCH_KEYS[key].field
    if apart:
        return (
            f"These events come from a webhook or job: give {what} of the stored order or "
            f'customer, CAPI.track("{name}", visitor=..., user_data=UserData({key}=...)).'
        )
    if name in ORDERS:
        return (
            f'The checkout knows {what}: track("{name}", ..., user_data=UserData({key}=order.'
            f"{field})) in its view, also for guests."
        )
    if name in FORMS:
        return (
            f'The form asks for {what}, or could: EventRoute(..., user_data={{"{key}": '
            f'"{{form.{field}}}"}}), or track("{name}", user_data=UserData({key}=...)).'
        )
    if key == "country":
        return (
            'A CDN or load balancer knows the country: Config(user_data={"country": '
            '"{header.cf-ipcountry}"}) with the name of its header.'
        )
    return (
        f"Signed-in visitors have told {what}: Config(user_data=...) with a callable that gives "
        f"UserData({key}=user.{field}) for every event of theirs. Anonymous ones stay without."
    )
