"""Graph: what is posted to Meta's Graph API, and what its answers come to."""

import hashlib
import hmac
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from capi_middleware.meta.codes import THROTTLE_DELAY, Outcome, judge, read_error, trace_in
from capi_middleware.meta.http import Answer, HTTPClient, NoAnswer, http_date

#: Total time for one request in seconds, whatever the server does: Meta advises 1.5 s for calls
#: inside a page; nobody waits for ours, and most answers come in under 0.6 s.
DEADLINE = 10.0
#: At most this much of an answer is read, in bytes.
ANSWER_LIMIT = 64 * 1024
#: How much of a quota is used, in percent: Meta throttles at 100.
_USAGE = ("call_count", "total_cputime", "total_time", "acc_id_util_pct")


class GraphClient:
    """Posts batches for one pixel with its access token. One per courier thread; not shared.

    `app_secret` signs each request. `test_code` goes along until `test_until`, Unix time in
    seconds. `check_date` gets the Date header of each answer of Meta's own.
    """

    def __init__(
        self,
        graph_url: str,
        version: str,
        pixel_id: str,
        token: str,
        *,
        app_secret: str | None = None,
        test_code: str | None = None,
        test_until: float = math.inf,
        check_date: Callable[[str | None], None] = lambda date: None,
    ) -> None:
        self._check_date = check_date
        self._root = f"{graph_url.rstrip('/')}/"
        self._url = f"{self._root}{version}/{pixel_id}/events"
        more = proof(token, app_secret)
        self._more = _fields(more)
        self._test = _fields({**more, "test_event_code": test_code}) if test_code else self._more
        self._test_until = test_until
        self._headers = {**bearer(token), "Content-Type": "application/json"}
        self._http = HTTPClient(ANSWER_LIMIT)

    def send(self, payloads: Sequence[bytes]) -> Outcome:
        """Post 1 to 1000 event objects as one request. Never raises for what the network does."""
        try:
            answer = self._post(payloads)
        except NoAnswer as error:
            kind = str(error)
            return Outcome("retry", kind, uncertain=error.sent, late=kind == "timeout")
        outcome = _outcome(answer, len(payloads))
        if not outcome.uncertain:
            self._check_date(answer.headers.get("date"))
        return outcome

    def ask(self, payloads: Sequence[bytes]) -> tuple[int, Any]:
        """Post like `send`; the HTTP status and Meta's answer, None when it is no JSON.

        For people who want to read it. Raises NoAnswer where the network gives none.
        """
        answer = self._post(payloads)
        return answer.status, decoded(answer.body)

    def hear(self) -> Outcome | None:
        """Ask for nothing but the time of Meta's clock; what came in between, None for nothing."""
        try:
            answer = self._http.send("GET", self._root, seconds=DEADLINE, headers={})
        except NoAnswer as error:
            return Outcome("retry", str(error))
        self._check_date(answer.headers.get("date"))
        return None

    def _post(self, payloads: Sequence[bytes]) -> Answer:
        more = self._test if time.time() < self._test_until else self._more
        content = body_of(payloads, more)
        return self._http.send(
            "POST", self._url, seconds=DEADLINE, headers=self._headers, content=content
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def bearer(token: str) -> dict[str, str]:
    """The header that carries an access token: never an address, which others may log."""
    return {"Authorization": f"Bearer {token}"}


def proof(token: str, app_secret: str | None) -> dict[str, str]:
    """The appsecret_proof of a token (hex of an HMAC-SHA256), {} without an app secret."""
    if not app_secret:
        return {}
    digest = hmac.new(app_secret.encode(), token.encode(), hashlib.sha256).hexdigest()
    return {"appsecret_proof": digest}


def _fields(more: Mapping[str, str]) -> bytes:
    """Fields of a request body as they follow another in JSON."""
    return b"," + json.dumps(more)[1:-1].encode() if more else b""


def body_of(payloads: Sequence[bytes], more: bytes = b"") -> bytes:
    """The request body: event objects as `data`, and `more` fields as they follow it in JSON."""
    return b'{"data":[%b]%b}' % (b",".join(payloads), more)


def decoded(text: bytes | str) -> Any:
    """What a JSON text says, None when it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _outcome(answer: Answer, sent: int) -> Outcome:
    told = decoded(answer.body)
    if 200 <= answer.status < 300:
        # Anything but Meta's own receipt for the whole batch is an unknown outcome.
        received = told.get("events_received") if isinstance(told, dict) else None
        if type(received) is int and received == sent:
            quiet = _rest_of_usage(answer.headers)
            reason = "" if quiet is None else "usage"
            return Outcome("delivered", reason, quiet, trace=trace_in(told))
        return Outcome("retry", "no receipt", uncertain=True)
    outcome = judge(answer.status, read_error(told))
    after = _retry_after(answer.headers)
    if after is None:
        after = _rest_of_usage(answer.headers)
    return replace(outcome, delay=after, trace=trace_in(told))


def _rest_of_usage(headers: Mapping[str, str]) -> float | None:
    """Seconds to rest when a quota of Meta's is used up ("Rate Limits"); None when it is not."""
    rest = None
    for name in ("x-app-usage", "x-ad-account-usage", "x-business-use-case-usage"):
        told = decoded(headers.get(name, ""))
        groups = _lists(told) if name == "x-business-use-case-usage" else [told]
        for usage in groups:
            if isinstance(usage, dict) and any(_amount(usage.get(key)) >= 100 for key in _USAGE):
                seconds = _amount(usage.get("estimated_time_to_regain_access")) * 60
                seconds = seconds or _amount(usage.get("reset_time_duration"))
                rest = max(rest or 0.0, seconds or THROTTLE_DELAY)
    return rest


def _lists(told: object) -> list[object]:
    values = told.values() if isinstance(told, dict) else ()
    return [one for value in values if isinstance(value, list) for one in value]


def _amount(value: object) -> float:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known else 0.0  # type: ignore[arg-type] # a number, as known says


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds, also from a date; None for nonsense (Meta documents neither)."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    until = http_date(value)
    if until is None:
        return None
    # By the clock that named it: ours may be wrong.
    return max(0.0, until - (http_date(headers.get("date")) or time.time()))
