"""Graph: the only module that talks to Meta's Graph API."""

import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from capi_middleware.config.pixels import Pixel
from capi_middleware.delivery.retry import THROTTLE_DELAY, Outcome, judge_error
from capi_middleware.meta.blame import blamed_fields

#: Total time for one request in seconds, whatever the server does: Meta advises 1.5 s for calls
#: inside a page; nobody waits for ours, and most answers come in under 0.6 s.
DEADLINE = 10.0
#: At most this much of an answer is read, in bytes.
ANSWER_LIMIT = 64 * 1024
#: Errors after which it is certain that Meta did not get the request.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
#: How much of a quota is used, in percent: Meta throttles at 100.
_USAGE = ("call_count", "total_cputime", "total_time")

# httpx logs each URL at INFO; ours carries no token, but the host's logs are not ours to fill.
logging.getLogger("httpx").setLevel(logging.WARNING)


class GraphClient:
    """Posts batches for one pixel. One per courier thread; not shared.

    `check_date` gets the Date header of each answer of Meta's own.
    """

    def __init__(
        self,
        graph_url: str,
        version: str,
        pixel: Pixel,
        test_code: str | None,
        check_date: Callable[[str | None], None] = lambda date: None,
    ) -> None:
        self._check_date = check_date
        self._url = f"{graph_url.rstrip('/')}/{version}/{pixel.id}/events"
        more: dict[str, str] = {}
        if test_code:
            more["test_event_code"] = test_code
        if pixel.app_secret:
            more["appsecret_proof"] = hmac.new(
                pixel.app_secret.encode(), pixel.access_token.encode(), hashlib.sha256
            ).hexdigest()
        self._more = b"," + json.dumps(more)[1:-1].encode() if more else b""
        self._headers = {
            "Authorization": f"Bearer {pixel.access_token}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
        }
        self._client = self._connect()

    def _connect(self) -> httpx.Client:
        return httpx.Client(
            headers=self._headers,
            timeout=httpx.Timeout(5.0),
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=1, keepalive_expiry=30.0),
        )

    def send(self, payloads: Sequence[bytes]) -> Outcome:
        """Post 1 to 1000 event objects as one request. Never raises for what the network does."""
        try:
            response, body = self._post(payloads)
            outcome = _judge(response, body, len(payloads))
            if not outcome.uncertain:
                self._check_date(response.headers.get("date"))
            return outcome
        except httpx.HTTPError as error:
            # The type alone: httpx puts URLs into its messages.
            return Outcome(
                "retry", type(error).__name__, uncertain=not isinstance(error, _NOT_SENT)
            )
        except (OSError, RuntimeError, ValueError) as error:
            # What a connection raises that was closed under its feet.
            return Outcome("retry", type(error).__name__, uncertain=True)

    def ask(self, payloads: Sequence[bytes]) -> tuple[int, Any]:
        """Post like `send`; the HTTP status and Meta's answer, None when it is no JSON.

        For people who want to read it. Raises ConnectionError, without any address, where the
        network gives no answer.
        """
        try:
            response, body = self._post(payloads)
        except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
            raise ConnectionError(type(error).__name__) from None
        return response.status_code, _decoded(body)

    def _post(self, payloads: Sequence[bytes]) -> tuple[httpx.Response, bytes]:
        content = body_of(payloads, self._more)
        with (
            self._bounded(),
            self._client.stream("POST", self._url, content=content) as response,
        ):
            return response, _read(response, time.monotonic() + DEADLINE)

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        """Close the connection when a request takes longer than DEADLINE, however it drips.

        httpx's timeouts are for each read (encode/httpx issue 1450).
        """
        client = self._client
        timer = threading.Timer(DEADLINE, client.close)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            if client.is_closed:
                self._client = self._connect()

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


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _judge(response: httpx.Response, body: bytes, sent: int) -> Outcome:
    answer = _decoded(body)
    if response.is_success:
        # Anything but Meta's own receipt for the whole batch is an unknown outcome.
        received = answer.get("events_received") if isinstance(answer, dict) else None
        if type(received) is int and received == sent:
            quiet = _rest_of_usage(response.headers)
            return Outcome("delivered", "" if quiet is None else "usage", quiet)
        return Outcome("retry", "no receipt", uncertain=True)
    error: Any = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        error = {}
    outcome = judge_error(
        response.status_code,
        _integer(error.get("code")),
        _integer(error.get("error_subcode")),
        error.get("is_transient") is True,
        blamed_fields(error.get("error_data")),
    )
    after = _seconds(response.headers.get("retry-after"))
    if after is None:
        after = _rest_of_usage(response.headers)
    return Outcome(outcome.kind, outcome.reason, after, outcome.uncertain)


def _rest_of_usage(headers: httpx.Headers) -> float | None:
    """Seconds to rest when a quota of Meta's is used up ("Rate Limits"); None when it is not."""
    rest = None
    for name in ("x-app-usage", "x-business-use-case-usage"):
        try:
            told = json.loads(headers.get(name, "{}"))
        except (ValueError, RecursionError):
            continue
        groups = [told] if name == "x-app-usage" else _lists(told)
        for usage in groups:
            if isinstance(usage, dict) and any(_amount(usage.get(key)) >= 100 for key in _USAGE):
                minutes = _amount(usage.get("estimated_time_to_regain_access"))
                rest = max(rest or 0.0, minutes * 60 or THROTTLE_DELAY)
    return rest


def _lists(told: object) -> list[object]:
    values = told.values() if isinstance(told, dict) else ()
    return [one for value in values if isinstance(value, list) for one in value]


def _amount(value: object) -> float:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known else 0.0  # type: ignore[arg-type] # a number, as known says


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _seconds(value: str | None) -> float | None:
    """Retry-After in seconds, also from a date; None for nonsense (Meta documents neither)."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
