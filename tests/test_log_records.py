"""Log records: each of ours carries its facts as fields, for handlers that write JSON."""

import ast
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import capi_middleware
from capi_middleware.delivery.courier import Courier
from capi_middleware.events import Count
from capi_middleware.meta.codes import Outcome
from capi_middleware.shield import Shield
from capi_middleware.testing import MemoryStore
from tests.delivery.test_delivery import Script
from tests.support.processes import until
from tests.support.stores import PIXEL, row, store_rows

PACKAGE = Path(capi_middleware.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


class JsonHandler(logging.Handler):
    """What hosts use: one JSON object for each record."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "capi", None)
        self.lines.append(json.dumps({"message": record.getMessage(), "capi": fields}))


@pytest.fixture
def log() -> Iterator[JsonHandler]:
    handler = JsonHandler()
    logger = logging.getLogger("capi_middleware")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_a_pixel_that_rests_is_told_in_fields(log: JsonHandler) -> None:
    store = MemoryStore()
    store_rows(store, row())
    Courier(store, PIXEL, lambda: Script(Outcome("throttled", "code 4", 90.0)))._round()
    assert json.loads(log.lines[0]) == {
        "message": f"pixel {PIXEL} rests for 90 s: code 4",
        "capi": {"action": "rest", "pixel_id": PIXEL, "reason": "code 4", "seconds": 90.0},
    }


def test_a_swallowed_error_is_told_by_type_and_place_without_its_words(
    log: JsonHandler, swallowed: list[BaseException]
) -> None:
    try:
        raise ValueError("jo@example.com")
    except ValueError as error:
        Shield(lambda counts: None).caught(error, "the consent rule")
    swallowed.clear()
    fields = json.loads(log.lines[0])["capi"]
    assert fields.pop("line").startswith(str(Path(__file__)))
    assert fields == {"action": "swallow", "where": "the consent rule", "error": "ValueError"}
    assert "example.com" not in log.lines[0]


def test_every_log_call_carries_fields() -> None:
    found = 0
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            named = isinstance(node.func.value, ast.Name) and node.func.value.id == "logger"
            if named and node.func.attr in LEVELS:
                found += 1
                keywords = [keyword.arg for keyword in node.keywords]
                assert "extra" in keywords, f"{path}:{node.lineno}"
    assert found >= 7


def test_the_shield_guards_what_is_inside_and_goes_on(
    log: JsonHandler, swallowed: list[BaseException]
) -> None:
    counted: list[Count] = []
    known: dict[str, str] = {}
    with Shield(counted.extend).guard("the moon"):
        known.pop("jo@example.com")
    assert counted == [Count("error", "the moon: KeyError")]
    assert json.loads(log.lines[0])["capi"]["where"] == "the moon"
    swallowed.clear()


def test_a_round_of_a_courier_that_fails_is_told_and_counted(
    log: JsonHandler, swallowed: list[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    monkeypatch.setattr(Courier, "_round", lambda self: 1 / 0)
    courier = Courier(store, PIXEL, Script)
    courier.start()
    until("it is told", lambda: bool(log.lines))
    courier.stop(5)
    store.flush(5)
    where = f"the courier of pixel {PIXEL}"
    assert json.loads(log.lines[0])["capi"]["where"] == where
    reasons = {one.reason for one in store.tallies(0, 1e12).counts}
    assert reasons == {f"{where}: ZeroDivisionError"}
    swallowed.clear()
