"""HTTP: one client, bounded in time and size, for everything that we ask of others."""

import logging
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import httpx

#: Seconds for one step of a request (connecting, each read); the caller bounds the whole.
STEP_SECONDS = 5.0


class Answer(NamedTuple):
    """What a server answered. `cut`: its body was longer than the client reads."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: bool


class NoAnswer(Exception):
    """The network gave no answer. Its text is the kind of failure, without any address.

    `sent` is False where it is certain that the server did not get the request.
    """

    def __init__(self, kind: str, *, sent: bool) -> None:
        super().__init__(kind)
        self.sent = sent


class HTTPClient:
    """Sends one request at a time. `close` ends the one under way, from any thread.

    Follows no redirect, knows no proxy of the environment, reads at most `most` bytes of an answer.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._closed = threading.Event()
        self._client = self._connect()

    @property
    def closed(self) -> bool:
        """Whether it was closed for good."""
        return self._closed.is_set()

    def close(self) -> None:
        """End the request under way, and the connection."""
        self._closed.set()
        self._client.close()

    def send(
        self,
        method: str,
        url: str,
        *,
        seconds: float,
        headers: Mapping[str, str],
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer to one request, which may take `seconds` in all. Raises NoAnswer."""
        import httpx

        client, end = self._client, time.monotonic() + seconds
        # httpx's timeouts are for each read (encode/httpx issue 1450).
        timer = threading.Timer(seconds, client.close)
        timer.daemon = True
        timer.start()
        try:
            with client.stream(
                method, url, content=content, params=params, headers=dict(headers)
            ) as response:
                return Answer(response.status_code, response.headers, *self._read(response, end))
        except (
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.PoolTimeout,
            httpx.UnsupportedProtocol,
        ) as error:
            raise NoAnswer(type(error).__name__, sent=False) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, RuntimeError, ValueError) as error:
            # The last three come from a connection that was closed under its feet.
            raise NoAnswer(type(error).__name__, sent=True) from None
        finally:
            timer.cancel()
            if client.is_closed and not self.closed:
                self._client = self._connect()

    def _read(self, response: "httpx.Response", end: float) -> tuple[bytes, bool]:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > self._most:
                return bytes(body[: self._most]), True
            if time.monotonic() > end:
                raise TimeoutError
        return bytes(body), False

    def _connect(self) -> "httpx.Client":
        # httpx costs 14 MB and 65 ms: only where something is sent.
        import httpx

        # It logs each URL at INFO: the host's logs are not ours to fill, nor is it theirs to know.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        return httpx.Client(
            headers={"Accept-Encoding": "identity"},
            timeout=httpx.Timeout(STEP_SECONDS),
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=1, keepalive_expiry=30.0),
        )
