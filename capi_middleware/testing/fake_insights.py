"""Meta's own view, faked: dataset quality, hourly stats, opportunity score, recommendations.

Numbers come from what the fake received; a test may set them instead. What each answer looks like
and refuses is taken from Meta's pages "Dataset Quality API" and "Opportunity Score and
Recommendations", from the SDK, and from answers that others have seen.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from statistics import median
from typing import Any

import msgspec
from starlette.requests import Request

from capi_middleware.meta import codes
from capi_middleware.meta.match_keys import MATCH_KEYS
from capi_middleware.testing.faults import Endpoint
from capi_middleware.testing.graph_rules import Refusal, need
from capi_middleware.testing.received import BrowserHit, Received, ServerEvent

#: What can be asked: the path of each, and what a token needs to read it.
ASKED: dict[Endpoint, tuple[str, str]] = {
    "dataset_quality": ("dataset_quality", "read_ads_dataset_quality"),
    "stats": ("{pixel_id}/stats", "ads_read"),
    "account": ("act_{number}", "ads_read"),
    "recommendations": ("act_{number}/recommendations", "ads_read"),
}
HOUR = 3600
#: How far back Meta's own view reaches, in seconds.
REACH = 7 * 24 * HOUR
_PAGE, _GOAL = 25, 75
_NAME = re.compile(r"([^\s,{}]+)\s*(\{?)")


class FakeInsights:
    """What Meta says about the events that it received.

    `scopes` maps tokens to what they may read. A token that is not in it may read everything,
    unless the fake knows its tokens: then it may only post, as one made in Events Manager.
    `quality` replaces the computed answer by pixel id, `stats` by pixel id and event_source with
    {hour: {event_name: count}}; `opportunity_score` None means that the account has none yet.
    """

    def __init__(self) -> None:
        data = files("capi_middleware.testing").joinpath("fake_insights.toml").read_bytes()
        self._data: dict[str, Any] = msgspec.toml.decode(data)
        self.scopes: dict[str, frozenset[str]] = {}
        self.quality: dict[str, Any] = {}
        self.stats: dict[str, dict[str, dict[int, dict[str, int]]]] = {}
        self.opportunity_score: float | None = 62.0
        self.recommendations: list[dict[str, Any]] = self._data["recommendations"]
        #: The addresses and headers of all requests, for tests that look for leaks.
        self.requests: list[tuple[str, dict[str, str]]] = []

    def check(self, endpoint: Endpoint, token: str, *, knows_tokens: bool) -> None:
        """Raises Refusal unless a `token` may ask; `knows_tokens`: those not in `scopes` post."""
        _, scope = ASKED[endpoint]
        usual = ("read_ads_dataset_quality",) if knows_tokens else (scope,)
        if scope in self.scopes.get(token, usual):
            return
        if scope == "ads_read":
            raise Refusal("Missing Permission")
        raise Refusal("(#200) Permissions error", code=codes.FORBIDDEN, status=403)

    def answer(self, endpoint: Endpoint, request: Request, received: Received, now: float) -> Any:
        """What Meta would say to a `request` that may be made. Raises Refusal."""
        given = request.query_params
        if endpoint == "stats":
            return self._stats(request, received, now)
        if endpoint == "dataset_quality":
            pixel_id = given.get("dataset_id")
            if pixel_id is None:
                raise _invalid("The parameter dataset_id is required")
            found = self.quality.get(pixel_id)
            if found is None:
                found = self._quality(received, pixel_id, now)
            return self._picked(found, "quality", given.get("fields", "web"))
        number = request.path_params["number"]
        need(number.isdecimal(), "Object does not exist", code=codes.NO_SUCH_OBJECT)
        if endpoint == "recommendations":
            told = self.recommendations
            return {"data": [{"recommendations": told}] if told else []}
        found = {"id": f"act_{number}"}
        if self.opportunity_score is not None:
            found |= {"opportunity_score": self.opportunity_score, "opportunity_score_weight": 1}
        return self._picked(found, "account", f"id,{given.get('fields', 'id')}")

    def _picked(self, found: Any, kind: str, fields: str) -> Any:
        return _picked(found, _fields(fields), _fields(self._data["fields"][kind]))

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
        buckets = [
            {
                "aggregation": "event",
                "start_time": datetime.fromtimestamp(hour, UTC).strftime("%Y-%m-%dT%H:%M:%S%z"),
                "data": [{"value": name, "count": n} for name, n in sorted(names.items())],
            }
            for hour, names in sorted(hours.items())
            if max(start, now - REACH) <= hour < end
        ]
        if not buckets:
            return {"data": []}
        after = offset + limit
        paging: dict[str, Any] = {"cursors": {"before": str(offset), "after": str(after)}}
        if after < len(buckets):
            # As the Graph API does: with the access token in the address.
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            paging["next"] = str(request.url.include_query_params(after=after, access_token=token))
        return {"data": buckets[offset:after], "paging": paging}

    def _quality(self, received: Received, pixel_id: str, now: float) -> dict[str, Any]:
        """The answer of dataset_quality; `{}` when nothing came within seven days."""
        server: dict[str, list[ServerEvent]] = defaultdict(list)
        for one in received.server:
            if one.pixel_id == pixel_id and now - one.arrived < REACH:
                server[one.event["event_name"]].append(one)
        hits = [one for one in received.browser if one.id == pixel_id and now - one.arrived < REACH]
        web = [
            _event(name, events, [hit for hit in hits if hit.ev == name], self._data["weights"])
            for name, events in server.items()
        ]
        return {"web": web} if web else {}


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


def _event(
    name: str, server: list[ServerEvent], hits: list[BrowserHit], weights: dict[str, float]
) -> dict[str, Any]:
    shares = {
        key: _share(sum(key in one.event["user_data"] for one in server), len(server))
        for key in weights
    }
    score = sum(weights[key] * share["percentage"] / 100 for key, share in shares.items())
    seconds = median(one.arrived - one.event["event_time"] for one in server)
    frequency = "real_time" if seconds < 600 else "hourly" if seconds < 7200 else "daily"
    found: dict[str, Any] = {
        "event_name": name,
        "event_match_quality": {
            "composite_score": round(score, 1),
            "match_key_feedback": [
                {"identifier": MATCH_KEYS[key].word, "coverage": share}
                for key, share in shares.items()
            ],
            "diagnostics": [],
        },
        "data_freshness": {
            "upload_frequency": frequency, "description": "How fast events arrive",
        },
    }  # fmt: skip
    if not hits:
        return found
    ids = [one.event["event_id"] for one in server if one.event.get("event_id")]
    eids = {hit.eid for hit in hits if hit.eid}
    without = sum(not hit.eid for hit in hits)
    browser = len(eids) + without
    covered = _share(len(eids.intersection(ids)), browser)
    return found | {
        "event_coverage": {
            **covered, "goal_percentage": _GOAL,
            "description": "Pixel events that the Conversions API covers",
        },
        "dedupe_key_feedback": [{
            "dedupe_key": "event_id",
            "browser_events_with_dedupe_key": _share(len(hits) - without, len(hits)),
            "server_events_with_dedupe_key": _share(len(ids), len(server)),
            "overall_browser_coverage_from_dedupe_key": covered,
        }],
        "acr": {
            **_share(len(set(ids) - eids), browser),
            "description": "Additional conversions reported in the last 7 days",
        },
    }  # fmt: skip


def _share(part: int, whole: int) -> dict[str, float]:
    return {"percentage": round(100 * part / whole, 1)}


def _invalid(message: str) -> Refusal:
    return Refusal(f"(#100) {message}")


Fields = dict[str, "Fields"]


def _fields(text: str) -> Fields:
    """Graph's nested list of fields, "web{event_name,acr{percentage}}". Raises Refusal."""
    as_json = _NAME.sub(lambda one: f"{json.dumps(one[1])}:{one[2] or '{}'}", text)
    try:
        found: Fields = json.loads(f"{{{as_json}}}")
    except (ValueError, RecursionError):
        raise _invalid("Syntax error in the field list") from None
    return found


def _picked(found: Any, wanted: Fields, known: Fields) -> Any:
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
