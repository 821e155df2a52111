"""Meta's own view, faked: dataset quality, hourly stats, opportunity score, recommendations.

Numbers come from what the fake received; a test may set them instead. What each answer looks like
and refuses is taken from Meta's pages "Dataset Quality API" and "Opportunity Score and
Recommendations", from the SDK, and from answers that others have seen.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from statistics import median
from typing import Any

from starlette.requests import Request

from capi_middleware.meta import codes
from capi_middleware.meta.match_keys import MATCH_KEYS
from capi_middleware.testing.faults import Endpoint
from capi_middleware.testing.graph_rules import Refusal, need
from capi_middleware.testing.received import BrowserHit, Received, ServerEvent

#: What a token may do besides posting events.
READ_QUALITY, READ_ADS = "read_ads_dataset_quality", "ads_read"
HOUR = 3600
#: How far back Meta's own view reaches, in seconds.
REACH = 7 * 24 * HOUR
_PAGE = 25
_GOAL = 75
#: What each user_data key adds to the stand-in's score.
_WEIGHTS = {
    "em": 3.0, "fbc": 2.0, "ph": 1.5, "external_id": 1.0, "fbp": 1.0, "client_ip_address": 0.8,
    "client_user_agent": 0.7,
}  # fmt: skip


class FakeInsights:
    """What Meta says about the events that it received.

    `scopes` maps tokens to what they may read. A token that is not in it may read everything,
    unless the fake knows its tokens: then it may only post, as one made in Events Manager.
    `quality` replaces the computed answer by pixel id, `stats` by pixel id and event_source with
    {hour: {event_name: count}}; `opportunity_score` None means that the account has none yet.
    """

    def __init__(self) -> None:
        self.scopes: dict[str, frozenset[str]] = {}
        self.quality: dict[str, Any] = {}
        self.stats: dict[str, dict[str, dict[int, dict[str, int]]]] = {}
        self.opportunity_score: float | None = 62.0
        self.recommendations: list[dict[str, Any]] = [
            {
                "type": "CREATIVE_LIMITED",
                "object_ids": ["1"],
                "recommendation_content": {"body": "Add creatives", "opportunity_score_lift": "9"},
            },
            {
                "recommendation_signature": "1",
                "type": "CAPI_PERFORMANCE_MATCH_KEY_V3",
                "object_ids": ["2"],
                "recommendation_content": {
                    "lift_estimate": "13 % more attributed purchases",
                    "body": "Send more customer information parameters",
                    "opportunity_score_lift": "6",
                },
                "url": "https://business.facebook.com/events_manager2",
            },
        ]
        #: The addresses and headers of all requests, for tests that look for leaks.
        self.requests: list[tuple[str, dict[str, str]]] = []

    def answer(self, endpoint: Endpoint, request: Request, received: Received, now: float) -> Any:
        """What Meta would say to a `request` that may be made. Raises Refusal."""
        match endpoint:
            case "dataset_quality":
                return self._quality(request, received, now)
            case "stats":
                return self._stats(request, received, now)
        number = request.path_params["number"]
        need(number.isdecimal(), "Object does not exist", code=codes.NO_SUCH_OBJECT)
        if endpoint == "recommendations":
            given = self.recommendations
            return {"data": [{"recommendations": given}] if given else []}
        found: dict[str, Any] = {"id": f"act_{number}"}
        if self.opportunity_score is not None:
            found |= {"opportunity_score": self.opportunity_score, "opportunity_score_weight": 1}
        wanted = _fields(request.query_params.get("fields", "id"))
        return _picked(found, {"id": {}} | wanted, _ACCOUNT)

    def _quality(self, request: Request, received: Received, now: float) -> Any:
        pixel_id = request.query_params.get("dataset_id")
        if pixel_id is None:
            raise _invalid("The parameter dataset_id is required")
        found = self.quality.get(pixel_id)
        if found is None:
            found = quality_of(received, pixel_id, now)
        return _picked(found, _fields(request.query_params.get("fields", "web")))

    def _stats(self, request: Request, received: Received, now: float) -> dict[str, Any]:
        given, pixel_id = request.query_params, request.path_params["pixel_id"]
        source = given.get("event_source", "")
        if given.get("aggregation") != "event":
            raise _invalid("Param aggregation must be event: the fake counts by nothing else")
        if source not in ("WEB_ONLY", "SERVER_ONLY"):
            raise _invalid("Param event_source must be one of {WEB_ONLY, SERVER_ONLY}")
        try:
            start, end = int(given.get("start_time", 0)), int(given.get("end_time", now + 1))
            offset, limit = int(given.get("after", 0)), int(given.get("limit", _PAGE))
        except ValueError:
            raise _invalid("Param start_time must be a valid datetime") from None
        hours = self.stats.get(pixel_id, {}).get(source)
        if hours is None:
            hours = _hours(received, pixel_id, source)
        oldest = max(start, now - REACH)
        buckets = [
            {
                "aggregation": "event",
                "start_time": datetime.fromtimestamp(hour, UTC).strftime("%Y-%m-%dT%H:%M:%S%z"),
                "data": [{"value": name, "count": n} for name, n in sorted(names.items())],
            }
            for hour, names in sorted(hours.items())
            if oldest <= hour < end
        ]
        answer: dict[str, Any] = {"data": buckets[offset : offset + limit]}
        if buckets:
            after = str(offset + limit)
            answer["paging"] = {"cursors": {"before": str(offset), "after": after}}
            if int(after) < len(buckets):
                # As the Graph API does: with the access token in the address.
                token = request.headers.get("authorization", "").removeprefix("Bearer ")
                url = request.url.include_query_params(after=after, access_token=token)
                answer["paging"]["next"] = str(url)
        return answer


def _hours(received: Received, pixel_id: str, source: str) -> dict[int, dict[str, int]]:
    if source == "WEB_ONLY":
        seen = [(hit.arrived, hit.ev) for hit in received.browser if hit.id == pixel_id]
    else:
        seen = [
            (one.event["event_time"], one.event["event_name"])
            for one in received.server
            if one.pixel_id == pixel_id
        ]
    hours: dict[int, dict[str, int]] = defaultdict(Counter)
    for moment, name in seen:
        hours[int(moment) // HOUR * HOUR][name] += 1
    return hours


def _invalid(message: str) -> Refusal:
    return Refusal(f"(#100) {message}")


def no_permission(scope: str) -> Refusal:
    """How Meta refuses a token that lacks `scope`."""
    if scope == READ_ADS:
        return Refusal("Missing Permission")
    return Refusal("(#200) Permissions error", code=codes.FORBIDDEN, status=403)


Wanted = dict[str, "Wanted"]


def _fields(text: str) -> Wanted:
    """Graph's nested list of fields, "web{event_name,acr{percentage}}". Raises Refusal."""
    tree: Wanted = {}
    open_trees, name = [tree], ""
    for character in f"{text},":
        if character in ",{}" and name:
            open_trees[-1].setdefault(name, {})
        if character == "{":
            open_trees.append(open_trees[-1][name])
        elif character == "}":
            open_trees.pop()
        if not open_trees:
            raise _invalid("Syntax error in the field list")
        name = name + character if character not in ",{} " else ""
    if len(open_trees) > 1:
        raise _invalid("Syntax error in the field list")
    return tree


#: Every field that the answer may have, as the clients name them.
_KNOWN: Wanted = _fields(
    "web{event_name,event_match_quality{composite_score,match_key_feedback{identifier,"
    "coverage{percentage},potential_aly_acr_increase{percentage,description}},diagnostics{name,"
    "description,solution,percentage,affected_event_count,total_event_count}},event_coverage{"
    "percentage,goal_percentage,description,potential_aly_acr_increase{percentage,description}},"
    "dedupe_key_feedback{dedupe_key,browser_events_with_dedupe_key{percentage,description},"
    "server_events_with_dedupe_key{percentage,description},overall_browser_coverage_from_dedupe_key"
    "{percentage,description}},data_freshness{upload_frequency,description},acr{percentage,"
    "description},event_potential_aly_acr_increase{percentage,description}},offline{event_name}"
)
_ACCOUNT: Wanted = _fields("id,opportunity_score,opportunity_score_weight")


def _picked(found: Any, wanted: Wanted, known: Wanted = _KNOWN) -> Any:
    """Only what was asked for; all of it where nothing below is named. Raises Refusal."""
    if unknown := set(wanted) - set(known):
        raise _invalid(f"Tried accessing nonexisting field ({min(unknown)})")
    if isinstance(found, list):
        return [_picked(one, wanted, known) for one in found]
    if not isinstance(found, Mapping):
        return found
    return {
        name: _picked(found[name], below or known[name], known[name])
        for name, below in (wanted or known).items()
        if name in found
    }


# -- what is said of the quality of what was received ---------------------------------------------


def quality_of(received: Received, pixel_id: str, now: float) -> dict[str, Any]:
    """The answer of dataset_quality for a pixel; `{}` when nothing came within seven days."""
    server: dict[str, list[ServerEvent]] = defaultdict(list)
    for one in received.server:
        if one.pixel_id == pixel_id and now - one.arrived < REACH:
            server[one.event["event_name"]].append(one)
    hits = [hit for hit in received.browser if hit.id == pixel_id and now - hit.arrived < REACH]
    web = [_event(name, server[name], [hit for hit in hits if hit.ev == name]) for name in server]
    return {"web": web} if web else {}


def _event(name: str, server: list[ServerEvent], hits: list[BrowserHit]) -> dict[str, Any]:
    ids = {one.event["event_id"] for one in server if one.event.get("event_id")}
    eids = {hit.eid for hit in hits if hit.eid}
    browser = len(eids) + sum(not hit.eid for hit in hits)
    feedback, score = [], 0.0
    for key, weight in _WEIGHTS.items():
        share = _share(sum(key in one.event["user_data"] for one in server), len(server))
        feedback.append({"identifier": MATCH_KEYS[key].word, "coverage": share})
        score += weight * share["percentage"] / 100
    found: dict[str, Any] = {
        "event_name": name,
        "event_match_quality": {
            "composite_score": round(score, 1),
            "match_key_feedback": feedback,
            "diagnostics": [],
        },
        "data_freshness": {
            "upload_frequency": _frequency(server),
            "description": "How fast events arrive",
        },
    }
    if not browser:
        return found
    covered = _share(len(ids & eids), browser)
    with_id = sum(bool(one.event.get("event_id")) for one in server)
    return found | {
        "event_coverage": {
            **covered,
            "goal_percentage": _GOAL,
            "description": "Pixel events that the Conversions API covers",
        },
        "dedupe_key_feedback": [
            {
                "dedupe_key": "event_id",
                "browser_events_with_dedupe_key": _share(
                    sum(bool(hit.eid) for hit in hits), len(hits)
                ),
                "server_events_with_dedupe_key": _share(with_id, len(server)),
                "overall_browser_coverage_from_dedupe_key": covered,
            }
        ],
        "acr": {
            **_share(len(ids - eids), browser),
            "description": "Additional conversions reported in the last 7 days",
        },
    }


def _frequency(server: list[ServerEvent]) -> str:
    seconds = median(one.arrived - one.event["event_time"] for one in server)
    return "real_time" if seconds < 600 else "hourly" if seconds < 7200 else "daily"


def _share(part: int, whole: int) -> dict[str, float]:
    return {"percentage": round(100 * part / whole, 1)}
