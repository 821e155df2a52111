"""Codes: one table says what Meta's answers mean, whoever asks."""

import json
from typing import Any

import pytest

from capi_middleware.meta.codes import (
    INVALID_PROOF,
    MEANINGS,
    MISSING_PERMISSION,
    Outcome,
    judge,
    known,
    meaning_of,
    read_error,
    trace_in,
)


@pytest.mark.parametrize("code", MEANINGS)
def test_every_code_of_the_table_has_a_meaning_and_a_fix(code: str) -> None:
    meaning, fix = meaning_of(code if code[0].isalpha() else f"code {code}")
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


def test_an_unknown_subcode_is_told_as_its_code_and_an_unknown_code_as_nobodys_fault_yet() -> None:
    assert known("190/999") == known("190")
    assert known("100/9") == known("100") == known("77777")
    assert known("77777").kind == "unsure"
    assert known("100/2804999").kind == "event"


def outcome(status: int, **error: object) -> Outcome:
    return judge(status, read_error({"error": error}))


@pytest.mark.parametrize(
    "code", [3, 5, 6, 7, 8, 10, 11, 12, 21, 101, 102, 104, 110, 190, 200, 237, 299, 452, 458, 459,
             460, 463, 464, 467, 803, 2500, 2635]
)  # fmt: skip
def test_what_is_wrong_with_all_requests_is_no_events_fault(code: int) -> None:
    assert outcome(400, code=code).kind == "access"
    assert outcome(400, code=code, error_subcode=999).kind == "access"


@pytest.mark.parametrize(
    "code", [4, 9, 17, 32, 341, 368, 613, 80000, 80004, 80014, 80015, 80023, 80999]
)
def test_a_throttle_is_one_whatever_its_status(code: int) -> None:
    for status in (400, 403, 429, 500):
        assert outcome(status, code=code).kind == "throttled"


@pytest.mark.parametrize(
    "code", [0, 13, 100, 300, 506, 960, 21009, 1487390, 77777, 8000, 800000, -1]
)
def test_a_code_that_nobody_knows_may_be_the_requests_fault(code: int) -> None:
    assert outcome(400, code=code).kind == "unsure"
    assert outcome(400, code=code, is_transient=True).kind == "retry"


@pytest.mark.parametrize(
    "error",
    [
        {"error_subcode": 2804003},
        {"error_subcode": 2804999},
        {"error_data": {"blame_field_specs": [["event_time"]]}},
        {"error_data": json.dumps({"blame_field_specs": [["data", 3, "user_data", "em"]]}),
         "error_subcode": 7},
        {"error_data": {"blame_field_specs": [["opt_out"]]}, "message": "no permission to opt out"},
    ],
)  # fmt: skip
def test_a_subcode_of_events_or_a_field_of_an_event_is_its_fault(error: dict[str, Any]) -> None:
    assert outcome(400, code=100, **error).kind == "invalid"


@pytest.mark.parametrize("specs", [[["access_token"]], [["data"]], [["test_event_code"]], []])
def test_a_field_of_the_request_is_no_events_fault(specs: list[Any]) -> None:
    assert outcome(400, code=100, error_data={"blame_field_specs": specs}).kind == "unsure"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("(#100) Missing Permission", MISSING_PERMISSION),
        ("(#100) Missing permissions", MISSING_PERMISSION),
        ("Object does not exist, cannot be loaded due to missing permissions", MISSING_PERMISSION),
        ("You are not permitted to use this dataset", MISSING_PERMISSION),
        ("Unauthorised: the app may not post here", MISSING_PERMISSION),
        ("Invalid appsecret_proof provided in the API argument", INVALID_PROOF),
        ("API calls from the server require an appsecret_proof argument", INVALID_PROOF),
        ("Invalid parameter", "100"),
    ],
)
def test_what_an_invalid_parameter_is_about_is_read_from_its_words(message: str, code: str) -> None:
    for subcode in (0, 1234567):
        given = {"code": 100, "error_subcode": subcode, "message": message}
        told = read_error({"error": given}).code
        assert told == code or (code == "100" and told == "100/1234567")


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 403, 404, 405, 407, 451])
def test_a_page_of_a_proxy_rests_the_pixel_and_is_certain(status: int) -> None:
    blocked = judge(status, read_error(None))
    assert blocked == Outcome("blocked", f"http {status}")
    assert "passing fault" not in meaning_of(blocked.reason)[0]


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504, 520])
def test_a_page_about_a_passing_fault_is_one(status: int) -> None:
    assert judge(status, read_error(None)) == Outcome("retry", f"http {status}", uncertain=True)


def test_a_body_that_is_too_large_is_told_so() -> None:
    assert judge(413, read_error(None)) == Outcome("large", "http 413")
    assert "of this size" in meaning_of("http 413")[0]


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


@pytest.mark.parametrize(
    ("answer", "trace"),
    [
        ({"events_received": 1, "fbtrace_id": "AbC-_9"}, "AbC-_9"),
        ({"error": {"code": 100, "fbtrace_id": "Zz1"}}, "Zz1"),
        ({"error": "no", "fbtrace_id": "Zz1"}, "Zz1"),
        ({"fbtrace_id": "jane@example.com"}, ""),
        ({"fbtrace_id": "a" * 41}, ""),
        ({"fbtrace_id": 7}, ""),
        ({"error": {}}, ""),
        ([], ""),
        (None, ""),
    ],
)
def test_metas_id_of_a_request_is_read_from_answers_of_any_shape(
    answer: object, trace: str
) -> None:
    assert trace_in(answer) == trace
