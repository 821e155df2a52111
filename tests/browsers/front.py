"""A front of the pixel's hosts that cuts off what a blocker or a broken network would."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

#: Whether a request is cut off: by its head (the request line and the headers in lower case), and
#: by how many were cut off before.
Refuses = Callable[[str, int], bool]


class Front(ThreadingTCPServer):
    """Passes each request on to `behind`, a (host, port), or resets its connection."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, refuses: Refuses) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.refuses = refuses
        self.behind = ("", 0)
        self.cut = 0

    def shutdown_request(self, request: Any) -> None:
        """Close it without a farewell: that would make an empty answer of a reset."""
        self.close_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that has left is no error."""


class _Request(StreamRequestHandler):
    """One request a connection."""

    server: Front

    def handle(self) -> None:
        lines = list(iter(self.rfile.readline, b"\r\n"))
        if not lines or not lines[-1]:
            return  # a connection that was opened ahead
        head = b"".join(lines).decode("latin-1").lower()
        if self.server.refuses(head, self.server.cut):
            self.server.cut += 1
            linger = struct.pack("ii", 1, 0)  # a reset, as it is closed
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return
        kept = [line for line in lines if not line.lower().startswith(b"connection:")]
        _, _, length = head.partition("content-length: ")
        body = self.rfile.read(int(length.split()[0])) if length else b""
        with socket.create_connection(self.server.behind) as onward:
            onward.sendall(b"".join(kept) + b"connection: close\r\n\r\n" + body)
            while answer := onward.recv(65536):
                self.wfile.write(answer)


@contextlib.contextmanager
def fronting(refuses: Refuses) -> Iterator[tuple[str, Front]]:
    """Its base URL and itself, while the context lasts."""
    with Front(refuses) as front:
        thread = threading.Thread(target=front.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{front.server_address[1]}", front
        finally:
            front.shutdown()
            thread.join(10)
