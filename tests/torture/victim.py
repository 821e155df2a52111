"""A process to be killed: `python -m tests.torture.victim STORE GRAPH_URL NAME`.

Says "try KEY" before and "ok EVENT_ID KEY" after each event that it tracked.
"""

import itertools
import sys

from capi_middleware import CAPI, Pixel, UserData
from capi_middleware.delivery import courier as worker
from tests.support.configs import PIXEL_ID, TOKEN, make_config

#: The events of a killed process wait for the end of its lease; here nobody wants to wait long.
worker.LEASE_SECONDS = 1.0
worker.POLL_SECONDS = 0.2


def main(store: str, graph_url: str, name: str) -> None:
    """Track and deliver until killed; with the name "drain" only deliver, until nothing is left."""
    pixels = [Pixel(PIXEL_ID, access_token=TOKEN)]
    capi = CAPI(make_config(store=store, graph_url=graph_url, pixels=pixels, delivery=True))
    capi.start()
    if name == "drain":
        while not capi.flush(1.0):
            pass
        capi.close()
        return
    for number in itertools.count():
        key = f"{name}-{number}"
        print(f"try {key}", flush=True)
        event = capi.track("Lead", dedupe_key=key, user_data=UserData(external_id=key))
        print(f"ok {event.event_id} {key}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
