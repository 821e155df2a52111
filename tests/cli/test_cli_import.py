"""import: a file of past events, sent once however often it is given."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from capi_middleware.cli import importing
from capi_middleware.testing import FakeMeta
from capi_middleware.testing.graph_rules import check_event
from tests.support.commands import Site, site
from tests.support.configs import PIXEL_ID
from tests.support.processes import ROOT, until


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with site(tmp_path, monkeypatch, FakeMeta()) as made:
        made.configure(action_source="phone_call")
        yield made


def stamp(**ago: float) -> str:
    return (datetime.now(UTC) - timedelta(**ago)).isoformat()


def write(shop: Site, *lines: str) -> str:
    path = shop.folder / "events.csv"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return str(path)


def sent(shop: Site) -> list[dict[str, Any]]:
    with shop.capi() as capi:
        lease = capi.store.lease(PIXEL_ID, limit=1000, seconds=1)
        events = [json.loads(one.payload) for one in lease.events]
        for one in events:
            check_event(one, capi.issuer.clock())
    return events


def test_columns_are_found_by_their_usual_names_and_the_rest_is_told(shop: Site) -> None:
    path = write(
        shop, "Event;Order ID;Date;Total;Currency;E-Mail;Phone Number;Action Source;Till",
        f"Purchase;r1;{stamp(days=50)};19,90;EUR;Jane@Example.com;+49 30 123456;physical_store;7",
        f"Lead;r2;{stamp(days=2)};;;;+49 30 123456;;",
    )  # fmt: skip
    told = shop.told("import", path)
    assert (told["rows"], told["queued"], told["bad_lines"]) == (2, 2, [])
    assert told["columns"]["em"] == "E-Mail"
    assert told["unused"] == ["Till"]
    lead, purchase = sorted(sent(shop), key=lambda one: str(one["event_name"]))
    assert purchase["custom_data"] == {"order_id": "r1", "value": 19.9, "currency": "EUR"}
    assert (purchase["action_source"], lead["action_source"]) == ("physical_store", "phone_call")
    assert sorted(purchase["user_data"]) == ["em", "ph"]
    assert "jane" not in json.dumps([lead, purchase]).lower()


def test_a_file_that_is_given_again_sends_nothing_twice(shop: Site) -> None:
    lines = [f"Lead,r{n},{stamp(hours=n)},c{n}@example.com" for n in range(9)]
    path = write(shop, "event,id,time,email", *lines, lines[3])
    first, again = shop.told("import", path), shop.told("import", path)
    assert (first["queued"], first["known"], first["repeated"]) == (9, 0, 1)
    assert (again["queued"], again["known"], again["repeated"]) == (0, 9, 1)
    assert len(sent(shop)) == 9


def test_it_goes_on_where_it_was_ended(shop: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_TOGETHER", 3)
    queue, calls = importing._queue, list[int]()

    def ended(*given: Any) -> None:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        queue(*given)

    lines = [f"Lead,{stamp(hours=n)},c{n}@example.com" for n in range(9)]
    path = write(shop, "event,time,email", *lines)
    with monkeypatch.context() as patched:
        patched.setattr(importing, "_queue", ended)
        assert shop.run("import", path).exit_code != 0
    told = shop.told("import", path)
    assert (told["known"], told["queued"]) == (6, 3)
    assert len({one["event_id"] for one in sent(shop)}) == 9


def test_a_killed_import_goes_on_when_the_file_is_given_again(shop: Site) -> None:
    lines = [f"Lead,r{n},{stamp(minutes=n)},c{n}@example.com\n" for n in range(800)]
    pipe = shop.folder / "pipe.csv"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "capi_middleware.cli", "--config", str(shop.path), "import"]
    process = subprocess.Popen([*command, str(pipe)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    with shop.capi() as capi, pipe.open("w") as text:
        text.write("event,id,time,email\n" + "".join(lines[:700]))
        text.flush()
        until("the first are queued", lambda: capi.store.depth() == {"pending": 500}, 60)
        process.kill()  # while it waits for more
        assert process.wait(20) == -9
    told = shop.told("import", write(shop, "event,id,time,email", *map(str.strip, lines)))
    assert (told["rows"], told["known"], told["queued"]) == (800, 500, 300)
    assert len({one["event_id"] for one in sent(shop)}) == 800


def test_a_dry_run_says_the_same_and_queues_nothing(shop: Site) -> None:
    path = write(shop, "time,email", f"{stamp(days=1)},a@example.com", "never,b@example.com")
    told = shop.told("import", path, "--event", "Lead", "--dry-run")
    assert (told["queued"], [one["line"] for one in told["bad_lines"]]) == (1, [3])
    assert sent(shop) == []


def test_each_bad_line_says_why_and_shows_no_value(shop: Site) -> None:
    shop.configure(action_source="phone_call", default_region="DE")
    now, mail = stamp(hours=1), "secret@example.com"
    bad = {
        f"Lead,,{now},,,{mail},fax": "no action_source",
        f"Lead,,{stamp(days=8)},,,{mail},email": "seven days",
        f"Lead,,{stamp(days=63)},,,{mail},physical_store": "62 days",
        f"Lead,,{stamp(days=-2)},,,{mail},email": "event_time",
        f"Lead,,yesterday,,,{mail},email": "time",
        f"Lead,,2026-11-20 10:00,,,{mail},email": "--timezone",
        f"Purchse,,{now},,,{mail},email": "'Purchase'",
        f"{'x' * 51},,{now},,,{mail},email": "50",
        f"Purchase,,{now},,,{mail},email": "Purchase needs both",
        f"Lead,,{now},5.00,,{mail},email": "currency",
        f"Lead,,{now},much,EUR,{mail},email": "no number",
        f"Lead,,{now},,,secret,email": "too little customer information",
        f"Lead,none,{now},,,{mail},email": "id that names nothing",
        f"Lead,,{now},,,{mail},website": "event_source_url",
        f"Lead,,{now},,,{mail},business_messaging": "messaging_channel",
    }
    path = write(shop, "event,id,time,value,currency,email,action_source", *bad)
    told = shop.told("import", path)
    assert (told["queued"], len(told["bad_lines"])) == (0, len(bad))
    for one, why in zip(told["bad_lines"], bad.values(), strict=True):
        assert why in one["why"], one
    done = shop.run("import", path)
    assert done.exit_code == 1
    assert "secret" not in done.output


def test_times_without_an_offset_are_read_in_the_zone_that_is_named(shop: Site) -> None:
    local = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=9)
    text = (local + timedelta(hours=9)).strftime("%Y-%m-%d %H:%M:%S")  # Tokyo
    path = write(shop, "event,time,email", f"Lead,{text},a@example.com")
    assert shop.told("import", path, "--timezone", "Asia/Tokyo")["queued"] == 1
    assert [one["event_time"] for one in sent(shop)] == [int(local.timestamp())]


@pytest.mark.parametrize(
    ("head", "more", "why"),
    [("event,email", [], "event_time"), ("time,email", [], "--event"),
     ("event,time,mail", ["--column", "em=nowhere"], "nowhere"),
     ("event,time,mail", ["--column", "x=mail"], "MEANING=NAME")],
)  # fmt: skip
def test_a_file_that_cannot_be_read_says_what_it_lacks(
    shop: Site, head: str, more: list[str], why: str
) -> None:
    done = shop.run("import", write(shop, head), *more)
    assert done.exit_code == 2
    assert why in done.output


def test_a_line_without_consent_is_left_out_and_counted(shop: Site) -> None:
    path = write(
        shop, "event,time,kundenmail,consent", f"Lead,{stamp(hours=1)},a@example.com,no",
        f"Lead,{stamp(hours=1)},b@example.com,yes",
    )  # fmt: skip
    told = shop.told("import", path, "--column", "em=kundenmail")
    assert (told["denied"], told["queued"]) == (1, 1)
