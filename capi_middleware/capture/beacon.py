"""Beacons: what the pixel script says about the browser copies, read without trust."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from capi_middleware.capture.client import HEADER_READ
from capi_middleware.capture.consent import Said
from capi_middleware.errors import BadBeacon
from capi_middleware.events import BEACON_OUTCOMES, PageKey, Sighting
from capi_middleware.private import Private

# Without control characters: they may be shown in a log, a terminal and a table.
_SHOWN = "^[^\\x00-\\x1f\\x7f-\\x9f]+$"
_Word = Annotated[str, Meta(min_length=1, max_length=200, pattern=_SHOWN)]
_Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=_SHOWN)]
# A site's own may be a signed text; an index of PostgreSQL takes no row above 2.7 KB.
_EventId = Annotated[str, Meta(pattern="^(?:[ -~]{1,1500}|[^\\x00-\\x1f\\x7f-\\x9f]{1,200})$")]
_URL = Annotated[str, Meta(max_length=4096)]
_Waiting = Annotated[str, Meta(max_length=6000)]


class _Said(Private, Struct, array_like=True, forbid_unknown_fields=True):
    event_id: _EventId
    event_name: _Word
    pixel_id: _Word
    outcome: _Word
    # The page's own value may be anything: the digest of what is no number is "".
    value: str = ""
    currency: str = ""


class _Beacon(Private, Struct, forbid_unknown_fields=True):
    e: Annotated[list[_Said], Meta(min_length=1, max_length=64)]
    k: PageKey | None = None


class Beacon(NamedTuple):
    """Sightings, and what shows which page they come from."""

    sightings: list[Sighting]
    key: PageKey | None


class Call(Private, Struct, forbid_unknown_fields=True):
    """A call of the page's own pixel code: event_name, event_id, pixel ids, custom_data.

    With `b` its browser copy goes out bare, without event_id: a server copy would count twice.
    """

    n: _Name
    i: _EventId
    p: list[str]
    d: dict[str, Any] = {}
    b: bool = False


class Question(Private, Struct):
    """A page asks: its address and its referrer.

    Without calls `m` it wants the events of its address, otherwise it tells of calls; `k` is
    the key that it was given, as the proof that it is a page of this site. `w` are
    the signed events that waited until something was shown: this page, or with `f` a part of it.
    `y` is the mark that a page without event_ids has: the app itself answered it (see Asking). `h`
    are the names of the events that the page has already. `j` are cookies of a page of another
    origin, as its browser would send them. `x` is what the visitor answered on this page, `g` are
    its signed events that waited for that, `n` says that nothing waited for it, and `t` is how many
    seconds ago it was that the page would have asked or told of its calls. `o` is where the page
    opened that has this key: scripts may have changed its address since.
    """

    u: _URL
    r: _URL = ""
    k: PageKey | None = None
    m: Annotated[list[Call], Meta(max_length=16)] = []
    w: _Waiting = ""
    f: bool = False
    y: _Waiting = ""
    h: Annotated[list[_Word], Meta(max_length=64)] = []
    j: Annotated[str, Meta(max_length=HEADER_READ)] = ""
    x: Said | None = None
    g: _Waiting = ""
    n: bool = False
    t: Annotated[int, Meta(ge=0, le=86400)] = 0
    o: _URL = ""


_beacons = msgspec.json.Decoder(_Beacon)
_questions = msgspec.json.Decoder(Question)


def read(body: bytes, digest: Callable[[str, str], str]) -> Beacon:
    """A beacon: {"e": [[event_id, event_name, pixel_id, outcome], …], "k": key}.

    After the outcome come value and currency where the page's own code set them; `digest` makes
    the Sighting's digest of them. Signatures are not verified here. Raises BadBeacon for anything
    else.
    """
    try:
        beacon = _beacons.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise BadBeacon("found no beacon, expected JSON of the pixel script") from error
    sightings = []
    for said in beacon.e:
        words = (said.event_id, said.event_name, said.pixel_id, said.outcome)
        if said.outcome not in BEACON_OUTCOMES or not "".join(words).isprintable():
            raise BadBeacon("found an unknown outcome or a text that is not printable")
        money = digest(said.value, said.currency) if said.value else ""
        sightings.append(Sighting(*words, money))
    return Beacon(sightings, beacon.k)


def read_question(body: bytes) -> Question:
    """The page that asks for its events. Raises BadBeacon when it is not one."""
    try:
        question = _questions.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise BadBeacon("found no question, expected JSON of the pixel script") from error
    if not all(call.n.isprintable() and call.i.isprintable() for call in question.m):
        raise BadBeacon("found a call whose name or id is not printable")
    return question
