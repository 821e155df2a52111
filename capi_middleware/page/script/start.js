// Reads the block, starts Meta's library and fires; whatever can wait is parsed after that.
// Meta's standard queue, until the library takes over.
const stub = nonce => {
	const f = window.fbq = (...call) => (f.callMethod ? f.callMethod(...call) : f.queue.push(call));
	window._fbq = window._fbq || f;
	Object.assign(f, { push: f, loaded: true, version: '2.0', queue: [] });
	library = Object.assign(document.createElement('script'), { nonce });
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
	fire(data.e, data.at, !!remember);
	// Not later: what storage gets as the page is left is lost if it is asked then for the first time.
	safe(remember)();
	fire(left() || []);
	if (own) safe(mirror)();
	if (!data.a) safe(forms)();
	safe(routers)();
};
// An id has its time in eight of these digits, in milliseconds.
const digits = '-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz';
// A document that a cache shows again, or for the first time when Meta forgot its ids, asks for others.
const age = safe(() => {
	const key = data.w || data.k[1], [entry] = performance.getEntriesByType('navigation');
	const wasShown = () => fired(' ' + key.slice(-20), true, true, '_capi_pages');
	const old = Date.now() - [...key.slice(1, 9)].reduce((n, one) => n * 64 + digits.indexOf(one), 0);
	// The network brought all of it, not only word that a cache has it.
	if (entry.encodedBodySize && entry.transferSize > entry.encodedBodySize && Math.abs(old) < 5000) remember = wasShown;
	else if (wasShown() || !data.w && old > 1728e5) data = { ...data, a: 1, e: [], w: '', x: undefined };
});

safe(() => {
	const me = document.currentScript, near = me?.previousElementSibling;
	const go = () => {
		const block = near?.matches('[data-c]') ? near : document.querySelector('[data-c]');
		// A script that was put in by hand may come before its block.
		if (!block && document.readyState === 'loading') return on(document, 'DOMContentLoaded', go);
		data = JSON.parse(block.textContent);
		site = new URL(data.u, location).href;
		Object.defineProperty(window, '_capi', { value: {} }); // throws the second time
		const run = () => {
			home = location.href;
			if (!data.q || !data.a) age();
			judgement();
			return (data.a ? ask : start)(me?.nonce);
		};
		const begin = () => {
			// The page may have called before: (window.capi = window.capi || []).push(['track', 'Lead']).
			const calls = window.capi || [], free = Array.isArray(calls);
			if (free) window.capi = { track, push: (...more) => more.forEach(([f, ...rest]) => safe(capi[f])(...rest)) };
			data.q ? consent(run) : run();
			if (free) capi.push(...calls);
		};
		document.prerendering ? on(document, 'prerenderingchange', begin) : begin();
	};
	go();
})();
