// Fires this page's events through fbq and tells the server what became of each copy.
(() => {
	'use strict';
	const safe = f => function () { try { return f.apply(this, arguments); } catch (_) {} };
	const later = f => setTimeout(safe(f), 60); // by then CSP reports and timings are in
	const on = (target, type, f) => target.addEventListener(type, safe(f), true);
	const noop = () => {};
	const TR = /\/tr\/?\?/;
	const copies = []; // one per event and pixel
	const lost = {}; // why no event can leave: by pixel, '' for all
	const refused = []; // URLs refused by the page's CSP
	const timings = {};
	let data, fbq, own, beacon, library, listening, late, byImage, probing, observer;

	const csp = part => refused.some(url => url.includes(part));
	const locked = safe(name => RegExp(`"(${name})`).test(JSON.stringify(fbq.instance.locks)));
	const find = get => copies.find(c => c.i === get('eid') && c.p === get('id') && c.n === get('ev'));
	const see = entry => { if (TR.test(entry.name)) timings[entry.name] = entry; };

	// Was this id fired in this tab? One of a dedupe_key ("k..."): in this browser, for a week?
	const fired = safe((id, add) => {
		const memory = id[0] === 'k' ? localStorage : sessionStorage;
		const ids = JSON.parse(memory._capi || '[]').filter(([, at]) => at > Date.now() - 6048e5);
		const known = ids.some(([old]) => old === id);
		if (add && !known) memory._capi = JSON.stringify([[id, Date.now()], ...ids].slice(0, 200));
		return known;
	});

	const report = () => {
		const news = copies.filter(c => c.outcome && c.outcome !== c.said);
		if (!news.length) return;
		const body = JSON.stringify({ e: news.map(c => [c.i, c.n, c.p, c.said = c.outcome]) });
		if (byImage) {
			const text = btoa(unescape(encodeURIComponent(body)));
			new Image().src = beacon + '?e=' + text.replace(/[+/=]/g, c => ({ '+': '-', '/': '_' })[c] || '');
		} else if (!navigator.sendBeacon(beacon, body)) {
			fetch(beacon, { method: 'POST', body, keepalive: true }).catch(noop);
		}
	};

	// What an open copy has come to when time is up.
	const guess = safe((copy, end) => {
		if (copy.left) return end;
		if (locked('consent')) return 'consent';
		if (end !== 'unknown') return end;
		if (!fbq.callMethod) return 'script_blocked';
		if (locked('config:|plugin:')) return 'config_blocked';
		// A page has one PageView, and it may not have been ours.
		if (fbq.queue.length || copy.n === 'PageView' && (data.a || !own)) return end;
		return fbq.instance.pixelsByID[copy.p].eventCount && 'bot';
	});

	const review = end => {
		late = late || end;
		for (const c of copies) {
			const why = !c.left && (lost[''] || lost[c.p]);
			if (why && !c.done) c.done = c.outcome = why;
			if (end && !c.outcome) c.outcome = guess(c, end) || end;
		}
		if (!late && !copies.every(c => c.done)) return;
		removeEventListener('beforeunload', noop);
		report();
	};
	const settle = (copy, outcome) => {
		if (copy.outcome !== 'sent') copy.done = copy.outcome = outcome;
		review();
	};

	const judge = (copy, url, loaded) => {
		observer.takeRecords().forEach(see);
		const entry = timings[url.href];
		if (csp('eid=' + copy.i)) settle(copy, 'csp');
		else if (entry && (loaded || entry.transferSize || entry.nextHopProtocol)) settle(copy, 'sent');
		else if (loaded) settle(copy, 'request_replaced'); // an extension's redirect has no timing
		else if (!entry || locked('consent')) settle(copy, 'unknown');
		else probe(url.origin + url.pathname + '?id=' + copy.p).then(outcome => settle(copy, outcome));
	};

	// An empty answer is an image error, too: can the host be reached at all?
	const probe = url => probing = probing || fetch(url, { mode: 'no-cors', credentials: 'omit' }).then(
		() => 'sent',
		() => new Promise(done => later(() => done(csp(url) ? 'unknown' : 'request_blocked'))));

	const watch = safe((img, src) => {
		if (!TR.test(src)) return;
		const url = new URL(src, location), copy = find(name => url.searchParams.get(name));
		copy.left = true;
		fired(copy.i, true);
		for (const type of ['load', 'error']) on(img, type, () => later(() => judge(copy, url, type === 'load')));
	});

	// The library's own word: no proof, but the only sign of a form POST.
	const listen = safe(() => {
		if (listening || !fbq.callMethod) return;
		listening = true;
		fbq.getFbeventsModules('SignalsFBEventsFiredEvent').listen(safe((method, payload) => {
			const copy = find(name => payload.get(name));
			copy.left = true;
			fired(copy.i, true);
			if (method !== 'GET') settle(copy, 'unknown');
		}));
	});

	const script = ({ target, type }) => {
		if (target.tagName !== 'SCRIPT') return;
		listen();
		const { src } = target, failed = type === 'error';
		const [, id] = /\/signals\/config\/(\d+)/.exec(src) || [];
		if (id || target === library || /\/fbevents\.js/.test(src)) later(() => {
			const cause = id ? 'config_blocked' : failed ? 'script_blocked' : 'script_replaced';
			if (id ? failed || locked('config:' + id) : !fbq.callMethod) lost[id || ''] = csp(src) ? 'csp' : cause;
			review();
		});
	};

	const fire = events => {
		// A tab closed while loading runs pagehide only if somebody listens to this.
		addEventListener('beforeunload', noop);
		for (const e of events) if (!fired(e.i)) for (const p of e.p) {
			copies.push({ i: e.i, n: e.n, p });
			safe(fbq)(e.c ? 'trackSingleCustom' : 'trackSingle', p, e.n, e.d, { eventID: e.i });
		}
		review();
		setTimeout(safe(review), 6000, 'unknown');
	};

	// Meta's standard queue, until the library takes over.
	const stub = nonce => {
		const f = window.fbq = function () {
			f.callMethod ? f.callMethod.apply(f, arguments) : f.queue.push(arguments);
		};
		window._fbq = window._fbq || f;
		Object.assign(f, { push: f, loaded: true, version: '2.0', queue: [], disablePushState: true });
		library = document.createElement('script');
		Object.assign(library, { async: true, nonce });
		try { library.src = data.s; } catch (_) { lost[''] = 'csp'; } // Trusted Types
		document.head.append(library);
		return f;
	};

	const start = nonce => {
		beacon = location.origin + data.u + '/b';
		on(window, 'pagehide', () => review('left_early'));
		on(document, 'load', script);
		on(document, 'error', script);
		on(document, 'securitypolicyviolation', ({ disposition, blockedURI }) => {
			if (disposition !== 'enforce') return;
			refused.push(blockedURI);
			if (byImage || !blockedURI.startsWith(beacon)) return;
			byImage = true;
			for (const c of copies) c.said = 0;
			report();
		});
		observer = new PerformanceObserver(list => list.getEntries().forEach(see));
		observer.observe({ entryTypes: ['resource'] });
		const image = HTMLImageElement.prototype, { get, set } = Object.getOwnPropertyDescriptor(image, 'src');
		Object.defineProperty(image, 'src', { configurable: true, enumerable: true, get,
			set(src) { watch(this, src); set.call(this, src); } });

		own = !window.fbq;
		fbq = own ? stub(nonce) : window.fbq;
		const call = safe(fbq);
		listen();
		if (data.x === 'limited') call('dataProcessingOptions', ['LDU'], ...data.l);
		const calls = Array.from(fbq.queue || [], ([name, id]) => name === 'init' && `${id}`);
		const ready = safe(() => fbq.getState().pixels.map(({ id }) => `${id}`))() || [];
		for (const { id, am } of data.p) if (!calls.concat(ready).includes(id)) {
			if (own) call('set', 'autoConfig', false, id);
			call('init', id, am);
		}
		fire(data.e);
		if (data.a) fetch(data.u + '/t', {
			method: 'POST', keepalive: true, headers: { 'Content-Type': 'application/json' },
			body: JSON.stringify({ u: location.href, r: document.referrer }),
		}).then(answer => answer.json()).then(({ e }) => fire(e)).catch(noop);
	};

	safe(() => {
		if (window._capi) return;
		Object.defineProperty(window, '_capi', { value: 1 });
		const { currentScript: me } = document, near = me && me.previousElementSibling;
		const block = near && near.matches('[data-c]') ? near : document.querySelector('script[data-c]');
		data = JSON.parse(block.textContent);
		const run = () => start(me && me.nonce);
		document.prerendering ? on(document, 'prerenderingchange', run) : run();
	})();
})();
