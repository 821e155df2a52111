"""Finds the browsers of the tests, or installs them. `python -m tests.support.browsers [--all]`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: What a Chromium says of itself that is no bot: see capture.client.noise.
AGENT = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 "
    "Safari/537.36"
)
#: Flags that every test and demo browser starts with: no sandbox as root, no background traffic.
FLAGS = [
    "--no-sandbox",
    "--headless=new",
    f"--user-agent={AGENT}",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
]

FIREFOX = "/usr/bin/firefox-esr"
#: What is there once Debian's package is: WebKit's browser for tests is no command of its own.
DEBIAN = {
    FIREFOX: "firefox-esr",
    "/usr/bin/WebKitWebDriver": "webkit2gtk-driver",
    "/usr/bin/Xvfb": "xvfb",
}


def mini_browser() -> str:
    """The path of WebKitGTK's MiniBrowser, the newest of those that came with its driver."""
    return str(max(Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser")))


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
        apt("chromium")
    return find()


def apt(*packages: str) -> None:
    """Install Debian's packages."""
    subprocess.run(["apt-get", "update", "-qq"], stdout=subprocess.DEVNULL)
    subprocess.run(["apt-get", "install", "-y", "-qq", *packages], stdout=subprocess.DEVNULL)


def missing() -> list[str]:
    """The packages whose program is not there."""
    return [package for path, package in DEBIAN.items() if not Path(path).exists()]


if __name__ == "__main__":
    path = find() or install()
    if path is None:
        sys.exit("found no Chromium and could install none; set CAPI_CHROMIUM to its path")
    print(f"==> Browser tests use {path}", flush=True)
    if "--all" not in sys.argv:
        sys.exit()
    if packages := missing():
        print(f"==> Installing {', '.join(packages)} with apt-get", flush=True)
        apt(*packages)
    if packages := missing():
        sys.exit(f"found no {' and no '.join(packages)}, expected them: apt-get install them")
