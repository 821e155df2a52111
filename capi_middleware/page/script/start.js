// Reads the block, starts Meta's library and fires; whatever can wait is parsed after that.
// Meta's standard queue, until the library takes over.
const stub = nonce => {
	const f = window.fbq = (...call) => (f.callMethod ? f.callMethod(...call) : f.queue.push(call));
	window._fbq = window._fbq || f;
	Object.assign(f, { push: f, loaded: true, version: '2.0', queue: [] });
	library = document.createElement('script');
	library.nonce = nonce;
	try { library.src = data.s; } catch (_) { lost[''] = 'csp'; } // Trusted Types
	document.head.append(library);
};

const start = nonce => {
	ids = data.p.map(p => p.id);
	own = !window.fbq || !(window.fbq.queue || window.fbq.callMethod); // or a placeholder
	if (own) stub(nonce);
	fbq = wrapped.get(window.fbq) || window.fbq;
	listen();
	const call = safe(fbq);
	if (data.x === 'limited') call('dataProcessingOptions', ['LDU'], ...data.l);
	sites = Array.from(fbq.queue || []).filter(([method]) => method === 'init').map(([, id]) => id)
		.concat(safe(() => fbq.callMethod && fbq.getState().pixels.map(p => p.id))() || []).map(String);
	if (!own) safe(mirror)(); // its own calls go before ours
	for (const { id, am } of data.p) if (!sites.includes(id)) {
		if (own) call('set', 'autoConfig', false, id);
		call('init', id, am);
	}
	if (sites.every(id => ids.includes(id))) fbq.disablePushState = true;
	fire((left() || []).concat(data.e), data.at);
	if (own) safe(mirror)();
	if (!data.a) safe(forms)();
	safe(routers)();
};
// Whether a cache shows this document again, or for the first time when Meta forgot its ids: it asks.
// An id has its time in eight of these digits, in milliseconds.
const digits = '-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz';
const isOld = safe(() => {
	const key = data.w || data.k[1], pages = JSON.parse(localStorage._capi_pages || '[]');
	const age = Date.now() - [...key.slice(1, 9)].reduce((n, one) => n * 64 + digits.indexOf(one), 0);
	const name = key.slice(-20), known = pages.includes(name);
	localStorage._capi_pages = json([name, ...pages].slice(0, 200));
	if (known || !data.w && age > 1728e5) data = { ...data, a: 1, e: [], w: '', x: undefined };
});

const ask = nonce => {
	safe(forms)();
	safe(watch)();
	if (!ready) {
		on(window, 'pagehide', release);
		setTimeout(release, 3000);
	}
	return tell({ r: document.referrer, w: data.w, g: data.g, h: names(data.e) }).then(given => {
		Object.assign(data, given, { e: data.e.concat(given.e) });
		if (data.x && data.x !== 'limited') return;
		start(nonce);
		for (const call of early) window.fbq(...call);
	}).catch(noop).then(release);
};

safe(() => {
	const me = document.currentScript, near = me && me.previousElementSibling;
	const go = () => {
		const block = near && near.matches('[data-c]') ? near : document.querySelector('[data-c]');
		// A script that was put in by hand may come before its block.
		if (!block && document.readyState === 'loading') return on(document, 'DOMContentLoaded', go);
		data = JSON.parse(block.textContent);
		site = new URL(data.u, location).href;
		beacon = site + '/b';
		Object.defineProperty(window, '_capi', { value: {} }); // throws the second time
		const run = () => {
			if (!data.q || !data.a) isOld();
			judgement();
			return (data.a ? ask : start)(me && me.nonce);
		};
		const begin = () => (data.q ? consent(run) : run());
		document.prerendering ? on(document, 'prerenderingchange', begin) : begin();
	};
	go();
})();
