import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec
import pytest

from capi_middleware.events import Count
from capi_middleware.report.csv import to_csv
from capi_middleware.report.html import login_html, to_html, to_json
from capi_middleware.report.numbers import verdict
from capi_middleware.store.records import Freshness
from tests.support.tallies import numbers, report_on, tally

PURCHASE = (
    tally("delivered", "sent", 99, keys=("em", "fbp")),
    tally("delivered", "script_blocked", 15, keys=("fbp",)),
    tally("delivered", "not_run", 6),
    tally("unmapped", "sent", 2),
)
HOSTILE = [
    "<script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    '" autofocus onfocus="alert(1)',
    "' onmouseover='alert(1)",
    "</table><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}",
    "&lt;b&gt;",
    "javascript:alert(1)",
]


class Page(HTMLParser):
    """The tags, attributes and text of a page, read as a browser would."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def field(self, name: str) -> str | None:
        (value,) = (field["value"] for field in self.all("input") if field.get("name") == name)
        return value


def page(*rows: object, query: str = "", **more: object) -> Page:
    report = report_on(*rows, **more)  # type: ignore[arg-type]
    return Page(to_html(report, path="/_capi/parity", query=query, nonce="n0nce"))


def test_the_json_has_exactly_the_keys_of_the_contract() -> None:
    answer = msgspec.json.decode(
        to_json(
            report_on(
                *PURCHASE,
                freshness=(Freshness("123", "Purchase", 0.4, 120),),
                counts=(Count("suppressed", "bot", "Purchase", "123", 1),),
            )
        )
    )
    assert list(answer) == [
        "window", "verdict", "events", "match_key_advice", "flags", "trends", "breakdowns",
        "health", "insights", "comparisons", "graph_versions", "consent", "unanswered", "now",
        "before", "pixel_names", "cards", "checklist", "marks", "funnels", "choices", "estimates",
    ]  # fmt: skip
    assert answer["window"] == {"from": "2026-06-01T00:00:00Z", "to": "2026-06-08T00:00:00Z"}
    assert answer["events"] == [
        {
            "event_name": "Purchase",
            "pixel_id": "123",
            "server": 120,
            "browser": 101,
            "matched": 99,
            "server_only": 21,
            "browser_only": 2,
            "coverage": 0.98,
            "ratio": 1.188,
            "pending": 0,
            "suppressed": {"bot": 1},
            "missing_browser": {"script_blocked": 15, "not_run": 6},
            "missing_server": {"unmapped": 2},
            "unmapped_pages": {},
            "without_event_id": 0,
            "repeated": 0,
            "differing": 0,
            "unsigned": 0,
            "unpaired": 0,
            "lost": 0,
            "money": [],
            "match_keys": {"em": 0.825, "fbp": 0.95},
            "match_keys_by_origin": {
                "browser": {"events": 120, "keys": {"em": 0.825, "fbp": 0.95}},
                "server_only": {"events": 0, "keys": {}},
                "unpaired": {"events": 0, "keys": {}},
            },
            "freshness_seconds": {"p50": 0.4, "p95": 0.4, "max": 0.4},
        }
    ]
    assert {flag["code"] for flag in answer["flags"]} == {"pixel_blocked", "server_missing"}
    assert [set(flag) for flag in answer["flags"][:1]] == [
        {
            "code",
            "severity",
            "event_name",
            "pixel_id",
            "value",
            "target",
            "explanation",
            "fix",
            "title",
            "plain",
            "line",
            "cause",
            "since",
            "last_seen",
            "resolved",
        }
    ]


def test_what_cannot_be_computed_is_null_in_the_json() -> None:
    (event,) = msgspec.json.decode(to_json(report_on(tally("pending", "not_run"))))["events"]
    assert (event["coverage"], event["ratio"]) == (None, None)
    assert event["freshness_seconds"] == {"p50": None, "p95": None, "max": None}


@pytest.mark.parametrize(
    ("matched", "missing", "expected"),
    [
        (98, 3, ("on target", "98 of 101 browser events are covered by the server "
         "(97.0 %, target 75 %)")),
        (75, 25, ("on target", "75 of 100 browser events are covered by the server "
         "(75.0 %, target 75 %)")),
        (2, 1, ("below target", "2 of 3 browser events are covered by the server "
         "(66.7 %, target 75 %)")),
    ],
)  # fmt: skip
def test_the_verdict_gives_both_numbers_and_the_target(
    matched: int, missing: int, expected: tuple[str, str]
) -> None:
    event = numbers(tally("delivered", "sent", matched), tally("unmapped", "sent", missing))
    assert verdict(event) == expected


@pytest.mark.parametrize(("server", "n"), [("delivered", 12), ("pending", 0)])
def test_the_verdict_without_browser_events_is_no_data(server: str, n: int) -> None:
    word, sentence = verdict(numbers(tally(server, "not_run", 12)))
    assert word == "no data"
    assert f"{n} server events and 0 browser events" in sentence


@pytest.mark.parametrize("n", [1, 4])
def test_the_headline_has_the_numbers_of_the_table_below_it(n: int) -> None:
    report = report_on(tally("delivered", "sent", n), tally("unmapped", "sent", 1))
    copies = f"{n} of {n + 1} browser events are covered by the server"
    assert copies in report.verdict.sentence
    shown = page(tally("delivered", "sent", n)).text
    assert "No data yet" not in shown
    assert "Too few to tell yet" in shown
    assert "on target" not in shown


def test_one_cause_is_one_thing_in_the_headline() -> None:
    report = report_on(tally("delivered", "sent", 61), tally("unmapped", "sent", 39))
    assert report.verdict.sentence.startswith("1 thing to act on now.")


def test_the_page_shows_the_numbers_with_their_denominators() -> None:
    text = page(*PURCHASE).text
    assert "98.0 % 99 of 101 on target 118.8 % 120 ÷ 101" in text


def test_the_page_shows_causes_as_parts_of_the_difference() -> None:
    text = page(*PURCHASE).text
    assert "21 15 script blocked 6 not run 2 2 unmapped" in text


def test_the_page_shows_suppressed_events_match_keys_and_freshness() -> None:
    text = page(
        *PURCHASE,
        freshness=(Freshness("123", "Purchase", 0.4, 119), Freshness("123", "Purchase", 9.0, 1)),
        counts=(
            Count("suppressed", "consent", "Purchase", "123", 3),
            Count("suppressed", "bot", "Purchase", "123", 1),
        ),
    ).text
    assert "4 3 consent 1 bot" in text
    assert "120 events em 82.5 % fbp 95.0 % no data" in text
    assert "0.4 s 0.4 s 9.0 s" in text


def test_the_page_shows_flags_with_severity_explanation_and_fix() -> None:
    rows = (tally("delivered", "sent", 61), tally("unmapped", "sent", 39))
    text = page(*rows).text
    for flag in report_on(*rows).flags:
        for told in (flag.title, flag.plain, flag.code, flag.explanation, f"Fix: {flag.fix}"):
            assert told in text


def test_flags_that_one_fix_ends_are_told_together() -> None:
    rows = (tally("delivered", "sent", 61), tally("unmapped", "sent", 39))
    flags = report_on(*rows).flags
    assert len({flag.fix for flag in flags}) == 1
    text = page(*rows).text
    assert all(flag.code in text for flag in flags)
    assert text.count(flags[0].title) == text.count("Fix:") == 1


def test_the_page_defines_coverage_and_ratio() -> None:
    assert "Coverage = matched ÷ browser; ratio = server ÷ browser" in page().text


def test_an_empty_report_is_not_called_good() -> None:
    text = page().text
    assert "No events in this window. This says nothing about whether events arrive" in text
    assert "target " not in text.partition("Server:")[0]


def test_the_form_keeps_the_window_and_the_filter() -> None:
    shown = page(query="from=2026-06-01&event=Add+To%20Cart&pixel=123&unit=x")
    assert {form["method"]: form["action"] for form in shown.all("form")} == {
        "get": "/_capi/parity"
    }
    assert shown.field("from") == "2026-06-01T00:00"
    assert shown.field("to") == "2026-06-08T00:00"
    assert (shown.field("event"), shown.field("pixel")) == ("Add To Cart", "123")


def test_the_json_is_linked_with_the_same_query() -> None:
    shown = page(query="from=2026-06-01T00%3A00%3A00%2B02%3A00&event=A%26B")
    (link,) = [one for one in links(shown) if ".json" in one and "table" not in one]
    parts = urlsplit(link)
    assert parts.path == "/_capi/parity.json"
    assert parse_qs(parts.query) == {"from": ["2026-06-01T00:00:00+02:00"], "event": ["A&B"]}


def links(shown: Page) -> list[str]:
    """The links to other pages."""
    return [href for one in shown.all("a") if (href := one["href"]) and href[0] != "#"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_text_and_nothing_else(name: str) -> None:
    query = urlencode({"event": name, "pixel": name})
    counts = (Count("suppressed", name, name, name),)
    tame = page(
        tally("unmapped", "sent", 9, name="x", pixel="x"),
        tally("delivered", "x", 9, name="x", pixel="x"),
        query="event=x&pixel=x",
        counts=(Count("suppressed", "x", "x", "x"),),
    )
    hostile = page(
        tally("unmapped", "sent", 9, name=name, pixel=name),
        tally("delivered", name, 9, name=name, pixel=name),
        query=query,
        counts=counts,
    )
    assert [(tag, *attributes) for tag, attributes in hostile.tags] == [
        (tag, *attributes) for tag, attributes in tame.tags
    ]
    assert name in hostile.words
    assert hostile.field("event") == name
    for link in links(hostile):
        assert urlsplit(link).scheme == urlsplit(link).netloc == ""
        assert parse_qs(urlsplit(link).query).get("event", [name]) == [name]


@pytest.mark.parametrize("word", HOSTILE)
def test_a_hostile_path_nonce_or_error_stays_in_its_place(word: str) -> None:
    for html in (
        login_html(f"/{word}", word, nonce=word),
        to_html(report_on(), path=f"/{word}", query=word, nonce=word),
    ):
        shown = Page(html)
        assert {tag for tag, _ in shown.tags}.isdisjoint({"img", "b"})
        assert shown.all("script") in ([], [{"nonce": word}])
        assert shown.all("style") == [{"nonce": word}]
        assert shown.all("form")[0]["action"] == f"/{word}"


@pytest.mark.parametrize(
    "html",
    [
        to_html(report_on(*PURCHASE), path="/_capi/parity", query="", nonce="n0nce"),
        login_html("/_capi/parity", "Wrong.", nonce="n0nce"),
    ],
)
def test_a_page_lives_with_a_strict_content_security_policy(html: str) -> None:
    shown = Page(html)
    assert {tag for tag, _ in shown.tags}.isdisjoint({"link", "img", "iframe"})
    assert shown.all("script") in ([], [{"nonce": "n0nce"}])
    assert shown.all("style") == [{"nonce": "n0nce"}]
    for _, attributes in shown.tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
    assert "url(" not in html
    assert "@import" not in html


def test_every_table_scrolls_in_a_region_that_the_keyboard_reaches() -> None:
    shown = page(*PURCHASE)
    regions = [div for div in shown.all("div") if div["class"] == "scroll"]
    assert len(regions) == len(shown.all("table")) > 3
    headings = {heading.get("id") for heading in shown.all("h2")}
    assert all(region["tabindex"] == "0" for region in regions)
    assert {one["aria-labelledby"] for one in regions if "aria-labelledby" in one} <= headings
    assert all("aria-labelledby" in one or one["aria-label"] for one in regions)


def test_every_header_cell_says_what_it_heads() -> None:
    assert {cell["scope"] for cell in page(*PURCHASE).all("th")} == {"row", "col"}


def test_the_login_page_posts_the_token_and_says_what_went_wrong() -> None:
    shown = Page(login_html("/_capi/parity", "This is not the token.", nonce="n0nce"))
    assert shown.all("form") == [{"method": "post", "action": "/_capi/parity"}]
    (field,) = shown.all("input")
    assert (field["name"], field["type"]) == ("token", "password")
    assert shown.all("p")[0]["role"] == "alert"
    assert "This is not the token." in shown.text


def test_the_login_page_without_an_error_raises_no_alert() -> None:
    assert "alert" not in login_html("/_capi/parity", nonce="n0nce")


def test_a_page_without_a_nonce_has_no_style() -> None:
    assert Page(login_html("/_capi/parity")).all("style") == []


def test_jinja2_is_loaded_only_when_a_page_is_made() -> None:
    code = (
        "import sys, capi_middleware.report.html as report\n"
        "assert 'jinja2' not in sys.modules\n"
        "report.login_html('/')\n"
        "assert 'jinja2' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "name", ["=1+1", "x;=1+1", "x\t@SUM(1)", "a,-1", "+1", ";+1", "x|=cmd", "a;;=1", "\t=1"]
)
def test_no_cell_of_the_csv_is_a_formula_whatever_separates_cells(name: str) -> None:
    text = to_csv(report_on(tally("accepted", "sent", name=name)))
    for cell in re.split(r'[;,|\t\r\n"]', text):
        assert not cell.startswith(("=", "+", "-", "@")), (name, cell)
