"""Causes: what each means to the people who run the site, and what they can do about it."""

from msgspec import Struct

from capi_middleware.report.model import Severity, Side


class Cause(Struct, frozen=True):
    """Why one copy of an event is missing.

    `because` ends the sentence "they are missing because ..."; `fix` is what to do. `severity` is
    "info" where the site cannot do anything and the other copy covers the event; `is_blocked`
    where a tool of the visitor did it.
    """

    because: str
    fix: str
    severity: Severity = "info"
    is_blocked: bool = False


_COVERED = "Nothing to fix: the server copy covers these visitors."

_BROWSER = {
    "not_rendered": Cause(
        "the event came from a response without a page that could carry the pixel",
        "Nothing to fix for a webhook, an API or a job. Otherwise let EventRoute.match name the "
        "page that visitors see after the event, and let that page be HTML with a <head>.",
        "warning"),
    "not_run": Cause(
        "the page went out with the pixel script, but the script never reported back",
        "Open such a page and check that s.js and b under the prefix setting are answered: no "
        "firewall or CDN rule may stop them, and a Content-Security-Policy needs 'self' in "
        "script-src and connect-src. Visitors without JavaScript stay here.",
        "warning"),
    "unknown": Cause(
        "the pixel script could not find out what became of the browser copy",
        "Open such a page with the network panel of the browser and look for requests to "
        "https://www.facebook.com/tr: where they succeed there is nothing to fix.",
        "warning"),
    "left_early": Cause(
        "the visitor left the page before the pixel could send",
        "Nothing to fix: the server copy covers these visitors. A faster page loses fewer."),
    "script_blocked": Cause(
        "the browser did not load Meta's script, mostly because of an ad blocker",
        _COVERED, is_blocked=True),
    "script_replaced": Cause(
        "an ad blocker put an empty script in the place of Meta's",
        "Nothing to fix: the server copy covers these visitors. If you set pixel_script_url, "
        "check that it still gives Meta's fbevents.js.",
        is_blocked=True),
    "config_blocked": Cause(
        "Meta's script could not load the settings of this pixel",
        "Check that the id of the Pixel exists in Events Manager, and that your "
        "Content-Security-Policy allows all of https://connect.facebook.net in script-src.",
        "warning", is_blocked=True),
    "csp": Cause(
        "the Content-Security-Policy of your site forbids the pixel",
        "Add https://connect.facebook.net to script-src and https://www.facebook.com to img-src "
        "of the Content-Security-Policy header.",
        "warning"),
    "request_blocked": Cause(
        "something between the page and Meta stopped the request, mostly an ad blocker",
        _COVERED, is_blocked=True),
    "request_replaced": Cause(
        "an ad blocker answered the request in the place of Meta", _COVERED, is_blocked=True),
    "consent": Cause(
        "the pixel was told that the visitor has not agreed, although the server copy went out",
        "Give the consent setting the same answer as your consent banner, so that both copies "
        "stay at home together.",
        "warning"),
    "bot": Cause(
        "Meta's script took the visitor for a robot and sent nothing",
        "Nothing to fix: Meta leaves out monitoring tools, test browsers and crawlers."),
    "replay": Cause(
        "a stored copy of the page was shown again, and its event may go out only once",
        "Nothing to fix if visitors use the back button. If a cache or CDN stores these pages, "
        "send Cache-Control: no-store with them."),
}  # fmt: skip

_SERVER = {
    "unmapped": Cause(
        "no rule on the server makes this event",
        "Add an EventRoute for the page or a track() line to its view, let send be \"both\", and "
        "check that Pixel(events=...) does not leave the event out."),
    "pending": Cause(
        "the server copy still waits for delivery",
        "Wait a minute and load the report again. If the number stays, check that delivery=True "
        "is set or capi-middleware deliver runs, and that the server reaches graph_url."),
    "rejected": Cause(
        "Meta refused the server copy",
        "Read Meta's reason with capi-middleware dead-letters: mostly the access_token of the "
        "Pixel has run out, or value and currency are missing."),
    "expired": Cause(
        "the server copy waited for more than seven days, after which Meta takes no event",
        "Keep delivery running: delivery=True in the web processes or capi-middleware deliver "
        "beside them, with an access_token that is valid."),
    "dropped": Cause(
        "the server copy was given up before it was stored",
        "Look at the log: where the queue was full raise queue_limit, where the database failed "
        "repair the disk or the server that the store setting names."),
    "stopped": Cause(
        "your before_send stopped the server copy, although the pixel sent its own",
        "Nothing to fix if that is meant; an event that Meta must not know at all needs no route."),
    "consent": Cause(
        "the server was told that the visitor has not agreed, although the pixel sent its copy",
        "Give the pixel the same answer as the consent setting: load the consent banner before "
        "the pixel."),
    "bot": Cause(
        "the server took the visitor for a robot, although the pixel sent its copy",
        "Nothing to fix for crawlers that run JavaScript. If these are customers, check that "
        "your proxy passes the User-Agent header on unchanged."),
    "unknown": Cause(
        "the pixel spoke of an event that this store does not have",
        "Let every process use the same store setting, and keep retention_days longer than pages "
        "stay open."),
}  # fmt: skip

#: One table for why a copy is missing: by the words of events.BROWSER_CAUSES for the browser's, by
#: the words of parity.json for the server's. A new cause stands here and where it is found out.
CAUSES: dict[Side, dict[str, Cause]] = {"browser": _BROWSER, "server": _SERVER}
#: States of a server copy whose cause has another name; every other one is its own.
_OF_STATE = {"leased": "pending", "dead": "rejected"}


def cause_of(side: Side, word: str) -> Cause:
    """The meaning of a cause; one that nobody knows is "unknown"."""
    return CAUSES[side].get(word, CAUSES[side]["unknown"])


def server_cause(state: str) -> str:
    """The cause that a state of the server copy stands for, which is not "delivered"."""
    return _OF_STATE.get(state, state)
