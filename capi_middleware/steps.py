"""Steps: sans-IO coroutines, so that one code path serves both doors."""

from collections.abc import Generator
from typing import Any, TypeVar

T = TypeVar("T")
#: The longest body of a request to our endpoints, in bytes: the limit of sendBeacon.
BODY_LIMIT = 64 * 1024

#: Yields awaitables of the host, commits of the store, or plain callables that may take long; a
#: door waits for each in its own way and sends the result back, or throws the error in.
Steps = Generator[Any, Any, T]

#: Header lines as ASGI has them.
Headers = list[tuple[bytes, bytes]]
