"""`python -m tests.attack [--seconds N] [--seed S]`: each server and each store for a fourth."""

import argparse
import sys
import time
from itertools import product

from tests.attack.driving import SERVERS, Attack, folder
from tests.attack.stores import STORES


def main() -> int:
    """Exit code 1 when something went wrong."""
    options = argparse.ArgumentParser(prog="make attack")
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--seed", type=int, default=int(time.time()))
    given = options.parse_args()
    wrong = []
    for server, kind in product(SERVERS, STORES):
        with folder() as place, STORES[kind](place) as store:
            attack = Attack(server, store, place, given.seed)
            attack.run(given.seconds / len(SERVERS) / len(STORES))
        on = f"{server}, {kind}"
        print(f"{on}: {attack.asked:,} requests, {len(attack.planted.values)} planted values")
        wrong += [f"{on}, seed {given.seed}: {one}" for one in attack.wrong]
    print("\n".join(wrong) or "nothing changed and nothing was learned")
    return 1 if wrong else 0


sys.exit(main())
