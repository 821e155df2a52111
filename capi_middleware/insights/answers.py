"""From Meta's answers to our words: what is missing or of another kind is left out."""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from capi_middleware.insights.model import (
    DedupeKey,
    Diagnosis,
    EventQuality,
    KeyFeedback,
    Recommendation,
)

#: What is asked of the Dataset Quality API; it refuses a field that it does not know.
QUALITY_FIELDS = (
    "web{event_name,event_match_quality{composite_score,match_key_feedback{identifier,"
    "coverage{percentage},potential_aly_acr_increase{percentage}},"
    "diagnostics{name,description,solution,percentage}},"
    "event_coverage{percentage,goal_percentage},dedupe_key_feedback{dedupe_key,"
    "browser_events_with_dedupe_key{percentage},server_events_with_dedupe_key{percentage},"
    "overall_browser_coverage_from_dedupe_key{percentage}},"
    "data_freshness{upload_frequency,description},acr{percentage,description}}"
)
#: Recommendations about signals ("Opportunity Score and Recommendations", and the SDK's enum), in
#: the order in which they are shown.
CAPI_TYPES = (
    "SIGNALS_GROWTH_CAPI_V2", "CAPI_EVENT_COVERAGE", "CAPI_PENETRATION",
    "CAPI_PERFORMANCE_MATCH_KEY_V3", "CAPI_PERFORMANCE_MATCH_KEY_V2", "PIXEL_UPSELL",
    "PIXEL_OPTIMIZATION_HIE", "PIXEL_OPTIMIZATION_AAM", "CAPI_CRM_SETUP", "CAPI_CRM_GUIDANCE_V2",
)  # fmt: skip
#: Anybody can fire an event of any name at a pixel: at most so many, and so much text, are kept.
_MOST, _LONGEST = 100, 500


def quality_of(answer: Mapping[str, Any]) -> list[EventQuality]:
    """What dataset_quality says about each event; nothing for `{}`, which means no data yet."""
    return [_event(one) for one in _maps(answer.get("web")) if one.get("event_name")]


def _event(given: Mapping[str, Any]) -> EventQuality:
    match, coverage = _map(given, "event_match_quality"), _map(given, "event_coverage")
    freshness, acr = _map(given, "data_freshness"), _map(given, "acr")
    # Meta's own table spells it so once.
    keys = given.get("dedupe_key_feedback") or given.get("dedup_key_feedback")
    return EventQuality(
        event_name=_text(given, "event_name")[:50],
        match_quality=number(match.get("composite_score")),
        match_keys=[
            KeyFeedback(
                _text(one, "identifier"),
                _share(_map(one, "coverage")),
                _share(_map(one, "potential_aly_acr_increase")),
            )
            for one in _maps(match.get("match_key_feedback"))
        ],
        diagnostics=[
            Diagnosis(
                _text(one, "name"), _text(one, "description"), _text(one, "solution"), _share(one)
            )
            for one in _maps(match.get("diagnostics"))
        ],
        coverage=_share(coverage),
        coverage_goal=_share(coverage, "goal_percentage"),
        dedupe_keys=[
            DedupeKey(
                _text(one, "dedupe_key"),
                _share(_map(one, "browser_events_with_dedupe_key")),
                _share(_map(one, "server_events_with_dedupe_key")),
                _share(_map(one, "overall_browser_coverage_from_dedupe_key")),
            )
            for one in _maps(keys)
        ],
        upload_frequency=_text(freshness, "upload_frequency"),
        freshness=_text(freshness, "description"),
        acr=_share(acr),
        acr_explanation=_text(acr, "description"),
    )


def counts_of(buckets: Iterable[object]) -> dict[tuple[int, str], int]:
    """{(hour in Unix seconds, event_name): events} from the buckets of /stats."""
    counts: dict[tuple[int, str], int] = {}
    for bucket in buckets:
        if not isinstance(bucket, Mapping):
            continue
        hour = _hour(bucket.get("start_time"))
        if hour is None:
            continue
        for one in _maps(bucket.get("data")):
            name, n = _text(one, "value")[:50], number(one.get("count"))
            if name and n is not None:
                counts[hour, name] = counts.get((hour, name), 0) + int(n)
    return counts


def _hour(moment: object) -> int | None:
    try:
        seconds = (
            datetime.fromisoformat(moment).timestamp()
            if isinstance(moment, str)
            else number(moment)
        )
    except ValueError:
        return None
    return None if seconds is None else int(seconds) // 3600 * 3600


def recommendations_of(groups: Iterable[object]) -> list[Recommendation]:
    """The recommendations, those about signals first."""
    found = []
    for group in _maps(list(groups)):
        for one in _maps(group.get("recommendations")):
            content, kind = _map(one, "recommendation_content"), _text(one, "type")
            found.append(
                Recommendation(
                    type=kind,
                    body=_text(content, "body"),
                    lift_estimate=_text(content, "lift_estimate"),
                    score_lift=number(content.get("opportunity_score_lift")),
                    url=_address(one.get("url")),
                    capi=kind in CAPI_TYPES,
                )
            )
    last = len(CAPI_TYPES)
    return sorted(
        found,
        key=lambda one: (
            CAPI_TYPES.index(one.type) if one.capi else last,
            -(one.score_lift or 0),
        ),
    )[:_MOST]


def number(value: object) -> float | None:
    """A finite number, also from a text such as "6.5"; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _share(given: Mapping[str, Any], key: str = "percentage") -> float | None:
    percentage = number(given.get(key))
    return None if percentage is None else round(percentage / 100, 4)


def _text(given: Mapping[str, Any], key: str) -> str:
    value = given.get(key)
    text = value[:_LONGEST] if isinstance(value, str) else ""
    # Anybody may have named an event: nothing may steer the terminal that shows it.
    return "".join(character if character.isprintable() else " " for character in text)


def _map(given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = given.get(key)
    return value if isinstance(value, Mapping) else {}


def _maps(value: object) -> list[Mapping[str, Any]]:
    listed = value[:_MOST] if isinstance(value, list) else []
    return [one for one in listed if isinstance(one, Mapping)]


def _address(value: object) -> str:
    """A link of Meta's own; anything else is no link."""
    if not isinstance(value, str) or len(value) > 2000:
        return ""
    try:
        parts = urlsplit(value)
        host = parts.hostname or ""
    except ValueError:
        return ""
    ours = host == "facebook.com" or host.endswith(".facebook.com")
    return value if parts.scheme == "https" and ours else ""
