"""Simulated visitors in a real Chromium: some buy, some block the pixel, some leave early."""

import random
from collections import Counter
from collections.abc import Callable

from playwright.sync_api import Page, sync_playwright

from tests.support.browsers import FLAGS, find

#: What a visitor's browser does to Meta, and how many of 20 visitors do it.
HABITS = {"ok": 14, "blocks the pixel script": 4, "blocks the pixel's requests": 2}


def shop_around(shop: str, meta: str, visitors: int, seed: int = 7) -> Counter[str]:
    """Let `visitors` visit and say how it went; how many had which habit."""
    chance = random.Random(seed)
    habits = [habit for habit, weight in HABITS.items() for _ in range(weight)]
    done: Counter[str] = Counter()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=FLAGS)
        for number in range(1, visitors + 1):
            habit = chance.choice(habits)
            done[habit] += 1
            context = browser.new_context()
            page = context.new_page()
            _block(page, habit, meta)
            _visit(page, shop, chance.random)
            context.close()
            print(f"\r  {number} of {visitors} visitors", end="", flush=True)
        browser.close()
    counts = ", ".join(f"{n} {habit}" for habit, n in done.items())
    print(f"\r  {visitors} visitors: {counts}. Open the report: {shop}/_capi/parity", flush=True)
    return done


def _block(page: Page, habit: str, meta: str) -> None:
    if habit == "blocks the pixel script":
        page.route(f"{meta}/en_US/**", lambda route: route.abort())
    elif habit == "blocks the pixel's requests":
        page.route(f"{meta}/tr/**", lambda route: route.abort())


def _visit(page: Page, shop: str, chance: Callable[[], float]) -> None:
    page.goto(f"{shop}/")
    page.click("a[href='/products/kettle']" if chance() < 0.5 else "a[href='/products/cup']")
    page.wait_for_timeout(300)
    if chance() < 0.7:
        page.click("#add")
        page.wait_for_timeout(200)
        if chance() < 0.8:
            page.fill("input[name=email]", "visitor@example.com")
            page.click("#buy")
            page.wait_for_timeout(400)
