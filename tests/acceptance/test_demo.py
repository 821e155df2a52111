"""`make demo VISITORS=...`: each planted fault is named by a flag with its fix, and no other is."""

import time
from pathlib import Path

import pytest

from capi_middleware.report.model import Flag
from capi_middleware.report.read import read_report
from capi_middleware.report.window import parse_window
from capi_middleware.store.opening import open_store
from demo.shop import settings
from tests.support.configs import SECRET
from tests.support.processes import ended, free_port

#: Enough for habits that are no chance: 20 of them buy, 6 block the pixel.
VISITORS = 30
#: What the fix of each planted fault must say, by the code and event_name of its flag.
FIXES = {
    ("pixel_blocked", ""): "the server copy covers these visitors",
    ("server_missing", "AddToCart"): 'Config(mirror=["AddToCart"])',
    ("repeated_events", "Purchase"): 'dedupe_key, such as "{path.order_id}"',
    ("match_key_missing", "Purchase"): "user_data=UserData(em=order.email)",
    ("delivery_interrupted", ""): "Make a new access token in Events Manager",
}
#: What else the forgotten AddToCart is.
BESIDE = {"coverage_below_target", "ratio_below_target", "event_id_missing"}


def trial(faults: str, folder: Path) -> tuple[int, str, dict[tuple[str, str], Flag]]:
    """The exit code of a run in Chromium, what it printed, and the flags of its report."""
    store = f"sqlite:///{folder / 'capi.db'}"
    code, printed = ended(
        ["demo", "--visitors", str(VISITORS), "--faults", faults, "--exit", "--store", store,
         "--port", str(free_port()), "--meta-port", str(free_port())],
    )  # fmt: skip
    opened = open_store(store, queue_limit=1)
    try:
        config = settings("http://127.0.0.1:1", store, SECRET)
        report = read_report(opened, config, parse_window({}, time.time()))
    finally:
        opened.close()
    assert {one.event_name for one in report.events} >= {"PageView", "Purchase", "Lead", "Search"}
    assert report.insights is not None
    return code, printed, {(one.code, one.event_name): one for one in report.flags}


def test_each_planted_fault_is_named_with_its_fix(tmp_path: Path) -> None:
    code, printed, flags = trial("all", tmp_path)
    assert code == 0, printed
    assert {sign: fix for sign, fix in FIXES.items() if fix not in flags[sign].fix} == {}
    assert flags.keys() - FIXES.keys() <= {(code, "AddToCart") for code in BESIDE}
    assert "pixel_paused" in printed  # while the token was refused


def test_a_healthy_shop_raises_no_flag(tmp_path: Path) -> None:
    code, printed, flags = trial("none", tmp_path)
    assert (code, flags) == (0, {}), printed


@pytest.mark.parametrize("given", ["nonsense", "blocked,nonsense"])
def test_an_unknown_fault_is_refused_with_those_that_there_are(given: str) -> None:
    code, printed = ended(["demo", "--faults", given])
    assert code == 2
    assert "found the faults ['nonsense'], expected some of blocked, forgotten" in printed
