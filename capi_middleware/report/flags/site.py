"""Flags about the site: its config, its pages' policies, its visitors, and what it forgot."""

import re
from collections import Counter

from capi_middleware.events import OF_HOST
from capi_middleware.meta.match_keys import MATCH_KEYS
from capi_middleware.meta.versions import LAST_DAYS, NEWEST, version_at
from capi_middleware.report.causes import cause_of
from capi_middleware.report.flags.registry import TEXTS, Facts, Flags, check, flag, with_config
from capi_middleware.report.match_keys import FORMS, ORDERS, advise
from capi_middleware.report.model import EventReport, Severity
from capi_middleware.report.numbers import percent, surely_above, surely_below

#: Less than this share of conversions with a key that Meta ranks high is worth a flag.
_KEY_SHARE = 0.8
#: Where visitors have told who they are. A checkout that begins has not asked them yet.
_TOLD = (ORDERS | FORMS) - {"InitiateCheckout"}
#: More events without consent than this share: somebody should look at the banner.
_CONSENT_SHARE = 0.5
#: More robots than this share: somebody should look at the traffic.
_BOT_SHARE = 0.3
#: From this share of blocked browser copies it is worth to know.
_BLOCKED_SHARE = 0.05
#: More visitors whose address is of two families than this share: Meta warns of it.
_FAMILY_SHARE = 0.1
#: So many settings whose functions fail are named, the worst first.
_NAMED = 5
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


@check
def csp_blocks(facts: Facts) -> Flags:
    """A directive of the pages' own policy blocked something."""
    directives = TEXTS["csp_blocks"].words
    blocked = Counter[str]()
    for count in facts.counts:
        if count.kind == "csp" and count.reason in directives:
            blocked[count.reason] += count.n
        elif (count.kind, count.reason) == ("skipped", "csp"):
            blocked["tag"] += count.n
    for directive, n in blocked.items():
        severity: Severity = "info" if directive.startswith("connect-src") else "critical"
        yield flag(severity, value=n, words=directives[directive])


@check
@with_config
def graph_version_ends(facts: Facts) -> Flags:
    """Meta ends the version of its API that is used, or has."""
    assert facts.config is not None
    used = version_at(facts.config.graph_version, facts.upto)
    if facts.whole and used.days_left is not None and used.days_left <= LAST_DAYS:
        yield flag(
            "warning" if used.days_left > 0 else "critical", value=used.days_left,
            target=LAST_DAYS, used=used, newest=NEWEST,
        )  # fmt: skip


@check
def test_event_code_on(facts: Facts) -> Flags:
    """A test code is left on, and has not ended."""
    for pixel in facts.configured:
        code, until = facts.config.test_event(pixel) if facts.config else (None, 0.0)
        if code and facts.upto < until:
            yield flag("warning", ("", pixel.id), value=1)


@check
def callable_failed(facts: Facts) -> Flags:
    """A function of the site's own, in a setting, raised errors."""
    failed = Counter[str]()
    for count in facts.counts if facts.whole else ():
        if count.kind == "error" and count.reason.startswith(OF_HOST):
            failed[count.reason.removeprefix(OF_HOST)] += count.n
    if failed:
        named = "; ".join(f"{what} ({n:,})" for what, n in failed.most_common(_NAMED))
        yield flag("warning", value=failed.total(), named=named)


@check
def pixel_silent(facts: Facts) -> Flags:
    """A pixel got no event while others got some."""
    total = sum(event.server + event.browser + event.unpaired for event in facts.events)
    heard = {event.pixel_id for event in facts.events}
    for pixel in facts.configured if facts.whole and total >= _SEEN else ():
        if pixel.id not in heard:
            yield flag("warning", ("", pixel.id), value=0, target=1)


@check
def event_suggested(facts: Facts) -> Flags:
    """Pages suggest an event that nobody sends."""
    if not facts.whole or facts.config is None:
        return
    routes = facts.config.routes
    known = {one.event_name for one in facts.events} | {one.event_name for one in routes}
    for name, words in _SUGGESTED.items():
        word = re.compile(rf"/({words})(/|\.|$)", re.IGNORECASE)
        found = [(n, page) for page, n in facts.pages.items() if n >= _SEEN and word.search(page)]
        if found and name not in known:
            n, page = max(found)
            yield flag("info", (name, ""), value=0, target=n, page=page, name=name)


@check
@with_config
def match_key_missing(facts: Facts) -> Flags:
    """Conversions lack a match key that Meta ranks high."""
    for event in facts.events:
        if event.event_name not in _TOLD or not (advice := advise(event, ["high"])):
            continue
        n = round(advice.share * event.server)
        if surely_below(n, event.server, _KEY_SHARE):
            yield flag(
                "warning", event.place, value=advice.share, target=_KEY_SHARE,
                n=n, event=event, advice=advice, share=percent(advice.share),
                what=MATCH_KEYS[advice.key].what,
            )  # fmt: skip


@check
@with_config
def consent_share(facts: Facts) -> Flags:
    """Many visitors have not agreed."""
    n = sum(one.suppressed.get("consent", 0) for one in facts.events)
    return _often(n, sum(map(_made, facts.events)), _CONSENT_SHARE)


@check
@with_config
def bot_share(facts: Facts) -> Flags:
    """Many visitors are robots."""
    n = sum(
        causes.get("bot", 0)
        for one in facts.events
        for causes in (one.suppressed, one.missing_browser)
    )
    return _often(n, sum(map(_made, facts.events)), _BOT_SHARE)


@check
def ip_families_differ(facts: Facts) -> Flags:
    """Browsers have an IPv6 address that the server does not see, or the other way round."""
    seen = facts.counted("ip_family").get(("", ""), Counter())
    same = seen["IPv4 IPv4"] + seen["IPv6 IPv6"]
    return _often(seen.total() - same, seen.total(), _FAMILY_SHARE)


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
        yield from _often(blocked[pixel_id], of, _BLOCKED_SHARE, pixel_id)


def _often(n: int, of: int, limit: float, pixel_id: str = "") -> Flags:
    """Worth to know where `n` of so many is surely more than the share `limit`."""
    if surely_above(n, of, limit):
        part = n / of
        yield flag(
            "info", ("", pixel_id), value=round(part, 3), target=limit,
            n=n, of=of, share=percent(part),
        )  # fmt: skip
