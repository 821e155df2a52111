"""`python -m tests.attack [--seconds N] [--seed S]`: attack each server for a half of the time."""

import argparse
import sys
import time

from tests.attack.driving import SERVERS, Attack, folder


def main() -> int:
    """Exit code 1 when something went wrong."""
    options = argparse.ArgumentParser(prog="make attack")
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--seed", type=int, default=int(time.time()))
    given = options.parse_args()
    wrong = []
    for server in SERVERS:
        with folder() as place:
            attack = Attack(server, place, given.seed)
            attack.run(given.seconds / len(SERVERS))
        print(f"{server}: {attack.asked:,} requests, {len(attack.planted.values)} planted values")
        wrong += [f"{server}, seed {given.seed}: {one}" for one in attack.wrong]
    print("\n".join(wrong) or "nothing changed and nothing was learned")
    return 1 if wrong else 0


sys.exit(main())
