"""Codes: what the answers of Meta's Graph API come to. The one table of them is codes.toml."""

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from capi_middleware.meta.http import Failure

#: What a code is about: the token, what it may do, the request as a whole (the version of the API),
#: who answers in Meta's place, how much is sent at once, how often Meta is asked, a passing fault,
#: an event, or nobody can tell from the code alone.
Kind = Literal[
    "token", "permission", "request", "blocked", "large", "throttled", "passing", "event", "unsure"
]

#: The reason of a rest between requests of which too many are refused.
REFUSALS = "refusals"
#: Seconds that a pixel rests when Meta throttles it and names no time.
THROTTLE_DELAY = 60.0

INVALID, NO_SUCH_OBJECT, UNKNOWN_PATH, RETIRED = "100", "100/33", "2500", "2635"
TOKEN_REFUSED, WRONG_PROOF, FORBIDDEN = "190", "104", "200"
TOO_MANY_CALLS, UNKNOWN = "17", "1"
TOO_OLD, IN_FUTURE, NO_CONTENT_ID = "100/2804003", "100/2804004", "100/2804008"
NO_VALUE, NO_CURRENCY, VALUE_ALONE = "100/2804009", "100/2804010", "100/2804023"
NOT_HASHED, TOO_LITTLE = "100/2804016", "100/2804050"
#: Other subcodes that begin so are about events as well.
OF_EVENTS = "100/2804"
#: Ours: Meta tells these from other invalid parameters by the message alone.
MISSING_PERMISSION, INVALID_PROOF = "100/permission", "100/proof"


class Meaning(Struct, frozen=True):
    """What some codes mean to the people who run the site, and what they can do."""

    codes: tuple[str, ...]
    kind: Kind
    meaning: str
    fix: str


#: By each code as codes.toml writes it.
MEANINGS: dict[str, Meaning] = {
    code: one
    for one in msgspec.toml.decode(
        files("capi_middleware.meta").joinpath("codes.toml").read_bytes(),
        type=dict[str, list[Meaning]],
    )["meaning"]
    for code in one.codes
}
#: How the network may fail: the events wait, and go out when it is well again.
FAILURES: tuple[str, ...] = get_args(Failure)
_PASSING, _UNSURE = MEANINGS[UNKNOWN], MEANINGS[INVALID]


def known(code: str) -> Meaning:
    """The meaning of a code, or of the code without its subcode; `code` is "" for none."""
    number = code.partition("/")[0]
    alike = {3: f"{number[:1]}xx", 5: f"{number[:2]}xxx"}.get(len(number), "")
    for one in (code or UNKNOWN, code[: len(OF_EVENTS)], number, alike):
        if one in MEANINGS:
            return MEANINGS[one]
    return _UNSURE


def _meaning_and_fields(reason: str) -> tuple[Meaning, str]:
    word, _, rest = reason.partition(" ")
    code, _, fields = rest.partition(" ")
    if word == "code":
        meaning = known(code)
        return (MEANINGS[OF_EVENTS] if fields and meaning is _UNSURE else meaning), fields
    return MEANINGS.get(reason) or MEANINGS.get(f"{word} {rest[:1]}xx") or _PASSING, ""


def kind_of(reason: str) -> Kind:
    """What the `reason` of an Outcome is about."""
    return _meaning_and_fields(reason)[0].kind


def meaning_of(reason: str) -> tuple[str, str]:
    """(what it means, what to do) for the `reason` of an Outcome."""
    found, fields = _meaning_and_fields(reason)
    return (f"{found.meaning}; Meta names {fields}" if fields else found.meaning), found.fix


class Outcome(Struct, frozen=True):
    """What a request came to.

    `kind`: delivered; retry (nothing was accepted, or nobody knows); throttled, access and blocked
    (the whole pixel rests; no attempt of the events is used up); invalid (Meta refuses the request
    as it is, so at least one event in it is bad); unsure (the same, or something is wrong with all
    requests); large (less at once may get through). `reason` is a code, never a text of Meta's,
    such as "code 100/2804010 custom_data.value", "http 502" or the name of an error. `delay`:
    seconds that Meta asked us to wait, None when it named none; after a delivery, the rest that a
    used-up quota wants. `uncertain`: nobody knows whether Meta took the events. `late`: there was
    no answer in time, so that less at once may get through. `trace` is Meta's id of the request
    (fbtrace_id), which its support asks for; "" where the answer had none.
    """

    kind: Literal[
        "delivered", "retry", "throttled", "access", "blocked", "invalid", "unsure", "large"
    ]
    reason: str = ""
    delay: float | None = None
    uncertain: bool = False
    late: bool = False
    trace: str = ""


class GraphError(Struct, frozen=True):
    """What Meta says of an error: its code, and the fields that it blames, never their values.

    `code` is "" where the answer is not Meta's JSON (a proxy's page).
    """

    code: str = ""
    transient: bool = False
    fields: tuple[str, ...] = ()


def judge(status: int, error: GraphError) -> Outcome:
    """The outcome for an error answer: the code and is_transient decide, then the HTTP status."""
    reason = f"code {error.code}" if error.code else f"http {status}"
    told = " ".join((reason, *error.fields))
    kind = kind_of(told)
    if kind == "throttled" or status == 429:
        return Outcome("throttled", reason)
    if kind in ("token", "permission", "request"):
        return Outcome("access", reason)
    if kind == "passing" or error.transient or status >= 500:
        # A proxy's page does not tell what became of the request behind it.
        return Outcome("retry", reason, uncertain=not error.code)
    if kind in ("blocked", "large", "unsure"):
        return Outcome(kind, reason)
    return Outcome("invalid", told)


def read_error(answer: Any) -> GraphError:
    """The error in a decoded answer, of whatever shape it is."""
    error = answer.get("error") if isinstance(answer, dict) else None
    code = _integer(error.get("code")) if isinstance(error, dict) else None
    if not isinstance(error, dict) or code is None:
        return GraphError(transient=isinstance(error, dict) and error.get("is_transient") is True)
    subcode, shown = _integer(error.get("error_subcode")), str(code)
    fields = _blamed(error.get("error_data"))
    if subcode:
        shown += f"/{subcode}"
    if shown not in MEANINGS or shown == INVALID:
        shown = _by_words(shown, fields, str(error.get("message")))
    return GraphError(shown, error.get("is_transient") is True, fields)


#: Meta has one code for parameters of all kinds, and words these in many ways.
_WORDS = (
    (re.compile(r"appsecret|app secret", re.IGNORECASE), INVALID_PROOF),
    (re.compile(r"permi(?:ss|t)|authori[sz]|does not exist", re.IGNORECASE), MISSING_PERMISSION),
)


def _by_words(code: str, fields: tuple[str, ...], message: str) -> str:
    """The code of an invalid parameter, more exactly where it is not about an event."""
    if code.partition("/")[0] == INVALID and not fields and not code.startswith(OF_EVENTS):
        for words, exact in _WORDS:
            if words.search(message[:1000]):
                return exact
    return code


#: What Meta's ids of requests look like.
_TRACE = re.compile(r"[A-Za-z0-9_+/=-]{1,40}")


def trace_in(answer: Any) -> str:
    """Meta's id of a request, in a decoded answer of whatever shape; "" without any."""
    given = answer if isinstance(answer, dict) else {}
    error = given.get("error")
    found = (error if isinstance(error, dict) else given).get("fbtrace_id")
    return found if isinstance(found, str) and _TRACE.fullmatch(found) else ""


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


#: What a field may look like: anything else could be a value or a text.
_FIELD = re.compile(r"[a-z_][a-z0-9_.\[\]]{0,59}")
#: The place of the event in the request says nothing: it was alone there.
_PLACE = re.compile(r"data(\[\d+\]|\.\d+)?(\.|(?=\[)|\Z)")
_IN_BRACKETS = re.compile(r"\[([a-z_]+)\]")
_MOST_FIELDS = 3
#: Fields of a request, not of an event in it.
_OF_REQUESTS = {
    "access_token", "appsecret_proof", "namespace_id", "partner_agent", "platforms", "progress",
    "test_event_code", "trace", "upload_id", "upload_source", "upload_tag",
}  # fmt: skip


def _blamed(error_data: object) -> tuple[str, ...]:
    """The fields of an event that an error's `error_data` blames, without repetitions.

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
        if _FIELD.fullmatch(name) and name not in _OF_REQUESTS:
            yield name
