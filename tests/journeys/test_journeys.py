"""A table of journeys in a real Chromium: the copies at Meta are those that were planted."""

import os
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, BrowserContext

from capi_middleware.testing import FakeMeta
from capi_middleware.testing.received import Received
from tests.journeys.world import HOUR, THANKS, World
from tests.support.configs import PIXEL_ID
from tests.support.servers import serve

#: The page's clock, so many milliseconds ahead; its timers and timings stay those of Chromium.
CLOCK = "{ const { now } = Date; Date.now = () => now() + %d; }"


class Journey(NamedTuple):
    """One order: its first page or webhook, and what comes `day` days later."""

    first: str
    then: str
    day: float
    between: str
    cache: str = "no-store"
    store: str = "sqlite"

    @property
    def name(self) -> str:
        return "-".join(map(str, self))


FIRST = ("phone", "webhook")
THEN = ("phone", "laptop", "webhook", "phone+webhook")
DAYS = (0, 1.9, 3, 8, 36)
BETWEEN = ("nothing", "rotate", "prune", "deploy+prune", "rotate+prune")
#: Every pair of a first, a second and a day; what lies between, the cache and the store go round.
JOURNEYS = [
    Journey(
        first, then, day, BETWEEN[(n + turn) % len(BETWEEN)],
        ("no-store", "private, max-age=9999999")[(n + turn) // 5 % 2],
        ("sqlite", "postgres")[(n + turn) // 3 % 2],
    )
    for n, (first, then, day) in enumerate(product(FIRST, THEN, DAYS))
    for turn in (0, 3)
]  # fmt: skip
#: Those of every run of the tests: all days, all that lies between, both caches and stores.
CHOSEN = JOURNEYS[::6]


def planted(journey: Journey) -> tuple[int, int]:
    """(server copies, browser copies) that Meta must get: one server copy, once.

    A row that is pruned within the window, sooner than any retention, is sent again and removed.
    """
    is_over = journey.day * 24 > 47
    seen = set()
    if journey.first == "phone":
        seen.add("phone")
    if not is_over:
        seen |= {one for one in journey.then.split("+") if one != "webhook"}
    again = "prune" in journey.between and not is_over
    return 1 + again, len(seen)


class Street:
    """A server and a Meta for all journeys, and the world that they are in."""

    def __init__(self, browser: Browser, meta: FakeMeta) -> None:
        self.browser, self.meta = browser, meta
        self.url = ""
        self.beacons = 0
        self.world: World

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await self.world.apps[-1](scope, receive, send)
        self.beacons += scope["path"] == "/_capi/b"

    def walk(self, world: World, steps: str, devices: dict[str, BrowserContext]) -> None:
        for step in steps.split("+"):
            if step == "webhook":
                world.webhook()
            elif step == "prune":
                world.prune()
            elif step in ("rotate", "deploy"):
                world.deploy(rotations=int(step == "rotate"))
            elif step != "nothing":
                self.open(world, devices[step])
            world.deliver()

    def open(self, world: World, device: BrowserContext) -> None:
        """Open the page of thanks, and wait until its script has told what became of its copies."""
        page = device.new_page()
        page.add_init_script(CLOCK % ((world.now - time.time()) * 1000))
        before = self.beacons
        page.goto(self.url + THANKS)
        for _ in range(400):
            if self.beacons > before:
                break
            page.wait_for_timeout(25)
        else:
            pytest.fail("no beacon came")
        page.close()


@pytest.fixture(scope="module")
def street(browser: Browser) -> Iterator[Street]:
    made: list[Street] = []
    meta = FakeMeta(clock=lambda: made[0].world.now)
    made.append(Street(browser, meta))
    with meta.serve(), serve(made[0]) as made[0].url:
        yield made[0]


@pytest.mark.parametrize(
    "journey",
    JOURNEYS if os.environ.get("CAPI_JOURNEYS") else CHOSEN,
    ids=lambda journey: journey.name,
)
def test_an_order_is_one_purchase_and_its_copies_are_those_that_were_planted(
    street: Street, journey: Journey, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store = f"sqlite:///{tmp_path / 'capi.db'}"
    if journey.store == "postgres":
        store = request.getfixturevalue("postgres_url")
    street.meta.received = Received()
    world = World(
        street.meta, time.time(), store=store, graph_url=street.meta.url,
        pixel_script_url=f"{street.meta.url}/en_US/fbevents.js",
    )  # fmt: skip
    world.cache = journey.cache
    street.world = world
    devices = {name: street.browser.new_context() for name in ("phone", "laptop")}
    try:
        street.walk(world, journey.first, devices)
        street.walk(world, journey.between, devices)
        world.now += journey.day * 24 * HOUR
        street.walk(world, journey.then, devices)
        assert world.counted() == 1
        assert world.copies() == planted(journey)
        ids = {one.key[2] for one in street.meta.received.counted() if one.key[1] == "Purchase"}
        assert len(ids) == 1
        assert {one.id for one in street.meta.received.browser} <= {PIXEL_ID}
    finally:
        for device in devices.values():
            device.close()
        world.close()


def test_the_table_holds_every_pair_that_matters() -> None:
    assert len(set(JOURNEYS)) == len(JOURNEYS) >= 60
    assert 12 <= len(CHOSEN) <= 16
    for place, values in enumerate((FIRST, THEN, DAYS, BETWEEN)):
        assert {one[place] for one in CHOSEN} == set(values)
    assert {(one.cache[:2], one.store) for one in CHOSEN} == {
        (cache, store) for cache in ("no", "pr") for store in ("sqlite", "postgres")
    }
