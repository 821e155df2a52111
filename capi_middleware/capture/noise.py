"""Noise: requests that are no visit: crawlers, health checks, prefetches, subresources."""

import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache

_PREFETCH_HEADERS = frozenset({"purpose", "sec-purpose", "x-sec-purpose", "x-moz", "x-purpose"})
_PREFETCH_WORDS = ("prefetch", "prerender", "preview")
#: What a browser asks for beside pages (Sec-Fetch-Dest): a catch-all view answers /favicon.ico too.
_SUBRESOURCES = frozenset(
    {"audio", "embed", "font", "image", "manifest", "object", "paintworklet", "audioworklet",
     "report", "script", "serviceworker", "sharedworker", "style", "track", "video", "worker",
     "xslt", "json"}
)  # fmt: skip
#: Kinds in the list that are no crawlers: the app's own clients and tests, and people whose
#: browser is driven by a program.
_NO_CRAWLERS = frozenset({"http-library", "browser-automation"})
_HEALTH_AGENT = re.compile(
    r"kube-probe/|ELB-HealthChecker/|GoogleHC/|Consul Health Check|Amazon-Route53-Health|"
    r"health[ _-]?check",
    re.IGNORECASE,
)
_HEALTH_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/healthcheck", "/health-check"})


def noise(method: str, path: str, headers: Mapping[str, str]) -> str | None:
    """Why a request is no visit, None for a visit.

    One of "head", "prefetch", "subresource", "health_check" and "bot".

    Crawlers read; what is posted is somebody's deed (a payment provider's webhook names itself
    like a crawler). Header names are in lower case.
    """
    if method == "HEAD":
        return "head"
    if not _PREFETCH_HEADERS.isdisjoint(headers) and _is_prefetch(headers):
        return "prefetch"
    if method != "GET":
        return None
    if headers.get("sec-fetch-dest") in _SUBRESOURCES:
        return "subresource"
    if path in _HEALTH_PATHS:
        return "health_check"
    return _kind_of(headers.get("user-agent", ""))


def _is_prefetch(headers: Mapping[str, str]) -> bool:
    """Whether a browser fetches a page that nobody may ever see."""
    return any(
        word in headers[name].lower()
        for name in _PREFETCH_HEADERS.intersection(headers)
        for word in _PREFETCH_WORDS
    )


@lru_cache(maxsize=4096)
def _kind_of(user_agent: str) -> str | None:
    """What asks: a health check, or a bot in the list of crawler-user-agents (PyPI, monperrus)."""
    if _HEALTH_AGENT.search(user_agent):
        return "health_check"
    return "bot" if any(pattern.search(user_agent) for pattern in _patterns()) else None


@cache
def _patterns() -> list[re.Pattern[str]]:
    from importlib.resources import files

    text = files("crawleruseragents").joinpath("crawler-user-agents.json").read_text("utf-8")
    known = [
        one["pattern"] for one in json.loads(text) if _NO_CRAWLERS.isdisjoint(one.get("tags", ()))
    ]
    # Smaller groups search faster than one big alternation.
    return [re.compile("|".join(known[at : at + 25])) for at in range(0, len(known), 25)]
