"""Metrics: the numbers of the report, read back by Prometheus' own parser."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from capi_middleware.events import Count
from capi_middleware.meta.versions import versions_at
from capi_middleware.report.metrics import MOST, metrics_text, read_metrics
from capi_middleware.report.read import health_of
from capi_middleware.report.window import parse_window
from capi_middleware.store.records import Backlog, Freshness, Pause, Settlement, Tallies, Tally
from capi_middleware.testing import MemoryStore
from tests.support.configs import make_config
from tests.support.stores import PIXEL, row, store_rows
from tests.support.tallies import report_on, tally

PURCHASE = (
    tally("delivered", "sent", 99),
    tally("delivered", "script_blocked", 15),
    tally("delivered", "not_run", 6),
    tally("unmapped", "sent", 2),
)

HEALTH = health_of(
    {"pending": 7, "delivered": 5000},
    [Backlog("123", 7, 12.5)],
    [Pause("123", 1_780_876_860.0, "code 4")],
    marks={"123": ""},
    delivering=True,
)
NOTHING = Tallies((), (), ())
OF = 'event_name="Purchase",pixel_id="123"'


def samples(text: str) -> dict[str, float]:
    """Every sample of a Prometheus text, by its name and labels.

    None comes twice, and a family has one type and samples of its own name alone.
    """
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation.endswith("."), family.name
        kind = "counter" if text.count(f"# TYPE {family.name}_total counter\n") else "gauge"
        if family.name == "capi_window_freshness_seconds":
            kind = "summary"  # it has quantiles
        assert family.type == kind, family.name
        for one in family.samples:
            assert one.name == family.name + ("_total" if kind == "counter" else "")
            shown = ",".join(f'{name}="{value}"' for name, value in one.labels.items())
            key = f"{one.name}{{{shown}}}" if shown else one.name
            assert key not in found
            found[key] = one.value
    return found


def totals(rows: Sequence[Tally] = (), counts: Sequence[Count] = ()) -> dict[str, float]:
    """The samples of the counters alone."""
    text = metrics_text(report_on(), Tallies(rows, (), counts))
    return {name: value for name, value in samples(text).items() if "_total" in name}


def test_gauges_are_the_numbers_of_the_report() -> None:
    made = report_on(
        *PURCHASE,
        tally("pending", "not_run", 7),
        counts=(Count("suppressed", "bot", "Purchase", "123", 4),),
        freshness=(Freshness("123", "Purchase", 0.4, 98), Freshness("123", "Purchase", 9.0, 2)),
        health=HEALTH,
    )
    assert {"pixel_paused", "server_missing"} <= {flag.code for flag in made.flags}
    assert samples(metrics_text(made, NOTHING)) == {
        "capi_window_seconds": 604800,
        "capi_window_end_timestamp_seconds": 1780876800,
        f'capi_window_events{{{OF},copy="server"}}': 120,
        f'capi_window_events{{{OF},copy="browser"}}': 101,
        f'capi_window_events{{{OF},copy="matched"}}': 99,
        f'capi_window_missing_events{{{OF},side="browser",cause="script_blocked"}}': 15,
        f'capi_window_missing_events{{{OF},side="browser",cause="not_run"}}': 6,
        f'capi_window_missing_events{{{OF},side="server",cause="unmapped"}}': 2,
        f'capi_window_suppressed_events{{{OF},reason="bot"}}': 4,
        f"capi_window_pending_events{{{OF}}}": 7,
        f"capi_window_coverage_ratio{{{OF}}}": 0.98,
        f"capi_window_server_browser_ratio{{{OF}}}": 1.188,
        f'capi_window_freshness_seconds{{{OF},quantile="0.5"}}': 0.4,
        f'capi_window_freshness_seconds{{{OF},quantile="0.95"}}': 0.4,
        f'capi_window_freshness_seconds{{{OF},quantile="1"}}': 9.0,
        **{
            f'capi_flags{{code="{flag.code}",severity="{flag.severity}"}}': 1 for flag in made.flags
        },
        'capi_outbox_rows{state="delivered"}': 5000,
        'capi_outbox_rows{state="pending"}': 7,
        'capi_outbox_waiting_events{pixel_id="123"}': 7,
        'capi_outbox_oldest_seconds{pixel_id="123"}': 12.5,
        'capi_pixel_paused{pixel_id="123"}': 1,
        "capi_delivering": 1,
    }


def test_what_has_no_data_is_absent_and_never_zero() -> None:
    found = samples(metrics_text(report_on(tally("delivered", "not_rendered", 5)), NOTHING))
    assert found[f'capi_window_events{{{OF},copy="server"}}'] == 5
    for name in ("coverage_ratio", "browser_ratio", "freshness"):
        assert not any(name in sample for sample in found)


def test_every_metric_has_its_help_and_type_also_without_samples() -> None:
    text = metrics_text(report_on(health=HEALTH), NOTHING)
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    helps = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP ")]
    assert names == helps
    assert len(set(names)) == 23
    assert text.endswith("\n")


def test_a_hostile_label_stays_one_label() -> None:
    name = 'a\\b"c\nd{}='
    text = metrics_text(report_on(tally("delivered", "sent", name=name)), NOTHING)
    labels = [
        one.labels["event_name"]
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if "event_name" in one.labels
    ]
    assert set(labels) == {name}


def test_counters_add_up_all_that_is_kept() -> None:
    rows = (
        *PURCHASE,
        tally("delivered", "sent", 1, name="Lead"),
        tally("dead", "sent", 3, name="Lead"),
    )
    counts = (
        Count("suppressed", "bot", "Purchase", "123", 4),
        Count("suppressed", "bot", "Lead", "123", 1),
        Count("suppressed", "consent", "", "", 2),
        Count("dropped", "queue_full", "Lead", "123", 5),
        Count("error", "the tag: KeyError", n=6),
        Count("skipped", "no_head", n=7),
    )
    lead = 'event_name="Lead",pixel_id="123"'
    assert totals(rows, counts) == {
        f"capi_server_events_accepted_total{{{OF}}}": 120,
        f"capi_server_events_accepted_total{{{lead}}}": 1,
        f"capi_browser_events_sent_total{{{OF}}}": 101,
        f"capi_browser_events_sent_total{{{lead}}}": 4,
        'capi_suppressed_events_total{reason="bot"}': 5,
        'capi_suppressed_events_total{reason="consent"}': 2,
        'capi_dropped_events_total{reason="queue_full"}': 5,
        'capi_errors_total{reason="the tag: KeyError"}': 6,
    }


def crowd() -> list[Tally]:
    """Twice as many event names as may have series, the busier the lower their number."""
    return [
        tally("delivered", "sent" if n % 2 else "not_run", 1000 - n, name=f"e{n}")
        for n in range(2 * MOST)
    ]


def test_at_most_so_many_event_names_are_labels_and_the_rest_is_summed() -> None:
    rows = crowd()
    counts = tuple(Count("suppressed", "bot", f"e{n}", "123", 1) for n in range(2 * MOST))
    fresh = tuple(Freshness("123", f"e{n}", 1.0, 1) for n in range(2 * MOST))
    found = samples(
        metrics_text(report_on(*rows, counts=counts, freshness=fresh), Tallies(rows, (), counts))
    )
    named = {label for label in (sample.partition('event_name="')[2] for sample in found) if label}
    assert len({label.partition('"')[0] for label in named}) == MOST + 1
    assert 'capi_server_events_accepted_total{event_name="e99",pixel_id="123"}' in found
    other = 'event_name="other",pixel_id="123"'
    server = sum(row.n for row in rows[MOST:])
    browser = sum(row.n for row in rows[MOST:] if row.browser == "sent")
    assert found[f"capi_server_events_accepted_total{{{other}}}"] == server
    assert found[f"capi_browser_events_sent_total{{{other}}}"] == browser
    assert found[f'capi_window_events{{{other},copy="server"}}'] == server
    assert found[f'capi_window_events{{{other},copy="matched"}}'] == browser
    missing = f'capi_window_missing_events{{{other},side="browser",cause="not_run"}}'
    assert found[missing] == server - browser
    assert found[f'capi_window_suppressed_events{{{other},reason="bot"}}'] == MOST
    assert found[f"capi_window_coverage_ratio{{{other}}}"] == 1
    assert found[f"capi_window_server_browser_ratio{{{other}}}"] == round(server / browser, 3)
    assert not any("freshness" in sample and "other" in sample for sample in found)


def test_nothing_is_lost_when_an_event_is_really_called_other() -> None:
    rows = [*crowd(), tally("delivered", "sent", 5000, name="other")]
    found = samples(metrics_text(report_on(*rows), Tallies(rows, (), ())))
    accepted = [n for name, n in found.items() if name.startswith("capi_server_events_accepted")]
    assert sum(accepted) == sum(one.n for one in rows)


def test_at_most_so_many_reasons_are_labels() -> None:
    counts = [Count("error", f"reason {n}", n=1000 - n) for n in range(2 * MOST)]
    found = totals(counts=counts)
    assert len(found) == MOST + 1
    assert found['capi_errors_total{reason="other"}'] == sum(one.n for one in counts[MOST:])


def test_metrics_of_a_store_count_what_the_window_no_longer_shows() -> None:
    now = time.time()
    store = MemoryStore(clock=lambda: now)
    store_rows(store, row("e1", event_time=now - 3600))
    lease = store.lease(PIXEL, limit=9, seconds=9)
    store.settle(lease.lease_id, [Settlement(one.key, "delivered") for one in lease.events])
    store_rows(store, row("e0", event_time=now - 20 * 86400, payload=None, server="unmapped",
                          browser="sent"))  # fmt: skip
    found = samples(read_metrics(store, make_config(), parse_window({}, now)))
    of = f'event_name="Purchase",pixel_id="{PIXEL}"'
    assert found[f'capi_window_events{{{of},copy="server"}}'] == 1
    assert found[f'capi_window_events{{{of},copy="browser"}}'] == 0
    assert found[f"capi_server_events_accepted_total{{{of}}}"] == 1
    assert found[f"capi_browser_events_sent_total{{{of}}}"] == 1
    assert found["capi_delivering"] == 1


def everything() -> str:
    """A text in which each metric has a sample."""
    made = report_on(
        *PURCHASE,
        tally("pending", "not_run", 7),
        counts=(Count("suppressed", "bot", "Purchase", "123", 4),),
        freshness=(Freshness("123", "Purchase", 0.4, 98),),
        health=HEALTH,
    )
    counts = [Count(kind, "why", "Purchase", "123", 1) for kind in (
        "suppressed", "consent", "dropped", "error"
    )]  # fmt: skip
    made = replace(made, graph_versions=versions_at("v25.0", 1_780_876_800.0))
    return metrics_text(made, Tallies(PURCHASE, (), counts))


#: What promtool's linter calls no base unit.
NO_BASE_UNIT = re.compile(
    r"_(ms|milliseconds|microseconds|nanoseconds|minutes|hours|days|weeks|percent|celsius_degrees|"
    r"kilobytes|kb|megabytes|bits)(_|$)"
)


def test_promtool_finds_nothing_to_say() -> None:
    text = everything()
    promtool = shutil.which("promtool")
    if promtool is not None:
        done = subprocess.run(
            [promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
    # Its rules, for where it is not installed.
    for family in text_string_to_metric_families(text):
        assert family.samples, family.name
        assert family.documentation
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        assert not NO_BASE_UNIT.search(family.name), family.name
        assert not re.search(
            r"_(gauge|counter|summary|histogram|count|sum|bucket)(_|$)", family.name
        )
        for one in family.samples:
            assert one.name.endswith("_total") is (family.type == "counter")
            assert "quantile" not in one.labels or family.type == "summary"
            assert "le" not in one.labels
            assert all(re.fullmatch(r"[a-z][a-z0-9_]*", label) for label in one.labels)


DASHBOARD = json.loads(
    (Path(__file__).parents[2] / "demo" / "grafana.json").read_text(encoding="utf-8")
)
_QUERIES = [one["expr"] for panel in DASHBOARD["panels"] for one in panel["targets"]]


@pytest.mark.parametrize("query", sorted(set(_QUERIES)))
def test_each_query_of_the_dashboard_asks_for_what_there_is(query: str) -> None:
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(everything()):
        for one in family.samples:
            labels.setdefault(one.name, set()).update(one.labels)
    names = set(re.findall(r"\bcapi_\w+", query))
    assert names
    assert names <= labels.keys()
    asked = set(re.findall(r"(\w+)(?:=~?\"|!=\")", query))
    for group in re.findall(r"by \(([^)]*)\)", query):
        asked |= {one.strip() for one in group.split(",")}
    known: set[str] = set().union(*(labels[name] for name in names))
    assert asked <= known


def test_the_dashboard_shows_each_metric_and_no_panel_covers_another() -> None:
    shown = set(re.findall(r"\bcapi_\w+", " ".join(_QUERIES)))
    names = {line.split()[2] for line in everything().splitlines() if line.startswith("# TYPE ")}
    assert names - shown == {
        "capi_window_seconds", "capi_window_end_timestamp_seconds", "capi_window_events",
        "capi_window_suppressed_events", "capi_window_pending_events",
        "capi_window_server_browser_ratio", "capi_graph_version_age_seconds",
        "capi_consent_decisions_total",
    }  # fmt: skip
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
