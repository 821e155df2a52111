"""The fake Meta's own view: as strict as Meta's, and counted from what it received."""

from typing import Any

import httpx
import pytest

from capi_middleware.testing import FakeMeta
from tests.testing.test_fake_meta import NOW, PIXEL, call, codes, event, fake_meta, post

FIELDS = "web{event_name,event_coverage{percentage,goal_percentage},acr,data_freshness}"
STATS = {"aggregation": "event", "event_source": "SERVER_ONLY"}


def get(fake: FakeMeta, path: str, token: str = "t", **params: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"}
    return call(fake, "GET", f"/v26.0/{path}", params=params, headers=headers)


def test_quality_is_counted_from_both_copies() -> None:
    fake = fake_meta()
    post(fake, event(event_id="a"), event(event_id="b"))
    for eid in ("a", "c"):
        call(fake, "GET", f"/tr/?id={PIXEL}&ev=Purchase&eid={eid}")
    found = get(fake, "dataset_quality", dataset_id=PIXEL, fields=FIELDS).json()["web"]
    assert [(one["event_name"], one["event_coverage"]) for one in found] == [
        ("Purchase", {"percentage": 50.0, "goal_percentage": 75})
    ]
    assert found[0]["acr"]["percentage"] == 50.0
    assert found[0]["data_freshness"]["upload_frequency"] == "real_time"
    assert "event_match_quality" not in found[0]


def test_a_pixel_without_events_is_an_empty_object() -> None:
    answer = get(fake_meta(), "dataset_quality", dataset_id=PIXEL, fields=FIELDS)
    assert (answer.status_code, answer.json()) == (200, {})


@pytest.mark.parametrize(
    ("path", "params", "expected"),
    [
        (f"{PIXEL}/dataset_quality", {}, (400, 2500, None)),
        ("dataset_quality", {"fields": FIELDS}, (400, 100, None)),
        ("dataset_quality", {"dataset_id": PIXEL, "fields": "web{dedup_key_feedback}"},
         (400, 100, None)),
        ("dataset_quality", {"dataset_id": PIXEL, "fields": "web{event_name"}, (400, 100, None)),
        (f"{PIXEL}/stats", {"aggregation": "events"}, (400, 100, None)),
        (f"{PIXEL}/stats", {**STATS, "event_source": "WEB"}, (400, 100, None)),
        (f"{PIXEL}/stats", {**STATS, "start_time": "soon"}, (400, 100, None)),
        ("act_7", {"fields": "score"}, (400, 100, None)),
        ("act_x", {}, (400, 100, 33)),
    ],
)  # fmt: skip
def test_what_meta_refuses_is_refused(
    path: str, params: dict[str, str], expected: tuple[int, int, int | None]
) -> None:
    fake = fake_meta()
    post(fake, event())
    assert codes(get(fake, path, **params)) == expected


def test_an_ordinary_token_reads_the_quality_alone_and_one_that_may_only_post_nothing() -> None:
    fake = fake_meta(tokens={PIXEL: "ordinary"})
    fake.insights.scopes = {
        "posts": frozenset(), "quality": frozenset({"read_ads_dataset_quality"})
    }  # fmt: skip
    asked = {"dataset_id": PIXEL, "fields": FIELDS}
    assert codes(get(fake, "dataset_quality", "posts", **asked)) == (403, 200, None)
    assert codes(get(fake, f"{PIXEL}/stats", "posts", **STATS)) == (400, 100, None)
    assert codes(get(fake, "act_7", "posts")) == (400, 100, None)
    for token in ("ordinary", "quality"):
        assert get(fake, "dataset_quality", token, **asked).status_code == 200
        assert codes(get(fake, f"{PIXEL}/stats", token, **STATS)) == (400, 100, None)
        assert codes(get(fake, "act_7", token)) == (400, 100, None)
    assert codes(get(fake, "dataset_quality", "unknown", **asked)) == (401, 190, None)


def test_stats_are_hours_of_one_source_in_pages() -> None:
    fake = fake_meta()
    post(fake, event(), event(event_id="2", event_name="Lead", event_time=NOW - 3600))
    call(fake, "GET", f"/tr/?id={PIXEL}&ev=Purchase")
    first = get(fake, f"{PIXEL}/stats", **STATS, limit=1).json()
    assert first["data"] == [
        {
            "aggregation": "event",
            "start_time": "2027-01-15T07:00:00+0000",
            "data": [{"value": "Lead", "count": 1}],
        }
    ]
    assert "access_token=t" in first["paging"]["next"]
    after = first["paging"]["cursors"]["after"]
    second = get(fake, f"{PIXEL}/stats", **STATS, limit=1, after=after).json()
    assert second["data"][0]["data"] == [{"value": "Purchase", "count": 1}]
    assert "next" not in second["paging"]
    web = get(fake, f"{PIXEL}/stats", aggregation="event", event_source="WEB_ONLY").json()
    assert [one["data"] for one in web["data"]] == [[{"value": "Purchase", "count": 1}]]


def test_the_account_has_a_score_and_recommendations() -> None:
    fake = fake_meta()
    asked = get(fake, "act_7", fields="opportunity_score,opportunity_score_weight")
    assert asked.json() == {
        "id": "act_7", "opportunity_score": 62.0, "opportunity_score_weight": 1,
    }  # fmt: skip
    found = get(fake, "act_7/recommendations").json()["data"][0]["recommendations"]
    assert [one["type"] for one in found] == ["CREATIVE_LIMITED", "CAPI_PERFORMANCE_MATCH_KEY_V3"]
    fake.insights.recommendations = []
    assert get(fake, "act_7/recommendations").json() == {"data": []}


def test_answers_can_be_set_and_faults_scripted() -> None:
    fake = fake_meta()
    fake.insights.quality[PIXEL] = {"web": [{"event_name": "Lead", "acr": {"percentage": 9}}]}
    fake.fail_next(503, endpoint="dataset_quality")
    asked = {"dataset_id": PIXEL, "fields": "web{event_name,acr{percentage}}"}
    assert codes(get(fake, "dataset_quality", **asked)) == (503, 1, None)
    assert get(fake, "dataset_quality", **asked).json() == fake.insights.quality[PIXEL]
