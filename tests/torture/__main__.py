"""`python -m tests.torture [--rounds N] [--served N] [--seed S]`: many rounds, their ledger.

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
from tests.torture import failover, rounds, served
from tests.torture.history import Verdict

_COLUMNS = (
    "kills", "accepted", "delivered", "duplicates",
    "lost", "phantom", "mutated", "early", "stale", "hasty",
)  # fmt: skip


def main() -> int:
    """Play alternately on SQLite and PostgreSQL; exit code 1 when a promise was broken."""
    options = argparse.ArgumentParser(prog="make torture")
    options.add_argument("--rounds", type=int, default=1000)
    options.add_argument("--served", type=int, help="rounds of real servers; a part of the others")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--failover", action="store_true")
    given = options.parse_args()
    if given.failover:
        return fail_over()
    verdicts: dict[str, list[Verdict]] = {}
    broken: list[str] = []
    number = -(-given.rounds // 12) if given.served is None else given.served
    with postgres.server() as server, tempfile.TemporaryDirectory() as folder:
        seeds = range(given.seed, given.seed + given.rounds + number)
        every = len(seeds) // max(1, number)
        for seed in _until_stopped(seeds):
            url = f"sqlite:///{Path(folder) / f'{seed}.db'}"
            place, left = divmod(seed - given.seed, every)
            if left == 0 and place < number:
                kind = list(served.SERVERS)[place % len(served.SERVERS)]
                verdict = served.play(url, seed, server=kind)
            elif seed % 2:
                with postgres.database(server) as url:
                    kind, verdict = "PostgreSQL", rounds.play(url, seed)
            else:
                kind, verdict = "SQLite", rounds.play(url, seed)
            verdicts.setdefault(kind, []).append(verdict)
            if not verdict.holds:
                broken.append(f"seed {seed} on {kind}: {verdict}")
    table = Table("store or server", "rounds", *_COLUMNS)
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
    table, broken = Table(), list[str]()
    table.add_column("scene, and how the servers are reached", no_wrap=True)
    for column in failover.Verdict._fields[:-1]:
        table.add_column(column, justify="right")
    with postgres_pair.pair() as pair:
        for name, way in track(failover.SCENES, "Failover", console=Console(stderr=True)):
            verdict = failover.play(pair, name, way)
            table.add_row(f"{name} ({way})", *(f"{one:,}" for one in verdict[:-1]))
            if not verdict.holds:
                broken.append(f"{name} by {way}: {verdict}")
    Console(width=140).print(table, *broken)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
