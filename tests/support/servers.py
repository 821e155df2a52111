"""Real servers for tests, as users of the testing kit get them."""

import socket

from capi_middleware.testing.fake_meta import serve

__all__ = ["closed_port", "serve"]


def closed_port() -> str:
    """A base URL where every connection is refused."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
