"""What a fake Meta says about the quality of what it received: pure, no HTTP.

Coverage and keys are counted. The score is a stand-in: Meta publishes no formula.
"""

from statistics import median
from typing import Any

from capi_middleware.testing.received import BrowserHit, Received, ServerEvent

WEEK = 7 * 86_400
GOAL = 75
#: user_data keys by the names that the API uses, and what each adds to the stand-in's score.
_IDENTIFIERS = {
    "em": ("email", 3.0), "fbc": ("fbc", 2.0), "ph": ("phone", 1.5), "external_id":
    ("external_id", 1.0), "fbp": ("fbp", 1.0), "client_ip_address": ("ip_address", 0.8),
    "client_user_agent": ("user_agent", 0.7),
}  # fmt: skip


def quality_of(received: Received, pixel_id: str, now: float) -> dict[str, Any]:
    """The answer of dataset_quality for a pixel; `{}` when nothing came within seven days."""
    server = [
        one for one in received.server if one.pixel_id == pixel_id and now - one.arrived < WEEK
    ]
    hits = [hit for hit in received.browser if hit.id == pixel_id and now - hit.arrived < WEEK]
    names = dict.fromkeys(one.event["event_name"] for one in server)
    web = [
        _event(
            name,
            [one for one in server if one.event["event_name"] == name],
            [hit for hit in hits if hit.ev == name],
        )
        for name in names
    ]
    return {"web": web} if web else {}


def _event(name: str, server: list[ServerEvent], hits: list[BrowserHit]) -> dict[str, Any]:
    ids = {one.event["event_id"] for one in server if one.event.get("event_id")}
    eids = {hit.eid for hit in hits if hit.eid}
    browser = len(eids) + sum(not hit.eid for hit in hits)
    shares = {
        identifier: _percentage(sum(key in one.event["user_data"] for one in server), len(server))
        for key, (identifier, _) in _IDENTIFIERS.items()
    }
    score = sum(weight * shares[identifier] / 100 for identifier, weight in _IDENTIFIERS.values())
    found: dict[str, Any] = {
        "event_name": name,
        "event_match_quality": {
            "composite_score": round(score, 1),
            "match_key_feedback": [
                {"identifier": identifier, "coverage": {"percentage": share}}
                for identifier, share in shares.items()
            ],
            "diagnostics": [],
        },
        "data_freshness": {
            "upload_frequency": _frequency(server),
            "description": "How fast events arrive",
        },
    }
    if not browser:
        return found
    matched = len(ids & eids)
    return found | {
        "event_coverage": {
            "percentage": _percentage(matched, browser),
            "goal_percentage": GOAL,
            "description": "Pixel events that the Conversions API covers",
        },
        "dedupe_key_feedback": [
            {
                "dedupe_key": "event_id",
                "browser_events_with_dedupe_key": {
                    "percentage": _percentage(sum(bool(hit.eid) for hit in hits), len(hits))
                },
                "server_events_with_dedupe_key": {
                    "percentage": _percentage(
                        sum(bool(one.event.get("event_id")) for one in server), len(server)
                    )
                },
                "overall_browser_coverage_from_dedupe_key": {
                    "percentage": _percentage(matched, browser)
                },
            }
        ],
        "acr": {
            "percentage": _percentage(len(ids - eids), browser),
            "description": "Additional conversions reported in the last 7 days",
        },
    }


def _frequency(server: list[ServerEvent]) -> str:
    seconds = median(one.arrived - one.event["event_time"] for one in server)
    return "real_time" if seconds < 600 else "hourly" if seconds < 7200 else "daily"


def _percentage(part: int, whole: int) -> float:
    return round(100 * part / whole, 1)
