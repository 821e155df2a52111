"""Steps: sans-IO coroutines, so that one code path serves both doors."""

from collections.abc import Generator
from typing import Any, TypeVar

T = TypeVar("T")
#: How long a response waits for the disk before it ends all the same, in seconds.
COMMIT_PATIENCE = 2.0
#: Yields awaitables of the host, futures of the store, or plain callables that may take long; a
#: door waits for each in its own way and sends the result back, or throws the error in.
Steps = Generator[Any, Any, T]

#: Header lines as ASGI has them.
Headers = list[tuple[bytes, bytes]]
