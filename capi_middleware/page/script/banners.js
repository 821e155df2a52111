// Hears what banners of consent say in the page: one entry for each, by the name of its ready rule.
// Each gets what to call with an answer (true, false), what the rule requires and its vendor, and says
// whether it could listen: its banner may come later.
// What sites call Meta's pixel in their banner, as in capture/banners.py.
const meta = /(?:^|[^a-z])(?:facebook[a-z]*|meta|metapixel|fb|fbq|fbpixel)(?:$|[^a-z])/;
const isMeta = name => meta.test(name.replace(/(?<=[a-z])(?=[A-Z])/g, '-').toLowerCase());
// By the name of each service: whether all that is required is on.
const served = (states, requires) => {
	const its = Object.keys(states).filter(isMeta);
	return requires.every(name => name === 'meta' ? its.length && its.every(one => states[one]) : states[name]);
};
const flags = all => Object.fromEntries(Object.entries(all || {}).map(([id, { enabled }]) => [id, enabled]));
const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'; // of a TC string

const banners = {
	// IAB Tech Lab, "Consent Management Platform API v2", addEventListener; as the server reads the string
	tcf: (say, requires, vendor) => window.__tcfapi && (window.__tcfapi('addEventListener', 2, safe((told, is) => {
		if (!is || !/^(tcloaded|useractioncomplete)$/.test(told.eventStatus)) return;
		if (told.gdprApplies === false) return say(true);
		const text = told.tcString || '', isDisclosing = /\.[I-P]/.test(text), { vendor: of } = told;
		const made = [...text.slice(7, 13)].reduce((n, one) => n * 64 + DIGITS.indexOf(one), 0);
		const shown = isDisclosing && (of.disclosedVendors || of.vendorsDisclosed); // named both ways
		const has = typeof vendor === 'string' // of Google's Additional Consent: 2~1.35~dv.9
			? () => (/^[12]~([\d.]*)/.exec(told.addtlConsent) || [, ''])[1].split('.').includes(vendor.slice(3))
			: () => vendor == null || of.consents[vendor] && (!shown || shown[vendor]);
		say((isDisclosing || made < 17723232e3) && requires.every(n => told.purpose.consents[n]) && has());
	})), true),
	// OneTrust, "Web CMP Events Guide": the event comes with each load, too, before an answer
	onetrust: (say, requires) => {
		const look = () => {
			const groups = window.OnetrustActiveGroups?.split(',');
			if (!groups) return; // the cookie of an earlier visit may be there, the banner is not
			if (requires.every(one => groups.includes(one))) say(true);
			else if (/OptanonAlertBoxClosed=/.test(document.cookie) || window.OneTrust?.IsAlertBoxClosed?.()) say(false);
		};
		on(window, 'OneTrustGroupsUpdated', () => later(look));
		look();
		return true;
	},
	// Cookiebot, "Developer": properties and events
	cookiebot: (say, requires) => {
		const look = e => {
			const { Cookiebot: bot } = window;
			if (e || bot?.hasResponse) say(requires.every(one => bot.consent[one]));
		};
		for (const name of ['Accept', 'Decline', 'ConsentReady']) on(window, 'CookiebotOn' + name,
			e => look(name !== 'ConsentReady' && e));
		look();
		return true;
	},
	// CookieYes, "Events on consent update", "Events on cookie banner load", getCkyConsent()
	cookieyes: (say, requires) => {
		const look = ({ detail }) => detail.isUserActionCompleted && say(requires.every(one => detail.categories[one]));
		on(document, 'cookieyes_consent_update', e => say(requires.every(one => e.detail.accepted.includes(one))));
		on(document, 'cookieyes_banner_load', look);
		if (window.getCkyConsent) look({ detail: window.getCkyConsent() });
		return true;
	},
	// Usercentrics: 2, UC_UI and "UC_UI_CMP_EVENT"; 3, __ucCmp and "UC_CONSENT"; both,
	// "UC_UI_INITIALIZED"; "consent_status" (a site names that event: ucEvent by its docs)
	usercentrics: say => {
		// Where no service is called like Meta's, all that there are have to be on.
		const look = states => {
			const all = Object.keys(states), its = all.filter(isMeta);
			if (all.length) say((its.length ? its : all).every(one => states[one]));
		};
		const three = ({ consent, services }) => {
			if (consent.type === 'EXPLICIT' || consent.required === false)
				look(Object.fromEntries(Object.values(services).map(one => [one.name, one.consent?.given])));
		};
		const two = () => look(Object.fromEntries((window.UC_UI?.getServicesBaseInfo?.() || [])
			.map(({ name, consent }) => [name, consent.status])));
		const load = safe(() => {
			const { __ucCmp: cmp, UC_UI: ui } = window;
			if (cmp) cmp.isInitialized().then(is => is && cmp.getConsentDetails().then(three)).catch(noop);
			else if (ui?.isInitialized() && !ui.isConsentRequired()) two();
		});
		on(window, 'UC_UI_INITIALIZED', load);
		on(window, 'UC_CONSENT', ({ detail }) => three(detail));
		on(window, 'UC_UI_CMP_EVENT', ({ detail: { type } }) => {
			if (type === 'ACCEPT_ALL' || type === 'DENY_ALL') say(type === 'ACCEPT_ALL');
			else if (type === 'SAVE') later(two);
		});
		on(window, 'ucEvent', ({ detail: { event, action, type, ucCategory, ...states } }) => {
			if (event === 'consent_status' && /^explicit$/i.test(type)) look(states);
		});
		load();
		return true;
	},
	// Didomi, "Events" and "API": didomiEventListeners, didomiOnReady, getCurrentUserStatus()
	didomi: (say, requires) => {
		const look = safe(() => {
			const { Didomi: didomi } = window, { purposes, vendors } = didomi.getCurrentUserStatus();
			if (didomi.shouldConsentBeCollected?.()) return;
			const all = Object.values(flags(purposes)).every(Boolean);
			say(served({ ...flags(purposes), ...flags(vendors) }, requires) && all);
		});
		(window.didomiEventListeners = window.didomiEventListeners || []).push({ event: 'consent.changed', listener: look });
		(window.didomiOnReady = window.didomiOnReady || []).push(look);
		return true;
	},
	// Klaro, consent-manager.js: watch(), confirmed, consents
	klaro: (say, requires) => {
		const manager = window.klaro?.getManager?.();
		if (!manager) return;
		const update = safe(({ confirmed, consents }, type) =>
			(confirmed || type === 'saveConsents') && say(served(consents, requires)));
		manager.watch({ update });
		update(manager);
		return true;
	},
	// Complianz, complianz.js: cmplz_status_change, cmplz_revoke; cmplz_fire_categories with each load
	complianz: say => {
		const kept = /(?:^|; )cmplz_marketing=(allow|deny)/.exec(document.cookie);
		if (kept) say(kept[1] === 'allow');
		on(document, 'cmplz_fire_categories', ({ detail }) => detail.categories.includes('marketing') && say(true));
		on(document, 'cmplz_status_change', ({ detail }) => {
			if (detail.category === 'marketing') say(detail.value === 'allow');
		});
		on(document, 'cmplz_revoke', () => say(false));
		return true;
	},
	// Google, "Consent mode": commands in dataLayer; a default that denies is no answer yet
	google: say => {
		const layer = window.dataLayer = window.dataLayer || [], state = {};
		let open = true;
		const look = safe(entry => {
			if (entry[0] !== 'consent' || !/^(default|update)$/.test(entry[1])) return;
			Object.assign(state, entry[2]);
			const yes = state.ad_storage === 'granted' && (state.ad_user_data || 'granted') === 'granted';
			if (entry[1] === 'default' && !yes) open = false;
			if (entry[1] === 'update' && (entry[2].ad_storage || entry[2].ad_user_data) || yes && open) say(yes);
		});
		for (const entry of [...layer]) look(entry);
		before(layer, 'push', (go, ...entries) => { entries.forEach(look); });
		return true;
	},
};
