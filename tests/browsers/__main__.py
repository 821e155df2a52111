"""`make test-browsers`: the whole table in three browsers; prints its figures."""

import argparse
import os
import subprocess
import sys
from collections import Counter

from playwright.sync_api import sync_playwright

from tests.browsers.drivers import NAMES, Failed, Name, open_browser
from tests.browsers.play import FIGURES, play
from tests.browsers.table import TABLE


def run(name: Name, only: str) -> int:
    """Play the scenes whose name has `only` in one browser; how many are not as they must be."""
    sums, wrong, played = Counter[str](), 0, 0
    with sync_playwright() as driver, open_browser(name, driver) as browser:
        for scene in TABLE.values():
            if only not in scene.name:
                continue
            if reason := scene.cannot.get(name):
                print(f"{name}: cannot play {scene.name!r}: {reason}", flush=True)
                continue
            played += 1
            try:
                found, seen = play(scene, browser)
                what = str(seen)
            except Failed as error:
                found, what = Counter({"not played": 1}), repr(error)  # the others are played
            if found:
                wrong += 1
                sums += found
                print(f"{name}: {scene.name}: {dict(found)}; found {what}", flush=True)
    figures = ", ".join(f"{figure} {sums[figure]}" for figure in (*FIGURES, "not played"))
    print(f"==> {name}: {played} scenes, {wrong} not as expected: {figures}", flush=True)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--browser", choices=NAMES, help="one browser alone, in this process")
    parser.add_argument("--only", default="", help="scenes whose name has this text")
    given = parser.parse_args()
    if given.browser:
        return int(run(given.browser, given.only) > 0)
    command = [sys.executable, "-m", "tests.browsers", "--only", given.only, "--browser"]
    # A log line on stdout of each; one process for each browser, as they take turns by waiting.
    running = [subprocess.Popen([*command, name], env=os.environ) for name in NAMES]
    return max([one.wait() for one in running])


if __name__ == "__main__":
    sys.exit(main())
