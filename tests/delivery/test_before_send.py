"""before_send: the host may change or stop each event just before it is sent to Meta."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import pytest

from capi_middleware import CAPI, Config, ConfigError, Event, Pixel, UserData
from capi_middleware.delivery import before_send
from capi_middleware.delivery.before_send import BeforeSend
from capi_middleware.delivery.courier import Courier
from capi_middleware.events import Count
from capi_middleware.meta.codes import Outcome
from capi_middleware.report.read import read_report
from capi_middleware.report.window import last_day
from capi_middleware.testing import FakeMeta, MemoryStore
from tests.delivery.test_delivery import Script
from tests.support.configs import PIXEL_ID, TOKEN, make_config
from tests.support.stores import NOON, PIXEL, Clock, row, store_rows

EM = sha256(b"jo@example.com").hexdigest()
PAYLOAD = json.dumps({
    "event_name": "Lead", "event_time": int(NOON), "event_id": "e1", "action_source": "website",
    "user_data": {"em": [EM], "client_user_agent": "x"}, "custom_data": {"value": 5.0,
    "currency": "EUR"}, "event_source_url": "https://shop.example/",
    "data_processing_options": ["LDU"], "data_processing_options_country": 0,
    "data_processing_options_state": 0,
}).encode()  # fmt: skip


class Sent(Script):
    """Delivers everything and keeps it as objects."""

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for batch in self.sent for payload in batch]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(clock=Clock())


def delivered(
    store: MemoryStore, asked: Callable[[Event], Any], *ids: str, client: Sent | None = None
) -> list[dict[str, Any]]:
    """What goes out for events with these ids."""
    client = client or Sent()
    for one in ids or ("e1",):
        payload = PAYLOAD.replace(b"e1", one.encode())
        store_rows(store, row(one, event_name="Lead", payload=payload))
    hook = BeforeSend(asked, PIXEL, "DE", store.count)
    Courier(store, PIXEL, lambda: client, before_send=hook)._round()
    return client.events


def counts(store: MemoryStore, kind: str) -> list[Count]:
    store.flush(10)
    return [one for one in store.tallies(0, float("inf")).counts if one.kind == kind]


def test_it_gets_the_event_as_it_is_stored_and_what_it_returns_unchanged_goes_out_the_same(
    store: MemoryStore,
) -> None:
    seen: list[Event] = []

    def asked(event: Event) -> Event:
        seen.append(event)
        return event

    assert delivered(store, asked) == [json.loads(PAYLOAD)]
    assert seen == [
        Event("e1", "Lead", NOON, (PIXEL,), {"value": 5.0, "currency": "EUR"},
              {"em": [EM], "client_user_agent": "x"},
              details={"action_source": "website", "event_source_url": "https://shop.example/"})
    ]  # fmt: skip


def test_what_it_changes_is_sent_and_the_rest_stays(store: MemoryStore) -> None:
    def asked(event: Event) -> Event:
        event.event_time -= 60
        event.custom_data["margin"] = 2.5
        event.user_data["external_id"] = [EM]
        return event

    [sent] = delivered(store, asked)
    assert sent == {
        **json.loads(PAYLOAD),
        "event_time": int(NOON) - 60,
        "custom_data": {"value": 5.0, "currency": "EUR", "margin": 2.5},
        "user_data": {"em": [EM], "client_user_agent": "x", "external_id": [EM]},
    }


def test_it_cannot_change_what_deduplicates(store: MemoryStore) -> None:
    other = Event("mine", "Purchase", NOON - 5, ("9",), {"value": 1, "currency": "EUR"},
                  {"em": [EM]})  # fmt: skip
    [sent] = delivered(store, lambda event: other)
    assert (sent["event_id"], sent["event_name"], sent["event_time"]) == ("e1", "Lead", NOON - 5)
    assert sent["custom_data"] == {"value": 1, "currency": "EUR"}


def test_raw_customer_information_is_hashed_and_what_is_unusable_left_out(
    store: MemoryStore,
) -> None:
    def asked(event: Event) -> Event:
        event.user_data |= {"em": "Jo@Example.com ", "ph": "030 123456", "shoe": "42", "db": "x"}
        event.custom_data["who"] = "jo@example.com"
        return event

    [sent] = delivered(store, asked)
    assert sent["user_data"] == {
        "em": [EM], "client_user_agent": "x", "ph": [sha256(b"4930123456").hexdigest()]
    }  # fmt: skip
    assert "who" not in sent["custom_data"]
    assert {one.reason for one in counts(store, "left_out")} == {
        "who", "user_data.shoe", "user_data.db"
    }  # fmt: skip


def test_none_stops_the_event_once_and_lets_the_others_go(store: MemoryStore) -> None:
    sent = delivered(store, lambda event: None if event.event_id == "e2" else event,
                     "e1", "e2", "e3")  # fmt: skip
    assert [one["event_id"] for one in sent] == ["e1", "e3"]
    assert store.depth() == {"delivered": 2, "stopped": 1}
    assert counts(store, "suppressed") == [Count("suppressed", "before_send", "Lead", PIXEL)]
    assert [one.reason for one in store.find(["e2"])] == ["before_send"]


def test_a_batch_of_which_all_is_stopped_is_no_request(store: MemoryStore) -> None:
    client = Sent()
    assert delivered(store, lambda event: None, "e1", "e2", client=client) == []
    assert (client.sent, store.depth()) == ([], {"stopped": 2})


def _raises(event: Event) -> Event:
    event.custom_data.clear()
    event.user_data.clear()
    raise KeyError


def _no_event(event: Event) -> object:
    return True


def _bad_time(event: Event) -> Event:
    event.event_time = "noon"  # type: ignore[assignment] # as a host may
    return event


def _bad_data(event: Event) -> Event:
    event.user_data = None  # type: ignore[assignment] # as a host may
    return event


@pytest.mark.parametrize("wrong", [_raises, _no_event, _bad_time, _bad_data])
def test_an_error_in_it_stops_nothing_and_the_event_goes_as_it_was(
    store: MemoryStore, wrong: Callable[[Event], Any]
) -> None:
    assert delivered(store, wrong, "e1") == [json.loads(PAYLOAD)]
    [error] = counts(store, "error")
    assert error.reason.startswith("the setting before_send: ")


def test_its_errors_are_all_counted_logged_once_a_minute_and_never_with_a_value(
    store: MemoryStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(event: Event) -> Event:
        raise ValueError("jo@example.com")

    caplog.set_level(logging.DEBUG)
    delivered(store, asked, *(f"e{n}" for n in range(20)))
    assert [one.n for one in counts(store, "error")] == [20]
    [record] = [one for one in caplog.records if "before_send" in one.getMessage()]
    assert "jo@" not in caplog.text
    assert record.capi["error"] == "ValueError"  # type: ignore[attr-defined]
    monkeypatch.setattr(before_send, "LOG_SECONDS", 0.0)
    caplog.clear()
    delivered(store, asked, "e20", "e21")
    assert len([one for one in caplog.records if "before_send" in one.getMessage()]) == 2


def test_it_is_asked_anew_when_an_event_is_sent_again_from_the_stored_event() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    values: list[float] = []

    def asked(event: Event) -> Event:
        values.append(event.custom_data["value"])
        event.custom_data["value"] += 1
        return event

    store_rows(store, row("e1", event_name="Lead", payload=PAYLOAD))
    client = Sent(Outcome("retry", "http 503"))
    courier = Courier(
        store, PIXEL, lambda: client, before_send=BeforeSend(asked, PIXEL, "DE", store.count)
    )
    courier._round()
    clock.now += 3600
    courier._round()
    assert values == [5, 5]
    assert [one["custom_data"]["value"] for one in client.events] == [6, 6]


@contextmanager
def site(fake: FakeMeta, asked: Callable[[Event], Any]) -> Iterator[CAPI]:
    pixels = [Pixel(PIXEL_ID, access_token=TOKEN), Pixel("99", access_token=TOKEN)]
    capi = CAPI(make_config(delivery=True, graph_url=fake.url, before_send=asked, pixels=pixels))
    yield capi
    capi.close()


def test_each_pixel_is_asked_for_itself_and_the_report_names_what_was_stopped(
    fake_meta: FakeMeta,
) -> None:
    def asked(event: Event) -> Event | None:
        return None if event.pixel_ids == ("99",) else event

    with site(fake_meta, asked) as capi:
        capi.track("Lead", user_data=UserData(em="jo@example.com"))
        assert capi.flush(20)
        window = last_day(capi.issuer.clock())
        report = read_report(capi.store, capi.config, window, delivering=True)
    assert [one.pixel_id for one in fake_meta.received.server] == [PIXEL_ID]
    told = {one.pixel_id: (one.unpaired, one.suppressed) for one in report.events}
    assert told == {PIXEL_ID: (1, {}), "99": (0, {"before_send": 1})}
    assert not {"delivery_dropped", "delivery_rejected"} & {one.code for one in report.flags}


async def _asynchronous(event: Event) -> Event:
    return event


@pytest.mark.parametrize("wrong", ["x", 7, _asynchronous], ids=["text", "number", "async"])
def test_a_before_send_that_cannot_work_is_refused_at_start_up(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"before_send.*a function that takes an Event"):
        make_config(before_send=wrong)


def test_it_costs_nothing_where_it_is_not_set() -> None:
    capi = CAPI(make_config(delivery=True))
    couriers = capi._deliverer._couriers.values()
    assert [courier._rounds._before_send for courier in couriers] == [None]
    assert Config.before_send is None
