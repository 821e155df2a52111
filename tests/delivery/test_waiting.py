"""Who asks to wait is waited for: by all processes, to the second, and at no event's cost."""

import time
from collections.abc import Sequence
from email.utils import formatdate

import pytest

from capi_middleware.delivery.courier import Courier
from capi_middleware.delivery.retry import LONGEST_OUTAGE, rest
from capi_middleware.meta.codes import Outcome
from capi_middleware.report.flags import Facts, flags_of
from capi_middleware.report.read import read_health
from capi_middleware.testing import MemoryStore
from tests.delivery.test_delivery import Script, answer, sent_to
from tests.support.configs import make_config
from tests.support.stores import PIXEL, Clock, row, store_rows

BUSY = Outcome("retry", "http 503", uncertain=True)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


class Always(Script):
    """A client that answers the same each time."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self._outcome = outcome

    def send(self, payloads: Sequence[bytes]) -> Outcome:
        self.sent.append(list(payloads))
        return self._outcome


# -- what the answer says ------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["503 Busy", "429 Slow"])
@pytest.mark.parametrize("zone", ["GMT", "+0000", "-0000"])
def test_a_date_to_wait_for_is_read_by_the_clock_that_named_it(status: str, zone: str) -> None:
    then = time.time() - 30 * 86400  # ours is wrong by a month
    date, until = (formatdate(at, usegmt=True).replace("GMT", zone) for at in (then, then + 42))
    outcome = sent_to(answer(status, b"", f"Date: {date}", f"Retry-After: {until}"))
    assert outcome.delay == 42


def test_a_server_that_is_away_says_for_how_long() -> None:
    outcome = sent_to(answer("503 Busy", b"<html>", "Retry-After: 7"))
    assert (outcome.kind, outcome.reason, outcome.delay) == ("retry", "http 503", 7)


def test_an_ad_account_that_is_used_up_is_a_rest() -> None:
    usage = 'X-Ad-Account-Usage: {"acc_id_util_pct":100,"reset_time_duration":90}'
    body = b'{"events_received":1,"messages":[]}'
    assert sent_to(answer("200 OK", body, usage)) == Outcome("delivered", "usage", 90.0)


@pytest.mark.parametrize(
    ("outcome", "failures", "seconds"),
    [
        (Outcome("retry", "timeout"), 1, 1),
        (Outcome("retry", "dns"), 4, 8),
        (Outcome("retry", "refused"), 99, LONGEST_OUTAGE),
        (Outcome("retry", "http 503", delay=7.0), 99, 7),
        (Outcome("access", "http 403", delay=600.0), 1, 600),
    ],
)
def test_a_pixel_rests_ever_longer_or_as_long_as_it_is_told(
    outcome: Outcome, failures: int, seconds: float
) -> None:
    assert rest(outcome, failures) == seconds


# -- what couriers make of it --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["retry", "throttled"])
def test_what_meta_asks_for_is_done_to_the_second_by_all(
    kind: str, store: MemoryStore, clock: Clock
) -> None:
    store_rows(store, row("e1"), row("e2"))
    asked = Outcome(kind, "http 503" if kind == "retry" else "http 429", 7.0)  # type: ignore[arg-type]
    Courier(store, PIXEL, lambda: Script(asked))._round()
    store_rows(store, row("fresh"))
    other = Script()
    step = Courier(store, PIXEL, lambda: other)._round
    clock.now += 6.9
    assert step() == pytest.approx(0.1)
    assert other.sent == []
    clock.now += 0.1
    step()
    assert len(other.sent) == 1
    assert store.depth() == {"delivered": 3}


def test_a_thousand_answers_that_ask_to_wait_cost_no_event(
    store: MemoryStore, clock: Clock
) -> None:
    store_rows(store, row("e1"), row("e2"))
    client = Always(Outcome("retry", "http 503", 1.0, uncertain=True))
    step = Courier(store, PIXEL, lambda: client)._round
    for _ in range(1100):
        step()
        clock.now += 1
    assert store.depth() == {"pending": 2}
    assert {one.attempts for one in store.lease(PIXEL, limit=999, seconds=9).events} == {0}


@pytest.mark.parametrize("reason", ["refused", "http 500"])
def test_six_days_without_meta_cost_no_event_and_few_requests(
    reason: str, store: MemoryStore, clock: Clock
) -> None:
    store_rows(store, row("e1"))
    client = Always(Outcome("retry", reason))
    step = Courier(store, PIXEL, lambda: client)._round
    end = clock.now + 6 * 86400
    while clock.now < end:
        clock.now += max(step(), 0.01)
    assert store.depth() == {"pending": 1}
    assert len(client.sent) <= 6 * 86400 / LONGEST_OUTAGE + 10


def test_after_a_rest_one_of_all_tries(store: MemoryStore, clock: Clock) -> None:
    store_rows(store, row("e1"), row("e2"))
    Courier(store, PIXEL, lambda: Script(BUSY))._round()
    clock.now += 3600
    bystander = Script()
    other = Courier(store, PIXEL, lambda: bystander)

    class Trying(Script):
        def send(self, payloads: Sequence[bytes]) -> Outcome:
            other._round()
            return super().send(payloads)

    store_rows(store, row("e3"))
    Courier(store, PIXEL, Trying)._round()
    assert bystander.sent == []
    assert store.depth() == {"delivered": 3}
    store_rows(store, row("e4"))
    other._round()
    assert len(bystander.sent) == 1


def test_failures_in_a_row_count_whoever_has_them(store: MemoryStore, clock: Clock) -> None:
    store_rows(store, row("e1"))
    for seconds in (1, 2, 4, 8):
        Courier(store, PIXEL, lambda: Script(BUSY))._round()
        (pause,) = store.pauses()
        assert pause.until == clock.now + seconds
        clock.now += seconds


def test_a_rolling_change_of_a_token_holds_nobody_and_lifts_nothing(
    store: MemoryStore, clock: Clock
) -> None:
    refused = [Always(Outcome("access", "code 190")) for _ in range(2)]
    old = [Courier(store, PIXEL, lambda one=one: one, token="old") for one in refused]  # type: ignore[misc]
    good = Script()
    new = Courier(store, PIXEL, lambda: good, token="new")
    for n in range(30):
        store_rows(store, row(f"e{n}"))
        for courier in (*old, new):
            courier._round()
        clock.now += 1
    assert sum(len(one.sent) for one in refused) == 1
    assert len(good.sent) == 30
    assert store.depth() == {"delivered": 30}


def test_a_throttle_is_not_lifted_by_a_try_that_had_nothing_to_send(
    store: MemoryStore, clock: Clock
) -> None:
    store_rows(store, row("e1"))
    Courier(store, PIXEL, lambda: Script(Outcome("throttled", "code 4", 60.0)))._round()
    clock.now += 60
    for one in store.lease(PIXEL, limit=9, seconds=500).events:
        assert one.event_id == "e1"  # somebody else has it
    idle = Script()
    Courier(store, PIXEL, lambda: idle)._round()
    assert (idle.sent, store.rest(PIXEL) is None) == ([], False)


# -- what people are told ------------------------------------------------------------------------


def test_an_outage_is_told_once_with_its_cause_and_once_when_it_is_over(
    store: MemoryStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store_rows(store, row("e1"))
    client = Script(*[Outcome("retry", "dns")] * 5, Outcome("retry", "proxy"))
    step = Courier(store, PIXEL, lambda: client)._round
    while store.depth() == {"pending": 1}:
        clock.now += max(step(), 0.01)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3
    assert "(DNS)" in told[0]
    assert "HTTPS_PROXY" in told[1]
    assert "again" in told[2]
    assert [record.capi["action"] for record in caplog.records] == ["rest", "rest", "resume"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("reason", "words"),
    [("dns", "(DNS)"), ("certificate", "certificate"), ("proxy", "proxy"), ("refused", "refused")],
)
def test_the_flag_says_how_meta_is_not_reached(reason: str, words: str, store: MemoryStore) -> None:
    store_rows(store, row("e1"))
    Courier(store, PIXEL, lambda: Script(Outcome("retry", reason)))._round()
    health = read_health(store, make_config())
    (flag,) = [one for one in flags_of(Facts(health=health)) if one.code == "pixel_paused"]
    assert words in flag.explanation
    assert "Meta answered" not in flag.explanation
