"""The one HTTP client: bounded, and plain about how it failed."""

import threading
from contextlib import closing

import pytest

from capi_middleware.meta.http import HTTPClient, NoAnswer
from tests.delivery.test_delivery import answer, answering
from tests.support.servers import closed_port


def test_an_answer_longer_than_wanted_is_cut_and_says_so() -> None:
    with answering(answer("200 OK", b"x" * 5000)) as url, closing(HTTPClient(1000)) as client:
        got = client.send("GET", url, seconds=5, headers={})
    assert (got.status, len(got.body), got.cut) == (200, 1000, True)


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    raw = answer("302 Found", b"", "Location: http://127.0.0.1:1/")
    with answering(raw) as url, closing(HTTPClient(1000)) as client:
        assert client.send("GET", url, seconds=5, headers={}).status == 302


@pytest.mark.parametrize("body", [b"", b"x" * 50])
def test_an_answer_that_drips_ends_in_time_and_the_next_request_works(body: bytes) -> None:
    with closing(HTTPClient(1000)) as client:
        with answering(answer("200 OK", body), drip=0.1) as url:
            # All of it would be an answer, five seconds later.
            with pytest.raises(NoAnswer) as failed:
                client.send("GET", url, seconds=0.4, headers={})
            assert failed.value.sent
        with answering(answer("200 OK", body)) as url:
            assert client.send("GET", url, seconds=5, headers={}).status == 200


def test_what_surely_was_not_sent_is_told_apart_and_no_address_is_named() -> None:
    with closing(HTTPClient(1000)) as client, pytest.raises(NoAnswer) as failed:
        client.send("GET", closed_port() + "/secret", seconds=5, headers={})
    assert (str(failed.value), failed.value.sent) == ("refused", False)
    assert failed.value.__suppress_context__


def test_closing_from_another_thread_ends_the_request_for_good() -> None:
    with answering(answer("200 OK", b"x" * 50), drip=1) as url:
        client = HTTPClient(1000)
        threading.Timer(0.2, client.close).start()
        with pytest.raises(NoAnswer):  # all of it would be an answer, some minutes later
            client.send("GET", url, seconds=600, headers={})
        assert client.closed
        with pytest.raises(NoAnswer):
            client.send("GET", url, seconds=30, headers={})


def test_where_no_thread_can_begin_a_request_is_sent_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(timer: threading.Timer) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")  # Python 3.12

    monkeypatch.setattr(threading.Timer, "start", refuse)
    with answering(answer("200 OK", b"x")) as url, closing(HTTPClient(1000)) as client:
        assert client.send("GET", url, seconds=5, headers={}).status == 200
