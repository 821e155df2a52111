"""A beacon says what became of events: words that can be shown anywhere."""

import msgspec
import pytest

from capi_middleware.capture.beacon import read, read_question
from capi_middleware.errors import BadBeacon


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\n2026 ERROR evil", "\x00", "a\x9b2J", "\x7f"])
def test_a_name_that_would_write_in_a_terminal_or_a_log_is_no_name(name: str) -> None:
    with pytest.raises(BadBeacon):
        read(msgspec.json.encode({"e": [["id", name, "123", "sent"]]}), lambda *_: "")


@pytest.mark.parametrize("event_id", ["x" * 150, "x" * 1500, "ü" * 200])
def test_an_event_id_of_the_site_may_be_as_long_as_a_signed_text(event_id: str) -> None:
    told = {"e": [[event_id, "Lead", "123", "sent"]]}
    asked = {"u": "/", "m": [{"n": "Lead", "i": event_id, "p": ["123"]}]}
    (sighting,) = read(msgspec.json.encode(told), lambda *_: "").sightings
    (call,) = read_question(msgspec.json.encode(asked)).m
    assert sighting.event_id == call.i == event_id


@pytest.mark.parametrize("event_id", ["", "x" * 1501, "ü" * 201, "a\nb"])
def test_one_that_no_index_could_keep_is_none(event_id: str) -> None:
    with pytest.raises(BadBeacon):
        read(msgspec.json.encode({"e": [[event_id, "Lead", "123", "sent"]]}), lambda *_: "")
