import re

from capi_middleware.events import Count
from capi_middleware.parity.health import health_of
from capi_middleware.parity.report import metrics_text
from capi_middleware.store.protocol import Backlog, Pause
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
    pixel_ids=["123"],
    delivering=True,
)

SAMPLE = re.compile(
    r'(?P<name>[a-z_]+)(?:\{(?P<labels>(?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\})? (?P<value>\S+)'
)


def samples(text: str) -> dict[str, float]:
    """Every sample of a Prometheus text, by what stands before its value."""
    found: dict[str, float] = {}
    typed = ""
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, typed, kind = line.split(" ")
            assert kind == "gauge"
        elif not line.startswith("# HELP "):
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match["name"] == typed
            assert line.rpartition(" ")[0] not in found
            found[line.rpartition(" ")[0]] = float(match["value"])
    return found


def test_metrics_are_the_numbers_of_the_report() -> None:
    counts = (Count("suppressed", "bot", "Purchase", "123", 4),)
    text = metrics_text(
        report_on(*PURCHASE, tally("pending", "not_run", 7), counts=counts, health=HEALTH)
    )
    of = 'event_name="Purchase",pixel_id="123"'
    assert samples(text) == {
        "capi_window_seconds": 604800,
        "capi_window_end_timestamp_seconds": 1780876800,
        f'capi_window_events{{{of},copy="server"}}': 120,
        f'capi_window_events{{{of},copy="browser"}}': 101,
        f'capi_window_events{{{of},copy="matched"}}': 99,
        f'capi_window_missing_events{{{of},side="browser",cause="script_blocked"}}': 15,
        f'capi_window_missing_events{{{of},side="browser",cause="not_run"}}': 6,
        f'capi_window_missing_events{{{of},side="server",cause="unmapped"}}': 2,
        f'capi_window_suppressed_events{{{of},reason="bot"}}': 4,
        f"capi_window_pending_events{{{of}}}": 7,
        'capi_outbox_rows{state="delivered"}': 5000,
        'capi_outbox_rows{state="pending"}': 7,
        'capi_outbox_waiting_events{pixel_id="123"}': 7,
        'capi_outbox_oldest_seconds{pixel_id="123"}': 12.5,
        'capi_pixel_paused{pixel_id="123"}': 1,
        "capi_delivering": 1,
    }


def test_every_metric_has_its_help_and_type_also_without_samples() -> None:
    text = metrics_text(report_on(health=HEALTH))
    names = re.findall(r"^# TYPE (\S+) gauge$", text, re.MULTILINE)
    assert re.findall(r"^# HELP (\S+) .+\.$", text, re.MULTILINE) == names
    assert len(set(names)) == 11
    assert text.endswith("\n")


def test_a_hostile_label_stays_one_label() -> None:
    name = 'a\\b"c\nd{}='
    text = metrics_text(report_on(tally("delivered", "sent", name=name)))
    assert 'copy="server"' in text
    assert sum('event_name="a\\\\b\\"c\\nd{}="' in sample for sample in samples(text)) == 4
