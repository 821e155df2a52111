"""Banners of consent: what a page has of each, with say(yes) for the visitor's answer.

Stand-ins keep their cookies and call back as their documentation says, see page/script/banners.js;
of the others the page has the real file.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

from starlette.requests import Request

from tests.support.libraries import source_of, sources_of

#: `was` is the answer of an earlier visit, undefined without one.
STAND_INS = {
    "tcf": """
        const told = [], data = status => ({ eventStatus: status, gdprApplies: true, listenerId: 1,
            tcString: window.agreed ? YES : NO,
            purpose: { consents: Object.fromEntries([1, 3, 4, 7].map(n => [n, window.agreed])) },
            vendor: { consents: {} } });
        const YES = 'CPXxRfAPXxRfAAfKABENB-CgAP_AAH_AAAYgAAAAAAAA';
        const NO = 'CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA';
        window.agreed = !!was;
        let status = was === undefined ? 'cmpuishown' : 'tcloaded';
        window.__tcfapi = (command, version, f) => {
            told.push(f);
            f(data(status), true);
        };
        say = yes => {
            window.agreed = yes;
            keep('euconsent-v2', yes ? YES : NO);
            status = 'useractioncomplete';
            for (const f of told) f(data(status), true);
        };""",
    "onetrust": """
        const tell = detail => dispatchEvent(new CustomEvent('OneTrustGroupsUpdated', { detail }));
        const set = yes => {
            keep('OptanonConsent', 'groups=C0001%3A1%2CC0004%3A' + (yes ? 1 : 0));
            window.OnetrustActiveGroups = yes ? ',C0001,C0004,' : ',C0001,';
        };
        set(was);
        setTimeout(tell, 30, ['C0001']);
        say = yes => {
            keep('OptanonAlertBoxClosed', '2026-11-28');
            set(yes);
            tell(window.OnetrustActiveGroups.split(',').filter(Boolean));
        };""",
    "cookiebot": """
        window.Cookiebot = { consent: { marketing: !!was }, hasResponse: was !== undefined };
        const tell = yes => dispatchEvent(new Event('CookiebotOn' + (yes ? 'Accept' : 'Decline')));
        if (was !== undefined) setTimeout(tell, 30, was);
        say = yes => {
            Object.assign(window.Cookiebot, { consent: { marketing: yes }, hasResponse: true });
            keep('CookieConsent', `{stamp:%27x%27%2Cnecessary:true%2Cmarketing:${yes}%2Cver:1}`);
            tell(yes);
        };""",
    "cookieyes": """
        let said = was;
        const state = () => (
            { categories: { advertisement: !!said }, isUserActionCompleted: said !== undefined });
        if (was === undefined)
            keep('cookieyes-consent',
                'consentid:x,consent:,action:,necessary:yes,advertisement:no');
        window.getCkyConsent = state;
        setTimeout(() => document.dispatchEvent(
            new CustomEvent('cookieyes_banner_load', { detail: state() })), 30);
        say = yes => {
            keep('cookieyes-consent', 'consentid:x,consent:yes,action:yes,necessary:yes,'
                + 'advertisement:' + (yes ? 'yes' : 'no'));
            said = yes;
            const all = ['necessary'], more = ['advertisement'];
            document.dispatchEvent(new CustomEvent('cookieyes_consent_update', { detail:
                yes ? { accepted: [...all, ...more], rejected: [] }
                    : { accepted: all, rejected: more } }));
        };""",
    "usercentrics": """
        let up = false, state = was;
        window.UC_UI = { isInitialized: () => up, isConsentRequired: () => state === undefined,
            getServicesBaseInfo: () => [{ name: 'Usercentrics', consent: { status: true } },
                { name: 'Facebook Pixel', consent: { status: !!state } }] };
        setTimeout(() => { up = true; dispatchEvent(new CustomEvent('UC_UI_INITIALIZED')); }, 30);
        say = yes => {
            state = yes;
            dispatchEvent(new CustomEvent('UC_UI_CMP_EVENT', { detail: { source: 'FIRST_LAYER',
                type: yes ? 'ACCEPT_ALL' : 'DENY_ALL' } }));
        };""",
    "usercentrics, saved": """
        let state = was;
        window.UC_UI = { isInitialized: () => true, isConsentRequired: () => state === undefined,
            getServicesBaseInfo: () => [{ name: 'Usercentrics', consent: { status: true } },
                { name: 'Meta Pixel', consent: { status: !!state } }] };
        dispatchEvent(new CustomEvent('UC_UI_INITIALIZED'));
        say = yes => {
            dispatchEvent(new CustomEvent('UC_UI_CMP_EVENT', { detail: { type: 'SAVE' } }));
            state = yes;
        };""",
    "usercentrics 3": """
        let state = was, up = false;
        const details = () => ({
            consent: { status: state ? 'ALL_ACCEPTED' : 'ALL_DENIED', required: state === undefined,
                type: state === undefined ? 'IMPLICIT' : 'EXPLICIT' },
            services: { a: { name: 'Usercentrics', consent: { given: true } },
                b: { name: 'Facebook Pixel', consent: { given: !!state } } } });
        const tell = () => dispatchEvent(new CustomEvent('UC_CONSENT', { detail: details() }));
        window.__ucCmp = { isInitialized: async () => up,
            getConsentDetails: async () => details() };
        setTimeout(() => { up = true; dispatchEvent(new CustomEvent('UC_UI_INITIALIZED')); }, 30);
        say = yes => { state = yes; tell(); };""",
    "didomi": """
        const state = was === undefined ? {} : { yes: was };
        window.Didomi = { shouldConsentBeCollected: () => !('yes' in state),
            getCurrentUserStatus: () => ({
            purposes: { cookies: { id: 'cookies', enabled: !!state.yes } },
            vendors: { 'c:meta-pixel': { id: 'c:meta-pixel', enabled: !!state.yes } } }) };
        setTimeout(() => {
            for (const f of window.didomiOnReady || []) f(window.Didomi);
            window.didomiOnReady = { push: f => f(window.Didomi) };
        }, 30);
        say = yes => {
            state.yes = yes;
            const word = yes ? 'enabled' : 'disabled';
            keep('didomi_token', btoa(JSON.stringify({ purposes: { [word]: ['cookies'] },
                vendors: { [word]: ['c:meta-pixel'] } })));
            for (const one of window.didomiEventListeners || [])
                if (one.event === 'consent.changed') one.listener({});
        };""",
    "klaro": """
        const watchers = [], manager = { confirmed: was !== undefined,
            consents: { metaPixel: !!was }, watch: one => watchers.push(one) };
        setTimeout(() => { window.klaro = { getManager: () => manager }; }, 30);
        say = yes => {
            Object.assign(manager, { confirmed: true, consents: { metaPixel: yes } });
            keep('klaro', encodeURIComponent(JSON.stringify(manager.consents)));
            for (const one of watchers) one.update(manager, 'saveConsents', {});
        };
        ready = () => window.klaro;""",
    "complianz": """
        const tell = (name, detail) => document.dispatchEvent(new CustomEvent(name, { detail }));
        setTimeout(tell, 30, 'cmplz_fire_categories', { categories: was ? ['marketing'] : [] });
        say = yes => {
            keep('cmplz_marketing', yes ? 'allow' : 'deny');
            tell('cmplz_status_change', { category: 'marketing', value: yes ? 'allow' : 'deny' });
        };""",
    "google": """
        window.dataLayer = window.dataLayer || [];
        window.gtag = function () { dataLayer.push(arguments); };
        const all = word => ({ ad_storage: word, ad_user_data: word });
        gtag('consent', 'default', { ...all('denied'), wait_for_update: 500 });
        say = yes => gtag('consent', 'update', all(yes ? 'granted' : 'denied'));
        if (was !== undefined) say(was);""",
    "own": """
        window.capi = window.capi || [];
        say = yes => capi.push(['consent', yes ? 'granted' : 'denied']);""",
    "limited": """
        say = yes => capi.consent(yes ? 'limited' : 'denied');""",
}  # fmt: skip
#: start() shows a stand-in. "answered" is no cookie of a banner: what it knows itself.
_STAND_IN = """<script>
let say, ready = () => true;
const keep = (name, value) => { document.cookie = `${name}=${value}; path=/`; };
const was = { yes: true, no: false }[(/answered=(\\w+)/.exec(document.cookie) || [])[1]];
const start = () => {
    %s
    const its = say;
    say = yes => { keep('answered', yes ? 'yes' : 'no'); its(yes); };
};
</script>"""

# -- the real ones, from npm -----------------------------------------------------------------------

_PRESS = """
const press = selector => new Promise(done => {
    const look = () => {
        const button = document.querySelector(selector);
        button ? done(button.click()) : setTimeout(look, 20);
    };
    look();
});
"""
_KLARO = """
window.klaroConfig = { lang: 'en', acceptAll: true, services: [
    { name: 'facebook-pixel', title: 'Meta', purposes: ['marketing'] },
    { name: 'matomo', title: 'Matomo', purposes: ['analytics'] } ] };
const start = () => {};
const say = yes => {
    const manager = klaro.getManager();
    if (!manager.confirmed)
        return press('.klaro .cookie-notice ' + (yes ? '.cm-btn-success' : '.cn-decline'));
    manager.changeAll(yes);
    manager.saveAndApplyConsents();
};
const ready = () => document.querySelector('.klaro .cn-decline')
    || window.klaro && klaro.getManager().confirmed;
"""
_VANILLA = """
window.dataLayer = [];
function gtag() { dataLayer.push(arguments); }
const all = word => ({ ad_storage: word, ad_user_data: word });
gtag('consent', 'default', all('denied'));
const tell = () => gtag('consent', 'update',
    all(CookieConsent.acceptedCategory('marketing') ? 'granted' : 'denied'));
const texts = { title: 'Cookies', acceptAllBtn: 'Yes', acceptNecessaryBtn: 'No' };
const start = () => addEventListener('DOMContentLoaded', () => CookieConsent.run({
    hideFromBots: false,
    categories: { necessary: { enabled: true, readOnly: true }, marketing: {} },
    language: { default: 'en', translations: { en: { consentModal: texts,
        preferencesModal: { ...texts, savePreferencesBtn: 'Save', sections: [] } } } },
    onFirstConsent: tell, onChange: tell }));
const say = yes => {
    const again = CookieConsent.validConsent();
    if (again) CookieConsent.showPreferences();
    const role = `[data-role=${yes ? 'all' : 'necessary'}]`;
    return press((again ? '#cc-main .pm__btn' : '#cc-main .cm__btn') + role);
};
const ready = () => document.querySelector('#cc-main .cm__btn') || CookieConsent.validConsent();
"""
_OSANO = """
let popup;
const tell = () => capi.consent(popup.hasConsented() ? 'granted' : 'denied');
const start = () => addEventListener('DOMContentLoaded', () => cookieconsent.initialise(
    { type: 'opt-in', animateRevokable: false, revokable: true,
        onStatusChange: () => tell() }, made => { popup = made; }));
const say = yes => {
    if (popup.hasAnswered()) popup.open();
    return press(yes ? '.cc-window .cc-allow' : '.cc-window .cc-deny');
};
const ready = () => popup && (popup.hasAnswered() || document.querySelector('.cc-window .cc-deny'));
"""
_TCF = """
const GVL_JSON = { gvlSpecificationVersion: 3, vendorListVersion: 1, tcfPolicyVersion: 5,
    lastUpdated: '2026-01-01T00:00:00Z', purposes: { 1: {}, 3: {}, 4: {}, 7: {} },
    specialPurposes: {}, features: {},
    specialFeatures: {}, stacks: {}, vendors: { 755: { id: 755, name: 'Google',
        purposes: [1, 3, 4, 7], legIntPurposes: [], flexiblePurposes: [], specialPurposes: [],
        features: [], specialFeatures: [] } } };
let cmp, core;
const start = () => {};
const made = yes => {
    const model = new core.TCModel(new core.GVL(GVL_JSON));
    Object.assign(model, { cmpId: 10, cmpVersion: 1, isServiceSpecific: true });
    if (yes) {
        model.purposeConsents.set([1, 3, 4, 7]);
        model.vendorConsents.set(755);
    }
    model.vendorsDisclosed.set(755);
    return core.TCString.encode(model);
};
const kept = () => (/euconsent-v2=([^;]*)/.exec(document.cookie) || [])[1];
const say = yes => {
    const text = made(yes);
    if (kept()) cmp.update(kept(), true);
    document.cookie = `euconsent-v2=${text}; path=/`;
    cmp.update(text, false);
};
const ready = () => cmp;
</script><script type=importmap>{"imports": {"@iabtechlabtcf/core": "/core/index.js"}}</script>
<script type=module>
    import { CmpApi } from '/cmpapi/index.js';
    import * as all from '@iabtechlabtcf/core';
    core = all;
    const api = new CmpApi(10, 1, true);
    kept() ? api.update(kept(), false) : api.update('', true);
    cmp = api;
"""


def _vanilla_rule(request: Request) -> Any:
    kept = request.cookies.get("cc_cookie")
    if kept is None:
        return "unanswered"
    return "marketing" in json.loads(unquote(kept))["categories"]


class Banner(NamedTuple):
    """The `head` of its pages, with their `files`, and the site's `rule`."""

    head: str
    rule: Any
    files: Callable[[], Mapping[str, str]] = dict
    is_real: bool = False
    #: Whether it can tell us something before our script is there.
    is_early: bool = True


def _real(
    script: str, rule: Any, *packages: Sequence[str], files: Callable[[], Mapping[str, str]] = dict
) -> Banner:
    tags = "".join(f"<script src=/{package[0]}.js></script>" for package in packages)

    def all_files() -> Mapping[str, str]:
        return {f"/{one[0]}.js": source_of(*one) for one in packages} | dict(files())

    return Banner(f"<script>{_PRESS}{script}</script>{tags}", rule, all_files, is_real=True)


def _iab() -> Mapping[str, str]:
    found = {}
    for name in ("core", "cmpapi"):
        for path, text in sources_of(f"@iabtechlabtcf/{name}", "1.5.21", "lib/mjs").items():
            found[f"/{name}/{path}"] = text
    return found


#: The rules of consent of the site, where it is not the ready one of that name.
_RULES: dict[str, Any] = {
    "own": lambda request: "unanswered", "limited": "google",
    "usercentrics, saved": "usercentrics", "usercentrics 3": "usercentrics",
}  # fmt: skip
BANNERS = {
    **{
        name: Banner(
            _STAND_IN % script, _RULES.get(name, name), is_early=name != "limited"
        )
        for name, script in STAND_INS.items()
    },
    "Klaro": _real(_KLARO, "klaro", ("klaro", "0.7.22", "dist/klaro-no-css.js")),
    "vanilla-cookieconsent": _real(
        _VANILLA, _vanilla_rule,
        ("vanilla-cookieconsent", "3.1.0", "dist/cookieconsent.umd.js"),
    ),
    "Osano's cookieconsent": _real(
        _OSANO,
        {"value": "{cookie.cookieconsent_status}", "granted": ["allow"], "denied": ["deny"]},
        ("cookieconsent", "3.1.1", "build/cookieconsent.min.js"),
    )._replace(is_early=False),
    "IAB's API": _real(
        _TCF, "tcf", ("@iabtechlabtcf/stub", "1.5.21", "lib/stub.js"), files=_iab
    ),
}  # fmt: skip
