"""The command line, as its users start it: real processes, a real file, a fake Meta."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from capi_middleware import CAPI, Config, UserData
from capi_middleware.events import Row
from capi_middleware.store.records import Settlement
from capi_middleware.testing import FakeMeta
from tests.support.configs import PIXEL_ID, SECRET
from tests.support.processes import until
from tests.support.servers import serve

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def fake() -> FakeMeta:
    return FakeMeta()


@pytest.fixture
def folder(tmp_path: Path, fake: FakeMeta) -> Iterator[Path]:
    """A folder with a capi.toml and a store in it."""
    with serve(fake.app) as meta:
        text = f"""
            secret_key = "env:CAPI_SECRET_KEY"
            store = "sqlite:///{tmp_path / "capi.db"}"
            graph_url = "{meta}"
            delivery = false
            action_source = "system_generated"
            [[pixels]]
            id = "{PIXEL_ID}"
            access_token = "token"
        """
        (tmp_path / "capi.toml").write_text(text)
        (tmp_path / "shop.py").write_text(
            "from capi_middleware import CAPI, Config\nconfig = Config.load('capi.toml')\n"
            "capi = CAPI(config)\nnothing = 7\n"
        )
        yield tmp_path


ENVIRONMENT = {**os.environ, "CAPI_SECRET_KEY": SECRET, "COLUMNS": "200", "PYTHONDEVMODE": ""}
COMMAND = [sys.executable, "-m", "capi_middleware.cli"]


@pytest.fixture
def run(folder: Path) -> Run:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {**ENVIRONMENT, "PYTHONPATH": str(Path(__file__).parents[2])}
        return subprocess.run(
            [*COMMAND, *arguments], cwd=folder, env=environment, text=True, timeout=60,
            capture_output=True, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def capi(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CAPI]:
    monkeypatch.setenv("CAPI_SECRET_KEY", SECRET)
    capi = CAPI(Config.load(folder / "capi.toml"))
    yield capi
    capi.close()
    capi.store.close()


def lead(capi: CAPI) -> str:
    """Queue an event that Meta takes; its event_id."""
    return capi.track("Lead", user_data=UserData(em="jane@example.com")).event_id


def bury(capi: CAPI, *names: str) -> list[int]:
    """Dead letters of these event names; their keys."""
    for name in names:
        capi.track(name)
    lease = capi.store.lease(PIXEL_ID, limit=99, seconds=9)
    capi.store.settle(
        lease.lease_id, [Settlement(one.key, "dead", "code 100") for one in lease.events]
    )
    return [one.key for one in lease.events]


def test_deliver_once_delivers_what_waits_and_ends(run: Run, capi: CAPI, fake: FakeMeta) -> None:
    event_ids = {lead(capi) for _ in range(3)}
    done = run("deliver", "--once")
    assert (done.returncode, done.stdout) == (0, "")
    assert {one.event["event_id"] for one in fake.received.server} == event_ids
    assert capi.store.depth() == {"delivered": 3}


def test_deliver_once_says_by_its_exit_code_that_something_waits(
    run: Run, capi: CAPI, fake: FakeMeta
) -> None:
    fake.fail_next(401, {"error": {"message": "m", "type": "OAuthException", "code": 190}})
    lead(capi)
    done = run("deliver", "--once")
    assert done.returncode == 1
    assert "1 events wait" in done.stderr
    found = run("health")
    assert found.returncode == 1
    told = json.loads(found.stdout)
    assert told["flags"][0]["code"] == "pixel_paused"
    assert told["health"]["outbox"] == {"pending": 1}


def test_deliver_once_delivers_what_waits_for_tenants(
    run: Run, folder: Path, fake: FakeMeta
) -> None:
    toml = tomllib.loads((folder / "capi.toml").read_text())
    (folder / "platform_of_tests.py").write_text(
        "from capi_middleware import CAPI, Config, Pixel, Tenant, UserData\n"
        "def tenant(key): return Tenant(key, [Pixel('77', access_token='t')])\n"
        f"config = Config({SECRET!r}, [], tenant=tenant, store={toml['store']!r},\n"
        f"                graph_url={toml['graph_url']!r}, action_source='other', delivery=False)\n"
        "if __name__ == '__main__':\n"
        "    capi = CAPI(config)\n"
        "    capi.track('Lead', tenant='tea', user_data=UserData(em='jane@example.com'))\n"
        "    capi.close()\n"
    )
    command = [sys.executable, "platform_of_tests.py"]
    subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True, timeout=60)
    done = run("--config", "platform_of_tests:config", "deliver", "--once", "--json")
    assert json.loads(done.stdout) == {"waiting": 0}
    assert [one.pixel_id for one in fake.received.server] == ["77"]


def test_deliver_goes_on_until_it_is_told_to_stop(folder: Path, capi: CAPI, fake: FakeMeta) -> None:
    environment = {**ENVIRONMENT, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([*COMMAND, "deliver"], cwd=folder, env=environment)
    try:
        lead(capi)
        until("an event", lambda: len(fake.received.server) == 1)
        lead(capi)
        until("another", lambda: len(fake.received.server) == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert capi.store.depth() == {"delivered": 2}


def test_dead_letters_are_listed_and_shown_without_secrets(run: Run, capi: CAPI) -> None:
    first, second = bury(capi, "Lead", "Contact")
    told = [json.loads(line) for line in run("dead-letters", "list", "--json").stdout.splitlines()]
    assert [(one["key"], one["event_name"], one["reason"]) for one in told] == [
        (first, "Lead", "code 100"),
        (second, "Contact", "code 100"),
    ]
    assert "Contact" in run("dead-letters", "list").stdout
    shown = json.loads(run("dead-letters", "show", str(second)).stdout)
    assert shown["payload"]["event_name"] == "Contact"
    missing = run("dead-letters", "show", "999")
    assert (missing.returncode, "found no dead letter 999" in missing.stderr) == (1, True)


def test_dead_letters_are_requeued_and_dropped(run: Run, capi: CAPI) -> None:
    first, second, _ = bury(capi, "Lead", "Contact", "Donate")
    assert run("dead-letters", "requeue", str(first)).stdout == "1 requeued\n"
    assert run("dead-letters", "drop", str(second)).stdout == "1 dropped\n"
    assert run("dead-letters", "drop", "--all").stdout == "1 dropped\n"
    assert run("dead-letters", "drop").returncode == 2
    assert run("dead-letters", "drop", "1", "--all").returncode == 2
    assert capi.store.depth() == {"pending": 1, "dropped": 2}


def test_a_person_is_forgotten_by_what_meta_would_get_of_them(run: Run, capi: CAPI) -> None:
    lead(capi)  # of jane@example.com
    bury(capi)
    lead(capi)
    capi.track("Lead", user_data=UserData(external_id="Jane-7", fbp="fb.1.1700000000000.77"))
    capi.track("Lead", user_data=UserData(external_id="jane@example.com"))  # another's id
    capi.track("Lead", user_data=UserData(em="joe@example.com"))
    found = run("forget", "--em", " Jane@Example.com", "--json")
    assert json.loads(found.stdout) == {"waiting": 1, "dead_letters": 1, "being_sent": 0}
    found = run("forget", "--fbp", "fb.1.1700000000000.77", "--external-id", "nobody")
    assert found.stdout == "1 that waited and 0 dead letters forgotten\n"
    assert capi.store.depth() == {"pending": 2, "stopped": 3}
    assert run("forget").returncode == 2
    wrong = run("forget", "--em", "jane at example")
    assert (wrong.returncode, "jane" in wrong.stderr) == (2, False)


def test_forget_names_damaged_files_which_keep_what_they_held(run: Run, folder: Path) -> None:
    moved = folder / "capi.db.corrupt-1790000000"
    for ending in ("", "-wal", "-shm"):
        Path(f"{moved}{ending}").write_bytes(b"")
    done = run("forget", "--em", "jane@example.com")
    assert done.returncode == 1
    assert done.stderr.count(str(moved)) == 1
    assert done.stdout == "0 that waited and 0 dead letters forgotten\n"


@pytest.mark.parametrize("source", ["shop:config", "shop:capi"])
def test_the_configuration_may_be_in_a_module(run: Run, source: str) -> None:
    assert run("--config", source, "health").returncode == 0


@pytest.mark.parametrize(
    ("source", "text"),
    [("shop:nothing", "found a int"), ("shop:missing", "found no shop:missing"),
     ("other.toml", "other.toml: found no readable file")],
)  # fmt: skip
def test_a_configuration_that_is_none_is_one_clear_line(run: Run, source: str, text: str) -> None:
    done = run("--config", source, "health")
    assert done.returncode == 4
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_migrate_makes_the_store_and_says_what_is_in_it(run: Run, folder: Path) -> None:
    done = run("migrate")
    assert (done.returncode, done.stdout) == (0, "the store is up to date, 0 events\n")
    assert (folder / "capi.db").exists()


def test_prune_deletes_what_was_settled_and_is_old(run: Run, capi: CAPI) -> None:
    tenth_day = time.time() - 10 * 86_400
    future = capi.store.append(
        [Row(event_id="e1", event_name="Lead", pixel_id=PIXEL_ID, event_time=tenth_day,
             payload=b"{}", server="delivered")], wait=True,
    )  # fmt: skip
    assert future is not None
    future.result(9)
    assert run("prune").stdout == "0 events deleted\n"
    assert run("prune", "--days", "9").stdout == "1 events deleted\n"
    assert run("prune", "--days", "7").returncode == 2  # Meta may still want them


def test_a_courier_goes_on_while_its_database_is_away(tmp_path: Path) -> None:
    path = tmp_path / "capi.toml"
    path.write_text(
        f'secret_key = "{SECRET}"\nstore = "postgresql://u:p@127.0.0.1:1/x"\n'
        '[[pixels]]\nid = "1"\naccess_token = "t"\n'
    )
    command = [sys.executable, "-m", "capi_middleware.cli", "--config", str(path), "deliver"]
    courier = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert courier.stderr is not None
    assert "delivering to 1" in courier.stderr.readline()
    with pytest.raises(subprocess.TimeoutExpired):
        courier.wait(3)
    courier.terminate()
    assert courier.wait(20) == 0
    assert "Traceback" not in courier.stderr.read()
    courier.stderr.close()
