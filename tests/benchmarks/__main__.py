"""`python -m tests.benchmarks [--smoke]`: the table in the terminal and in RESULTS.md."""

import argparse
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from capi_middleware import __version__
from tests.benchmarks import outbox, purchase, reporting
from tests.benchmarks.measure import Result, measure

RESULTS = Path(__file__).with_name("RESULTS.md")
GROUPS = (purchase, outbox, reporting)
_BESIDE = ("facebook-business", "httpx", "msgspec", "starlette")


def main() -> int:
    """Run all rows; nothing about time is asserted."""
    options = argparse.ArgumentParser(prog="make bench")
    options.add_argument("--smoke", action="store_true", help="each row for a moment, no file")
    smoke = options.parse_args().smoke
    results = []
    for row in (row for group in GROUPS for row in group.rows()):
        print(f"  {row.what} | {row.against} ...", end="", flush=True)
        results.append(measure(row, smoke=smoke))
        print(f" {results[-1].ratio:.3f}", flush=True)
    table = _table(results)
    print(f"\n{table}")
    if not smoke:
        RESULTS.write_text(_page(table), "utf-8")
        print(f"written to {RESULTS.relative_to(Path.cwd())}")
    return 0


def _table(results: list[Result]) -> str:
    lines = [
        "| what | against | ours | theirs | ratio (middle half) | reach | |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.row.what} | {one.row.against} | {_figure(one, one.ours)} | "
        f"{_figure(one, one.theirs)} | "
        f"{one.ratio:.3f} ({one.spread[0]:.3f} to {one.spread[1]:.3f}) | ≤ {one.row.reach:g} | "
        f"{'✓' if one.reached else '✗'} |"
        for one in results
    ]
    return "\n".join(lines) + "\n"


def _figure(result: Result, value: float) -> str:
    return f"{value:.3g} MB" if result.row.unit == "MB" else _time(value)


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _page(table: str) -> str:
    beside = ", ".join(f"{name} {version(name)}" for name in _BESIDE)
    return (
        "# Benchmarks\n\n"
        "`make bench`: at least 9 alternating rounds for each row (memory: 3), medians. "
        "Judge by the ratios: the machine is shared.\n\n"
        f"capi-middleware {__version__}, Python {platform.python_version()}, {beside}; "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores.\n\n{table}"
    )


if __name__ == "__main__":
    sys.exit(main())
