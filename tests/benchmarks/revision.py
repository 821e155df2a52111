"""This tree beside another git revision: the same work in two processes, in turn."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Trial, constant
from tests.benchmarks.sink import sink
from tests.support.trees import ROOT, environment, tree_of

#: What --only takes beside --against.
NAMES = ("page", "wsgi", "unmatched", "track", "beacon", "gc", "price")
_SIDE = Path(__file__).with_name("side.py")
#: Events a second, the highest ratio that is good enough, and for how many seconds.
_PRICES = ((5, 0.4, 20), (50, 0.5, 12), (500, 0.7, 6))
_ROUNDS = 41


class _Process:
    """A process that uses the package of one tree."""

    def __init__(self, tree: Path, ends: contextlib.ExitStack) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_SIDE)], env=environment(tree), cwd=tree, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        ends.callback(self._end)

    def work(self, name: str, **settings: Any) -> Callable[[float], float]:
        """A side of a Trial, warmed up."""

        def side(share: float) -> float:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps([name, share, settings]) + "\n")
            self._process.stdin.flush()
            return float(self._process.stdout.readline())

        side(0.05)
        return side

    def _end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def rows(revision: str, names: list[str]) -> Iterator[Trial]:
    """The rows of these `names`, of this tree and of a git `revision`."""
    theirs = tree_of(revision)
    with contextlib.ExitStack() as ends:
        url = ends.enter_context(sink()) if "price" in names else ""
        new, old = _Process(ROOT, ends), _Process(theirs, ends)

        def beside(
            what: str, reach: float | None, work: str, *, floor: Any = None, **settings: Any
        ) -> Trial:
            return Trial(
                what, revision, reach, new.work(work, **settings), old.work(work, **settings),
                floor, rounds=_ROUNDS,
            )  # fmt: skip

        for name in names:
            if name == "page":
                for page_view, what in ((False, "one event"), (True, "and PageView")):
                    yield beside(
                        f"matched page of 10 KB, {what}, in process, added CPU", 0.65, "asgi",
                        floor=new.work("asgi", path="/matched", bare=True),
                        path="/matched", page_view=page_view,
                    )  # fmt: skip
            elif name == "wsgi":
                yield beside(
                    "matched page of 10 KB under WSGI, in process, added CPU", 0.65, "wsgi",
                    floor=new.work("wsgi", path="/matched", bare=True), path="/matched",
                )  # fmt: skip
            elif name == "unmatched":
                yield beside(
                    "unmatched JSON, in process, added CPU", 1.0, "asgi", path="/other",
                    floor=new.work("asgi", path="/other", bare=True),
                )  # fmt: skip
            elif name == "track":
                yield beside(
                    "page whose view calls track(), in process, CPU", 0.65, "asgi", path="/tracked"
                )
            elif name == "beacon":
                yield beside("a beacon of two events, in process, CPU", 1.0, "beacon")
            elif name == "gc":
                yield from _collections(revision, new, old)
            elif name == "price":
                yield from _prices(revision, url, new, old)


def _collections(revision: str, new: _Process, old: _Process) -> Iterator[Trial]:
    for generation, what, most in ((0, "young", 15.0), (2, "full", 0.1)):
        told = f"{what} collections for 1,000 matched pages, 32 at once"
        ours = new.work("collections", generation=generation)
        theirs = old.work("collections", generation=generation)
        yield Trial(told, revision, None, ours, theirs, unit="", rounds=3)
        yield Trial(told, "what is good enough", 1.0, ours, constant(most), unit="", rounds=1)


def _prices(revision: str, url: str, new: _Process, old: _Process) -> Iterator[Trial]:
    for rate, reach, seconds in _PRICES:
        given = {"rate": rate, "seconds": seconds, "url": url}
        floor = {**given, "seconds": seconds / 4, "bare": True}
        yield Trial(
            f"an event's whole price at {rate} a second, CPU of the process until it is settled",
            revision, reach, new.work("price", **given), old.work("price", **given),
            new.work("price", **floor), rounds=3,
        )  # fmt: skip
