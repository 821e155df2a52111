"""The record of consent is what visitors did: a random walk over them, their pages and the time."""

import random
import time
from collections import Counter
from contextlib import closing
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tests.request.test_events import PAGE, Site
from tests.support.blocks import block_of

FRONT, OWN = "https://www.front.example", "http://testserver"
REPORT = {"authorization": "Bearer the-report-token"}
HOLD = 30 * 60
#: A banner with a cookie, which speaks in each page; and one of which only our script knows.
RULES: dict[str, Any] = {"complianz": "complianz", "callable": lambda request: "unanswered"}
ANSWERS = {"complianz": ["granted", "denied"], "callable": ["granted", "denied", "limited"]}
SEEN = ("held", "granted", "denied", "released", "withdrawn")
#: Beside FRONT, which another site answers.
PLACES = {"own": f"{OWN}/p", "cached": f"{OWN}/cached", "elsewhere": f"{FRONT}/p"}


async def view(request: Request) -> Response:
    cache = {"cache-control": "public, max-age=60"} if "cached" in request.url.path else {}
    return HTMLResponse(PAGE, headers=cache)


def site_of(url: str) -> str:
    return FRONT if url.startswith(FRONT) else OWN


class Visitor:
    """Whoever has one answer; with `gpc`, his browser says no for him."""

    def __init__(self, site: Site, rule: str, n: int) -> None:
        self.site, self.rule, self.gpc = site, rule, n % 5 == 4
        #: Of each site: what only our script knows stays on one.
        self.said: dict[str, str] = {OWN: "", FRONT: ""}
        self.jars: dict[str, dict[str, str]] = {OWN: {}, FRONT: {}}

    def headers(self, url: str) -> tuple[dict[str, str], str]:
        jar = self.jars[site_of(url)]
        cookies = "; ".join(f"{name}={value}" for name, value in jar.items())
        return ({"sec-gpc": "1"} if self.gpc else {}), cookies

    def get(self, url: str) -> str:
        headers, cookies = self.headers(url)
        self.site.client.cookies.clear()
        return self.site.client.get(url, headers={**headers, "cookie": cookies}).text

    def ask(self, url: str, **more: Any) -> Any:
        headers, cookies = self.headers(url)
        if url.startswith(FRONT):
            headers.update({"origin": FRONT, "sec-fetch-site": "cross-site"})
            more["j"] = cookies
        else:
            headers["cookie"] = cookies
        self.site.client.cookies.clear()
        given = {name: value for name, value in more.items() if value is not None}
        answer = self.site.client.post("/_capi/t", json={"u": url, **given}, headers=headers)
        assert answer.status_code == 200, answer.text
        for line in [*answer.headers.get_list("set-cookie"), *answer.json().get("j", [])]:
            name, _, value = line.partition(";")[0].partition("=")
            self.jars[site_of(url)][name] = value
        return answer.json()


class Tab:
    """A page of a visitor, and what our script asks and tells there: see page/script/consent.js."""

    def __init__(self, visitor: Visitor, place: str) -> None:
        self.visitor, self.url = visitor, PLACES[place]
        text = visitor.get(self.url) if place != "elsewhere" else ""
        self.block = block_of(text) if "data-c>" in text else {}
        self.is_there = bool(self.block) or place == "elsewhere"
        self.held = self.block.get("x") == "unanswered"
        self.state = "" if self.held else "granted" if place == "own" else "?"
        self.opened, self.is_dropped, self.said, self.key = self.state == "granted", False, "", None
        self.key = self.block.get("k")
        self.at = visitor.site.capi.issuer.clock()
        if self.is_there and visitor.rule == "complianz" and visitor.said[OWN]:
            self.hears(visitor.said[OWN])
        if self.state == "?":
            self.asks()

    def asks(self) -> None:
        late = self.visitor.site.capi.issuer.clock() - self.at > HOLD
        self.is_dropped = self.is_dropped or (late and self.state != "denied")
        given = self.visitor.ask(
            self.url, y=self.block.get("y"), x=self.said or None, f=self.is_dropped,
            g=None if self.is_dropped else self.block.get("g"),
            n=bool(self.said) and not self.held,
        )  # fmt: skip
        if given.get("x") == "unanswered":
            self.held, self.state, self.said = True, "", ""
        elif given.get("x") == "denied":
            self.state, self.is_dropped = "denied", True
        else:
            self.state, self.opened, self.key = given.get("x") or "granted", True, given["k"]

    def answers(self, word: str) -> None:
        """The visitor says it in the banner of this page, if there is one."""
        visitor = self.visitor
        if self.is_there and not visitor.gpc:
            if visitor.rule == "complianz":
                visitor.said = dict.fromkeys(visitor.said, word)
                for jar in visitor.jars.values():
                    jar["cmplz_marketing"] = "allow" if word == "granted" else "deny"
            elif word != self.state:
                visitor.said[site_of(self.url)] = word
            self.hears(word)

    def hears(self, word: str) -> None:
        """The visitor's answer, or that of a banner which knows it."""
        if not self.is_there or word == self.state:
            return
        self.state = self.said = word
        if self.opened:
            self.visitor.ask(self.url, k=self.key, f=True, x=word)
        elif word != "denied" or not self.is_dropped:
            self.asks()


class Truth:
    """What visitors did, in words of the report: by the rule, and by nobody's request."""

    def __init__(self) -> None:
        self.record, self.left, self.states = Counter[str](), 0, dict[Tab, str]()

    def opens(self, tab: Tab) -> None:
        visitor = tab.visitor
        self.rule = "gpc" if visitor.gpc else visitor.rule
        state = "denied" if visitor.gpc else visitor.said[site_of(tab.url)] or "held"
        self.record[f"{self.rule} {state}"] += 1
        self.left += state == "held"
        self.states[tab] = "gone" if visitor.gpc else state

    def answers(self, tab: Tab, word: str, *, is_late: bool) -> None:
        state, rule = self.states[tab], tab.visitor.rule
        if state == "gone" or not tab.is_there:
            return
        if state in ("granted", "limited"):
            self.record[f"{rule} withdrawn"] += word == "denied"
            self.states[tab] = "withdrawn" if word == "denied" else word
        elif state == "withdrawn":
            self.states[tab] = state if word == "denied" else word
        elif word != "denied" or state == "held":
            self.record[f"{rule} {word}"] += 1
            if state == "held" and not (is_late and word != "denied"):
                self.record[f"{rule} released"] += word != "denied"
                self.left -= 1
            self.states[tab] = word


@pytest.mark.parametrize("rule", RULES)
def test_the_record_of_consent_is_what_visitors_did(store_url: Any, rule: str) -> None:
    site = Site(view, consent=RULES[rule], store=store_url, origins=[FRONT])
    rng, now = random.Random(rule), [time.time()]
    site.capi.issuer.clock = lambda: now[0]
    with closing(site.capi):
        visitors = [Visitor(site, rule, n) for n in range(10)]
        truth, tabs = Truth(), list[Tab]()
        for step in range(120):
            now[0] += rng.choice([5, 60, 600, 2400])
            visitor = rng.choice(visitors)
            mine = [one for one in tabs if one.visitor is visitor]
            if not mine or rng.random() < 0.4:
                tabs.append(Tab(visitor, rng.choice([*PLACES])))
                truth.opens(tabs[-1])
            else:
                tab, word = rng.choice(mine), rng.choice(ANSWERS[rule])
                truth.answers(tab, word, is_late=now[0] - tab.at > HOLD)
                tab.answers(word)
            if step % 10 < 9:
                continue
            told = site.client.get("/_capi/parity.json", headers=REPORT).json()
            found = {f"{r} {a}": n for r, of in told["consent"].items() for a, n in of.items()}
            assert found == {name: n for name, n in truth.record.items() if n}
            assert told["unanswered"].get(rule, 0) == truth.left
        assert truth.record.keys() >= {f"{rule} {word}" for word in SEEN}
        assert truth.left
