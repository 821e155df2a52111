"""Webhook: posts messages to the address that the owner set, and tells nothing of its answer."""

import logging
import threading
import time
from collections.abc import Mapping

import httpx

#: Total time for one message in seconds, whatever the server does.
DEADLINE = 10.0
#: At most this much of an answer is read, in bytes.
ANSWER_LIMIT = 4 * 1024

# httpx logs each URL at INFO, and that of a webhook may be a secret.
logging.getLogger("httpx").setLevel(logging.WARNING)


class Webhook:
    """Posts to one address. `close` ends a message that is under way, from any thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: httpx.Client | None = None

    def post(self, body: bytes, headers: Mapping[str, str]) -> str:
        """Send one message; "" when it was taken (2xx), else why not, without any address."""
        end = time.monotonic() + DEADLINE
        client = self._client = httpx.Client(
            timeout=httpx.Timeout(5.0), follow_redirects=False, trust_env=False
        )
        # httpx's timeouts are for each read (encode/httpx issue 1450).
        timer = threading.Timer(DEADLINE, client.close)
        timer.daemon = True
        timer.start()
        try:
            with client.stream("POST", self._url, content=body, headers=dict(headers)) as response:
                _read(response, end)
                return "" if response.is_success else f"http {response.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, RuntimeError, ValueError) as error:
            return type(error).__name__
        finally:
            timer.cancel()
            client.close()
            self._client = None

    def close(self) -> None:
        """End a message that is under way."""
        client = self._client
        if client is not None:
            client.close()


def _read(response: httpx.Response, end: float) -> None:
    """Let the server finish its answer, within reason."""
    seen = 0
    for chunk in response.iter_raw():
        seen += len(chunk)
        if seen > ANSWER_LIMIT or time.monotonic() > end:
            return
