"""A tenant's report_token opens its own report; nobody sees that of another."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from capi_middleware import Pixel, Tenant
from capi_middleware.report.metrics import MOST, OTHER, read_metrics
from capi_middleware.report.window import parse_window
from capi_middleware.testing import MemoryStore
from tests.request.test_tenants import Platform
from tests.support.configs import REPORT_TOKEN, make_config
from tests.support.stores import row, store_rows

FIRST = Tenant("first", [Pixel("1110001", access_token="a")], report_token="token-of-the-first-one")
SECOND = Tenant(
    "second", [Pixel("2220002", access_token="b")], report_token="token-of-the-second-one"
)
BARE = Tenant("bare", [Pixel("3330003", access_token="c")])
TENANTS = {one.key: one for one in (FIRST, SECOND, BARE)}
FORMS = ("parity", "parity.json", "parity.csv", "parity/events", "parity/events.json", "metrics")


@pytest.fixture
def site() -> Iterator[Platform]:
    made = Platform(tenant=TENANTS.get)
    for key in TENANTS:
        made.client(key).get("/")
    yield made
    made.capi.close()


def asked(client: TestClient, form: str, token: str | None, query: str = "") -> tuple[int, str]:
    given = {} if token is None else {"authorization": f"Bearer {token}"}
    answer = client.get(f"/_capi/{form}{query}", headers=given)
    return answer.status_code, answer.text


@pytest.mark.parametrize("form", FORMS)
def test_a_tenants_token_opens_its_own_report_alone(site: Platform, form: str) -> None:
    status, text = asked(site.client("first"), form, FIRST.report_token)
    assert status == 200
    assert "1110001@first" in text
    assert "2220002" not in text
    assert "3330003" not in text


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("host", "query"),
    [
        ("second", ""), ("first", "?tenant=second"), ("nobody", ""), ("first", "?tenant="),
        ("first", "?tenant=nobody"), ("bare", ""), ("first", "?tenant=a%20b"),
    ],
)  # fmt: skip
def test_it_opens_nothing_else(site: Platform, form: str, host: str, query: str) -> None:
    status, text = asked(site.client(host), form, FIRST.report_token, query)
    assert status == 401
    assert "1110001" not in text + "2220002" not in text


@pytest.mark.parametrize("form", FORMS)
def test_the_sites_token_opens_all_and_each(site: Platform, form: str) -> None:
    status, text = asked(site.client("first"), form, REPORT_TOKEN, "?tenant=")
    assert status == 200
    assert all(one in text for one in ("1110001@first", "2220002@second", "3330003@bare"))
    status, text = asked(site.client("nobody"), form, REPORT_TOKEN, "?tenant=second")
    assert status == 200
    assert "2220002@second" in text
    assert "1110001" not in text


def test_what_counters_know_of_no_pixel_is_not_a_tenants(site: Platform) -> None:
    site.client("second").get("/", headers={"sec-gpc": "1"})
    _, text = asked(site.client("first"), "parity.json", FIRST.report_token)
    assert "gpc" not in text


def test_a_browser_logs_in_to_one_report(site: Platform) -> None:
    client = site.client("first")
    wrong = client.post("/_capi/parity", data={"token": SECOND.report_token})
    assert wrong.status_code == 403
    page = client.post("/_capi/parity", data={"token": FIRST.report_token})
    assert page.status_code == 200
    assert "1110001@first" in page.text
    assert client.get("/_capi/parity?tenant=second").status_code == 401
    assert client.get("/_capi/parity?tenant=").status_code == 401


@pytest.mark.parametrize(
    ("query", "hidden"), [("?tenant=second", "second"), ("?tenant=", ""), ("", None)]
)
def test_the_windows_form_asks_for_the_same_tenant_again(
    site: Platform, query: str, hidden: str | None
) -> None:
    _, text = asked(site.client("first"), "parity", REPORT_TOKEN, query)
    field = f'<input type="hidden" name="tenant" value="{hidden}">'
    assert (field in text) == (hidden is not None)
    for form in ("json", "csv"):
        assert (f"parity.{form}?tenant={hidden}" in text) == (hidden is not None)


def test_who_has_no_token_makes_us_ask_for_few_tenants() -> None:
    keys: list[str] = []
    site = Platform(tenant=keys.append)
    site.limit_strangers(3)
    client = site.client("first")
    for n in range(6):
        assert client.get(f"/_capi/parity.json?tenant=made-up-{n}").status_code == 401
    assert len(keys) == 3
    site.capi.close()


def test_without_a_token_of_the_site_a_tenants_own_still_opens_its_report() -> None:
    site = Platform(tenant=TENANTS.get, report_token=None)
    assert asked(site.client("first"), "parity.json", FIRST.report_token)[0] == 200
    assert asked(site.client("first"), "parity.json", None)[0] == 401
    assert asked(site.client("bare"), "parity.json", FIRST.report_token)[0] == 404
    assert asked(site.client("nobody"), "parity.json", FIRST.report_token)[0] == 404


def test_metrics_have_a_bounded_number_of_pixels() -> None:
    store = MemoryStore()
    store_rows(store, *(row(f"e{n}", pixel_id=f"1@t{n}") for n in range(MOST + 20)))
    text = read_metrics(store, make_config(), parse_window({}, 1.8e9))
    found = {line.split('pixel_id="')[1].split('"')[0] for line in text.splitlines()
             if 'pixel_id="' in line}  # fmt: skip
    assert len(found) == MOST + 1
    assert OTHER in found
