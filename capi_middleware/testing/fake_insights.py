"""Meta's own view, faked: dataset quality, hourly stats, opportunity score, recommendations.

Numbers come from what the fake received; a test may set them instead. What each answer looks like
and refuses is taken from Meta's pages "Dataset Quality API" and "Opportunity Score and
Recommendations", from the SDK, and from answers that others have seen.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from capi_middleware.meta import codes
from capi_middleware.testing.faults import Endpoint, Fault, graph_error
from capi_middleware.testing.quality import quality_of
from capi_middleware.testing.received import Received

#: What a token may do besides posting events.
READ_QUALITY, READ_ADS = "read_ads_dataset_quality", "ads_read"
HOUR = 3600
#: How far back /stats reaches, in seconds.
STATS_REACH = 7 * 24 * HOUR
_ACCOUNT_FIELDS = ("id", "opportunity_score", "opportunity_score_weight")
_AGGREGATIONS = frozenset(
    {
        "browser_type", "custom_data_field", "device_os", "device_type", "event",
        "event_detection_method", "event_processing_results", "event_source",
        "event_total_counts", "event_value_count", "had_pii", "host", "match_keys", "pixel_fire",
        "url", "url_by_rule",
    }
)  # fmt: skip
_PAGE = 25


class FakeInsights:
    """What Meta says about the events that it received.

    `scopes` maps tokens to what they may read. A token that is not in it may read everything,
    unless the fake knows its tokens: then it may only post, as one made in Events Manager.
    `quality` replaces the computed answer by pixel id, `stats` by pixel id and event_source with
    {hour: {event_name: count}}; `opportunity_score` None means that the account has none yet.
    """

    def __init__(
        self,
        received: Callable[[], Received],
        denied: Callable[[Request, str | None, str], Response | None],
        fault: Callable[[Endpoint, str | None], Fault],
        clock: Callable[[], float],
    ) -> None:
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
        self._received, self._denied, self._fault = received, denied, fault
        self._clock = clock
        self.routes: list[Route] = [
            Route("/{version}/dataset_quality", self._dataset_quality),
            Route("/{version}/{pixel_id}/dataset_quality", _unknown_path),
            Route("/{version}/{pixel_id}/stats", self._stats),
            Route("/{version}/act_{number}", self._account),
            Route("/{version}/act_{number}/recommendations", self._recommendations),
        ]

    async def _dataset_quality(self, request: Request) -> Response:
        pixel_id = request.query_params.get("dataset_id")
        truth = self._refused(request, pixel_id, READ_QUALITY)
        if truth is None and pixel_id is None:
            truth = _bad("The parameter dataset_id is required")
        if truth is None:
            assert pixel_id is not None
            found = self.quality.get(pixel_id)
            if found is None:
                found = quality_of(self._received(), pixel_id, self._clock())
            try:
                wanted = _fields(request.query_params.get("fields", "web"))
                truth = JSONResponse(_picked(found, wanted))
            except ValueError as error:
                truth = _bad(str(error))
        return await self._fault("dataset_quality", pixel_id).answer(truth)

    async def _stats(self, request: Request) -> Response:
        pixel_id = request.path_params["pixel_id"]
        truth = self._refused(request, pixel_id, READ_ADS)
        if truth is None:
            truth = self._counted(request, pixel_id)
        return await self._fault("stats", pixel_id).answer(truth)

    def _counted(self, request: Request, pixel_id: str) -> Response:
        given = request.query_params
        source = given.get("event_source", "")
        if given.get("aggregation") not in _AGGREGATIONS:
            return _bad("Param aggregation must be one of the known aggregations")
        if source not in ("WEB_ONLY", "SERVER_ONLY"):
            return _bad("Param event_source must be one of {WEB_ONLY, SERVER_ONLY}")
        now = self._clock()
        try:
            start, end = int(given.get("start_time", 0)), int(given.get("end_time", now + 1))
            offset, limit = int(given.get("after", 0)), int(given.get("limit", _PAGE))
        except ValueError:
            return _bad("Param start_time must be a valid datetime")
        hours = self.stats.get(pixel_id, {}).get(source)
        if hours is None:
            hours = self._hours(pixel_id, source)
        oldest = max(start, now - STATS_REACH)
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
        return JSONResponse(answer)

    def _hours(self, pixel_id: str, source: str) -> dict[int, dict[str, int]]:
        received = self._received()
        if source == "WEB_ONLY":
            seen = [(hit.arrived, hit.ev) for hit in received.browser if hit.id == pixel_id]
        else:
            seen = [
                (one.event["event_time"], one.event["event_name"])
                for one in received.server
                if one.pixel_id == pixel_id
            ]
        counts = Counter((int(moment) // HOUR * HOUR, name) for moment, name in seen)
        hours: dict[int, dict[str, int]] = {}
        for (hour, name), n in counts.items():
            hours.setdefault(hour, {})[name] = n
        return hours

    async def _account(self, request: Request) -> Response:
        number = request.path_params["number"]
        truth = self._refused(request, None, READ_ADS) or _no_account(number)
        if truth is None:
            found: dict[str, Any] = {"id": f"act_{number}"}
            if self.opportunity_score is not None:
                found |= {
                    "opportunity_score": self.opportunity_score,
                    "opportunity_score_weight": 1,
                }
            try:
                wanted = _fields(request.query_params.get("fields", "id"))
                if unknown := set(wanted) - set(_ACCOUNT_FIELDS):
                    raise ValueError(f"Tried accessing nonexisting field ({min(unknown)})")
                truth = JSONResponse({k: v for k, v in found.items() if k in wanted or k == "id"})
            except ValueError as error:
                truth = _bad(str(error))
        return await self._fault("account", None).answer(truth)

    async def _recommendations(self, request: Request) -> Response:
        number = request.path_params["number"]
        truth = self._refused(request, None, READ_ADS) or _no_account(number)
        if truth is None:
            given = self.recommendations
            truth = JSONResponse({"data": [{"recommendations": given}] if given else []})
        return await self._fault("recommendations", None).answer(truth)

    def _refused(self, request: Request, pixel_id: str | None, scope: str) -> Response | None:
        self.requests.append((str(request.url), dict(request.headers)))
        return self._denied(request, pixel_id, scope)


async def _unknown_path(request: Request) -> Response:
    path = request.path_params["pixel_id"] + "/dataset_quality"
    return JSONResponse(graph_error(f"Unknown path components: /{path}", codes.UNKNOWN_PATH), 400)


def no_permission(scope: str) -> Response:
    """How Meta refuses a token that lacks `scope`."""
    if scope == READ_ADS:
        return JSONResponse(graph_error("Missing Permission", codes.INVALID), 400)
    return JSONResponse(graph_error("(#200) Permissions error", codes.FORBIDDEN), 403)


def _bad(message: str) -> Response:
    return JSONResponse(graph_error(f"(#100) {message}", codes.INVALID), 400)


def _no_account(number: str) -> Response | None:
    if number.isdecimal():
        return None
    return JSONResponse(graph_error("Object does not exist", codes.NO_SUCH_OBJECT), 400)


Wanted = dict[str, "Wanted"]


def _fields(text: str) -> Wanted:
    """Graph's nested list of fields, "web{event_name,acr{percentage}}". Raises ValueError."""
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
            raise ValueError("Syntax error in the field list")
        name = name + character if character not in ",{} " else ""
    if len(open_trees) > 1:
        raise ValueError("Syntax error in the field list")
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


def _picked(found: Any, wanted: Wanted, known: Wanted = _KNOWN) -> Any:
    """Only what was asked for; all of it where nothing below is named. Raises ValueError."""
    if unknown := set(wanted) - set(known):
        raise ValueError(f"Tried accessing nonexisting field ({min(unknown)})")
    if isinstance(found, list):
        return [_picked(one, wanted, known) for one in found]
    if not isinstance(found, Mapping):
        return found
    return {
        name: _picked(found[name], below or known[name], known[name])
        for name, below in (wanted or known).items()
        if name in found
    }
