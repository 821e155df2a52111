"""Codes: what the answers of Meta's Graph API mean, in one table.

Codes from Meta's pages "Handling Errors" and "Rate Limits"; subcodes, which Meta does not publish,
as seen in answers. A code is written "190", with its subcode "100/33".
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from msgspec import Struct

#: What a code is about: the token, what it may do, the request as a whole (the version of the API),
#: how often Meta is asked, a passing fault, or an event.
Kind = Literal["token", "permission", "request", "throttled", "passing", "event"]

#: Seconds that a pixel rests when Meta throttles it and names no time.
THROTTLE_DELAY = 60.0

INVALID, NO_SUCH_OBJECT, UNKNOWN_PATH = "100", "100/33", "2500"
TOKEN_REFUSED, WRONG_PROOF, FORBIDDEN = "190", "104", "200"
TOO_MANY_CALLS, UNKNOWN = "17", "1"
TOO_OLD, IN_FUTURE, NO_CONTENT_ID = "100/2804003", "100/2804004", "100/2804008"
NO_VALUE, NO_CURRENCY, VALUE_ALONE = "100/2804009", "100/2804010", "100/2804023"
NOT_HASHED, TOO_LITTLE = "100/2804016", "100/2804050"
#: Ours: Meta tells this one from other invalid parameters by its message alone.
MISSING_PERMISSION = "100/permission"


class Meaning(NamedTuple):
    """What a code means to the people who run the site, and what they can do."""

    kind: Kind
    meaning: str
    fix: str


_TOKEN = Meaning(
    "token",
    "the access token was refused",
    "Make a new access token in Events Manager (Settings, Conversions API) and give it to the "
    "Pixel: delivery resumes as soon as a process has it. A system user's token does not run out.",
)
_PERMISSION = Meaning(
    "permission",
    "the access token may not send to this pixel",
    'In Business settings give the token\'s system user the pixel with the task "Manage", or make '
    "the access token in Events Manager for this very pixel.",
)
_NO_PIXEL = Meaning(
    "permission",
    "there is no such pixel, or the token has no access to it",
    "Compare the id of the Pixel with Events Manager, and make the access token for that pixel.",
)
_VERSION = Meaning(
    "request",
    "Meta does not serve this version of its API, or not this address",
    "Set graph_version to a version that Meta serves, and leave graph_url as it is by default.",
)
_THROTTLED = Meaning(
    "throttled",
    "Meta throttles this app or account",
    "Nothing to do at once: delivery resumes by itself. If it lasts, ask for a higher access tier "
    "of the Marketing API.",
)
_PASSING = Meaning(
    "passing",
    "Meta or the way there has a passing fault",
    "Check that this machine reaches graph.facebook.com; delivery tries again by itself.",
)
#: How the network failed, see http.Failure: the events wait, and go out when it is well again.
FAILURES = {
    "dns": Meaning(
        "passing",
        "the name of Meta's server could not be resolved (DNS)",
        "Check the resolver of this machine or container: `getent hosts graph.facebook.com`.",
    ),
    "refused": Meaning(
        "passing",
        "the connection to Meta was refused",
        "Let the firewall pass port 443 to graph.facebook.com, or name your proxy in HTTPS_PROXY.",
    ),
    "unreachable": Meaning(
        "passing",
        "no connection to Meta came about (no route, or nobody answered in time)",
        "Check the network, and that the firewall passes port 443 to graph.facebook.com.",
    ),
    "certificate": Meaning(
        "passing",
        "the certificate of Meta's server was not accepted (TLS)",
        "A proxy that looks into TLS wants its own authority in SSL_CERT_FILE; see also that the "
        "clock is right and that SSL_CERT_FILE names a file.",
    ),
    "tls": Meaning(
        "passing",
        "the TLS handshake with Meta's server failed",
        "See what stands between this machine and graph.facebook.com, port 443.",
    ),
    "proxy": Meaning(
        "passing",
        "the proxy that the environment names did not connect to Meta",
        "Check HTTPS_PROXY, ALL_PROXY and NO_PROXY, and that the proxy lets graph.facebook.com "
        "pass.",
    ),
    "timeout": Meaning(
        "passing",
        "Meta's answer did not come in time",
        "If it lasts, check how much this machine's line takes.",
    ),
    "broken": Meaning(
        "passing",
        "the connection to Meta ended before the answer",
        "If it lasts, see what stands between this machine and graph.facebook.com.",
    ),
}
_EVENT = Meaning(
    "event",
    "Meta found something wrong with the events",
    "See one with `capi-middleware dead-letters show`, and send it with a test_event_code to see "
    "Meta's words in Events Manager.",
)
_PURCHASE = Meaning(
    "event",
    "a Purchase has no value",
    'Add value and currency: EventRoute(custom_data={"value": ..., "currency": "EUR"}) or '
    'track("Purchase", value=order.total, currency=order.currency).',
)

MEANINGS: dict[str, Meaning] = {
    **dict.fromkeys((TOKEN_REFUSED, "102", "452"), _TOKEN),
    WRONG_PROOF: Meaning(
        "token",
        "the app secret does not belong to the access token",
        "Give Pixel(app_secret=...) the secret of the app that made the access token.",
    ),
    **dict.fromkeys(("3", "10", *map(str, range(200, 300)), MISSING_PERMISSION), _PERMISSION),
    **dict.fromkeys((NO_SUCH_OBJECT, "803"), _NO_PIXEL),
    **dict.fromkeys(("12", UNKNOWN_PATH, "2635"), _VERSION),
    **dict.fromkeys(("4", TOO_MANY_CALLS, "32", "341", "368", "613"), _THROTTLED),
    **dict.fromkeys(map(str, range(80000, 80015)), _THROTTLED),
    **dict.fromkeys((UNKNOWN, "2", "5000"), _PASSING),
    **FAILURES,
    INVALID: _EVENT,
    TOO_OLD: Meaning(
        "event",
        "the events were more than 7 days old",
        "Keep delivery running; the clock of the server must be right.",
    ),
    IN_FUTURE: Meaning(
        "event",
        "the events were in the future",
        "Let the machine take its time from the network.",
    ),
    NO_CONTENT_ID: Meaning(
        "event", "an item of contents has no id", 'Give every item of contents an "id".'
    ),
    NO_VALUE: _PURCHASE,
    NO_CURRENCY: _PURCHASE,
    VALUE_ALONE: Meaning(
        "event", "a value came without a currency", "Give value and currency together."
    ),
    NOT_HASHED: Meaning(
        "event",
        "a user_data field was not hashed",
        "Give customer information as UserData(...): it hashes what must be hashed.",
    ),
    TOO_LITTLE: Meaning(
        "event",
        "the events say too little about the customer",
        "Keep current_visitor().dumps() with the order and give it back in the webhook, and add "
        "user_data: e-mail, phone or external_id.",
    ),
}


def known(code: str) -> Meaning:
    """The meaning of a code, or of the code without its subcode; `code` is "" for none."""
    if not code:
        return _PASSING
    return MEANINGS.get(code) or MEANINGS.get(code.partition("/")[0]) or _EVENT


def meaning_of(reason: str) -> tuple[str, str]:
    """(what it means, what to do) for the `reason` of an Outcome."""
    word, _, rest = reason.partition(" ")
    code, _, fields = rest.partition(" ") if word == "code" else ("", "", "")
    found = _THROTTLED if reason in ("usage", "http 429") else FAILURES.get(reason) or known(code)
    return (f"{found.meaning}; Meta names {fields}" if fields else found.meaning), found.fix


class Outcome(Struct, frozen=True):
    """What a request came to.

    `kind`: delivered; retry (nothing was accepted, or nobody knows); throttled and access (the
    whole pixel rests; no attempt of the events is used up); invalid (Meta refuses the request as
    it is, so at least one event in it is bad). `reason` is a code, never a text of Meta's, such as
    "code 100/2804010 custom_data.value", "http 502" or the name of an error. `delay`: seconds that
    Meta asked us to wait, None when it named none; after a delivery, the rest that a used-up quota
    wants. `uncertain`: nobody knows whether Meta took the events.
    """

    kind: Literal["delivered", "retry", "throttled", "access", "invalid"]
    reason: str = ""
    delay: float | None = None
    uncertain: bool = False


class GraphError(Struct, frozen=True):
    """What Meta says of an error: its code, and the fields that it blames, never their values.

    `code` is "" where the answer is not Meta's JSON (a proxy's page).
    """

    code: str = ""
    transient: bool = False
    fields: tuple[str, ...] = ()


def judge(status: int, error: GraphError) -> Outcome:
    """The outcome for an error answer: the code and is_transient decide, then the HTTP status."""
    kind = known(error.code).kind
    reason = f"code {error.code}" if error.code else f"http {status}"
    if kind == "throttled" or status == 429:
        return Outcome("throttled", reason)
    if kind in ("token", "permission", "request"):
        return Outcome("access", reason)
    if kind == "passing" or error.transient or status >= 500:
        # A proxy's page does not tell what became of the request behind it.
        return Outcome("retry", reason, uncertain=not error.code)
    return Outcome("invalid", " ".join((reason, *error.fields)))


def read_error(answer: Any) -> GraphError:
    """The error in a decoded answer, of whatever shape it is."""
    error = answer.get("error") if isinstance(answer, dict) else None
    code = _integer(error.get("code")) if isinstance(error, dict) else None
    if not isinstance(error, dict) or code is None:
        return GraphError(transient=isinstance(error, dict) and error.get("is_transient") is True)
    subcode, shown = _integer(error.get("error_subcode")), str(code)
    if subcode:
        shown += f"/{subcode}"
    elif shown == INVALID and "missing permission" in str(error.get("message")).lower():
        shown = MISSING_PERMISSION
    fields = _blamed(error.get("error_data"))
    return GraphError(shown, error.get("is_transient") is True, fields)


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


#: What a field may look like: anything else could be a value or a text.
_FIELD = re.compile(r"[a-z_][a-z0-9_.\[\]]{0,59}")
#: The place of the event in the request says nothing: it was alone there.
_PLACE = re.compile(r"data(\[\d+\]|\.\d+)?(\.|(?=\[)|\Z)")
_IN_BRACKETS = re.compile(r"\[([a-z_]+)\]")
_MOST_FIELDS = 3


def _blamed(error_data: object) -> tuple[str, ...]:
    """The fields in `blame_field_specs` of an error's `error_data`, without repetitions.

    `error_data` is an object or a JSON string ("Handling Errors"); the specs are lists of parts or
    whole names: [["custom_data", "currency"]], [["data[0][custom_data][currency]"]] and
    ["custom_data.currency"] all give "custom_data.currency". What does not look like the name of a
    field is left out.
    """
    if isinstance(error_data, str):
        try:
            error_data = json.loads(error_data)
        except (ValueError, RecursionError):
            return ()
    specs = error_data.get("blame_field_specs") if isinstance(error_data, dict) else None
    found = dict.fromkeys(_fields(specs if isinstance(specs, list) else []))
    return tuple(found)[:_MOST_FIELDS]


def _fields(specs: list[object]) -> Iterator[str]:
    for spec in specs:
        parts = spec if isinstance(spec, list) else [spec]
        if not all(isinstance(part, str | int) for part in parts):
            continue
        name = _IN_BRACKETS.sub(r".\1", ".".join(map(str, parts)))
        name = _PLACE.sub("", name, count=1) if _PLACE.match(name) else name
        name = name.lstrip(".")
        if _FIELD.fullmatch(name):
            yield name
