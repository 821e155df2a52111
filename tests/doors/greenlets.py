"""A WSGI app whose pages are conversions, for servers that run greenlets.

`python -m tests.doors.greenlets PORT early|half|late|never` serves it by gevent.pywsgi, patched
before this package is loaded (`half`: but for threads), after that, or not at all.
"""

import sys

if __name__ == "__main__" and sys.argv[2] in ("early", "half"):
    from gevent import monkey

    monkey.patch_all(thread=sys.argv[2] == "early")
    # httpx loads it where it is, and it starts a process, which gevent forbids in real threads.
    sys.modules["trio"] = None  # type: ignore[assignment]

import asyncio
import logging
import os
from typing import Any

from capi_middleware import CAPI, Config, EventRoute, Pixel, UserData, track, wsgi

PAGE = b"<!doctype html><html><head><title>x</title></head><body>hi</body></html>"

logging.basicConfig(filename=os.environ.get("CAPI_TEST_LOG"), level=logging.WARNING)


async def known(request: Any) -> UserData:
    """As a host's code that asks a database."""
    await asyncio.sleep(0.01)
    return UserData(external_id=request.url.path)


capi = CAPI(
    Config(
        secret_key="a-secret-for-doors-of-more-than-32-characters",
        pixels=[Pixel("1234567890", access_token="token")],
        store=os.environ.get("CAPI_TEST_STORE", "memory:"),
        graph_url=os.environ.get("CAPI_TEST_GRAPH", "http://127.0.0.1:9"),
        user_data=known,
        page_view=False,
        routes=[EventRoute("GET /orders/{n}", "Lead", dedupe_key="{path.n}")],
    )
)


def page(environ: Any, start_response: Any) -> Any:
    """Each tracks; /streams/… while its body is made."""

    def pieces() -> Any:
        yield PAGE[:30]
        track("Schedule", user_data=UserData(external_id="17"))
        yield PAGE[30:]

    start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(PAGE)))])
    if environ["PATH_INFO"].startswith("/streams"):
        return pieces()
    track("Contact")
    return [PAGE]


application = wsgi.CAPIMiddleware(page, capi)

if __name__ == "__main__":
    if sys.argv[2] == "late":
        from gevent import monkey

        monkey.patch_all()
    from gevent.pywsgi import WSGIServer

    WSGIServer(("127.0.0.1", int(sys.argv[1])), application, log=None).serve_forever()
