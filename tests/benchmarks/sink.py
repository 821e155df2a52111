"""`python -m tests.benchmarks.sink`: takes posted events at once, as a Meta that costs nothing.

Prints its URL, then serves until its standard input ends. `/hang` never answers, nor does the
pixel HANGING; `/slow` after 300 ms.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator

from tests.support.trees import ROOT

HANGING = "666"


@contextlib.contextmanager
def sink() -> Iterator[str]:
    """The URL of one in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.sink"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
            body = await reader.readexactly(int(length))
            if b" /hang" in head or f"/{HANGING}/events".encode() in head:
                await reader.read()
                break
            if b" /slow" in head:
                await asyncio.sleep(0.3)
            answer = b'{"events_received":%d,"messages":[],"fbtrace_id":"a"}' % body.count(
                b'"event_id"'
            )
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(answer), answer)
            )
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve_one, "127.0.0.1", 0, limit=1 << 24)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
