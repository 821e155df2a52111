"""Comparing what came of the same exchanges in two revisions: all but ids and times."""

import base64
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_EVENT_ID = re.compile(r"\b([tk][-0-9A-Z_a-z]{19})\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
_PAGE_MADE = re.compile(r"\bm([-0-9A-Z_a-z]{19})-(\d{1,4})\b")
_FBP = re.compile(r"\bfb\.(\d)\.(179\d{10})\.(\d{1,18})\b")
_CARRIED = re.compile(r"capi_next=([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")
_LOGIN = re.compile(r"capi_report=(\d+)\.[A-Za-z0-9_-]+")
_VISITOR = re.compile(r"(v1\.\{.*?\})\.[A-Za-z0-9_-]{43}")
#: Of the report's own page: those of the hosts' pages are shorter.
_NONCE = re.compile(r"(nonce(?:-|=\"))[A-Za-z0-9_-]{22}\b")
_SCRIPT = re.compile(r"s\.js\?v=[A-Za-z0-9_-]+")
#: What is compared of a row where both revisions have it.
_COLUMNS = (
    "event_name", "pixel_id", "event_time", "server", "browser", "reason", "attempts", "uncertain",
    "route", "page", "agent",
)  # fmt: skip


class Difference(NamedTuple):
    """What differs: in exchange `n` (None: at the end of all), of which site, in what."""

    n: int | None
    site: str
    what: str
    theirs: Any
    ours: Any


class Names:
    """Gives ids that are made of chance or of keys names by the order in which they appear."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._bodies: dict[str, str] = {}
        self.n = 0

    def _name(self, kind: str, text: str) -> str:
        if text not in self._known:
            number = sum(name.startswith(f"<{kind} {self.n}.") for name in self._known.values())
            self._known[text] = f"<{kind} {self.n}.{number}>"
        return self._known[text]

    def _event(self, found: re.Match[str]) -> str:
        name = self._name(found[1][0], found[0])
        self._bodies[found[1][1:]] = name
        return name

    def _carried(self, found: re.Match[str]) -> str:
        body = found[1]
        try:
            told = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)).decode()
        except ValueError:
            return found[0]
        return f"capi_next={self.text(told)}.<signature>"

    def text(self, text: str) -> str:
        """The text with names in place of its ids."""
        text = _CARRIED.sub(self._carried, text)
        text = _LOGIN.sub(r"capi_report=\1.<signature>", text)
        text = _VISITOR.sub(r"\1.<signature>", text)
        text = _SCRIPT.sub("s.js?v=<hash>", text)
        text = _NONCE.sub(r"\1<nonce>", text)
        text = _EVENT_ID.sub(self._event, text)
        text = _PAGE_MADE.sub(
            lambda found: f"<made by {self._bodies.get(found[1], found[1])}-{found[2]}>", text
        )
        return _FBP.sub(lambda found: self._name(f"fbp{found[1]}", found[0]), text)

    def all(self, value: Any) -> Any:
        """The same for all texts of plain data."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.all(key): self.all(one) for key, one in value.items()}
        return [self.all(one) for one in value] if isinstance(value, list | tuple) else value


def _row(row: dict[str, Any], common: set[str]) -> dict[str, Any]:
    """A row of the ledger without what is a key, a time of ours or a digest."""
    kept = {key: row[key] for key in _COLUMNS if key in common}
    kept["event_id"] = row["event_id"]
    payload = row["payload"]
    try:
        kept["payload"] = json.loads(payload) if payload else payload
    except ValueError:
        kept["payload"] = payload
    if "match_keys" in common:
        # Which bit is which key is the revision's own: the report says the keys.
        kept["match_keys"] = int(row["match_keys"]).bit_count()
    if {"digest", "browser_digest"} <= common:
        both = row["digest"], row["browser_digest"]
        kept["digests"] = ["set" if one else "" for one in both] + [str(both[0] == both[1])]
    return kept


class Found:
    """What came of the exchanges in one revision, with names in place of ids."""

    def __init__(self, raw: dict[str, Any], given: list[dict[str, Any]], common: set[str]) -> None:
        names: dict[str, Names] = {}
        rows: dict[tuple[str, int], list[dict[str, Any]]] = {}
        self.rest: dict[str, dict[str, Any]] = {}
        for site, end in raw["sites"].items():
            for row in end["rows"]:
                n = int(row["event_time"]) - raw["begin"]
                rows.setdefault((site, n), []).append(_row(row, common))
        self.exchanges: list[dict[str, Any]] = []
        for exchange, outcome in zip(given, raw["exchanges"], strict=True):
            site = f"{exchange['site']}-{exchange['door']}"
            one = names.setdefault(site, Names())
            one.n = exchange["n"]
            mine = rows.pop((site, exchange["n"]), [])
            told = {key: one.all(value) for key, value in outcome.items()}
            told["rows"] = [one.all(row) for row in sorted(mine, key=_order)]
            self.exchanges.append(told)
        for site, end in raw["sites"].items():
            one = names[site]
            one.n = -1
            other = [row for (place, _), some in rows.items() if place == site for row in some]
            took = sorted(end["took"], key=lambda pair: (pair[0], _order(pair[1])))
            self.rest[site] = {
                "rows of other times": [one.all(row) for row in sorted(other, key=_order)],
                "counters": _summed(end["counts"]),
                "what Meta took": one.all(took),
                "the log": sorted(raw["log"]) if site == next(iter(raw["sites"])) else [],
                **{name: one.all(_report(name, told)) for name, told in end["reports"].items()},
            }


def _order(row: dict[str, Any]) -> str:
    return _EVENT_ID.sub("<id>", json.dumps(row, sort_keys=True))


def _summed(counts: list[dict[str, Any]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for one in counts:
        name = " ".join(str(one.get(key)) for key in ("kind", "reason", "event_name", "pixel_id"))
        sums[name] = sums.get(name, 0) + one["n"]
    return dict(sorted(sums.items()))


def _report(name: str, told: list[Any]) -> Any:
    status, headers, body = told
    if name == "parity.json" and body.startswith("{"):
        body = json.loads(body)
    elif name != "parity.json":
        body = body.split("\n")
    return [status, headers, body]


def differences(
    given: list[dict[str, Any]], theirs: dict[str, Any], ours: dict[str, Any]
) -> Iterator[Difference]:
    """Every difference of two revisions, in the order of the exchanges."""
    columns = [
        {key for end in raw["sites"].values() for row in end["rows"][:1] for key in row}
        for raw in (theirs, ours)
    ]
    common = columns[0] & columns[1]
    old, new = Found(theirs, given, common), Found(ours, given, common)
    for exchange, before, after in zip(given, old.exchanges, new.exchanges, strict=True):
        for what in before:
            if before[what] != after[what]:
                site = f"{exchange['site']}-{exchange['door']}"
                yield Difference(exchange["n"], site, what, before[what], after[what])
    for site, before in old.rest.items():
        for what in before:
            if before[what] != new.rest[site][what]:
                yield Difference(None, site, what, before[what], new.rest[site][what])


def shown(difference: Difference, given: list[dict[str, Any]]) -> str:
    """A difference to read: what was asked, and both answers where they differ first."""
    where = f"at the end, {difference.site}: {difference.what}"
    if difference.n is not None:
        exchange = given[difference.n]
        request = exchange["request"]
        told = f"{request['method']} {request['path']}?{request.get('query', '')}"
        steps = " · ".join(str(step)[:70] for step in exchange["app"])
        where = (
            f"exchange {difference.n}, {difference.site}: {difference.what}\n  {told}\n  {steps}"
        )
    return "\n".join([where, *_lines(difference.theirs, difference.ours, "")])


def _lines(theirs: Any, ours: Any, at: str) -> Iterator[str]:
    """The leaves that differ, at most a few."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in {**theirs, **ours}:
            if theirs.get(key) != ours.get(key):
                yield from _lines(theirs.get(key), ours.get(key), f"{at}.{key}")
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for place, (one, other) in enumerate(zip(theirs, ours, strict=True)):
            if one != other:
                yield from _lines(one, other, f"{at}[{place}]")
    else:
        one, other = (text if isinstance(text, str) else repr(text) for text in (theirs, ours))
        place = next(
            (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
            min(len(one), len(other)),
        )
        start = max(0, place - 60)
        yield f"  {at or 'it'} differs at {place}"
        yield f"    theirs: {one[start : place + 100]!r}"
        yield f"    ours:   {other[start : place + 100]!r}"
