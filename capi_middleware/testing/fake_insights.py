"""Meta's own view, faked: dataset quality, hourly stats, opportunity score, recommendations.

Numbers come from what the fake received; a test may set them instead. What each answer looks like
and refuses is taken from Meta's pages "Dataset Quality API" and "Opportunity Score and
Recommendations", from the SDK, and from answers that others have seen.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from capi_middleware.meta import codes
from capi_middleware.testing.faults import Endpoint, Fault, graph_error
from capi_middleware.testing.received import BrowserHit, Received, ServerEvent

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
_WEEK = 7 * 86_400
_GOAL = 75
#: user_data keys by the names that the API uses, and what each adds to the stand-in's score.
_IDENTIFIERS = {
    "em": ("email", 3.0), "fbc": ("fbc", 2.0), "ph": ("phone", 1.5), "external_id":
    ("external_id", 1.0), "fbp": ("fbp", 1.0), "client_ip_address": ("ip_address", 0.8),
    "client_user_agent": ("user_agent", 0.7),
}  # fmt: skip


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

    async def _answer(
        self, request: Request, endpoint: Endpoint, pixel_id: str | None, scope: str,
        make: Callable[[], Any],
    ) -> Response:  # fmt: skip
        """What `make` makes, or why the request is refused; a scripted fault goes before."""
        self.requests.append((str(request.url), dict(request.headers)))
        truth = self._denied(request, pixel_id, scope)
        if truth is None:
            try:
                truth = JSONResponse(make())
            except ValueError as error:
                told = graph_error(f"(#100) {error}", codes.INVALID)
                truth = JSONResponse(told, 400)
            except LookupError as error:
                truth = JSONResponse(graph_error(str(error.args[0]), codes.NO_SUCH_OBJECT), 400)
        return await self._fault(endpoint, pixel_id).answer(truth)

    async def _dataset_quality(self, request: Request) -> Response:
        pixel_id = request.query_params.get("dataset_id")

        def make() -> Any:
            if pixel_id is None:
                raise ValueError("The parameter dataset_id is required")
            found = self.quality.get(pixel_id)
            if found is None:
                found = quality_of(self._received(), pixel_id, self._clock())
            return _picked(found, _fields(request.query_params.get("fields", "web")))

        return await self._answer(request, "dataset_quality", pixel_id, READ_QUALITY, make)

    async def _stats(self, request: Request) -> Response:
        pixel_id = request.path_params["pixel_id"]
        make = partial(self._counted, request, pixel_id)
        return await self._answer(request, "stats", pixel_id, READ_ADS, make)

    def _counted(self, request: Request, pixel_id: str) -> dict[str, Any]:
        given = request.query_params
        source = given.get("event_source", "")
        if given.get("aggregation") not in _AGGREGATIONS:
            raise ValueError("Param aggregation must be one of the known aggregations")
        if source not in ("WEB_ONLY", "SERVER_ONLY"):
            raise ValueError("Param event_source must be one of {WEB_ONLY, SERVER_ONLY}")
        now = self._clock()
        try:
            start, end = int(given.get("start_time", 0)), int(given.get("end_time", now + 1))
            offset, limit = int(given.get("after", 0)), int(given.get("limit", _PAGE))
        except ValueError:
            raise ValueError("Param start_time must be a valid datetime") from None
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
        return answer

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

        def make() -> Any:
            _check_account(number)
            wanted = _fields(request.query_params.get("fields", "id"))
            if unknown := set(wanted) - set(_ACCOUNT_FIELDS):
                raise ValueError(f"Tried accessing nonexisting field ({min(unknown)})")
            found: dict[str, Any] = {"id": f"act_{number}"}
            score = self.opportunity_score
            if score is not None:
                found |= {"opportunity_score": score, "opportunity_score_weight": 1}
            return {key: one for key, one in found.items() if key in wanted or key == "id"}

        return await self._answer(request, "account", None, READ_ADS, make)

    async def _recommendations(self, request: Request) -> Response:
        def make() -> Any:
            _check_account(request.path_params["number"])
            given = self.recommendations
            return {"data": [{"recommendations": given}] if given else []}

        return await self._answer(request, "recommendations", None, READ_ADS, make)


async def _unknown_path(request: Request) -> Response:
    path = request.path_params["pixel_id"] + "/dataset_quality"
    return JSONResponse(graph_error(f"Unknown path components: /{path}", codes.UNKNOWN_PATH), 400)


def no_permission(scope: str) -> Response:
    """How Meta refuses a token that lacks `scope`."""
    if scope == READ_ADS:
        return JSONResponse(graph_error("Missing Permission", codes.INVALID), 400)
    return JSONResponse(graph_error("(#200) Permissions error", codes.FORBIDDEN), 403)


def _check_account(number: str) -> None:
    if not number.isdecimal():
        raise LookupError("Object does not exist")


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


# -- what is said of the quality of what was received ---------------------------------------------


def quality_of(received: Received, pixel_id: str, now: float) -> dict[str, Any]:
    """The answer of dataset_quality for a pixel; `{}` when nothing came within seven days."""
    server = [
        one for one in received.server if one.pixel_id == pixel_id and now - one.arrived < _WEEK
    ]
    hits = [hit for hit in received.browser if hit.id == pixel_id and now - hit.arrived < _WEEK]
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
        key: _share(sum(key in one.event["user_data"] for one in server), len(server))
        for key in _IDENTIFIERS
    }
    score = sum(weight * shares[key]["percentage"] for key, (_, weight) in _IDENTIFIERS.items())
    feedback = [
        {"identifier": identifier, "coverage": shares[key]}
        for key, (identifier, _) in _IDENTIFIERS.items()
    ]
    found: dict[str, Any] = {
        "event_name": name,
        "event_match_quality": {
            "composite_score": round(score / 100, 1),
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
    feedback = [
        {
            "dedupe_key": "event_id",
            "browser_events_with_dedupe_key": _share(sum(bool(h.eid) for h in hits), len(hits)),
            "server_events_with_dedupe_key": _share(with_id, len(server)),
            "overall_browser_coverage_from_dedupe_key": covered,
        }
    ]
    return found | {
        "event_coverage": {
            **covered,
            "goal_percentage": _GOAL,
            "description": "Pixel events that the Conversions API covers",
        },
        "dedupe_key_feedback": feedback,
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
