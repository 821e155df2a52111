"""Codes: one table says what Meta's answers mean, whoever asks."""

import pytest

from capi_middleware.meta.codes import (
    MEANINGS,
    MISSING_PERMISSION,
    judge,
    known,
    meaning_of,
    read_error,
)


@pytest.mark.parametrize("code", MEANINGS)
def test_every_code_of_the_table_has_a_meaning_and_a_fix(code: str) -> None:
    meaning, fix = meaning_of(f"code {code}")
    assert (meaning, fix) == (MEANINGS[code].meaning, MEANINGS[code].fix)
    assert meaning
    assert fix


def test_a_throttle_without_metas_words_is_told_as_a_throttle() -> None:
    outcome = judge(429, read_error("<html>"))
    assert (outcome.kind, outcome.reason) == ("throttled", "http 429")
    assert "throttles" in meaning_of(outcome.reason)[0]


@pytest.mark.parametrize("reason", ["http 502", "no receipt", "ReadTimeout", ""])
def test_a_fault_on_the_way_is_not_told_as_a_wrong_event(reason: str) -> None:
    assert "passing fault" in meaning_of(reason)[0]


def test_an_unknown_subcode_is_told_as_its_code_and_an_unknown_code_as_a_wrong_event() -> None:
    assert known("190/463") == known("190")
    assert known("100/9") == known("100") == known("77777")
    assert known("77777").kind == "event"


def test_a_version_that_meta_no_longer_serves_is_not_the_fault_of_an_event() -> None:
    outcome = judge(400, read_error({"error": {"code": 2635}}))
    assert outcome.kind == "access"
    assert "graph_version" in meaning_of(outcome.reason)[1]


def test_a_missing_permission_has_the_code_of_a_bad_parameter_and_is_told_by_its_message() -> None:
    error = read_error({"error": {"code": 100, "message": "(#100) Missing Permission"}})
    assert error.code == MISSING_PERMISSION
    assert judge(400, error).kind == "access"
    assert read_error({"error": {"code": 100, "message": "Invalid parameter"}}).code == "100"


@pytest.mark.parametrize("answer", [None, [], "x", {}, {"error": 1}, {"error": {"code": True}}])
def test_an_answer_of_any_other_shape_has_no_code(answer: object) -> None:
    assert read_error(answer).code == ""
