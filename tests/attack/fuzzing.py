"""Requests that nobody should send, with whole lengths: what is short is short on purpose."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import quote

from tests.attack.planted import Planted

AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36"
FORM = "application/x-www-form-urlencoded"
_LENGTHS = (0, 1, 3, 40, 300, 1000, 1025, 4097, 8000)
_PIECES = (
    "a", "@", "a@", "%", "%00", "%0a", "%1b", "\\", '"', "'", "<script>", "</script>", "{", "[",
    "]}", "é", "漢", "\u202e", "=1+1", ";", ",", "&", "?a=", "/", "//", "/..", "..", ":", "1", "-",
    "+1", "eyJa.", "fb.1.1.", "\t", " ", "null", "NaN", "\\ud800", "\\u0000", "%ff", "%25", "\x7f",
)  # fmt: skip
_NAMES = (
    "PageView", "Purchase", "Lead", "AddToCart", "x", "", "a" * 101, "\u202ename", "=1+1", "{}",
)  # fmt: skip
_ODD_TARGETS = (
    "*", "//evil.example/x", "http://evil.example/x", "/\\evil.example", "/..;/x", "/./x",
    "/%2e%2e/x", "/_capi", "/_CAPI/b", "/_capi%2Fb", "/x/../_capi/b",
)  # fmt: skip
_HEADERS = (
    "Referer", "X-Forwarded-For", "Forwarded", "X-Forwarded-Host", "Cookie", "Accept", "X-A",
    "Authorization", "Sec-Purpose", "X-Forwarded-Proto", "If-None-Match", "Sec-GPC", "Range",
)  # fmt: skip


@dataclass
class Asked:
    """A request as it goes over the wire."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def wire(self) -> bytes:
        lines = {"Host": "shop.example", "Connection": "close", "User-Agent": AGENT, **self.headers}
        if self.body or self.method == "POST":
            lines.setdefault("Content-Length", str(len(self.body)))
        head = "".join(f"{name}: {text}\r\n" for name, text in lines.items())
        start = f"{self.method} {self.target} HTTP/1.1\r\n"
        return (start + head + "\r\n").encode("utf-8", "surrogateescape") + self.body


class Fuzzer:
    """Draws requests, the same ones for the same `random`."""

    def __init__(self, random: Random, planted: Planted) -> None:
        self._random = random
        self._planted = planted
        #: What pages of the site told: (event_name, event_id).
        self.known: list[tuple[str, str]] = [("PageView", "tAAAA")]

    def text(self) -> str:
        """Something odd, of any length up to what servers take."""
        piece = self._random.choice(_PIECES)
        if self._random.random() < 0.2:
            return self._planted_value()
        some = [piece, *self._random.choices(_PIECES, k=self._random.randrange(3))]
        return ("".join(some) * 8000)[: self._random.choice(_LENGTHS)]

    def _planted_value(self) -> str:
        """One that its shape alone gives away: a name in free text could be anything."""
        return self._random.choice((*self._planted.emails, *self._planted.phones))

    def line(self) -> str:
        """The same for a header."""
        kept = "".join(one for one in self.text() if one >= " " and one != "\x7f")
        return kept.strip()

    def target(self) -> str:
        """A path with a query, as a browser may write it."""
        if self._random.random() < 0.5:
            return self._random.choice(self._planted.addresses).replace(" ", "%20")
        if self._random.random() < 0.1:
            return self._random.choice(_ODD_TARGETS)
        path = self._random.choice(("/", "/p/", "/products/", "/thanks/", "/missing/", "/api/"))
        path += quote(self.text()[:2000], safe="/%;=@,:.-")
        return path + "?" + quote(self.text()[:3000], safe="/%;=@,:.-&?")

    def _headers(self) -> dict[str, str]:
        random, headers = self._random, {}
        if random.random() < 0.8:
            headers["Sec-Fetch-Mode"] = "navigate"
        for name in random.sample(_HEADERS, random.randrange(4)):
            headers[name] = self.line()
        if random.random() < 0.3:
            value = self._planted_value()
            headers["Cookie"] = f"customer={quote(value)}; _fbp={quote(self.text()[:300])}"
        if random.random() < 0.3:
            place = random.choice(self._planted.addresses)
            headers["Referer"] = f"https://other.example{place}"
        return {name: text for name, text in headers.items() if text}

    def page(self) -> Asked:
        """A request for something of the host's."""
        if self._random.random() < 0.7:
            method = self._random.choice(("GET",) * 6 + ("PUT", "OPTIONS", "DELETE", "get"))
            return Asked(method, self.target(), self._headers())
        return self._posted()

    def _posted(self) -> Asked:
        random, planted = self._random, self._planted
        names, mail = random.choices(planted.names, k=2), random.choice(planted.emails)
        given = {"email": mail, "phone": random.choice(planted.phones), "name": names[0],
                 "city": names[1], "note": self.text()}  # fmt: skip
        way = random.choice(("form", "multipart", "json", "broken"))
        kind, body = FORM, "&".join(f"{k}={quote(v)}" for k, v in given.items()).encode()
        if way == "multipart":
            kind = "multipart/form-data; boundary=x"
            parts = (f'--x\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'
                     for k, v in given.items())  # fmt: skip
            body = ("".join(parts) + "--x--\r\n").encode()
        elif way == "json":
            del given["city"]  # a field of Meta's own travel catalogues
            kind, body = "application/json", json.dumps({"x": {self.text(): given}}).encode()
        elif way == "broken":
            kind, body = self.line() or "text/plain", self.text().encode()
        return Asked("POST", "/lead", {**self._headers(), "Content-Type": kind}, body)

    def refused(self) -> Asked:
        """A request to what is under the prefix that must change nothing but counts of refusals."""
        random = self._random
        forged = [random.choice(_NAMES), f"t{self.text()[:60]}", "1234567890", "sent", ""]
        told: Any = {"e": [forged] * random.choice((1, 2, 64)), "k": [self.text()[:99]] * 2}
        if random.random() < 0.3:
            wrong: tuple[Any, ...] = (
                None,
                [],
                {"e": []},
                {"e": [[]]},
                {"u": self.text()},
                self.text(),
            )
            told = random.choice(wrong)
        body = json.dumps(told).encode()
        how = random.randrange(6)
        headers = {"Content-Type": "text/plain", "Origin": "http://shop.example"}
        if how == 0:
            sites = ("cross-site", "same-site", self.line() or "x")
            headers["Sec-Fetch-Site"] = random.choice(sites)
        elif how == 1:
            origins = ("null", "https://evil.example", self.line() or "x")
            headers["Origin"] = random.choice(origins)
        elif how == 2:
            body = random.choice((b"[" * 60_000, b"\xff" * 300, b"{" * 9, self.text().encode()))
        elif how == 3:
            body = b" " * 65_537 + body
        elif how == 4:
            headers["Content-Encoding"] = "gzip"
        else:
            return self._reading()
        where = random.choice(("b", "b", "t", "nothing", "s.js", "parity"))
        return Asked("POST", f"/_capi/{where}", headers, body)

    def _reading(self) -> Asked:
        random = self._random
        place = random.choice(("parity", "parity.json", "parity.csv", "metrics", "b", "t", "x"))
        headers = {"Authorization": f"Bearer {self.line()[:300] or 'x'}"}
        query = quote(self.text()[:2000], safe="=&%")
        method = random.choice(("GET", "HEAD", "PUT", "OPTIONS", "DELETE"))
        return Asked(method, f"/_capi/{place}?e={query}", headers)

    def near(self) -> Asked:
        """A request to what is under the prefix that is almost, or quite, as a page sends it."""
        random = self._random
        name, event_id = random.choice(self.known)
        headers = {"Content-Type": "text/plain", "Origin": "http://shop.example",
                   "Sec-Fetch-Site": "same-origin", **self._headers()}  # fmt: skip
        if random.random() < 0.5:
            outcome = random.choice(("sent", "blocked", "not_run", self.text()[:20]))
            said: Sequence[Any] = [event_id, name, "1234567890", outcome, self.text()[:50]]
            told: Any = {"e": [said], "k": [name, event_id]}
            return Asked("POST", "/_capi/b", headers, json.dumps(told).encode())
        target = random.choice(self._planted.addresses)
        told = {"u": f"http://shop.example{target}", "r": f"https://a.example{target}"}
        if random.random() < 0.6:
            named = random.choice((*_NAMES, self._planted_value()))
            data = {self.text()[:200]: self.text(), "content_name": self._planted_value(),
                    "search_string": self._planted_value(), "value": self.text()[:20]}  # fmt: skip
            call = {"n": named, "i": f"x{random.random()}", "p": ["1234567890"], "d": data}
            told |= {"m": [call], "k": [name, event_id]}
        return Asked("POST", "/_capi/t", headers, json.dumps(told).encode())
