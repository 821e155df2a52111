"""`python -m tests.torture [--rounds N] [--seed S]`: many rounds, and their ledger.

With --failover instead the scenes of a PostgreSQL that fails over.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.support import postgres, postgres_pair
from tests.torture import failover
from tests.torture.history import Verdict
from tests.torture.rounds import play

_COLUMNS = ("accepted", "delivered", "duplicates", "lost", "phantom", "mutated", "early", "stale")


def main() -> int:
    """Play alternately on SQLite and PostgreSQL; exit code 1 when a promise was broken."""
    options = argparse.ArgumentParser(prog="make torture")
    options.add_argument("--rounds", type=int, default=1000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--failover", action="store_true")
    given = options.parse_args()
    if given.failover:
        return fail_over()
    verdicts: dict[str, list[Verdict]] = {"SQLite": [], "PostgreSQL": []}
    broken: list[str] = []
    seeds = range(given.seed, given.seed + given.rounds)
    with postgres.server() as server:
        for seed in _until_stopped(seeds):
            kind = ("SQLite", "PostgreSQL")[seed % 2]
            if kind == "SQLite":
                with tempfile.TemporaryDirectory() as folder:
                    verdict = play(f"sqlite:///{Path(folder) / 'capi.db'}", seed)
            else:
                with postgres.database(server) as url:
                    verdict = play(url, seed)
            verdicts[kind].append(verdict)
            if not verdict.holds:
                broken.append(f"seed {seed} on {kind}: {verdict}")
    table = Table("store", "rounds", *_COLUMNS)
    for kind, some in verdicts.items():
        sums = [f"{sum(getattr(one, name) for one in some):,}" for name in _COLUMNS]
        table.add_row(kind, str(len(some)), *sums)
    Console().print(table, *broken)
    return 1 if broken else 0


def _until_stopped(seeds: Sequence[int]) -> Iterator[int]:
    """Each seed; Ctrl-C ends them after the round in progress, and what was played counts."""
    stopped: list[object] = []
    signal.signal(signal.SIGINT, lambda *_: stopped.append(None))
    for seed in track(seeds, "Torture", console=Console(stderr=True)):
        if stopped:
            return
        yield seed


def fail_over() -> int:
    """Play all scenes on one pair of servers; exit code 1 when a promise was broken."""
    table, broken = Table("scene", "reached by", *failover.Verdict._fields[:-1]), []
    with postgres_pair.pair() as pair:
        for name, way in track(failover.SCENES, "Failover", console=Console(stderr=True)):
            verdict = failover.play(pair, name, way)
            table.add_row(name, way, *(f"{one:,}" for one in verdict[:-1]))
            if not verdict.holds:
                broken.append(f"{name} by {way}: {verdict}")
    Console().print(table, *broken)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
