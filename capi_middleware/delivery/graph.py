"""Graph: the only module that talks to Meta's Graph API."""

import hashlib
import hmac
import json
import logging
import time
from collections.abc import Sequence
from typing import Any

import httpx

from capi_middleware.config import Pixel
from capi_middleware.delivery.retry import Outcome, judge_error

#: Total time for one request in seconds, whatever the server does: Meta advises 1.5 s for calls
#: inside a page; nobody waits for ours, and most answers come in under 0.6 s.
DEADLINE = 10.0
#: At most this much of an answer is read, in bytes.
ANSWER_LIMIT = 64 * 1024

# httpx logs each URL at INFO; ours carries no token, but the host's logs are not ours to fill.
logging.getLogger("httpx").setLevel(logging.WARNING)


class GraphClient:
    """Posts batches for one pixel. One per courier thread; not shared."""

    def __init__(self, graph_url: str, version: str, pixel: Pixel, test_code: str | None) -> None:
        self._url = f"{graph_url.rstrip('/')}/{version}/{pixel.id}/events"
        more: dict[str, str] = {}
        if test_code:
            more["test_event_code"] = test_code
        if pixel.app_secret:
            more["appsecret_proof"] = hmac.new(
                pixel.app_secret.encode(), pixel.access_token.encode(), hashlib.sha256
            ).hexdigest()
        self._more = b"," + json.dumps(more)[1:-1].encode() if more else b""
        self._client = httpx.Client(
            headers={
                "Authorization": f"Bearer {pixel.access_token}",
                "Content-Type": "application/json",
                "Accept-Encoding": "identity",
            },
            timeout=httpx.Timeout(5.0),
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=1, keepalive_expiry=30.0),
        )

    def send(self, payloads: Sequence[bytes]) -> Outcome:
        """Post 1 to 1000 event objects as one request. Never raises for what the network does."""
        body = body_of(payloads, self._more)
        try:
            with self._client.stream("POST", self._url, content=body) as response:
                return _judge(response, _read(response, time.monotonic() + DEADLINE), len(payloads))
        except httpx.HTTPError as error:
            # The type alone: httpx puts URLs into its messages.
            return Outcome("retry", type(error).__name__)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def body_of(payloads: Sequence[bytes], more: bytes = b"") -> bytes:
    """The request body: event objects as `data`, and `more` fields as they follow it in JSON."""
    return b'{"data":[%b]%b}' % (b",".join(payloads), more)


def _read(response: httpx.Response, deadline: float) -> bytes:
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) >= ANSWER_LIMIT:
            break
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer took too long")
    return bytes(body[:ANSWER_LIMIT])


def _judge(response: httpx.Response, body: bytes, sent: int) -> Outcome:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if response.is_success:
        # Anything but Meta's own receipt for the whole batch is an unknown outcome.
        received = answer.get("events_received") if isinstance(answer, dict) else None
        if type(received) is int and received == sent:
            return Outcome("delivered")
        return Outcome("retry", "no receipt")
    error: Any = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        error = {}
    outcome = judge_error(
        response.status_code,
        _integer(error.get("code")),
        _integer(error.get("error_subcode")),
        error.get("is_transient") is True,
    )
    after = _seconds(response.headers.get("retry-after"))
    return Outcome(outcome.kind, outcome.reason, after)


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _seconds(value: str | None) -> float | None:
    """Retry-After in seconds; None for a date or nonsense (Meta documents neither)."""
    return float(value) if value is not None and value.strip().isdecimal() else None
