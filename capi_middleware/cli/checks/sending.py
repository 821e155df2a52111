"""A test event to Meta, and what its answer means."""

import time
from collections.abc import Iterator
from typing import Any

from capi_middleware.cli.checks.model import Finding, error
from capi_middleware.config.pixels import Pixel
from capi_middleware.config.settings import Config
from capi_middleware.delivery.retry import judge_error
from capi_middleware.events import Event
from capi_middleware.meta.payload import encode
from capi_middleware.meta.user_data import UserData
from capi_middleware.signing import Minter

#: A name of our own: nothing optimises for it, whatever code it is sent with.
EVENT_NAME = "CapiMiddlewareCheck"
_FIXES = {
    "access": "Check the id of the pixel, and make a new token for it in Events Manager → Settings "
    "→ Conversions API.",
    "throttled": "Wait; delivery does so by itself.",
    "invalid": "Check graph_version; report the code if it stays.",
    "retry": "Check that this machine reaches graph.facebook.com, and try again.",
}
_MEANINGS = {
    "access": "the token is refused or has no access to this pixel",
    "throttled": "Meta throttles",
    "invalid": "Meta refuses the event",
    "retry": "Meta or the way there has a passing fault",
}


def check_sending(config: Config, code: str | None) -> Iterator[Finding]:
    """Send one event named CapiMiddlewareCheck to each pixel."""
    for pixel in config.pixels:
        yield _send(config, pixel, code or pixel.test_event_code or config.test_event_code)


def _send(config: Config, pixel: Pixel, code: str | None) -> Finding:
    from capi_middleware.meta.graph import GraphClient

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
    except ConnectionError as failure:
        return error("sending", f"pixel {pixel.id}: no answer ({failure})", _FIXES["retry"])
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
    code, subcode = (
        value if isinstance(value, int) else None
        for value in (told.get("code"), told.get("error_subcode"))
    )
    outcome = judge_error(status, code, subcode, told.get("is_transient") is True)
    trace = f"fbtrace_id {_word(told.get('fbtrace_id'))}"
    return error(
        "sending",
        f"{shown}: {_MEANINGS[outcome.kind]} ({outcome.reason}, {trace})",
        _FIXES[outcome.kind],
    )


def _word(value: object) -> str:
    text = str(value)[:200]
    return text if text.isprintable() else repr(text)
