"""Whatever comes in whatever order: Meta counts an order once at the most."""

import json
import os
import re
import tempfile
import time
from types import SimpleNamespace

import hypothesis.strategies as st
from hypothesis import example, given, settings
from starlette.testclient import TestClient

from capi_middleware.testing import FakeMeta
from capi_middleware.testing.received import BrowserHit
from tests.journeys.world import HOUR, THANKS, World
from tests.support.configs import PIXEL_ID

_BLOCK = re.compile(r"data-c>(.*?)</script>", re.DOTALL)
_WEEK = 168 * HOUR
AGENT = {"user-agent": "Mozilla/5.0"}


class Device:
    """A browser without a script of its own: it fires what the pixel script would fire."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fired: dict[str, float] = {}

    def opens(self, world: World, process: int) -> None:
        """Open the page of thanks, and fire each event_id once a week."""
        text = TestClient(world.apps[process]).get(THANKS, headers=AGENT).text
        found = _BLOCK.search(text)
        assert found is not None
        for event in json.loads(found[1])["e"]:
            event_id = event["i"]
            if world.now - self.fired.get(event_id, -_WEEK) < _WEEK:
                continue
            self.fired[event_id] = world.now
            request = SimpleNamespace(method="GET", headers={"user-agent": self.name}, cookies={})
            params = {"id": PIXEL_ID, "ev": event["n"], "eid": event_id}
            world.meta.received.add_hit(request, params, world.now)  # type: ignore[arg-type]


#: What happens, and how many hours after what was before; the process, counted from the newest.
STEPS = st.tuples(
    st.sampled_from(
        ["phone", "phone", "laptop", "webhook", "webhook", "rotate", "deploy", "prune"]
    ),
    st.sampled_from([0.0, 0.0, 1.0, 23.0, 46.9, 47.1, 48.0, 48.1, 169.0, 900.0]),
    st.sampled_from([1, 1, 2]),
)


@example([("phone", 0.0, 1), ("laptop", 72.0, 1), ("phone", 192.0, 1), ("webhook", 900.0, 1)])
@example([("webhook", 0.0, 1), ("rotate", 1.0, 1), ("phone", 1.0, 2), ("laptop", 46.9, 1)])
@example([("rotate", 0.0, 1), ("phone", 0.0, 1), ("webhook", 0.0, 2), ("prune", 1.0, 1),
          ("rotate", 0.0, 1), ("phone", 900.0, 1)])  # fmt: skip
@given(st.lists(STEPS, min_size=2, max_size=8))
@settings(max_examples=int(os.environ.get("CAPI_INTERLEAVINGS", "10")))
def test_any_order_of_pages_webhooks_rotations_and_devices_is_one_purchase_at_the_most(
    steps: list[tuple[str, float, int]],
) -> None:
    with tempfile.TemporaryDirectory(prefix="capi-journey-") as folder:
        world = World(FakeMeta(), time.time(), store=f"sqlite:///{folder}/capi.db",
                      page_view=False)  # fmt: skip
        devices = {name: Device(name) for name in ("phone", "laptop")}
        planted = 0
        try:
            for what, hours, back in steps:
                world.now += hours * HOUR
                process = -min(back, len(world.apps))
                if what in devices:
                    devices[what].opens(world, process)
                elif what == "webhook":
                    world.webhook(process)
                elif what == "prune":
                    world.prune()
                else:
                    world.deploy(rotations=int(what == "rotate"))
                world.deliver()
                planted = planted or int(what in devices or what == "webhook")
            assert world.counted() == planted
        finally:
            world.close()


def test_meta_counts_the_first_of_an_id_and_again_what_comes_48_hours_later() -> None:
    received = FakeMeta().received
    hit = BrowserHit(PIXEL_ID, "Lead", "k1", {}, "", "GET", "", {}, "", {}, 0.0)
    for hours, name, event_id in [
        (0, "Lead", "k1"), (1, "Lead", "k1"), (47.9, "Lead", "k1"), (47, "Purchase", "k1"),
        (48.1, "Lead", "k1"), (96, "Lead", "k1"), (3, "Lead", None), (4, "Lead", None),
    ]:  # fmt: skip
        more = {**vars(hit), "ev": name, "eid": event_id, "arrived": hours * HOUR}
        received.browser.append(BrowserHit(**more))
    counted = [one.arrived / HOUR for one in received.counted()]
    assert counted == [0, 3, 4, 47, 48.1]
