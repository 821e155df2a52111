"""The pixel tag: a data block that never executes, and one first-party script."""

import base64
import json
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from capi_middleware.events import STANDARD_EVENTS, Event

NOTHING: Mapping[str, Any] = {}
_ADVANCED_MATCHING = (
    "em", "fn", "ln", "ph", "external_id", "ge", "db", "ct", "st", "zp", "country",
)  # fmt: skip

_encode = msgspec.json.Encoder().encode
# "<" must not open or close anything inside a script element.
_ESCAPES = ((b"<", rb"\u003c"), (b">", rb"\u003e"), (b"&", rb"\u0026"))


@cache
def script() -> bytes:
    """The pixel script as pages load it: s.min.js, which `make script` makes of s.js."""
    return Path(__file__).with_name("s.min.js").read_bytes()


@cache
def script_version() -> str:
    """A hash of the script, part of its URL, so that it may be cached for ever."""
    digest = sha256(script()).digest()[:9]
    return base64.urlsafe_b64encode(digest).decode()


def page_events(events: Sequence[Event]) -> list[dict[str, Any]]:
    """The events as the script reads them."""
    return [
        {
            "n": event.event_name,
            "i": event.event_id,
            "d": event.custom_data,
            "p": list(event.pixel_ids),
            **({} if event.event_name in STANDARD_EVENTS else {"c": 1}),
        }
        for event in events
    ]


def consent_fields(consent: str, country: int, state: int) -> dict[str, Any]:
    """What the script must know of the consent: nothing when it is granted.

    `country` and `state` are Meta's codes for limited data use.
    """
    if consent == "limited":
        return {"x": "limited", "l": [country, state]}
    return {} if consent == "granted" else {"x": "denied"}


def pixel_entries(
    pixels: Mapping[str, Sequence[str] | None], matching: Mapping[str, Any] = NOTHING
) -> list[dict[str, Any]]:
    """The pixels as the script reads them, by id: the event names that each takes, None for all.

    `matching` is hashed user_data for the pixel's init. The pixel takes one value for each key of
    Meta's page "Advanced Matching", and leaves a SHA-256 as it is.
    """
    known = {
        key: matching[key][0] for key in _ADVANCED_MATCHING if isinstance(matching.get(key), list)
    }
    return [
        {
            "id": pixel_id,
            **({} if takes is None else {"ev": list(takes)}),
            **({"am": known} if known else {}),
        }
        for pixel_id, takes in pixels.items()
    ]


def tag(
    *,
    prefix: str,
    script_url: str,
    pixels: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]] = (),
    ask: bool = False,
    consent: Mapping[str, Any] = NOTHING,
    mirror: bool = False,
    key: Sequence[str] | None = None,
    nonce: str | None = None,
) -> bytes:
    """The bytes to insert: pure ASCII.

    `prefix` is the path of our endpoints including any mount. With `ask` the page carries no
    event_id and the script asks for its events. `events` is what page_events() gives,
    `pixels` what pixel_entries() gives, `consent` what consent_fields() gives. With `mirror`
    the page's own pixel calls get event_ids; `key`, an (event_name, event_id), is what shows that
    they come from this page. `nonce` is the page's own CSP nonce.
    """
    data: dict[str, Any] = {
        "u": prefix,
        "s": script_url,
        "p": pixels,
        "e": events,
    }
    if ask:
        data["a"] = True
    if mirror:
        data["m"] = True
    if key is not None:
        data["k"] = key
    data |= consent
    block = _encode(data)
    if not block.isascii():
        block = json.dumps(data, separators=(",", ":")).encode("ascii")
    for character, escape in _ESCAPES:
        block = block.replace(character, escape)
    with_nonce = f' nonce="{nonce}"' if nonce else ""
    script_element = f'<script src="{prefix}/s.js?v={script_version()}" async{with_nonce}></script>'
    return b'<script type="application/json" data-c>%b</script>%b' % (
        block, script_element.encode("ascii"),
    )  # fmt: skip
