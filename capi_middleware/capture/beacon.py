"""Beacons: what the pixel script says about the browser copies, read without trust."""

import msgspec
from msgspec import Struct

from capi_middleware.errors import BadBeacon
from capi_middleware.events import BEACON_OUTCOMES, Sighting

_MOST_SIGHTINGS = 64
_LONGEST = 200
_LONGEST_URL = 4096


class _Beacon(Struct, forbid_unknown_fields=True):
    e: list[tuple[str, str, str, str]]


class Question(Struct):
    """A page that carries no event_ids asks for them: its address and its referrer."""

    u: str
    r: str = ""


_beacons = msgspec.json.Decoder(_Beacon)
_questions = msgspec.json.Decoder(Question)


def read(body: bytes) -> list[Sighting]:
    """The sightings in a beacon: {"e": [[event_id, event_name, pixel_id, outcome], …]}.

    Signatures are not verified here. Raises BadBeacon for anything else.
    """
    try:
        given = _beacons.decode(body).e
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise BadBeacon("found no beacon, expected JSON of the pixel script") from error
    if not 0 < len(given) <= _MOST_SIGHTINGS:
        raise BadBeacon(f"found {len(given)} sightings, expected 1 to {_MOST_SIGHTINGS}")
    for sighting in given:
        if any(not text or len(text) > _LONGEST or not text.isprintable() for text in sighting):
            raise BadBeacon("found a text that is empty, too long or not printable")
        if sighting[3] not in BEACON_OUTCOMES:
            raise BadBeacon("found an outcome that the pixel script does not know")
    return [Sighting(*sighting) for sighting in given]


def read_question(body: bytes) -> Question:
    """The page that asks for its events. Raises BadBeacon when it is not one."""
    try:
        question = _questions.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise BadBeacon("found no question, expected JSON of the pixel script") from error
    if len(question.u) > _LONGEST_URL or len(question.r) > _LONGEST_URL:
        raise BadBeacon("found an address that is too long")
    return question
