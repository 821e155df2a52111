"""Reading from the Graph API: bounded in time, size and pages, the token only in a header."""

import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from capi_middleware.insights.model import Problem

#: Seconds for all questions of one look, and for one of them, however the answers drip.
ROUND_SECONDS = 60.0
QUESTION_SECONDS = 10.0
#: At most this much of an answer is read, in bytes: a week of hours with a hundred events each.
ANSWER_LIMIT = 2 * 1024 * 1024
#: Pages of one answer, and what each may hold.
MOST_PAGES = 20
PAGE = 100

_NEXT_LOOK = "Nothing to do: the next look asks again. The numbers shown are those of before."
_ACCESS = frozenset({3, 10, 100, *range(200, 300)})
_TOKEN = frozenset({102, 104, 190, 452})
_THROTTLED = frozenset({4, 17, 32, 341, 368, 613, *range(80000, 80015)})

# httpx logs each URL at INFO; ours carries no token, but the host's logs are not ours to fill.
logging.getLogger("httpx").setLevel(logging.WARNING)


class GivenUp(Exception):
    """The reader was closed while it asked."""


class Reader:
    """Asks the Graph API for one look. Ends by itself after ROUND_SECONDS. Not shared."""

    def __init__(self, graph_url: str, version: str) -> None:
        self._base = f"{graph_url.rstrip('/')}/{version}/"
        self._client = _connect()
        self._end = time.monotonic() + ROUND_SECONDS
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what is being asked, from any thread: it raises GivenUp."""
        self._closed.set()
        self._client.close()

    def check(self) -> None:
        """Raises GivenUp when the reader was closed."""
        if self._closed.is_set():
            raise GivenUp

    def get(
        self, path: str, params: Mapping[str, str], *, token: str, app_secret: str | None
    ) -> dict[str, Any] | Problem:
        """The answer to one question; a Problem for what the network or Meta does.

        Raises GivenUp when the reader was closed.
        """
        query = dict(params)
        if app_secret:
            query["appsecret_proof"] = hmac.new(
                app_secret.encode(), token.encode(), hashlib.sha256
            ).hexdigest()
        headers = {"Authorization": f"Bearer {token}"}
        end = min(self._end, time.monotonic() + QUESTION_SECONDS)
        # httpx's timeouts are for each read (encode/httpx issue 1450).
        if time.monotonic() >= end:
            return _failed("there was no time left to ask")
        timer = threading.Timer(end - time.monotonic(), self._client.close)
        timer.daemon = True
        timer.start()
        try:
            with self._client.stream(
                "GET", self._base + path, params=query, headers=headers
            ) as response:
                return _judge(response.status_code, _read(response, end))
        except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
            self.check()
            # The type alone: httpx puts URLs into its messages.
            return _failed(f"the Graph API gave no answer ({type(error).__name__})")
        finally:
            timer.cancel()
            if self._client.is_closed and not self._closed.is_set():
                self._client = _connect()

    def pages(
        self, path: str, params: Mapping[str, str], *, token: str, app_secret: str | None
    ) -> list[Any] | Problem:
        """All of a list, page by page.

        Meta's own link to the next page carries the token in its address: only its cursor is used.
        """
        found: list[Any] = []
        query = {**params, "limit": str(PAGE)}
        for _ in range(MOST_PAGES):
            answer = self.get(path, query, token=token, app_secret=app_secret)
            if isinstance(answer, Problem):
                return answer
            data = answer.get("data")
            found += data if isinstance(data, list) else []
            paging = answer.get("paging")
            cursors = paging.get("cursors") if isinstance(paging, dict) else None
            after = cursors.get("after") if isinstance(cursors, dict) else None
            if not isinstance(paging, dict) or "next" not in paging or not isinstance(after, str):
                return found
            query["after"] = after
        return _failed(f"the answer has more than {MOST_PAGES} pages")


def _connect() -> httpx.Client:
    return httpx.Client(
        headers={"Accept-Encoding": "identity"},
        timeout=httpx.Timeout(5.0),
        follow_redirects=False,
        trust_env=False,
    )


def _read(response: httpx.Response, end: float) -> bytes:
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > ANSWER_LIMIT:
            raise ValueError("the answer is too long")
        if time.monotonic() > end:
            raise httpx.ReadTimeout("the answer took too long")
    return bytes(body)


def _judge(status: int, body: bytes) -> dict[str, Any] | Problem:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if 200 <= status < 300 and isinstance(answer, dict) and "error" not in answer:
        return answer
    error = answer.get("error") if isinstance(answer, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    if not isinstance(code, int):
        kind = "a redirect" if 300 <= status < 400 else "no answer of the Graph API"
        return _failed(f"found {kind} (http {status})")
    if code in _TOKEN:
        return Problem(
            "no_permission",
            f"Meta refuses the token (code {code}).",
            "Make a new token and set it as read_token of the Pixel (or as its access_token).",
        )
    if code in _ACCESS:
        return Problem(
            "no_permission",
            f"The token may not read this (code {code}): one made in Events Manager often may only "
            "post events.",
            "Set read_token of the Pixel to the token of a system user with ads_read that is "
            "assigned to the dataset and the ad account; for the quality alone the scope "
            "read_ads_dataset_quality is enough. Check the ids of the pixel and the ad account.",
        )
    if code in _THROTTLED:
        return _failed(f"Meta throttles (code {code})")
    if code == 2500:
        return Problem(
            "failed",
            "Meta does not know this address (code 2500).",
            "Set graph_version to a version that Meta serves.",
        )
    return _failed(f"Meta answered code {code}")


def _failed(what: str) -> Problem:
    return Problem("failed", f"Asking Meta failed: {what}.", _NEXT_LOOK)
