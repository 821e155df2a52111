"""Banners that are answered in the page: Meta gets what was planted, and before a yes nothing."""

import json
import os
import time
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from capi_middleware import CAPI, CAPIMiddleware, EventRoute, track
from capi_middleware.report.numbers import decisions
from capi_middleware.testing import FakeMeta
from capi_middleware.testing.received import Received
from tests.support.configs import PIXEL_ID, make_config
from tests.support.servers import serve

#: The page's clock, so many milliseconds ahead.
CLOCK = "{ const { now } = Date; window.ahead = 0; Date.now = () => now() + window.ahead; }"
#: A step of a single page, at a person's pace: those within 60 ms are one.
MOVE = """to => {
    history.pushState({}, '', to);
    return new Promise(done => setTimeout(done, 150));
}"""
#: Stand-ins of banners: what a page has of each, with say(yes) for the visitor's answer. They keep
#: their cookies and call back as their documentation says, see page/script/banners.js.
BANNERS = {
    "tcf": """
        const told = [], data = status => ({ eventStatus: status, gdprApplies: true, listenerId: 1,
            purpose: { consents: Object.fromEntries([1, 3, 4, 7].map(n => [n, window.agreed])) },
            vendor: { consents: {} } });
        window.__tcfapi = (command, version, f) => { told.push(f); f(data('cmpuishown'), true); };
        say = yes => {
            window.agreed = yes;
            keep('euconsent-v2', yes ? 'CPXxRfAPXxRfAAfKABENB-CgAP_AAH_AAAYgAAAAAAAA'
                : 'CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA');
            for (const f of told) f(data('useractioncomplete'), true);
        };""",
    "onetrust": """
        window.OnetrustActiveGroups = ',C0001,';
        keep('OptanonConsent', 'groups=C0001%3A1%2CC0004%3A0');
        const tell = detail => dispatchEvent(new CustomEvent('OneTrustGroupsUpdated', { detail }));
        setTimeout(tell, 30, ['C0001']);
        say = yes => {
            keep('OptanonAlertBoxClosed', '2026-11-28');
            keep('OptanonConsent', 'groups=C0001%3A1%2CC0004%3A' + (yes ? 1 : 0));
            window.OnetrustActiveGroups = yes ? ',C0001,C0004,' : ',C0001,';
            tell(window.OnetrustActiveGroups.split(',').filter(Boolean));
        };""",
    "cookiebot": """
        window.Cookiebot = { consent: { marketing: false }, hasResponse: false };
        say = yes => {
            Object.assign(window.Cookiebot, { consent: { marketing: yes }, hasResponse: true });
            keep('CookieConsent', `{stamp:%27x%27%2Cnecessary:true%2Cmarketing:${yes}%2Cver:1}`);
            dispatchEvent(new Event(yes ? 'CookiebotOnAccept' : 'CookiebotOnDecline'));
        };""",
    "cookieyes": """
        keep('cookieyes-consent', 'consentid:x,consent:,action:,necessary:yes,advertisement:no');
        window.getCkyConsent = () => (
            { categories: { advertisement: false }, isUserActionCompleted: false });
        say = yes => {
            keep('cookieyes-consent', 'consentid:x,consent:yes,action:yes,necessary:yes,'
                + 'advertisement:' + (yes ? 'yes' : 'no'));
            const all = ['necessary'], more = ['advertisement'];
            document.dispatchEvent(new CustomEvent('cookieyes_consent_update', { detail:
                yes ? { accepted: [...all, ...more], rejected: [] }
                    : { accepted: all, rejected: more } }));
        };""",
    "usercentrics": """
        say = yes => {
            dispatchEvent(new CustomEvent('ucEvent', { detail: {
                event: 'consent_status', type: 'explicit', action: 'onUpdateServices',
                'Facebook Pixel': yes, ucCategory: { marketing: yes } } }));
            dispatchEvent(new CustomEvent('UC_UI_CMP_EVENT', { detail: { source: 'FIRST_LAYER',
                type: yes ? 'ACCEPT_ALL' : 'DENY_ALL' } }));
        };""",
    "didomi": """
        const state = {}, listeners = () => (window.didomiEventListeners || []);
        window.Didomi = { shouldConsentBeCollected: () => !('yes' in state),
            getCurrentUserStatus: () => ({
            purposes: { cookies: { id: 'cookies', enabled: !!state.yes } },
            vendors: { 'c:meta-pixel': { id: 'c:meta-pixel', enabled: !!state.yes } } }) };
        setTimeout(() => (window.didomiOnReady || []).forEach(f => f(window.Didomi)), 30);
        say = yes => {
            state.yes = yes;
            const word = yes ? 'enabled' : 'disabled';
            keep('didomi_token', btoa(JSON.stringify({ purposes: { [word]: ['cookies'] },
                vendors: { [word]: ['c:meta-pixel'] } })));
            for (const one of listeners()) if (one.event === 'consent.changed') one.listener({});
        };""",
    "klaro": """
        const watchers = [], manager = { confirmed: false, consents: { metaPixel: false },
            watch: one => watchers.push(one) };
        setTimeout(() => { window.klaro = { getManager: () => manager }; }, 30);
        say = yes => {
            Object.assign(manager, { confirmed: true, consents: { metaPixel: yes } });
            keep('klaro', encodeURIComponent(JSON.stringify(manager.consents)));
            for (const one of watchers) one.update(manager, 'saveConsents', {});
        };
        ready = () => watchers.length > 0;""",
    "complianz": """
        say = yes => {
            keep('cmplz_marketing', yes ? 'allow' : 'deny');
            document.dispatchEvent(new CustomEvent('cmplz_status_change',
                { detail: { category: 'marketing', value: yes ? 'allow' : 'deny' } }));
        };""",
    "google": """
        window.dataLayer = window.dataLayer || [];
        window.gtag = function () { dataLayer.push(arguments); };
        const all = word => ({ ad_storage: word, ad_user_data: word });
        gtag('consent', 'default', { ...all('denied'), wait_for_update: 500 });
        say = yes => gtag('consent', 'update', all(yes ? 'granted' : 'denied'));""",
    "own": """
        say = yes => capi.consent(yes ? 'granted' : 'denied');""",
    "limited": """
        say = yes => capi.consent(yes ? 'limited' : 'denied');""",
}  # fmt: skip
#: The rules of consent of the site, where it is not the ready one of that name.
RULES: dict[str, Any] = {"own": lambda request: "unanswered", "limited": "google"}
HEAD = """<!doctype html><html><head><title>%s</title><script>
let say, ready = () => true;
const keep = (name, value) => { document.cookie = `${name}=${value}; path=/`; };
{ %s }
</script></head><body><button data-capi-event="Lead">Call me</button></body></html>"""
ROUTES = [EventRoute("GET /p/{sku}", "ViewContent", custom_data={"content_ids": ["{path.sku}"]})]
VIEW = ("PageView", "ViewContent")


class Journey(NamedTuple):
    """A visitor before a `banner`, what happens on the page (`does`), what he answers (`says`)."""

    banner: str
    does: str
    says: str

    @property
    def name(self) -> str:
        return "-".join(self)


#: What happens before the answer, and the events of it.
DOES = {
    "looks": VIEW,
    "moves": VIEW * 3,
    "clicks": (*VIEW, "Lead"),
    "calls": (*VIEW, "AddToCart"),
    "cached": VIEW,
}
#: "late" is after hold_minutes; "leaves" never answers and goes to another page.
SAYS = ("yes", "no", "yes+no", "no+yes", "late", "leaves+yes")
JOURNEYS = [
    *(Journey(banner, "looks", says) for banner in BANNERS for says in ("yes", "yes+no")),
    *(
        Journey(banner, does, says)
        for n, (does, says) in enumerate(product(DOES, SAYS))
        if (does, says) not in {("looks", "yes"), ("looks", "yes+no")}
        for banner in (list(BANNERS)[n % len(BANNERS)],)
    ),
]
#: Those of every run of the tests.
CHOSEN = [*JOURNEYS[0:22:2], *JOURNEYS[23::7]]


def planted(journey: Journey) -> tuple[list[str], list[str]]:
    """What Meta must get (by the server, by the browser) of all that happens; see Street.walk.

    After the last answer the visitor moves on to one more address.
    """
    before, more = [*DOES[journey.does]], [*VIEW]
    if journey.says == "leaves+yes":
        before = [*VIEW]  # of the page that was open when he said so
    if journey.says in ("yes", "leaves+yes"):
        told = before + more
    elif journey.says == "yes+no":
        told = before
    elif journey.says == "no":
        told = []
    else:
        told = more
    return sorted(told), sorted(told)


def recorded(journey: Journey) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """What the report must say of consent: pages by rule and answer, those never answered."""
    rule = {"own": "callable", "limited": "google"}.get(journey.banner, journey.banner)
    yes = "limited" if journey.banner == "limited" else "granted"
    leaves = journey.says == "leaves+yes"
    answers = {"held": 1 + leaves}
    if journey.says in ("no", "no+yes"):
        answers["denied"] = 1
    if journey.says != "no":
        answers[yes] = 1
    if journey.says in ("yes", "yes+no", "leaves+yes"):
        answers["released"] = 1
    if journey.says == "yes+no":
        answers["withdrawn"] = 1
    return {rule: answers}, {rule: int(leaves or journey.says == "late")}


class Street:
    """A server and a Meta for all journeys, and the site that they are in."""

    def __init__(self, browser: Browser, meta: FakeMeta) -> None:
        self.browser, self.meta, self.url = browser, meta, ""
        self.ahead = 0.0
        self.capi: CAPI
        self.app: Any

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self.app(scope, receive, send)

    def opens(self, banner: str) -> None:
        """A new site with this banner."""

        async def page(request: Asked) -> Response:
            if request.method == "POST":
                track("AddToCart")
                return JSONResponse({})
            cache = "public, max-age=600" if "cached" in request.query_params else "no-store"
            text = HEAD % (request.url.path, BANNERS[banner])
            return HTMLResponse(text, headers={"cache-control": cache})

        self.meta.received = Received()
        self.ahead = 0.0
        self.capi = CAPI(make_config(
            routes=ROUTES, consent=RULES.get(banner, banner), mirror=True, delivery=False,
            pixel_script_url=f"{self.meta.url}/en_US/fbevents.js",
        ))  # fmt: skip
        self.capi.issuer.clock = lambda: time.time() + self.ahead
        self.app = CAPIMiddleware(
            Starlette(routes=[Route("/{path:path}", page, methods=["GET", "POST"])]), self.capi
        )
        self.sent: list[dict[str, Any]] = []

    def server(self) -> list[dict[str, Any]]:
        """The server copies, as they wait for delivery."""
        lease = self.capi.store.lease(PIXEL_ID, limit=100, seconds=600)
        self.sent += [json.loads(one.payload) for one in lease.events]
        return self.sent

    def copies(self) -> tuple[list[str], list[str]]:
        """The names of (server copies, browser copies)."""
        server = [one["event_name"] for one in self.server()]
        return sorted(server), sorted(str(one.ev) for one in self.meta.received.browser)

    def counted(self, what: str) -> int:
        """How often something was counted of consent."""
        counts = self.capi.store.tallies(0, 1e12).counts
        return sum(one.n for one in counts if one.kind == "consent" and one.reason.endswith(what))


@pytest.fixture(scope="module")
def street(browser: Browser) -> Iterator[Street]:
    meta = FakeMeta()
    made = Street(browser, meta)
    with meta.serve(), serve(made) as made.url:
        yield made


def until(page: Page, what: str, holds: Any) -> None:
    """Wait for something to hold, while the page goes on."""
    end = time.monotonic() + 60
    while not holds():
        if time.monotonic() > end:
            pytest.fail(f"not seen in a minute: {what}")
        page.wait_for_timeout(20)


def do(page: Page, street: Street, does: str) -> None:
    """What the visitor does before the answer."""
    if does == "moves":
        for n in (2, 3):
            page.evaluate(MOVE, f"/p/{n}")
    elif does == "clicks":
        page.click("button")
    elif does == "calls":
        page.evaluate("fetch('/cart', { method: 'POST' }).then(answer => answer.text())")


@pytest.mark.parametrize(
    "journey",
    JOURNEYS if os.environ.get("CAPI_JOURNEYS") else CHOSEN,
    ids=lambda journey: journey.name,
)
def test_before_a_yes_meta_sees_nothing_and_after_it_everything_once(
    street: Street, journey: Journey
) -> None:
    street.opens(journey.banner)
    context = street.browser.new_context()
    asked: list[str] = []

    def note(request: Request) -> None:
        if request.url.startswith(street.meta.url):
            asked.append(request.url)

    context.on("request", note)
    context.add_init_script(CLOCK)
    page = context.new_page()
    try:
        walk(page, context, street, journey, asked)
    finally:
        context.close()
        street.capi.close()


def walk(
    page: Page, context: BrowserContext, street: Street, journey: Journey, asked: list[str]
) -> None:
    where = "cached" if journey.does == "cached" else "x"
    page.goto(f"{street.url}/p/1?{where}=1&fbclid=Click1")
    page.wait_for_function("window.capi && capi.consent && ready()")
    do(page, street, journey.does)
    if journey.does == "cached":
        until(page, "the question", lambda: street.counted("held") == 1)
    first, _, then = journey.says.partition("+")
    if first == "leaves":
        page.goto(f"{street.url}/p/9?fbclid=Click1")
        page.wait_for_function("window.capi && capi.consent && ready()")
        first, then = then, ""
    # -- nothing yet
    page.wait_for_load_state("networkidle")
    ours = {one["name"] for one in context.cookies()} & {
        "_fbp",
        "_fbc",
        "capi_next",
        "capi_consent",
    }
    assert (asked, ours, street.copies()) == ([], set(), ([], []))
    assert page.locator("link[rel~=preconnect], link[rel=dns-prefetch]").count() == 0
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0
    if first == "late":
        street.ahead = 31 * 60
        page.evaluate("window.ahead = 31 * 60e3")
        first = "yes"
    for n, word in enumerate(filter(None, (first, then))):
        before = street.copies()
        page.evaluate(f"say({json.dumps(word == 'yes')})")
        if word == "no":
            until(
                page, "the no", lambda: street.counted("denied") + street.counted("withdrawn") >= 1
            )
            assert street.copies() == before
            if n:
                until(page, "no cookie", lambda: {one["name"] for one in context.cookies()}
                      .isdisjoint({"_fbp", "_fbc"}))  # fmt: skip
        elif journey.says in ("yes", "yes+no", "leaves+yes"):
            wanted = sorted(DOES["looks" if journey.says[0] == "l" else journey.does])
            both = (wanted, wanted)
            until(page, f"{wanted}", lambda both=both: street.copies() == both)
        else:
            page.wait_for_function("!!(window.fbq && fbq.callMethod)")
    # -- one address more
    page.evaluate(MOVE, "/p/4")
    until(page, str(planted(journey)), lambda: street.copies() == planted(journey))
    page.wait_for_load_state("networkidle")
    assert street.copies() == planted(journey)
    assert decisions(street.capi.store.tallies(0, 1e12).counts) == recorded(journey)
    ids = [one["event_id"] for one in street.sent]
    assert sorted(ids) == sorted(str(one.eid) for one in street.meta.received.browser)
    assert len(set(ids)) == len(ids)
    if ids:
        assert {one["user_data"]["fbc"].rpartition(".")[2] for one in street.sent} == {"Click1"}
        assert len({one["user_data"]["fbp"] for one in street.sent}) == 1


def test_the_table_of_consent_holds_every_banner_act_and_answer() -> None:
    assert len(set(JOURNEYS)) == len(JOURNEYS) >= 40
    for chosen in (JOURNEYS, CHOSEN):
        assert {one.banner for one in chosen} == set(BANNERS)
    assert {(one.does, one.says) for one in JOURNEYS} == set(product(DOES, SAYS))
