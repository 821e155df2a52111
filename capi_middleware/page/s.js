// Fires the events of this page through fbq and tells the server what became of each copy.
// `make script` makes s.min.js of it: that is what pages load.
(() => {
const safe = f => function () { try { return f.apply(this, arguments); } catch (_) {} };
const later = f => setTimeout(safe(f), 60); // by then CSP reports and timings are in
const on = (target, type, f) => target.addEventListener(type, safe(f), true);
const noop = () => {};
// What scripts ask the site for, by address: did it bring events (true), or do some wait with it
// until it is shown (their signed text)?
const flights = {};
// c.i event_id, c.n name, c.p pixel, c.b without event_id (bare), c.v value and currency of the
// page's own call; c.is outcome, c.said reported
const copies = [];
const lost = {}; // why no event can leave: by pixel, '' for all
const refused = []; // URLs that the page's CSP refused
const timings = {};
let data, ids, fbq, sites, own, here, moving, made = 0, site, beacon, library, listening, late, asImage, probing, observer;

const pixel = /\/tr\/?\?/;
const arrived = entry => entry.transferSize || entry.nextHopProtocol;
const csp = part => refused.some(url => url.includes(part));
const locked = safe(name => RegExp(`"(${name})`).test(JSON.stringify(fbq.instance.locks)));
const see = list => list.forEach(entry => { timings[entry.name] = entry; });

// Was the id fired in this tab? One made from a dedupe_key ("k..."): in this browser, in 7 days?
const fired = safe((id, add, once) => {
	const memory = once || id[0] === 'k' ? localStorage : sessionStorage;
	const ids = JSON.parse(memory._capi || '[]').filter(([, at]) => at > Date.now() - 6048e5);
	const known = ids.some(([old]) => old === id);
	if (add && !known) memory._capi = JSON.stringify([[id, Date.now()], ...ids].slice(0, 200));
	return known;
});

const report = () => {
	const news = copies.filter(c => c.is && c.is !== c.said);
	if (!news.length) return;
	const body = JSON.stringify({ e: news.map(c => [c.i, c.n, c.p, c.said = c.is].concat(c.v || [])), k: data.k });
	if (asImage || !navigator.sendBeacon(beacon, body))
		new Image().src = beacon + '?e=' + encodeURIComponent(body);
};

// What an open copy has come to when time is up.
const guess = safe((c, end) => {
	if (c.left) return end;
	if (locked('consent')) return 'consent';
	if (end !== 'unknown') return end;
	if (!fbq.callMethod) return 'script_blocked';
	if (locked('config:|plugin:')) return 'config_blocked';
	// A page has one PageView, and it may not have been ours.
	if (fbq.queue.length || c.n === 'PageView' && (data.a || !own)) return end;
	return fbq.instance.pixelsByID[c.p].eventCount && 'bot';
});

const review = end => {
	late = late || end;
	for (const c of copies) {
		if (!c.left) c.is = lost[''] || lost[c.p] || c.is;
		if (end && !c.is) c.is = guess(c, end) || end;
	}
	if (!late && copies.some(c => !c.is)) return;
	removeEventListener('beforeunload', noop);
	report();
};
const expire = () => setTimeout(safe(review), 6000, 'unknown');
const settle = (c, outcome) => {
	if (c.is !== 'sent') c.is = outcome;
	review();
};

// An empty answer is an image error, too: can the host be reached at all?
const probe = url => probing = probing || fetch(url, { mode: 'no-cors', credentials: 'omit' })
	.then(() => 'sent', () => new Promise(later).then(() => csp(url) ? 'unknown' : 'request_blocked'))
	.then(outcome => {
		later(() => { probing = 0; }); // what fails later is asked anew: a blocker may be on by then
		return outcome;
	});

const shown = () => performance.getEntriesByType('navigation').every(one => one.loadEventStart);
const judge = (c, url, loaded) => {
	see(observer.takeRecords());
	const entry = timings[url.href];
	const [part] = /\beid=[^&]*/.exec(url.search) || [url.href]; // as it travels: percent-encoded
	if (csp(part)) settle(c, 'csp');
	else if (entry && (loaded || arrived(entry))) settle(c, 'sent');
	else if (loaded) settle(c, 'request_replaced'); // an extension's redirect has no timing
	else if (!entry || c.cut || locked('consent')) settle(c, 'unknown');
	// A page that is stopped while it loads fails its images, too, and never sees its load event.
	else if (!shown()) on(window, 'load', () => later(() => judge(c, url)));
	else probe(url.origin + url.pathname + '?id=' + c.p).then(outcome => settle(c, outcome));
};

const leave = (get, word) => {
	const id = get('eid'), name = get('ev');
	// The library's word follows the picture that it is about.
	const c = copies.find(c => c.p === get('id')
		&& (id ? c.i === id : c.b && c.n === name && (word && c.img || !c.left)));
	c.left = true;
	c.img = !word;
	fired(c.i, true, c.o);
	return c;
};
const watch = safe((img, src) => {
	if (!pixel.test(src)) return;
	if (!observer) { // unlike the page's own list it has no end, and nobody clears it
		observer = new PerformanceObserver(list => see(list.getEntries()));
		observer.observe({ entryTypes: ['resource'] });
	}
	const url = new URL(src, location), c = leave(name => url.searchParams.get(name));
	for (const type of ['load', 'error'])
		on(img, type, () => later(() => judge(c, url, type === 'load')));
});

// The library's own word: no proof, but the only sign of a form POST.
const listen = safe(() => {
	if (listening || !fbq.callMethod) return;
	listening = true;
	fbq.getFbeventsModules('SignalsFBEventsFiredEvent').listen(safe((method, payload) => {
		const c = leave(name => payload.get(name), true);
		if (method !== 'GET') settle(c, 'unknown');
	}));
});

const script = ({ target, type }) => {
	const { src } = target, failed = type === 'error';
	const [, id = ''] = /\/signals\/config\/(\d+)/.exec(src) || [];
	listen();
	if (id || target === library || /\/fbevents\.js/.test(src)) later(() => {
		const cause = id ? 'config_blocked' : failed ? 'script_blocked' : 'script_replaced';
		if (id ? failed || locked('config:' + id) : !fbq.callMethod) lost[id] = csp(src) ? 'csp' : cause;
		review();
	});
};

// What had no time to leave with the page before this one; a PageView is of its own page alone.
const left = safe(() => {
	const events = JSON.parse(sessionStorage._capi_left || '[]');
	sessionStorage.removeItem('_capi_left');
	return events;
});
const leftover = safe(() => {
	const events = copies.filter(c => !c.left && c.is === 'left_early' && c.n !== 'PageView')
		.map(({ e, p }) => ({ ...e, p: [p] }));
	if (events.length) sessionStorage._capi_left = JSON.stringify(events);
});

const fire = events => {
	// A tab closed while loading runs pagehide only if somebody listens to this.
	addEventListener('beforeunload', noop);
	for (const e of events) if (!fired(e.i, false, e.o)) for (const p of e.p) {
		if (copies.some(c => c.i === e.i && c.p === p)) continue;
		copies.push({ i: e.i, n: e.n, p, o: e.o, e });
		safe(fbq)(e.c ? 'trackSingleCustom' : 'trackSingle', p, e.n, e.d, { eventID: e.i });
	}
	review();
	expire();
};

// Events without a page of their own come in a header of what a script asks for.
const header = 'x-capi-events';
const more = events => {
	const before = fbq.allowDuplicatePageViews;
	fbq.allowDuplicatePageViews = true; // each has an event_id of its own
	fire(events);
	// A PageView that the site's own code sends for the same address is a second one, as ever.
	if (fbq.callMethod && !fbq.queue.length) fbq.allowDuplicatePageViews = before;
};
const hear = text => {
	const given = text && JSON.parse(text), events = given && given.e || given;
	if (events && events.length) more(events);
	return given && given.w || !!given;
};
const ours = url => url.startsWith(location.origin + '/');
const bare = url => new URL(url, document.baseURI).href.split('#')[0];

const overhear = () => {
	const { fetch: get, XMLHttpRequest: { prototype: request }, history: past } = window;
	window.fetch = function (what) {
		const answer = get.apply(this, arguments);
		safe(() => {
			const url = bare(what.url || what);
			if (!ours(url)) return;
			flights[url] = answer.then(r =>
				flights[bare(r.url)] = hear(ours(r.url) && r.headers.get(header)), noop);
		})();
		return answer;
	};
	const { send } = request;
	request.send = function () {
		on(this, 'load', () => {
			if (!ours(this.responseURL)) return;
			flights[bare(this.responseURL)] = hear(this.getResponseHeader(header));
		});
		return send.apply(this, arguments);
	};
	here = bare(location);
	for (const name of ['pushState', 'replaceState']) {
		const change = past[name];
		past[name] = function () {
			const answer = change.apply(this, arguments);
			move();
			return answer;
		};
	}
	on(window, 'popstate', move);
	// A part of a page may be shown without a new address.
	on(document, 'up:fragment:loaded', e => e.revalidating || part(e.response.url));
	on(document, 'htmx:afterSwap', e => part(e.detail.xhr.responseURL));
};
const part = url => later(() => later(async () => {
	const waiting = await flights[url = bare(url)];
	if (!waiting || waiting === true) return;
	flights[url] = true;
	question(document.referrer, waiting, true).catch(noop);
}));

// A new address is a new page, whose events came with what a script asked for, or are asked for.
const move = () => {
	clearTimeout(moving);
	moving = later(() => {
		const from = here, url = here = bare(location);
		if (url === from) return;
		Promise.resolve(flights[url]).then(brought => {
			delete flights[url];
			return brought === true || question(from, brought || '');
		}).catch(noop);
	});
};

// An event_id of the page's own.
const make = () => 'm' + data.k[1].slice(1, 20) + '-' + ++made;
const place = more => JSON.stringify({ u: location.href, ...more });
// A call that is not ours: its copies are watched, and the site is told of it unless it has `e`.
const heard = (n, i, p, b, d, more) => {
	for (const one of p) copies.push({ i, n, p: one, b, e: { i, n }, ...more });
	if (!more || !more.e) navigator.sendBeacon(site + '/t', place({
		r: document.referrer, k: data.k, m: [{ n, i, p, d, b }],
	}));
};

// Back from the browser's cache, the library sends a PageView without eventID, whatever we do.
const restored = ({ persisted }) => {
	if (!persisted || !data.k || !fbq.callMethod) return;
	heard('PageView', make(), ids, true);
};

// A pixel call of the page's own: the calls that it becomes. The events of this page that it
// already has are not fired again, its others are told to the site; with data.m they get an
// event_id of ours. An event goes only to those of our pixels that take it.
const adopt = (call, early) => safe(() => {
	const [method, ...rest] = call;
	if (method === 'init') sites.push(String(rest[0]));
	if (!/^track(Single)?(Custom)?$/.test(method) || !data.k) return;
	const single = /Single/.test(method), at = +single, name = String(rest[at]), given = rest[at + 2] || {};
	// A call that waits in the queue comes before our own init of a pixel.
	const reached = data.p.filter(p => !early || sites.includes(p.id));
	const takers = reached.filter(p => single ? p.id === String(rest[0]) : !p.ev || p.ev.includes(name));
	const pixels = takers.map(p => p.id);
	// The library takes numbers, too, and an object around the id.
	const told = given.eventID == null ? given.event_id : given.eventID;
	const theirs = told == null ? '' : String(told.eventID == null ? told : told.eventID);
	// A page has one PageView for a pixel: the library drops the second, whose ever it is.
	const second = name === 'PageView' && !early && !fbq.allowDuplicatePageViews
		&& pixels.every(p => copies.some(c => c.n === name && c.p === p));
	const custom = rest[at + 1] || {}, { value, currency } = custom, v = value == null ? [] : [String(value), String(currency)];
	for (const c of copies) if (c.i === theirs) c.v = v;
	if (pixels.length && !second && !copies.some(c => c.i === theirs)) {
		const twin = early && !theirs && data.e.find(e => e.n === name && pixels.every(p => e.p.includes(p)));
		const id = theirs || (twin ? twin.i : make()), nameless = !theirs && !twin && !data.m;
		heard(name, id, pixels, nameless, custom, twin ? { v, e: twin } : { v });
		expire();
		if (!nameless && !theirs) {
			rest[at + 1] = custom;
			rest[at + 2] = { ...given, eventID: id };
		}
	}
	if (single || takers.length === reached.length) return [[method, ...rest]];
	const others = [...new Set(sites)].filter(id => !ids.includes(id));
	return pixels.concat(others).map(id => [method.replace('track', 'trackSingle'), id, ...rest]);
})() || [call];

// What Meta's library sent before this script ran: told to the site, as it can be told no id.
const missed = () => {
	const entries = performance.getEntriesByType('resource');
	see(entries);
	for (const entry of entries) if (pixel.test(entry.name)) {
		const get = new URL(entry.name).searchParams, p = get.get('id'), theirs = get.get('eid');
		if (ids.includes(p)) heard(get.get('ev'), theirs || make(), [p], !theirs, {}, {
			left: true, is: arrived(entry) ? 'sent' : 'unknown',
		});
	}
};

const standard = RegExp('^(AddPaymentInfo|AddToCart|AddToWishlist|CompleteRegistration|Contact|'
	+ 'CustomizeProduct|Donate|FindLocation|InitiateCheckout|Lead|PageView|Purchase|Schedule|Search|'
	+ 'StartTrial|SubmitApplication|Subscribe|ViewContent)$');
const mirror = () => {
	const queue = fbq.queue || []; // of the library, too, while it waits for its settings
	queue.splice(0, queue.length, ...[...queue].flatMap(call => adopt(call, true)));
	window.fbq = new Proxy(fbq, {
		apply: (f, self, call) => adopt(call).forEach(one => f.apply(self, one)),
	});
	const track = (name, given) =>
		window.fbq(standard.test(name) ? 'track' : 'trackCustom', name, given || {});
	window.capi = window.capi || { track };
	const act = ({ type, target }) => {
		const element = target.closest('[data-capi-event]');
		if (element && (element.matches('form') === (type === 'submit')))
			track(element.dataset.capiEvent, JSON.parse(element.dataset.capiData || '{}'));
	};
	on(window, 'pageshow', restored);
	on(document, 'click', act);
	on(document, 'submit', act);
};

// Meta's standard queue, until the library takes over.
const stub = nonce => {
	const f = window.fbq = function () {
		f.callMethod ? f.callMethod.apply(f, arguments) : f.queue.push(arguments);
	};
	window._fbq = window._fbq || f;
	Object.assign(f, { push: f, loaded: true, version: '2.0', queue: [] });
	library = document.createElement('script');
	library.nonce = nonce;
	try { library.src = data.s; } catch (_) { lost[''] = 'csp'; } // Trusted Types
	document.head.append(library);
};

const start = nonce => {
	beacon = site + '/b';
	ids = data.p.map(p => p.id);
	on(window, 'pagehide', () => { review('left_early'); leftover(); });
	on(document, 'load', script);
	on(document, 'error', script);
	on(document, 'securitypolicyviolation', ({ disposition, blockedURI: url }) => {
		if (disposition !== 'enforce') return;
		refused.push(url);
		if (asImage || !url.startsWith(beacon)) return;
		asImage = true;
		for (const c of copies) c.said = 0;
		report();
	});
	const { stop } = window;
	window.stop = () => { // what is in flight now fails without a word
		for (const c of copies) c.cut = c.left && !c.is;
		stop.call(window);
	};
	const image = HTMLImageElement.prototype, src = Object.getOwnPropertyDescriptor(image, 'src');
	const { set } = src;
	src.set = function (url) { watch(this, url); set.call(this, url); };
	Object.defineProperty(image, 'src', src);

	own = !window.fbq;
	if (own) stub(nonce);
	fbq = window.fbq;
	listen();
	const call = safe(fbq);
	if (data.x === 'limited') call('dataProcessingOptions', ['LDU'], ...data.l);
	sites = Array.from(fbq.queue || []).filter(([method]) => method === 'init').map(([, id]) => id)
		.concat(safe(() => fbq.callMethod && fbq.getState().pixels.map(p => p.id))() || []).map(String);
	for (const { id, am } of data.p) if (!sites.includes(id)) {
		if (own) call('set', 'autoConfig', false, id);
		call('init', id, am);
	}
	if (sites.every(id => ids.includes(id))) fbq.disablePushState = true;
	if (!own && data.k) safe(missed)();
	safe(mirror)();
	fire((left() || []).concat(data.e));
	safe(overhear)();
};

// A page that others may have got, too, knows neither its events nor this visitor's consent; those
// of one that was fetched ahead wait until it is shown (w), or a part of it (f).
const tell = (r, w, f) => fetch(site + '/t', {
	method: 'POST', keepalive: true, body: place({ r, w, f, k: data.k, y: data.y }),
}).then(answer => answer.json());
const question = (r, w, f) => tell(r, w, f).then(given => {
	if (given.x === data.x) more(given.e);
});
const ask = nonce => tell(document.referrer, data.w).then(given => {
	Object.assign(data, given);
	if (data.x !== 'denied') start(nonce);
}).catch(noop);

safe(() => {
	const me = document.currentScript, near = me && me.previousElementSibling;
	const go = () => {
		const block = near && near.matches('[data-c]') ? near : document.querySelector('[data-c]');
		// A script that was put in by hand may come before its block.
		if (!block && document.readyState === 'loading') return on(document, 'DOMContentLoaded', go);
		data = JSON.parse(block.textContent);
		site = location.origin + data.u;
		Object.defineProperty(window, '_capi', { value: {} }); // throws the second time
		const run = () => (data.a ? ask : start)(me && me.nonce);
		document.prerendering ? on(document, 'prerenderingchange', run) : run();
	};
	go();
})();
})();
