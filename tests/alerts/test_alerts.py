"""Alerts end to end: several processes, one SQLite file, a real webhook; each change once."""

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from capi_middleware import Alert, Config, verify_alert
from capi_middleware.alerts import watch
from capi_middleware.alerts.watch import Webhook
from capi_middleware.store.opening import open_store
from capi_middleware.store.store import Store
from capi_middleware.testing import MemoryStore
from tests.delivery.test_delivery import answer, answering
from tests.support.alerting import lines, plant, watcher
from tests.support.configs import SECRET, make_config
from tests.support.processes import ROOT, until
from tests.support.servers import closed_port, serve
from tests.support.stores import PIXEL, Clock


class Receiver:
    """The owner's webhook: keeps what it is sent; `down` requests are refused first."""

    def __init__(self) -> None:
        self.down = 0
        self.tries = 0
        self.messages: list[dict[str, Any]] = []
        self.asked, self.hold = threading.Event(), threading.Event()
        self.hold.set()
        self.app = Starlette(
            routes=[
                Route("/hook", self._take, methods=["POST"]),
                Route("/moved", lambda request: RedirectResponse("/hook"), methods=["POST"]),
            ]
        )

    async def _take(self, request: Request) -> Response:
        body = await request.body()
        self.tries += 1
        self.asked.set()
        await run_in_threadpool(self.hold.wait, 30)
        if self.down:
            self.down -= 1
            return Response(status_code=503)
        signature = request.headers["x-capi-signature"]
        assert verify_alert(body, signature, SECRET, tolerance=30 * 86400)  # tests move the clock
        assert request.headers["content-type"] == "application/json"
        self.messages.append(json.loads(body))
        return Response(b"thank you")

    @property
    def kinds(self) -> list[str]:
        return [message["kind"] for message in self.messages]


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def url(receiver: Receiver) -> Iterator[str]:
    with serve(receiver.app) as base:
        yield base + "/hook"
        receiver.hold.set()


@contextmanager
def processes(amount: int, **given: Any) -> Iterator[Sequence["subprocess.Popen[str]"]]:
    """So many processes that wait for a line before each check; killed if they do not end."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.alerting", json.dumps(given)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(amount)
    ]  # fmt: skip
    try:
        yield started
    finally:
        for one in started:
            if one.poll() is None:
                one.kill()
            one.communicate()


def check_in(started: Sequence["subprocess.Popen[str]"]) -> None:
    """Let all processes check at once."""
    for one in started:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    for one in started:
        assert one.stdout is not None
        assert one.stdout.readline() == "checked\n"


def test_four_processes_tell_each_change_once_to_callback_and_webhook(
    tmp_path: Path, receiver: Receiver, url: str
) -> None:
    now, told = time.time(), tmp_path / "told"
    shop = f"sqlite:///{tmp_path / 'capi.db'}"
    store = open_store(shop, queue_limit=1000)
    plant(store, now)
    store.close()
    receiver.down = 1
    with processes(
        4, store=shop, webhook=url, told=str(told), now=now, checks=9, step=45.0
    ) as started:
        for _ in range(9):
            check_in(started)
    codes = ["coverage_below_target", "ratio_below_target", "server_missing"]
    assert sorted(lines(told)) == [f"opened {code}" for code in codes]
    assert sorted(message["flag"]["code"] for message in receiver.messages) == codes
    assert receiver.tries == len(codes) + 1


def test_a_process_that_is_killed_while_it_sends_loses_no_message(
    tmp_path: Path, receiver: Receiver, url: str
) -> None:
    now, told = time.time(), tmp_path / "told"
    shop = f"sqlite:///{tmp_path / 'capi.db'}"
    store = open_store(shop, queue_limit=1000)
    plant(store, now)
    receiver.hold.clear()
    with processes(
        1, store=shop, webhook=url, told=str(told), now=now, checks=2, step=60.0
    ) as started:
        check_in(started)
        (one,) = started
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
        assert receiver.asked.wait(30)
        one.kill()
        one.wait(30)
    receiver.hold.set()
    until("the killed request is over", lambda: receiver.messages)
    receiver.messages.clear()
    clock = Clock(now + 60 + 60)
    other = watcher(make_config(store=shop, alert_webhook=url), store, clock)
    other.check()
    assert receiver.messages == []
    clock.now += 60
    other.check()
    store.close()
    assert receiver.kinds == ["opened"] * 3
    assert len(lines(told)) == 3


# -- one process ----------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    store = MemoryStore(clock=clock)
    plant(store, clock.now)
    return store


def checks(config: Config, store: Store, clock: Clock, times: int, step: float = 60) -> None:
    watching = watcher(config, store, clock)
    for _ in range(times):
        watching.check()
        clock.now += step


def test_a_message_says_what_changed_where_to_look_and_what_to_do(
    store: MemoryStore, clock: Clock, receiver: Receiver, url: str
) -> None:
    checks(make_config(alert_webhook=url), store, clock, 2)
    (message,) = (one for one in receiver.messages if one["flag"]["severity"] == "critical")
    assert message["kind"] == "opened"
    assert message["flag"]["code"] == "coverage_below_target"
    assert (message["flag"]["event_name"], message["flag"]["pixel_id"]) == ("Purchase", PIXEL)
    assert message["flag"]["explanation"].startswith("0 of 100 browser events are covered")
    assert message["flag"]["fix"]
    assert message["report"].startswith("/_capi/parity?from=20")
    assert message["window"]["from"] < message["at"] < message["window"]["to"]


def test_a_flag_that_is_gone_for_three_evaluations_is_told_to_be_closed(
    store: MemoryStore, clock: Clock, receiver: Receiver, url: str
) -> None:
    config = make_config(alert_webhook=url)
    checks(config, store, clock, 3)
    clock.now += 2 * 86400
    checks(config, store, clock, 4)
    assert receiver.kinds == ["opened"] * 3 + ["closed"] * 3


def test_a_webhook_that_is_down_for_hours_gets_all_in_order_when_it_is_back(
    store: MemoryStore, clock: Clock, receiver: Receiver, url: str
) -> None:
    receiver.down = 8
    checks(make_config(alert_webhook=url), store, clock, 4 * 60)
    assert receiver.tries == 8 + 3
    assert receiver.kinds == ["opened"] * 3


@pytest.mark.parametrize("gone", ["closed port", "redirect"])
def test_what_is_not_taken_within_a_day_is_given_up_and_logged(
    store: MemoryStore, clock: Clock, receiver: Receiver, url: str, gone: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    address = url.replace("/hook", "/moved") if gone == "redirect" else closed_port() + "/secret"
    config = make_config(alert_webhook=address)
    checks(config, store, clock, 2)
    checks(config, store, clock, 30, step=3600)
    assert receiver.messages == []
    given_up = [one for one in caplog.records if getattr(one, "capi", {}).get("action") ==
                "give_up_alerts"]  # fmt: skip
    assert sum(one.capi["n"] for one in given_up) == 3  # type: ignore[attr-defined]
    assert not any("secret" in one.getMessage() for one in caplog.records)


def test_flags_go_to_the_log_and_the_callback_without_any_webhook(
    store: MemoryStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "capi_middleware.alerts")
    told: list[Alert] = []
    config = make_config(on_alert=told.append)
    checks(config, store, clock, 5)
    clock.now += 2 * 86400
    checks(config, store, clock, 3)
    records = [one for one in caplog.records if one.name == "capi_middleware.alerts"]
    assert [one.capi["code"] for one in records] == [one.flag.code for one in told]  # type: ignore[attr-defined]
    assert [(one.kind, one.flag.code) for one in told] == [
        (kind, code)
        for kind in ("opened", "closed")
        for code in ("coverage_below_target", "ratio_below_target", "server_missing")
    ]
    assert [one.levelno for one in records] == [
        logging.ERROR, logging.WARNING, logging.WARNING, *[logging.INFO] * 3
    ]  # fmt: skip
    opened, closed = records[0].getMessage(), records[3].getMessage()
    assert opened.startswith(f"flag opened: coverage_below_target of Purchase at pixel {PIXEL}. 0 ")
    assert "Add an EventRoute" in opened
    assert ". It was: 0 of 100" in closed
    assert "Add an EventRoute" not in closed


def test_a_callback_that_fails_is_counted_and_the_webhook_told_all_the_same(
    store: MemoryStore, clock: Clock, receiver: Receiver, url: str,
    swallowed: list[BaseException],
) -> None:  # fmt: skip
    def broken(alert: Alert) -> None:
        raise KeyError(alert.kind)

    checks(make_config(alert_webhook=url, on_alert=broken), store, clock, 2)
    assert [type(error) for error in swallowed] == [KeyError] * 3
    swallowed.clear()
    assert len(receiver.messages) == 3
    store.flush(10)
    counts = store.tallies(0, float("inf")).counts
    assert [(one.reason, one.n) for one in counts if one.kind == "error"] == [
        ("the setting on_alert: KeyError", 3)
    ]


def test_what_another_version_kept_is_begun_anew(store: MemoryStore, clock: Clock) -> None:
    assert store.keep("alerts", b'{"watched":7}', instead_of=None)
    told: list[Alert] = []
    checks(make_config(on_alert=told.append), store, clock, 2)
    assert len(told) == 3


# -- the webhook as such --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (answer("200 OK", b""), ""),
        (answer("204 No Content", b""), ""),
        (answer("200 OK", b"x" * 1_000_000), ""),
        (answer("301 Moved", b"", "Location: http://127.0.0.1:1/"), "http 301"),
        (answer("500 Oops", b"secret"), "http 500"),
        (b"nonsense\r\n\r\n", "broken"),
        (b"", "broken"),
    ],
)
def test_only_a_success_is_taken(raw: bytes, problem: str) -> None:
    with answering(raw) as base:
        assert Webhook(base).post(b"{}", {}) == problem


def test_a_refused_connection_is_named_without_its_address() -> None:
    assert Webhook(closed_port() + "/secret").post(b"{}", {}) == "refused"


def test_an_answer_that_drips_is_ended_in_total(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "DEADLINE", 0.5)
    with answering(answer("200 OK", b""), drip=0.2) as base:
        # Waited for to its end, it would be taken.
        assert Webhook(base).post(b"{}", {}) != ""


def test_a_message_under_way_can_be_given_up(receiver: Receiver, url: str) -> None:
    receiver.hold.clear()
    hook = Webhook(url)
    problems: list[str] = []
    thread = threading.Thread(target=lambda: problems.append(hook.post(b"{}", {})))
    thread.start()
    assert receiver.asked.wait(10)
    hook.close()
    receiver.hold.set()
    thread.join(10)
    assert not thread.is_alive()
    assert len(problems) == 1
