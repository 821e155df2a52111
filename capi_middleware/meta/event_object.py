"""The event object beside name, people and money: what Meta's page "Server Event Parameters" lists.

One table for `track()`, `CAPI.track()` and `EventRoute`. Names that are almost one of Meta's, of a
parameter, a match key or a standard event, are found here as well.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from capi_middleware.events import STANDARD_EVENTS
from capi_middleware.meta.match_keys import MATCH_KEYS

#: Where an event happened: Meta wants one of these with each, and the sender vouches for it.
ActionSource = Literal[
    "email", "website", "app", "phone_call", "chat", "physical_store", "system_generated",
    "business_messaging", "other",
]  # fmt: skip
ACTION_SOURCES: tuple[str, ...] = get_args(ActionSource)
#: Which copies of an event go out.
Send = Literal["both", "server", "browser"]
#: Unix time in seconds, or a datetime that has a time zone.
Moment = int | float | Decimal | datetime
MESSAGING_CHANNELS = ("whatsapp", "messenger", "instagram")
#: New to what, or known to what.
_SEGMENTS = ("business", "business_line", "product_area", "medium")
SEGMENTATIONS = (
    *(f"new_customer_to_{one}" for one in _SEGMENTS),
    *(f"existing_customer_to_{one}" for one in _SEGMENTS), "customer_in_loyalty_program",
)  # fmt: skip
#: From facebook-business 26.0.3, AttributionData.
ATTRIBUTION_MODELS = (
    "customized_multi_touch", "first_touch", "last_click", "last_touch", "linear",
    "position_based", "time_decay", "unknown",
)  # fmt: skip
ATTRIBUTION_METHODS = ("ard", "deeplink", "gpir", "invalid_response", "mir", "srn")
ATTRIBUTION_FIELDS = frozenset(
    {"scope", "visit_time", "ad_id", "adset_id", "campaign_id", "attribution_share",
     "attribution_model", "attr_window", "attribution_value", "attribution_source",
     "touchpoint_type", "touchpoint_ts", "attribution_method", "decline_reason", "auditing_token",
     "linkage_key", "touchpoint_id", "attribution_setting", "total_credit", "partner_client_id"}
)  # fmt: skip
ORIGINAL_FIELDS = ("event_name", "event_time", "order_id", "event_id")

DAY = 86_400
#: How far back Meta takes an event_time, in seconds: with the whole request it refuses older ones.
MAX_AGE = 7 * DAY
MAX_AGE_PHYSICAL_STORE = 62 * DAY
#: user_data with no more than one of these sets of keys identifies nobody ("Best Practices").
_TOO_LITTLE = (
    frozenset({"ct", "country", "st", "zp", "ge", "client_user_agent"}),
    frozenset({"db", "client_user_agent"}), frozenset({"fn", "ge"}), frozenset({"ln", "ge"}),
)  # fmt: skip
_LONGEST = 1000
_LONGEST_URL = 2000
_SAFE_INTEGER = 2**53


def max_age(action_source: str | None) -> int:
    """How far back Meta takes an event of this action_source, in seconds."""
    return MAX_AGE_PHYSICAL_STORE if action_source == "physical_store" else MAX_AGE


def identifies(user_data: Mapping[str, Any]) -> bool:
    """Whether Meta takes this user_data for enough to look for a person."""
    keys = {key for key, value in user_data.items() if value}
    return not any(keys <= too_little for too_little in _TOO_LITTLE)


def moment_of(value: Any) -> float | None:
    """A Unix time in seconds from a number or an aware datetime; None for anything else.

    Requests have both as text, such as "1790000000" and "2026-11-28T16:00:00Z".
    """
    if isinstance(value, str):
        try:
            value = float(value) if value.isdecimal() else datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        return value.timestamp() if value.tzinfo is not None else None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        moment = float(value)
    except (OverflowError, ValueError):
        return None
    return moment if math.isfinite(moment) else None


def _one_of(words: tuple[str, ...]) -> "Field":
    return Field(lambda value: value if value in words else None, f"one of {', '.join(words)}")


class Field:
    """What one field takes: `read` gives it as JSON data, None for what Meta would refuse."""

    def __init__(self, read: Callable[[Any], Any], expected: str) -> None:
        self.read: Callable[[Any], Any] = read
        self.expected: str = expected


def _url(value: Any) -> str | None:
    if not isinstance(value, str) or len(value) > _LONGEST_URL or not value.isprintable():
        return None
    try:
        parts = urlsplit(value.strip())
    except ValueError:
        return None
    return value.strip() if parts.scheme in ("http", "https") and parts.hostname else None


def _original(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, Mapping) or not value or not set(value) <= {*ORIGINAL_FIELDS}:
        return None
    found: dict[str, Any] = {}
    for key, one in value.items():
        given = moment_of(one) if key == "event_time" else _plain(one)
        if given is None:
            return None
        found[key] = int(given) if key == "event_time" else str(given)
    return found


def _attribution(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, Mapping) or not value or not ATTRIBUTION_FIELDS.issuperset(value):
        return None
    found = {key: _plain(one) for key, one in value.items() if one is not None}
    model, method = found.get("attribution_model"), found.get("attribution_method")
    known = model in (None, *ATTRIBUTION_MODELS) and method in (None, *ATTRIBUTION_METHODS)
    return found if found and known and None not in found.values() else None


def _plain(value: Any) -> str | int | float | bool | None:
    """A text or number of a bounded length."""
    if isinstance(value, bool):
        return value
    if isinstance(value, datetime):
        moment = moment_of(value)
        return None if moment is None else int(moment)
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, int | float):
        return value if math.isfinite(value) and abs(value) < _SAFE_INTEGER else None
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST else None


#: By name, in Meta's order.
FIELDS: dict[str, Field] = {
    "action_source": _one_of(ACTION_SOURCES),
    "event_source_url": Field(_url, "the http(s) address of the page where it happened"),
    "referrer_url": Field(_url, "the http(s) address that the page was reached from"),
    "opt_out": Field(
        lambda value: value if isinstance(value, bool) else None,
        "a bool; True means attribution alone, and is no consent",
    ),
    "customer_segmentation": _one_of(SEGMENTATIONS),
    "original_event_data": Field(
        _original, f"a mapping of some of {', '.join(ORIGINAL_FIELDS)}, the time in Unix seconds"
    ),
    "attribution_data": Field(
        _attribution, "a mapping of the fields of Meta's AttributionData, such as ad_id"
    ),
    "messaging_channel": _one_of(MESSAGING_CHANNELS),
    "app_data": Field(
        lambda _: None,
        "nothing: events of a mobile app need what only its SDK knows (extinfo, install id)",
    ),
}
_NAMES = frozenset(FIELDS)
_SAID = ("event_time", "send", "pixels", "action_source")


def told(given: dict[str, Any], more: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a track() call gave of its arguments: custom_data, and what Issuer.say() takes.

    `given` are those that it names, `more` those that it does not.
    """
    said: dict[str, Any] = {}
    for name in _SAID:
        value = given.pop(name)
        if value is not None:
            said[name] = value
    if not _NAMES.isdisjoint(more):
        for name in _NAMES.intersection(more):
            said[name] = more.pop(name)
    given |= more
    for name in [*given]:
        if given[name] is None:
            del given[name]
    return given, said


def read_fields(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The usable ones of `given` fields; and what is wrong with others, by name, without a value.

    None is left out silently. Never raises.
    """
    kept: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for name, value in given.items():
        if value is None:
            continue
        field = FIELDS[name]
        try:
            read = field.read(value)
        except Exception:  # of an object of the host that cannot be compared
            read = None
        if read is None:
            shown = repr(value) if name in _SHOWN and len(str(value)) < 40 else ""
            wrong[name] = f"found {shown or f'a {type(value).__name__}'}, expected {field.expected}"
        else:
            kept[name] = read
    if "messaging_channel" in kept and kept.get("action_source") != "business_messaging":
        del kept["messaging_channel"]
        wrong["messaging_channel"] = (
            "found it with another action_source, expected action_source='business_messaging'"
        )
    return kept, wrong


#: Fields whose values are words of Meta's, and may be shown.
_SHOWN = frozenset({"action_source", "customer_segmentation", "messaging_channel"})


def page_wanted(what: str, action_source: object) -> str:
    """The error of an event without a page that is a "website" one, or does not say what it is."""
    if action_source == "website":
        return (
            f"{what}: found action_source 'website' without a page, expected visitor=…, or "
            "event_source_url=… and user_data=UserData(client_user_agent=…): Meta wants both"
        )
    return (
        f"{what}: found no action_source and no page, expected where the event happened, one of "
        f"{', '.join(ACTION_SOURCES)}; give action_source=… or Config(action_source=…), or "
        "visitor=… for what happened on the site"
    )


# -- names that are almost another -----------------------------------------------------------------

#: What track() takes, and what Meta's page has that another setting decides about.
_PARAMETERS: dict[str, str] = {
    **dict.fromkeys(("user_data", "dedupe_key", "event_time", "visitor", "pixels"), ""),
    **dict.fromkeys(("currency", "contents", "content_ids", "content_type", "content_name"), ""),
    **dict.fromkeys(("content_category", "num_items", "order_id", "predicted_ltv"), ""),
    **dict.fromkeys(_NAMES - {"app_data"}, ""),
    "event_id": "dedupe_key=…, which gives the same event_id everywhere",
    "event_name": "it as the first argument",
    "custom_data": "its fields as keywords of their own",
    "test_event_code": "Pixel(test_event_code=…)",
    "data_processing_options": "Config(consent=…), which gives \"limited\"",
    "data_processing_options_country": "Config(consent=…), which gives (\"limited\", \"US\", …)",
    "data_processing_options_state": "Config(consent=…), which gives (\"limited\", \"US\", \"CA\")",
}  # fmt: skip
#: Where another setting decides: such a keyword is never a property of the site's own.
_ELSEWHERE = frozenset(name for name, instead in _PARAMETERS.items() if instead)
#: What people call a match key.
_PEOPLE = {
    "email": "em", "mail": "em", "emailaddress": "em", "phone": "ph", "phonenumber": "ph",
    "telephone": "ph", "mobile": "ph", "firstname": "fn", "lastname": "ln", "surname": "ln",
    "gender": "ge", "birthday": "db", "birthdate": "db", "dateofbirth": "db", "zip": "zp",
    "zipcode": "zp", "postcode": "zp", "ipaddress": "client_ip_address",
    "ip": "client_ip_address", "useragent": "client_user_agent",
    "leadid": "lead_id", "subscriptionid": "subscription_id", "externalid": "external_id",
}  # fmt: skip
#: Fields of custom_data that Meta documents and that look like one of these: of a thing's place,
#: and of leads in a CRM.
_DOCUMENTED = frozenset({"country", "gender", "postal_code", "event_source", "lead_event_source"})
#: Shorter names have too many neighbours.
_LEAST, _ALIKE = 7, 0.88
_EVENTS_ALIKE = 0.86
#: Longer names are nobody's slip, and are not remembered.
_MOST = 60


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


_BY_LETTERS = {
    **{_letters(name): name for name in (*_PARAMETERS, "send", "opt_out")},
    **{_letters(name): f"user_data=UserData({name}=…)" for name in MATCH_KEYS},
    **{word: f"user_data=UserData({key}=…)" for word, key in _PEOPLE.items()},
}
_LONG = [name for name in _BY_LETTERS if len(name) >= _LEAST]
_EVENT_BY_LETTERS = {_letters(name): name for name in sorted(STANDARD_EVENTS)}


def meant_by(name: str) -> str:
    """What a keyword of track() was meant for that is almost one of ours; "" for one's own."""
    return _meant_by(name) if len(name) <= _MOST else ""


@lru_cache(maxsize=1024)
def _meant_by(name: str) -> str:
    if name in _ELSEWHERE:
        return _PARAMETERS[name]
    if name in _DOCUMENTED:
        return ""
    letters = _letters(name)
    found = _BY_LETTERS.get(letters)
    if found is None and len(letters) >= _LEAST:
        close = get_close_matches(letters, _LONG, 1, _ALIKE)
        # A plural or a singular may be a word of the site's own: content, currencies.
        if close and letters.rstrip("s") != close[0].rstrip("s"):
            found = _BY_LETTERS[close[0]]
    if found is None or found == name:
        return ""
    return _PARAMETERS.get(found) or (found if "=" in found else f"{found}=…")


def standard_name(name: str) -> str:
    """The standard event whose name `name` almost is; "" for a standard one and for one's own."""
    return _standard_name(name) if len(name) <= _MOST else ""


@lru_cache(maxsize=1024)
def _standard_name(name: str) -> str:
    if name in STANDARD_EVENTS:
        return ""
    letters = _letters(name)
    if letters in _EVENT_BY_LETTERS:
        return _EVENT_BY_LETTERS[letters]
    close = get_close_matches(letters, _EVENT_BY_LETTERS, 1, _EVENTS_ALIKE)
    return _EVENT_BY_LETTERS[close[0]] if close else ""
