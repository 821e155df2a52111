"""What a fake Meta has received: server events, browser hits, and which belong together."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from starlette.requests import Request

#: For how long after the first copy Meta removes others, in seconds.
DEDUPE_SECONDS = 48 * 3600.0


@dataclass
class ServerEvent:
    """One event that the Graph API accepted. `arrived` is Unix time in seconds."""

    pixel_id: str
    event: dict[str, Any]
    arrived: float
    test_event_code: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What Meta removes duplicates by: pixel, event_name, event_id."""
        return self.pixel_id, self.event["event_name"], self.event.get("event_id", "")


@dataclass
class BrowserHit:
    """One request to /tr/. `arrived` is Unix time in seconds; `eid` is None when not sent."""

    id: str
    ev: str
    eid: str | None
    cd: dict[str, str]
    dl: str
    method: str
    user_agent: str
    cookies: dict[str, str]
    sec_purpose: str
    params: dict[str, str]
    arrived: float

    @property
    def key(self) -> tuple[str, str, str]:
        """What Meta removes duplicates by: pixel, event name, event id."""
        return self.id, self.ev, self.eid or ""


@dataclass
class Received:
    """What has arrived, in order. `configs` are the pixel ids whose config was asked for."""

    server: list[ServerEvent] = field(default_factory=list)
    browser: list[BrowserHit] = field(default_factory=list)
    configs: list[str] = field(default_factory=list)
    #: /tr/ requests without event: the pixel script asking whether the host can be reached.
    probes: int = 0

    def add_hit(self, request: Request, params: dict[str, str], now: float) -> None:
        """Keep a request to /tr/. `now` is Unix time in seconds."""
        if "ev" not in params:
            self.probes += 1
            return
        hit = BrowserHit(
            id=params.get("id", ""),
            ev=params["ev"],
            eid=params.get("eid"),
            cd={key[3:-1]: value for key, value in params.items() if key.startswith("cd[")},
            dl=params.get("dl", ""),
            method=request.method,
            user_agent=request.headers.get("user-agent", ""),
            cookies=request.cookies,
            sec_purpose=request.headers.get("sec-purpose", ""),
            params=params,
            arrived=now,
        )
        self.browser.append(hit)

    def counted(self) -> "list[ServerEvent | BrowserHit]":
        """The copies that Meta counts: the first of each key, and the first after its 48 hours.

        A copy without event_id is nobody's duplicate. Meta's fall-back (by `fbp` or `external_id`)
        is not played, since it never holds for sure.
        """
        first: dict[tuple[str, str, str], float] = {}
        counted: list[ServerEvent | BrowserHit] = []
        copies: list[ServerEvent | BrowserHit] = [*self.server, *self.browser]
        for copy in sorted(copies, key=lambda one: one.arrived):
            known = first.get(copy.key) if copy.key[2] else None
            if known is None or copy.arrived - known >= DEDUPE_SECONDS:
                first[copy.key] = copy.arrived
                counted.append(copy)
        return counted

    def pairs(self) -> list[dict[str, Any]]:
        """Copies per (pixel, event_name, event_id), in order of arrival."""
        server = Counter(event.key for event in self.server)
        browser = Counter(hit.key for hit in self.browser)
        names = ("pixel_id", "event_name", "event_id")
        return [
            dict(zip(names, key, strict=True)) | {"server": server[key], "browser": browser[key]}
            for key in dict.fromkeys([*server, *browser])
        ]

    def as_json(self) -> dict[str, Any]:
        """The answer of GET /received."""
        server = [
            {"event_name": one.key[1], "event_id": one.event.get("event_id"), **asdict(one)}
            for one in self.server
        ]
        browser = [asdict(hit) for hit in self.browser]
        return {"server": server, "browser": browser, "pairs": self.pairs()}
