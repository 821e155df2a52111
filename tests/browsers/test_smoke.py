"""Some scenes of the table in all three browsers; `make test-browsers` plays all of them."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Playwright

from tests.browsers import drivers
from tests.browsers.drivers import NAMES, Browser, Failed, open_browser
from tests.browsers.play import play
from tests.browsers.scene import LONG
from tests.browsers.table import TABLE

SMOKE = (
    "Meta answers emptily",
    "Meta answers with a picture of a cached page",
    "Meta has no library",
    "Meta has no config",
    "a policy of the manual",
    "a policy of the manual and a picture",
    "a policy with a nonce",
    "a policy with a nonce and hosts and a picture",
    "a policy without Meta's pictures",
    "a policy of this site alone",
    "headers: no-referrer",
    "headers: an integrity of scripts",
    "a page with Prototype.js's toJSON",
    "base code late",
    "a router: fetch, then pushState",
    "a worker that asks for the request itself",
    "page after page",
    "a form with a redirect",
    "a button",
    "a form that a check stops",
)


#: What is the same in every browser: in Chromium alone.
ODD = (
    "a policy with Trusted Types",
    "a base elsewhere",
    "a page with a frozen array",
    "a page with a placeholder function",
    "a page with a sendBeacon that throws",
    "a page with no sendBeacon",
    "Rocket Loader",
)


@pytest.fixture(scope="module", params=NAMES)
def visitor(request: pytest.FixtureRequest, driver: Playwright) -> Iterator[Browser]:
    with open_browser(request.param, driver) as browser:
        yield browser


@pytest.mark.parametrize("visitor", ["chromium"], indirect=True)
@pytest.mark.parametrize("name", ODD)
def test_an_odd_scene_ends_as_it_must(visitor: Browser, name: str) -> None:
    wrong, seen = play(TABLE[name], visitor, LONG)
    assert not wrong, seen


@pytest.mark.parametrize("name", SMOKE)
def test_a_scene_ends_as_it_must(visitor: Browser, name: str) -> None:
    wrong, seen = play(TABLE[name], visitor, LONG)
    assert not wrong, seen


def test_a_page_that_never_answers_ends_the_scene(
    visitor: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "PATIENCE", 1)
    visitor.fresh()
    with pytest.raises(Failed):
        visitor.evaluate("new Promise(() => {})")
