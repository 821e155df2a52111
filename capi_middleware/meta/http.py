"""HTTP: one client, bounded in time and size, for everything that we ask of others."""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl

    import httpx

#: Seconds for one step of a request (connecting, each read); the caller bounds the whole.
STEP_SECONDS = 5.0
#: How the network failed, from the way there to the answer. What each means: codes.MEANINGS.
Failure = Literal[
    "dns", "refused", "unreachable", "certificate", "tls", "proxy", "timeout", "broken"
]
#: Never by a proxy, whatever the environment says: it would be another machine's loopback.
_HERE = ("localhost", "127.0.0.1", "::1")


class Answer(NamedTuple):
    """What a server answered. `cut`: its body was longer than the client reads."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: bool


class NoAnswer(Exception):
    """The network gave no answer. Its text is the kind of failure, without any address.

    `sent` is False where it is certain that the server did not get the whole request.
    """

    def __init__(self, kind: Failure, *, sent: bool) -> None:
        super().__init__(kind)
        self.sent = sent


class HTTPClient:
    """Sends one request at a time to one server. `close` ends the one under way, from any thread.

    Follows no redirect, reads at most `most` bytes of an answer. The proxies and certificates that
    the environment names are used (HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE …), but no proxy to this
    machine itself.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._closed = threading.Event()
        self._client: httpx.Client | None = None
        self._proxy: str | None = None

    @property
    def closed(self) -> bool:
        """Whether it was closed for good."""
        return self._closed.is_set()

    def close(self) -> None:
        """End the request under way, and the connection."""
        self._closed.set()
        if self._client is not None:
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

        client = self._connected(url)
        way = _Way(time.monotonic() + seconds, by_proxy=self._proxy is not None)
        # httpx's timeouts are for each read (encode/httpx issue 1450).
        timer = threading.Timer(seconds, client.close)
        timer.daemon = True
        with suppress(RuntimeError):  # at its end Python 3.12 begins none: each read has a limit
            timer.start()
        try:
            request = client.build_request(
                method, url, content=content, params=params, headers=dict(headers),
                extensions={"trace": way},
            )  # fmt: skip
            with closing(client.send(request, stream=True)) as response:
                body, cut = self._read(response, way.end)
                return Answer(response.status_code, response.headers, body, cut)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, RuntimeError, ValueError) as error:
            # The last three come from a connection that was closed under its feet.
            raise NoAnswer(way.failure(error), sent=way.sent) from None
        finally:
            timer.cancel()
            if client.is_closed and not self.closed:
                self._client = None

    def _read(self, response: "httpx.Response", end: float) -> tuple[bytes, bool]:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > self._most:
                return bytes(body[: self._most]), True
            if time.monotonic() > end:
                raise TimeoutError
        return bytes(body), False

    def _connected(self, url: str) -> "httpx.Client":
        # httpx costs 14 MB and 65 ms: only where something is sent.
        import httpx

        if self.closed:
            raise NoAnswer("broken", sent=False)
        if self._client is not None:
            return self._client
        # It logs each URL at INFO: the host's logs are not ours to fill, nor is it theirs to know.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        try:
            trusted = _trusted(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        except OSError:  # SSL_CERT_FILE or SSL_CERT_DIR names nothing that can be read
            raise NoAnswer("certificate", sent=False) from None
        self._proxy = _proxy_to(url)
        try:
            client = httpx.Client(
                headers={"Accept-Encoding": "identity"},
                timeout=httpx.Timeout(STEP_SECONDS),
                follow_redirects=False,
                verify=trusted,
                proxy=self._proxy,
                trust_env=False,
                limits=httpx.Limits(max_connections=1, keepalive_expiry=30.0),
            )
        except (httpx.InvalidURL, ValueError, ImportError):
            # The proxy is no URL, or needs what is not installed (SOCKS).
            raise NoAnswer("proxy", sent=False) from None
        self._client = client
        if self._closed.is_set():
            client.close()  # from another thread, just now
        return client


@cache
def _trusted(file: str | None, directory: str | None) -> "ssl.SSLContext":
    """The certificates that httpx believes with SSL_CERT_FILE and SSL_CERT_DIR as they are.

    To read them takes 20 ms and a megabyte: the pixels of a process share them.
    """

    import httpx

    return httpx.create_ssl_context()


class _Way:
    """How far one request came, as httpcore traces it. `end`: by time.monotonic()."""

    def __init__(self, end: float, *, by_proxy: bool) -> None:
        self.end = end
        self._by_proxy = by_proxy
        #: The server has the whole of the request.
        self.sent = False
        self._tunnels = self._secures = False

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Something happened. What is raised here ends the request."""
        match event:
            case "connection.start_tls.started" | "proxy.start_tls.started":
                self._secures = True
            case "http11.send_request_headers.started":
                # Finding and reaching a server cannot be interrupted: too late is not at all.
                if time.monotonic() > self.end:
                    raise TimeoutError
                self._tunnels = info["request"].method == b"CONNECT"
            case "http11.send_request_body.complete":
                self.sent = not self._tunnels

    def failure(self, error: Exception) -> Failure:
        """What `error` comes to."""
        import ssl

        import httpx

        if not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
            late = isinstance(error, httpx.TimeoutException) or time.monotonic() >= self.end
            return "proxy" if self._tunnels else "timeout" if late else "broken"
        causes = list(_causes(error))
        if any(isinstance(one, ssl.SSLCertVerificationError) for one in causes):
            return "certificate"
        if self._secures:
            return "tls"
        if self._by_proxy:
            return "proxy"
        if any(isinstance(one, socket.gaierror) for one in causes):
            return "dns"
        refused = any(isinstance(one, ConnectionRefusedError) for one in causes)
        return "refused" if refused else "unreachable"


def _proxy_to(url: str) -> str | None:
    """The proxy that the environment names for the server of `url`.

    As the standard library reads it: httpx gives up at networks in NO_PROXY (fd00::/8).
    """
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    if parts.hostname in _HERE or proxy_bypass(parts.netloc):
        return None
    named = getproxies()
    proxy = named.get(parts.scheme) or named.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def http_date(text: str | None) -> float | None:
    """Unix time in seconds that a header names, None for none. A time without a zone is UTC."""
    try:
        moment = parsedate_to_datetime(text or "")
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
