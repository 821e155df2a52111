"""Flags about the site: its config, its pages' policies, its visitors, and what it forgot."""

import re
from collections import Counter

from capi_middleware.config.settings import Config
from capi_middleware.meta.match_keys import Priority
from capi_middleware.report.causes import cause_of
from capi_middleware.report.flags.registry import Facts, Flags, check, flag, with_config
from capi_middleware.report.match_keys import FORMS, ORDERS, advise
from capi_middleware.report.model import EventReport, Place
from capi_middleware.report.numbers import percent, surely_above, surely_below

#: Less than this share of conversions with a key that Meta ranks high is worth a flag.
_KEY_SHARE = 0.8
_RANKED: tuple[Priority, ...] = ("high",)
#: Where visitors have told who they are. A checkout that begins has not asked them yet.
_TOLD = (ORDERS | FORMS) - {"InitiateCheckout"}
#: More events without consent than this share: somebody should look at the banner.
_CONSENT_SHARE = 0.5
#: More robots than this share: somebody should look at the traffic.
_BOT_SHARE = 0.3
#: From this share of blocked browser copies it is worth to know.
_BLOCKED_SHARE = 0.05
#: From so many views a page is one that people use.
_SEEN = 20

#: Pages that mostly mean an event, by a word of their path.
_SUGGESTED = {
    "Purchase": r"thanks?|thank-you|order-confirmed|order-complete|confirmation|receipt|success",
    "InitiateCheckout": r"checkout",
    "AddToCart": r"cart|basket|bag",
    "CompleteRegistration": r"welcome|registered|signup-complete|registration-complete",
    "Search": r"search|find",
    "Contact": r"contact",
    "ViewContent": r"products?|items?|p",
    "AddToWishlist": r"wishlist|favou?rites",
    "Lead": r"quote|demo|newsletter",
    "Subscribe": r"subscribed?|subscription",
    "Schedule": r"appointments?|booking",
    "Donate": r"donate",
    "FindLocation": r"stores|locations|store-finder",
}
_WORD = {
    name: re.compile(rf"/({words})(/|\.|$)", re.IGNORECASE) for name, words in _SUGGESTED.items()
}
#: By the directive that blocks something: what it blocks, and what to add to it.
_POLICIES = {
    "script-src": (
        "Meta's library does not load: no browser copy leaves",
        "Add https://connect.facebook.net to script-src (to script-src-elem or default-src where "
        "the policy has no script-src).",
    ),
    "img-src": (
        "the pixel's requests are refused: no browser copy leaves",
        "Add https://www.facebook.com to img-src (to default-src where the policy has no img-src).",
    ),
    "connect-src": (
        "the page cannot say what became of its events by the usual way, and not ask for them",
        "Add 'self' to connect-src (to default-src where the policy has no connect-src).",
    ),
    "tag": (
        "our script may not run, so these pages get no tag and have server copies alone",
        "Add 'self' to script-src, or give each response a nonce: the tag takes the one it finds.",
    ),
}


@check
def csp_blocks(facts: Facts) -> Flags:
    """A directive of the pages' own policy blocked something."""
    blocked = Counter[str]()
    for count in facts.counts:
        if count.kind == "csp" and count.reason in _POLICIES:
            blocked[count.reason] += count.n
        elif (count.kind, count.reason) == ("skipped", "csp"):
            blocked["tag"] += count.n
    for directive, n in blocked.items():
        what, fix = _POLICIES[directive]
        yield flag(
            "info" if directive == "connect-src" else "critical", value=n,
            explanation=f"The policy (CSP) of {n:,} pages stops something: {what}.",
            fix=fix,
        )  # fmt: skip


@check
@with_config
def test_event_code_on(facts: Facts, config: Config) -> Flags:
    """A test code is left on."""
    for pixel in config.pixels:
        if pixel.test_event_code or config.test_event_code:
            yield flag(
                "warning", ("", pixel.id), value=1,
                explanation="A test_event_code is set: the events show in the test tool of Events "
                "Manager, and they count for ads all the same.",
                fix="Take test_event_code out of the Config and the Pixel when the test is over.",
            )  # fmt: skip


@check
@with_config
def pixel_silent(facts: Facts, config: Config) -> Flags:
    """A pixel got no event while others got some."""
    total = sum(event.server + event.browser for event in facts.events)
    if total < _SEEN or not facts.whole:
        return
    heard = {event.pixel_id for event in facts.events}
    for pixel in config.pixels:
        if pixel.id not in heard:
            yield flag(
                "warning", ("", pixel.id), value=0, target=1,
                explanation="No event went to this pixel in the window, while others got some.",
                fix="Check Pixel(events=[...]) and EventRoute(pixels=[...]): together they leave "
                "nothing to it. Take the pixel out of the Config if it is not needed any more.",
            )  # fmt: skip


@check
@with_config
def event_suggested(facts: Facts, config: Config) -> Flags:
    """Pages suggest an event that nobody sends."""
    if not facts.whole:
        return
    known = {one.event_name for one in facts.events} | {one.event_name for one in config.routes}
    for name, word in _WORD.items():
        found = [(n, page) for page, n in facts.pages.items() if n >= _SEEN and word.search(page)]
        if name in known or not found:
            continue
        n, page = max(found)
        yield flag(
            "info", (name, ""), value=0, target=n,
            explanation=f"The page {page} was seen {n:,} times, and nobody sends {name}, which "
            "such pages mostly mean.",
            fix=f'EventRoute("GET {page}", "{name}") if the page is the event, or '
            f'track("{name}", ...) in the view that does it.',
        )  # fmt: skip


@check
@with_config
def match_key_missing(facts: Facts, _: Config) -> Flags:
    """Conversions lack a match key that Meta ranks high."""
    for event in facts.events:
        advice = advise(event, _RANKED) if event.event_name in _TOLD else None
        if advice is None:
            continue
        with_key = round(advice.share * event.server)
        if surely_below(with_key, event.server, _KEY_SHARE):
            yield flag(
                "warning", event.place, value=advice.share, target=_KEY_SHARE,
                explanation=f"{with_key:,} of {event.server:,} events carry {advice.key} "
                f"({percent(advice.share)}), which Meta ranks {advice.priority}: the missing match "
                "key that is worth most here.",
                fix=advice.fix,
            )  # fmt: skip


@check
@with_config
def consent_share(facts: Facts, _: Config) -> Flags:
    """Many visitors have not agreed."""
    n = sum(one.suppressed.get("consent", 0) for one in facts.events)
    made = sum(map(_made, facts.events))
    return _often(
        n, made, _CONSENT_SHARE, ("", ""),
        f"{n:,} of {made:,} events were not made, as their visitors have not agreed",
        fix="Nothing to fix if that is what visitors say. Otherwise check that the consent "
        "setting reads the cookie of the banner that is on the site.",
    )  # fmt: skip


@check
@with_config
def bot_share(facts: Facts, _: Config) -> Flags:
    """Many visitors are robots."""
    n = sum(
        causes.get("bot", 0)
        for one in facts.events
        for causes in (one.suppressed, one.missing_browser)
    )
    made = sum(map(_made, facts.events))
    return _often(
        n, made, _BOT_SHARE, ("", ""), f"{n:,} of {made:,} events came from robots",
        fix="Nothing to fix for crawlers. If these are customers, check that your proxy passes "
        "the User-Agent header on unchanged.",
    )  # fmt: skip


def _made(event: EventReport) -> int:
    """How many happened, also those that were never made."""
    return event.server + event.browser_only + sum(event.suppressed.values())


@check
def pixel_blocked(facts: Facts) -> Flags:
    """Tools of the visitors block the pixel often: no fault of the site."""
    blocked, server = Counter[str](), Counter[str]()
    for event in facts.events:
        server[event.pixel_id] += event.server
        for word, n in event.missing_browser.items():
            blocked[event.pixel_id] += n if cause_of("browser", word).is_blocked else 0
    for pixel_id, of in server.items():
        n = blocked[pixel_id]
        yield from _often(
            n, of, _BLOCKED_SHARE, ("", pixel_id),
            f"Browsers blocked the pixel for {n:,} of {of:,} events that the server delivered",
            more=": ad blockers, mostly",
            fix="Nothing to fix: the server copy covers these visitors. Without the Conversions "
            "API Meta would not know of them.",
        )  # fmt: skip


def _often(
    n: int, of: int, limit: float, place: Place, told: str, *, more: str = "", fix: str
) -> Flags:
    """Worth to know where `n` of so many is surely more than the share `limit`."""
    if surely_above(n, of, limit):
        yield flag(
            "info", place, value=round(n / of, 3), target=limit,
            explanation=f"{told} ({percent(n / of)}){more}.", fix=fix,
        )  # fmt: skip
