"""The report in real Chromium: on every screen, without scripts, and whatever its values hold."""

import csv
import io
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page
from starlette.applications import Starlette

from capi_middleware import CAPI, CAPIMiddleware
from capi_middleware.events import BETWEEN, Count, Row, Sighting
from capi_middleware.meta.match_keys import BITS
from capi_middleware.report.marks import remember
from capi_middleware.report.model import Mark
from capi_middleware.report.window import iso
from capi_middleware.store.records import Settlement
from tests.support.configs import PIXEL_ID, make_config
from tests.support.libraries import source_of
from tests.support.servers import serve
from tests.support.stores import store_rows

TOKEN = "a-token-of-the-report"
WIDTHS = [360, 768, 1280]

_SCRIPTS = [
    "<script>{}</script>", "<img src=x onerror={}>", "<svg onload={}>", "<svg/onload={}//",
    "\"><script>{}</script>", "'><script>{}</script>", "</script><script>{}</script>",
    "</style><script>{}</script>", "</title><script>{}</script>", "--><script>{}</script>",
    "</textarea><script>{}</script>", "</table><script>{}</script>", "<body onload={}>",
    "\" onmouseover={} x=\"", "' onfocus={} autofocus x='", "\" style=\"x:expression({})",
    "javascript:{}", "JaVaScRiPt:{}", "java\tscript:{}", "data:text/html,<script>{}</script>",
    "<iframe src=\"javascript:{}\">", "<iframe srcdoc=\"<script>{}</script>\">",
    "<object data=\"javascript:{}\">", "<embed src=\"javascript:{}\">",
    "<a href=\"javascript:{}\">x",
    "<details open ontoggle={}>", "<video><source onerror={}>", "<audio src=x onerror={}>",
    "<marquee onstart={}>", "<input autofocus onfocus={}>", "<select autofocus onfocus={}>",
    "<textarea autofocus onfocus={}>", "<keygen autofocus onfocus={}>",
    "<form action=javascript:{}>",
    "<button formaction=javascript:{}>x", "<math><mi xlink:href=\"javascript:{}\">x</mi></math>",
    "<svg><animate onbegin={} attributeName=x dur=1s>", "<svg><script>{}</script></svg>",
    "<link rel=stylesheet href=\"javascript:{}\">",
    "<meta http-equiv=refresh content=\"0;javascript:{}\">",
]  # fmt: skip
_WRAPS = ["{}", "{{{{{}}}}}", "{{% raw %}}{}", "&lt;{}&gt;", "\u202e{}"]
#: Two hundred values of an attacker; each would set window.hit.
PAYLOADS = [
    wrap.format(script.format("window.hit=1")) for wrap in _WRAPS for script in _SCRIPTS
]  # fmt: skip


@dataclass
class Reported:
    """A running app, its tracker, and where its report is."""

    capi: CAPI
    url: str

    def put(self, name: str, n: int, browser: str = "sent", *, page: str = "/", **row: Any) -> None:
        """`n` delivered events with this browser copy."""
        store = self.capi.store
        seen = [f"{name[:40]}-{browser}-{page[:40]}-{one}" for one in range(n)]
        segment = BETWEEN.join(("Chrome", "phone", "DE", "a.example"))
        given = {"segment": segment, "route": "GET /x", "match_keys": BITS["em"], **row}
        rows = [
            Row(
                event_id=event_id, event_name=name, pixel_id=PIXEL_ID,
                event_time=self.capi.issuer.clock() - 5, payload=b"{}", browser="not_run",
                page=page, **given,
            )
            for event_id in seen
        ]  # fmt: skip
        store.append(rows, wait=False)
        store.sight([Sighting(one, name, PIXEL_ID, browser) for one in seen])
        while (lease := store.lease(PIXEL_ID, limit=1000, seconds=20)).events:
            store.settle(lease.lease_id, [Settlement(one.key, "delivered") for one in lease.events])

    def get(self, name: str) -> httpx.Response:
        return httpx.get(f"{self.url}/_capi/{name}", headers={"authorization": f"Bearer {TOKEN}"})


@pytest.fixture
def reported() -> Iterator[Reported]:
    capi = CAPI(make_config(report_token=TOKEN))
    with serve(CAPIMiddleware(Starlette(), capi)) as url:
        yield Reported(capi, url)
    capi.close()


def log_in(page: Page, url: str, query: str = "") -> None:
    page.goto(f"{url}/_capi/parity")
    page.fill("input[name=token]", TOKEN)
    page.click("button")
    page.wait_for_selector("h1")
    page.goto(f"{url}/_capi/parity{query}")


def test_two_hundred_hostile_values_are_only_text(page: Page, reported: Reported) -> None:
    assert len(set(PAYLOADS)) == 200
    for payload in PAYLOADS:
        reported.capi.store.count(
            [
                Count("suppressed", payload, payload, PIXEL_ID),
                Count("unmapped", payload, "Lead", PIXEL_ID),
                Count("no_event_id", "", payload, PIXEL_ID),
                Count("rested", payload, "", payload),
            ]
        )
        segment = BETWEEN.join([payload.replace(BETWEEN, " ")] * 4)
        reported.put(payload, 1, page=payload, segment=segment, route=payload)
    log_in(page, reported.url)
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit") is None
    shown = page.inner_text("body")
    assert sum(payload.replace("\t", " ") in shown for payload in PAYLOADS) > 150
    for link in page.locator("a").evaluate_all("all => all.map(one => one.protocol)"):
        assert link == "http:"


def test_hostile_filters_are_only_text(page: Page, reported: Reported) -> None:
    log_in(page, reported.url)
    for payload in PAYLOADS[:40]:
        answer = page.goto(f"{reported.url}/_capi/parity?{httpx.QueryParams(event=payload)}")
        assert answer is not None
        assert answer.status == 200
    assert page.evaluate("window.hit") is None


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_the_screen_and_needs_no_script(
    browser: Browser, reported: Reported, width: int, scheme: Any
) -> None:
    reported.put("Purchase", 40)
    reported.put("An event with a very long name of its own that nobody should use" * 2, 9, "csp")
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=False
    )
    page = context.new_page()
    log_in(page, reported.url)
    shown = page.inner_text("body")
    assert "40 of 40 browser events are covered by the server" in shown
    context.close()
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    log_in(page, reported.url)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper, ink = (
        page.evaluate(f"getComputedStyle(document.body).{one}")
        for one in ("backgroundColor", "color")
    )
    assert (_light(paper) > _light(ink)) is (scheme == "light")
    context.close()


#: Each line of a page's text that is small or wider than the screen, and what is hard to hit.
UNREADABLE = """() => {
  const told = [], shown = one => one.getBoundingClientRect().height > 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; (text = walker.nextNode()); ) {
    const of = text.parentElement, svg = of.closest("svg");
    if (!text.data.trim() || !shown(of) || of.closest("script, style, title, datalist")) continue;
    const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
    const size = parseFloat(getComputedStyle(of).fontSize) * scale;
    if (size < (svg ? 12 : 14)) told.push(["small", text.data.trim(), size]);
    const range = document.createRange();
    range.selectNode(text);
    const box = range.getBoundingClientRect();
    const frame = (svg || document.body).getBoundingClientRect();
    if (!of.closest(".scroll") && (box.right > frame.right + 1 || box.left < frame.left - 1))
      told.push(["cut", text.data.trim(), box.left, box.right]);
  }
  for (const one of document.querySelectorAll("nav a, th a, li > a, summary, button, input")) {
    const box = one.getBoundingClientRect();
    if (shown(one) && Math.min(box.width, box.height) < 24) told.push(["tiny", one.textContent]);
  }
  return told;
}"""


@pytest.fixture
def silent(reported: Reported) -> Reported:
    """A shop with a pixel of a long name, many events and currencies, whose Purchases stopped."""
    now, many = time.time(), ["AddToCart", "InitiateCheckout", "PageView", "A form with a name" * 3]
    money = [("EUR", 123_456), ("JPY", 9_876_543), ("KWD", 1_234_567), ("USD", 99)]
    rows = [
        Row(f"{name}-{hour}-{at}", name, PIXEL_ID, now - hour * 3600, None,
            "delivered" if at else "dead", "sent", currency=currency, amount=amount,
            segment=BETWEEN.join((f"Chrome {at}", "phone", "DE", f"shop{at}." + "long" * 9)))
        for hour in range(24 * 15)
        for name in (["Purchase"] if hour > 30 else []) + many
        for at, (currency, amount) in enumerate(money)
    ]  # fmt: skip
    store_rows(reported.capi.store, *rows)
    remember(reported.capi.store, Mark(iso(now - 90_000), "release", "v2.14.1-hotfix.3"))
    return reported


def test_the_first_screen_says_healthy_or_not_since_when_how_much_and_what_next(
    browser: Browser, silent: Reported
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    log_in(page, silent.url)
    answers = {
        ".verdict.act >> text=Act now": 844,
        ".lists li:has-text('Purchase') >> text=None in this time.": 844,
        ".lists li:has-text('Purchase') >> text=JPY ": 844,
        ".next li:has-text('Events stopped') >> text=Purchase, since": 844,
        ".list.next": 800,
    }
    for width, height in ((1280, 800), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        for answer, least in answers.items():
            box = page.locator(answer).first.bounding_box()
            assert box is not None, answer
            assert box["y"] + box["height"] <= height or least > height, (width, answer, box)
    context.close()


def test_every_text_can_be_read_and_every_link_be_hit_on_each_screen(
    page: Page, silent: Reported
) -> None:
    log_in(page, silent.url)
    for path in ("?days=28", "/events"):
        page.goto(f"{silent.url}/_capi/parity{path}")
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        for width in (390, 768, 1280):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(UNREADABLE) == [], (path, width)


def _light(color: str) -> int:
    return sum(int(one) for one in re.findall(r"\d+", color)[:3])


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_no_violation(
    browser: Browser, reported: Reported, width: int, scheme: Any
) -> None:
    axe = source_of("axe-core", "4.10.3", "axe.min.js")
    for name in ("ViewContent", "Purchase"):
        reported.put(name, 30, currency="EUR", amount=1999)
        reported.put(name, 9, "csp")
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()
    log_in(page, reported.url)
    for path in ("", "/events"):
        page.goto(f"{reported.url}/_capi/parity{path}")
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate(axe)
        found = page.evaluate("axe.run()")["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
    context.close()


def test_times_are_the_visitors_own_and_utc_without_scripts(
    browser: Browser, reported: Reported
) -> None:
    reported.put("Purchase", 9)
    zones = []
    for scripts in (True, False):
        context = browser.new_context(timezone_id="Asia/Tokyo", java_script_enabled=scripts)
        page = context.new_page()
        log_in(page, reported.url)
        zones.append(page.inner_text("header .zone"))
        page.goto(f"{reported.url}/_capi/parity/events")
        zones.append(page.inner_text("header .zone"))
        assert (page.inner_text("summary time").count("-") == 2) is not scripts
        page.goto(f"{reported.url}/_capi/parity")
        utc = page.get_attribute("header time", "datetime") or ""
        shown = page.inner_text("header time")
        assert (shown == utc[:19].replace("T", " ")) is not scripts
        context.close()
    assert zones == ["Asia/Tokyo", "Asia/Tokyo", "UTC", "UTC"]


def test_the_exact_line_is_selected_by_its_button_and_stands_there_without_scripts(
    browser: Browser, page: Page, reported: Reported
) -> None:
    reported.put("Purchase", 40, "csp")
    log_in(page, reported.url)
    card = page.locator(".card", has_text="security policy stops the pixel")
    card.locator("summary").first.click()
    line = card.locator("pre").first
    card.locator(".copies").first.click()
    assert page.evaluate("getSelection().toString()").strip() == line.inner_text().strip()
    assert "https://connect.facebook.net" in line.inner_text()
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    log_in(plain, reported.url)
    card = plain.locator(".card", has_text="security policy stops the pixel")
    card.locator("summary").first.click()
    assert card.locator("pre").first.is_visible()
    assert not card.locator(".copies").first.is_visible()
    context.close()


def test_it_prints_on_two_pages(page: Page, reported: Reported) -> None:
    for name in ("ViewContent", "AddToCart", "InitiateCheckout", "Purchase", "Lead", "PageView"):
        reported.put(name, 30, currency="EUR", amount=1999)
        reported.put(name, 20, "csp")
    log_in(page, reported.url)
    assert len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4"))) <= 2


def test_an_event_is_one_click_away(page: Page, reported: Reported) -> None:
    reported.put("Purchase", 9, page="/thanks")
    reported.put("Lead", 9, page="/contact")
    log_in(page, reported.url)
    page.click("#numbers ~ .scroll a:has-text('Lead')")
    assert "only Lead" in page.inner_text("header")
    assert "/contact" in page.inner_html("main")
    assert "/thanks" not in page.inner_html("main")


def test_every_face_tells_the_same_numbers(page: Page, reported: Reported) -> None:
    reported.put("Purchase", 31)
    reported.put("Purchase", 7, "script_blocked")
    reported.put("Lead", 5, "left_early")
    data = json.loads(reported.get("parity.json").content)
    rows = list(csv.DictReader(io.StringIO(reported.get("parity.csv").text)))
    metrics = reported.get("metrics").text
    log_in(page, reported.url)
    shown = page.inner_text("main")
    assert [one["event_name"] for one in data["events"]] == ["Lead", "Purchase"]
    for one, row in zip(data["events"], rows, strict=True):
        for name in ("server", "browser", "matched"):
            assert row[name] == str(one[name])
            label = f'event_name="{one["event_name"]}",pixel_id="{PIXEL_ID}",copy="{name}"'
            (line,) = [
                each for each in metrics.splitlines()
                if each.startswith("capi_window_events") and label in each
            ]  # fmt: skip
            assert float(line.rpartition(" ")[2]) == one[name]
        for cause, n in one["missing_browser"].items():
            assert row[f"missing_browser: {cause}"] == str(n)
        assert f"{one['matched']:,} of {one['browser']:,}" in shown or not one["browser"]
