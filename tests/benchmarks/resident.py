"""`python -m tests.benchmarks.resident STORE GRAPH_URL`: delivers 2 s, prints its peak memory."""

import sys
import time
from pathlib import Path

from capi_middleware import CAPI, Pixel
from tests.support.configs import PIXEL_ID, TOKEN, make_config


def main(path: str, graph_url: str) -> None:
    pixels = [Pixel(PIXEL_ID, access_token=TOKEN)]
    store = f"sqlite:///{path}"
    capi = CAPI(make_config(store=store, graph_url=graph_url, pixels=pixels, delivery=True))
    capi.start()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        capi.track("Lead")
        time.sleep(0.01)
    # Not getrusage: its figure starts with that of the process that started this one.
    status = Path("/proc/self/status").read_text("ascii")
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
    capi.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
