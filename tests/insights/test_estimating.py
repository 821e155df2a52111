"""What Meta recommends by name, and what a phone number would bring by this site's own days."""

import random
import re
from collections.abc import Sequence

import pytest
from facebook_business.adobjects.adaccountrecommendations import AdAccountRecommendations

from capi_middleware.insights.estimating import estimates
from capi_middleware.insights.model import Day, EventPoint
from capi_middleware.insights.reading import SIGNALS, recommendations_of


def test_each_signal_recommendation_of_the_sdk_has_a_name_for_people() -> None:
    kinds = vars(AdAccountRecommendations.RecommendationNames)
    words = {one for name, one in kinds.items() if not name.startswith("_")}
    about = {one for one in words if re.match(r"(CAPI|PIXEL|SIGNALS|SETUP_PIXEL)(_|$)", one)}
    # One is about the value of conversions, not about what is sent.
    assert about - {"SIGNALS_VO_USING_CO_MODEL"} == set(SIGNALS)
    assert len(set(SIGNALS.values())) == len(SIGNALS) >= 23
    for kind, title in SIGNALS.items():
        [found] = recommendations_of([{"recommendations": [{"type": kind}]}])
        assert (found.title, found.capi) == (title, True)
        assert "_" not in title


def days(shares: Sequence[float], slope: float, noise: float = 0.0, seed: int = 7) -> list[Day]:
    """A day for each share of phone numbers, scored 5.0 and what they are worth."""
    chance = random.Random(seed)
    return [
        Day(day=f"2026-06-{at + 1:02}", events=[EventPoint(
            pixel_id="123", event_name="Purchase", shares={"phone": share},
            match_quality=5.0 + slope * share + chance.gauss(0, noise),
        )])
        for at, share in enumerate(shares)
    ]  # fmt: skip


RISING = [round(0.02 * n, 2) for n in range(20)]


def test_a_phone_number_is_worth_what_the_days_of_this_site_show() -> None:
    [found] = estimates(days(RISING, slope=3.0))
    assert (found.event_name, found.share, found.days) == ("Purchase", 0.38, 20)
    assert (found.gain, found.low, found.high) == (1.9, 1.9, 1.9)  # 3.0 for the other 62 %


def test_the_interval_holds_the_truth_19_times_of_20() -> None:
    held, wide = 0, 0.0
    for seed in range(200):
        [found] = estimates(days(RISING, slope=2.0, noise=0.1, seed=seed))
        assert found.low is not None
        assert found.high is not None
        held += found.low - 0.05 <= 2.0 * 0.62 <= found.high + 0.05
        wide += (found.high - found.low) / 200
    assert 180 <= held <= 199
    assert 0.2 < wide < 1.0


@pytest.mark.parametrize(
    "shares", [RISING[:13], [0.3] * 30, [0.3, 0.35] * 12], ids=["few", "still", "hardly"]
)
def test_too_little_history_is_no_guess(shares: list[float]) -> None:
    [found] = estimates(days(shares, slope=3.0, noise=0.1))
    assert (found.gain, found.low, found.high) == (None, None, None)


def test_a_score_goes_no_further_than_ten_and_what_all_carry_brings_nothing() -> None:
    [found] = estimates(days(RISING, slope=10.0))
    assert found.score + (found.gain or 0) == pytest.approx(10.0)
    assert estimates(days([0.5] * 15 + [1.0], slope=1.0)) == []
    assert estimates([]) == []
