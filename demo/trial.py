"""A trial of the report: people shop, faults are planted, and the flags must name each of them."""

import asyncio
import time
from collections.abc import Collection, Sequence
from typing import Any

import httpx
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from capi_middleware.insights.looking import refresh
from demo.faults import FAULTS, PAUSED
from demo.running import Shop
from demo.visitors import Visitor, plan, shop_around

#: How long delivery and the report may take to come to what they must say, in seconds.
_PATIENCE = 60.0
console = Console(highlight=False, markup=False, emoji=False)

#: A flag of parity.json.
Flag = dict[str, Any]


class Trial:
    """So many `visitors` in a shop with `faults`."""

    def __init__(self, shop: Shop, meta: str, visitors: int, faults: Collection[str]) -> None:
        self._shop, self._meta, self._faults = shop, meta, faults
        self._people = plan(visitors, blocked="blocked" in faults)
        self._progress = Progress(
            TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), console=console, transient=True,
        )  # fmt: skip
        self._visits = self._progress.add_task("visitors", total=visitors)
        self._events = self._progress.add_task("events delivered", total=None)

    async def run(self) -> bool:
        """Whether each fault was named, and nothing else."""
        with self._progress:
            watching = asyncio.create_task(self._watch())
            paused = await self._visit()
            await self._delivered()
            watching.cancel()
            await asyncio.to_thread(refresh, self._shop.capi.config, self._shop.capi.store)
            flags = await self._flags()
        return self._tell(flags, paused)

    async def _visit(self) -> Flag | None:
        """Everybody; for a stretch in the middle Meta refuses the token. The flag of that time."""
        if "token" not in self._faults:
            await self._shop_around(self._people)
            return None
        refused = max(4, len(self._people) // 10)
        start = (len(self._people) - refused) // 2
        await self._shop_around(self._people[:start])
        await self._delivered()
        fault = {"status": 401, "times": None, "endpoint": "events"}
        async with httpx.AsyncClient(base_url=self._meta) as client:
            (await client.post("/faults", json=fault)).raise_for_status()
            await self._shop_around(self._people[start : start + refused])
            paused = await self._paused()
            (await client.delete("/faults")).raise_for_status()
        # What its owner does: a pixel need not rest any longer when a process has a new token.
        await self._shop.stop()
        await self._shop.start("another-access-token")
        await self._shop_around(self._people[start + refused :])
        return paused

    async def _shop_around(self, people: Sequence[Visitor]) -> None:
        def done() -> None:
            self._progress.advance(self._visits)

        await shop_around(people, self._shop.url, self._meta, self._shop.proxy, done)

    async def _watch(self) -> None:
        while True:
            await self._depth()
            await asyncio.sleep(0.5)

    async def _depth(self) -> dict[str, int]:
        depth = dict(await asyncio.to_thread(self._shop.capi.store.depth))
        done, total = depth.get("delivered", 0), sum(depth.values())
        self._progress.update(self._events, completed=done, total=total)
        return depth

    async def _delivered(self) -> None:
        """Wait until nothing waits for delivery."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            depth = await self._depth()
            if not depth.get("pending", 0) + depth.get("leased", 0):
                return
            await asyncio.sleep(0.1)

    async def _paused(self) -> Flag | None:
        """The flag that the page shows while the token is refused."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            for flag in await self._flags():
                if _sign(flag) == PAUSED:
                    self._progress.print(f"  Now the report says {_sentence(flag)}")
                    return flag
            await asyncio.sleep(0.1)
        return None

    async def _flags(self) -> list[Flag]:
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.get(
                f"{self._shop.url}/_capi/parity.json",
                headers={"authorization": "Bearer the-demo-report-token"},
            )
        flags: list[Flag] = answer.raise_for_status().json()["flags"]
        return flags

    def _tell(self, flags: list[Flag], paused: Flag | None) -> bool:
        """A table of what was planted and what the report says of it."""
        expected = {sign for name in self._faults for sign in FAULTS[name].flags}
        strange = [flag for flag in flags if _sign(flag) not in expected]
        found = {_sign(flag): flag for flag in flags}
        table = Table(box=SIMPLE_HEAD, show_lines=True, expand=True)
        for title, ratio, least in (
            ("Planted fault", 3, 1),
            ("Named by", 3, 20),
            ("Its fix", 6, 1),
        ):
            table.add_column(title, ratio=ratio, min_width=least, overflow="fold")
        named = True
        for name, fault in FAULTS.items():
            if name not in self._faults:
                continue
            signs = [found.get(fault.flags[0])]
            if name == "token":
                signs.insert(0, paused)
            for flag in signs:
                named = named and flag is not None
                table.add_row(fault.planted, *_cells(flag))
        for flag in strange:
            table.add_row("(nothing was planted)", *_cells(flag))
        if table.row_count:
            console.print(table)
        if not self._faults and not strange:
            console.print(f"  {len(self._people)} visitors in a healthy shop, and no flag.")
        return named and not strange


def _sign(flag: Flag) -> tuple[str, str]:
    return flag["code"], flag["event_name"]


def _cells(flag: Flag | None) -> tuple[str, str]:
    if flag is None:
        return "NOTHING", ""
    return f"{flag['code']} {flag['event_name']}".strip(), flag["fix"]


def _sentence(flag: Flag) -> str:
    return f"{flag['code']}: {flag['explanation']} Fix: {flag['fix']}"
