"""Match keys: which missing one would be worth most, and where the app could supply it. Pure.

These are shares of presence, not Meta's score: Meta publishes no formula for event match quality.
"""

from collections.abc import Collection, Iterable
from importlib.resources import files

import msgspec

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
_FIXES: dict[str, str] = msgspec.toml.decode(
    files("capi_middleware.report").joinpath("match_keys.toml").read_bytes()
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
    found = [
        MatchKeyAdvice(
            event_name=event.event_name,
            pixel_id=event.pixel_id,
            key=key,
            priority=priority,
            share=share,
            events=event.server,
            worth=round(_WEIGHTS[priority] * (1 - share) * event.server, 1),
            fix=_fix(key, event),
        )
        for key, priority in PRIORITIES.items()
        if event.server and priority in priorities and MATCH_KEYS[key].what
        if (share := event.match_keys.get(key, 0.0)) < ENOUGH
    ]
    return max(found, key=lambda one: one.worth, default=None)


def _fix(key: str, event: EventReport) -> str:
    name, origins = event.event_name, event.match_keys_by_origin
    # Of a request without a page the user agent is known, of a webhook or job it is not.
    seen = origins.server_only.keys.get("client_user_agent", 0.0)
    of_a_job = origins.server_only.events > origins.browser.events and seen < 0.5
    if key in ("client_ip_address", "fbp"):
        case = "visitor_of_a_job" if of_a_job else key
    elif of_a_job:
        case = "job"
    elif name in ORDERS:
        case = "order"
    elif name in FORMS:
        case = "form"
    else:
        case = "country" if key == "country" else "signed_in"
    told = MATCH_KEYS[key]
    return _FIXES[case].format(event=name, key=key, what=told.what, field=told.field)
