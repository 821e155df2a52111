"""Beacons: what the pixel script says about the browser copies, read without trust."""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from capi_middleware.errors import BadBeacon
from capi_middleware.events import BEACON_OUTCOMES, Sighting
from capi_middleware.private import Private

_MOST_SIGHTINGS = 64
_MOST_CALLS = 16
_LONGEST = 200
_LONGEST_URL = 4096


class _Beacon(Private, Struct, forbid_unknown_fields=True):
    e: list[list[str]]
    k: tuple[str, str] | None = None


class Beacon(NamedTuple):
    """Sightings, and the (event_name, event_id) that shows which page they come from."""

    sightings: list[Sighting]
    key: tuple[str, str] | None


class Call(Private, Struct, forbid_unknown_fields=True):
    """A call of the page's own pixel code: event_name, event_id, pixel ids, custom_data.

    With `b` its browser copy goes out bare, without event_id: a server copy would count twice.
    """

    n: str
    i: str
    p: list[str]
    d: dict[str, Any] = {}
    b: bool = False


class Question(Private, Struct):
    """A page asks: its address and its referrer.

    Without calls `m` it wants the events of its address, otherwise it tells of calls; `k` is an
    (event_name, event_id) that it was given, as the proof that it is a page of this site.
    """

    u: str
    r: str = ""
    k: tuple[str, str] | None = None
    m: list[Call] = []


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
    given = beacon.e
    if not 0 < len(given) <= _MOST_SIGHTINGS:
        raise BadBeacon(f"found {len(given)} sightings, expected 1 to {_MOST_SIGHTINGS}")
    sightings = []
    for sighting in given:
        if len(sighting) not in (4, 6):
            raise BadBeacon(f"found a sighting of {len(sighting)} texts, expected 4 or 6")
        # The page's own value may be anything: the digest of what is no number is "".
        if any(not text or len(text) > _LONGEST or not text.isprintable() for text in sighting[:4]):
            raise BadBeacon("found a text that is empty, too long or not printable")
        event_id, event_name, pixel_id, outcome, *money = sighting
        if outcome not in BEACON_OUTCOMES:
            raise BadBeacon("found an outcome that the pixel script does not know")
        said = digest(money[0], money[1]) if money else ""
        sightings.append(Sighting(event_id, event_name, pixel_id, outcome, said))
    return Beacon(sightings, beacon.k)


def read_question(body: bytes) -> Question:
    """The page that asks for its events. Raises BadBeacon when it is not one."""
    try:
        question = _questions.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise BadBeacon("found no question, expected JSON of the pixel script") from error
    if len(question.u) > _LONGEST_URL or len(question.r) > _LONGEST_URL:
        raise BadBeacon("found an address that is too long")
    if len(question.m) > _MOST_CALLS:
        raise BadBeacon(f"found {len(question.m)} calls, expected at most {_MOST_CALLS}")
    for call in question.m:
        if any(not 0 < len(text) <= 100 or not text.isprintable() for text in (call.n, call.i)):
            raise BadBeacon("found a call without a name or an id that can be used")
    return question
