"""A test event to Meta, and what its answer means."""

import time
from collections.abc import Iterator
from typing import Any

from capi_middleware.cli.checks.model import Finding, error
from capi_middleware.config.pixels import Pixel
from capi_middleware.config.settings import Config
from capi_middleware.events import Event
from capi_middleware.meta.codes import judge, meaning_of, read_error
from capi_middleware.meta.graph import GraphClient
from capi_middleware.meta.http import NoAnswer
from capi_middleware.meta.payload import encode
from capi_middleware.meta.user_data import UserData
from capi_middleware.signing import Minter

#: A name of our own: nothing optimises for it, whatever code it is sent with.
EVENT_NAME = "CapiMiddlewareCheck"


def check_sending(config: Config, code: str | None) -> Iterator[Finding]:
    """Send one event named CapiMiddlewareCheck to each pixel."""
    for pixel in config.pixels:
        yield _send(config, pixel, code or pixel.test_event_code or config.test_event_code)


def _send(config: Config, pixel: Pixel, code: str | None) -> Finding:
    event = Event(
        event_id=Minter(config.secrets).mint(EVENT_NAME, time.time()),
        event_name=EVENT_NAME,
        event_time=time.time(),
        pixel_ids=(pixel.id,),
        user_data=UserData(em="check@example.com").hashed()[0],
    )
    client = GraphClient(config.graph_url, config.graph_version, pixel, code)
    try:
        status, answer = client.ask([encode(event, None)])
    except NoAnswer as failure:
        return error("sending", f"pixel {pixel.id}: no answer ({failure})", meaning_of("")[1])
    finally:
        client.close()
    shown = f"pixel {pixel.id}: {EVENT_NAME}" + (" with a test_event_code" if code else "")
    return _explain(shown, status, answer if isinstance(answer, dict) else {})


def _explain(shown: str, status: int, answer: dict[str, Any]) -> Finding:
    trace = f"fbtrace_id {_word(answer.get('fbtrace_id'))}"
    if answer.get("events_received") == 1:
        messages = answer.get("messages") or []
        more = "; messages: " + "; ".join(map(_word, messages)) if messages else ""
        return Finding(
            "sending",
            "warning" if messages else "ok",
            f"{shown}: events_received 1, {trace}{more}",
            "Read Meta's messages." if messages else "",
        )
    given = answer.get("error")
    told = given if isinstance(given, dict) else {}
    reason = judge(status, read_error(answer)).reason
    meaning, fix = meaning_of(reason)
    trace = f"fbtrace_id {_word(told.get('fbtrace_id'))}"
    return error("sending", f"{shown}: {meaning} ({reason}, {trace})", fix)


def _word(value: object) -> str:
    text = str(value)[:200]
    return text if text.isprintable() else repr(text)
