"""Reading: what is asked of the Graph API, within bounds, and what its answers say in our words.

The token is only in a header. What is missing or of another kind is left out.
"""

import math
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from capi_middleware.insights.model import (
    DedupeKey,
    Diagnosis,
    EventQuality,
    KeyFeedback,
    Problem,
    Recommendation,
)
from capi_middleware.meta.codes import known, read_error
from capi_middleware.meta.graph import bearer, decoded, proof
from capi_middleware.meta.http import Answer, HTTPClient, NoAnswer

#: Seconds for all questions of one look, and for one of them, however the answers drip.
ROUND_SECONDS = 60.0
QUESTION_SECONDS = 10.0
#: At most this much of an answer is read, in bytes: a week of hours with a hundred events each.
ANSWER_LIMIT = 2 * 1024 * 1024
#: Pages of one answer, and what each may hold.
MOST_PAGES = 20
PAGE = 100

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

_NEXT_LOOK = "Nothing to do: the next look asks again. The numbers shown are those of before."


class GivenUp(Exception):
    """The reader was closed while it asked."""


class Reader:
    """Asks the Graph API for one look. Ends by itself after ROUND_SECONDS. Not shared."""

    def __init__(self, graph_url: str, version: str) -> None:
        self._base = f"{graph_url.rstrip('/')}/{version}/"
        self._http = HTTPClient(ANSWER_LIMIT)
        self._end = time.monotonic() + ROUND_SECONDS

    def close(self) -> None:
        """End what is being asked, from any thread: it raises GivenUp."""
        self._http.close()

    def check(self) -> None:
        """Raises GivenUp when the reader was closed."""
        if self._http.closed:
            raise GivenUp

    def get(
        self, path: str, params: Mapping[str, str], *, token: str, app_secret: str | None
    ) -> dict[str, Any] | Problem:
        """The answer to one question; a Problem for what the network or Meta does.

        Raises GivenUp when the reader was closed.
        """
        left = min(self._end - time.monotonic(), QUESTION_SECONDS)
        if left <= 0:
            return _failed("there was no time left to ask")
        query = {**params, **proof(token, app_secret)}
        try:
            answer = self._http.send(
                "GET", self._base + path, seconds=left, headers=bearer(token), params=query
            )
        except NoAnswer as error:
            self.check()
            return _failed(f"the Graph API gave no answer ({error})")
        return _read(answer)

    def pages(
        self, path: str, params: Mapping[str, str], *, token: str, app_secret: str | None
    ) -> list[Any] | Problem:
        """All of a list, page by page.

        Meta's own link to the next page carries the token in its address: only its cursor is used.
        """
        found: list[Any] = []
        query = {**params, "limit": str(PAGE)}
        for _ in range(MOST_PAGES):
            answer = self.get(path, query, token=token, app_secret=app_secret)
            if isinstance(answer, Problem):
                return answer
            data = answer.get("data")
            found += data if isinstance(data, list) else []
            paging = answer.get("paging")
            cursors = paging.get("cursors") if isinstance(paging, dict) else None
            after = cursors.get("after") if isinstance(cursors, dict) else None
            if not isinstance(paging, dict) or "next" not in paging or not isinstance(after, str):
                return found
            query["after"] = after
        return _failed(f"the answer has more than {MOST_PAGES} pages")


def _read(answer: Answer) -> dict[str, Any] | Problem:
    told = decoded(answer.body)
    if 200 <= answer.status < 300 and isinstance(told, dict) and "error" not in told:
        return told
    code = read_error(told).code
    if not code:
        what = "no answer of the Graph API"
        if answer.cut:
            what = "an answer that is too long"
        elif 300 <= answer.status < 400:
            what = "a redirect"
        return _failed(f"found {what} (http {answer.status})")
    kind, meaning, fix = known(code)
    match kind:
        case "token":
            return Problem(
                "no_permission",
                f"Meta refuses the token: {meaning} (code {code}).",
                "Make a new token and set it as read_token of the Pixel (or as its access_token).",
            )
        case "permission":
            return Problem(
                "no_permission",
                f"The token may not read this (code {code}): one made in Events Manager may only "
                "post events, and since the middle of 2025 read the quality.",
                "Set read_token of the Pixel to the token of a system user with ads_read that is "
                "assigned to the dataset and the ad account; for the quality alone the scope "
                "read_ads_dataset_quality is enough. Check the ids of the pixel and the ad "
                "account.",
            )
        case "request":
            return Problem("failed", f"{meaning} (code {code}).", f"{fix} {_NEXT_LOOK}")
        case "throttled":
            return _failed(f"Meta throttles (code {code})")
    return _failed(f"Meta answered code {code}")


def _failed(what: str) -> Problem:
    return Problem("failed", f"Asking Meta failed: {what}.", _NEXT_LOOK)


# -- answers ---------------------------------------------------------------------------------------


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
