"""report, tail and insights: the numbers of the page on a terminal, with exit codes for CI."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from click.testing import CliRunner
from rich.console import Console

from capi_middleware import CAPI, UserData
from capi_middleware.cli import main, terminal
from capi_middleware.events import SENT, Row, Sighting
from capi_middleware.report.read import read_report
from capi_middleware.report.window import parse_window
from capi_middleware.store.records import Settlement
from capi_middleware.testing import FakeMeta
from tests.support.commands import Site, site
from tests.support.configs import PIXEL_ID, SECRET, TOKEN, make_config
from tests.support.processes import until
from tests.support.stores import row, store_rows


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with site(tmp_path, monkeypatch, FakeMeta()) as made:
        yield made


def fill(capi: CAPI, both: int, browser_only: int = 0, name: str = "Purchase") -> None:
    """Events of a minute ago whose browser copy was sent."""
    store_rows(
        capi.store,
        *(
            Row(
                event_id=f"{name}{n}", event_name=name, pixel_id=PIXEL_ID,
                event_time=time.time() - 60, payload=None, browser=SENT,
                server="delivered" if n < both else "unmapped",
            )
            for n in range(both + browser_only)
        ),
    )  # fmt: skip


def test_report_says_the_numbers_of_the_page(shop: Site) -> None:
    with shop.capi() as capi:
        fill(capi, 8, 2)
        page = read_report(capi.store, capi.config, parse_window({}, time.time()))
    told = shop.told("report")
    assert told["events"][0]["matched"] == page.events[0].matched == 8
    assert told["events"][0]["coverage"] == 0.8
    done = shop.run("report")
    assert done.exit_code == 0
    assert "80.0 %" in done.stdout
    assert "no server copy: 2 unmapped" in done.stdout


@pytest.mark.parametrize(
    ("both", "browser_only", "code"),
    [(90, 10, 0), (60, 40, 1), (10, 0, 0), (4, 0, 3), (3, 2, 3), (0, 0, 3), (0, 20, 1)],
)
def test_fail_under_is_an_exit_code_that_never_calls_no_data_good(
    shop: Site, both: int, browser_only: int, code: int
) -> None:
    if both + browser_only:
        with shop.capi() as capi:
            fill(capi, both, browser_only)
    assert shop.run("report", "--fail-under", "0.75").exit_code == code
    assert shop.run("report", "--fail-under", "0.75", "--json").exit_code == code


def test_an_event_with_too_little_data_is_not_passed_over(shop: Site) -> None:
    with shop.capi() as capi:
        fill(capi, 90, 10, "PageView")
        fill(capi, 0, 4)
    assert shop.run("report", "--fail-under", "0.75").exit_code == 3


def test_report_takes_the_window_and_filters_of_the_page(shop: Site) -> None:
    with shop.capi() as capi:
        fill(capi, 1)
        fill(capi, 1, name="Lead")
    assert [one["event_name"] for one in shop.told("report", "--event", "Lead")["events"]] == [
        "Lead"
    ]
    assert shop.told("report", "--pixel", "7")["events"] == []
    assert shop.told("report", "--to", "2026-01-02")["events"] == []
    done = shop.run("report", "--from", "soon")
    assert (done.exit_code, "ISO 8601" in done.stderr) == (2, True)


def test_report_of_one_tenant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = f"sqlite:///{tmp_path / 'capi.db'}"
    (tmp_path / "platform_of_tests.py").write_text(
        "from capi_middleware import CAPI, Config\n"
        f"config = Config({SECRET!r}, [], tenant=lambda key: None, store={store!r})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    capi = CAPI(make_config(store=store))
    store_rows(capi.store, *(row(key, pixel_id=f"1@{key}") for key in ("first", "second")))
    capi.close()
    command = ["--config", "platform_of_tests:config", "report", "--to", "2027-01-20", "--json"]
    done = CliRunner().invoke(main, [*command, "--tenant", "first"])
    assert [one["pixel_id"] for one in json.loads(done.stdout)["events"]] == ["1@first"]


def test_a_pixel_is_called_by_its_name(shop: Site) -> None:
    shop.configure(pixel='name = "Main shop"')
    with shop.capi() as capi:
        fill(capi, 40, 60)
    called = f"Main shop ({PIXEL_ID})"
    report, events = shop.run("report", "--fail-under", "0.9"), shop.run("events")
    assert f"All of {called}:" in report.stdout
    assert f"Purchase at {called}: coverage" in report.stderr
    assert f"  Purchase  {called}" in events.stdout
    assert f"pixel {PIXEL_ID}" not in report.output + events.output


def test_a_site_without_tenants_has_no_report_of_one(shop: Site) -> None:
    done = shop.run("report", "--tenant", "first")
    assert done.exit_code == 2
    assert "has no tenants" in done.output


def test_report_prints_flags_with_their_fix(shop: Site) -> None:
    with shop.capi() as capi:
        fill(capi, 10, 90)
    text = shop.run("report").stdout
    assert "critical: Purchase" in text
    assert "fix: " in text


def test_tail_once_prints_the_newest_twenty_with_both_copies(shop: Site) -> None:
    with shop.capi() as capi:
        fill(capi, 25)
    lines = shop.run("tail", "--once", "--json").stdout.splitlines()
    assert len(lines) == 20
    told = json.loads(lines[-1])
    assert (told["event_name"], told["server"], told["browser"]) == (
        "Purchase",
        "delivered",
        "sent",
    )
    assert len(shop.run("tail", "--once").stdout.splitlines()) == 20
    assert shop.run("tail", "--once", "--event", "Lead").stdout == ""


def test_tail_prints_events_as_they_happen_and_again_when_a_copy_gets_on(shop: Site) -> None:
    environment = {
        **os.environ, "CAPI_SECRET_KEY": SECRET, "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONUNBUFFERED": "1", "PYTHONDEVMODE": "",
    }  # fmt: skip
    with shop.capi() as capi:
        command = [sys.executable, "-m", "capi_middleware.cli", "tail", "--json"]
        with subprocess.Popen(
            command, cwd=shop.folder, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            lines: list[dict[str, str]] = []
            assert process.stdout is not None
            reader = threading.Thread(
                target=lambda out: lines.extend(map(json.loads, out)), args=[process.stdout]
            )
            reader.start()
            try:
                event = capi.track("Lead", user_data=UserData(em="jane@example.com"))
                until("the event", lambda: lines)
                lease = capi.store.lease(PIXEL_ID, limit=1, seconds=9)
                capi.store.settle(lease.lease_id, [Settlement(lease.events[0].key, "delivered")])
                until("its delivery", lambda: lines[-1]["server"] == "delivered")
                capi.store.sight([Sighting(event.event_id, "Lead", PIXEL_ID, SENT)]).result(9)
                until("its twin", lambda: lines[-1]["browser"] == SENT)
            finally:
                process.send_signal(signal.SIGINT)
                assert process.wait(20) == 0
                reader.join(20)
    assert {one["event_id"] for one in lines} == {event.event_id}


def test_insights_that_nobody_asked_for_are_exit_code_3(shop: Site) -> None:
    done = shop.run("insights")
    assert (done.exit_code, "insights --fetch" in done.stderr) == (3, True)


def test_insights_are_fetched_kept_and_printed_beside_ours(shop: Site) -> None:
    shop.configure(ad_account="7")
    with shop.capi() as capi:
        fill(capi, 40)
    shop.fake.insights.quality[PIXEL_ID] = {
        "web": [{"event_name": "Purchase", "event_coverage": {"percentage": 40}}]
    }
    shop.fake.insights.stats[PIXEL_ID] = {
        "WEB_ONLY": {int(time.time()) // 3600 * 3600 - 7200: {"Lead": 90}}, "SERVER_ONLY": {},
    }  # fmt: skip
    told = shop.told("insights", "--fetch")
    assert told["insights"]["opportunity"]["score"] == 62.0
    coverage = next(one for one in told["comparisons"] if one["measure"] == "coverage")
    assert (coverage["ours"], coverage["metas"], coverage["verdict"]) == (1.0, 0.4, "differs")
    done = shop.run("insights")
    assert done.exit_code == 0
    assert "Lead at pixel 1234567890: Meta counts 90 more browser events" in done.stdout
    assert "CAPI_PERFORMANCE_MATCH_KEY_V3" in done.stdout
    filtered = shop.told("report", "--event", "Lead")
    assert {one["event_name"] for one in filtered["comparisons"]} == {"Lead"}
    assert len(shop.fake.insights.requests) == 5, "without --fetch Meta is not asked"


def test_insights_without_permission_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site(tmp_path, monkeypatch, FakeMeta(tokens={PIXEL_ID: TOKEN})) as shop:
        done = shop.run("insights", "--fetch")
        assert done.exit_code == 1
        assert "no permission" in done.stdout
        assert "read_token" in done.stdout


def test_events_are_found_by_the_number_of_an_order_with_both_copies(shop: Site) -> None:
    with shop.capi() as capi:
        event_id = capi.track("Lead", dedupe_key="A-17", user_data=UserData(em="a@b.example"),
                              action_source="system_generated").event_id  # fmt: skip
        fill(capi, 3)
    [told] = [json.loads(one) for one in shop.run("events", "A-17", "--json").stdout.splitlines()]
    assert (told["event_id"], told["server"]["state"]) == (event_id, "pending")
    text = shop.run("events", "A-17").stdout
    assert event_id in text
    assert "match keys: em" in text
    assert text.count("fix: ") == 2  # one for each copy
    everything = shop.run("events", "--json").stdout.splitlines()
    assert [json.loads(one)["event_name"] for one in everything] == ["Purchase"] * 3 + ["Lead"]


def test_events_that_are_not_there_are_exit_code_3(shop: Site) -> None:
    assert shop.run("events", "nobody").exit_code == 3


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize(
    "command", ["report", "tail --once", "events", "dead-letters list", "check"]
)
def test_what_is_printed_fits_a_terminal_and_breaks_no_word(
    shop: Site, columns: int, command: str
) -> None:
    with shop.capi() as capi:
        fill(capi, 4, 6, "CompleteRegistration")
        fill(capi, 4, 6)
        store_rows(capi.store, Row(event_id="x" * 40, event_name="Purchase", pixel_id=PIXEL_ID,
                                   event_time=time.time() - 60, payload=b"{}"))  # fmt: skip
        leased = capi.store.lease(PIXEL_ID, limit=1, seconds=60)
        dead = Settlement(leased.events[0].key, "dead", "code 100/2804010", trace="AbcDef")
        capi.store.settle(leased.lease_id, [dead])
    whole = set(shop.run(*command.split()).stdout.split())
    narrow = CliRunner(env={"COLUMNS": str(columns)}).invoke(
        main, ["--config", str(shop.path), *command.split()]
    )
    lines = narrow.stdout.splitlines()
    words = {word.strip(",") for word in narrow.stdout.split()}
    assert len(lines) > 1
    # Addresses and paths alone may be longer than a line.
    assert [
        one for one in lines if len(one) > columns and len(max(one.split(), key=len)) < 50
    ] == []
    assert {"CompleteRegistration", "Purchase"} & whole <= words
    for fix in {one for one in lines if one.startswith("  fix: ")}:
        assert lines.count(fix) == 1, fix


def test_severity_has_a_colour_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(**settings: Any) -> str:
        made = Console(markup=False, highlight=False, **settings)
        monkeypatch.setattr(terminal, "console", made)
        terminal.print_line("critical: Purchase is lost", "Mend it.")
        return capsys.readouterr().out

    plain_text = "critical: Purchase is lost\n  fix: Mend it.\n"
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert printed(force_terminal=False) == plain_text
    assert printed(force_terminal=True).startswith("\x1b[31mcritical\x1b[0m: Purchase")
    monkeypatch.setenv("NO_COLOR", "1")
    assert printed(force_terminal=True) == plain_text


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["report", "--from", "soon"], 2), (["report", "--no-such"], 2), (["nothing"], 2),
        (["dead-letters", "show", "7"], 1), (["dead-letters", "drop"], 2), (["forget"], 2),
    ],
)  # fmt: skip
def test_with_json_what_fails_is_json_on_standard_output(
    shop: Site, arguments: list[str], code: int
) -> None:
    told = shop.run(*arguments, "--json")
    assert told.exit_code == code
    assert list(json.loads(told.stdout)) == ["error"]
    plainly = shop.run(*arguments)
    assert (plainly.exit_code, plainly.stdout) == (code, "")
    assert "Error: " in plainly.stderr


@pytest.mark.parametrize(
    "command",
    ["report", "check", "events", "tail --once", "insights", "health", "dead-letters list",
     "migrate", "prune", "deliver --once"],
)  # fmt: skip
def test_a_broken_configuration_is_exit_code_4_of_every_command(shop: Site, command: str) -> None:
    shop.configure(no_such_setting=True)
    assert shop.run(*command.split()).exit_code == 4
    told = shop.run(*command.split(), "--json")
    assert told.exit_code == 4
    assert "no_such_setting" in told.stdout
    json.loads(told.stdout)


def test_the_help_says_what_exit_codes_mean(shop: Site) -> None:
    text = " ".join(shop.run("--help").stdout.split())
    for one in ("0 fine", "1 something is wrong", "2 used", "3 too", "4 the configuration"):
        assert one in text


@pytest.mark.parametrize("columns", [60, 80])
def test_health_is_lines_on_a_terminal_and_json_in_a_pipe(
    shop: Site, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.configure(pixel='name = "Main shop"')
    with shop.capi() as capi:
        store_rows(capi.store, row("e1", pixel_id=PIXEL_ID, event_time=time.time() - 90))
        capi.store.pause(PIXEL_ID, seconds=600, reason="code 190")
    assert json.loads(shop.run("health").stdout)["health"]["pixels"][0]["waiting"] == 1
    monkeypatch.setenv("NO_COLOR", "1")
    made = Console(markup=False, highlight=False, force_terminal=True, width=columns)
    monkeypatch.setattr(terminal, "console", made)
    told = shop.run("health")
    assert told.exit_code == 1
    assert told.stdout.startswith(f"Main shop ({PIXEL_ID}): 1 wait, ")
    assert [line for line in told.stdout.splitlines() if len(line) > columns] == []
    assert "critical: " in told.stdout
    assert told.stdout.count("  fix: ") >= 1


def test_each_pixel_has_a_table_of_its_own_that_fits_80_columns(shop: Site) -> None:
    named = '[[pixels]]\nid = "2222222222"\naccess_token = "t"\nname = "Wholesale, Germany"'
    shop.configure(named, pixel='name = "Main shop"')
    with shop.capi() as capi:
        fill(capi, 40, 5)
        fill(capi, 40, 5, "InitiateCheckout")
        store_rows(capi.store, *(
            Row(f"w{n}", "Purchase", "2222222222", time.time() - 60, None, "delivered", SENT)
            for n in range(9)
        ))  # fmt: skip
    told = CliRunner(env={"COLUMNS": "80"}).invoke(main, ["--config", str(shop.path), "report"])
    lines = [" ".join(one.split()) for one in told.stdout.splitlines()]
    first = lines.index(f"All of Main shop ({PIXEL_ID}):")
    second = lines.index("All of Wholesale, Germany (2222222222):")
    assert "Purchase 40 45 40 88.9 % 88.9 % 0" in lines[first:second]
    assert "Purchase 9 9 9 100.0 % 100.0 % 0" in lines[second:]


def test_health_is_exit_code_1_when_meta_refuses_every_event(shop: Site) -> None:
    def letter(state: Literal["dead", "delivered"], n: int) -> None:
        store_rows(capi.store, Row(event_id=f"{state}{n}", event_name="Purchase", browser=SENT,
                                   pixel_id=PIXEL_ID, event_time=time.time() - 60,
                                   payload=b"{}"))  # fmt: skip
        leased = capi.store.lease(PIXEL_ID, limit=9, seconds=60)
        outcome = [Settlement(one.key, state, "code 100/2804010") for one in leased.events]
        capi.store.settle(leased.lease_id, outcome)

    assert shop.run("health").exit_code == 0
    with shop.capi() as capi:
        for n in range(3):
            letter("dead", n)
    told = shop.run("health")
    assert told.exit_code == 1
    assert [one["code"] for one in json.loads(told.stdout)["flags"]] == ["delivery_rejected"]
    with shop.capi() as capi:
        letter("delivered", 0)
    assert shop.run("health").exit_code == 0
