"""custom_data: what Meta would refuse is found before it is queued."""

from collections.abc import Iterator
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware.meta.custom_data import clean, refused_by_meta, worth

ITEM = {"id": "kettle", "quantity": 2, "item_price": Decimal("19.50")}


@pytest.mark.parametrize(
    ("field", "given", "kept"),
    [
        ("value", Decimal("19.99"), 19.99),
        ("value", Decimal("20"), 20),
        ("value", "19.99", 19.99),
        ("value", 0, 0),
        ("currency", " eur ", "EUR"),
        ("content_ids", ["a", 7], ["a", "7"]),
        ("content_ids", "a", ["a"]),
        ("content_ids", ("a", None), ["a"]),
        ("contents", [ITEM], [{"id": "kettle", "quantity": 2, "item_price": 19.5}]),
        ("contents", [{"id": 7}], [{"id": "7"}]),
        ("num_items", "3", 3),
        ("status", True, True),
        ("content_name", "T\u00e9", "T\u00e9"),
        ("size", {"w": 1.5}, {"w": 1.5}),
        ("delivery_category", "curbside", "curbside"),
        ("content_name", "x" * 2000, "x" * 1000),
    ],
)
def test_what_is_usable_is_kept_in_metas_form(field: str, given: Any, kept: Any) -> None:
    more = {"currency": "EUR"} if field == "value" else {}
    cleaned, wrong = clean("Custom", {field: given, **more})
    assert cleaned[field] == kept
    assert type(cleaned[field]) is type(kept)
    assert wrong == []


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("value", float("nan")),
        ("value", float("inf")),
        ("value", Decimal("Infinity")),
        ("value", True),
        ("value", "1.299,00"),
        ("value", 10**20),
        ("currency", "US$"),
        ("currency", "EURO"),
        ("currency", "XXX"),
        ("currency", "ZZZ"),
        ("currency", 978),
        ("contents", [{"quantity": 1}]),
        ("contents", [{"id": ""}]),
        ("contents", [{"id": "a", "item_price": float("nan")}]),
        ("contents", ["kettle"]),
        ("contents", []),
        ("contents", "kettle"),
        ("content_ids", [b"a"]),
        ("content_ids", []),
        ("num_items", 1.5),
        ("num_items", -1),
        ("content_category", ["a"]),
        ("delivery_category", "drone"),
        ("search_string", "jane@example.com"),
        ("note", "please call jane@example.com"),
        ("note", b"x"),
    ],
)
def test_what_is_not_usable_is_left_out_and_named(field: str, given: Any) -> None:
    cleaned, wrong = clean("Custom", {field: given})
    assert field not in cleaned
    assert field in wrong


@pytest.mark.parametrize(
    ("name", "data", "refused"),
    [
        ("Purchase", {"value": 1, "currency": "EUR"}, False),
        ("Purchase", {"value": 1}, True),
        ("Purchase", {"currency": "EUR"}, True),
        ("Purchase", {}, True),
        ("Lead", {"value": 1}, True),
        ("Lead", {"currency": "EUR"}, False),
        ("Lead", {}, False),
    ],
)
def test_value_and_currency_come_together(name: str, data: dict[str, Any], refused: bool) -> None:
    assert refused_by_meta(name, clean(name, data)[0]) is refused


class Unreadable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_an_object_that_cannot_be_read_is_left_out() -> None:
    assert clean("Custom", {"x": Unreadable()}) == ({}, ["x"])


JSONABLE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.decimals()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip
FIELD = st.sampled_from(["value", "currency", "contents", "content_ids", "num_items"]) | st.text()


@given(st.dictionaries(FIELD, JSONABLE))
def test_nothing_raises_and_what_is_kept_is_json(data: dict[str, Any]) -> None:
    cleaned, _ = clean("Purchase", data)
    assert msgspec.json.decode(msgspec.json.encode(cleaned)) is not None


LONE = "\ud800"


@pytest.mark.parametrize(
    "data",
    [
        {"contents": [{"id": "1", 7: "x"}]},
        {LONE: "x"},
        {"plan": {LONE: "x"}},
        {"plan": [{LONE: {LONE: LONE}}]},
        {"contents": [{"id": "1", LONE: "x"}]},
        {"contents": [{"id": LONE}]},
        {"content_ids": [LONE]},
        {"content_name": LONE, LONE * 2000: 1},
        {"order_id": LONE},
    ],
    ids=repr,
)
def test_a_lone_surrogate_anywhere_never_costs_the_event(data: dict[str, Any]) -> None:
    cleaned, wrong = clean("Lead", data)
    assert not wrong
    assert len(cleaned) == len(data)
    assert msgspec.json.encode(cleaned)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())


@given(
    st.recursive(
        LEAVES, lambda one: st.lists(one) | st.dictionaries(st.text(st.characters()), one),
        max_leaves=8,
    )
)  # fmt: skip
def test_whatever_is_given_what_is_kept_can_be_sent(value: Any) -> None:
    cleaned, _ = clean("Lead", {"plan": value, "contents": value, "content_ids": value})
    assert msgspec.json.encode(cleaned)


class Rows:
    """As a QuerySet: it can be gone through, and is no Sequence."""

    def __init__(self, *rows: Any) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


class Model:
    def __str__(self) -> str:
        return "Product object (1)"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (Rows("a", 7), ["a", "7"]),
        (("a" for _ in range(2)), ["a", "a"]),
        ({"a": 1}.keys(), ["a"]),
        ('["a", 7, null]', ["a", "7"]),
        (" [7]", ["7"]),
        ([7.0, Decimal("8.00")], ["7", "8"]),
        (7.0, ["7"]),
        (UUID(int=1), ["00000000-0000-0000-0000-000000000001"]),
    ],
    ids=range(8),
)
def test_content_ids_are_read_from_whatever_holds_them(given: Any, kept: list[str]) -> None:
    assert clean("Lead", {"content_ids": given}) == ({"content_ids": kept}, [])


@pytest.mark.parametrize(
    "bad",
    ["jane@example.com", b"b", 1.5, True, [], {"id": "b"}, float("nan"), Unreadable(), Model()],
    ids=range(9),
)
def test_one_bad_content_id_takes_no_other_along(bad: Any) -> None:
    assert clean("Lead", {"content_ids": ["a", bad, 7]}) == (
        {"content_ids": ["a", "7"]}, ["content_ids"]
    )  # fmt: skip


@pytest.mark.parametrize("id_", ["b", 8])
@pytest.mark.parametrize(
    "bad",
    [
        {"quantity": "abc"},
        {"item_price": "1.299,00"},
        {"quantity": float("nan")},
        {"quantity": True},
        {"delivery_category": "drone"},
        {"title": "for jane@example.com"},
        {"id": Model()},
        {"id": None},
        {"id": ""},
        {"id": float("nan")},
    ],
    ids=range(10),
)
def test_one_bad_object_of_contents_takes_no_other_along(id_: object, bad: dict[str, Any]) -> None:
    contents = [{"id": "a", "quantity": 1}, {"id": id_, **bad}, {"id": 7}]
    cleaned, wrong = clean("Lead", {"contents": contents})
    assert cleaned == {"contents": [{"id": "a", "quantity": 1}, {"id": "7"}]}
    assert wrong == ["contents"]


@pytest.mark.parametrize("id_", ["a", 7, 7.0, Decimal(7), UUID(int=7)], ids=repr)
def test_numbers_in_contents_are_numbers_whatever_the_id_is(id_: object) -> None:
    item = {"id": id_, "quantity": "2", "item_price": "19.50"}
    cleaned, wrong = clean("Lead", {"contents": Rows(item)})
    assert cleaned["contents"][0] | {"id": ""} == {"id": "", "quantity": 2, "item_price": 19.5}
    assert wrong == []


def test_contents_may_be_a_text_of_json() -> None:
    cleaned, wrong = clean("Lead", {"contents": '[{"id": 7, "quantity": "2"}]'})
    assert (cleaned, wrong) == ({"contents": [{"id": "7", "quantity": 2}]}, [])
    assert clean("Lead", {"contents": "[{", "content_ids": "[a"}) == (
        {},
        ["contents", "content_ids"],
    )


def test_of_a_list_without_an_end_its_beginning_is_looked_at() -> None:
    assert len(clean("Lead", {"content_ids": count(1)})[0]["content_ids"]) == 1000


@pytest.mark.parametrize(
    ("value", "currency", "units"),
    [
        (19.99, "EUR", 1999),
        (0.29, "EUR", 29),
        (1200, "JPY", 1200),
        (4.999, "KWD", 4999),
        (1.2345, "CLF", 12345),
        (-5.5, "USD", -550),
        (0, "USD", 0),
        (10**10, "USD", 10**12),
    ],
)
def test_what_an_event_is_worth_is_told_in_the_smallest_unit(
    value: float, currency: str, units: int
) -> None:
    assert worth({"value": value, "currency": currency}) == (currency, units)


@pytest.mark.parametrize(
    "data",
    [{}, {"value": 5}, {"currency": "EUR"}, {"value": 1e308, "currency": "EUR"},
     {"value": 2**53 - 1, "currency": "EUR"}, {"value": -1e300, "currency": "KWD"}],
)  # fmt: skip
def test_what_no_shop_sells_for_is_worth_nothing_that_is_known(data: dict[str, Any]) -> None:
    assert worth(data) == ("", 0)
