"""`python -m tests.benchmarks [--smoke] [--only GROUP,...]`: the table, also in RESULTS.md.

With `--against REV` it is another one: this tree beside a git revision.
"""

import argparse
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from capi_middleware import __version__
from tests.benchmarks import (
    couriers,
    injecting,
    minting,
    outbox,
    pages,
    postgres,
    process,
    purchase,
    reporting,
    requests,
    revision,
    script,
    serving,
    tenants,
)
from tests.benchmarks.measure import MORE_IS_BETTER, Result, Row, Trial, measure

RESULTS = Path(__file__).with_name("RESULTS.md")
GROUPS = (
    requests, serving, injecting, minting, purchase, pages, outbox, couriers, tenants, postgres,
    reporting, process, script,
)  # fmt: skip
_BESIDE = (
    "asgi-correlation-id", "django-facebook-capi", "facebook-business", "flask", "gunicorn",
    "httpx", "itsdangerous", "msgspec", "newrelic", "psycopg", "sentry-sdk", "starlette",
    "uvicorn", "uvloop",
)  # fmt: skip


def main() -> int:
    """Run all rows; nothing about time is asserted."""
    options = argparse.ArgumentParser(prog="make bench")
    options.add_argument("--smoke", action="store_true", help="each row for a moment, no file")
    names = [group.__name__.rpartition(".")[2] for group in GROUPS]
    options.add_argument("--against", metavar="REV", help="measure another git revision beside")
    options.add_argument("--only", help="some rows alone, by their names with commas between")
    given = options.parse_args()
    known = list(revision.NAMES) if given.against else names
    only = given.only.split(",") if given.only else known
    if unknown := set(only) - set(known):
        options.error(f"--only: found {sorted(unknown)}, expected some of {known}")
    results = []
    for row in _rows(only, given.against):
        print(f"  {row.what} | {row.against} ...", end="", flush=True)
        results.append(measure(row, smoke=given.smoke))
        print(f" {results[-1].ratio:.3f}", flush=True)
    table = _table(results)
    print(f"\n{table}")
    if not given.smoke and not given.against and only == names:
        RESULTS.write_text(_page(table), "utf-8")
        print(f"written to {RESULTS.relative_to(Path.cwd())}")
    return 0


def _rows(only: list[str], against: str | None) -> Iterator[Row | Trial]:
    if against:
        yield from revision.rows(against, only)
        return
    for group in GROUPS:
        if group.__name__.rpartition(".")[2] in only:
            yield from group.rows()


def _table(results: list[Result]) -> str:
    lines = [
        "| what | against | ours | theirs | ratio (middle half) | reach | |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.row.what} | {one.row.against} | {_figure(one, one.ours)} | "
        f"{_figure(one, one.theirs)} | "
        f"{one.ratio:.3f} ({one.spread[0]:.3f} to {one.spread[1]:.3f}) | {_reach(one)} |"
        for one in results
    ]
    return "\n".join(lines) + "\n"


def _reach(result: Result) -> str:
    reach = result.row.reach
    if reach is None:
        return "shown beside | "
    sign = "≥" if result.row.unit in MORE_IS_BETTER else "≤"
    return f"{sign} {reach:.3g} | {'✓' if result.reached else '✗'}"


def _figure(result: Result, value: float) -> str:
    unit = result.row.unit
    if unit == "s":
        return _time(value)
    figure = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{figure}{unit}" if unit == "/s" else f"{figure} {unit}".strip()


def _time(seconds: float) -> str:
    if seconds < 0:
        return f"-{_time(-seconds)}"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _page(table: str) -> str:
    beside = ", ".join(f"{name} {version(name)}" for name in _BESIDE)
    return (
        "# Benchmarks\n\n"
        "`make bench`: alternating rounds, at least 9 for each row (3 or 5 where one takes "
        'seconds), medians and the middle half of the ratios. "Added" is what a side adds to '
        "the bare app. Judge by the ratios: the machine is shared.\n\n"
        f"capi-middleware {__version__}, Python {platform.python_version()}, {beside}; "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores.\n\n{table}"
    )


if __name__ == "__main__":
    sys.exit(main())
