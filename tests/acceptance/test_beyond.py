"""Events beyond the page: the recipes against a strict Meta, and their place in the report."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from capi_middleware import CAPI, UserData, Visitor
from capi_middleware.events import Row
from capi_middleware.report.read import read_report
from capi_middleware.report.window import parse_window
from capi_middleware.testing import FakeMeta
from demo import beyond
from tests.support.configs import PIXEL_ID, make_config
from tests.support.stores import store_rows

MONEY: dict[str, Any] = {"value": Decimal("12.50"), "currency": "EUR"}


def ago(**much: float) -> datetime:
    return datetime.now(UTC) - timedelta(**much)


RECIPES: dict[str, Callable[[CAPI], Any]] = {
    "crm": lambda capi: beyond.lead_reached(
        capi, "QualifiedLead", lead_id=525_645_896_321_548, at=ago(days=2), crm="Our CRM"),
    "phone": lambda capi: beyond.sold_by_phone(
        capi, "call-1", at=ago(hours=9), phone="+4930123456", **MONEY),
    "store": lambda capi: beyond.sold_in_store(
        capi, "receipt-1", at=ago(days=60), card_email="jane@example.com", **MONEY),
    "message": lambda capi: beyond.sold_by_message(
        capi, "order-1", at=ago(minutes=5), account="123", click="ARAkLkA8rmlFeiCktEJQ", **MONEY),
    "renewal": lambda capi: beyond.renewed(
        capi, "invoice-1", at=ago(hours=1), customer="c-7", **MONEY),
}  # fmt: skip
SOURCES = {
    "crm": "system_generated", "phone": "phone_call", "store": "physical_store",
    "message": "business_messaging", "renewal": "system_generated",
}  # fmt: skip


@pytest.fixture
def capi(fake_meta: FakeMeta) -> Iterator[CAPI]:
    capi = CAPI(make_config(delivery=True, graph_url=fake_meta.url, action_source=None, debug=True))
    yield capi
    capi.close()


def report(capi: CAPI) -> Any:
    now = datetime.now(UTC).timestamp()
    return read_report(capi.store, capi.config, parse_window({"from": "2000-01-01"}, now))


@pytest.mark.parametrize("kind", RECIPES)
def test_a_recipe_reaches_meta_and_has_its_own_place_in_the_report(
    kind: str, capi: CAPI, fake_meta: FakeMeta
) -> None:
    RECIPES[kind](capi)
    again = RECIPES[kind](capi)  # a job that is started again
    assert capi.flush(20)
    (got,) = fake_meta.received.server
    assert got.event["action_source"] == SOURCES[kind]
    assert got.event["event_id"] == again.event_id
    (event,) = report(capi).events
    assert (event.unpaired, event.server, event.server_only) == (1, 0, 0)
    assert event.missing_browser == {}


def test_a_job_that_sends_renewals_raises_no_flag_and_leaves_the_verdict_alone(
    capi: CAPI, fake_meta: FakeMeta
) -> None:
    for n in range(50):
        beyond.renewed(capi, f"i{n}", at=ago(days=3), customer=f"c{n}", **MONEY)
    store_rows(capi.store, *(
        Row(f"e{n}", "Purchase", PIXEL_ID, ago(minutes=2).timestamp(), None, "delivered", "sent",
            1 | 4 | 8) for n in range(20)
    ))  # fmt: skip
    assert capi.flush(30)
    made = report(capi)
    (event,) = made.events
    assert (event.unpaired, event.server, event.matched, event.coverage) == (50, 20, 20, 1.0)
    assert [one for one in made.flags if one.event_name] == []
    assert "20 of 20 browser events" in made.verdict.sentence


def test_a_website_s_event_without_a_page_of_its_own_is_missed_as_before(capi: CAPI) -> None:
    who = capi.issuer.signed(
        Visitor(client_user_agent="Mozilla/5.0", event_source_url="https://shop.example/c")
    )
    capi.track("Lead", visitor=who, user_data=UserData(em="a@b.example"))
    capi.track("Lead", visitor=who, user_data=UserData(em="a@b.example"), send="server")
    assert capi.flush(20)
    (event,) = report(capi).events
    assert (event.unpaired, event.missing_browser) == (1, {"not_rendered": 1})


def test_a_page_that_comes_later_makes_a_pair_of_it_after_all(capi: CAPI) -> None:
    made = capi.track(
        "Lead", action_source="other", dedupe_key=7, user_data=UserData(em="a@b.example")
    )
    assert capi.flush(20)
    store_rows(capi.store, Row(made.event_id, "Lead", PIXEL_ID, made.event_time, None,
                               "pending", "not_run"))  # fmt: skip
    (event,) = report(capi).events
    assert (event.unpaired, event.server_only, event.missing_browser) == (0, 1, {"not_run": 1})


def test_a_test_event_code_ends_by_itself(fake_meta: FakeMeta) -> None:
    codes = []
    for until in (ago(hours=-1), ago(hours=1), None):
        capi = CAPI(make_config(delivery=True, graph_url=fake_meta.url, test_event_code="TEST1",
                                test_event_until=until))  # fmt: skip
        capi.track("Lead", user_data=UserData(em="a@b.example"))
        assert capi.flush(20)
        capi.close()
        codes.append(fake_meta.received.server[-1].test_event_code)
    assert codes == ["TEST1", None, "TEST1"]
    with pytest.raises(ValueError, match="test_event_until"):
        make_config(test_event_until="2030-01-01T10:00:00")
