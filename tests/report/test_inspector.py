"""The inspector: single events with both copies, found by name, event_id and order."""

import time
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from capi_middleware import CAPI, CAPIMiddleware, Pixel, UserData
from capi_middleware.events import Sighting
from capi_middleware.report.inspector import MOST_SHOWN, Sought, parse_sought, read_events
from capi_middleware.store.records import Settlement
from capi_middleware.testing import FakeMeta
from tests.support.configs import PIXEL_ID, REPORT_TOKEN, SECRET, make_config
from tests.support.servers import serve
from tests.support.stores import row, store_rows

BEARER = {"authorization": f"Bearer {REPORT_TOKEN}"}


@pytest.fixture(scope="module")
def meta() -> Iterator[tuple[FakeMeta, str]]:
    fake = FakeMeta()
    with serve(fake.app) as url:
        yield fake, url


@pytest.fixture
def capi(meta: tuple[FakeMeta, str]) -> Iterator[CAPI]:
    capi = CAPI(make_config(store="memory:", graph_url=meta[1], delivery=True))
    yield capi
    capi.close()


def client_of(capi: CAPI) -> TestClient:
    return TestClient(CAPIMiddleware(Starlette(), capi))


def purchase(capi: CAPI, order: str, name: str = "Purchase") -> str:
    event = capi.track(
        name, dedupe_key=order, value=9, currency="EUR",
        user_data=UserData(em="jane@example.com", ph="+4915112345678"),
        action_source="system_generated",
    )  # fmt: skip
    return event.event_id


def test_an_order_is_found_by_its_number_with_both_copies(capi: CAPI) -> None:
    event_id = purchase(capi, "A-1001")
    purchase(capi, "A-1002")
    assert capi.flush(60)
    capi.store.sight([Sighting(event_id, "Purchase", PIXEL_ID, "script_blocked")]).result(30)

    [found] = read_events(capi.store, capi.config, Sought(of="A-1001"))
    assert (found.event_id, found.event_name, found.pixel_id) == (event_id, "Purchase", PIXEL_ID)
    assert {"em", "ph"} <= set(found.match_keys)
    server, browser = found.server, found.browser
    assert (server.state, server.attempts, server.because) == ("delivered", 1, "")
    assert server.trace_id == "AFakeMetaTrace"
    assert server.at is not None
    assert (browser.state, browser.at is not None) == ("script_blocked", True)
    assert "ad blocker" in browser.because
    assert read_events(capi.store, capi.config, Sought(of=event_id)) == [found]


def test_an_order_with_an_event_of_the_sites_own_is_found_by_its_name_too(capi: CAPI) -> None:
    event_id = purchase(capi, "7", name="Renewal")
    capi.flush(60)
    assert read_events(capi.store, capi.config, Sought(of="7")) == []
    [found] = read_events(capi.store, capi.config, Sought("Renewal", "7"))
    assert found.event_id == event_id


def test_an_order_that_an_older_key_signed_is_found(capi: CAPI) -> None:
    event_id = purchase(capi, "old")
    capi.flush(60)
    keys = ["a-new-key-that-is-long-enough-for-all-its-uses", SECRET]
    newer = make_config(secret_key=keys, store="memory:", delivery=False)
    [found] = read_events(capi.store, newer, Sought(of="old"))
    assert found.event_id == event_id


def test_the_newest_fifty_are_shown_newest_first_and_by_name() -> None:
    capi = CAPI(make_config(store="memory:", delivery=False))
    at = time.time()
    store_rows(capi.store, *(
        row(f"e{n}", event_name="Lead" if n % 2 else "PageView", event_time=at + n)
        for n in range(60)
    ))  # fmt: skip
    newest = read_events(capi.store, capi.config, Sought())
    assert [one.event_id for one in newest] == [f"e{n}" for n in range(59, 9, -1)]
    assert len(newest) == MOST_SHOWN
    leads = read_events(capi.store, capi.config, Sought(event="Lead"))
    assert [one.event_id for one in leads] == [f"e{n}" for n in range(59, 0, -2)]


def test_what_meta_refused_says_its_code_its_meaning_and_metas_trace() -> None:
    capi = CAPI(make_config(store="memory:", delivery=False))
    store_rows(capi.store, row("e1", pixel_id=PIXEL_ID))
    leased = capi.store.lease(PIXEL_ID, limit=1, seconds=60)
    refused = Settlement(leased.events[0].key, "dead", "code 100/2804010", trace="Abc")
    capi.store.settle(leased.lease_id, [refused])

    [found] = read_events(capi.store, capi.config, Sought(of="e1"))
    assert (found.server.state, found.server.trace_id) == ("dead", "Abc")
    assert "no value" in found.server.because
    assert "code 100/2804010" in found.server.because
    assert found.server.fix


@pytest.mark.parametrize("given", ["x" * 5000, "\x00", "';--", "é" * 300, " "])
def test_any_text_may_be_asked_for(given: str) -> None:
    client = client_of(CAPI(make_config(store="memory:", delivery=False)))
    for name in ("event", "id"):
        answer = client.get("/_capi/parity/events", params={name: given}, headers=BEARER)
        assert answer.status_code == 200
    sought = parse_sought({"id": given})
    assert len(sought.of) <= 200
    assert not sought.of or sought.of.isprintable()


def test_the_page_and_its_json_show_the_same_and_nothing_personal(capi: CAPI) -> None:
    event_id = purchase(capi, "A-1001")
    capi.flush(60)
    client = client_of(capi)
    page = client.get("/_capi/parity/events", params={"id": "A-1001"}, headers=BEARER)
    data = client.get("/_capi/parity/events.json", params={"id": "A-1001"}, headers=BEARER)
    [told] = data.json()
    assert told["event_id"] == event_id
    for shown in (event_id, "delivered", "AFakeMetaTrace", "em, ", PIXEL_ID):
        assert shown in page.text
    hashed = UserData(em="jane@example.com").hashed(capi.config.default_region)[0]["em"][0]
    for text in (page.text, data.text):
        assert "jane" not in text
        assert hashed not in text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_the_page_calls_a_pixel_by_its_name_and_leads_back_to_the_events_of_the_report() -> None:
    named = Pixel(PIXEL_ID, "a-token", name="Main shop")
    capi = CAPI(make_config(store="memory:", delivery=False, pixels=[named]))
    store_rows(capi.store, row("e1", pixel_id=PIXEL_ID))
    page = client_of(capi).get("/_capi/parity/events", params={"event": "Purchase"}, headers=BEARER)
    assert f"<bdi>Main shop</bdi> (<bdi>{PIXEL_ID}</bdi>)" in page.text
    assert 'href="/_capi/parity?event=Purchase"' in page.text


@pytest.mark.parametrize("path", ["parity/events", "parity/events.json"])
def test_only_who_reads_the_report_sees_single_events(path: str) -> None:
    client = client_of(CAPI(make_config(store="memory:", delivery=False)))
    assert client.get(f"/_capi/{path}").status_code == 401
    wrong = client.get(f"/_capi/{path}", headers={"authorization": "Bearer wrong"})
    assert (wrong.status_code, "<details" in wrong.text) == (401, False)
    nobody = client_of(CAPI(make_config(store="memory:", delivery=False, report_token=None)))
    assert nobody.get(f"/_capi/{path}", headers=BEARER).status_code == 404


def test_the_keys_of_orders_are_nowhere_in_the_store(capi: CAPI) -> None:
    purchase(capi, "ORDER-4711")
    capi.flush(60)
    assert not any("ORDER-4711" in repr(one) for one in capi.store.recent(10))
