"""Reading from the Graph API: bounded in time, size and pages, the token only in a header."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from capi_middleware.insights.model import Problem
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

_NEXT_LOOK = "Nothing to do: the next look asks again. The numbers shown are those of before."


class GivenUp(Exception):
    """The reader was closed while it asked."""


class Reader:
    """Asks the Graph API for one look. Ends by itself after ROUND_SECONDS. Not shared."""

    def __init__(self, graph_url: str, version: str) -> None:
        self._base = f"{graph_url.rstrip('/')}/{version}/"
        self._http = HTTPClient(ANSWER_LIMIT)
        self._end = time.monotonic() + ROUND_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

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
