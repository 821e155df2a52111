"""Plays a scene in a browser and counts what is not as it must be."""

import contextlib
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.browser.shop import Shop, open_shop
from tests.browsers.drivers import Browser
from tests.browsers.front import fronting
from tests.browsers.scene import PATIENCE, Scene

#: The question to Meta's host, which has no event; and what was not caught.
_PROBE = re.compile(r"/tr/\?id=\d+(?!\d|&ev=)")
_UNCAUGHT = re.compile(r"Uncaught|JS ERROR|\bError: |[a-z]Error: ")
#: Whoever is blocked is told by the browser, too: no script can ask without that line.
_BLOCKED = re.compile("^Failed to load|^NETWORK")
FIGURES = ("wrong sent", "missed", "wrong cause", "twice", "lost", "console lines")


@dataclass
class Seen:
    """What came of a scene: by event name its pairs at Meta and its states; our console lines."""

    pairs: dict[str, list[tuple[int, int]]]
    states: dict[str, list[str]]
    lines: list[str] = field(default_factory=list)


def play(scene: Scene, browser: Browser, patience: float = PATIENCE) -> tuple[Counter[str], Seen]:
    """What is wrong, by figure, and what was seen; `patience` is in seconds."""
    with contextlib.ExitStack() as stack:
        settings, front = dict(scene.config), None
        if scene.refuses:
            host, front = stack.enter_context(fronting(scene.refuses))
            settings["pixel_script_url"] = f"{host}/en_US/fbevents.js"
        shop = stack.enter_context(open_shop(**settings))
        host = host if front else shop.meta_url
        if front:
            front.behind = ("127.0.0.1", urlsplit(shop.meta_url).port or 0)
        _furnish(shop, scene, host)
        browser.fresh()
        for act in scene.acts:
            act(browser, shop)
        seen, until = _look(shop, scene), time.monotonic() + patience
        while judge(scene, seen) and time.monotonic() < until:
            browser.pause(0.05)
            seen = _look(shop, scene)
        browser.pause(0.3)  # for copies that must not come
        seen = _look(shop, scene)
        seen.lines = [line for line in browser.lines() if _is_ours(line)]
        return judge(scene, seen), seen


def _is_ours(line: str) -> bool:
    probe = _PROBE.search(line) and not _BLOCKED.search(line)
    return "/_capi/" in line or bool(probe or _UNCAUGHT.search(line))


def _furnish(shop: Shop, scene: Scene, host: str) -> None:
    def text(given: str) -> str:
        return given.replace("{meta}", host)

    shop.head, shop.body, shop.worker = text(scene.head), text(scene.body), scene.worker
    shop.bodies = {path: text(one) for path, one in scene.bodies.items()}
    shop.cache = {"cache-control": "no-store", **scene.headers}
    if scene.policy:
        # The middleware judges a policy by Meta's own hosts, the browser by the one in their place.
        hosts = "{meta} https://*.facebook.net https://www.facebook.com"
        whole = "{meta}/" not in scene.policy
        policy = scene.policy.replace("{meta}", hosts) if whole else scene.policy
        shop.cache["content-security-policy"] = text(policy)
    scene.meta(shop.meta)


def _look(shop: Shop, scene: Scene) -> Seen:
    names = {one["event_name"] for one in shop.meta.received.pairs()} | set(scene.expects)
    return Seen(
        {name: sorted(shop.pairs(name)) for name in sorted(names)},
        {name: shop.browser(name) for name in sorted(names)},
    )


def judge(scene: Scene, seen: Seen) -> Counter[str]:
    """Each figure that is not 0."""
    wrong: Counter[str] = Counter()
    for name, pairs in seen.pairs.items():
        expected = [_parse(one) for one in scene.expects.get(name, [])]
        states = Counter(seen.states[name])
        arrived = sum(browser for _, browser in pairs)
        wrong["wrong sent"] += max(0, states["sent"] - arrived)
        wrong["lost"] += max(0, sum(one.server for one in expected) - sum(n for n, _ in pairs))
        wrong["lost"] += max(0, sum(one.browser or 0 for one in expected) - arrived)
        wrong["twice"] += sum(max(0, n - 1) for pair in pairs for n in pair)
        wrong["twice"] += max(0, len(pairs) - len(expected))
        # Each expected state takes one that was seen; the most particular first.
        for one in sorted(expected, key=lambda one: len(one.states)):
            found = next((state for state in one.states if states[state] > 0), None)
            if found:
                states[found] -= 1
            elif "-" not in one.states:
                missed = one.states == ["sent"] and arrived
                wrong["missed" if missed else "wrong cause"] += 1
    wrong["console lines"] = len(seen.lines)
    return +wrong


class _Copies(NamedTuple):
    server: int
    browser: int | None
    states: list[str]


def _parse(text: str) -> _Copies:
    copies, states = text.split()
    server, browser = copies.split("+")
    return _Copies(int(server), None if browser == "?" else int(browser), states.split("|"))
