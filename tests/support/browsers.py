"""Finds a Chromium for the browser tests, or installs one. `python -m tests.support.browsers`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Flags that every test and demo browser starts with: no sandbox as root, no background traffic.
FLAGS = [
    "--no-sandbox",
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
]


def find() -> str | None:
    """The path of a Chromium: CAPI_CHROMIUM, the system's, or Playwright's own."""
    named = os.environ.get("CAPI_CHROMIUM")
    if named:
        return named
    for name in NAMES:
        path = shutil.which(name)
        if path:
            return path
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
        return path if Path(path).exists() else None


def install() -> str | None:
    """Install Playwright's Chromium, else Debian's by apt; the path, or None."""
    print("==> No Chromium found: installing one (playwright install chromium)", flush=True)
    playwright = [sys.executable, "-m", "playwright", "install", "--with-deps", "chromium"]
    if subprocess.run(playwright, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        print("==> That did not work: installing Debian's chromium with apt-get", flush=True)
        subprocess.run(["apt-get", "update", "-qq"], stdout=subprocess.DEVNULL)
        subprocess.run(["apt-get", "install", "-y", "-qq", "chromium"], stdout=subprocess.DEVNULL)
    return find()


if __name__ == "__main__":
    path = find() or install()
    if path is None:
        sys.exit("found no Chromium and could install none; set CAPI_CHROMIUM to its path")
    print(f"==> Browser tests use {path}", flush=True)
