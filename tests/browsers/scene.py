"""A scene of the table: a page, what its visitor does, and what must have come of it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from capi_middleware.testing import FakeMeta
from capi_middleware.testing.faults import Endpoint
from tests.browser.shop import Shop
from tests.browsers.drivers import Browser, Name
from tests.browsers.front import Refuses

PATIENCE = 15  # seconds: past the script's own
LONG = 60  # seconds: beside others

#: What is given to the fake Meta.
Given = Callable[[FakeMeta], object]
Act = Callable[[Browser, Shop], object]
#: For each event of a name: copies of the server, copies of the browser ("?": as it comes), and the
#: state in the ledger ("-": there may be none): "1+1 sent", "1+0 csp", "1+? left_early|sent".
Expects = Mapping[str, Sequence[str]]


def go(path: str) -> Act:
    return lambda browser, shop: browser.goto(shop.url + path)


def click(selector: str) -> Act:
    return lambda browser, shop: browser.click(selector)


def enter(selector: str) -> Act:
    return lambda browser, shop: browser.press_enter(selector)


def run(script: str) -> Act:
    return lambda browser, shop: browser.evaluate(script)


def told(views: int) -> Act:
    """Wait until browsers have told of so many PageViews; else play on."""

    def wait(browser: Browser, shop: Shop) -> None:
        until = time.monotonic() + LONG
        silent = {"not_run", "not_rendered"}
        while time.monotonic() < until:
            if len([one for one in shop.browser("PageView") if one not in silent]) >= views:
                break
            browser.pause(0.05)

    return wait


def back(browser: Browser, shop: Shop) -> None:
    browser.back()


def honest(meta: FakeMeta) -> None:
    """Meta's hosts as they are."""


def viewed(state: str = "1+1 sent") -> Expects:
    """What a visit to a product brings."""
    return {"PageView": [state], "ViewContent": [state]}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """In texts {meta} is the pixel's host."""

    name: str
    expects: Expects = field(default_factory=viewed)
    acts: Sequence[Act] = (go("/products/7"),)
    head: str = ""
    body: str = "<p>shop</p>"
    #: The bodies of single pages, in place of `body`.
    bodies: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    policy: str = ""
    worker: str = ""
    meta: Given = honest
    refuses: Refuses | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    #: Why a browser cannot play it.
    cannot: Mapping[Name, str] = field(default_factory=dict)


CACHED = {"cache-control": "public, max-age=60"}
#: A page of its own for each visit, and one that others may have got from a cache, too.
CACHES: dict[str, Mapping[str, str]] = {"": {}, " of a cached page": CACHED}
NO_ANSWER = "request_blocked|unknown"


def fault(
    endpoint: Endpoint, status: int = 200, body: str | None = None, delay: float = 0
) -> Given:
    return lambda meta: meta.fail_next(status, body, times=None, delay=delay, endpoint=endpoint)


def picture(meta: FakeMeta) -> None:
    meta.tr_answer = "gif"


def plugin(name: str) -> Given:
    return lambda meta: setattr(meta, "pixel_plugins", (name,))


def first(part: str) -> Refuses:
    """Refuses one request, and lets the next of its kind pass."""
    return lambda head, before: part in head.partition("\r\n")[0] and not before


def asks(part: str, more: str = "") -> Refuses:
    """Refuses what asks for an address with `part`, and has `more` in its headers."""
    return lambda head, before: part in head.partition("\r\n")[0] and more in head


def when(condition: str) -> str:
    """A promise in the page for what holds in the end."""
    return (
        "new Promise(done => { const wait = setInterval(() => {"
        f" if ({condition}) {{ clearInterval(wait); done(1) }} }}, 5) }})"
    )


#: Our script has run.
RAN = when("window._capi")
STUB = when("window.fbq")
#: The library has its settings.
READY = when("window.fbq && fbq.callMethod && !Object.keys(fbq.instance.locks).length")
LIBRARY = when("window.fbq && fbq.callMethod && !fbq.queue.length")

SECOND: Expects = {"PageView": ["1+1 sent"] * 2, "ViewContent": ["1+1 sent"]}
SAME: Expects = {"PageView": ["1+1 sent"]}
