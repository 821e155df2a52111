"""Simulated visitors in a real Chromium: they look, search, subscribe, fill carts and buy."""

import asyncio
import os
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from playwright.async_api import Browser, Page, async_playwright

from demo.running import Proxy
from tests.support.browsers import FLAGS, find

#: More would keep the cores so busy that pages run out of patience.
AT_ONCE = min(4, 2 * (os.cpu_count() or 1))
#: How long a visitor waits for the pixel of a page, in seconds.
_PATIENCE = 15.0
#: What of 20 visitors each does.
_ERRANDS = ["buys"] * 10 + ["fills a cart"] * 3 + ["searches"] * 3 + ["subscribes"] * 4


@dataclass(frozen=True)
class Visitor:
    """Somebody with an errand. `shy`: gives no e-mail address where none is asked for."""

    number: int
    errand: str
    sku: str
    blocks: bool = False
    shy: bool = False
    reloads: bool = False


def plan(visitors: int, *, blocked: bool, seed: int = 7) -> list[Visitor]:
    """So many visitors in any order; every fifth blocks the pixel if it is `blocked`.

    Of 10 buyers 7 are shy and 3 load the thank-you page again.
    """
    chance = random.Random(seed)
    people = []
    for number in range(visitors):
        errand = _ERRANDS[number % 20]
        buyer = number // 20 * 10 + number % 20
        person = Visitor(number, errand, chance.choice(["kettle", "teapot", "cup"]))
        if errand == "buys":
            person = replace(person, shy=buyer % 10 < 7, reloads=buyer % 10 in (0, 5, 9))
        people.append(person)
    chance.shuffle(people)
    return [replace(one, blocks=blocked and place % 5 == 2) for place, one in enumerate(people)]


async def shop_around(
    people: Sequence[Visitor], shop: str, meta: str, proxy: Proxy, done: Callable[[], None]
) -> None:
    """Let all of `people` visit, some at once; calls `done` after each of them."""
    waiting = list(people)[::-1]
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=find(), args=FLAGS)

        async def one_after_another() -> None:
            while waiting:
                visitor = waiting.pop()
                await _Visit(visitor, shop, meta, proxy).run(browser)
                done()

        async with asyncio.TaskGroup() as crowd:
            for _ in range(AT_ONCE):
                crowd.create_task(one_after_another())
        await browser.close()


class _Visit:
    """One visit, in a browser profile of its own."""

    def __init__(self, visitor: Visitor, shop: str, meta: str, proxy: Proxy) -> None:
        self._visitor, self._shop, self._meta, self._proxy = visitor, shop, meta, proxy
        self._email = f"visitor{visitor.number}@example.com"
        self._events = 0

    async def run(self, browser: Browser) -> None:
        context = await browser.new_context()
        number = str(self._visitor.number)
        await context.add_cookies([{"name": "visitor", "value": number, "url": self._shop}])
        if self._visitor.blocks:
            await context.route(f"{self._meta}/**", lambda route: route.abort())
        page = await context.new_page()
        await page.goto(f"{self._shop}/")
        await self._look(1)
        match self._visitor.errand:
            case "subscribes":
                await page.fill("input[name=email]", self._email)
                await page.click("#subscribe")
                await self._look(2)
            case "searches":
                await page.fill("input[name=q]", self._visitor.sku)
                await page.click("#search")
                await self._look(2)
                await self._choose(page)
            case "fills a cart":
                await self._choose(page)
                await self._add(page)
            case _:
                await self._choose(page)
                await self._add(page)
                await self._buy(page)
        await context.close()

    async def _choose(self, page: Page) -> None:
        await page.click(f"a[href='/products/{self._visitor.sku}']")
        await self._look(2)

    async def _add(self, page: Page) -> None:
        await page.click("#add")
        await self._look(2)

    async def _buy(self, page: Page) -> None:
        await page.click("#checkout")
        await self._look(2)
        required = await page.get_attribute("input[name=email]", "required")
        if required is not None or not self._visitor.shy:
            await page.fill("input[name=email]", self._email)
        await page.click("#buy")
        await self._look(2)
        if self._visitor.reloads:
            await page.reload()
            await self._look(1)

    async def _look(self, events: int) -> None:
        """Stay until the pixel of the page has told what became of so many events more."""
        self._events += events
        told = self._proxy.told[str(self._visitor.number)]
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while len(told) < self._events:
                    await self._proxy.heard_more.wait()
