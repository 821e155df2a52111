"""Delivery: what Meta answers decides what becomes of a batch; nothing is lost on the way."""

import contextlib
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware import CAPI
from capi_middleware.delivery.courier import Courier
from capi_middleware.delivery.retry import LONGEST_DELAY, backoff, rest
from capi_middleware.delivery.telemetry import ClockCheck
from capi_middleware.errors import StoreError
from capi_middleware.events import Count
from capi_middleware.meta import graph
from capi_middleware.meta.codes import Outcome, judge, read_error
from capi_middleware.meta.graph import GraphClient
from capi_middleware.testing import FakeMeta, MemoryStore
from tests.support.configs import make_config
from tests.support.servers import closed_port, serve
from tests.support.stores import NOON, PIXEL, Clock, row, store_rows

EVENT = (
    b'{"event_name":"Lead","event_time":%d,"event_id":"e1","action_source":"website",'
    b'"event_source_url":"https://shop.example/","user_data":{"client_user_agent":"x",'
    b'"em":["62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f"]}}'
)


@pytest.mark.parametrize(
    ("status", "code", "subcode", "transient", "kind"),
    [
        (429, None, None, False, "throttled"),
        (400, 4, None, False, "throttled"),
        (403, 17, 2446079, False, "throttled"),
        (400, 613, None, True, "throttled"),
        (400, 80004, None, False, "throttled"),
        (401, 190, 463, False, "access"),
        (400, 200, None, False, "access"),
        (400, 100, 33, False, "access"),
        (400, 1, None, False, "retry"),
        (400, 100, None, True, "retry"),
        (503, None, None, False, "retry"),
        (404, None, None, False, "blocked"),
        (400, 2635, None, False, "access"),
        (400, 2500, None, False, "access"),
        (400, 12, None, False, "access"),
        (400, 803, None, False, "access"),
        (400, 100, 2804003, False, "invalid"),
        (400, 100, None, False, "unsure"),
    ],
)
def test_the_error_code_decides_before_the_status(
    status: int, code: int | None, subcode: int | None, transient: bool, kind: str
) -> None:
    error = {"code": code, "error_subcode": subcode, "is_transient": transient}
    assert judge(status, read_error({"error": error})).kind == kind


@given(st.integers(0, 10_000), st.integers())
def test_backoff_is_bounded_and_never_zero(attempts: int, seed: int) -> None:
    assert 0.5 <= backoff(attempts, random.Random(seed)) <= LONGEST_DELAY


@pytest.mark.parametrize(
    ("outcome", "failures", "seconds"),
    [
        (Outcome("throttled"), 1, 60),
        (Outcome("throttled", delay=7), 1, 7),
        (Outcome("throttled", delay=0), 1, 1),
        (Outcome("throttled", delay=1e9), 1, 3600),
        (Outcome("access"), 1, 60),
        (Outcome("access"), 3, 240),
        (Outcome("access"), 99, 900),
    ],
)
def test_a_pixel_rests_as_long_as_it_should(
    outcome: Outcome, failures: int, seconds: float
) -> None:
    assert rest(outcome, failures) == seconds


@pytest.fixture
def fake() -> FakeMeta:
    return FakeMeta(tokens={PIXEL: "secret-token"}, clock=lambda: NOON)


@pytest.fixture
def client(fake: FakeMeta) -> Iterator[GraphClient]:
    with serve(fake.app) as url:
        client = GraphClient(url, "v26.0", PIXEL, "secret-token")
        yield client
        client.close()


def test_a_receipt_for_the_whole_batch_is_delivered(client: GraphClient, fake: FakeMeta) -> None:
    told = Outcome("delivered", trace="AFakeMetaTrace")
    assert client.send([EVENT % NOON, EVENT % NOON]) == told
    assert len(fake.received.server) == 2


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b"[]", b'{"events_received":1}', b'{"events_received":true}']
)
def test_a_success_without_a_full_receipt_is_unknown(
    client: GraphClient, fake: FakeMeta, body: bytes
) -> None:
    fake.fail_next(200, body)
    assert client.send([EVENT % NOON, EVENT % NOON]).kind == "retry"


@pytest.mark.parametrize("drop", ["before", "after"])
def test_a_connection_that_breaks_is_a_retry(
    client: GraphClient, fake: FakeMeta, drop: Any
) -> None:
    fake.fail_next(drop=drop)
    assert client.send([EVENT % NOON]).kind == "retry"


def test_a_refused_connection_is_a_retry() -> None:
    client = GraphClient(closed_port(), "v26.0", PIXEL, "t")
    assert client.send([EVENT % NOON]) == Outcome("retry", "refused")
    client.close()


def test_an_old_event_is_invalid_and_a_bad_token_is_access(
    client: GraphClient, fake: FakeMeta
) -> None:
    assert client.send([EVENT % (NOON - 8 * 86400)]).reason == "code 100/2804003 event_time"
    fake.fail_next(401, {"error": {"code": 190, "message": "x"}})
    assert client.send([EVENT % NOON]) == Outcome("access", "code 190")


def test_a_redirect_is_not_followed(client: GraphClient, fake: FakeMeta) -> None:
    fake.fail_next(302, b"", headers={"location": "https://evil.example/"})
    assert client.send([EVENT % NOON]) == Outcome("blocked", "http 302")


def test_retry_after_is_read(client: GraphClient, fake: FakeMeta) -> None:
    fake.fail_next(429, b"", headers={"retry-after": "42"})
    assert client.send([EVENT % NOON]) == Outcome("throttled", "http 429", 42)


def test_the_token_is_in_no_url_log_or_repr(
    client: GraphClient, fake: FakeMeta, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    seen: list[httpx.Request] = []
    client._http._connected(client._url).event_hooks["request"].append(seen.append)
    client.send([EVENT % NOON])
    assert "secret-token" not in str(seen[0].url)
    assert seen[0].url.query == b""
    assert b"secret-token" not in seen[0].content
    logged = [record.getMessage() for record in caplog.records]
    assert logged
    assert not any("secret-token" in text for text in logged)


class Script:
    """A client that answers as told; by default it delivers what `bad` does not contain."""

    def __init__(self, *outcomes: Outcome, bad: frozenset[bytes] = frozenset()) -> None:
        self.outcomes, self.bad = list(outcomes), bad
        self.sent: list[list[bytes]] = []

    def send(self, payloads: Sequence[bytes]) -> Outcome:
        self.sent.append(list(payloads))
        if self.outcomes:
            return self.outcomes.pop(0)
        return Outcome("invalid", "code 100") if self.bad & set(payloads) else Outcome("delivered")

    def hear(self) -> Outcome | None:
        return None

    def close(self) -> None:
        pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


def rounds(store: MemoryStore, client: Script) -> Callable[[], float]:
    return Courier(store, PIXEL, lambda: client)._round


def test_one_bad_event_among_a_thousand_is_found_in_21_requests(store: MemoryStore) -> None:
    store_rows(store, *(row(f"e{n}", payload=b"%d" % n) for n in range(1000)))
    client = Script(bad=frozenset({b"637"}))
    rounds(store, client)()
    assert store.depth() == {"delivered": 999, "dead": 1}
    assert len(client.sent) <= 21


def test_an_unknown_outcome_is_sent_again_the_same_later(store: MemoryStore, clock: Clock) -> None:
    store_rows(store, row(payload=b"same"))
    client = Script(Outcome("retry", "http 503"))
    step = rounds(store, client)
    step()
    assert store.depth() == {"pending": 1}
    step()
    assert len(client.sent) == 1
    clock.now += 3600
    step()
    assert client.sent == [[b"same"], [b"same"]]
    assert store.depth() == {"delivered": 1}


@pytest.mark.parametrize("kind", ["throttled", "access"])
def test_a_pixel_that_must_rest_keeps_its_events_and_their_attempts(
    store: MemoryStore, clock: Clock, kind: Any
) -> None:
    store_rows(store, row("e1"), row("e2"))
    step = rounds(store, Script(Outcome(kind, "code 190")))
    step()
    assert step() > 1
    clock.now += 3600
    assert [e.attempts for e in store.lease(PIXEL, limit=9, seconds=9).events] == [0, 0]


def test_a_courier_delivers_on_its_own_thread_and_stops(store: MemoryStore) -> None:
    client = Script()
    courier = Courier(store, PIXEL, lambda: client)
    store.on_commit = lambda waiting: courier.wake(waiting[PIXEL])
    store_rows(store, row())
    end = time.monotonic() + 10
    while store.depth() != {"delivered": 1}:
        assert time.monotonic() < end
        time.sleep(0.01)
    courier.stop(5)
    assert courier._thread is not None
    assert not courier._thread.is_alive()


def test_what_is_past_its_retention_is_pruned(clock: Clock) -> None:
    capi = CAPI(make_config(retention_days=35))
    old, young = time.time() - 36 * 86_400, time.time() - 34 * 86_400
    store_rows(capi.store, row("old", event_time=old, payload=None, server="unmapped"),
               row("young", event_time=young, payload=None, server="unmapped"))  # fmt: skip
    capi._prune()
    assert capi.store.depth() == {"unmapped": 1}


# -- pauses that all processes respect -----------------------------------------------------------


def test_a_pixel_that_one_process_lets_rest_rests_in_all(store: MemoryStore, clock: Clock) -> None:
    store_rows(store, row("e1"))
    rounds(store, Script(Outcome("throttled", "code 4", 120.0)))()
    other = Script()
    step = rounds(store, other)
    step()
    assert other.sent == []
    clock.now += 121
    step()
    assert len(other.sent) == 1


def test_another_token_need_not_wait_for_the_rest_of_a_refused_one(store: MemoryStore) -> None:
    store_rows(store, row("e1"))
    Courier(store, PIXEL, lambda: Script(Outcome("access", "code 190")), token="old")._round()
    (pause,) = store.pauses()
    assert (pause.reason, pause.token) == ("code 190", "old")
    same, new = Script(), Script()
    Courier(store, PIXEL, lambda: same, token="old")._round()
    Courier(store, PIXEL, lambda: new, token="new")._round()
    assert (same.sent, len(new.sent)) == ([], 1)


def counted(store: MemoryStore, kind: str) -> list[Count]:
    store.flush(10)
    return [one for one in store.tallies(0, float("inf")).counts if one.kind == kind]


def test_a_pixel_that_comes_to_rest_is_counted_with_the_reason(store: MemoryStore) -> None:
    store_rows(store, row("e1"))
    step = rounds(store, Script(Outcome("access", "code 190/463")))
    step()
    step()
    assert counted(store, "rested") == [Count("rested", "code 190/463", pixel_id=PIXEL)]


@pytest.mark.parametrize(("off", "reason"), [(61, "ahead"), (-61, "behind")])
def test_a_clock_that_differs_from_metas_is_counted_once_an_hour(
    store: MemoryStore, clock: Clock, off: float, reason: str
) -> None:
    check = ClockCheck(PIXEL, store.count, lambda: clock.now + off)
    check(formatdate(clock.now, usegmt=True))
    clock.now += 3599
    check(formatdate(clock.now, usegmt=True))
    assert counted(store, "skewed") == [Count("skewed", reason, pixel_id=PIXEL)]
    clock.now += 1
    check(formatdate(clock.now, usegmt=True))
    assert sum(one.n for one in counted(store, "skewed")) == 2


@pytest.mark.parametrize("date", [None, "", "nonsense", "Wed, 99 Foo 2026 07:28:00 GMT"])
def test_a_date_that_says_nothing_or_a_minute_of_difference_is_no_skew(
    store: MemoryStore, clock: Clock, date: str | None
) -> None:
    check = ClockCheck(PIXEL, store.count, lambda: clock.now + 60)
    check(date)
    check(formatdate(clock.now, usegmt=True))
    assert counted(store, "skewed") == []


def test_a_throttle_does_not_end_with_another_token(store: MemoryStore) -> None:
    store_rows(store, row("e1"))
    Courier(store, PIXEL, lambda: Script(Outcome("throttled", "code 4")), token="old")._round()
    other = Script()
    Courier(store, PIXEL, lambda: other, token="new")._round()
    assert other.sent == []


def test_a_used_up_quota_lets_the_pixel_rest_after_what_was_delivered(store: MemoryStore) -> None:
    store_rows(store, row("e1"))
    rounds(store, Script(Outcome("delivered", "usage", 300.0)))()
    assert store.depth() == {"delivered": 1}
    assert [one.reason for one in store.pauses()] == ["usage"]


def test_what_an_error_of_ours_left_unsettled_is_due_at_once(store: MemoryStore) -> None:
    class Broken(Script):
        def send(self, payloads: Sequence[bytes]) -> Outcome:
            raise RuntimeError("ours")

    store_rows(store, row("e1"))
    with pytest.raises(RuntimeError):
        rounds(store, Broken())()
    assert [one.attempts for one in store.lease(PIXEL, limit=9, seconds=9).events] == [1]


def test_what_was_delivered_while_the_store_was_full_is_not_sent_again(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_rows(store, row("e1"))
    client = Script()
    step = rounds(store, client)
    honest = store.settle

    def full(*given: object) -> int:
        raise StoreError("the disk is full")

    monkeypatch.setattr(store, "settle", full)
    for _ in range(2):
        with pytest.raises(StoreError):
            step()
    monkeypatch.setattr(store, "settle", honest)
    step()
    assert (store.depth(), len(client.sent)) == ({"delivered": 1}, 1)


def test_an_event_that_meta_may_have_taken_is_not_sent_when_it_would_count_twice(
    store: MemoryStore, clock: Clock
) -> None:
    store_rows(store, row("e1"), row("e2"))
    client = Script(Outcome("retry", "ReadTimeout", uncertain=True))
    step = rounds(store, client)
    step()
    clock.now += 2 * 86400
    step()
    assert (store.depth(), len(client.sent)) == ({"expired": 2}, 1)


def test_an_event_that_meta_surely_did_not_take_waits_for_seven_days(
    store: MemoryStore, clock: Clock
) -> None:
    store_rows(store, row("e1"))
    client = Script(Outcome("retry", "ConnectError"))
    step = rounds(store, client)
    step()
    clock.now += 3 * 86400
    step()
    assert store.depth() == {"delivered": 1}


# -- what the answer says ------------------------------------------------------------------------


@contextlib.contextmanager
def answering(raw: bytes, drip: float = 0.0) -> Iterator[str]:
    """A server that answers every request with `raw`, one byte each `drip` seconds if given."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                with contextlib.suppress(OSError):
                    for at in range(len(raw)) if drip else (0,):
                        connection.sendall(raw[at : at + 1] if drip else raw)
                        time.sleep(drip)
                    # What is unread when a socket closes resets the connection.
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


def sent_to(raw: bytes, drip: float = 0.0) -> Outcome:
    with answering(raw, drip) as url:
        client = GraphClient(url, "v26.0", PIXEL, "t")
        try:
            return client.send([EVENT % NOON])
        finally:
            client.close()


def answer(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


RECEIPT = b'{"events_received":1,"messages":[],"fbtrace_id":"x"}'


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        (['X-App-Usage: {"call_count":99,"total_time":5}'], None),
        (['X-App-Usage: {"call_count":100,"total_time":5}'], 60.0),
        (['X-Business-Use-Case-Usage: {"1":[{"total_cputime":100,'
          '"estimated_time_to_regain_access":7}]}'], 420.0),
        (["X-App-Usage: nonsense", 'X-Business-Use-Case-Usage: {"1":7}'], None),
        (['X-App-Usage: {"call_count":"all"}'], None),
    ],
)  # fmt: skip
def test_usage_at_100_percent_is_a_rest(headers: list[str], seconds: float | None) -> None:
    outcome = sent_to(answer("200 OK", RECEIPT, *headers))
    assert (outcome.kind, outcome.delay) == ("delivered", seconds)


def test_throttled_without_a_time_rests_as_long_as_the_usage_says() -> None:
    body = b'{"error":{"message":"m","type":"t","code":80004}}'
    usage = '{"1":[{"call_count":100,"estimated_time_to_regain_access":2}]}'
    usage = f"X-Business-Use-Case-Usage: {usage}"
    assert sent_to(answer("400 Bad", body, usage)) == Outcome("throttled", "code 80004", 120.0)


ANSWERS = [
    (b"", True),
    (answer("200 OK", b"<html>"), True),
    (answer("200 OK", b'{"events_received":0}'), True),
    (answer("502 Bad", b"<html>proxy"), True),
    (answer("500 Bad", b'{"error":{"code":2}}'), False),
]


@pytest.mark.parametrize(("raw", "uncertain"), [*ANSWERS, (answer("200 OK", RECEIPT), False)])
def test_only_the_date_of_metas_own_answers_is_read(raw: bytes, uncertain: bool) -> None:
    dates: list[str | None] = []
    with answering(raw.replace(b"Connection", b"Date: then\r\nConnection", 1)) as url:
        client = GraphClient(url, "v26.0", PIXEL, "t", check_date=dates.append)
        client.send([EVENT % NOON])
        client.close()
    assert dates == ([] if uncertain else ["then"])


def test_a_process_whose_clock_is_ahead_counts_it_as_it_delivers() -> None:
    date = f"Date: {formatdate(time.time() - 3600, usegmt=True)}"
    with answering(answer("200 OK", RECEIPT, date)) as url:
        capi = CAPI(make_config(delivery=True, graph_url=url, page_view=False))
        capi.track("Lead")
        assert capi.flush(20)
        capi.close()
    counts = capi.store.tallies(0, float("inf")).counts
    told = [(one.reason, one.pixel_id, one.n) for one in counts if one.kind == "skewed"]
    assert told == [("ahead", capi.config.fixed_pixels[0].id, 1)]


@pytest.mark.parametrize(
    ("specs", "fields"),
    [
        ([["custom_data", "currency"]], "custom_data.currency"),
        (["custom_data.currency"], "custom_data.currency"),
        ([["data[0][custom_data][currency]"]], "custom_data.currency"),
        ([["data", 0, "user_data", "em", 0]], "user_data.em.0"),
        ([["user_data[em][0]"], ["event_time"], ["event_time"]], "user_data.em[0] event_time"),
        ([["a"], ["b"], ["c"], ["d"]], "a b c"),
        ([["data"]], ""),
        ([["jo@example.com"], ["Jo Doe"], ["62a1"], ["x" * 61], [["em"]], None], ""),
        ("event_time", ""),
        ({"event_time": 1}, ""),
    ],
)
@pytest.mark.parametrize("encode", [lambda value: value, json.dumps], ids=["object", "text"])
def test_a_refusal_names_the_fields_that_meta_blames_and_never_a_value(
    client: GraphClient, fake: FakeMeta, encode: Callable[[Any], Any], specs: Any, fields: str
) -> None:
    data = encode({"blame_field_specs": specs, "more": "jo@example.com"})
    error = {"code": 100, "error_subcode": 2804010, "message": "x", "error_data": data}
    fake.fail_next(400, {"error": error})
    assert client.send([EVENT % NOON]).reason == f"code 100/2804010 {fields}".rstrip()


@pytest.mark.parametrize("data", ["[" * 20_000, "nonsense", [], 7, None])
def test_error_data_of_any_kind_is_survived(client: GraphClient, fake: FakeMeta, data: Any) -> None:
    fake.fail_next(400, {"error": {"code": 100, "error_data": data}})
    assert client.send([EVENT % NOON]) == Outcome("unsure", "code 100")


@pytest.mark.parametrize(("raw", "uncertain"), ANSWERS)
def test_only_an_answer_of_metas_own_is_certain(raw: bytes, uncertain: bool) -> None:
    outcome = sent_to(raw)
    assert (outcome.kind, outcome.uncertain) == ("retry", uncertain)


def test_a_refused_connection_is_certain() -> None:
    client = GraphClient(closed_port(), "v26.0", PIXEL, "t")
    outcome = client.send([EVENT % NOON])
    client.close()
    assert (outcome.kind, outcome.uncertain) == ("retry", False)


def test_an_answer_whose_headers_drip_is_ended_in_total(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "DEADLINE", 0.5)
    outcome = sent_to(answer("200 OK", RECEIPT), drip=0.2)
    # Waited for to its end, it would be a delivery.
    assert (outcome.kind, outcome.uncertain) == ("retry", True)


@pytest.mark.parametrize("value", ["Wed, 21 Oct 2099 07:28:00 GMT", "nonsense", "-5", "1" * 400])
def test_a_retry_after_of_any_kind_is_bounded(value: str) -> None:
    body = b'{"error":{"code":4}}'
    outcome = sent_to(answer("429 Too Many", body, f"Retry-After: {value}"))
    assert outcome.kind == "throttled"
    assert 1 <= rest(outcome, 1) <= 3600


def test_a_request_that_outlasts_the_stop_is_given_up_at_once(store: MemoryStore) -> None:
    asked, answer = threading.Event(), threading.Event()

    class Hanging(Script):
        def send(self, payloads: Sequence[bytes]) -> Outcome:
            asked.set()
            answer.wait(30)
            return Outcome("delivered")

    store_rows(store, row("e1"), row("e2"))
    courier = Courier(store, PIXEL, Hanging)
    courier.start()
    assert asked.wait(10)
    courier.stop(0.1)
    assert store.depth() == {"pending": 2}
    answer.set()
    assert courier._thread is not None
    courier._thread.join(10)
    # Too late: somebody else may have the events by now.
    assert store.depth() == {"pending": 2}
