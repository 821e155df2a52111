"""Runs the shop on 127.0.0.1:8000 and the fake Meta on 127.0.0.1:8001 until Ctrl-C."""

import argparse
import os
import secrets
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import uvicorn

from capi_middleware.testing import FakeMeta
from demo.shop import create


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="the shop's port")
    parser.add_argument("--meta-port", type=int, default=8001, help="the fake Meta's port")
    parser.add_argument("--store", default="", help="a store URL; default: a temporary file")
    parser.add_argument("--visitors", type=int, default=0, help="simulated visitors that shop")
    given = parser.parse_args()
    shop = f"http://127.0.0.1:{given.port}"
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="capi-demo-"))
        try:
            meta = stack.enter_context(FakeMeta().serve(given.meta_port))
        except OSError as error:
            sys.exit(f"the fake Meta did not start ({error.strerror}): see --meta-port")
        os.environ["CAPI_META"] = meta
        os.environ["CAPI_STORE"] = given.store or f"sqlite:///{Path(folder) / 'capi.db'}"
        os.environ.setdefault("CAPI_SECRET_KEY", secrets.token_urlsafe(32))
        print(
            f"\n  Shop      {shop}/\n"
            f"  Report    {shop}/_capi/parity   (token: demo)\n"
            f"  Fake Meta {meta}/received\n\n"
            "  Buy something, then look at the report. Ctrl-C stops everything.\n",
            flush=True,
        )
        if given.visitors:
            threading.Thread(target=_visit, args=(shop, meta, given.visitors), daemon=True).start()
        uvicorn.run(create(), host="127.0.0.1", port=given.port, log_level="warning")


def _wait_for(url: str) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 - a fixed http address
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"found no answer from {url} within 10 seconds")


def _visit(shop: str, meta: str, visitors: int) -> None:
    from demo.visitors import shop_around

    _wait_for(f"{shop}/")
    shop_around(shop, meta, visitors)


if __name__ == "__main__":
    main()
