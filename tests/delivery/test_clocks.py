"""A clock that is wrong, or set right, loses no event and holds none back."""

import math
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from capi_middleware import CAPI, UserData
from capi_middleware.delivery.courier import Courier
from capi_middleware.delivery.telemetry import ClockCheck
from capi_middleware.meta.codes import Outcome
from capi_middleware.store.records import LONGEST_WAIT, OLDEST_EVENT
from capi_middleware.testing import FakeMeta, MemoryStore
from tests.delivery.test_delivery import Script
from tests.support.configs import make_config
from tests.support.processes import ROOT
from tests.support.stores import NOON, PIXEL, Clock, row, store_rows

DAY = 86400.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


class Meta(Script):
    """A client whose answers carry the time of Meta's clock, right from the start."""

    def __init__(self, *outcomes: Outcome, away: bool = False) -> None:
        super().__init__(*outcomes)
        self.away, self.asked = away, 0
        self.time: float | None = None

    def hear(self) -> Outcome | None:
        self.asked += 1
        if self.away:
            return Outcome("retry", "refused")
        self.time = NOON
        return None


def test_a_clock_that_jumps_ahead_and_back_expires_nothing(
    store: MemoryStore, clock: Clock
) -> None:
    store_rows(store, *(row(f"e{n}") for n in range(20)))
    meta = Meta(Outcome("retry", "http 503", 1.0))
    meta.time = NOON
    step = Courier(store, PIXEL, lambda: meta, surely=lambda: meta.time)._round
    step()
    clock.now += 8 * DAY
    step()
    clock.now -= 8 * DAY
    for _ in range(3):
        clock.now += 1
        step()
    assert store.depth() == {"delivered": 20}


def test_what_seems_too_old_is_not_given_up_before_metas_clock_was_heard(
    store: MemoryStore, clock: Clock
) -> None:
    store_rows(store, row("e1"))
    clock.now += 8 * DAY  # as at the start of a machine that has no clock of its own
    meta = Meta(away=True)
    step = Courier(store, PIXEL, lambda: meta, surely=lambda: meta.time)._round
    for _ in range(30):
        step()
        clock.now += 1
    assert (store.depth(), meta.sent) == ({"pending": 1}, [])
    assert meta.asked <= 6  # each time later than the time before
    meta.away = False
    clock.now += 60
    step()
    step()
    assert store.depth() == {"delivered": 1}


def test_what_is_too_old_by_metas_clock_as_well_expires(store: MemoryStore, clock: Clock) -> None:
    store_rows(store, row("e1", event_time=NOON - OLDEST_EVENT - 1), row("e2"))
    meta = Meta()
    step = Courier(store, PIXEL, lambda: meta, surely=lambda: meta.time)._round
    step()
    meta.time = NOON  # heard with the answer for the other
    step()
    assert store.depth() == {"delivered": 1, "expired": 1}


@pytest.mark.parametrize("back", [2.0, LONGEST_WAIT / 2, 3600.0, 30 * DAY])
def test_a_clock_that_is_set_back_makes_nothing_wait(
    back: float, store: MemoryStore, clock: Clock
) -> None:
    client = Script()
    step = Courier(store, PIXEL, lambda: client)._round
    step()
    store_rows(store, row("e1"))
    clock.now -= back
    step()
    assert store.depth() == {"delivered": 1}


def test_a_rest_of_before_the_clock_was_set_back_holds_up_nothing(
    store: MemoryStore, clock: Clock
) -> None:
    store_rows(store, row("e1"))
    client = Script(Outcome("throttled", "code 4", 3600.0))
    step = Courier(store, PIXEL, lambda: client)._round
    step()
    clock.now -= 3600
    step()
    assert store.depth() == {"delivered": 1}


def test_a_clock_that_jumps_ahead_prunes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    capi = CAPI(make_config(retention_days=35))
    settled = {"payload": None, "server": "unmapped", "event_time": time.time()}
    store_rows(capi.store, row("e1", **settled))
    honest = time.time
    monkeypatch.setattr(time, "time", lambda: honest() + 36 * DAY)
    capi._prune()
    assert capi.store.depth() == {"unmapped": 1}


# -- by Meta's clock -----------------------------------------------------------------------------


def test_metas_clock_goes_on_by_itself_whatever_becomes_of_ours(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = [1000.0]
    monkeypatch.setattr("capi_middleware.delivery.telemetry.passing", lambda: passed[0])
    clock = ClockCheck(PIXEL, store.count)
    assert clock.surely() is None
    clock(formatdate(NOON, usegmt=True))
    assert clock.surely() == NOON
    passed[0] += 5
    assert clock.surely() == NOON + 5
    clock(None)
    assert clock.surely() == NOON + 5


def test_where_meta_tells_no_time_ours_is_the_only_clock(store: MemoryStore) -> None:
    clock = ClockCheck(PIXEL, store.count)
    clock(None)
    assert clock.surely() == math.inf
    clock(formatdate(NOON, usegmt=True))
    assert clock.surely() == pytest.approx(NOON, abs=60)


WRONG = """
import sys, time
honest = time.time
time.time = lambda: honest() + float(sys.argv[3])
from capi_middleware import CAPI, UserData
from tests.support.configs import make_config
capi = CAPI(make_config(store=sys.argv[1], delivery=True, graph_url=sys.argv[2]))
capi.track("Contact", user_data=UserData(em="jane@example.com"))
capi.flush(20)
capi.close()
print(capi.store.depth())
"""


@pytest.mark.parametrize("ahead", [8 * DAY, -3600.0])
def test_a_process_whose_clock_is_wrong_delivers_what_waits_and_what_it_makes(
    ahead: float, fake_meta: FakeMeta, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path / 'capi.db'}"
    before = CAPI(make_config(store=store))
    before.track("Lead", user_data=UserData(em="jane@example.com"))
    before.close()
    command = [sys.executable, "-c", WRONG, store, fake_meta.url, str(ahead)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.stdout == "{'delivered': 2}\n", ended.stderr
