"""One card for one cause, in two voices; and the help page that is made of the same texts."""

import re
from collections.abc import Iterator

import pytest

from capi_middleware.events import Count
from capi_middleware.report.causes import CAUSES
from capi_middleware.report.flags.registry import TEXTS
from capi_middleware.report.html import help_html
from capi_middleware.report.model import Card
from capi_middleware.store.records import Freshness
from tests.report.test_report import Page, page
from tests.support.tallies import report_on, tally

#: What those who run the ads need not know.
JARGON = re.compile(
    r"(?i)_|\b(?:CSP|event_?id|s\.js|em|ph|fbp|fbc|API|JSON|HTML|HTTP|headers?|beacons?|outbox|"
    r"SDK|dedupe\w*|payload|query|regex|middleware|config|null|unmapped|endpoints?|middlewares?|"
    r"not run|not rendered|server copy|browser copy|digest|queue|store|deliver\w*|mask|route)\b"
)


def texts() -> Iterator[tuple[str, str, str, str]]:
    """(where it stands, title, plain words, fix) of each flag and each cause."""
    for code, one in TEXTS.items():
        yield code, one.title, one.plain, one.fix
    for side, causes in CAUSES.items():
        for word, cause in causes.items():
            yield f"{side}.{word}", cause.title, cause.plain, cause.fix


def cards(*rows: object, **more: object) -> dict[str, Card]:
    found = report_on(*rows, **more).cards  # type: ignore[arg-type]
    assert len({one.cause for one in found}) == len(found)
    return {one.cause: one for one in found}


@pytest.mark.parametrize(("title", "plain", "fix"), [one[1:] for one in texts()],
                         ids=[one[0] for one in texts()])  # fmt: skip
def test_each_flag_and_each_cause_has_both_texts_and_no_jargon(
    title: str, plain: str, fix: str
) -> None:
    assert not JARGON.search(title), title
    assert not JARGON.search(plain), plain
    assert title[0].isupper()
    assert title[-1] not in ".:"
    assert plain.endswith(".")
    assert fix


def test_what_late_delivery_does_to_twelve_events_is_one_card() -> None:
    names = [f"Event{n}" for n in range(12)]
    late = cards(
        *(tally("delivered", "sent", 9, name=name) for name in names),
        *(tally("pending", "not_run", 9, name="Waiting") for _ in "x"),
        freshness=tuple(Freshness("123", name, 900.0, 9) for name in names),
    )["late"]
    assert [one.event_name for one in late.about] == ["Event0", "Event1", "Event10", "Event11",
        *names[2:10], "Waiting"]  # fmt: skip
    assert late.title == "Events reach Meta late"
    assert late.lines == ["capi-middleware deliver"]


def test_what_one_policy_stops_is_one_card_whatever_showed_it() -> None:
    found = cards(
        tally("delivered", "csp", 20),
        tally("delivered", "csp", 20, name="Lead", pixel="9"),
        counts=(Count("csp", "script-src", n=40),),
    )
    assert {word for word in found if "csp" in word} == {"csp"}
    card = found["csp"]
    assert card.severity == "critical"
    assert set(card.codes) == {"csp_blocks", "browser_missing"}
    assert [(one.event_name, one.pixel_id) for one in card.about] == [
        ("Lead", "9"), ("Purchase", "123"),
    ]  # fmt: skip


def test_two_causes_are_two_cards() -> None:
    found = cards(tally("delivered", "csp", 20), tally("delivered", "encoded", 20, name="Lead"))
    assert {"csp", "encoded"} <= found.keys()


def test_a_card_shows_the_exact_line_as_text_that_can_be_selected() -> None:
    rows = (tally("delivered", "sent", 61), tally("unmapped", "sent", 39))
    counts = (Count("unmapped", "/thanks", "Purchase", "123", 39),)
    shown = page(*rows, counts=counts)
    assert 'mirror = ["Purchase"]' in shown.words
    assert "pre" in {tag for tag, _ in shown.tags}


def test_a_card_leads_to_the_help_of_its_flags() -> None:
    rows = (tally("delivered", "sent", 61), tally("unmapped", "sent", 39))
    told = Page(help_html("/_capi/parity", nonce="n"))
    ids = {attributes.get("id") for _, attributes in told.tags}
    links = [one["href"] or "" for one in page(*rows).all("a")]
    anchors = [link.partition("#")[2] for link in links if link.startswith("/_capi/parity/help#")]
    assert len(anchors) >= 3
    assert ids.issuperset(anchors)


def test_the_help_tells_of_each_flag_and_each_cause_with_a_fix() -> None:
    told = Page(help_html("/_capi/parity", nonce="n"))
    ids = {attributes.get("id") for _, attributes in told.tags}
    assert ids >= TEXTS.keys()
    for side, causes in CAUSES.items():
        assert ids >= {f"{side}-{word}" for word in causes}
    entries = len(TEXTS) + sum(map(len, CAUSES.values()))
    assert told.text.count("Fix:") >= entries
    assert not re.search(r"\{(?:event|n|target|value|words|cause|used|page|name)\b", told.text)


def test_links_within_the_help_lead_somewhere() -> None:
    told = Page(help_html("/_capi/parity", nonce="n"))
    ids = {attributes.get("id") for _, attributes in told.tags}
    inner = {str(one["href"])[1:] for one in told.all("a") if str(one["href"])[0] == "#"}
    assert inner <= ids
