"""The first screen: what Meta got of each event and of the money, and since when it is so."""

import random
import re
from collections import Counter
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from capi_middleware import Pixel
from capi_middleware.events import SENT, Row, ServerState
from capi_middleware.report.glance import same_since
from capi_middleware.report.html import to_html
from capi_middleware.report.marks import remember
from capi_middleware.report.model import Glance, Mark, Report
from capi_middleware.report.numbers import fate
from capi_middleware.report.read import read_report
from capi_middleware.report.window import Window, compared, iso, last_day, parse_window
from capi_middleware.store.records import Slice
from capi_middleware.testing import MemoryStore
from tests.support.configs import PIXEL_ID, make_config
from tests.support.stores import store_rows

DAY = 86400
SERVERS = ["delivered", "delivered", "pending", "dead", "expired", "invalid", "unmapped", "consent"]
BROWSERS = [SENT, SENT, "csp", "not_run", "unpaired", "consent"]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> float:
    noon = 1_790_000_000.0 // DAY * DAY + 43_200
    monkeypatch.setattr("capi_middleware.report.read.time", lambda: noon)
    return noon


def some_rows(now: float, n: int, seed: int) -> list[Row]:
    choice, rows = random.Random(seed).choice, []
    for at in range(n):
        server: Any = choice(SERVERS)
        name, money = choice(
            [("Purchase", ("EUR", 4999)), ("Purchase", ("JPY", 1200)), ("Lead", ("EUR", 10)),
             ("AddToCart", ("KWD", 1250)), ("PageView", ("", 0)), ("Search", ("", 0))]
        )  # fmt: skip
        rows.append(
            Row(
                event_id=f"e{at}", event_name=name, pixel_id=choice([PIXEL_ID, "2"]),
                event_time=now - choice([60, 7200, 80_000, 100_000, 500_000, 700_000]),
                payload=b"{}" if server == "pending" else None, server=server,
                browser=choice(BROWSERS), currency=money[0], amount=money[1], match_keys=3,
            )
        )  # fmt: skip
    return rows


def read(now: float, *rows: Row, query: dict[str, str] | None = None) -> Report:
    store = MemoryStore(clock=lambda: now)
    store_rows(store, *rows)
    config = make_config()
    return read_report(store, config, parse_window(query or {}, now))


def glanced(found: Report) -> tuple[Glance, Glance]:
    assert found.now is not None
    assert found.before is not None
    return found.now, found.before


def by_hand(row: Row) -> str:
    """What became of one event, without the code that is tested."""
    if row.server == "delivered":
        return {SENT: "both", "unpaired": "unpaired"}.get(row.browser, "server_only")
    if row.browser == SENT:
        return "browser_only"
    if row.server == "pending":
        return "pending"
    on_purpose = row.server == "consent" or (row.server, row.browser) == ("unmapped", "consent")
    return "" if on_purpose else "neither"


@pytest.mark.parametrize("query", [{}, {"from": "2026-09-18", "to": "2026-09-21T08:00:00Z"}])
@pytest.mark.parametrize("seed", [1, 2])
def test_every_number_of_the_first_screen_can_be_recomputed_from_the_rows(
    now: float, seed: int, query: dict[str, str]
) -> None:
    rows = some_rows(now, 900, seed)
    windows = compared(parse_window(query, now), now)
    for told, window in zip(glanced(read(now, *rows, query=query)), windows, strict=True):
        inside = [one for one in rows if window.start <= one.event_time < window.end]
        assert inside
        n: Counter[tuple[str, ...]] = Counter()
        worth: Counter[tuple[str, ...]] = Counter()
        for row in inside:
            if what := by_hand(row):
                n[row.event_name, row.pixel_id, what] += 1
                worth[row.event_name, row.pixel_id, row.currency, what] += row.amount
        names = {"both": "matched", "neither": "lost"}
        seen = {
            (one.event_name, one.pixel_id, what): getattr(one, names.get(what, what))
            for one in told.outcomes
            for what in ("both", "server_only", "browser_only", "neither", "pending", "unpaired")
            if what != "pending"
        }
        assert {key: found for key, found in seen.items() if found} == {
            key: found for key, found in n.items() if key[2] != "pending"
        }
        assert {
            (one.event_name, one.pixel_id, money.currency, what): getattr(money, what)
            for one in told.outcomes
            for money in one.money
            for what in ("both", "server_only", "browser_only", "neither", "pending", "unpaired")
            if getattr(money, what)
        } == {key: found for key, found in worth.items() if found}
        waiting = sum(one.pending for one in told.outcomes)
        assert waiting == sum(row.server == "pending" for row in inside)


def test_conversions_come_first_and_page_views_last(now: float) -> None:
    (told, _) = glanced(read(now, *some_rows(now, 600, 3)))
    names = list(dict.fromkeys(one.event_name for one in told.outcomes))
    assert names == ["Purchase", "AddToCart", "Lead", "Search", "PageView"] or names == [
        "Purchase", "Lead", "AddToCart", "Search", "PageView"
    ]  # fmt: skip


def test_what_came_no_more_stands_first_beside_what_it_was_worth(now: float) -> None:
    def each_hour(name: str, hours: range, **more: Any) -> list[Row]:
        return [Row(f"{name}{hour}", name, PIXEL_ID, now - hour * 3600, None, "delivered", SENT,
                    **more) for hour in hours]  # fmt: skip

    rows = [
        *each_hour("ViewContent", range(190), currency="EUR", amount=9999),
        *each_hour("Purchase", range(30, 190), currency="EUR", amount=1000),
        *each_hour("Lead", range(30, 190)),
        *each_hour("Contact", range(30, 60)),
    ]
    found = read(now, *rows)
    (told, _) = glanced(found)
    counts = [(one.event_name, one.matched) for one in told.outcomes]
    # Contact came 30 times in the week before: none in a day may be chance.
    assert counts == [("Purchase", 0), ("Lead", 0), ("ViewContent", 25)]
    page = to_html(found, path="/_capi/parity", query="", nonce="n")
    assert "None in this time.</strong> <span>The 7 days before: 160, EUR 1,600.00." in page


def test_what_to_do_next_says_of_which_events_and_since_when(now: float) -> None:
    rows = [
        Row(f"{name}{hour}-{at}", name, PIXEL_ID, now - hour * 3600, None, "delivered", SENT)
        for hour in range(24 * 28)
        for at in range(3)
        for name in ("Purchase", "PageView")
        if name == "PageView" or hour >= 30
    ]
    found = read(now, *rows)
    stopped = next(one for one in glanced(found)[0].next if one.cause == "sudden_drop")
    assert stopped.since == iso((now // 3600 - 29) * 3600)
    assert [one.event_name for one in stopped.about] == ["Purchase"]
    page = to_html(found, path="/_capi/parity", query="", nonce="n")
    assert f'<bdi>Purchase</bdi>, since <time datetime="{stopped.since}">' in page


def test_of_many_events_with_one_cause_the_page_shows_five_and_hides_none(now: float) -> None:
    names = [f"Form{at}" for at in range(9)]
    rows = [Row(f"{name}{at}", name, PIXEL_ID, now - 60, None, "dead", SENT)
            for name in names for at in range(30)]  # fmt: skip
    page = to_html(read(now, *rows), path="/_capi/parity", query="", nonce="n")
    card = page[page.index('id="cause-1"') :].partition("For the developer")[0]
    assert "<summary>4 more</summary>" in card
    assert all(f"<bdi>{name}</bdi>" in card for name in names)


def test_the_last_day_stands_beside_the_week_before_and_a_chosen_window_beside_its_like() -> None:
    now = 1_790_000_000.0
    first, second = compared(parse_window({"pixel": "1"}, now), now)
    assert (first.start, first.end) == (last_day(now).start, last_day(now).end)
    assert (second.end, second.end - second.start) == (first.start, 7 * DAY)
    assert {first.pixel, second.pixel} == {"1"}
    chosen = Window(3600.0 * 100, 3600.0 * 130)
    assert compared(chosen, now) == (chosen, Window(3600.0 * 70, 3600.0 * 100))


def slices(days: list[tuple[int, int]], end: float) -> list[Slice]:
    """Matched and browser-only events of the days before `end`, the last first."""
    return [
        Slice(str(int(end - day * DAY - 3600)), "1", "Lead", server, SENT, n)
        for day, both in enumerate(days)
        for server, n in zip(("delivered", "dead"), both, strict=True)
    ]


@pytest.mark.parametrize(
    ("days", "since"),
    [
        ([(9, 1), (8, 2), (1, 9)], 2),
        ([(1, 9), (0, 9), (9, 1), (0, 9)], 2),
        ([(9, 1), (1, 0), (9, 1)], 3),
        ([(1, 0), (9, 1)], None),
        ([], None),
    ],
)
def test_since_when_it_is_so_is_told_by_days(
    days: list[tuple[int, int]], since: int | None
) -> None:
    end = 1_790_000_000.0 // 3600 * 3600
    wanted = None if since is None else end - since * DAY
    assert same_since(slices(days, end), end, 0.75) == wanted


def test_the_page_shows_amounts_as_their_currency_writes_them(now: float) -> None:
    sold = [("EUR", 1_234_567), ("JPY", 1_234_567), ("KWD", 1_234_567)]
    rows = [
        Row(f"e{at}", "Purchase", PIXEL_ID, now - 60, None, "delivered", SENT, currency=currency,
            amount=amount)
        for at, (currency, amount) in enumerate(sold)
    ]  # fmt: skip
    rows.append(Row("lost", "Purchase", PIXEL_ID, now - 60, None, "dead", "csp", currency="EUR",
                    amount=5))  # fmt: skip
    page = to_html(read(now, *rows), path="/_capi/parity", query="", nonce="n")
    for text in ("EUR 12,345.67", "JPY 1,234,567<", "KWD 1,234.567", "0.05 from none"):
        assert text in page
    assert "<title>3 matched</title>" in page


def test_what_to_do_next_is_three_things_at_most_and_none_that_wants_nothing(now: float) -> None:
    causes: dict[str, ServerState] = {
        "Purchase": "dead", "Lead": "expired", "AddToCart": "unmapped", "Search": "invalid",
    }  # fmt: skip
    rows = [
        Row(f"{name}{at}", name, PIXEL_ID, now - 60, None, server, SENT)
        for at in range(30)
        for name, server in causes.items()
    ]
    (told, _) = glanced(read(now, *rows))
    assert len(told.next) == 3
    assert "info" not in {one.severity for one in told.next}
    assert len({one.title for one in told.next}) == 3


def test_what_nobody_wanted_is_not_lost() -> None:
    unwanted = [("consent", "csp"), ("bot", "not_run"), ("stopped", "not_run"),
                ("unmapped", "consent"), ("unknown", "replay")]  # fmt: skip
    assert {fate(Slice("", "1", "Lead", *one, 1)) for one in unwanted} == {""}


def shown(now: float, query: str, *rows: Row, **config: Any) -> str:
    store = MemoryStore(clock=lambda: now)
    store_rows(store, *rows)
    remember(store, Mark("2026-09-20T08:00:00Z", "release", "v7"))
    params = dict(parse_qsl(query))
    made = read_report(store, make_config(**config), parse_window(params, now))
    return to_html(made, path="/_capi/parity", query=query, nonce="n")


SOLD = Row("e1", "Purchase", PIXEL_ID, 1_789_991_940.0, None, "delivered", SENT)


@pytest.mark.parametrize(
    ("query", "current"), [("", "7 days"), ("days=1", "24 hours"), ("days=28", "28 days")]
)
def test_the_time_that_is_shown_is_marked_among_those_to_choose(
    now: float, query: str, current: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capi_middleware.report.html.time", lambda: now)
    page = shown(now, query, SOLD)
    assert re.findall(r'aria-current="true">([^<]+)<', page) == [current]


def test_a_pixel_is_called_by_its_name_wherever_it_is_named(now: float) -> None:
    named = Pixel(PIXEL_ID, "token", name="Main shop")
    page = shown(now, "", SOLD, *some_rows(now, 200, 4), pixels=[named])
    assert f"pixel <bdi>{PIXEL_ID}" not in page
    assert page.count("Main shop") > 5


def test_a_release_leads_to_the_time_since_beside_as_long_before(now: float) -> None:
    page = shown(now, "event=Purchase", SOLD, *some_rows(now, 200, 4))
    assert 'href="/_capi/parity?event=Purchase&amp;from=2026-09-20T08%3A00%3A00Z"' in page


def test_one_event_is_neither_judged_nor_called_done(now: float) -> None:
    page = shown(now, "", SOLD)
    assert "<p>Wait for more events.</p>" in page
    assert "on target" not in page


def test_one_fix_for_many_events_is_said_once_and_one_pixel_is_no_part(now: float) -> None:
    rows = [Row(f"{name}{at}", name, PIXEL_ID, now - 60, None, "delivered", SENT, 3, "GET /a")
            for name in ("Purchase", "Lead", "AddToCart") for at in range(30)]  # fmt: skip
    found = read(now, *rows)
    assert len({one.fix for one in found.match_key_advice}) < len(found.match_key_advice)
    page = unescape(to_html(found, path="/_capi/parity", query="", nonce="n"))
    advice = page[page.index("Worth most if added") : page.index('id="freshness"')]
    for one in found.match_key_advice:
        assert advice.count(f"<p>{one.fix}</p>") == 1
        assert f"<bdi>{one.event_name}</bdi>: 0.0" in advice
    assert "By route" in page
    assert "By pixel" not in page


def test_links_keep_what_was_chosen(now: float) -> None:
    chosen = {"event": "Lead", "pixel": PIXEL_ID, "tenant": "t", "link": "l", "days": "28"}
    page = shown(now, urlencode(chosen), *some_rows(now, 200, 4))
    found = [unescape(one) for one in re.findall(r'(?:href|action)="([^"#][^"]*)"', page)]
    kept: dict[str, list[dict[str, str]]] = {
        path: [] for path in ("/_capi/parity", "/_capi/parity.csv", "/_capi/parity.json")
    }
    for one in found:
        asked = dict(parse_qsl(urlsplit(one).query))
        if asked and urlsplit(one).path in kept:
            kept[urlsplit(one).path].append(asked)
    times, data = kept.pop("/_capi/parity"), [one for some in kept.values() for one in some]
    assert len(data) > 20
    assert all(chosen.items() <= asked.items() for asked in data)
    same = {name: value for name, value in chosen.items() if name not in ("days", "event", "pixel")}
    assert all(same.items() <= asked.items() for asked in times)
    for days in ("1", "7", "28"):
        assert {**chosen, "days": days} in times


def test_what_may_be_asked_for_is_there_to_choose_whatever_is_shown(now: float) -> None:
    page = shown(now, "event=Lead", *some_rows(now, 200, 4))
    for name in ("Purchase", "AddToCart", "PageView"):
        assert f'<option value="{name}">' in page
