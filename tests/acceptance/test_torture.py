"""The short form of `make torture`, and the checker that it trusts."""

import sys
from pathlib import Path
from typing import Any

import pytest

from capi_middleware.testing.received import ServerEvent
from tests.torture import served
from tests.torture.history import History, judge
from tests.torture.rounds import play


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_processes_on_one_file_lose_nothing(seed: int, tmp_path: Path) -> None:
    verdict = play(f"sqlite:///{tmp_path / 'capi.db'}", seed)
    assert verdict.holds, verdict
    assert verdict.accepted > 0


@pytest.mark.parametrize("seed", [4, 5])
def test_killed_processes_on_one_server_lose_nothing(seed: int, postgres_url: str) -> None:
    verdict = play(postgres_url, seed)
    assert verdict.holds, verdict
    assert verdict.accepted > 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says who the workers are")
@pytest.mark.parametrize("server", ["gunicorn sync", "uvicorn workers"])
def test_killed_servers_under_load_lose_nothing_and_answer_nobody_early(
    server: str, tmp_path: Path
) -> None:
    verdict = served.play(f"sqlite:///{tmp_path / 'capi.db'}", 6, server=server, kills=6)
    assert verdict.holds, verdict
    assert verdict.accepted > served.BACKLOG


def arrived(event_id: str, at: float = 100.0, **more: Any) -> ServerEvent:
    event = {"event_name": "Lead", "event_id": event_id, "event_time": 100, **more}
    return ServerEvent("1", event, at)


def history(*lines: str) -> History:
    made = History()
    made.hear(lines)
    return made


def test_the_checker_sees_what_is_lost() -> None:
    told = history("try a\n", "ok id-a a\n", "try b\n", "ok id-b b\n")
    assert judge(told, [arrived("id-a")]).lost == 1


def test_the_checker_sees_what_nobody_tracked() -> None:
    told = history("try a\n", "ok id-a a\n")
    assert judge(told, [arrived("id-a"), arrived("id-x")]).phantom == 1


def test_what_was_tried_and_not_answered_may_arrive_or_not() -> None:
    told = history("try a\n", "ok id-a a\n", "try b\n", "ok id-b")
    assert judge(told, [arrived("id-a")]).holds
    assert judge(told, [arrived("id-a"), arrived("id-b")]).holds


def test_the_checker_tells_duplicates_from_mutations() -> None:
    told = history("try a\n", "ok id-a a\n")
    same = judge(told, [arrived("id-a"), arrived("id-a")])
    assert (same.duplicates, same.mutated, same.holds) == (1, 0, True)
    assert judge(told, [arrived("id-a"), arrived("id-a", event_time=101)]).mutated == 1


def test_the_checker_sees_what_came_while_meta_wanted_rest() -> None:
    told = history("try a\n", "ok id-a a\n")
    assert judge(told, [arrived("id-a", at=105)], [(104, 106)]).early == 1
    assert judge(told, [arrived("id-a", at=105)], [(106, 108)]).holds


def test_the_checker_sees_what_is_too_old() -> None:
    told = history("try a\n", "ok id-a a\n")
    assert judge(told, [arrived("id-a", at=100 + 8 * 86_400)]).stale == 1


def test_the_checker_holds_an_answer_that_ended_early_against_us() -> None:
    told = history("try a\n", "ok id-a a\n")
    assert not judge(told, [arrived("id-a")], hasty=1).holds
