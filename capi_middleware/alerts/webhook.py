"""Webhook: posts messages to the address that the owner set, and tells nothing of its answer."""

from collections.abc import Mapping

from capi_middleware.meta.http import HTTPClient, NoAnswer

#: Total time for one message in seconds, whatever the server does.
DEADLINE = 10.0
#: At most this much of an answer is read, in bytes.
ANSWER_LIMIT = 4 * 1024


class Webhook:
    """Posts to one address. `close` ends a message that is under way, from any thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http: HTTPClient | None = None

    def post(self, body: bytes, headers: Mapping[str, str]) -> str:
        """Send one message; "" when it was taken (2xx), else why not, without any address."""
        with HTTPClient(ANSWER_LIMIT) as self._http:
            try:
                answer = self._http.send(
                    "POST", self._url, seconds=DEADLINE, headers=headers, content=body
                )
            except NoAnswer as error:
                return str(error)
        return "" if 200 <= answer.status < 300 else f"http {answer.status}"

    def close(self) -> None:
        """End a message that is under way."""
        if self._http is not None:
            self._http.close()
