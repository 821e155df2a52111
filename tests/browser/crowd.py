"""A crowd of real browsers with planted habits, and the truth that the report must tell of them."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, Route, async_playwright
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.support.browsers import FLAGS, find

#: (event_name, pixel name, word): "matched", "browser: cause", "server: cause", "never: cause".
Truth = Counter[tuple[str, str, str]]
#: More would keep two cores so busy that a page's six seconds of patience run out.
_AT_ONCE = 4
_PERSON = "Mozilla/5.0 (X11; Linux x86_64) Chrome/130.0.0.0 Safari/537.36"
_HURRIED = f"{_PERSON} Hurried"


class Ear:
    """Counts the words of beacons, per visitor: a cookie names them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.words: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/_capi/b":
            await self._app(scope, receive, send)
            return
        body = bytearray()
        _, _, name = dict(scope["headers"])[b"cookie"].decode().partition("visit=")

        async def heard() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        await self._app(scope, heard, send)
        self.words[name.partition(";")[0]] += len(json.loads(bytes(body))["e"])


class Delay:
    """Answers a hurried visitor's first request for Meta's library only when it is too late."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._seen: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith("fbevents.js"):
            agent = dict(scope["headers"])[b"user-agent"].decode()
            if _HURRIED in agent and agent not in self._seen:
                self._seen.add(agent)
                while (await receive())["type"] != "http.disconnect":
                    pass
                return
        await self._app(scope, receive, send)


@dataclass
class Visit:
    """One visitor: a browser context of its own and the ear that hears its beacons."""

    number: int
    browser: Browser
    site: str
    ear: Ear
    webhook: Callable[[str], None]
    context: BrowserContext = field(init=False)
    page: Page = field(init=False)

    @property
    def order(self) -> str:
        return f"order-{self.number}"

    async def open(self, cookies: dict[str, str] = {}, **more: Any) -> Page:  # noqa: B006
        agent = more.pop("agent", _PERSON)
        self.context = await self.browser.new_context(
            base_url=self.site, user_agent=f"{agent} Visit/{self.number}", **more
        )
        cookies = {"visit": str(self.number), **cookies}
        await self.context.add_cookies(
            [{"name": name, "value": value, "url": self.site} for name, value in cookies.items()]
        )
        self.page = await self.context.new_page()
        return self.page

    async def told(self, words: int) -> None:
        """Wait until the beacons of this visitor have said so many words."""
        name = str(self.number)
        for _ in range(1500):
            if self.ear.words[name] >= words:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"heard {self.ear.words[name]} words of {words}")

    async def see(self, path: str, words: int) -> None:
        await self.page.goto(path)
        await self.told(words)

    async def post(self, path: str) -> None:
        """Send a form by POST, as a button would."""
        await self.page.evaluate(
            "path => { const form = document.createElement('form'); form.method = 'post';"
            " form.action = path; document.body.append(form); form.submit(); }",
            path,
        )


Habit = Callable[[Visit], Awaitable[None]]
#: name: (how many of a hundred visitors, what they do, what is true of it afterwards).
HABITS: dict[str, tuple[int, Habit, Truth]] = {}


def habit(weight: int, *rows: tuple[str, str, str]) -> Callable[[Habit], Habit]:
    def add(act: Habit) -> Habit:
        HABITS[act.__name__] = (weight, act, Counter(rows))
        return act

    return add


def both(word: str, times: int = 1) -> list[tuple[str, str, str]]:
    """The same word of the PageView and the ViewContent of a product page."""
    return [("PageView", "all", word), ("ViewContent", "all", word)] * times


def conversion(name: str, word: str = "matched") -> list[tuple[str, str, str]]:
    """The same word of a conversion at both pixels that get it."""
    return [(name, "all", word), (name, "sales", word)]


VIEW = ("PageView", "all", "matched")


@habit(20, *both("matched"))
async def looks(visit: Visit) -> None:
    await visit.open()
    await visit.see("/products/kettle", 2)


async def _with(visit: Visit, pattern: str, answer: Callable[[Route], Any], words: int) -> None:
    page = await visit.open()
    await page.route(pattern, answer)
    await visit.see("/products/kettle", words)


@habit(7, *both("browser: script_blocked"))
async def blocks_the_library(visit: Visit) -> None:
    await _with(visit, "**/fbevents.js", lambda route: route.abort(), 2)


@habit(2, *both("browser: script_replaced"))
async def replaces_the_library(visit: Visit) -> None:
    empty: Any = {"content_type": "text/javascript", "body": "(function() {})();"}
    await _with(visit, "**/fbevents.js", lambda route: route.fulfill(**empty), 2)


@habit(2, *both("browser: config_blocked"))
async def blocks_the_settings(visit: Visit) -> None:
    await _with(visit, "**/signals/config/**", lambda route: route.abort(), 2)


@habit(5, *both("browser: request_blocked"))
async def blocks_the_requests(visit: Visit) -> None:
    await _with(visit, "**/tr/**", lambda route: route.abort(), 2)


@habit(2, *both("browser: not_run"))
async def blocks_our_script(visit: Visit) -> None:
    await _with(visit, "**/s.js**", lambda route: route.abort(), 0)


@habit(2, *both("browser: not_run"))
async def has_no_javascript(visit: Visit) -> None:
    await visit.open(java_script_enabled=False)
    await visit.see("/products/kettle", 0)


@habit(3, ("PageView", "all", "browser: csp"))
async def meets_a_policy(visit: Visit) -> None:
    await visit.open()
    await visit.see("/strict", 1)


@habit(1, ("PageView", "all", "browser: consent"))
async def is_revoked_in_the_page(visit: Visit) -> None:
    await visit.open()
    await visit.see("/revoked", 1)


@habit(4, *both("never: consent"))
async def says_no(visit: Visit) -> None:
    await visit.open({"consent": "no"})
    await visit.see("/products/kettle", 0)


@habit(2, *both("never: consent"))
async def says_no_by_gpc(visit: Visit) -> None:
    await visit.open(extra_http_headers={"sec-gpc": "1"})
    await visit.see("/products/kettle", 0)


@habit(3, *both("never: bot"))
async def is_a_robot(visit: Visit) -> None:
    await visit.open(agent="Mozilla/5.0 (compatible; Googlebot/2.1)")
    await visit.see("/products/kettle", 0)


@habit(3, *both("browser: left_early"))
async def leaves_early(visit: Visit) -> None:
    page = await visit.open(agent=_HURRIED)
    await page.goto("/products/kettle", wait_until="commit")
    while not await page.evaluate("window.capi"):
        await asyncio.sleep(0.02)
    await page.goto("about:blank")
    await visit.told(2)


@habit(2, ("PageView", "all", "browser: left_early"), ("ViewContent", "all", "matched"), VIEW)
async def goes_on_early(visit: Visit) -> None:
    page = await visit.open(agent=_HURRIED)
    await page.goto("/products/kettle", wait_until="commit")
    while not await page.evaluate("window.capi"):
        await asyncio.sleep(0.02)
    await page.goto("/")
    await visit.told(4)


@habit(3, *both("matched", 2))
async def reloads(visit: Visit) -> None:
    page = await visit.open()
    await visit.see("/products/kettle", 2)
    await page.reload()
    await visit.told(4)


@habit(3, VIEW, *both("matched"), VIEW)
async def goes_back(visit: Visit) -> None:
    page = await visit.open()
    await visit.see("/", 1)
    await visit.see("/products/kettle", 3)
    await page.go_back()
    await visit.told(4)


@habit(3, VIEW, VIEW)
async def sees_a_cached_page(visit: Visit) -> None:
    await visit.open()
    await visit.see("/cached", 1)
    await visit.see("/cached", 2)


@habit(6, VIEW, ("AddToCart", "all", "matched"), VIEW)
async def fills_the_cart(visit: Visit) -> None:
    await visit.open()
    await visit.see("/", 1)
    await visit.post("/cart")
    await visit.told(3)


@habit(4, VIEW, *conversion("Purchase"), VIEW)
async def buys(visit: Visit) -> None:
    await visit.open()
    await visit.see("/", 1)
    await visit.post(f"/checkout?order={visit.order}")
    await visit.told(4)


@habit(2, VIEW, *conversion("Purchase"), VIEW, VIEW)
async def buys_twice_by_mistake(visit: Visit) -> None:
    page = await visit.open()
    await visit.see("/", 1)
    await visit.post(f"/checkout?order={visit.order}")
    await visit.told(4)
    await page.evaluate("document.title = 'seen'")
    await visit.post(f"/checkout?order={visit.order}")
    await visit.told(5)


@habit(2, VIEW, *conversion("Purchase"), VIEW)
async def opens_the_receipt_in_two_tabs(visit: Visit) -> None:
    await visit.open()
    await visit.see(f"/receipt?order={visit.order}", 3)
    visit.page = await visit.context.new_page()
    await visit.see(f"/receipt?order={visit.order}", 4)


@habit(2, *conversion("Purchase", "unpaired"))
async def pays_somewhere_else(visit: Visit) -> None:
    await asyncio.to_thread(visit.webhook, visit.order)


@habit(2, *conversion("Purchase"), VIEW)
async def pays_and_comes_back(visit: Visit) -> None:
    await asyncio.to_thread(visit.webhook, visit.order)
    await visit.open()
    await visit.see(f"/receipt?order={visit.order}", 3)


@habit(3, VIEW, *conversion("Lead"))
async def sends_a_form_by_fetch(visit: Visit) -> None:
    page = await visit.open()
    await visit.see("/", 1)
    await page.evaluate("fetch('/lead', {method: 'POST'})")
    await visit.told(3)


@habit(2, VIEW, *conversion("Lead"))
async def sends_a_form_by_xhr(visit: Visit) -> None:
    page = await visit.open()
    await visit.see("/", 1)
    await page.evaluate("{ const x = new XMLHttpRequest(); x.open('POST', '/lead'); x.send(); }")
    await visit.told(3)


@habit(3, VIEW, *both("matched"))
async def moves_in_a_single_page(visit: Visit) -> None:
    page = await visit.open()
    await visit.see("/", 1)
    await page.evaluate("history.pushState({}, '', '/products/cup')")
    await visit.told(3)


@habit(3, VIEW, ("AddToWishlist", "all", "server: unmapped"))
async def clicks_what_only_the_theme_fires(visit: Visit) -> None:
    page = await visit.open()
    await visit.see("/theme", 1)
    await page.click("#wish")
    await visit.told(2)


@habit(3, VIEW, ("Contact", "all", "matched"))
async def clicks_what_is_mirrored(visit: Visit) -> None:
    page = await visit.open()
    await visit.see("/theme", 1)
    await page.click("#call")
    await visit.told(2)


@habit(1, VIEW, ("Subscribe", "all", "matched"), ("Subscribe", "refused", "server: rejected"))
async def does_what_meta_refuses(visit: Visit) -> None:
    await visit.open()
    await visit.see("/subscribed", 3)


async def _all(plan: list[str], site: str, ear: Ear, webhook: Callable[[str], None]) -> None:
    waiting = list(enumerate(plan))[::-1]
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=find(), args=FLAGS)

        async def visitor() -> None:
            while waiting:
                number, name = waiting.pop()
                visit = Visit(number, browser, site, ear, webhook)
                try:
                    await HABITS[name][1](visit)
                except Exception as error:
                    raise AssertionError(f"visit {number} that {name}: {error}") from error
                if hasattr(visit, "context"):
                    await visit.context.close()

        async with asyncio.TaskGroup() as crowd:
            for _ in range(_AT_ONCE):
                crowd.create_task(visitor())
        await browser.close()


def plan(visits: int, seed: int) -> list[str]:
    """The habit of each visit: in a hundred visits each as often as its weight, in any order."""
    weighted = [name for name, (weight, _, _) in HABITS.items() for _ in range(weight)]
    chosen = [weighted[number % len(weighted)] for number in range(visits)]
    random.Random(seed).shuffle(chosen)
    return chosen


def visit_all(chosen: list[str], site: str, ear: Ear, webhook: Callable[[str], None]) -> Truth:
    """Let everybody visit; what is true afterwards."""
    asyncio.run(_all(chosen, site, ear, webhook))
    truth: Truth = Counter()
    for name in chosen:
        truth.update(HABITS[name][2])
    return truth
