"""A real server for tests: uvicorn in a thread, on a port of 127.0.0.1."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def serve(app: Any, port: int = 0) -> Iterator[str]:
    """Serve an ASGI app while the context lasts; yields its base URL without a slash at the end.

    A `port` of 0 takes a free one. Raises ImportError where uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise ImportError(
            f"found no uvicorn ({error}), expected it: pip install 'capi-middleware[testing]'"
        ) from None
    listener = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(app, log_level="critical", lifespan="auto", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        server.force_exit = True  # answers that hang on purpose are not waited for
        thread.join(30)
        listener.close()
