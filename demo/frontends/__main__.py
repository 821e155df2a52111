"""Runs the API, React's build and Next.js on 127.0.0.1 until Ctrl-C."""

import argparse
import contextlib
import secrets
import signal
import sys
import threading

from capi_middleware import CAPI
from capi_middleware.testing import FakeMeta
from capi_middleware.testing.fake_meta import serve
from demo.frontends.api import REPORT_TOKEN, app, config
from demo.frontends.running import FRONT_ENDS, SITES
from demo.running import check_free


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.frontends", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="the API's port; the pages' follow")
    parser.add_argument("--only", default="", help=f"one of {', '.join(FRONT_ENDS)}")
    given = parser.parse_args()
    chosen = [one for one in FRONT_ENDS if given.only in ("", one)]
    if not chosen:
        parser.error(f"found --only {given.only}, expected one of {', '.join(FRONT_ENDS)}")
    for n, what in enumerate(["the API", *chosen]):
        check_free(given.port + n, what, "PORT")
    # Whatever ends it, what it started ends with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        _start(stack, given.port, chosen)
        threading.Event().wait()


def _start(stack: contextlib.ExitStack, port: int, chosen: list[str]) -> None:
    api = f"http://api.shop.localhost:{port}"
    ports = {name: port + 1 + n for n, name in enumerate(chosen)}
    pages = {
        f"http://{host}:{one}": f"{name:8}  on {site}"
        for name, one in ports.items()
        for host, site in SITES.items()
    }
    meta = stack.enter_context(FakeMeta().serve())
    settings = config(
        meta, list(pages), secret_key=secrets.token_urlsafe(32), store="memory:", mirror=["Contact"]
    )
    capi = stack.enter_context(contextlib.closing(CAPI(settings)))
    stack.enter_context(serve(app(capi), port))
    try:
        for name, one in ports.items():
            print(f"  npm installs and builds {name} ...", flush=True)
            stack.enter_context(FRONT_ENDS[name](api, one))
    except AssertionError as error:
        sys.exit(str(error))
    print("\n".join(
        [
            *(f"  {text:36} {page}/" for page, text in pages.items()),
            f"  {'Report':36} http://127.0.0.1:{port}/_capi/parity   (token: {REPORT_TOKEN})",
            f"  {'Fake Meta':36} {meta}/received",
            "\n  Buy something, then look at the report. Ctrl-C stops everything.",
        ]
    ), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
