"""One event_id for several events is counted by every store in the same way."""

from typing import Literal

import pytest

from capi_middleware.events import Row, Sighting
from capi_middleware.store.records import Settlement, Use
from capi_middleware.store.store import Store
from capi_middleware.testing import MemoryStore
from tests.support.stores import NOON, PIXEL, row, store_rows


def use(browser: int, order: str = "--------", address: int = 1) -> str:
    return f"{browser:08d}{address:08d}{order}" if browser else f"{'-' * 16}{order}"


def order(
    browser: int, value: str = "v1", *, about: str = "p0000001", name: str = "Purchase"
) -> Row:
    return row("k1", event_name=name, digest=value, uses=use(browser, about), route="GET /o/{id}")


def counted(store: Store) -> dict[tuple[str, str], int]:
    assert store.flush(30)
    counts = store.tallies(0, NOON * 2).counts
    return {(one.event_name, one.reason): one.n for one in counts if one.kind == "reused"}


def test_every_store_joins_what_is_known_of_an_id_in_one_group_and_over_many(store: Store) -> None:
    store_rows(store, order(1), order(1), order(2), order(3))
    assert counted(store) == {}
    store_rows(store, order(1, "v2"), order(2, "v2"), order(5, about="p0000002"))
    store_rows(store, order(1), order(1, name="purchase"))
    store_rows(store, order(1), order(1, name="purchase"), row("t1", uses=use(1)[:16], page="/p"))
    for browser in (1, 2, 3, 1):
        said = Sighting("t1", "Purchase", PIXEL, "sent", "", use(browser)[:16])
        store.sight([said]).result(30)
    assert counted(store) == {
        ("Purchase", "value GET /o/{id}"): 2,
        ("Purchase", "order GET /o/{id}"): 1,
        ("purchase", "name Purchase"): 1,
        ("Purchase", "replay /p"): 2,
    }
    [known] = [one for one in store.find(["k1"]) if one.event_name == "Purchase"]
    assert (known.server, known.browser) == ("pending", "not_rendered")


def told(browser: int, value: str, about: str) -> Row:
    """What a page's own code told of, under an id of the site's own."""
    said = use(browser, about, address=browser)
    return row("order-7", digest=value, uses=said, payload=value.encode(), page="/o/{id}")


def sent(store: Store, outcome: Literal["delivered", "pending"] = "delivered") -> list[bytes]:
    lease = store.lease(PIXEL, limit=9, seconds=60)
    store.settle(lease.lease_id, [Settlement(one.key, outcome) for one in lease.events])
    return [one.payload for one in lease.events]


@pytest.mark.parametrize("state", ["waits", "held", "sent"])
def test_the_page_of_an_order_takes_the_place_of_what_another_visitor_told(
    store: Store, state: str
) -> None:
    store_rows(store, told(1, "lie", "u0000001"))
    if state == "held":
        store.lease(PIXEL, limit=9, seconds=60)
    elif state == "sent":
        assert sent(store) == [b"lie"]
    store_rows(store, told(2, "true", "s0000002"))
    store_rows(store, told(1, "lie", "u0000003"), told(2, "true", "s0000002"))
    assert sent(store) == [b"true"]
    assert counted(store) == {("Purchase", "told /o/{id}"): 2}
    found = sorted((one.server, one.n) for one in store.tallies(0, NOON * 2).rows)
    assert found == [("delivered", 2 if state == "sent" else 1)]


def test_both_in_one_group_are_one_event_of_the_page_of_the_order(store: Store) -> None:
    store_rows(store, told(1, "lie", "u0000001"), told(2, "true", "s0000002"))
    assert sent(store) == [b"true"]


@pytest.fixture
def memory() -> Store:
    return MemoryStore()


def test_more_visitors_than_are_kept_are_counted(memory: Store) -> None:
    for browser in range(1, 8):
        store_rows(memory, order(browser))
    store_rows(memory, order(1))
    assert counted(memory) == {("Purchase", "visitor GET /o/{id}"): 3}


def test_a_word_that_comes_before_the_event_is_no_use_of_it(memory: Store) -> None:
    memory.sight([Sighting("k1", "Purchase", PIXEL, "sent", "", use(9)[:16])]).result(30)
    store_rows(memory, order(1), order(1))
    assert counted(memory) == {}
    [known] = memory.find(["k1"])
    assert (known.server, known.browser) == ("pending", "sent")


# -- what is judged, without a store ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "one", "why"),
    [
        (use(1), use(1), ""),
        (use(0), use(1), ""),
        (use(1, "o0000001"), use(1, "o0000001"), ""),
        (use(1, "o0000001"), use(1, "o0000002"), "order"),
        (use(0, "o0000001"), use(0, "o0000002"), "order"),
        (use(1, "o0000001"), use(2, "p0000002"), ""),
        (use(1, "p0000001"), use(2, "p0000001"), ""),
        (use(1, "p0000001"), use(1, "p0000002"), ""),
        (use(1, "p0000001"), use(2, "p0000002"), "order"),
        (use(1, "u0000001"), use(2, "u0000002"), ""),
    ],
)
def test_two_uses_are_surely_two_events_or_may_be_one(seen: str, one: str, why: str) -> None:
    assert Use(seen, place="/o").joined(Use(one, place="/o"))[0] == why


def test_what_knows_nothing_says_nothing() -> None:
    seen = Use(use(1), "v1", "/o")
    assert seen.joined(Use("-" * 24)) == ("", seen)


def test_at_most_four_uses_are_kept() -> None:
    known = Use()
    for browser in range(1, 10):
        _, known = known.joined(Use(use(browser)))
    assert len(known.uses) == 4 * 24
