"""A real blocker: an extension that blocks or replaces requests as content blockers do."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page
from playwright.sync_api import Playwright as Driver

from tests.browser.conftest import Servers
from tests.browser.site import PIXEL
from tests.support.browsers import FLAGS, find

GIF = "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b"
BLOCK = {"type": "block"}
TO_GIF = {"type": "redirect", "redirect": {"extensionPath": "/1x1.gif"}}
TO_NOOP = {"type": "redirect", "redirect": {"extensionPath": "/noop.js"}}


@pytest.fixture
def blocked(
    driver: Driver, tmp_path: Path, servers: Servers, request: pytest.FixtureRequest
) -> Iterator[Page]:
    """A page of a browser whose extension acts on one kind of request."""
    path, action = request.param
    extension = tmp_path / "extension"
    extension.mkdir()
    manifest = {
        "manifest_version": 3,
        "name": "blocker",
        "version": "1",
        "permissions": ["declarativeNetRequestWithHostAccess"],
        "host_permissions": ["<all_urls>"],
        "web_accessible_resources": [{"resources": ["*"], "matches": ["<all_urls>"]}],
        "declarative_net_request": {
            "rule_resources": [{"id": "rules", "enabled": True, "path": "rules.json"}]
        },
    }
    rules = [{"id": 1, "action": action, "condition": {"urlFilter": path}}]
    (extension / "manifest.json").write_text(json.dumps(manifest))
    (extension / "rules.json").write_text(json.dumps(rules))
    (extension / "noop.js").write_text("(function() {})();")
    (extension / "1x1.gif").write_bytes(bytes.fromhex(GIF))
    context = driver.chromium.launch_persistent_context(
        tmp_path / "profile",
        executable_path=find(),
        args=[
            *FLAGS,
            f"--load-extension={extension}",
            f"--disable-extensions-except={extension}",
        ],
        ignore_default_args=["--disable-extensions"],
    )
    yield context.pages[0]
    context.close()


@pytest.mark.parametrize(
    ("blocked", "outcome"),
    [
        (("/tr/?", BLOCK), "request_blocked"),
        (("/tr/?", TO_GIF), "request_replaced"),
        (("fbevents.js", BLOCK), "script_blocked"),
        (("fbevents.js", TO_NOOP), "script_replaced"),
        (("/signals/config/", BLOCK), "config_blocked"),
    ],
    indirect=["blocked"],
)
def test_what_a_blocker_did_is_told_apart(blocked: Page, servers: Servers, outcome: str) -> None:
    blocked.goto(servers.site.url)
    for _ in range(400):
        if servers.site.beacons:
            break
        blocked.wait_for_timeout(25)
    assert servers.site.outcomes == [(PIXEL, outcome)]
    assert servers.meta.received.browser == []
