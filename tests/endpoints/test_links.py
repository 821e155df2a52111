"""A link to the report opens the report alone, and ends by itself."""

import re
from collections.abc import Iterator
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.testclient import TestClient

from tests.endpoints.test_access import Clock, access
from tests.endpoints.test_tenants import FIRST, TENANTS
from tests.request.test_tenants import Platform
from tests.support.configs import REPORT_TOKEN


@pytest.fixture
def site() -> Iterator[Platform]:
    made = Platform(tenant=TENANTS.get)
    for key in TENANTS:
        made.client(key).get("/")
    yield made
    made.capi.close()


def link_of(client: TestClient, token: str, query: str = "") -> str:
    answer = client.get(f"/_capi/parity/link{query}", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    (address,) = re.findall(r"<code>(http[^<]+)</code>", answer.text)
    return unescape(address)


@pytest.mark.parametrize("form", ["parity", "parity.json", "parity.csv"])
def test_a_link_opens_the_report_without_a_login(site: Platform, form: str) -> None:
    client = site.client("first")
    parts = urlsplit(link_of(client, str(FIRST.report_token)))
    assert parts.path == "/_capi/parity"
    answer = client.get(f"/_capi/{form}?{parts.query}")
    assert answer.status_code == 200
    assert "1110001@first" in answer.text
    assert client.get(f"/_capi/{form}?{parts.query}x").status_code == 401


@pytest.mark.parametrize("form", ["parity/events", "parity/events.json", "parity/link", "metrics"])
def test_a_link_opens_nothing_else(site: Platform, form: str) -> None:
    client = site.client("first")
    query = urlsplit(link_of(client, str(FIRST.report_token))).query
    assert client.get(f"/_capi/{form}?{query}").status_code == 401


def test_a_link_to_one_tenants_report_is_none_to_anothers(site: Platform) -> None:
    client = site.client("first")
    query = urlsplit(link_of(client, REPORT_TOKEN, "?tenant=first")).query
    (link,) = parse_qs(query)["link"]
    assert client.get(f"/_capi/parity?{query}").status_code == 200
    for other in ("second", ""):
        asked = client.get("/_capi/parity", params={"link": link, "tenant": other})
        assert asked.status_code == 401


def test_what_a_link_shows_leads_on_with_the_link(site: Platform) -> None:
    client = site.client("first")
    query = urlsplit(link_of(client, str(FIRST.report_token))).query
    shown = client.get(f"/_capi/parity?{query}").text
    found = [unescape(one) for one in re.findall(r'href="(/_capi/parity[?./][^"]+)"', shown)]
    assert found
    assert all("link=" in one for one in found)
    assert "parity/events" not in shown


def test_a_time_that_cannot_be_shown_is_a_page_that_leads_back_with_the_link(
    site: Platform,
) -> None:
    client = site.client("first")
    query = urlsplit(link_of(client, str(FIRST.report_token))).query
    shown = client.get(f"/_capi/parity?{query}&from=soon&event=Lead")
    assert (shown.status_code, "This time cannot be shown." in shown.text) == (400, True)
    (back,) = [unescape(one) for one in re.findall(r'href="([^"]+)"', shown.text)]
    assert parse_qs(urlsplit(back).query) == {**parse_qs(query), "event": ["Lead"]}
    assert client.get(back).status_code == 200


def test_a_link_ends_after_its_days_and_with_its_token() -> None:
    clock = Clock()
    door = access(clock)
    link, until = door.link(3, None, None)
    assert until == clock.now + 3 * 86_400
    assert door.is_linked(link, None, None)
    assert not access(clock, report_token="another token of tests").is_linked(link, None, None)
    clock.now = until
    assert not door.is_linked(link, None, None)


@pytest.mark.parametrize("days", [10**6, 0, -5])
def test_no_link_works_for_longer_than_a_month(days: int) -> None:
    clock = Clock()
    _, until = access(clock).link(days, None, None)
    assert clock.now < until <= clock.now + 30 * 86_400


@pytest.mark.parametrize("link", ["", ".", "99999999999", "99999999999 .abc", "\ud800", "é" * 99])
def test_what_is_no_link_opens_nothing(link: str) -> None:
    assert not access().is_linked(link, None, None)
