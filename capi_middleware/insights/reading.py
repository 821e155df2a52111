"""Reading: what is asked of the Graph API, within bounds, and what its answers say in our words.

The token is only in a header. What is missing or of another kind is left out.
"""

import math
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib.resources import files
from typing import Any

import msgspec
from msgspec.structs import replace

from capi_middleware.config.pixels import Pixel
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

_FILES = files("capi_middleware.insights")
#: Seconds for all questions of one look, and for one of them, however the answers drip.
ROUND_SECONDS = 60.0
QUESTION_SECONDS = 10.0
#: At most this much of an answer is read, in bytes: a week of hours with a hundred events each.
ANSWER_LIMIT = 2 * 1024 * 1024
#: Pages of one answer, and what each may hold.
MOST_PAGES = 20
PAGE = 100

#: What is asked of the Dataset Quality API; it refuses a field that it does not know.
QUALITY_FIELDS = "".join(_FILES.joinpath("quality_fields.txt").read_text("utf-8").split())
#: What Meta's recommendations about signals ask for, in the order in which they are shown.
SIGNALS: dict[str, str] = msgspec.toml.decode(
    _FILES.joinpath("recommendations.toml").read_bytes(), type=dict[str, str]
)
_PLACES = {kind: place for place, kind in enumerate(SIGNALS)}
#: Anybody can fire an event of any name at a pixel: at most so many, and so much text, are kept.
_MOST, _LONGEST = 100, 500
_OURS = re.compile(r"https://([\w-]+\.)*facebook\.com(:\d*)?([/?#].*)?", re.ASCII | re.IGNORECASE)
PROBLEMS: dict[str, Problem] = msgspec.toml.decode(
    _FILES.joinpath("problems.toml").read_bytes(), type=dict[str, Problem]
)


class GivenUp(Exception):
    """The reader was closed while it asked."""


class Untold(Exception):
    """Meta did not tell: `problem` is what problems.toml calls `name`, with its `words`."""

    def __init__(self, name: str, **words: str) -> None:
        found = PROBLEMS[name]
        self.problem: Problem = replace(
            found, explanation=found.explanation.format(**words), fix=found.fix.format(**words)
        )
        super().__init__(self.problem.explanation)


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

    def get(self, pixel: Pixel, path: str, params: Mapping[str, str]) -> dict[str, Any]:
        """The answer to one question, asked with the token of `pixel`.

        Raises Untold for what the network or Meta does, GivenUp when the reader was closed.
        """
        left = min(self._end - time.monotonic(), QUESTION_SECONDS)
        if left <= 0:
            raise Untold("failed", what="there was no time left to ask")
        token = pixel.read_token or pixel.access_token
        query = {**params, **proof(token, pixel.app_secret)}
        try:
            answer = self._http.send(
                "GET", self._base + path, seconds=left, headers=bearer(token), params=query
            )
        except NoAnswer as error:
            self.check()
            raise Untold("failed", what=f"the Graph API gave no answer ({error})") from None
        return _read(answer)

    def pages(self, pixel: Pixel, path: str, params: Mapping[str, str]) -> list[Any]:
        """All of a list, page by page; raises as `get` does.

        Meta's own link to the next page carries the token in its address: only its cursor is used.
        """
        found: list[Any] = []
        query = {**params, "limit": str(PAGE)}
        for _ in range(MOST_PAGES):
            answer = self.get(pixel, path, query)
            data, paging = answer.get("data"), _map(answer, "paging")
            found += data if isinstance(data, list) else []
            after = _map(paging, "cursors").get("after")
            if "next" not in paging or not isinstance(after, str):
                return found
            query["after"] = after
        raise Untold("failed", what=f"the answer has more than {MOST_PAGES} pages")


def _read(answer: Answer) -> dict[str, Any]:
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
        raise Untold("failed", what=f"found {what} (http {answer.status})")
    one = known(code)
    if one.kind in PROBLEMS:
        raise Untold(one.kind, code=code, meaning=one.meaning, todo=one.fix)
    raise Untold("failed", what=f"Meta answered code {code}")


# -- answers ---------------------------------------------------------------------------------------


def quality_of(answer: Mapping[str, Any]) -> list[EventQuality]:
    """What dataset_quality says about each event; nothing for `{}`, which means no data yet."""
    return [_event(one) for one in _maps(answer.get("web")) if one.get("event_name")]


def _event(given: Mapping[str, Any]) -> EventQuality:
    match, freshness = _map(given, "event_match_quality"), _map(given, "data_freshness")
    # Meta's own table spells it so once.
    keys = given.get("dedupe_key_feedback") or given.get("dedup_key_feedback")
    return EventQuality(
        event_name=_text(given, "event_name")[:50],
        match_quality=number(match.get("composite_score")),
        match_keys=[
            KeyFeedback(
                identifier=_text(one, "identifier"),
                share=_share(one.get("coverage")),
                potential=_share(one.get("potential_aly_acr_increase")),
            )
            for one in _maps(match.get("match_key_feedback"))
        ],
        diagnostics=[
            Diagnosis(_text(one, "name"), _text(one, "description"), _text(one, "solution"),
                      _share(one))
            for one in _maps(match.get("diagnostics"))
        ],
        coverage=_share(given.get("event_coverage")),
        coverage_goal=_share(given.get("event_coverage"), "goal_percentage"),
        dedupe_keys=[
            DedupeKey(
                key=_text(one, "dedupe_key"),
                browser=_share(one.get("browser_events_with_dedupe_key")),
                server=_share(one.get("server_events_with_dedupe_key")),
                coverage=_share(one.get("overall_browser_coverage_from_dedupe_key")),
            )
            for one in _maps(keys)
        ],
        upload_frequency=_text(freshness, "upload_frequency"),
        freshness=_text(freshness, "description"),
        acr=_share(given.get("acr")),
        acr_explanation=_text(_map(given, "acr"), "description"),
    )  # fmt: skip


#: Events by hour (in Unix seconds) and event_name.
Counts = Counter[tuple[int, str]]


def counts_of(buckets: Iterable[object]) -> Counts:
    """The counts in the buckets of /stats."""
    counts = Counts()
    for bucket in buckets:
        given = bucket if isinstance(bucket, Mapping) else {}
        hour = _hour(given.get("start_time"))
        for one in _maps(given.get("data")):
            name, n = _text(one, "value")[:50], number(one.get("count"))
            if hour is not None and name and n is not None:
                counts[hour, name] += int(n)
    return counts


def _hour(moment: object) -> int | None:
    try:
        seconds = datetime.fromisoformat(moment).timestamp() if isinstance(moment, str) else moment
    except ValueError:
        return None
    seconds = number(seconds)
    return None if seconds is None else int(seconds) // 3600 * 3600


def recommendations_of(groups: Iterable[object]) -> list[Recommendation]:
    """The recommendations, those about signals first."""
    found = [
        Recommendation(
            type=_text(one, "type"),
            title=SIGNALS.get(_text(one, "type"), ""),
            body=_text(content, "body"),
            lift_estimate=_text(content, "lift_estimate"),
            score_lift=number(content.get("opportunity_score_lift")),
            url=_address(one.get("url")),
            capi=_text(one, "type") in _PLACES,
        )
        for group in _maps(list(groups))
        for one in _maps(group.get("recommendations"))
        for content in [_map(one, "recommendation_content")]
    ]
    found.sort(key=lambda one: (_PLACES.get(one.type, len(_PLACES)), -(one.score_lift or 0)))
    return found[:_MOST]


def number(value: object) -> float | None:
    """A finite number, also from a text such as "6.5"; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _share(value: object, key: str = "percentage") -> float | None:
    """The share that Meta writes as {"percentage": 90}."""
    percentage = number(value.get(key)) if isinstance(value, Mapping) else None
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
    is_ours = isinstance(value, str) and len(value) <= 2000 and _OURS.fullmatch(value)
    return str(value) if is_ours else ""
