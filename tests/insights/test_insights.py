"""Meta's own view, asked of a fake Meta on a real port."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.responses import RedirectResponse

from capi_middleware import CAPI, Pixel
from capi_middleware.insights import looking, reading
from capi_middleware.insights.looking import (
    CLAIM_SECONDS,
    DUE,
    HOUR,
    NAME,
    Lookout,
    claim,
    hasten,
    refresh,
    with_today,
)
from capi_middleware.insights.model import Insights, Problem, is_wrong, trends
from capi_middleware.testing import FakeMeta
from tests.support.configs import PIXEL_ID, TOKEN
from tests.support.insights import READ, Shelf, reading_config, slice_of
from tests.support.processes import until
from tests.support.servers import serve
from tests.testing.test_fake_meta import call, event, post

ALL = frozenset({"ads_read", "read_ads_dataset_quality"})
Look = Callable[..., Insights]


@pytest.fixture
def fake() -> FakeMeta:
    fake = FakeMeta(tokens={PIXEL_ID: TOKEN})
    fake.insights.scopes = {READ: ALL}
    return fake


@pytest.fixture
def meta(fake: FakeMeta) -> Iterator[str]:
    with serve(fake.app) as url:
        yield url


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def look(meta: str, shelf: Shelf) -> Look:
    def look(**settings: Any) -> Insights:
        return refresh(reading_config(meta, **settings), shelf)  # type: ignore[arg-type] # a part

    return look


def fill(fake: FakeMeta, hours_ago: int = 2) -> int:
    """Two server events of an hour ago and one browser event now; the hour's start."""
    then = int(time.time()) - hours_ago * HOUR
    for event_id in ("a", "b"):
        post(fake, event(event_id=event_id, event_time=then), pixel=PIXEL_ID, token=TOKEN)
    call(fake, "GET", f"/tr/?id={PIXEL_ID}&ev=Purchase&eid=a")
    return then // HOUR * HOUR


def test_all_of_it_is_read_and_kept(fake: FakeMeta, look: Look, shelf: Shelf) -> None:
    hour = fill(fake)
    shelf.__init__([slice_of(hour, "Purchase", "delivered", "sent", 1),  # type: ignore[misc]
                    slice_of(hour, "Purchase", "pending", "sent", 4)])  # fmt: skip
    found = look()
    (pixel,) = found.pixels
    assert (pixel.quality_problem, pixel.hours_problem) == (None, None)
    (quality,) = pixel.quality
    assert (quality.event_name, quality.coverage, quality.coverage_goal) == ("Purchase", 1.0, 0.75)
    assert quality.acr == 1.0
    assert quality.match_quality == 3.7
    assert {one.identifier: one.share for one in quality.match_keys}["email"] == 1.0
    (key,) = quality.dedupe_keys
    assert (key.key, key.browser, key.server, key.coverage) == ("event_id", 1.0, 1.0, 1.0)
    (counted,) = pixel.hours
    assert (counted.meta_server, counted.our_server, counted.our_browser) == (2, 1, 5)
    assert found.opportunity is not None
    assert found.opportunity.score == 62.0
    assert [(one.type, one.capi) for one in found.opportunity.recommendations] == [
        ("CAPI_PERFORMANCE_MATCH_KEY_V3", True),
        ("CREATIVE_LIMITED", False),
    ]
    assert [one.opportunity_score for one in found.history] == [62.0]
    assert json.loads(shelf.bodies[NAME])["pixels"][0]["quality"][0]["coverage"] == 1.0


def test_a_token_that_may_only_post_is_told_what_to_do(fake: FakeMeta, look: Look) -> None:
    fill(fake)
    fake.insights.scopes = {TOKEN: frozenset()}  # made before July 2025
    found = look(pixels=[Pixel(PIXEL_ID, access_token=TOKEN)])
    (pixel,) = found.pixels
    assert found.opportunity is not None
    assert is_wrong(found)
    problems = [pixel.quality_problem, pixel.hours_problem, found.opportunity.problem]
    assert [one and one.state for one in problems] == ["no_permission"] * 3
    assert problems[0] is not None
    assert "may only post" in problems[0].explanation
    assert "read_token" in problems[0].fix
    assert found.history == []


def test_an_ordinary_token_reads_the_quality_and_that_it_reads_no_counts_is_nothing_wrong(
    fake: FakeMeta, look: Look
) -> None:
    fill(fake)
    found = look(pixels=[Pixel(PIXEL_ID, access_token=TOKEN)], ad_account=None)
    (pixel,) = found.pixels
    assert pixel.quality
    assert pixel.hours_problem is not None
    assert pixel.hours_problem.state == "no_permission"
    assert not is_wrong(found)
    assert "email" in found.history[0].events[0].shares


def test_a_token_for_the_quality_alone_reads_the_quality(fake: FakeMeta, look: Look) -> None:
    fill(fake)
    fake.insights.scopes = {READ: frozenset({"read_ads_dataset_quality"})}
    (pixel,) = look().pixels
    assert pixel.quality_problem is None
    assert pixel.quality
    assert pixel.hours_problem is not None
    assert pixel.hours_problem.state == "no_permission"


def test_a_refused_token_is_a_permission_problem(fake: FakeMeta, look: Look) -> None:
    fake.insights.scopes = {}
    (pixel,) = look().pixels
    assert pixel.quality_problem is not None
    assert pixel.quality_problem.state == "no_permission"
    assert "code 190" in pixel.quality_problem.explanation


def test_nothing_at_meta_is_said_plainly(fake: FakeMeta, look: Look) -> None:
    fake.insights.opportunity_score = None
    fake.insights.recommendations = []
    found = look()
    (pixel,) = found.pixels
    assert found.opportunity is not None
    problems = [pixel.quality_problem, pixel.hours_problem, found.opportunity.problem]
    assert [one and one.state for one in problems] == ["no_data"] * 3
    assert pixel.quality == []


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ({"status": 200, "body": "<html>"}, "no answer of the Graph API (http 200)"),
        ({"status": 502, "body": "<html>"}, "no answer of the Graph API (http 502)"),
        ({"status": 200, "body": [1]}, "no answer of the Graph API (http 200)"),
        ({"status": 200, "body": "[" * 200_000}, "no answer of the Graph API (http 200)"),
        ({"status": 200, "body": "x" * 3_000_000}, "too long (http 200)"),
        ({"status": 503}, "code 1"),
        ({"status": 429}, "throttles (code 17)"),
        ({"drop": "before"}, "gave no answer"),
        ({"status": 302, "headers": {"location": "http://127.0.0.1:1/"}}, "redirect (http 302)"),
    ],
)
def test_an_answer_that_is_none_leaves_the_last_numbers(
    fake: FakeMeta, look: Look, fault: dict[str, Any], text: str
) -> None:
    fill(fake)
    before = look()
    fake.fail_next(**({"body": ""} if "headers" in fault else {}) | fault,
                   endpoint="dataset_quality")  # fmt: skip
    (pixel,) = look().pixels
    assert pixel.quality == before.pixels[0].quality
    assert pixel.quality_problem is not None
    assert pixel.quality_problem.state == "failed"
    assert text in pixel.quality_problem.explanation
    (pixel,) = look().pixels
    assert pixel.quality_problem is None


def test_a_slow_answer_ends_at_the_deadline_and_the_rest_is_asked(
    fake: FakeMeta, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "QUESTION_SECONDS", 0.3)
    fill(fake)
    fake.fail_next(200, delay=1, endpoint="dataset_quality")
    found = look()
    assert found.pixels[0].quality_problem is not None
    assert found.pixels[0].quality_problem.state == "failed"
    assert found.pixels[0].hours
    assert found.opportunity is not None
    assert found.opportunity.score == 62.0


def test_a_round_ends_at_its_deadline(
    fake: FakeMeta, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ROUND_SECONDS", 0.3)
    fake.fail_next(200, delay=1, times=None, endpoint="dataset_quality")
    found = look()
    assert found.pixels[0].hours_problem is not None
    assert "no time left" in found.pixels[0].hours_problem.explanation


def test_the_pages_of_a_long_answer_are_followed_without_a_token_in_any_address(
    fake: FakeMeta, look: Look, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(reading, "PAGE", 2)
    now = int(time.time()) // HOUR * HOUR
    hours = {now - n * HOUR: {"Lead": n} for n in range(1, 8)}
    fake.insights.stats[PIXEL_ID] = {"WEB_ONLY": hours, "SERVER_ONLY": {}}
    found = look()
    assert sum(one.meta_browser for one in found.pixels[0].hours) == sum(range(1, 8))
    assert len(fake.insights.requests) == 1 + 4 + 1 + 2
    for url, headers in fake.insights.requests:
        assert READ not in url
        assert "access_token" not in url
        assert headers["authorization"] == f"Bearer {READ}"
    assert READ not in caplog.text
    monkeypatch.setattr(reading, "MOST_PAGES", 3)
    problem = look().pixels[0].hours_problem
    assert problem is not None
    assert "more than 3 pages" in problem.explanation


def test_a_redirect_is_not_followed(fake: FakeMeta, look: Look) -> None:
    stolen: list[str] = []

    async def thief(scope: Any, receive: Any, send: Any) -> None:
        stolen.append(scope["path"])
        await RedirectResponse("/")(scope, receive, send)

    with serve(thief) as elsewhere:
        fake.fail_next(307, "", headers={"location": f"{elsewhere}/x"}, times=None,
                       endpoint="stats")  # fmt: skip
        assert look().pixels[0].hours_problem is not None
    assert stolen == []


def test_the_proof_of_the_app_secret_is_sent(meta: str, shelf: Shelf) -> None:
    fake = FakeMeta(tokens={PIXEL_ID: TOKEN}, app_secret="secret")
    fake.insights.scopes = {READ: ALL}
    pixel = Pixel(PIXEL_ID, access_token=TOKEN, read_token=READ, app_secret="secret")
    with serve(fake.app) as url:
        found = refresh(reading_config(url, pixels=[pixel]), shelf)  # type: ignore[arg-type]
    assert found.pixels[0].quality_problem is not None
    assert found.pixels[0].quality_problem.state == "no_data"


def test_one_process_of_all_takes_a_look_that_is_due() -> None:
    shelf: Any = Shelf()
    taken = [claim(shelf, 1000.0, 3600.0) for _ in range(3)]
    assert taken == [True, False, False]
    # Until its look is done, a claim is short: its process may have ended.
    assert not claim(shelf, 999.0 + CLAIM_SECONDS, 3600.0)
    assert claim(shelf, 1000.0 + CLAIM_SECONDS, 3600.0)
    hasten(shelf, 9000.0)
    assert not claim(shelf, 8999.0, 3600.0)
    assert claim(shelf, 100.0, 3600.0), "the clock went back"
    shelf.bodies[DUE] = b"nonsense"
    assert claim(shelf, 200.0, 3600.0)


def test_another_process_s_look_is_not_overwritten(fake: FakeMeta, meta: str, shelf: Shelf) -> None:
    mine = refresh(reading_config(meta), shelf)  # type: ignore[arg-type] # a part of a store

    class Late(Shelf):
        def slices(self, facet: str, start: float, end: float) -> Any:
            self.bodies[NAME] = shelf.bodies[NAME]
            return []

    late: Any = Late()
    assert refresh(reading_config(meta), late) == mine


def test_a_courier_looks_on_schedule_and_closing_ends_a_look(fake: FakeMeta, meta: str) -> None:
    fake.fail_next(200, delay=1, times=1, endpoint="dataset_quality")
    capi = CAPI(reading_config(meta, delivery=True))
    capi.start()
    until("a look", lambda: fake.insights.requests)
    capi.close()
    until("its end", lambda: "capi-insights" not in [one.name for one in threading.enumerate()])
    assert capi.store.kept(NAME) is None
    # Who ended in the middle has not looked: somebody else may soon.
    due = capi.store.kept(DUE)
    assert due is not None
    assert float(due) - time.time() <= CLAIM_SECONDS


def test_without_a_read_token_or_an_ad_account_the_first_look_is_in_no_hurry(
    fake: FakeMeta, meta: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[BaseException] = []
    shelf: Any = Shelf()
    now = time.time()
    monkeypatch.setattr(looking, "time", SimpleNamespace(time=lambda: now))

    def lookout(**settings: Any) -> Lookout:
        config = reading_config(meta, **settings)
        return Lookout(config, shelf, lambda error, where: failed.append(error))

    never = lookout(insights_hours=0)
    never.tick()
    assert shelf.bodies == {}
    plain = lookout(ad_account=None, pixels=[Pixel(PIXEL_ID, access_token=TOKEN)])
    plain.tick()
    assert float(shelf.bodies[DUE]) == now + 6 * 3600
    now += 6 * 3600 - 1
    plain.tick()
    assert not plain.running
    now += looking.PATIENCE
    plain.tick()
    until("a look", lambda: NAME in shelf.bodies)
    plain.halt()
    assert failed == []


def test_who_asks_in_no_hurry_asks_the_store_seldom(meta: str) -> None:
    asked: list[str] = []

    class Counting(Shelf):
        def kept(self, name: str) -> bytes | None:
            asked.append(name)
            return super().kept(name)

    shelf: Any = Counting()
    plain = [Pixel(PIXEL_ID, access_token=TOKEN)]
    lookout = Lookout(
        reading_config(meta, ad_account=None, pixels=plain), shelf, lambda error, where: None
    )
    for _ in range(30):  # as often as once a minute
        lookout.tick()
    assert len(asked) <= 3


@pytest.mark.parametrize(("fails", "hours"), [(True, 1), (False, 6)])
def test_a_look_that_was_told_not_all_comes_again_in_an_hour(
    fake: FakeMeta, meta: str, fails: bool, hours: int
) -> None:
    fill(fake)
    if fails:
        fake.fail_next(503, endpoint="stats")
    failed: list[str] = []
    shelf: Any = Shelf()
    before = time.time()
    lookout = Lookout(reading_config(meta), shelf, lambda error, where: failed.append(where))
    lookout.tick()
    until("its end", lambda: "capi-insights" not in [one.name for one in threading.enumerate()])
    assert hours * 3600 <= float(shelf.bodies[DUE]) - before < hours * 3600 + 60
    assert failed == []


def test_a_store_that_fails_is_the_shield_s_business(meta: str) -> None:
    failed: list[str] = []

    class Broken(Shelf):
        def kept(self, name: str) -> bytes | None:
            raise OSError

    broken: Any = Broken()
    Lookout(reading_config(meta), broken, lambda error, where: failed.append(where)).tick()
    assert failed == ["insights"]


def test_history_keeps_one_point_a_day_and_ninety_days(fake: FakeMeta, look: Look) -> None:
    fill(fake)
    found = look()
    for day in range(200):
        date = f"2027-{1 + day // 28:02}-{1 + day % 28:02}T00:00:00Z"
        pixel = found.pixels[0].__class__(
            pixel_id=PIXEL_ID, quality=found.pixels[0].quality, quality_at=date
        )
        for _ in range(2):
            found = with_today(Insights(fetched_at=date, pixels=[pixel]), found)
    assert len(found.history) == 90
    labels = {one.label: one.points for one in trends(found)}
    coverage = labels[f"Event coverage of Purchase at pixel {PIXEL_ID}"]
    assert len(coverage) == 90
    assert coverage[-1][1] == 1.0
    assert "Opportunity score" not in labels, "it was not read in these days"


def test_a_kept_look_of_another_version_is_none(look: Look, shelf: Shelf) -> None:
    shelf.bodies[NAME] = b'{"fetched_at": 7}'
    assert isinstance(look(), Insights)


def test_a_problem_says_nothing_of_meta_s_words(fake: FakeMeta, look: Look) -> None:
    secret = {"error": {"message": f"bad {READ}", "code": 190}}
    fake.fail_next(401, secret, endpoint="dataset_quality")
    problem = look().pixels[0].quality_problem
    assert isinstance(problem, Problem)
    assert READ not in problem.explanation + problem.fix
