from decimal import Decimal

import pytest

from capi_middleware.capture.digesting import ValueDigest

digest = ValueDigest(["first secret of the site", "an older one"])


@pytest.mark.parametrize("same", ["12.5", "12.50", " 12.500 ", Decimal("12.50"), "1.25e1"])
def test_equal_numbers_have_one_digest(same: object) -> None:
    assert digest(same, "EUR") == digest(12.5, "eur")


@pytest.mark.parametrize("other", [(12.51, "EUR"), (12.5, "USD"), (12.5, None), (-12.5, "EUR")])
def test_another_value_or_currency_has_another_digest(other: tuple[object, object]) -> None:
    assert digest(*other) != digest(12.5, "EUR")


def test_a_digest_is_short_and_shows_nothing() -> None:
    found = digest(99.99, "EUR")

    assert len(found) == 16
    assert set(found) <= set("0123456789abcdef")
    assert found != ValueDigest(["another secret of a site"])(99.99, "EUR")


def test_zero_is_a_value() -> None:
    assert digest(0, "EUR") == digest("-0.00", "EUR") != ""


@pytest.mark.parametrize(
    "value", [None, "", "12,50", "abc", float("nan"), float("inf"), True, [], "1e9999999999"]
)
def test_what_is_no_number_has_no_digest(value: object) -> None:
    assert digest(value, "EUR") == ""
