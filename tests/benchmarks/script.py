"""s.js: its size, and what it costs the main thread of Chromium."""

import functools
import gzip
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Route, sync_playwright

from capi_middleware.events import PageEvent, PageKey
from capi_middleware.page import tag as pixel
from capi_middleware.signing import Minter
from tests.benchmarks.measure import Trial, constant
from tests.support import browsers
from tests.support.script import FIRST, made, source

_KB = 1024
_ORIGIN = "https://shop.example.com"
_HEAD = "<!doctype html><html><head><title>A kettle</title>"
_BODY = "</head><body>" + "<p>A good kettle for good tea.</p>" * 200
#: Long tasks as the browser counts them: longer than 50 ms.
_WATCH = """
window.long = 0;
new PerformanceObserver(list => { window.long += list.getEntries().length })
    .observe({type: "longtask", buffered: true});
"""


def _tag() -> str:
    event_id = Minter(["benchmark" * 4]).mint("ViewContent", time.time())
    event = PageEvent("ViewContent", event_id, {"content_ids": ["kettle"]}, ("1234567890",))
    maker = pixel.TagMaker(prefix="/_capi", script_url=f"{_ORIGIN}/fbevents.js", mirror=False)
    pixels = pixel.pixel_entries({"1234567890": None})
    return maker.tag(pixels, [event], key=PageKey("ViewContent", event_id)).decode()


def _in_chromium(figure: str) -> Callable[[float], float]:
    """Seconds (or a count) that the page with the tag has more than the page without it."""

    def side(share: float) -> float:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=browsers.find(), args=browsers.FLAGS
            )
            try:
                told = []
                for tag in (_tag(), ""):
                    page = browser.new_page()
                    page.add_init_script(_WATCH)
                    page.route("**/*", functools.partial(_answer, tag))
                    session = page.context.new_cdp_session(page)
                    # The thread's own time: what others do on the machine is not part of it.
                    session.send("Performance.enable", {"timeDomain": "threadTicks"})
                    page.goto(f"{_ORIGIN}/", wait_until="networkidle")
                    metrics = session.send("Performance.getMetrics")["metrics"]
                    found = {one["name"]: one["value"] for one in metrics}
                    if tag and not page.evaluate("typeof fbq === 'function'"):
                        raise AssertionError("s.js did not run")
                    found["LongTasks"] = page.evaluate("window.long")
                    told.append(found[figure])
                    page.close()
                return float(max(0.0, told[0] - told[1]))
            finally:
                browser.close()

    return side


def _first_task(share: float) -> float:
    """Seconds that s.js runs at once on a CPU that is slowed four times, more than "" does."""
    with sync_playwright() as playwright, TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=browsers.find(), args=browsers.FLAGS)
        try:
            page = browser.new_page()
            page.route("**/*", functools.partial(_answer, _tag()))
            session = page.context.new_cdp_session(page)
            session.send("Emulation.setCPUThrottlingRate", {"rate": 4})
            told = Path(folder) / "trace.json"
            browser.start_tracing(page=page, path=told, categories=["devtools.timeline"])
            page.goto(f"{_ORIGIN}/", wait_until="networkidle")
            browser.stop_tracing()
        finally:
            browser.close()
        took = {
            one["args"]["data"]["url"].partition("?")[0]: one.get("tdur", one["dur"]) / 1e6
            for one in json.loads(told.read_text())["traceEvents"]
            if one["name"] == "EvaluateScript"
        }
    return float(took[f"{_ORIGIN}/_capi/s.js"] - took[f"{_ORIGIN}/fbevents.js"])


def _answer(tag: str, route: Route) -> None:
    url, fulfill = route.request.url, route.fulfill
    if "/s.js" in url:
        fulfill(content_type="text/javascript", body=pixel.script().decode())
    elif url == f"{_ORIGIN}/":
        fulfill(content_type="text/html", body=f"{_HEAD}{tag}{_BODY}")
    else:
        # Meta's library is not ours to measure.
        fulfill(content_type="text/javascript", body=json.dumps(""))


def rows() -> Iterator[Trial]:
    """What the table says about the pixel script."""
    first = made(source(FIRST)).encode()
    for what, size, most in (
        ("first part of s.js", len(first), 6),
        ("first part of s.js, gzip", len(gzip.compress(first, 9)), 3),
    ):
        yield Trial(
            what, f"{most} KB", 1.0, constant(size), constant(most * _KB), unit="B", rounds=1
        )
    yield Trial(
        "main-thread time of the tag and s.js in Chromium", "5 ms", 1.0,
        _in_chromium("ScriptDuration"), constant(0.005), rounds=9,
    )  # fmt: skip
    yield Trial(
        "s.js at once, on a CPU four times slower", "5 ms", 1.0, _first_task, constant(0.005),
        rounds=9,
    )  # fmt: skip
    for figure, name in (("LayoutCount", "layouts"), ("LongTasks", "long tasks")):
        yield Trial(
            f"{name} that s.js causes", "none (1 is too many)", 0.5, _in_chromium(figure),
            constant(1.0), unit="", rounds=3,
        )  # fmt: skip
