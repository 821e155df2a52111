"""Flags about the set-up: pixels, match keys, consent, robots, policies, and forgotten events."""

import re
from collections.abc import Iterable, Mapping, Sequence

from capi_middleware.config.settings import Config
from capi_middleware.report.flags.evidence import flag, percent, surely_above, surely_below
from capi_middleware.report.match_keys import FORMS, ORDERS, advise
from capi_middleware.report.model import EventReport, Flag, Priority

#: Less than this share of conversions with a key that Meta ranks high is worth a flag.
_KEY_SHARE = 0.8
_ASKED_FOR: tuple[Priority, ...] = ("high",)
#: Where visitors have told who they are. A checkout that begins has not asked them yet.
_TOLD = (ORDERS | FORMS) - {"InitiateCheckout"}
#: More events without consent than this share: somebody should look at the banner.
_CONSENT_SHARE = 0.5
#: More robots than this share: somebody should look at the traffic.
_BOT_SHARE = 0.3
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


def flags_of_setup(
    config: Config, events: Sequence[EventReport], pages: Mapping[str, int], *, whole: bool
) -> list[Flag]:
    """What the config and the site's pages say beside `events`.

    `pages` are the paths of the pages that were seen, and how often. What is missing shows only
    in the `whole` report: one of a single event or pixel has no other in it.
    """
    return [
        *_test_codes(config),
        *(_silent(config, events) if whole else ()),
        *(_forgotten(config, events, pages) if whole else ()),
        *(one for event in events for one in _match_key(event)),
        *_shares(events),
    ]


def _test_codes(config: Config) -> Iterable[Flag]:
    for pixel in config.pixels:
        if pixel.test_event_code or config.test_event_code:
            yield flag(
                "test_event_code_on",
                "warning",
                pixel_id=pixel.id,
                value=1,
                target=0,
                explanation="A test_event_code is set: the events show in the test tool of Events "
                "Manager, and they count for ads all the same.",
                fix="Take test_event_code out of the Config and the Pixel when the test is over.",
            )


def _silent(config: Config, events: Sequence[EventReport]) -> Iterable[Flag]:
    total = sum(event.server + event.browser for event in events)
    heard = {event.pixel_id for event in events}
    for pixel in config.pixels:
        if pixel.id in heard or total < _SEEN:
            continue
        yield flag(
            "pixel_silent",
            "warning",
            pixel_id=pixel.id,
            value=0,
            target=1,
            explanation="No event went to this pixel in the window, while others got some.",
            fix="Check Pixel(events=[...]) and EventRoute(pixels=[...]): together they leave "
            "nothing to it. Take the pixel out of the Config if it is not needed any more.",
        )


def _forgotten(
    config: Config, events: Sequence[EventReport], pages: Mapping[str, int]
) -> Iterable[Flag]:
    known = {event.event_name for event in events} | {route.event_name for route in config.routes}
    for name, word in _WORD.items():
        if name in known:
            continue
        found = [(n, page) for page, n in pages.items() if n >= _SEEN and word.search(page)]
        if not found:
            continue
        n, page = max(found)
        yield flag(
            "event_suggested",
            "info",
            event_name=name,
            value=0,
            target=n,
            explanation=f"The page {page} was seen {n:,} times, and nobody sends {name}, which "
            "such pages mostly mean.",
            fix=f'EventRoute("GET {page}", "{name}") if the page is the event, or '
            f'track("{name}", ...) in the view that does it.',
        )


def _match_key(event: EventReport) -> Iterable[Flag]:
    if event.event_name not in _TOLD:
        return
    advice = advise(event, _ASKED_FOR)
    if advice is None:
        return
    with_key = round(advice.share * event.server)
    if not surely_below(with_key, event.server, _KEY_SHARE):
        return
    yield flag(
        "match_key_missing",
        "warning",
        event=event,
        value=advice.share,
        target=_KEY_SHARE,
        explanation=f"{with_key:,} of {event.server:,} events carry {advice.key} "
        f"({percent(advice.share)}), which Meta ranks {advice.priority}: the missing match key "
        "that is worth most here.",
        fix=advice.fix,
    )


def _shares(events: Iterable[EventReport]) -> Iterable[Flag]:
    consent = bots = made = 0
    for event in events:
        consent += event.suppressed.get("consent", 0)
        bots += event.suppressed.get("bot", 0) + event.missing_browser.get("bot", 0)
        made += event.server + event.browser_only + sum(event.suppressed.values())
    if surely_above(consent, made, _CONSENT_SHARE):
        yield flag(
            "consent_share",
            "info",
            value=round(consent / made, 3),
            target=_CONSENT_SHARE,
            explanation=f"{consent:,} of {made:,} events were not made, as their visitors have not "
            f"agreed ({percent(consent / made)}).",
            fix="Nothing to fix if that is what visitors say. Otherwise check that the consent "
            "setting reads the cookie of the banner that is on the site.",
        )
    if surely_above(bots, made, _BOT_SHARE):
        yield flag(
            "bot_share",
            "info",
            value=round(bots / made, 3),
            target=_BOT_SHARE,
            explanation=f"{bots:,} of {made:,} events came from robots ({percent(bots / made)}).",
            fix="Nothing to fix for crawlers. If these are customers, check that your proxy passes "
            "the User-Agent header on unchanged.",
        )
