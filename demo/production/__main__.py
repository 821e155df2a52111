"""`make demo-production`: nginx, gunicorn with four processes, two couriers and PostgreSQL.

All are processes of this machine, on 127.0.0.1; visitors in a real Chromium buy something, and the
report tells what became of it. Ends with Ctrl-C, with `--exit` after the report: 1 if not all
matched.
"""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from playwright.sync_api import Browser, sync_playwright

from demo.running import check_free
from tests.support.browsers import FLAGS, find
from tests.support.postgres import server
from tests.support.processes import ROOT, free_port, running

_APP = "demo.production.app"
_REPORT_TOKEN = "the-demo-report-token"
_WEB, _COURIERS = 4, 2
#: How long everything may take to be delivered and heard, in seconds.
_PATIENCE = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.production", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="nginx's port")
    parser.add_argument("--visitors", type=int, default=8, help="simulated visitors that buy")
    parser.add_argument("--exit", action="store_true", help="end after the report")
    given = parser.parse_args()
    if _nginx() is None:
        sys.exit("found no nginx; install it: apt install nginx-light")
    check_free(given.port, "nginx", "PORT")
    # Whatever ends it, what it started ends with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), _everything(given.port) as (shop, environment):
        print(
            f"\n  nginx, gunicorn x {_WEB}, courier x {_COURIERS}, PostgreSQL\n"
            f"  Shop      {shop}/\n"
            f"  Report    {shop}/_capi/parity   (token: {_REPORT_TOKEN})\n"
            f"  Fake Meta {environment['CAPI_META']}/received\n",
            flush=True,
        )
        _visit(shop, given.visitors)
        matched = _matched(shop, 3 * given.visitors)
        _report(environment)
        if given.exit:
            return 0 if matched else 1
        print("  Ctrl-C stops everything.", flush=True)
        while True:
            time.sleep(3600)
    return 0


@contextlib.contextmanager
def _everything(port: int) -> Iterator[tuple[str, dict[str, str]]]:
    """The shop's address, and the environment of its processes."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="capi-production-")))
        print("  PostgreSQL ...", flush=True)
        environment = {
            "CAPI_SECRET_KEY": secrets.token_urlsafe(32),
            "CAPI_STORE": stack.enter_context(server()),
            "CAPI_REPORT_TOKEN": _REPORT_TOKEN,
        }
        meta_port, web_port = free_port(), free_port()
        meta = ["uvicorn", "--factory", "--port", str(meta_port), "--log-level", "warning"]
        print("  The fake Meta ...", flush=True)
        stack.enter_context(
            running([*meta, "capi_middleware.testing:create_app"], meta_port, path="/received")
        )
        environment["CAPI_META"] = f"http://127.0.0.1:{meta_port}"
        _command(environment, "migrate")
        for n in range(_COURIERS):
            print(f"  Courier {n + 1} ...", flush=True)
            stack.enter_context(_courier(environment))
        print(f"  gunicorn with {_WEB} processes ...", flush=True)
        web = [
            "gunicorn", "--workers", str(_WEB), "--threads", "4", "--log-level", "warning",
            "--bind", f"127.0.0.1:{web_port}", f"{_APP}:app",
        ]  # fmt: skip
        stack.enter_context(running(web, web_port, environment=environment, path="/health"))
        print("  nginx ...", flush=True)
        text = Path(__file__).with_name("nginx.conf").read_text("utf-8")
        text = text.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        (folder / "nginx.conf").write_text(text.replace("127.0.0.1:8010", f"127.0.0.1:{web_port}"))
        stack.enter_context(
            running(
                ["-p", str(folder), "-c", "nginx.conf", "-g", "daemon off;"], port,
                path="/health", program=[_nginx() or "nginx"],
            )
        )  # fmt: skip
        yield f"http://127.0.0.1:{port}", environment


def _nginx() -> str | None:
    return shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")


def _line(*words: str) -> list[str]:
    return [sys.executable, "-m", "capi_middleware.cli", "--config", f"{_APP}:config", *words]


def _command(environment: dict[str, str], *words: str) -> None:
    subprocess.run(_line(*words), cwd=ROOT, env={**os.environ, **environment}, check=True)


@contextlib.contextmanager
def _courier(environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        _line("deliver"), cwd=ROOT, env={**os.environ, **environment}, start_new_session=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _visit(shop: str, visitors: int) -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find(), args=FLAGS)
        for number in range(visitors):
            _buy(browser, shop, number)
            print(f"  {number + 1} of {visitors} visitors bought something", flush=True)
        browser.close()


def _buy(browser: Browser, shop: str, number: int) -> None:
    context = browser.new_context()
    page = context.new_page()
    # Who leaves before the script has told leaves a copy that nobody heard of.
    with page.expect_response(f"{shop}/_capi/b"):
        page.goto(f"{shop}/")
    with page.expect_response(f"{shop}/_capi/b"):
        page.click("a")
    page.fill("[name=email]", f"visitor{number}@example.com")
    with page.expect_response(f"{shop}/_capi/b"):
        page.click("button")
    context.close()


def _matched(shop: str, expected: int) -> bool:
    """Whether both copies of so many page views and products and of each Purchase arrive."""
    headers, end = {"Authorization": f"Bearer {_REPORT_TOKEN}"}, time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        told = httpx.get(f"{shop}/_capi/parity.json", headers=headers, timeout=10).json()
        both = {one["event_name"]: one["matched"] for one in told["events"]}
        if both.get("PageView", 0) >= expected and both.get("Purchase", 0) >= expected // 3:
            return True
        time.sleep(0.5)
    print(json.dumps(told["events"], indent=1), flush=True)
    return False


def _report(environment: dict[str, str]) -> None:
    # 1 says that something is under target: that is for whoever reads it.
    subprocess.run(_line("report"), cwd=ROOT, env={**os.environ, **environment}, check=False)


if __name__ == "__main__":
    sys.exit(main())
