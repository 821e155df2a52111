"""The empty report is a list of first steps that ticks itself, each open one with its fix."""

import json
import re
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse

from capi_middleware import EventRoute
from capi_middleware.events import Count
from capi_middleware.report.html import to_html
from capi_middleware.report.model import FirstStep, Health, PixelHealth
from capi_middleware.report.read import build
from capi_middleware.report.window import Window
from capi_middleware.store.records import Settlement, Tallies, Tally
from tests.report.test_report import Page
from tests.request.test_events import Site
from tests.support.configs import PIXEL_ID
from tests.support.tallies import END, START, tally

REPORT = {"authorization": "Bearer the-report-token"}
PAGE = "<!doctype html><html><head><title>x</title></head><body>hi</body></html>"


def steps(
    *rows: Tally, counts: tuple[Count, ...] = (), age: float | None = None,
    health: Health | None = None,
) -> dict[str, FirstStep]:  # fmt: skip
    begun = None if age is None else END - age
    found = build(
        Tallies(rows, [], counts), Window(START, END), now=END, begun=begun, health=health
    )
    return {one.step: one for one in found.checklist}


def done(*rows: Tally, counts: tuple[Count, ...] = ()) -> set[str]:
    return {word for word, one in steps(*rows, counts=counts, age=5).items() if one.done}


def test_an_empty_report_begins_with_the_first_step_and_its_fix() -> None:
    found = steps()
    assert list(found) == ["tag", "script", "beacon", "meta", "match"]
    assert not any(one.done for one in found.values())
    assert [one.step for one in found.values() if one.fix] == ["tag"]
    assert "capi-middleware check" in found["tag"].line


@pytest.mark.parametrize(
    ("row", "ticked"),
    [
        (tally("pending", "not_rendered"), set()),
        (tally("pending", "encoded"), set()),
        (tally("pending", "not_run"), {"tag"}),
        (tally("pending", "script_blocked"), {"tag", "script", "beacon"}),
        (tally("unmapped", "sent"), {"tag", "script", "beacon"}),
        (tally("delivered", "not_run"), {"tag", "meta"}),
    ],
)
def test_each_step_ticks_by_what_happened(row: Tally, ticked: set[str]) -> None:
    assert done(row) == ticked


def test_a_script_that_was_loaded_ticks_without_a_beacon() -> None:
    assert done(tally("pending", "not_run"), counts=(Count("script", ""),)) == {"tag", "script"}


def test_a_step_shows_its_fix_when_it_stays_open_for_more_than_a_minute() -> None:
    row = tally("pending", "not_run")
    assert steps(row, age=59)["beacon"].fix == ""
    late = steps(row, age=61)
    assert all(late[word].fix for word in ("script", "beacon", "meta", "match"))
    assert late["tag"].fix == ""  # it is done


def test_the_fix_is_of_the_reason_that_is_known() -> None:
    counts = (Count("skipped", "encoded"),)
    kept_out = steps(tally("pending", "encoded"), counts=counts, age=99)
    assert "compressor" in kept_out["tag"].fix
    blocked = steps(tally("delivered", "script_blocked"), age=99)
    assert "without an ad blocker" in blocked["match"].fix
    forbidden = steps(tally("delivered", "csp"), age=99)
    assert "script-src" in forbidden["match"].line
    paused = PixelHealth(
        pixel_id="123", waiting=1, oldest_seconds=70.0, paused_until="2026-06-08T00:00:00Z",
        paused_because="190", token_refused=True,
    )  # fmt: skip
    health = Health(outbox={}, pixels=[paused], delivering=True)
    refused = steps(tally("pending", "not_run"), age=99, health=health)
    assert "new access token" in refused["meta"].fix


def test_a_match_and_many_events_need_no_list() -> None:
    assert steps(tally("delivered", "sent"), age=5) == {}
    assert steps(tally("delivered", "not_run", 101), age=5) == {}


def test_the_page_shows_the_list_and_its_links_lead_somewhere() -> None:
    for rows in ([], [tally("delivered", "sent", 9)]):
        report = build(Tallies(rows, [], []), Window(START, END))
        page = Page(to_html(report, path="/p", query="", nonce="n"))
        ids = {attributes.get("id") for _, attributes in page.tags}
        inner = {str(one["href"])[1:] for one in page.all("a") if str(one["href"])[0] == "#"}
        assert inner <= ids
        assert ("A page went out with the pixel" in page.text) is not bool(rows)


def test_a_first_visit_ticks_the_steps_one_after_the_other() -> None:
    async def view(request: Request) -> HTMLResponse:
        return HTMLResponse(PAGE)

    site = Site(view, routes=[EventRoute("GET /thanks", "Lead")], page_view=False)

    def ticked() -> set[str]:
        answer = site.client.get("/_capi/parity.json", headers=REPORT)
        return {one["step"] for one in answer.json()["checklist"] if one["done"]}

    empty = site.client.get("/_capi/parity", headers=REPORT)
    assert empty.headers["refresh"] == "10"
    assert ticked() == set()
    text = site.client.get("/thanks").text
    assert ticked() == {"tag"}
    site.client.get(re.search(r'src="(/_capi/s.js[^"]*)"', text)[1])  # type: ignore[index]
    assert ticked() == {"tag", "script"}
    block: Any = json.loads(text.rsplit("data-c>")[-1].split("</script>")[0])
    event = block["e"][0]
    beacon = {"e": [[event["i"], "Lead", PIXEL_ID, "sent"]], "k": block["k"]}
    assert site.client.post("/_capi/b", content=json.dumps(beacon)).status_code == 204
    assert ticked() == {"tag", "script", "beacon"}
    lease = site.capi.store.lease(PIXEL_ID, limit=9, seconds=60)
    settled = [Settlement(one.key, "delivered") for one in lease.events]
    site.capi.store.settle(lease.lease_id, settled)
    assert site.client.get("/_capi/parity.json", headers=REPORT).json()["checklist"] == []
    assert "refresh" not in site.client.get("/_capi/parity", headers=REPORT).headers
