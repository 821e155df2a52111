"""Command: drive the same exchanges through two revisions and show what differs.

    python -m tests.same --against REV [--exchanges 2000] [--seed 1] [--show 20]

Ends with 1 when anything differs but ids and times.
"""

import argparse
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.same import comparing
from tests.same.exchanges import SITES, Generator
from tests.support.trees import ROOT, run, tree_of

DRIVER = Path(__file__).with_name("driver.py")


def compare(
    theirs: Path, ours: Path, *, count: int, seed: int
) -> tuple[list[dict[str, Any]], list[comparing.Difference]]:
    """`count` exchanges made from `seed`, and what differs between the packages of two trees."""
    exchanges = Generator(seed).make(count)
    for one in exchanges:
        prefix = SITES[one["site"]].get("prefix", "/_capi")
        one["request"]["path"] = one["request"]["path"].replace("@PREFIX@", prefix)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as scratch, ThreadPoolExecutor(2) as pool:
        given = Path(scratch, "exchanges.json")
        given.write_text(json.dumps({"sites": SITES, "exchanges": exchanges}))

        def found(tree: Path, name: str) -> dict[str, Any]:
            folder = Path(scratch, name)
            folder.mkdir()
            run(tree, str(DRIVER), str(tree), str(given), str(folder))
            outcome: dict[str, Any] = json.loads((folder / "found.json").read_text())
            return outcome

        before = pool.submit(found, theirs, "theirs")
        after = pool.submit(found, ours, "ours")
        return exchanges, list(comparing.differences(exchanges, before.result(), after.result()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.same", description=__doc__)
    parser.add_argument("--against", required=True, help="the other git revision")
    parser.add_argument("--exchanges", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=20, help="how many differences to show")
    given = parser.parse_args()
    exchanges, found = compare(tree_of(given.against), ROOT, count=given.exchanges, seed=given.seed)
    for one in found[: given.show]:
        print(comparing.shown(one, exchanges), end="\n\n")
    touched = len({one.n for one in found if one.n is not None})
    print(
        f"{len(exchanges)} exchanges with {given.against} and with this tree: {len(found)} "
        f"differences, in {touched} exchanges and at the end of "
        f"{len({one.site for one in found if one.n is None})} sites"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
